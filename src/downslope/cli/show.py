"""The command `downslope show`: what the folder of a race says, and how two of them differ."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from downslope.cli.ending import refuse
from downslope.cli.keeping import go_on
from downslope.cli.outputs import say
from downslope.extras import require

if TYPE_CHECKING:
    from downslope.lab import Race
    from downslope.lab.keeping.planned import Planned
    from downslope.lab.keeping.rows import Kept


def show(
    folder: Annotated[Path, typer.Argument(help="The folder of a race.")],
    other: Annotated[Path | None, typer.Argument(help="Another one, to compare it with.", show_default=False)] = None,
) -> None:
    """Show what is finished of a race in a folder, or what two of them have in common."""
    try:
        require("A race", "lab", ["jax", "rich.console", "polars"])
        console = Console(highlight=False)
        if other is None:
            _show_one(folder, console)
        else:
            _show_two(folder, other, console)
    except ImportError as error:
        refuse("show", error, 1)
    except ValueError as error:
        refuse("show", error)


def _read(folder: Path) -> tuple[Planned, Mapping[str, Kept], Race | None]:
    """What decides the race of a folder, its runs, and what they say, if it has ended or was stopped."""
    from downslope.lab.keeping.planned import read_plan
    from downslope.lab.keeping.told import kept_runs, read_race

    planned = read_plan(folder)
    kept = kept_runs(folder)
    return planned, kept, read_race(folder, kept)


def _show_one(folder: Path, console: Console) -> None:
    from downslope.cli.screen import show as show_race

    planned, kept, race = _read(folder)
    for line in _about(planned, kept):
        say(console, line)
    out_of_time = race is not None and race.budget is not None and race.budget.over and bool(kept)
    if race is None or (race.interrupted and not out_of_time):
        _so_far(kept, console)
        if planned.typed is not None:
            say(console, f"It has not ended; go on with: {go_on(folder)}")
        else:
            say(console, "It has not ended; go on with race(..., folder=...) in Python.")
        return
    show_race(race, console)


def _about(planned: Planned, kept: Mapping[str, Kept]) -> list[str]:
    """What a race is, in lines."""
    what, rounding = planned.identity.what, planned.identity.rounding
    typed = planned.typed or {}
    told = f"{len(kept):,} runs of {what.get('network') or what.get('train') or 'a race'}"
    lines = [told, "; ".join(f"{name} {value}" for name, value in rounding.items())]
    if typed:
        words = [str(typed.get("problem", "digits"))]
        for name, value in typed.items():
            if name != "problem":
                values = value if isinstance(value, list) else [value]
                words += [f"--{name.replace('_', '-')} {shlex.quote(str(one))}" for one in values]
        lines.insert(0, f"downslope race {' '.join(words)}")
    return lines


def _so_far(kept: Mapping[str, Kept], console: Console) -> None:
    from downslope.lab.engines.protocol import said
    from downslope.lab.keeping.overview import so_far

    rows: list[tuple[str, ...]] = [("", "tuning", "fresh seeds", "lost", "seconds", "best so far", "mean loss")]
    for one in so_far(kept.values()):
        best = "" if one.best is None else ", ".join(filter(None, (f"lr={one.best.lr:.3g}", said(one.best.setting))))
        loss = "" if math.isinf(one.loss) else f"{one.loss:.3g}"
        counts = (f"{one.tuning:,}", f"{one.verdict:,}", f"{one.lost:,}", f"{one.seconds:.1f}")
        rows.append((one.rule, *counts, best, loss))
    _table(rows, console)


def _table(rows: Sequence[tuple[str, ...]], console: Console) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *cells in rows:
        right = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        say(console, f"{first:<{widths[0]}}{right}")


def _show_two(first: Path, second: Path, console: Console) -> None:
    from downslope.lab.keeping.overview import shared

    (planned, kept, race), (planned_too, kept_too, race_too) = _read(first), _read(second)
    what, rounding = planned.identity.difference(planned_too.identity)
    for line in (*what, *rounding):
        say(console, line.replace(" here, ", f" in {first}, ").replace(" in the folder", f" in {second}"))
    found = shared(kept, kept_too)
    more = "" if found.equal == found.runs else f", the others within {_share(found.apart)}"
    say(console, f"{found.runs:,} runs are in both, {found.equal:,} of them equal bit for bit{more}.")
    say(console, f"{found.first:,} more are in {first}, {found.second:,} more in {second}.")
    for folder, told in ((first, race), (second, race_too)):
        said = told.verdict if told is not None and not told.interrupted else "It has not ended."
        say(console, f"{folder}: {said}")
    if race is None or race_too is None:
        return
    theirs = {result.rule: result for result in race_too.rules}
    rows: list[tuple[str, ...]] = [("", f"best lr in {first}", f"in {second}", f"loss in {first}", f"in {second}")]
    for one in race.rules:
        if (two := theirs.get(one.rule)) is not None:
            rates = tuple("" if each.best_lr is None else f"{each.best_lr:.3g}" for each in (one, two))
            losses = tuple("" if each.loss is None else f"{each.loss.estimate:.4g}" for each in (one, two))
            rows.append((one.rule, *rates, *losses))
    _table(rows, console)


def _share(share: float) -> str:
    return "more than any share, since some diverged in one only" if math.isinf(share) else f"{100 * share:.2g} %"
