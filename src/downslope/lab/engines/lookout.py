"""What there is around the weights of a run, and what its rule is about to do there."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.evaluator import Evaluator
from downslope.lab.engines.protocol import Entry, Setting, Snapshot, Surroundings, batch_size_of
from downslope.lab.engines.terrain import Terrain
from downslope.lab.problems.model import Weights
from downslope.targets.arrays import interpret, interpret_together
from downslope.targets.held_still import effective
from downslope.targets.stability import Stability, limits


class Lookout:
    """Looks around at runs, in as many threads as want to.

    Args:
        evaluator: The model and its data.
        entrants: The rules by what they are called in the race.
        rates: Gives the learning rate of every step of a run.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        entrants: Mapping[str, Entrant],
        rates: Callable[[Entry], NDArray[np.float64]],
    ):
        self.data, self.rates = evaluator.data, rates
        self._entrant = functools.cache(lambda rule, setting: entrants[rule].at(setting))
        self.terrain = Terrain(evaluator.data, evaluator.model)
        self._untrained: dict[int, tuple[float, float]] = {}  # by seed, for all rules
        self._lock = threading.Lock()
        self._stability = functools.cache(self._read_off)

    def first_weights(self, begun: Snapshot, rates: Sequence[float]) -> list[Weights]:
        """The weights after the first step of a run that has just begun, for each learning rate."""
        step = self._step(begun)
        program = self._of(begun.entry).settings.program
        with np.errstate(all="ignore"):
            steps = (interpret_together(program, step.before, {**step.numbers, "lr": lr}) for lr in rates)
            return [tuple(new["x"] for new in each) for each in steps]

    def around(self, snapshot: Snapshot) -> Surroundings | None:
        """What there is around a snapshot; None where its weights or those after the next step are not finite."""
        step = self._step(snapshot)
        if not all(np.isfinite(arrays["x"]).all() for arrays in (*step.before, *step.after)):
            return None
        seed, weights = snapshot.entry.seed, snapshot.weights
        curvature, noise_scale = self._plain(snapshot)
        root = self._root(snapshot, step)
        pairs = [(before["x"], after["x"]) for before, after in zip(step.before, step.after, strict=True)]
        layers = _layers(pairs)
        return Surroundings(
            epoch=snapshot.epoch,
            curvature=curvature,
            preconditioned=None if root is None else self.terrain.curvature(seed, weights, root),
            noise_scale=noise_scale,
            update_ratios=tuple(
                _ratio(_length([after - before for before, after in layer]), _length([before for before, _ in layer]))
                for layer in layers
            ),
            lr=step.numbers["lr"],
        )

    def _of(self, entry: Entry) -> Entrant:
        """The rule of a run in its setting."""
        found: Entrant = self._entrant(entry.rule, entry.setting)
        return found

    def _plain(self, snapshot: Snapshot) -> tuple[float, float]:
        """Curvature and noise scale, where no rule matters."""
        seed, weights = snapshot.entry.seed, snapshot.weights
        if snapshot.steps:
            return self.terrain.curvature(seed, weights), self.terrain.noise_scale(seed, weights)
        with self._lock:
            if seed not in self._untrained:
                self._untrained[seed] = self.terrain.curvature(seed, weights), self.terrain.noise_scale(seed, weights)
            return self._untrained[seed]

    def _step(self, snapshot: Snapshot) -> _Step:
        """The next step of a run, on the first batch of its next epoch; after the last, at the rate of that."""
        entry = snapshot.entry
        entrant = self._of(entry)
        program, rates = entrant.settings.program, self.rates(entry)
        lr = float(rates[min(snapshot.steps, len(rates) - 1)])
        numbers = {**entrant.numbers, "lr": lr, "t": float(snapshot.steps + 1), **snapshot.scalars}
        here = [
            {"x": x, **{name: arrays[k] for name, arrays in snapshot.states.items()}}
            for k, x in enumerate(snapshot.weights)
        ]
        with np.errstate(all="ignore"):
            ahead = program.lookahead
            point = tuple(arrays["x"] if ahead is None else interpret(ahead, arrays, numbers)["x"] for arrays in here)
            gradient = self.terrain.gradient(entry.seed, point, self._batch(snapshot))
            before = [{**arrays, "dx": dx} for arrays, dx in zip(here, gradient, strict=True)]
            return _Step(numbers, before, interpret_together(program, before, numbers))

    def _batch(self, snapshot: Snapshot) -> NDArray[np.int32]:
        """The first batch of its next epoch."""
        entry = snapshot.entry
        first: NDArray[np.int32] = self.data.order(entry.seed, snapshot.epoch + 1, batch_size_of(entry.setting))[0]
        return first

    def _root(self, snapshot: Snapshot, step: _Step) -> list[NDArray[Any]] | None:
        """The root of the factor before each gradient; None of a rule whose limit is not about it."""
        entry, lr = snapshot.entry, step.numbers["lr"]
        program = self._of(entry).settings.program
        if not lr:  # of a schedule that begins at 0
            return None
        found = self._stability(entry.rule, entry.setting, lr)
        if not found.held or not found.gain:
            return None
        roots = []
        for before, after in zip(step.before, step.after, strict=True):
            per_gradient = effective(program, {**step.numbers, **before}, after)
            assert per_gradient is not None  # it has a limit
            with np.errstate(invalid="ignore"):
                roots.append(np.sqrt(per_gradient / (lr * found.gain)))
        return roots

    def _read_off(self, rule: str, setting: Setting, lr: float) -> Stability:
        entrant = self._entrant(rule, setting)
        (found,) = limits(entrant.settings.program, {**entrant.numbers, "lr": lr}, [lr])
        return found


@dataclass(frozen=True)
class _Step:
    """A step of a rule: the numbers, then for each array of the weights all that goes in and comes out, by name."""

    numbers: dict[str, float]
    before: Sequence[Mapping[str, Any]]
    after: Sequence[Mapping[str, Any]]


def _layers(pairs: Sequence[tuple[Any, Any]]) -> list[list[tuple[Any, Any]]]:
    """Arrays before and after a step, layer by layer: a vector belongs to what is before it."""
    layers: list[list[tuple[Any, Any]]] = []
    for before, after in pairs:
        if before.ndim > 1 or not layers:
            layers.append([])
        layers[-1].append((before, after))
    return layers


def _ratio(moved: float, size: float) -> float:
    """One length over another, which may be 0."""
    return moved / size if size else math.inf if moved else 0.0


def _length(arrays: Sequence[NDArray[Any]]) -> float:
    return float(np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in arrays)))
