"""A race while it runs: what is trained next, and what the finished runs say about each learning rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from downslope.formula import Range
from downslope.lab.problems import Problem
from downslope.lab.results import Run

if TYPE_CHECKING:
    from downslope.lab.engine import Engine, Entry, Progress

PER_DECADE = 3
WIDENINGS = 2
"""How often the grid is widened by a decade on the side where the best learning rate lies on its edge."""

FINALISTS = 2
"""How many learning rates of a rule are confirmed at a time."""

StageName = Literal["tuning", "widening", "confirming", "verdict"]


@dataclass(frozen=True)
class Stage:
    """A part of the race that is about to begin.

    Attributes:
        name: `"tuning"`, `"widening"`, `"confirming"` or `"verdict"`.
        epochs: For every rule that takes part, the epochs to be trained.
    """

    name: StageName
    epochs: Mapping[str, int]


class Course:
    """The race while it runs: which runs have finished, and what they say about each learning rate."""

    def __init__(
        self,
        engine: Engine,
        problem: Problem,
        rates: tuple[float, ...],
        tuning_seeds: tuple[int, ...],
        confirming_seeds: tuple[int, ...],
        watch: Callable[[Stage | Progress], None],
    ):
        self.engine, self.problem, self.rates, self.watch = engine, problem, rates, watch
        self.tuning_seeds, self.confirming_seeds = tuning_seeds, confirming_seeds
        self.runs: list[Run] = []
        self.allowed: dict[str, Range] = {}
        self.widenings: dict[str, int] = {}
        self.best: dict[str, float | None] = {}
        self.edges: dict[str, Literal["low", "high"] | None] = {}

    def train(self, name: StageName, entries: Sequence[Entry]) -> None:
        """Train some runs, keep what they found, and let the watcher know."""
        epochs: dict[str, int] = {}
        for entry in entries:
            epochs[entry.rule] = epochs.get(entry.rule, 0) + self.problem.epochs
        self.watch(Stage(name, epochs))
        for progress in self.engine.train(entries):
            self.runs.extend(progress.finished)
            self.watch(progress)

    def tune(self, names: Sequence[str]) -> None:
        """Find every rule's best learning rate: widened where it lies on the edge, confirmed on more seeds."""
        self.widenings = dict.fromkeys(names, 0)
        confirmed: dict[str, set[float]] = {name: set() for name in names}
        self._tune_at("tuning", dict.fromkeys(names, self.rates))
        while True:
            beyond_edges = {name: rates for name in names if (rates := self._beyond(name))}
            if beyond_edges:
                for name in beyond_edges:
                    self.widenings[name] += 1
                self._tune_at("widening", beyond_edges)
                continue
            doubtful = {name: rates for name in names if (rates := self._doubtful(name, confirmed[name]))}
            if not doubtful:
                break
            for name, rates in doubtful.items():
                confirmed[name].update(rates)
            self._tune_at("confirming", doubtful)

    def _tune_at(self, name: StageName, rates: Mapping[str, Sequence[float]]) -> None:
        """Train these learning rates of these rules, and choose again."""
        from downslope.lab.engine import Entry

        seeds = self.confirming_seeds if name == "confirming" else self.tuning_seeds
        self.train(name, [Entry(rule, lr, seed) for rule in rates for lr in rates[rule] for seed in seeds])
        for rule in rates:
            self.best[rule], self.edges[rule] = choose(self.losses(rule))

    def _beyond(self, name: str) -> list[float]:
        """The learning rates to widen a rule's grid by, if its best lies on the edge and it may be widened."""
        edge = self.edges[name]
        if edge is None or self.widenings[name] == WIDENINGS:
            return []
        return [lr for lr in beyond(self.losses(name), edge) if lr in self.allowed[name]]

    def _doubtful(self, name: str, confirmed: set[float]) -> list[float]:
        """The learning rates to run on more seeds, if a rule's best has not been."""
        best = self.best[name]
        if best is None or best in confirmed or not self.confirming_seeds:
            return []
        losses = self.losses(name)
        unsure = [lr for lr in losses if lr not in confirmed and math.isfinite(losses[lr])]
        return sorted(unsure, key=losses.__getitem__)[:FINALISTS]

    def judge(self, seeds: Sequence[int]) -> None:
        """Run every rule's best learning rate on fresh seeds."""
        from downslope.lab.engine import Entry

        entries = [Entry(name, lr, seed, "verdict") for name, lr in self.best.items() if lr for seed in seeds]
        if entries:
            self.train("verdict", entries)

    def of(self, name: str, phase: Literal["tuning", "verdict"]) -> tuple[Run, ...]:
        """The finished runs of a rule, in order of learning rate and seed."""
        runs = [run for run in self.runs if run.rule == name and run.phase == phase]
        return tuple(sorted(runs, key=lambda run: (run.lr, run.seed)))

    def losses(self, name: str) -> dict[float, float]:
        """Each learning rate's mean final validation loss, of those where all tuning seeds have been run."""
        found: dict[float, list[float]] = {}
        for run in self.of(name, "tuning"):
            found.setdefault(run.lr, []).append(run.final_loss)
        complete = {lr: values for lr, values in found.items() if len(values) >= len(self.tuning_seeds)}
        return {lr: statistics.fmean(values) for lr, values in sorted(complete.items())}


def choose(losses: Mapping[float, float]) -> tuple[float | None, Literal["low", "high"] | None]:
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


def beyond(losses: Mapping[float, float], edge: Literal["low", "high"]) -> tuple[float, ...]:
    """A decade of learning rates beyond the edge of those tried.

    Example:
        >>> beyond({0.01: 0.5, 0.1: 0.2}, "high")
        (0.215, 0.464, 1.0)
    """
    end = min(losses) if edge == "low" else max(losses)
    sign = -1 if edge == "low" else 1
    return tuple(sorted(float(f"{end * 10 ** (sign * k / PER_DECADE):.3g}") for k in range(1, PER_DECADE + 1)))
