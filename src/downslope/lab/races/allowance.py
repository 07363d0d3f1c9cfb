"""The time that a race has left: what its runs cost, what is made of it, and when it is over."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from downslope.lab.engines.protocol import Engine, Entry, Progress, Run, priced
from downslope.lab.races.budget import (
    LEAST_SEEDS,
    MOST_SEEDS,
    Budget,
    Chosen,
    Foreseen,
    Spent,
    by_importance,
    candidates,
    duration,
    proves,
    spread_of,
)
from downslope.lab.races.decisions import Decisions
from downslope.lab.races.forecast import Forecast
from downslope.lab.races.grid import Point
from downslope.lab.races.plan import FINALISTS, Plan
from downslope.lab.races.stage import Stage, StageName

AIM = 0.9
"""The share of the time that a race is chosen for: the rest is for what costs more than it did when it was measured."""

MEASURED = 2
"""So many epochs of each rule are trained to measure it, after the first, which is compiled."""

EXPLAINING = 0.2
"""The share of the time that is kept for saying why."""

TELLING = 0.03
"""The share of the time that is kept for what comes after the last run."""

REPORT = 2_070_000
"""The bytes of a report beside its numbers, above all the library that draws its pictures."""

REMEDY = "give it more time, fewer rules or shorter runs"

SAFE = 1.5
"""How many times what the least verdict is expected to take is kept for it, where it is trained all at once."""


class Allowance:
    """The time of a race.

    Args:
        budget: How much there is.
        engine: What trains the runs.
        plan: The race that is made if there is time for it.
        shorten: Gives the runs of the engine fewer epochs; None where a run is as long as it is.
        why: Whether time is kept for explaining the race.
        decisions: What was decided of the race before it was stopped.

    Attributes:
        dropped: What was left out on the way, in sentences.
        over: Whether the race ends before all of its rules are judged.
    """

    def __init__(
        self,
        budget: Budget,
        engine: Engine,
        plan: Plan,
        *,
        shorten: Callable[[int], None] | None = None,
        why: bool = False,
        decisions: Decisions | None = None,
    ):
        self.budget, self.engine, self.plan = budget, engine, plan
        self._shorten, training = shorten, engine.description
        self.decisions = Decisions() if decisions is None else decisions
        self._begun = (budget.clock() if budget.begun is None else budget.begun) - self.decisions.spent
        self._end = self._begun + budget.seconds * (1 - TELLING - (EXPLAINING if why else 0.0))
        self.epochs = None if training is None else training.epochs
        self.forecast = Forecast(
            plan.entrants,
            self.epochs or 1,
            engine.threads,
            compiled=training is not None,
            kinds={name: plan.kinds(name) for name in plan.entrants},
        )
        self.chosen = self._usual = Chosen(plan, self.epochs)
        self.dropped: list[str] = []
        self.over = False
        self._measured = self._counts = self._checked = False
        self.proves = ""
        self._spread: float | None = None

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._end - self.budget.clock()

    def watch(self, event: Stage | Progress) -> None:
        """Take in what happens, to know what runs cost.

        Where many at a time have been measured, a first run of each rule, for itself, says less. What a run took that
        was finished before the race was stopped is known.
        """
        if isinstance(event, Stage):
            self._counts = not (self._measured and event.name == "defaults")
        if self._counts and isinstance(event, Stage):
            self.forecast.begin(event)
        elif self._counts and isinstance(event, Progress):
            if event.kept and not self._measured:
                parts = self.epochs or 1
                part = replace(event, kept=False, epochs=1, skipped=0, seconds=event.seconds / parts)
                for _ in range(parts):
                    self.forecast.add(part)
            else:
                self.forecast.add(event)

    def _decide(self, what: str, find: Callable[[], Any]) -> Any:
        """What was decided before or, where nothing was, what is found now."""
        return self.decisions.decide(what, find, elapsed=self.budget.clock() - self._begun)

    def before(self, stage: StageName) -> int | None:
        """On how many of its seeds a part of the race was run by all rules, before it was stopped; None: it was not."""
        note = self.decisions.known(stage)
        return None if note is None else int(note.value)

    def ran(self, stage: StageName, seeds: int) -> None:
        """Take note of on how many of its seeds a part of the race was run by all rules."""
        self._decide(stage, lambda: seeds)

    def end(self, *, raced: bool) -> None:
        """Take note that the race came to its end.

        Args:
            raced: Whether it has any run; where all time went into measuring, it is not over but begins anew next time.
        """
        if raced:
            self._decide("end", lambda: None)
        else:
            self.decisions.forget()

    def measure(self, watch: Callable[[Stage], None]) -> None:
        """Train a few epochs of each rule, to know what they cost; where runs are reported one by one, a run.

        If runs of a rule take different times, it is measured in each of its settings that does. Half of the time is
        not spent for that: what the last rules cost is then taken to be what the others do.

        Args:
            watch: Called with what is measured next.
        """
        if self.decisions.ended:
            return
        rates, seeds = self.plan.learning_rates, self.plan.tuning_seeds
        kinds = [(name, kind) for name in by_importance(self.plan.entrants) for kind in self.plan.kinds(name)]
        half, many = self.left / 2, min(self.engine.threads, len(kinds))
        enough = 0 if self.epochs is None else MEASURED
        self.watch(Stage("tuning", {}))
        for group in (kinds[k : k + many] for k in range(0, len(kinds), many)):
            watch(Stage("measuring", dict.fromkeys((name for name, _ in group), 0)))
            entries = [
                Entry(name, at.lr, seed, setting=at.setting)
                for name, kind in group
                for seed in seeds
                for at in self.plan.points(name, rates)
                if priced(at.setting) == kind
            ]
            seen = dict.fromkeys(group, 0)
            with stoppable(self.engine.train(entries)) as reports:
                for progress in reports:
                    self.watch(progress)
                    seen[progress.rule, progress.setting] += progress.epochs > 0 or progress.kept
                    if self.left < half or min(seen.values()) > enough:
                        break
            if self.left < half:
                break
        self._measured = True

    def checks(self) -> bool:
        """Whether there is time for two runs that say what a training of the user's own is."""
        self._checked = len(self.decisions.notes) > 1
        return bool(self._decide("check", lambda: self.has_time_for(2)))

    @contextlib.contextmanager
    def repeating(self, finished: Sequence[Run]) -> Iterator[None]:
        """Around two further runs of the first rule: take in what they take, now that what they load is loaded."""
        began = self.budget.clock()
        yield
        seconds = self.budget.clock() - began
        first = next((run.rule for run in finished if run.diverged_at is None), None)
        if first is not None and seconds > 0 and not self._measured and not self._checked:
            self.forecast.replace(first, 2 * (self.epochs or 1), seconds)

    def choose(self, finished: Sequence[Run]) -> Foreseen:
        """Choose the largest race that there is time for.

        Args:
            finished: The runs that are there already.
        """
        place, seconds, left = self._decide("choose", self._largest)
        self.chosen = next(itertools.islice(candidates(self.plan, self.budget.settled, self.epochs), place, None))
        fits, plan, epochs = seconds <= AIM * left, self.chosen.plan, self.chosen.epochs
        self.over = not fits
        if fits and epochs is not None and epochs != self.epochs:
            assert self._shorten is not None
            self._shorten(epochs)
            self.forecast.epochs = self.epochs = epochs
        if not fits:
            self.dropped.append(
                f"Of {duration(self.budget.seconds)}, {duration(max(0.0, left))} were left when the rules had been "
                f"measured, and the smallest race, of {self._sentence()}, takes about "
                f"{duration(seconds)}: {REMEDY}."
            )
        stages = _stages(plan)
        runs = sum(sum(stage.values()) for stage in stages.values())
        self.proves = proves(len(plan.verdict_seeds), varied=self._varied)
        return Foreseen(
            seconds=seconds,
            runs=runs,
            disk=disk(runs, epochs, finished),
            chosen=self._sentence(),
            proves=self.proves,
            fits=fits,
        )

    def _largest(self) -> tuple[int, float, float]:
        """The place of the largest race that fits, what it takes, and the time that there is."""
        last, seconds, left = 0, math.inf, self.left
        for last, chosen in enumerate(candidates(self.plan, self.budget.settled, self.epochs)):  # noqa: B007
            seconds = self._takes(chosen)
            if seconds <= AIM * left:
                break
        return last, seconds, left

    def _takes(self, chosen: Chosen) -> float:
        """What a race takes, with what is kept for its verdict."""
        stages = _stages(chosen.plan)
        verdict = self.forecast.takes([("verdict", stages.pop("verdict"))], chosen.epochs)
        return self.forecast.takes(stages.items(), chosen.epochs) + max(verdict, self._kept(chosen.plan, chosen.epochs))

    def _sentence(self) -> str:
        more = math.isfinite(self.budget.seconds) and "verdict_seeds" not in self.budget.settled
        return self.chosen.sentence(self._usual, more=more)

    @property
    def _varied(self) -> bool:
        return self.epochs is not None and self.plan.splits == "varied"

    def affords(self, plan: Plan, stage: StageName, runs: Mapping[str, int], *, again: bool = False) -> bool:
        """Whether there is time for a part of the race, and for what comes after it.

        Args:
            plan: The race as it is now.
            stage: The part.
            runs: The runs of each rule in it.
            again: Whether there was such a part before.
        """
        parts = {stage: runs} | ({"confirming": _stages(plan)["confirming"]} if stage == "widening" else {})
        if self._decide(f"affords {stage}", lambda: self.left >= self.forecast.takes(parts.items()) + self._kept(plan)):
            return True
        further = " further" if again else ""
        what = {
            "widening": f"The grid was not widened{further} where a best learning rate lay on its edge",
            "confirming": "Beyond those learning rates that were confirmed, others that looked as good were not"
            if again
            else "The learning rates that looked best were not run on more seeds",
        }[stage]
        self.dropped.append(f"{what}: there was no time for it.")
        return False

    def has_time_for(self, runs: int, kept: float = 0.0) -> bool:
        """Whether so many runs can be made, one after the other, and so much time is left after them."""
        return self.left > kept + self.forecast.takes([("verdict", {next(iter(self.plan.entrants)): runs})])

    def stops(self, plan: Plan, stage: StageName) -> bool:
        """Whether a part of the race has to end now, before its next run or epoch."""
        kept = 0.0 if stage in ("defaults", "verdict") else self._kept(plan)
        if self.epochs is None:
            return not self.has_time_for(1, kept)
        return self.left < kept

    def _kept(self, plan: Plan, epochs: int | None = None) -> float:
        """What is kept for the verdict: more where all of its runs end at once, and all would be lost."""
        least = dict.fromkeys(plan.entrants, min(LEAST_SEEDS, len(plan.verdict_seeds)))
        return (1.0 if self.epochs is None else SAFE) * self.forecast.takes([("verdict", least)], epochs)

    def cut(self, stage: StageName, done: int, of: int, *, again: bool = False) -> None:
        """Take note that a part of the race was stopped.

        Args:
            stage: The part.
            done: On how many of its seeds all rules have been run, and count.
            of: How many seeds it has.
            again: Whether there was such a part before, which counts.
        """
        kept = f"only {done} of {of} seeds were run by all rules, and nothing else counts"
        if not done:
            kept = f"none of {of} seeds was run by all rules, and nothing of it counts"
            kept += "" if stage == "confirming" else f"; {REMEDY}"
        if stage == "verdict":
            self.over = done == 0
            self.proves = proves(done or of, varied=self._varied, spread=self._spread)
            self.dropped.append(f"Time was over during the verdict: {kept}.")
        elif stage == "tuning":
            self.over = done == 0
            self.dropped.append(f"Tuning took longer than expected: {kept}.")
        elif stage == "widening":
            self.dropped.append("There was no time to try the wider grid with all rules, so that nothing of it counts.")
        elif stage == "confirming" and again:
            self.dropped.append(
                "There was no time to confirm further learning rates with all rules: those confirmed before count."
            )
        elif stage == "confirming":
            self.dropped.append(f"There was no time to confirm all learning rates: {kept}.")

    def fresh_seeds(self, plan: Plan, best: Mapping[str, Point | None], losses: Sequence[Sequence[float]]) -> int:
        """How many fresh seeds there is time for.

        Args:
            plan: The race as it is now.
            best: Where every rule is best; None where it is nowhere.
            losses: For each rule the losses of its best learning rate on the seeds that all have been run on.
        """
        wanted = len(plan.verdict_seeds)
        most = wanted if "verdict_seeds" in self.budget.settled else MOST_SEEDS
        judged = [rule for rule, at in best.items() if at]
        self.forecast.kinds |= {rule: [priced(at.setting)] for rule, at in best.items() if at}
        room = AIM * self.left
        if self.over or not judged:
            return 0
        fitting = (n for n in range(most, 0, -1) if self.forecast.takes(self._judging(n, wanted, judged)) <= room)
        seeds = int(self._decide("fresh seeds", lambda: next(fitting, 0)))
        if seeds < wanted:
            self.dropped.append(f"There was time for {seeds} of {wanted} fresh seeds{'' if seeds else f': {REMEDY}'}.")
        self.over = not seeds
        logs = [[math.log(max(loss, 1e-12)) for loss in of_rule] for of_rule in losses]
        self._spread = spread_of(logs)
        self.proves = proves(seeds or wanted, varied=self._varied, spread=self._spread)
        return seeds

    def _judging(self, seeds: int, wanted: int, judged: Sequence[str]) -> list[tuple[StageName, dict[str, int]]]:
        """The runs of every rule in the parts of a verdict."""
        return [("verdict", dict.fromkeys(judged, part)) for part in self.parts(seeds, wanted)]

    def parts(self, seeds: int, wanted: int) -> list[int]:
        """In which parts so many fresh seeds are run, so that not all is lost where time is over.

        Args:
            seeds: How many there are.
            wanted: How many were to be: these come first, where runs are trained rule by rule.
        """
        if self.epochs is None or seeds <= wanted:
            return [seeds]
        return [wanted, seeds - wanted]

    def spent(self) -> Spent:
        """What was made of the time."""
        return Spent(self.budget.seconds, self._sentence(), self.proves, tuple(self.dropped), self.over)


