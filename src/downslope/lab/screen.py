"""A race in the terminal: what is under way, and the table at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from downslope.lab.baseline import NAMES
from downslope.lab.course import Stage
from downslope.lab.statistics import ranked

if TYPE_CHECKING:
    from downslope.formula import Rule
    from downslope.lab import engine
    from downslope.lab.problems import Problem
    from downslope.lab.results import Interval, Race, RuleResult

_STAGES = {"tuning": "tuning", "widening": "wider grid", "confirming": "confirming", "verdict": "fresh seeds"}


class Screen:
    """Progress bars while a race runs, one for each rule; used as a context manager.

    Args:
        problem: The problem.
        rules: The rules.
        console: Where to draw; by default the terminal.
    """

    def __init__(self, problem: Problem, rules: Sequence[Rule], console: Console | None = None):
        self.console = console or Console(highlight=False)
        self.bars = Progress(
            TextColumn("{task.description:<14}"),
            TextColumn("{task.fields[stage]:<12}", style="dim"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>4.0f}%"),
            TextColumn("{task.fields[found]}", style="dim"),
            console=self.console,
        )
        self.tasks: dict[str, TaskID] = {
            rule.name: self.bars.add_task(rule.name, total=None, stage="", found="", start=False) for rule in rules
        }
        self.lost = dict.fromkeys(self.tasks, 0)
        self.live = Live(self.bars, console=self.console, refresh_per_second=8)
        self.problem = problem

    def __enter__(self) -> Screen:
        return self

    def _begin(self) -> None:
        problem = self.problem
        rows = len(problem.train.x) + len(problem.valid.x) + len(problem.test.x)
        title = f"[bold]{escape(problem.title)}[/bold]"
        self.console.print(f"{title}: {rows:,} rows. Ctrl-C stops and shows what is finished.")
        self.live.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()

    def watch(self, event: Stage | engine.Progress) -> None:
        """Take in what happened; to be handed to `race`."""
        if isinstance(event, Stage):
            if not self.live.is_started:
                self._begin()
            for rule, epochs in event.epochs.items():
                stage, found = _STAGES[event.name], self._found(rule)
                self.bars.reset(self.tasks[rule], total=epochs, start=False, stage=stage, found=found)
            return
        task = self.tasks[event.rule]
        if not self.bars.tasks[list(self.tasks).index(event.rule)].started:
            self.bars.start_task(task)
        self.lost[event.rule] += sum(run.diverged_at is not None for run in event.finished)
        self.bars.update(task, advance=event.epochs + event.skipped, found=self._found(event.rule))

    def _found(self, rule: str) -> str:
        return f"{self.lost[rule]} diverged" if self.lost[rule] else ""

    def show(self, race: Race) -> None:
        """Print the table and the verdict."""
        self.console.print()
        self.console.print(table(race, self.console.width))
        if race.target_loss is not None:
            self.console.print(f"Target: validation loss {race.target_loss:.3g}, {race.target_note}.", style="dim")
        self.console.print(
            f"Safe: learning rates within {race.safe_factor:g} times the best loss. Losses: geometric means over "
            f"{len(race.verdict_seeds)} fresh seeds{_level(race)}.",
            style="dim",
        )
        if race.interrupted:
            self.console.print("\nInterrupted: only what had finished is shown.", style="yellow")
        self.console.print(f"\n{race.verdict}", style="bold", markup=False)
        for caution in race.cautions:
            self.console.print(caution, style="yellow", markup=False)
        self.console.print(f"{race.seconds:.1f} s in all.")


def table(race: Race, width: int = 120) -> Table:
    """The results of a race, one row per rule, the lowest loss first.

    Args:
        race: The race.
        width: Columns of the terminal: where there are less than 120, intervals go below their estimates, and the
            test data are left to the report.
    """
    wide = width >= 120
    result = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2 if wide else 1, 0, 0))
    result.add_column("rule", no_wrap=True)
    columns = _columns(race.task == "classification", wide)
    for title in columns:
        result.add_column(title, justify="right", no_wrap=True)
    for rule in ranked(race):
        result.add_row(rule.rule, *(write(rule) for write in columns.values()))
    if race.baseline is not None:
        loss, accuracy = race.baseline.loss, race.baseline.accuracy
        cells = {"validation loss": _interval(loss, " "), "valid. loss": _interval(loss, "\n")}
        cells["accuracy"] = _interval(accuracy, " " if wide else "\n", percent=True)
        result.add_row("(baseline)", *(cells.get(title, "") for title in columns), style="dim")
    return result


def _level(race: Race) -> str:
    levels = [r.loss.level for r in race.rules if r.loss is not None and not math.isnan(r.loss.level)]
    baseline = f"; baseline: {NAMES[race.task]}" if race.baseline is not None else ""
    return (f", in brackets their {100 * levels[0]:.3g} % intervals" if levels else "") + baseline


def _columns(with_accuracy: bool, wide: bool) -> dict[str, Callable[[RuleResult], str]]:
    between = " " if wide else "\n"
    columns: dict[str, Callable[[RuleResult], str]] = {
        "best lr": lambda r: _best(r, between),
        "safe lr": lambda r: _safe(r, between),
        "validation loss" if wide else "valid. loss": lambda r: _loss(r, between),
    }
    if with_accuracy:
        columns["accuracy"] = lambda r: _interval(r.accuracy, between, percent=True)
    if wide:
        columns["test loss"] = lambda r: "" if r.test_loss is None else _number(r.test_loss.estimate)
    if wide and with_accuracy:
        columns["test acc."] = lambda r: "" if r.test_accuracy is None else f"{r.test_accuracy.estimate:.1%}"
    columns["steps to target" if wide else "to target"] = lambda r: _steps(r.steps_to_target)
    columns["seconds"] = lambda r: f"{r.seconds:.1f}"
    return columns


def _best(result: RuleResult, between: str) -> str:
    if result.best_lr is None:
        return f"all{between}diverged" if result.edge == "low" else ""
    return _number(result.best_lr) + {"low": f"{between}(lowest)", "high": f"{between}(highest)", None: ""}[result.edge]


def _safe(result: RuleResult, between: str) -> str:
    if result.safe_range is None:
        return ""
    low, high = map(_number, result.safe_range)
    return low if low == high else f"{low}{between}to {high}"


def _steps(steps: float | None) -> str:
    return "" if steps is None else "missed" if math.isinf(steps) else f"{steps:,.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "diverged" if math.isinf(value) else f"{value:.3g}"


def _loss(result: RuleResult, between: str) -> str:
    lost = sum(run.diverged_at is not None for run in result.verdict)
    if 0 < lost < len(result.verdict):
        return f"{_number(result.finished_loss)}{between}({lost} diverged)"
    return _interval(result.loss, between)


def _interval(interval: Interval | None, between: str, *, percent: bool = False) -> str:
    if interval is None:
        return ""
    write = (lambda value: f"{value:.1%}") if percent else _number
    ends = "" if math.isnan(interval.low) else f"{between}[{write(interval.low)}, {write(interval.high)}]"
    return write(interval.estimate) + ends
