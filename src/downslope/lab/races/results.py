"""What a race found: plain data, passed from the protocol to the table, the verdict and the report."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from downslope.lab.engines.protocol import Run

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Interval:
    """A point estimate and its confidence interval; all but the estimate is nan when too few runs allow none."""

    estimate: float
    low: float
    high: float
    level: float  # the confidence that the interval reaches, such as 0.96875


Outcome = Literal["first", "second", "alike", "undecided"]
"""Which of two rules is lower, by more than the margin; `"alike"` if they are shown to differ by less."""


@dataclass(frozen=True)
class Comparison:
    """Two rules on the same reporting seeds: a paired comparison of their final validation losses."""

    first: str
    second: str
    ratio: Interval  # geometric mean of the losses of `first` / `second`; 0 or infinite if one diverged more often
    win_probability: float  # share of the seeds on which `first` ends lower; ties count half
    p_value: float  # sign-flip test against all ratios within the margin, two-sided
    p_adjusted: float  # after correction for all pairs of the race
    outcome: Outcome  # what table, matrix and sentence go by

    @property
    def decided(self) -> bool:
        """Whether one rule is lower than the other."""
        return self.outcome in ("first", "second")

    def turned(self) -> Comparison:
        """The same comparison with the second rule first."""
        swapped: dict[Outcome, Outcome] = {"first": "second", "second": "first"}
        estimate, low, high = (
            math.inf if ratio == 0 else 1 / ratio for ratio in (self.ratio.estimate, self.ratio.high, self.ratio.low)
        )
        return replace(
            self,
            first=self.second,
            second=self.first,
            ratio=Interval(estimate, low, high, self.ratio.level),
            win_probability=1 - self.win_probability,
            outcome=swapped.get(self.outcome, self.outcome),
        )


@dataclass(frozen=True)
class Baseline:
    """What predicting the same for every row gives, on the validation rows of the reporting seeds.

    For a regression that is the mean of the training targets, for a classification the frequencies of the classes among
    the training rows and, for the accuracy, the most frequent one.
    """

    losses: tuple[float, ...]  # one per reporting seed
    loss: Interval  # their geometric mean
    accuracy: Interval | None


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
    loss: Interval | None  # final validation loss: geometric mean over the reporting seeds, infinite if one diverged
    finished_loss: float | None  # the same over those runs that finished
    best_loss: Interval | None  # each run's lowest validation loss of any epoch: for information, nothing goes by it
    accuracy: Interval | None  # arithmetic mean over the reporting seeds; a run that diverged has accuracy 0
    test_loss: Interval | None  # geometric mean
    test_accuracy: Interval | None
    against_baseline: Comparison | None
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
    seed: int  # which family of initial weights and orders of batches
    split_seed: int  # which family of splits
    tuning_seeds: tuple[int, ...]
    confirming_seeds: tuple[int, ...]  # more tuning seeds, for the learning rates that looked best
    verdict_seeds: tuple[int, ...]
    splits: int  # different splits of the data among the reporting seeds; 1: all have the same
    overlap: float  # validation rows per training row if every reporting seed has its own split, otherwise 0
    margin: float  # the smallest difference in loss that matters, as a share
    target_loss: float | None
    target_note: str  # where the target comes from, in one sentence
    safe_factor: float
    rules: tuple[RuleResult, ...]
    baseline: Baseline | None
    comparisons: tuple[Comparison, ...]
    verdict: str  # one sentence
    cautions: tuple[str, ...]  # what to bear in mind with it, in sentences
    remarks: tuple[str, ...]  # how the table was read, where that was not the plain way, in sentences
    interrupted: bool
    seconds: float
    environment: dict[str, Any]  # versions, machine, date

    @property
    def winner(self) -> str | None:
        """The rule that is decided to be lower than every other one and than the baseline; None if there is none."""
        from downslope.lab.races.verdict import winner

        baseline = {result.rule: result.against_baseline for result in self.rules if result.against_baseline}
        return winner(self.comparisons, len(self.rules), baseline if self.baseline else None)

    def to_json(self) -> str:
        """The whole race as one JSON object, every run included; `Race.from_json` gives back an equal race."""
        from downslope.lab.races.store import race_to_json

        return race_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Race:
        """The race that `to_json` wrote.

        Raises:
            ValueError: The text is no JSON or no race of this version; the message says what is wrong and where.
        """
        from downslope.lab.races.store import race_from_json

        return race_from_json(text)

    def runs(self) -> pl.DataFrame:
        """All runs as a table with one row each, as `downslope race --csv` writes it.

        Returns:
            A frame with the columns `rule`, `lr`, `seed`, `phase` (`"tuning"` or `"verdict"`), `diverged_at` (the
            epoch, from 1; null if the run finished), `train_loss`, `valid_loss` and `valid_accuracy` after the last
            epoch (the losses of a run that diverged are infinite), `best_valid_loss` (the lowest after any epoch),
            `test_loss` and `test_accuracy` (null where a run has none).
        """
        from downslope.lab.races.store import runs_table

        return runs_table(self)
