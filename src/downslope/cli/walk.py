"""The command `downslope walk`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import downslope
import downslope.rules
from downslope import files
from downslope.cli.ending import refuse
from downslope.cli.names import rule_named
from downslope.printable import printable

if TYPE_CHECKING:
    from downslope.recipes.recipe import Recipe

TEXTBOOK = ",".join(rule.name for rule in downslope.rules.TEXTBOOK)


def walk(
    surface: Annotated[
        str,
        typer.Argument(help="A surface's name, or a formula such as 'x**2/10 + 5*y**2'; `--surfaces` lists the names."),
    ] = "valley",
    rules: Annotated[
        str, typer.Option(help="Names of rules, and rules of your own as file.py:name, with commas between.")
    ] = TEXTBOOK,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyperparameter other than its default, NAME=VALUE or RULE.NAME=VALUE. Repeat."),
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="A parameter of the surface, NAME=VALUE. Repeat for more.")
    ] = None,
    start: Annotated[
        str, typer.Option(help="Where to begin, as --start=-9,1.5; by default where the surface says.")
    ] = "",
    steps: Annotated[
        int | None, typer.Option(help="How many steps; by default until all have arrived, at most 200.")
    ] = None,
    lr: Annotated[
        str,
        typer.Option(help="best: each rule its best here; own: its default; a number: the same for all."),
    ] = "best",
    noise: Annotated[
        float, typer.Option(help="Standard deviation of noise on every gradient, the same for all.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Another number is other noise.")] = 0,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Where to write: .html (a film), .gif, .png, .svg, .pdf, .csv. Repeat for more. [walk.html]"),
    ] = None,
    surfaces: Annotated[bool, typer.Option("--surfaces", help="List the surfaces and what they teach.")] = False,
) -> None:
    """Let rules walk down a surface, and write a film of it: one page that needs no network.

    For example: downslope walk rosenbrock --rules momentum,adam --out walk.html --out walk.gif
    """
    console = Console(highlight=False)
    try:
        if surfaces:
            console.print(_surfaces())
            return
        from downslope.walks.surfaces import surface_of
        from downslope.walks.write import check_kind

        paths = out or [Path("walk.html")]
        for path in paths:
            check_kind(path)
            if files.descriptor(path) is None:
                files.check(path)
        ground = surface_of(surface).given(**dict(_pair("--shape", text) for text in shape or []))
        recipes, shared = _recipes(rules, settings or [])
        found = downslope.walk(
            ground,
            recipes,
            start=_start(start) if start else None,
            steps=steps,
            lr=_rate(lr),
            noise=noise,
            seed=seed,
            **shared,
        )
        for path in paths:
            found.write(path)
    except (ValueError, TypeError, OSError, ImportError, downslope.FormulaError) as error:
        refuse("walk", error)
    written = [path for path in paths if files.descriptor(path) is None]
    console = console if written == paths else Console(highlight=False, stderr=True)
    console.print(_table(found))
    if written:
        console.print(f"Written: {', '.join(printable(str(path)) for path in written)}", markup=False, soft_wrap=True)


def _recipes(names: str, settings: Iterable[str]) -> tuple[list[Recipe], dict[str, Any]]:
    """The rules with what is set for one of them, and what is set for all."""
    from downslope.recipes.recipe import Recipe

    chosen = [rule_named(name.strip(), "--rules") for name in names.split(",") if name.strip()]
    own: dict[int, dict[str, Any]] = {k: {} for k in range(len(chosen))}
    shared: dict[str, Any] = {}
    for text in settings:
        key, value = _pair("--set", text)
        owner, _, name = key.rpartition(".")
        places = [k for k, rule in enumerate(chosen) if owner in (rule.name, Recipe(rule).label)]
        if owner and not places:
            raise ValueError(f"--set {text}: no rule of this walk is named {owner}")
        if name == "lr" and not owner:
            raise ValueError(f"--set {text}: the learning rate of all is --lr")
        for k in places:
            own[k][name] = value
        if not owner:
            shared[name] = value
    return [Recipe(rule, **own[k]) for k, rule in enumerate(chosen)], shared


def _pair(option: str, text: str) -> tuple[str, float | bool]:
    name, equals, value = text.partition("=")
    if value.strip().lower() in ("true", "false"):
        return name.strip(), value.strip().lower() == "true"
    try:
        if not equals:
            raise ValueError
        return name.strip(), float(value)
    except ValueError:
        raise ValueError(f"{option} {text}: give NAME=VALUE, with a number") from None


def _start(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--start {text}: give a number for each weight, as --start=-9,1.5") from None


def _rate(text: str) -> float | Literal["best", "own"]:
    kinds: dict[str, Literal["best", "own"]] = {"best": "best", "own": "own"}
    try:
        return kinds.get(text) or float(text)
    except ValueError:
        raise ValueError(f"--lr {text}: give a number, best or own") from None


def _surfaces() -> Table:
    from downslope.walks.surfaces import SURFACES

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for surface in SURFACES:
        known = ", ".join(f"{name}={value:.4g}" for name, value in surface.parameters.items())
        table.add_row(f"{surface.name}\n{known}" if known else surface.name, surface.teaches)
    return table


def _table(found: downslope.Walk) -> Table:
    """Every rule with its learning rate, when it arrived, and the loss at its end."""
    rows = sorted(found.paths, key=lambda path: (path.arrival is None, path.arrival or 0))
    table = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    rate = "best learning rate" if found.lr == "best" else "learning rate"
    for name in ("rule", rate, "steps to goal", f"loss after {found.steps}"):
        table.add_column(name, justify="left" if name == "rule" else "right")
    for path in rows:
        arrived = "–" if path.arrival is None else str(path.arrival)
        end = "diverged" if path.diverged is not None else f"{path.losses[-1]:.3g}"
        table.add_row(Text(printable(path.name)), "–" if path.lr is None else f"{path.lr:g}", arrived, end)
    return table
