"""The losses of a run of which every epoch is known, while it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from downslope.lab.engines.protocol import DIVERGENCE_FACTOR, Entry, Run


class Losses(NamedTuple):
    """One entry of the curves of a run."""

    train: float
    valid: float
    accuracy: float


@dataclass
class Recorder:
    """Records the losses of a run that is being trained."""

    entry: Entry
    curve: list[Losses]  # the first is that of the untrained network
    diverged_at: int | None = None
    cause: str = ""  # why it failed, where that was not by diverging
    told: int = 0  # so many losses have been reported while it went on

    @property
    def epochs(self) -> int:
        """How many it has been trained."""
        return len(self.curve) - 1

    @property
    def starts_finite(self) -> bool:
        """Whether the losses of the untrained network are finite."""
        return math.isfinite(self.curve[0].train) and math.isfinite(self.curve[0].valid)

    @property
    def has_run_away(self) -> bool:
        """Whether a loss is so many times that of the untrained network that the run counts as diverged."""
        start, now = self.curve[0], self.curve[-1]
        bounded = now.train <= DIVERGENCE_FACTOR * start.train and now.valid <= DIVERGENCE_FACTOR * start.valid
        return not bounded  # also where a loss is nan

    def add(self, losses: Losses) -> None:
        """Take in the losses after an epoch."""
        self.curve.append(losses)

    def news(self) -> tuple[tuple[Entry, int, float], ...]:
        """The validation losses that have not been reported yet, each after how many epochs."""
        times = range(self.told, len(self.curve))
        self.told = len(self.curve)
        return tuple((self.entry, time, self.curve[time].valid) for time in times)

    def fail(self, cause: str) -> None:
        """Take in why the run fails in its next epoch, or before its first loss."""
        self.cause, self.diverged_at = cause, len(self.curve)

    def run(self, epochs: int, has_accuracy: bool, test: tuple[float, float] | None) -> Run:
        """The run as it ended.

        Args:
            epochs: Those it was to be trained.
            has_accuracy: Whether its accuracies mean anything.
            test: Loss and accuracy on the test rows; None where nobody looked at them.
        """
        curve = list(self.curve)
        if self.diverged_at is not None:
            curve[self.diverged_at :] = [Losses(math.inf, math.inf, 0.0)] * (epochs + 1 - self.diverged_at)
        return Run(
            rule=self.entry.rule,
            lr=self.entry.lr,
            seed=self.entry.seed,
            phase=self.entry.phase,
            train_loss=tuple(losses.train for losses in curve),
            valid_loss=tuple(losses.valid for losses in curve),
            valid_accuracy=tuple(losses.accuracy for losses in curve) if has_accuracy else None,
            diverged_at=self.diverged_at,
            test_loss=None if test is None else test[0],
            test_accuracy=None if test is None or not has_accuracy else test[1],
            cause=self.cause,
            setting=self.entry.setting,
        )
