"""What trains the runs of a race: the contract of an engine, and the plain data that it is given and gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

SEEDS_PER_RACE = 1_000_000
"""Race number n has the seeds from n million on; the last six digits of a seed are the number of its split."""

DIVERGENCE_FACTOR = 1000.0
"""A run has diverged when a loss is this many times that of the untrained network. No run observed ever came back from
there in the epochs of a race, but one may take all of them to overflow 32-bit floats."""

Phase = Literal["tuning", "verdict"]


@dataclass(frozen=True)
class Run:
    """One training: one rule, one learning rate, one seed.

    The curves have one entry before training and one after every epoch. From the moment of divergence on, losses are
    infinite and accuracies zero.
    """

    rule: str
    lr: float
    seed: int
    phase: Phase
    train_loss: tuple[float, ...]
    valid_loss: tuple[float, ...]
    valid_accuracy: tuple[float, ...] | None
    diverged_at: int | None = None  # the epoch in which it diverged; 0: the untrained network had no finite loss
    test_loss: float | None = None  # only runs of the verdict see the test data, once, at the end
    test_accuracy: float | None = None

    @property
    def final_loss(self) -> float:
        """Validation loss after the last epoch; infinite when the run diverged."""
        return math.inf if self.diverged_at is not None else self.valid_loss[-1]

    @property
    def best_loss(self) -> float:
        """The lowest validation loss after any epoch: for information, since choosing the epoch by it flatters."""
        return min(self.valid_loss[1:])


@dataclass(frozen=True)
class Entry:
    """A run that is to be trained."""

    rule: str
    lr: float
    seed: int
    phase: Phase = "tuning"


@dataclass(frozen=True)
class Progress:
    """One epoch of one heat: what the engine reports while it trains.

    Attributes:
        rule: The rule of the heat.
        epochs: How many runs were trained for an epoch.
        skipped: How many epochs will not be trained because their runs diverged.
        finished: The runs that ended with this epoch.
        seconds: How long it took; the first of a heat has what goes before, above all the compilation.
    """

    rule: str
    epochs: int
    skipped: int
    finished: tuple[Run, ...]
    seconds: float = 0.0


class Engine(Protocol):
    """Trains runs of several rules on one problem.

    Attributes:
        threads: How many runs, or groups of runs, are trained beside each other.
        split_seed: Which family of splits of the rows the seeds choose from.
        varied: Whether each seed has a split of its own; otherwise all have the first of the family.
    """

    threads: int
    split_seed: int
    varied: bool

    @property
    def seconds(self) -> Mapping[str, float]:
        """Per name of a rule, the wall-clock seconds that its runs took so far."""

    def split_number(self, seed: int) -> int:
        """Which split of the family the runs of a seed are trained and validated on."""

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs, and report as they go on.

        Runs may finish in any order. When the caller stops iterating, training stops too; what was reported stays
        valid, and the engine can be used again.

        Args:
            entries: The runs; those of one rule are started in this order.

        Returns:
            One report for every epoch of whatever is trained together.

        Raises:
            ValueError: An entry names a rule that the engine does not have, or its learning rate is not positive.
        """
