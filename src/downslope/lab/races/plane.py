"""Where the runs of the verdict went: their walks through the space of all weights, on a plane for every seed.

On a seed all rules set out from the same weights. The plane of the seed passes through that start, which is drawn where
it is; no point is drawn farther from it than it was. Of all such planes it is the one that keeps most of the squared
distances of the runs from their start, where every run counts alike, however far it went: the mean of the shares that
are kept of each is as high as it can be. With the displacements from the start as the rows of A, one for each run and
epoch, those of a run divided by the root of the sum of their squares, it is spanned by the first two right singular
vectors of A. They are read off the eigenvectors of A Aᵀ, which is small however many weights there are.

Seeds have no plane in common: hidden units have no order, so the walks of two seeds are all but at right angles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.protocol import Run, Snapshot

STOPS = 40
"""Epochs at which a walk is looked at, at most, besides its start."""

POINTS = 4000
"""Points in all: with more, fewer seeds are looked at, but always one. It bounds pages, time and memory."""

NUMBERS = 2**25
"""What all points together may keep, in 32-bit floats: 128 MiB."""


@dataclass(frozen=True)
class Walk:
    """A run on the plane of its seed.

    Attributes:
        rule: The rule of the run.
        x: Coordinates along the first direction, in the unit of the weights, from 0 at the start on: at each of
            `Walks.epochs`, or at the first of them only, up to the last before the run diverged.
        y: Those along the second.
        distance: How far the end is from the start, in all dimensions.
        length: How long the way was, in all dimensions and straight from one of the epochs to the next.
        shown: The share of the run's squared distances from the start that the plane keeps; None if it did not move.
    """

    rule: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    distance: float
    length: float
    shown: float | None


@dataclass(frozen=True)
class Plane:
    """The runs of a seed on one plane.

    Attributes:
        seed: The seed.
        shown: The share of the squared distances from the start that the first and the second direction keep: of each
            run that moved, and the mean of these.
        walks: One for each rule whose run ended, in the order of the race.
    """

    seed: int
    shown: tuple[float, float]
    walks: tuple[Walk, ...]


@dataclass(frozen=True)
class Walks:
    """The walks of a race.

    Attributes:
        epochs: The epochs of every point, 0 first.
        error: The standard deviation of what distances are off by, as a share: 0, unless there are so many weights that
            only sums of them were kept.
        planes: One for each seed that is looked at and on which a run moved.
    """

    epochs: tuple[int, ...]
    error: float
    planes: tuple[Plane, ...]


class Trails:
    """Keeps what is needed of the weights that runs had under way.

    Args:
        rules: How many rules are run on each seed.
        seeds: The seeds of the verdict.
        epochs: Epochs of a run.
        weights: How many weights the network has.

    Attributes:
        seeds: The seeds whose runs are to be observed: the first few where all would make too many points.
        epochs: The epochs that are kept: all, or `STOPS` of them, closer together at first, where more happens.
    """

    def __init__(self, rules: int, seeds: Sequence[int], epochs: int, weights: int):
        count = min(epochs, STOPS)
        power = 1 if count == epochs else 2
        self.epochs = tuple(sorted({round(epochs * (stop / count) ** power) for stop in range(count + 1)}))
        self.seeds = tuple(seeds[: max(1, POINTS // (rules * len(self.epochs)))])
        self._brief = _Brief(weights, NUMBERS // (rules * len(self.seeds) * len(self.epochs)))
        self._starts: dict[tuple[str, int], NDArray[np.float64]] = {}
        self._moves: dict[tuple[str, int], list[NDArray[np.float32]]] = {}

    @property
    def size(self) -> int:
        """How many numbers are kept of the weights."""
        return self._brief.size

    @property
    def summed(self) -> bool:
        """Whether these are sums of weights, in double precision, and not the weights themselves."""
        return self._brief.error > 0

    def brief(self, weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """What is kept of the weights of a run, one vector."""
        return self._brief(weights)

    def add(self, snapshot: Snapshot) -> None:
        """Keep a run's displacement from its start. A run's snapshots are to come in order, from epoch 0 on."""
        key = (snapshot.entry.rule, snapshot.entry.seed)
        if snapshot.epoch not in self.epochs:
            return
        brief = self.brief(snapshot.weights) if snapshot.brief is None else snapshot.brief
        if snapshot.epoch == 0:
            self._starts[key], self._moves[key] = brief, []
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges, whose last point is not shown
                self._moves[key].append((brief - self._starts[key]).astype(np.float32))

    def walks(self, runs: Sequence[Run]) -> Walks | None:
        """The walks of the runs that ended; None if there are none, or nothing moved."""
        planes = [self._plane(seed, [run for run in runs if run.seed == seed]) for seed in self.seeds]
        laid = tuple(plane for plane in planes if plane is not None)
        return Walks(self.epochs, self._brief.error, laid) if laid else None

    def _plane(self, seed: int, runs: Iterable[Run]) -> Plane | None:
        moves = {run: self._shown(run) for run in runs if (run.rule, seed) in self._moves}
        lengths = {run: float(np.linalg.norm(points)) for run, points in moves.items()}
        alike = [moves[run] / length for run, length in lengths.items() if length > 0]
        if not alike:
            return None
        kept, axes = _directions(np.concatenate(alike))
        places = {run: points @ axes for run, points in moves.items()}
        turned = _turned(list(places.values()))
        walks = (_walk(run.rule, moves[run], place * turned) for run, place in places.items())
        return Plane(seed, (_digits(kept[0] / len(alike)), _digits(kept[1] / len(alike))), tuple(walks))

    def _shown(self, run: Run) -> NDArray[np.float64]:
        """The displacements of a run after the epochs at which it has a loss, one row each."""
        losses = [run.valid_loss[epoch] for epoch in self.epochs[1:]]
        moves = self._moves[run.rule, run.seed][: sum(map(math.isfinite, losses))]
        return np.array(moves, np.float64).reshape(len(moves), self._brief.size)


class _Brief:
    """The weights of a network as one vector of at most so many numbers.

    Where there are more weights, each is added, with a random sign, to one of that many sums (Charikar, Chen and
    Farach-Colton, "Finding frequent items in data streams", 2002). Squared distances then have the right mean and a
    standard deviation of at most √(2/size) of themselves, distances of half of that.
    """

    def __init__(self, weights: int, most: int):
        self.size = min(weights, most)
        self.error = 0.0 if weights <= most else 1 / math.sqrt(2 * most)
        rng = np.random.default_rng(0)
        self._sums = (rng.integers(0, most, weights), rng.choice([-1.0, 1.0], weights)) if weights > most else None

    def __call__(self, weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        flat = np.concatenate([array.ravel() for array in weights]).astype(np.float64)
        if self._sums is None:
            return flat
        places, signs = self._sums
        return np.asarray(np.bincount(places, signs * flat, self.size), np.float64)


def _directions(rows: NDArray[np.float64]) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """What the first two singular directions of some rows keep of their squares, and the directions as columns."""
    from scipy.linalg import eigh

    count = len(rows)
    values, vectors = eigh(rows @ rows.T, subset_by_index=(max(0, count - 2), count - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = np.where(values > 1e-12 * values[0], values, 0.0)  # of less, only rounding is left
    with np.errstate(divide="ignore", invalid="ignore"):
        axes = np.where(kept > 0, rows.T @ vectors / np.sqrt(kept), 0.0)
    missing = 2 - len(kept)
    kept, axes = np.pad(kept, (0, missing)), np.pad(axes, ((0, 0), (0, missing)))
    return (float(kept[0]), float(kept[1])), axes


def _turned(places: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The signs with which walks go to the right, and the first one above: so that planes of seeds look alike."""
    across = sum(float(place[:, 0].sum()) for place in places)
    up = next((float(place[:, 1].sum()) for place in places if place[:, 1].any()), 0.0)
    return np.where(np.array([across, up]) < 0, -1.0, 1.0)


def _walk(rule: str, moves: NDArray[np.float64], places: NDArray[np.float64]) -> Walk:
    steps = np.linalg.norm(np.diff(moves, axis=0, prepend=0.0), axis=1)
    squares = float((moves**2).sum())
    widest = float(np.abs(places).max(initial=0.0))
    decimals = 3 - math.floor(math.log10(widest)) if widest > 0 else 0
    return Walk(
        rule=rule,
        x=_from_start(places[:, 0], decimals),
        y=_from_start(places[:, 1], decimals),
        distance=_digits(np.linalg.norm(moves[-1])) if len(moves) else 0.0,
        length=_digits(steps.sum()),
        shown=_digits((places**2).sum() / squares) if squares > 0 else None,
    )


def _from_start(values: NDArray[np.float64], decimals: int) -> tuple[float, ...]:
    return (0.0, *(float(value) + 0.0 for value in np.round(values, decimals)))  # + 0: no zero has a sign


def _digits(value: Any) -> float:
    return float(f"{value:.4g}")
