"""Which learning rates are tried next, and what the finished runs say about each of them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from downslope.lab.engines.protocol import Engine, Entry, Progress, Run
from downslope.lab.races.allowance import Allowance, stoppable
from downslope.lab.races.plan import FINALISTS, PER_DECADE, Plan
from downslope.lab.races.plane import Trails
from downslope.lab.races.stage import Stage, StageName
from downslope.lab.races.why import Witness

WIDENINGS = 2
"""How often the grid is widened by a decade on each side where the best learning rate of a rule lies on its edge."""

Side = Literal["low", "high"]


class Tuning:
    """Finds every rule's best learning rate, has it judged on fresh seeds, and keeps the runs.

    Whatever one rule needs, all rules get: the grid is widened for all when the best learning rate of one lies on its
    edge, and all have as many learning rates confirmed. So a rule has fewer runs than another only where learning rates
    are out of its range.

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
        self.grid: set[float] = set()  # what all rules have been tried at, as far as it is in their range
        self.widenings: dict[Side, int] = {"low": 0, "high": 0}
        self.closed: set[StageName] = set()  # the parts of the race that there is no more time for
        self.confirmed: dict[str, set[float]] = {}
        self.best: dict[str, float | None] = {name: one.lr for name, one in plan.entrants.items() if one.lr}
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
            self.watch(Stage("tuning", {}))
            self.allowance.measure()

    def choose(self) -> bool:
        """Make the race as large as there is time for; False if there is none for any."""
        if self.allowance is None:
            return True
        before = self.allowance.epochs
        foreseen = self.allowance.choose(self.runs)
        if self.allowance.epochs != before:
            self.runs = []  # those that there are have more epochs than all others will have
        self._settle(self.allowance.chosen.plan)
        self.best = {name: lr for name, lr in self.best.items() if name in self.plan.entrants}
        self.watch(Stage("tuning", {}, self._later("defaults"), foreseen))
        return foreseen.fits

    def train(self, name: StageName, entries: Sequence[Entry], again: Sequence[Entry] = ()) -> None:
        """Train some runs, keep what they found, and let the watcher know.

        Args:
            name: The part of the race.
            entries: The runs; those that are finished already are not trained again.
            again: Runs that have been trained before and are now observed: what they find is known.
        """
        done = {(run.rule, run.lr, run.seed, run.phase) for run in self.runs}
        entries = [e for e in entries if (e.rule, e.lr, e.seed, e.phase) not in done] + list(again)
        known = {(entry.rule, entry.lr, entry.seed, entry.phase) for entry in again}
        epochs: dict[str, int] = {}
        for entry in entries:
            epochs[entry.rule] = epochs.get(entry.rule, 0) + self.epochs
        self._tell(Stage(name, epochs, self._later(name)))
        if self.allowance is not None:
            entries.sort(key=lambda entry: entry.seed)
        with stoppable(self.engine.train(entries)) as reports:
            for progress in reports:
                self.runs.extend(r for r in progress.finished if (r.rule, r.lr, r.seed, r.phase) not in known)
                for snapshot in progress.snapshots:
                    if self.trails is not None and snapshot.entry.phase == "verdict":
                        self.trails.add(snapshot)
                    if self.witness is not None:
                        self.witness.add(snapshot)
                self._tell(progress)
                if self.allowance is not None and self.allowance.stops(self.plan, name):
                    break
        if self.allowance is not None:
            self._drop_unfinished(name, entries)

    def _tell(self, event: Stage | Progress) -> None:
        if self.allowance is not None:
            self.allowance.watch(event)
        self.watch(event)

    def _drop_unfinished(self, name: StageName, entries: Sequence[Entry]) -> None:
        """Where a part of the race was stopped, keep its runs on those seeds that all rules have been run on."""
        assert self.allowance is not None
        done = {(run.rule, run.lr, run.seed, run.phase) for run in self.runs}
        missing = {e.seed for e in entries if (e.rule, e.lr, e.seed, e.phase) not in done}
        if not missing or name == "defaults":
            return
        seeds = self._seeds(name)
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
        lost = {(e.rule, e.lr, e.seed, e.phase) for e in entries if e.seed not in whole}
        self.runs = [run for run in self.runs if (run.rule, run.lr, run.seed, run.phase) not in lost]
        self.allowance.cut(name, len(whole), len(seeds), again=again)

    def _seeds(self, name: StageName) -> tuple[int, ...]:
        """The seeds of a part of the race."""
        if name == "verdict":
            return self.plan.verdict_seeds
        return self.plan.confirming_seeds if name == "confirming" else self.plan.tuning_seeds

    def _later(self, name: StageName) -> dict[StageName, int]:
        """The runs of each rule that are to come after a stage, as far as can be known; a wider grid cannot."""
        plan = self.plan
        runs: dict[StageName, int] = {
            "defaults": 0,
            "tuning": len(plan.learning_rates) * len(plan.tuning_seeds),
            "widening": 0,
            "confirming": min(FINALISTS, len(plan.learning_rates)) * len(plan.confirming_seeds),
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
        elif self.allowance.has_time_for(2):
            with self.allowance.repeating(self.runs):
                self.cautions += check(self.runs, self.plan.verdict_seeds[0])

    def tune(self) -> None:
        """Find every rule's best learning rate: widened where it lies on the edge, confirmed on more seeds.

        What people have now is run on all of the tuning seeds, beside the grid.
        """
        names = self.plan.tuned
        self.confirmed = {name: set() for name in names}
        given = [Entry(name, lr, seed) for name, lr in self.plan.given.items() for seed in self.plan.tuning_seeds]
        self._tune_at("tuning", dict.fromkeys(names, self.plan.learning_rates), given)
        while True:
            wider = {name: self._in_range(name, rates) for rates in [self._beyond(names)] if rates for name in names}
            if wider and self._affords("widening", wider):
                self._tune_at("widening", wider)
                continue
            doubtful = any(self._is_doubtful(name) for name in names)
            finalists = {name: self._finalists(name) for name in names if doubtful}
            if not (finalists and self._affords("confirming", finalists)):
                break
            for name, rates in finalists.items():
                self.confirmed[name].update(rates)
            self._tune_at("confirming", finalists)

    def _affords(self, name: StageName, rates: Mapping[str, Sequence[float]]) -> bool:
        """Whether there is time to run these learning rates of these rules; once there is not, there is none later."""
        if self.allowance is None:
            return True
        runs = {rule: len(rates[rule]) * len(self._seeds(name)) for rule in rates}
        again = any(self.confirmed.values()) if name == "confirming" else not self.grid <= {*self.plan.learning_rates}
        affords = name not in self.closed and self.allowance.affords(self.plan, name, runs, again=again)
        if not affords:
            self.closed.add(name)
        return affords

    def _tune_at(self, name: StageName, rates: Mapping[str, Sequence[float]], first: Sequence[Entry] = ()) -> None:
        """Train these learning rates of these rules, after some other runs, and choose again."""
        seeds = self.plan.confirming_seeds if name == "confirming" else self.plan.tuning_seeds
        entries = [Entry(rule, lr, seed) for rule in rates for lr in rates[rule] for seed in seeds]
        self.train(name, list(dict.fromkeys([*first, *entries])))
        for rule in rates:
            self.grid.update(rates[rule])
            self.best[rule], self.edges[rule] = self._choice(rule)

    def _choice(self, name: str) -> tuple[float | None, Side | None]:
        """The best learning rate of a rule, of those that have been run on most seeds, and the edge it lies on."""
        losses = self.losses(name)
        confirmed = {lr: loss for lr, loss in self.confirmed_losses(name).items() if math.isfinite(loss)}
        best, edge = choose(losses)
        if not confirmed:
            return best, edge
        best = min(confirmed, key=lambda lr: (confirmed[lr], lr))
        return best, "low" if best == min(losses) else "high" if best == max(losses) else None

    def _in_range(self, name: str, rates: Iterable[float]) -> list[float]:
        return [lr for lr in rates if lr in self.plan.entrants[name].settings.rule.ranges["lr"]]

    def _beyond(self, names: Sequence[str]) -> list[float]:
        """The learning rates to widen the grid by, for any rule whose best lies on the edge and could go on."""
        new: list[float] = []
        for side in ("low", "high"):
            if self.widenings[side] == WIDENINGS:
                continue
            further = beyond(self.grid, side)
            if any(self._in_range(name, further) for name in names if side in self._sides(name)):
                self.widenings[side] += 1
                new += further
        return new

    def _sides(self, name: str) -> tuple[Side, ...]:
        """The sides on which a rule's best learning rate lies on the edge: both if only one has been tried."""
        edge = self.edges[name]
        if edge is not None and self.best[name] is not None and len(self.grid) == 1:
            return ("low", "high")
        return () if edge is None else (edge,)

    def _finalists(self, name: str) -> list[float]:
        """The learning rates of a rule that come next on more seeds; those that diverge come last."""
        losses = self.losses(name)
        waiting = [lr for lr in losses if lr not in self.confirmed[name]]
        return sorted(waiting, key=lambda lr: (losses[lr], lr))[:FINALISTS]

    def _is_doubtful(self, name: str) -> bool:
        """Whether learning rates that look as good as those run on more seeds, or better, have not been."""
        losses, confirmed = self.losses(name), self.confirmed_losses(name)
        waiting = [loss for lr, loss in losses.items() if lr not in confirmed and math.isfinite(loss)]
        if not waiting or not self.plan.confirming_seeds:
            return False
        finite = [losses[lr] for lr, loss in confirmed.items() if math.isfinite(loss)]
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
            entries = [
                Entry(name, lr, seed, "verdict", observed=self.trails is not None and seed in self.trails.seeds)
                for name, lr in self.best.items()
                if lr
                for seed in seeds[first : first + count]
            ]
            over = (self.allowance is not None and self.allowance.over) or len(self.plan.verdict_seeds) < len(seeds)
            if entries and not over:
                self.train("verdict", entries, again if first == 0 else ())

    def _losses_at_best(self) -> list[list[float]]:
        """The losses of every rule at its best learning rate, on those tuning seeds that all have been run on there."""
        found = [
            {run.seed: run.final_loss for run in self.of(name, "tuning") if run.lr == lr}
            for name, lr in self.best.items()
            if lr
        ]
        shared = sorted(set.intersection(*map(set, found))) if found else []
        return [[losses[seed] for seed in shared] for losses in found]

    def of(self, name: str, phase: Literal["tuning", "verdict"]) -> tuple[Run, ...]:
        """The finished runs of a rule, in order of learning rate and seed."""
        runs = [run for run in self.runs if run.rule == name and run.phase == phase]
        return tuple(sorted(runs, key=lambda run: (run.lr, run.seed)))

    def losses(self, name: str) -> dict[float, float]:
        """Each learning rate's mean final validation loss over the tuning seeds, infinite where any seed diverged.

        Of the grid only: a default beside it is a learning rate that other rules have not got.

        Learning rates that have been run on more seeds have that mean over the same seeds as all others, since a mean
        over other splits of the rows would say more about these than about the learning rate.
        """
        return self._means(name, self.plan.tuning_seeds)

    def confirmed_losses(self, name: str) -> dict[float, float]:
        """The mean over tuning and confirming seeds, of those learning rates that have been run on all of them."""
        more = self.plan.confirming_seeds
        return self._means(name, self.plan.tuning_seeds + more) if more else {}

    def _means(self, name: str, seeds: Sequence[int]) -> dict[float, float]:
        found: dict[float, dict[int, float]] = {}
        for run in (run for run in self.of(name, "tuning") if run.lr in self.grid):
            found.setdefault(run.lr, {})[run.seed] = run.final_loss
        return {
            lr: statistics.fmean(by_seed[seed] for seed in seeds) if max(by_seed.values()) < math.inf else math.inf
            for lr, by_seed in sorted(found.items())
            if by_seed.keys() >= set(seeds)
        }


def choose(losses: Mapping[float, float]) -> tuple[float | None, Side | None]:
    """The learning rate with the lowest loss, and the side on which it lies on the edge of those tried.

    Args:
        losses: The mean final loss of each learning rate, infinite where a seed diverged.

    Returns:
        The best (the smaller one of equals), None if all are infinite; and the edge, where widening could still help.
        When every learning rate diverged, that is the low one.

    Example:
        >>> choose({0.01: 0.5, 0.1: 0.2, 1.0: float("inf")})
        (0.1, None)
        >>> choose({0.01: 0.5, 0.1: 0.2})
        (0.1, 'high')
    """
    if not losses:
        return None, None
    rates = sorted(losses)
    best = min(rates, key=lambda lr: (losses[lr], lr))
    if math.isinf(losses[best]):
        return None, "low"
    return best, "low" if best == rates[0] else "high" if best == rates[-1] else None


def beyond(tried: Collection[float], edge: Side) -> tuple[float, ...]:
    """A decade of learning rates beyond the edge of those tried.

    Example:
        >>> beyond({0.01, 0.1}, "high")
        (0.215, 0.464, 1.0)
    """
    end = min(tried) if edge == "low" else max(tried)
    sign = -1 if edge == "low" else 1
    return tuple(sorted(float(f"{end * 10 ** (sign * k / PER_DECADE):.3g}") for k in range(1, PER_DECADE + 1)))
