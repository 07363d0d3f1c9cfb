"""Which learning rates are tried next, and what the finished runs say about each of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from downslope.lab.engines.protocol import Engine, Entry, Progress, Run
from downslope.lab.races.plan import PER_DECADE, Plan
from downslope.lab.races.plane import Trails
from downslope.lab.races.why import Witness

WIDENINGS = 2
"""How often the grid is widened by a decade on each side where the best learning rate of a rule lies on its edge."""

FINALISTS = 4
"""How many learning rates of every rule are confirmed at a time."""

Side = Literal["low", "high"]

StageName = Literal["defaults", "tuning", "widening", "confirming", "verdict"]


@dataclass(frozen=True)
class Stage:
    """A part of the race that is about to begin.

    Attributes:
        name: `"defaults"`, `"tuning"`, `"widening"`, `"confirming"` or `"verdict"`.
        epochs: For every rule that takes part, the epochs to be trained.
    """

    name: StageName
    epochs: Mapping[str, int]


class Tuning:
    """Finds every rule's best learning rate, has it judged on fresh seeds, and keeps the runs.

    Whatever one rule needs, all rules get: the grid is widened for all when the best learning rate of one lies on its
    edge, and all have as many learning rates confirmed. So a rule has fewer runs than another only where learning rates
    are out of its range.

    Args:
        engine: What trains the runs.
        plan: Rules, learning rates and seeds.
        watch: Called with each stage that begins, and with what the engine reports.
    """

    def __init__(self, engine: Engine, plan: Plan, watch: Callable[[Stage | Progress], None]):
        self.engine, self.plan, self.watch = engine, plan, watch
        self.runs: list[Run] = []
        training = engine.description
        self.epochs = 1 if training is None else training.epochs
        self.trails: Trails | None = None  # None: the engine shows nobody its weights
        if training is not None:
            self.trails = Trails(len(plan.entrants), plan.verdict_seeds, training.epochs, training.weights)
        self.witness: Witness | None = None  # what explains the race later
        self.cautions: list[str] = []  # what was found out about the runs on the way, in sentences
        self.grid: set[float] = set()  # what all rules have been tried at, as far as it is in their range
        self.widenings: dict[Side, int] = {"low": 0, "high": 0}
        self.confirmed: dict[str, set[float]] = {}
        self.best: dict[str, float | None] = {name: one.lr for name, one in plan.entrants.items() if one.lr}
        self.edges: dict[str, Side | None] = {}

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
        self.watch(Stage(name, epochs))
        for progress in self.engine.train(entries):
            self.runs.extend(r for r in progress.finished if (r.rule, r.lr, r.seed, r.phase) not in known)
            for snapshot in progress.snapshots:
                if self.trails is not None and snapshot.entry.phase == "verdict":
                    self.trails.add(snapshot)
                if self.witness is not None:
                    self.witness.add(snapshot)
            self.watch(progress)

    def begin_with_defaults(self) -> None:
        """Run every rule once at its default learning rate, and once what keeps its own: what people have now."""
        self.train("defaults", [Entry(name, lr, self.plan.tuning_seeds[0]) for name, lr in self.plan.given.items()])

    def tune(self) -> None:
        """Find every rule's best learning rate: widened where it lies on the edge, confirmed on more seeds.

        What people have now is run on all of the tuning seeds, beside the grid.
        """
        names = self.plan.tuned
        self.confirmed = {name: set() for name in names}
        given = [Entry(name, lr, seed) for name, lr in self.plan.given.items() for seed in self.plan.tuning_seeds]
        self._tune_at("tuning", dict.fromkeys(names, self.plan.learning_rates), given)
        while True:
            if beyond_edges := self._beyond(names):
                self._tune_at("widening", {name: self._in_range(name, beyond_edges) for name in names})
            elif any(self._is_doubtful(name) for name in names):
                finalists = {name: self._finalists(name) for name in names}
                for name, rates in finalists.items():
                    self.confirmed[name].update(rates)
                self._tune_at("confirming", finalists)
            else:
                break

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
        entries = [
            Entry(name, lr, seed, "verdict", observed=self.trails is not None and seed in self.trails.seeds)
            for name, lr in self.best.items()
            if lr
            for seed in self.plan.verdict_seeds
        ]
        if entries:
            self.train("verdict", entries, again)

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
