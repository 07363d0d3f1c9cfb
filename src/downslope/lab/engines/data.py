"""The data of a problem as its runs see it: all rows on the device once, and what each seed makes of them.

The split of the rows and the order of batches follow from the seed alone, and so they are the same for every rule.

No row is scaled beforehand. A lane knows its rows by their numbers, and scales a batch when it takes it; so as many
splits as there are lanes cost hardly more than one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.order import batch_order, drawn
from downslope.lab.engines.protocol import SEEDS_PER_RACE
from downslope.lab.problems.columns import Columns, Scaling
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.problem import Parts, Problem

CACHED_ORDER_BYTES = 64 * 2**20
CACHED_SPLIT_BYTES = 64 * 2**20

MOST_EVALUATED = 2048
"""Rows of a lane that are evaluated at a time."""

MOST_PIECES = 64
"""Rather than in more pieces of the size that suits the validation rows, others are evaluated in larger ones."""


class Rows(NamedTuple):
    """Which rows every lane is evaluated on, in chunks of equal length; what is not present is padding."""

    total: int
    chunks: list[tuple[NDArray[np.int32], NDArray[np.bool_]]]  # row numbers `(lanes, rows)`, present `(rows,)`


class Scales(NamedTuple):
    """What each lane does to the rows it takes, as `Scaling` says; None where nothing is to be done."""

    x: tuple[Any, ...] | None  # shift, factor and, where values are missing, fill: each of shape `(lanes, features)`
    y: tuple[Any, ...] | None


class ScaledSplit(NamedTuple):
    """A split of the rows, and how its training rows scale features and targets; None where nothing is scaled."""

    parts: Parts
    x: Scaling | None
    y: Scaling | None


class Data:
    """The rows of a problem, and which of them a seed trains and validates on.

    Args:
        problem: Where the rows come from.
        split_seed: Which family of splits of the rows the seeds choose from.
        varied: Whether each seed has a split of its own; otherwise all have the first of the family.

    Attributes:
        x: The features of all rows, on the device.
        y: The targets of all rows, on the device.
        batch_size: Rows per step, at most all training rows.
        steps: Steps per epoch.
    """

    def __init__(self, problem: Problem | Examples, split_seed: int, varied: bool):
        self.problem = problem
        self.split_seed, self.varied = split_seed, varied
        self.device = jax.devices("cpu")[0]  # networks this small leave a GPU idle
        if isinstance(problem, Examples):
            x, y = problem.x, problem.y
        else:
            x = problem.columns.values
            y = problem.targets.values if isinstance(problem.targets, Columns) else problem.targets
        self.x, self.y = (jax.device_put(a, self.device) for a in (x, y))
        self.gaps = x.dtype.kind == "f" and bool(np.isnan(x).any())
        self._splits = functools.lru_cache(max(4, CACHED_SPLIT_BYTES // (4 * len(y))))(self._split)
        first = self.split(0).parts
        rows = len(first.train)
        self.batch_size = problem.batch_size if problem.draws else min(problem.batch_size, rows)
        self.steps = problem.draws or rows // self.batch_size
        pieces = -(-len(first.valid) // MOST_EVALUATED)
        self.piece = -(-len(first.valid) // pieces)
        each = 4 * self.steps * self.batch_size
        self.order = functools.lru_cache(max(8, CACHED_ORDER_BYTES // each))(self._order)

    def split_number(self, seed: int) -> int:
        """Which split of the family a seed has."""
        return seed % SEEDS_PER_RACE if self.varied and self.problem.parts is None else 0

    def split(self, seed: int) -> ScaledSplit:
        """The split of a seed, and how its training rows scale all rows."""
        return self._splits(self.split_number(seed))

    def _split(self, number: int) -> ScaledSplit:
        problem = self.problem
        parts = problem.split(self.split_seed, number)
        if isinstance(problem, Examples):
            return ScaledSplit(parts, None, None)
        targets = problem.targets if isinstance(problem.targets, Columns) else None
        x, y = (
            None if columns is None or set(columns.kinds) <= {"ready"} else columns.scaling(parts.train)
            for columns in (problem.columns, targets)
        )
        return ScaledSplit(parts, x, y)

    def _order(self, seed: int, epoch: int, batch_size: int | None = None) -> NDArray[np.int32]:
        """The row numbers of the batches of an epoch, shape `(steps, batch)`; `order` keeps those last asked for."""
        train = self.split(seed).parts.train
        batch_size, steps = self.in_batches(batch_size)
        if self.problem.draws:
            return train[drawn(seed, epoch, len(train), batch_size, steps)]
        return train[batch_order(seed, epoch, len(train), batch_size)]

    def in_batches(self, batch_size: int | None) -> tuple[int, int]:
        """Rows per step, at most all training rows, and steps per epoch; None: those of the problem."""
        if batch_size is None:
            return self.batch_size, self.steps
        if self.problem.draws:
            return batch_size, self.problem.draws
        rows = len(self.split(0).parts.train)
        return min(batch_size, rows), rows // min(batch_size, rows)

    def scales(self, seeds: Sequence[int]) -> Scales:
        """What is done to the rows of lanes with these seeds."""
        splits = [self.split(seed) for seed in seeds]
        return Scales(_stacked([one.x for one in splits], self.gaps), _stacked([one.y for one in splits], False))

    def train_rows(self, seeds: Sequence[int]) -> Rows:
        """The training rows of lanes with these seeds."""
        return self._rows([self.split(seed).parts.train for seed in seeds])

    def valid_rows(self, seeds: Sequence[int]) -> Rows:
        """The validation rows of lanes with these seeds."""
        return self._rows([self.split(seed).parts.valid for seed in seeds])

    def test_rows(self, lanes: int) -> Rows:
        """The test rows, which are the same for all seeds."""
        return self._rows([self.problem.test_rows] * lanes)

    def _rows(self, lanes: Sequence[NDArray[np.int32]]) -> Rows:
        """The rows of each lane, cut into pieces of equal length, so that one program evaluates them all."""
        total = len(lanes[0])
        large = min(total, MOST_EVALUATED)
        piece = self.piece if large <= MOST_PIECES * self.piece else large
        numbers = np.stack(lanes)
        numbers = np.pad(numbers, ((0, 0), (0, -total % piece)))
        starts = range(0, total, piece)
        return Rows(total, [(numbers[:, s : s + piece], np.arange(s, s + piece) < total) for s in starts])


def taken(rows: Any, scales: Scales, x: Any, y: Any) -> tuple[Any, Any]:
    """Some rows of all, scaled as the lane does it."""

    def take(values: Any, scale: tuple[Any, ...] | None) -> Any:
        found = values.at[rows].get(mode="promise_in_bounds")
        if scale is None:
            return found
        shift, factor, *fill = scale
        scaled = (found - shift) * factor
        return jnp.where(jnp.isnan(found), fill[0], scaled) if fill else scaled

    return take(x, scales.x), take(y, scales.y)


def _stacked(scalings: Sequence[Scaling | None], gaps: bool) -> tuple[NDArray[np.float32], ...] | None:
    known = [one for one in scalings if one is not None]
    if not known:
        return None
    names = ("shift", "factor", "fill")[: 3 if gaps else 2]
    return tuple(np.stack([getattr(one, name) for one in known]).astype(np.float32) for name in names)
