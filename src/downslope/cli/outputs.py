"""What a race writes: its report, its numbers and its table, each to a file or to standard output."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from downslope import files
from downslope.cli.ending import refuse
from downslope.printable import printable

if TYPE_CHECKING:
    from downslope.lab import Race

STANDARD_OUTPUT = Path("-")


def is_output(path: Path | None) -> bool:
    """Whether a path stands for standard output."""
    return path is not None and (path == STANDARD_OUTPUT or files.descriptor(path) == 1)


def check_outputs(out: Path, json: Path | None, csv: Path | None) -> None:
    """Refuse outputs that could not be written, before anything is trained."""
    taken: dict[Path, str] = {}
    for option, path in (("--out", out), ("--json", json), ("--csv", csv)):
        if path is None:
            continue
        try:
            place = STANDARD_OUTPUT if is_output(path) else path if files.descriptor(path) else files.check(path)
        except OSError as error:
            raise ValueError(f"{option} {path}: {error}") from None
        other = taken.setdefault(place, option)
        if other != option:
            raise ValueError(f"{option} {path}: {other} is written there; give another name")


def write_outputs(race: Race, out: Path, json: Path | None, csv: Path | None, console: Console) -> Path | None:
    """Write the report and, where asked for, the numbers; say where they are.

    Returns:
        Where the report is; None if it is not written.
    """
    from downslope.lab.report.page import report_page

    wanted: list[tuple[str, Path | None, Callable[[], str]]] = [
        ("Report", out, lambda: report_page(race)),
        ("Numbers", json, lambda: f"{race.to_json()}\n"),
        ("Runs", csv, lambda: race.runs.write_csv()),
    ]
    failed, report = "", None
    for what, path, text in wanted:
        if path is None:
            continue
        place = path if is_output(path) else _place(race, path)
        if place is None:
            say(console, f"{what}: not written. No rule had been judged yet, so {path} is left as it was.")
            continue
        try:
            if place == STANDARD_OUTPUT:
                _to_standard_output(text())
            else:
                files.write(place, text())
        except OSError as error:
            failed = failed or f"the {what.lower()} could not be written to {place}: {error}"
            continue
        report = place if what == "Report" else report
        more = "" if place == path else f"; {path}, which was there before, is left as it was"
        say(console, f"{what}: {place}{more}")
    if failed:
        refuse("race", failed, 1)
    return report


def _to_standard_output(text: str) -> None:
    """Write the bytes that a file would hold, in UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _place(race: Race, path: Path) -> Path | None:
    """Where a file about a race goes: that of an interrupted race replaces no other file. None: nowhere."""
    if files.descriptor(path) is not None or not (race.interrupted and path.is_file()):
        return path
    if not any(len(result.verdict) == len(race.verdict_seeds) for result in race.rules):
        return None
    names = (
        f"{path.stem}-interrupted{more}{path.suffix}"
        for more in itertools.chain([""], (f"-{k}" for k in itertools.count(2)))
    )
    return next(free for free in map(path.with_name, names) if not os.path.lexists(free))


def say(console: Console, text: str) -> None:
    """Say something in one line, as far as a terminal can show it."""
    console.print(Text(printable(text)), soft_wrap=True)
