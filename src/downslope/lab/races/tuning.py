"""Where rules are tried next, and what the finished runs say about each learning rate and setting."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from downslope.lab.engines.protocol import Engine, Entry, Progress, Run, Setting
from downslope.lab.races.allowance import Allowance, stoppable
from downslope.lab.races.grid import Point, Side, beyond, choose, edge_of, lowest
from downslope.lab.races.plan import FINALISTS, Plan
from downslope.lab.races.plane import Trails
from downslope.lab.races.stage import Stage, StageName
from downslope.lab.races.why import Witness

WIDENINGS = 2
"""How often the grid is widened by a decade on each side where the best learning rate of a rule lies on its edge."""


class Tuning:
    """Finds every rule's best learning rate and setting, has them judged on fresh seeds, and keeps the runs.

    Whatever one rule needs, all rules get: the learning rates are widened for all when the best of one lies on their
    edge, and all have as many points confirmed. So a rule has fewer runs than another only where learning rates are out
    of its range, or where a grid over other hyperparameters cannot be evened out.

    Args:
        engine: What trains the runs.
        plan: Rules, learning rates and seeds.
        watch: Called with each stage that begins, and with what the engine reports.
        allowance: The time that the race has; None: as much as it takes. Runs are then asked for seed by seed: where
            time is over, those on seeds that not all rules have been run on are dropped.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        watch: Callable[[Stage | Progress], None] = lambda _: None,
        allowance: Allowance | None = None,
    ):
        self.engine, self.plan, self.watch, self.allowance = engine, plan, watch, allowance
        self.runs: list[Run] = []
        self.trails: Trails | None = None  # None: the engine shows nobody its weights
        self._settle(plan)
        self.witness: Witness | None = None  # what explains the race later
        self.cautions: list[str] = []  # what was found out about the runs on the way, in sentences
        self.rates: set[float] = set()  # what all rules have been tried at, as far as it is in their range
        self.grid: dict[str, set[Point]] = {}  # and at what each has, without a default beside it
        self.widenings: dict[Side, int] = {"low": 0, "high": 0}
        self.closed: set[StageName] = set()  # the parts of the race that there is no more time for
        self.confirmed: dict[str, set[Point]] = {}
        self.best: dict[str, Point | None] = {name: Point(one.lr) for name, one in plan.entrants.items() if one.lr}
        self.edges: dict[str, Side | None] = {}

    def _settle(self, plan: Plan) -> None:
        """Go on with this plan, and the epochs that the engine has now."""
        self.plan, training = plan, self.engine.description
        self.epochs = 1 if training is None else training.epochs
        if training is not None:
            self.trails = Trails(len(plan.entrants), plan.verdict_seeds, training.epochs, training.weights)

    def measure(self) -> None:
        """Find out what runs cost, if the race has only so much time."""
        if self.allowance is not None:
            self.allowance.measure(self.watch)

    def choose(self) -> bool:
        """Make the race as large as there is time for; False if there is none for any."""
        if self.allowance is None:
            return True
        before = self.allowance.epochs
        foreseen = self.allowance.choose(self.runs)
        if self.allowance.epochs != before:
            self.runs = []  # those that there are have more epochs than all others will have
        self._settle(self.allowance.chosen.plan)
        self.best = {name: at for name, at in self.best.items() if name in self.plan.entrants}
        self.watch(Stage("tuning", {}, self._later("defaults"), foreseen))
        return foreseen.fits

    def train(self, name: StageName, entries: Sequence[Entry], again: Sequence[Entry] = ()) -> None:
        """Train some runs, keep what they found, and let the watcher know.

        Args:
            name: The part of the race.
            entries: The runs; those that are finished already are not trained again.
            again: Runs that have been trained before and are now observed: what they find is known.
        """
        done = set(map(_key, self.runs))
        asked = [entry for entry in entries if _key(entry) not in done]
        before = None if self.allowance is None or name == "defaults" else self.allowance.before(name)
        seeds = self._seeds(name) if before is None else self._seeds(name)[:before]
        entries = [entry for entry in asked if before is None or entry.seed in seeds] + list(again)
        known = set(map(_key, again))
        epochs: dict[str, int] = {}
        for entry in entries:
            epochs[entry.rule] = epochs.get(entry.rule, 0) + self.epochs
        self._tell(Stage(name, epochs, self._later(name)))
        if self.allowance is not None:
            entries.sort(key=lambda entry: entry.seed)
        with stoppable(self.engine.train(entries)) as reports:
            for progress in reports:
                self.runs.extend(run for run in progress.finished if _key(run) not in known)
                for snapshot in progress.snapshots:
                    if self.trails is not None and snapshot.entry.phase == "verdict":
                        self.trails.add(snapshot)
                    if self.witness is not None:
                        self.witness.add(snapshot)
                self._tell(progress)
                live = self.allowance is not None and before is None and not progress.kept
                if live and self.allowance is not None and self.allowance.stops(self.plan, name):
                    break
        if self.allowance is not None and name != "defaults":
            whole = self._drop_unfinished(name, [*asked, *again])
            if before is None:
                self.allowance.ran(name, whole)

    def _tell(self, event: Stage | Progress) -> None:
        if self.allowance is not None:
            self.allowance.watch(event)
        self.watch(event)

    def _drop_unfinished(self, name: StageName, entries: Sequence[Entry]) -> int:
        """Where a part of the race was stopped, keep its runs on those seeds that all rules have been run on.

        Returns:
            How many these are.
        """
        assert self.allowance is not None
        done = set(map(_key, self.runs))
        missing = {entry.seed for entry in entries if _key(entry) not in done}
        seeds = self._seeds(name)
        if not missing:
            return len(seeds)
        whole = tuple(itertools.takewhile(lambda seed: seed not in missing, seeds))
        again = name == "confirming" and any(len(c) > FINALISTS for c in self.confirmed.values())
        if name == "widening" or again:
            whole = ()  # the learning rates before were run on all seeds, and these are not compared on fewer
        elif name == "confirming":
            self.plan = replace(self.plan, confirming_seeds=whole)
        elif whole and name == "verdict":
            self.plan = replace(self.plan, verdict_seeds=whole)
        elif whole:
            self.plan = replace(self.plan, tuning_seeds=whole)
        lost = {_key(entry) for entry in entries if entry.seed not in whole}
        self.runs = [run for run in self.runs if _key(run) not in lost]
        self.allowance.cut(name, len(whole), len(seeds), again=again)
        return len(whole)

    def _seeds(self, name: StageName) -> tuple[int, ...]:
        """The seeds of a part of the race."""
        if name == "verdict":
            return self.plan.verdict_seeds
        return self.plan.confirming_seeds if name == "confirming" else self.plan.tuning_seeds

    def _later(self, name: StageName) -> dict[StageName, int]:
        """The runs of each rule that are to come after a stage, as far as can be known; a wider grid cannot."""
        plan = self.plan
        points = max(len(plan.points(rule, plan.learning_rates)) for rule in plan.tuned)
        runs: dict[StageName, int] = {
            "measuring": 0,
            "defaults": 0,
            "tuning": points * len(plan.tuning_seeds),
            "widening": 0,
            "confirming": min(FINALISTS, points) * len(plan.confirming_seeds),
            "verdict": len(plan.verdict_seeds),
            "explaining": int(self.witness is not None),
        }
        order = list(runs)
        return {stage: runs[stage] for stage in order[order.index(name) + 1 :] if runs[stage]}

    def begin_with_defaults(self) -> None:
        """Run every rule once at its default learning rate, and once what keeps its own: what people have now."""
        self.train("defaults", [Entry(name, lr, self.plan.tuning_seeds[0]) for name, lr in self.plan.given.items()])

    def check(self, check: Callable[[Sequence[Run], int], Sequence[str]]) -> None:
        """See what the first runs say about code of the user's own, if there is time for two more runs.

        Args:
            check: Given these runs and another seed, what is to be borne in mind; it makes two runs.
        """
        if self.allowance is None:
            self.cautions += check(self.runs, self.plan.verdict_seeds[0])
        elif self.allowance.checks():
            with self.allowance.repeating(self.runs):
                self.cautions += check(self.runs, self.plan.verdict_seeds[0])

    def tune(self) -> None:
        """Find every rule's best learning rate: widened where it lies on the edge, confirmed on more seeds.

        What people have now is run on all of the tuning seeds, beside the grid.
        """
        names = self.plan.tuned
        self.confirmed = {name: set() for name in names}
        given = [Entry(name, lr, seed) for name, lr in self.plan.given.items() for seed in self.plan.tuning_seeds]
        self.rates = set(self.plan.learning_rates)
        self._tune_at("tuning", {name: self._points(name, self.plan.learning_rates) for name in names}, given)
        while True:
            further = self._beyond(names)
            wider = {name: [at for end, rates in further for at in self._points(name, rates, end)] for name in names}
            if further and self._affords("widening", wider):
                self.rates.update(*(rates for _, rates in further))
                self._tune_at("widening", wider)
                continue
            doubtful = any(self._is_doubtful(name) for name in names)
            finalists = {name: self._finalists(name) for name in names if doubtful}
            if not (finalists and self._affords("confirming", finalists)):
                break
            for name, points in finalists.items():
                self.confirmed[name].update(points)
            self._tune_at("confirming", finalists)

    def _affords(self, name: StageName, points: Mapping[str, Sequence[Point]]) -> bool:
        """Whether there is time to run these rules there; once there is not, there is none later."""
        if self.allowance is None:
            return True
        runs = {rule: len(points[rule]) * len(self._seeds(name)) for rule in points}
        again = any(self.confirmed.values()) if name == "confirming" else not self.rates <= {*self.plan.learning_rates}
        affords = name not in self.closed and self.allowance.affords(self.plan, name, runs, again=again)
        if not affords:
            self.closed.add(name)
        return affords

    def _tune_at(self, name: StageName, points: Mapping[str, Sequence[Point]], first: Sequence[Entry] = ()) -> None:
        """Train these rules there, after some other runs, and choose again."""
        seeds = self.plan.confirming_seeds if name == "confirming" else self.plan.tuning_seeds
        entries = [
            Entry(rule, at.lr, seed, setting=at.setting) for rule in points for at in points[rule] for seed in seeds
        ]
        self.train(name, list(dict.fromkeys([*first, *entries])))
        for rule in points:
            self.grid.setdefault(rule, set()).update(points[rule])
            self.best[rule], self.edges[rule] = self._choice(rule)

    def _choice(self, name: str) -> tuple[Point | None, Side | None]:
        """Where a rule is best, of where it has been run on most seeds, and the edge that its learning rate lies on."""
        losses = self._means(name, self.plan.tuning_seeds)
        confirmed = {at: loss for at, loss in self._confirmed(name).items() if math.isfinite(loss)}
        best, edge = choose(losses)
        if not confirmed:
            return best, edge
        best = lowest(confirmed)
        return best, edge_of(best, losses)

    def _points(self, name: str, rates: Sequence[float], beside: float | None = None) -> list[Point]:
        """Where a rule is tried at these learning rates, as far as they are in its range."""
        allowed = self.plan.entrants[name].settings.rule.ranges["lr"]
        return [at for at in self.plan.points(name, rates, beside) if at.lr in allowed]

    def _beyond(self, names: Sequence[str]) -> list[tuple[float, tuple[float, ...]]]:
        """The learning rates to widen the grid by, for any rule whose best lies on the edge and could go on.

        On each side where that is so: the edge, and those beyond it.
        """
        new: list[tuple[float, tuple[float, ...]]] = []
        for side in ("low", "high"):
            if self.widenings[side] == WIDENINGS:
                continue
            further = beyond(self.rates, side)
            if any(self._points(name, further) for name in names if side in self._sides(name)):
                self.widenings[side] += 1
                new.append((min(self.rates) if side == "low" else max(self.rates), further))
        return new

    def _sides(self, name: str) -> tuple[Side, ...]:
        """The sides on which a rule's best learning rate lies on the edge: both if only one has been tried."""
        edge = self.edges[name]
        if edge is not None and self.best[name] is not None and len(self.rates) == 1:
            return ("low", "high")
        return () if edge is None else (edge,)

    def _finalists(self, name: str) -> list[Point]:
        """Where a rule is run next on more seeds; where it diverges comes last."""
        losses = self._means(name, self.plan.tuning_seeds)
        waiting = [at for at in losses if at not in self.confirmed[name]]
        return sorted(waiting, key=lambda at: (losses[at], at.lr))[:FINALISTS]

    def _is_doubtful(self, name: str) -> bool:
        """Whether a rule has not been run on more seeds where it looks as good as where it has, or better."""
        losses, confirmed = self._means(name, self.plan.tuning_seeds), self._confirmed(name)
        waiting = [loss for at, loss in losses.items() if at not in confirmed and math.isfinite(loss)]
        if not waiting or not self.plan.confirming_seeds:
            return False
        finite = [losses[at] for at, loss in confirmed.items() if math.isfinite(loss)]
        return not finite or min(waiting) < min(finite)

    def judge(self, again: Sequence[Entry] = ()) -> None:
        """Run every rule's best learning rate on fresh seeds, and see where the weights go.

        Args:
            again: Runs that have been trained before, and are to be observed.
        """
        parts = [len(self.plan.verdict_seeds)]
        if self.allowance is not None:
            fresh = self.allowance.fresh_seeds(self.plan, self.best, self._losses_at_best())
            if not fresh:
                return
            counts = len(self.plan.tuning_seeds), len(self.plan.confirming_seeds)
            parts = self.allowance.parts(fresh, parts[0])
            self._settle(replace(self.plan, verdict_seeds=self.plan.with_seeds(*counts, fresh).verdict_seeds))
        seeds = self.plan.verdict_seeds
        for first, count in zip(itertools.accumulate(parts, initial=0), parts, strict=False):
            some = seeds[first : first + count]
            seen = set() if self.trails is None else {seed for seed in some if seed in self.trails.seeds}
            entries = [
                Entry(name, at.lr, seed, "verdict", observed=seed in seen, setting=at.setting)
                for name, at in self.best.items()
                if at
                for seed in some
            ]
            over = (self.allowance is not None and self.allowance.over) or len(self.plan.verdict_seeds) < len(seeds)
            if entries and not over:
                self.train("verdict", entries, again if first == 0 else ())

    def _losses_at_best(self) -> list[list[float]]:
        """The losses of every rule at its best learning rate, on those tuning seeds that all have been run on there."""
        found = [
            {run.seed: run.final_loss for run in self.of(name, "tuning") if (run.lr, run.setting) == at}
            for name, at in self.best.items()
            if at
        ]
        shared = sorted(set.intersection(*map(set, found))) if found else []
        return [[losses[seed] for seed in shared] for losses in found]

    @property
    def tries(self) -> dict[str, int]:
        """At how many points each rule was tried, each on all tuning seeds."""
        return {name: len(self._means(name, self.plan.tuning_seeds)) for name in self.grid}

    def looks_around(self, entry: Entry) -> bool:
        """Whether all of a run that is observed is to be seen, to explain the race."""
        return self.witness is not None and self.witness.wants(entry)

    def best_lr(self, name: str) -> float | None:
        """The best learning rate of a rule; None where there is none, or not yet."""
        best = self.best.get(name)
        return None if best is None else best.lr

    def setting(self, name: str) -> Setting:
        """The best setting of a rule; where there is none, or not yet, the first that it has."""
        best = self.best.get(name)
        return self.plan.settings.get(name, ((),))[0] if best is None else best.setting

    def of(self, name: str, phase: Literal["tuning", "verdict"]) -> tuple[Run, ...]:
        """The finished runs of a rule, in order of learning rate, setting and seed."""
        runs = [run for run in self.runs if run.rule == name and run.phase == phase]
        return tuple(sorted(runs, key=lambda run: (run.lr, run.setting, run.seed)))

    def losses(self, name: str) -> dict[float, float]:
        """Each learning rate's mean final validation loss over the tuning seeds, infinite where any seed diverged.

        Of the grid only: a default beside it is a learning rate that other rules have not got. With other
        hyperparameters on a grid, in the setting with which the best learning rate is the best.

        Learning rates that have been run on more seeds have that mean over the same seeds as all others, since a mean
        over other splits of the rows would say more about these than about the learning rate.
        """
        chosen = self.best.get(name) or Point(0.0)
        means = self._means(name, self.plan.tuning_seeds)
        return {at.lr: loss for at, loss in means.items() if at.setting == chosen.setting}

    def _confirmed(self, name: str) -> dict[Point, float]:
        """The mean over tuning and confirming seeds, of where a rule has been run on all of them."""
        more = self.plan.confirming_seeds
        return self._means(name, self.plan.tuning_seeds + more) if more else {}

    def _means(self, name: str, seeds: Sequence[int]) -> dict[Point, float]:
        found: dict[Point, dict[int, float]] = {}
        for run in self.of(name, "tuning"):
            if (at := Point(run.lr, run.setting)) in self.grid.get(name, set()):
                found.setdefault(at, {})[run.seed] = run.final_loss
        return {
            at: statistics.fmean(by_seed[seed] for seed in seeds) if max(by_seed.values()) < math.inf else math.inf
            for at, by_seed in sorted(found.items())
            if by_seed.keys() >= set(seeds)
        }


def _key(one: Run | Entry) -> tuple[str, float, Setting, int, str]:
    """What a run is told by from all others of a race."""
    return one.rule, one.lr, one.setting, one.seed, one.phase
