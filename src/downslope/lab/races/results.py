"""What a race found: plain data for the table, the verdict and the report."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from downslope.lab.engines.protocol import LATER, Run
from downslope.lab.races import comparison, store
from downslope.lab.races.budget import Spent
from downslope.lab.races.comparison import Comparison, Interval
from downslope.lab.races.plane import Walks
from downslope.lab.races.statistics import standing
from downslope.lab.races.why import Why

if TYPE_CHECKING:
    import polars as pl


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
    title: str = field(default="", metadata=LATER)  # what people call it, where that is more than its name
    against_now: Comparison | None = field(default=None, metadata=LATER)  # of the steps that are needed; see `effects`
    tuned: bool = field(default=True, metadata=LATER)  # False: it was raced at the learning rate it came with
    default_lr: float | None = field(default=None, metadata=LATER)  # None: it has none, or was not run at it
    default_loss: float | None = field(default=None, metadata=LATER)  # geometric mean over the tuning seeds


@dataclass(frozen=True)
class Race:
    """A whole race, with everything that decides its outcome."""

    problem: str
    title: str
    task: Literal["classification", "regression"] | None  # None: nothing is predicted, or it is not known what
    data_hash: str  # empty if not known
    sizes: dict[str, int]  # rows of the train, valid and test splits; empty if there are none, or it is not known
    network: str  # for people: "64-64-10 MLP, ReLU"; empty if not known
    weights: int | None
    batch_size: int | None
    epochs: int | None
    steps_per_epoch: int | None
    learning_rates: tuple[float, ...]  # the grid every rule starts from
    seed: int  # which family of initial weights and orders of batches
    split_seed: int  # which family of splits
    tuning_seeds: tuple[int, ...]
    confirming_seeds: tuple[int, ...]  # more tuning seeds, for the learning rates that looked best
    verdict_seeds: tuple[int, ...]
    splits: int  # different splits of the data among the reporting seeds; 1: all have the same; 0: none, or not known
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
    walks: Walks | None = field(default=None, metadata=LATER)  # None: no run of the verdict moved, or was recorded
    why: Why | None = field(default=None, metadata=LATER)  # None: nobody asked
    schedule: str = field(default="constant", metadata=LATER)  # how the learning rate changes in a run
    budget: Spent | None = field(default=None, metadata=LATER)  # None: it took as long as it did
    about: str = field(default="", metadata=LATER)  # what was raced on, where the fields above do not say it
    shows: str = field(default="", metadata=LATER)  # what a right implementation shows on it, with its source

    @property
    def winner(self) -> str | None:
        """The rule that is decided to be lower than every other one and than the baseline; None if there is none."""
        baseline = {result.rule: result.against_baseline for result in self.rules if result.against_baseline}
        return comparison.winner(self.comparisons, len(self.rules), baseline if self.baseline else None)

    @property
    def now(self) -> RuleResult | None:
        """What people have now, if it was raced."""
        return next((result for result in self.rules if not result.tuned), None)

    @property
    def loss_name(self) -> str:
        """What the loss is that rules are judged by: a function has no rows, a training of one's own unknown ones."""
        return "validation loss" if self.sizes else "loss"

    @property
    def unit(self) -> Literal["epoch", "step"]:
        """What the times of its runs are counted in."""
        return "step" if self.steps_per_epoch is None else "epoch"

    @property
    def last(self) -> int:
        """The last epoch of a run, or the last step that any has reported."""
        ends = (run.times[-1] for result in self.rules for run in (*result.tuning, *result.verdict))
        return self.epochs or max(ends, default=1)

    @property
    def ranked(self) -> list[RuleResult]:
        """The rules from the lowest loss to the highest; last those that were not run on all reporting seeds."""

        def place(result: RuleResult) -> tuple[bool, tuple[int, float]]:
            losses = [run.final_loss for run in result.verdict] or [math.inf]
            return len(losses) < len(self.verdict_seeds), standing(losses)

        return sorted(self.rules, key=place)

    @property
    def level(self) -> float | None:
        """The level of the rules' intervals; None where the runs are too few for any."""
        levels = (one.loss.level for one in self.rules if one.loss is not None)
        return next((level for level in levels if not math.isnan(level)), None)

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the verdict, what is to be borne in mind, and the rules from the lowest loss on."""
        rows = [f"| | best lr | {self.loss_name} |", "|---|---|---|"]
        for one in self.ranked:
            lr = "none" if one.best_lr is None else f"{one.best_lr:.3g}"
            loss = "" if one.loss is None else f"{one.loss.estimate:.3g}"
            if one.loss is not None and not math.isnan(one.loss.low):
                loss += f" [{one.loss.low:.3g}, {one.loss.high:.3g}]"
            rows.append(f"| {_plain(one.rule)} | {lr} | {loss} |")
        said = [f"**{_plain(self.verdict)}**", *map(_plain, self.cautions)]
        return "\n\n".join([*said, "\n".join(rows)])

    def to_json(self) -> str:
        """The whole race as one JSON object, every run included; `Race.from_json` gives back an equal race.

        Raises:
            ValueError: `environment` holds what JSON cannot: anything but strings, numbers, booleans, None, lists and
                dicts; the message says where.
        """
        return store.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Race:
        """The race that `to_json` wrote.

        Raises:
            ValueError: The text is no JSON or no race of this version; the message says what is wrong and where.
        """
        return store.from_json(text, cls)

    def runs(self) -> pl.DataFrame:
        """All runs as a table with one row each, as `downslope race --csv` writes it.

        Returns:
            A frame with the columns `rule`, `lr`, `seed`, `phase` (`"tuning"` or `"verdict"`), `diverged_at` (the
            epoch, from 1, or the step; null if the run finished), `cause` (why it failed; null if it did not, or
            diverged), `train_loss`, `valid_loss` and `valid_accuracy` at the end (the losses of a run that diverged or
            failed are infinite), `best_valid_loss` (the lowest after the start), `test_loss` and `test_accuracy` (null
            where a run has none).
        """
        return store.runs_table(run for result in self.rules for run in (*result.tuning, *result.verdict))


def _plain(text: str) -> str:
    """A text in which Markdown and HTML find nothing to do."""
    return re.sub(r"([\\`*_{}\[\]<>#|$&~])", r"\\\1", text)
