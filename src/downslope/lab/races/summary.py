"""The table of a race as data: a row for each rule, the lowest loss first, and one for the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from downslope.lab.engines.protocol import Run, how_lost, said
from downslope.lab.races.comparison import Interval
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.statistics import geometric_mean


@dataclass(frozen=True)
class Runs:
    """How many runs there were, how many of them were lost, and in a word how."""

    count: int
    lost: int
    how: str = "diverged"

    @property
    def some_lost(self) -> bool:
        """Whether some were lost and others were not, so that a mean over all of them is infinite."""
        return 0 < self.lost < self.count


@dataclass(frozen=True)
class Row:
    """What the table says about a rule, or about the baseline; None where there is nothing to say.

    Attributes:
        name: What the rule is called; None for the baseline.
        title: What people call it, where that is more than its name.
        best_lr: Its best learning rate; where it was not tuned, its own.
        tuned: Whether it was tuned.
        no_best_lr: Why there is none.
        setting: What a grid was found to give it besides.
        edge: The side of the grid on which the best learning rate still lay at the end.
        safe_range: The learning rates around the best that stay within the race's `safe_factor` of its loss.
        loss: The mean validation loss over the reporting seeds.
        finished_loss: The same over the runs that did not diverge.
        accuracy: The mean validation accuracy.
        best_loss: The mean of each run's lowest validation loss of any epoch.
        test_loss: The mean test loss.
        finished_test_loss: The same over the runs that did not diverge.
        test_accuracy: The mean test accuracy.
        default_lr: Its default learning rate, if it was run at it.
        default_loss: The mean loss there, over the tuning seeds.
        steps: The median number of steps to the target, infinite where it is missed.
        seconds: The seconds of training, of all runs.
        tuning: The runs of tuning.
        verdict: The runs of the verdict.
    """

    name: str | None
    title: str = ""
    best_lr: float | None = None
    tuned: bool = True
    no_best_lr: str = ""
    setting: str = ""
    edge: Literal["low", "high"] | None = None
    safe_range: tuple[float, float] | None = None
    loss: Interval | None = None
    finished_loss: float | None = None
    accuracy: Interval | None = None
    best_loss: Interval | None = None
    test_loss: Interval | None = None
    finished_test_loss: float | None = None
    test_accuracy: Interval | None = None
    default_lr: float | None = None
    default_loss: float | None = None
    steps: float | None = None
    seconds: float | None = None
    tuning: Runs = Runs(0, 0)
    verdict: Runs = Runs(0, 0)


def rows_of(race: Race) -> list[Row]:
    """The rows of the table: the rules, the lowest loss first, and the baseline if there is one."""
    found = [_row(result) for result in race.ranked]
    if race.baseline is not None:
        found.append(Row(None, loss=race.baseline.loss, accuracy=race.baseline.accuracy))
    return found


def shown(race: Race) -> set[str]:
    """Which fields of rows there is something to say in, of those that not every race has."""
    rows = rows_of(race)
    known = {name for name in ("test_loss", "default_loss") if any(getattr(row, name) is not None for row in rows)}
    if race.task == "classification" or any(row.accuracy is not None for row in rows):
        known.add("accuracy")
    if race.task is not None:
        known.add("test_loss")
    return known | ({"test_accuracy"} if {"test_loss", "accuracy"} <= known else set())


def _row(result: RuleResult) -> Row:
    tested = [run.test_loss for run in result.verdict if run.test_loss is not None]
    return Row(
        name=result.rule,
        title=result.title,
        best_lr=result.best_lr,
        tuned=result.tuned,
        no_best_lr=_no_best_lr(result),
        setting=said(result.setting),
        edge=result.edge,
        safe_range=result.safe_range,
        loss=result.loss,
        finished_loss=result.finished_loss,
        accuracy=result.accuracy,
        best_loss=result.best_loss,
        test_loss=result.test_loss,
        finished_test_loss=geometric_mean(tested) if tested else None,
        test_accuracy=result.test_accuracy,
        default_lr=result.default_lr,
        default_loss=result.default_loss,
        steps=result.steps_to_target,
        seconds=result.seconds,
        tuning=_counted(result.tuning),
        verdict=_counted(result.verdict),
    )


def _no_best_lr(result: RuleResult) -> str:
    if result.best_lr is not None:
        return ""
    if not result.tuning:
        return "not tuned yet"
    # At the low edge every learning rate was lost on some seed, which rules it out.
    lost = result.edge == "low" or all(run.diverged_at is not None for run in result.tuning)
    return f"all {how_lost(result.tuning)}" if lost else "tuning unfinished"


def _counted(runs: Sequence[Run]) -> Runs:
    return Runs(len(runs), sum(run.diverged_at is not None for run in runs), how_lost(runs))
