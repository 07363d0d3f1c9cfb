"""What a race found: plain data, passed from the protocol to the table, the verdict and the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

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
    diverged_at: int | None = None  # the epoch, from 1, in which it diverged
    test_loss: float | None = None  # only runs of the verdict see the test data, once, at the end
    test_accuracy: float | None = None

    @property
    def final_loss(self) -> float:
        """Validation loss after the last epoch; infinite when the run diverged."""
        return math.inf if self.diverged_at is not None else self.valid_loss[-1]


@dataclass(frozen=True)
class Interval:
    """A point estimate and its 95 % confidence interval; `low` and `high` are nan when too few runs allow none."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two rules on the same reporting seeds: a paired comparison of their final validation losses."""

    first: str
    second: str
    difference: Interval  # mean of first - second over the seeds where both finished
    win_probability: float  # share of the seeds on which `first` ends lower; ties count half
    p_value: float  # sign-flip permutation test, two-sided
    p_adjusted: float  # after Holm's correction over all pairs of the race
    decided: bool  # p_adjusted < 0.05


@dataclass(frozen=True)
class RuleResult:
    """All that a race found out about one rule."""

    rule: str
    formula: str  # LaTeX
    hyperparameters: dict[str, float | bool]  # those other than the learning rate, as used
    tuning: tuple[Run, ...]
    verdict: tuple[Run, ...]
    best_lr: float | None  # None: every learning rate diverged, or the race stopped before tuning was done
    safe_range: tuple[float, float] | None  # learning rates that stay within `safe_factor` of the best
    edge: Literal["low", "high"] | None  # the side on which the best value still lay on the edge when widening stopped
    loss: Interval | None  # final validation loss over the reporting seeds: median and interval
    accuracy: Interval | None
    test_loss: float | None  # medians over the reporting seeds
    test_accuracy: float | None
    steps_to_target: float | None  # median over the reporting seeds, infinite where the median run misses it
    seconds: float  # wall-clock seconds spent on training all runs of this rule


@dataclass(frozen=True)
class Race:
    """A whole race, with everything that decides its outcome."""

    problem: str
    title: str
    task: Literal["classification", "regression"]
    data_hash: str
    sizes: dict[str, int]  # rows of the train, valid and test splits
    network: str  # for people: "64-64-10 MLP, ReLU"
    weights: int
    batch_size: int
    epochs: int
    steps_per_epoch: int
    learning_rates: tuple[float, ...]  # the grid every rule starts from
    tuning_seeds: tuple[int, ...]
    confirming_seeds: tuple[int, ...]  # more tuning seeds, for the learning rates that looked best
    verdict_seeds: tuple[int, ...]
    target_loss: float | None
    target_note: str  # where the target comes from, in one sentence
    safe_factor: float
    rules: tuple[RuleResult, ...]
    comparisons: tuple[Comparison, ...]
    verdict: str  # one sentence
    interrupted: bool
    seconds: float
    environment: dict[str, Any]  # versions, machine, date
