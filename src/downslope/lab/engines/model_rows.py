"""The rows that models of the user's own see: how they are split, and in which batches they are trained on."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.learner import Sight
from downslope.lab.engines.order import batch_order
from downslope.lab.engines.protocol import SEEDS_PER_RACE
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.problem import Parts, Problem

KEPT = 16
"""So many splits of the rows are kept."""


class ModelRows:
    """The rows that models see.

    Args:
        examples: What they learn from.
        split_seed: Which family of splits of the rows the seeds choose from.
        varied: Whether each seed has a split of its own; otherwise all have the first of the family.
        seed: One that a run will have.

    Attributes:
        batch_size: Rows per step.
        steps: Steps of an epoch.
    """

    def __init__(self, examples: Problem | Examples, split_seed: int, varied: bool, seed: int):
        self.varied = varied
        self._split = functools.lru_cache(KEPT)(lambda number: examples.split(split_seed, number))
        self._sight = functools.lru_cache(KEPT)(lambda number: Sight(*examples.prepared(self._split(number))))
        self._scaled = examples.scaled  # else all see the same, and take it from the same place
        self._rows = len(self.parts(seed).train)
        self.batch_size = min(examples.batch_size, self._rows)
        self.steps = self._rows // self.batch_size

    def split_number(self, seed: int) -> int:
        """Which split of the family the runs of a seed are trained and validated on."""
        return seed % SEEDS_PER_RACE if self.varied else 0

    def parts(self, seed: int) -> Parts:
        """The numbers of the rows that a seed trains, validates and tests on."""
        return self._split(self.split_number(seed))

    def sight(self, seed: int) -> Sight:
        """All rows as the runs of a seed see them."""
        return self._sight(self.split_number(seed) if self._scaled else 0)

    def steps_with(self, batch_size: int | None) -> int:
        """Steps of an epoch with batches of another size; None: with those of all runs."""
        return self.steps if batch_size is None else self._rows // min(batch_size, self._rows)

    def batches(self, seed: int, epoch: int, batch_size: int | None = None) -> NDArray[np.int32]:
        """The rows of every step of an epoch, counted from 1; shape `(steps, rows per step)`."""
        train = self.parts(seed).train
        return train[batch_order(seed, epoch, len(train), batch_size or self.batch_size)]
