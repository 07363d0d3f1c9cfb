"""What a race found, in the terminal: the table, the verdict, and what to use now."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from downslope.lab.problems.baseline import NAMES
from downslope.lab.races.budget import duration
from downslope.lab.races.comparison import Interval
from downslope.lab.races.results import Race
from downslope.lab.races.scope import earlier, holds_for
from downslope.lab.races.settings import found
from downslope.lab.races.summary import Row, Runs, rows_of, shown
from downslope.lab.races.tries import best_after, few_tries
from downslope.lab.report.code import batched, in_use, lines, scheduled
from downslope.lab.ticker import paragraph
from downslope.printable import printable

UNLIMITED = 10_000  # columns of a file or pipe


def show(race: Race, console: Console) -> None:
    """Print the table and the verdict."""
    say = functools.partial(paragraph, console)
    # A file or a pipe has no width, unless somebody says so.
    limited = console.is_terminal or "COLUMNS" in os.environ
    say("")
    console.print(table(race, console.width if limited else UNLIMITED), soft_wrap=True)
    say("")
    if race.target_loss is not None:
        say(f"Target: {race.loss_name} {race.target_loss:.3g}, {printable(race.target_note)}.", "dim")
    say(
        f"Safe: learning rates within {race.safe_factor:g} times the best loss. Losses: geometric means over "
        f"{len(race.verdict_seeds)} fresh seeds{_level(race)}. Seconds: spent on all runs of the rule.",
        "dim",
    )
    if race.interrupted:
        say(f"\n{race.stopped}", "yellow")
    say(f"\n{printable(race.verdict)}", "bold")
    for caution in race.cautions:
        say(printable(caution), "yellow")
    for said in (found(race), holds_for(race), earlier(race)):
        if said:
            say(printable(said), "dim")
    _show_use(race, console)
    for explanation in [] if race.why is None else race.why.sentences:
        say(f"\n{printable(explanation)}")
    say(f"\n{duration(race.seconds)} in all.")


def _show_use(race: Race, console: Console) -> None:
    """Print what to use now, as a line to paste; and what is reached by somebody who tries less."""
    say = functools.partial(paragraph, console)
    result = race.advised
    if result is not None and (advice := result.kept):
        say(f"\n{printable(advice)}")
    elif result is not None and (code := lines(result, in_use(race))):
        say(f"\nTo use {printable(result.rule)}:")
        for line in code:
            console.print(Text(f"  {line}"), soft_wrap=True)  # to be copied whole
        for said in filter(None, (batched(result), scheduled(race))):
            say(printable(said))
    shown, values = few_tries(race)
    if result is None or len(shown) < 2:
        return
    what = "settings" if race.grid else "learning rates"
    say(f"\nIf you can try k {what} of these, drawn at random: the median {race.loss_name} reached")
    heads = _Line("k", [[str(k)] for k in shown], "bold")
    rows = [
        _Line(
            printable(rule),
            [[_number(best_after(values[rule], k)) if k <= len(values[rule]) else "-"] for k in shown],
        )
        for rule in (result.rule for result in race.ranked if result.tuned)
    ]
    console.print(_laid_out([heads, *rows], names_above=False), soft_wrap=True)


def table(race: Race, width: int = 120) -> Text:
    """The results of a race, the lowest loss first, laid out so that every name and number is whole.

    Args:
        race: A race, finished or interrupted.
        width: Columns of the terminal. Where they are few, intervals go below their estimates, the test data are left
            to the report, and names go above their numbers; where they are very few, every number has a line.
    """
    for columns, names_above in _layouts(race):
        heads = [column.title.split("\n") for column in columns]
        rows = [_Line("" if names_above else "rule", heads, "bold"), *_lines(race, columns)]
        text = _laid_out(rows, names_above)
        alone = {row.name for row in rows} if names_above else set()  # the terminal goes on with them in the next line
        if max(cell_len(line) for line in text.plain.splitlines() if line not in alone) <= width:
            return text
    return _listed(_lines(race, columns), columns, width)


@dataclass(frozen=True)
class _Column:
    title: str
    of: Callable[[Row], str]


@dataclass(frozen=True)
class _Line:
    name: str
    cells: list[list[str]]  # of every column the lines
    style: str = ""


def _layouts(race: Race) -> Iterable[tuple[list[_Column], bool]]:
    """Ways to lay out the table, from the widest to the narrowest; and whether names have a line of their own."""
    for between, with_test in ((" ", True), ("\n", True), ("\n", False)):
        yield _columns(race, between, with_test=with_test), False
    yield _columns(race, "\n"), True
    yield _columns(race, "\n", "\n"), False
    yield _columns(race, "\n", "\n"), True


def _lines(race: Race, columns: Sequence[_Column]) -> list[_Line]:
    return [
        _Line(
            "(baseline)" if row.name is None else printable(row.name),
            [column.of(row).split("\n") for column in columns],
            "dim" if row.name is None else "",
        )
        for row in rows_of(race)
    ]


def _laid_out(rows: Sequence[_Line], names_above: bool) -> Text:
    """Rows below each other: names to the left, or above where they are long; numbers to the right."""
    widths = [max(cell_len(line) for row in rows for line in row.cells[k]) for k in range(len(rows[0].cells))]
    first = 0 if names_above else max(cell_len(row.name) for row in rows)
    text = Text()
    for row in rows:
        if names_above and row.name:
            text.append(f"{row.name}\n", style=row.style or "bold")
        for k in range(max(map(len, row.cells))):
            name = "" if names_above else row.name if k == 0 else ""
            cells = [
                _right(cell[k] if k < len(cell) else "", width) for cell, width in zip(row.cells, widths, strict=True)
            ]
            text.append(
                (name + " " * (first - cell_len(name)) + "".join(f"  {c}" for c in cells)).rstrip() + "\n", row.style
            )
    text.right_crop(1)
    return text


def _listed(rows: Sequence[_Line], columns: Sequence[_Column], width: int) -> Text:
    """One block for each rule, with a line for every number; where even that is too wide, the number goes below."""
    text = Text()
    for row in rows:
        text.append(f"{row.name}\n", style="bold")
        for column, cell in zip(columns, row.cells, strict=True):
            value = " ".join(cell).strip()
            line = f"  {' '.join(column.title.split())}: {value}"
            if value:
                text.append((line if cell_len(line) <= width else line.replace(": ", ":\n    ")) + "\n")
    text.right_crop(1)
    return text


def _right(cell: str, width: int) -> str:
    return " " * (width - cell_len(cell)) + cell


def _level(race: Race) -> str:
    level = "" if race.level is None else f", in brackets their {100 * race.level:.3g} % intervals"
    return level + ("" if race.baseline is None or race.task is None else f"; baseline: {NAMES[race.task]}")


def _columns(race: Race, between: str, within: str = " ", *, with_test: bool = False) -> list[_Column]:
    """The columns; `between` stands between a number and what belongs to it, `within` between the ends of intervals."""
    known, wide = shown(race), between == " "

    def mean(interval: Interval | None, finished: float | None, runs: Runs) -> str:
        if runs.some_lost:
            return f"{_number(finished)}{between}({runs.lost}{within}{runs.how.replace(' ', within)})"
        return runs.how.replace(" ", within) if runs.lost else _interval(interval, between, within)

    columns = [
        _Column("best lr", lambda row: _best(row, between)),
        _Column("safe lr", lambda row: _safe(row, between)),
        _Column(
            race.loss_name if wide or not race.sizes else f"valid.{within}loss",
            lambda row: mean(row.loss, row.finished_loss, row.verdict),
        ),
    ]
    if "default_loss" in known:
        columns.append(_Column("at its default" if wide else f"at{within}default", lambda row: _default(row, between)))
    if "accuracy" in known:
        columns.append(_Column("accuracy", lambda row: _interval(row.accuracy, between, within, percent=True)))
    if with_test and "test_loss" in known:
        columns.append(
            _Column("test loss", lambda row: "" if row.test_loss is None else _number(row.test_loss.estimate))
        )
    if with_test and "test_accuracy" in known:
        columns.append(
            _Column("test acc.", lambda row: "" if row.test_accuracy is None else f"{row.test_accuracy.estimate:.1%}")
        )
    columns.append(_Column("steps to target" if wide else f"to{within}target", lambda row: _steps(row.steps)))
    columns.append(_Column("seconds", lambda row: "" if row.seconds is None else f"{row.seconds:.1f}"))
    return columns


def _best(row: Row, between: str) -> str:
    if row.best_lr is None:
        return row.no_best_lr.replace(" ", between, 1)
    if not row.tuned:
        return f"{_number(row.best_lr)}{between}(as it is)"
    return _number(row.best_lr) + {"low": f"{between}(lowest)", "high": f"{between}(highest)", None: ""}[row.edge]


def _default(row: Row, between: str) -> str:
    return "" if row.default_loss is None else f"{_number(row.default_loss)}{between}(lr {_number(row.default_lr)})"


def _safe(row: Row, between: str) -> str:
    if row.safe_range is None:
        return ""
    low, high = map(_number, row.safe_range)
    return low if low == high else f"{low}{between}to {high}"


def _steps(steps: float | None) -> str:
    return "" if steps is None else "missed" if math.isinf(steps) else f"{steps:,.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "diverged" if math.isinf(value) else f"{value:.3g}"


def _interval(interval: Interval | None, between: str, within: str, *, percent: bool = False) -> str:
    if interval is None:
        return ""
    write = (lambda value: f"{value:.1%}") if percent else _number
    ends = "" if math.isnan(interval.low) else f"{between}[{write(interval.low)},{within}{write(interval.high)}]"
    return write(interval.estimate) + ends