def _stages(plan: Plan) -> dict[StageName, dict[str, int]]:
    """The runs of every rule in each part of a race, if the grid is not widened."""
    seeds, tries = len(plan.tuning_seeds), {name: len(plan.points(name, plan.learning_rates)) for name in plan.tuned}
    confirmed = {name: min(FINALISTS, count) * len(plan.confirming_seeds) for name, count in tries.items()}
    return {
        "tuning": {name: seeds * (tries.get(name, 0) + (name in plan.given)) for name in plan.entrants},
        "confirming": confirmed,
        "verdict": dict.fromkeys(plan.entrants, len(plan.verdict_seeds)),
    }


def disk(runs: int, epochs: int | None, finished: Sequence[Run]) -> tuple[int, int, int]:
    """About how many bytes the report, the JSON and the CSV of a race have.

    Args:
        runs: Its trainings.
        epochs: Epochs of a run; None where a run is as long as it is.
        finished: Runs that there are already, from which the length of their curves is known.
    """
    points = epochs + 1 if epochs is not None else max((len(run.valid_loss) for run in finished), default=2)
    curves = 2.5 if epochs is not None else 1.5  # two or three losses at each, or one and its step
    json = int(7_000 + runs * (280 + 21 * curves * points))
    in_page = int(0.55 * min(json, 1_600_000))  # deflated; that and the pictures of a larger one
    return REPORT + in_page, json, 100 + runs * 95


@contextlib.contextmanager
def stoppable(reports: Iterator[Progress]) -> Iterator[Iterator[Progress]]:
    """Reports of an engine, which stops training when this is left."""
    try:
        yield reports
    finally:
        if isinstance(reports, Generator):
            reports.close()
