"""The folder of a race, as it is typed: a new one, one to go on with, and how to go on."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import typer

ANEW = ("out", "json", "csv", "mix", "workers", "scheduler")
"""What may be given anew to a race that goes on: the others are settled."""

GOES_ON = "downslope.goes_on"
"""What is noted of a command once its parameters are those of a race that goes on."""

NOT_KEPT = ("folder", "resume", "mix", "dry_run", "context", "join", "workers", "scheduler")
"""What says nothing of the race itself."""


def typed(context: typer.Context) -> dict[str, Any]:
    """What was typed of a race, by parameter, as JSON can hold it."""
    given = {name: value for name, value in context.params.items() if _given(context, name) and name not in NOT_KEPT}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


def only_joins(context: typer.Context) -> bool:
    """Whether nothing is said of a race but the folder that is shared."""
    given = {name for name in context.params if _given(context, name)}
    return "join" in given and not given.difference(ANEW, {"join"})


def continued(context: typer.Context, resume: Path | None, join: Path | None) -> dict[str, Any]:
    """The parameters of a race that goes on, in the folder where it was typed.

    Raises:
        ValueError: It is no folder of a race, that race was not typed, or an option is settled.
    """
    from downslope.lab.keeping.planned import read_plan

    if resume is not None and join is not None:
        raise ValueError(f"--resume {resume} is for one process, --join {join} for several; leave one out")
    option, folder = ("--resume", resume) if join is None else ("--join", join)
    assert folder is not None
    for name in context.params:
        if _given(context, name) and name not in (*ANEW, "resume", "join"):
            other = "PROBLEM" if name == "problem" else f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} {folder}: {other} is settled there; leave it out, or type the whole race with "
                f"--folder {folder}, which trains what is lacking"
            )
    planned = read_plan(folder)
    if planned.typed is None:
        raise ValueError(f"{option} {folder}: that race was begun in Python; go on with race(..., folder=...) there")
    here = {name: context.params[name] for name in ANEW if _given(context, name)}
    here = {name: value.absolute() if isinstance(value, Path) else value for name, value in here.items()}
    there = {name: value for name, value in planned.typed.items() if name in context.params}
    for name in ("out", "json", "csv"):
        if name in there:
            there[name] = Path(there[name])
    folder = folder.absolute()
    context.meta[GOES_ON] = True
    if Path(planned.place).is_dir():
        os.chdir(planned.place)
    return {**there, **here, "folder" if join is None else "join": folder}


def _given(context: typer.Context, name: str) -> bool:
    """Whether a parameter was typed."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def go_on(folder: Path) -> str:
    """How to go on with a race."""
    shown = folder
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        shown = folder.relative_to(Path.cwd())
    return f"downslope race --resume {shlex.quote(str(shown))}"


def beside(out: Path) -> Path:
    """Where a race is kept of which nobody said where: beside its report."""
    return out.with_name(f"{out.stem}.race")
