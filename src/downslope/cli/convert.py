"""The command `downslope convert`."""

from __future__ import annotations

import inspect
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

import downslope
from downslope.cli.ending import refuse
from downslope.cli.names import check_dialect, recipe_named, settings_typed, with_dialect
from downslope.dialects import DIALECTS
from downslope.printable import printable
from downslope.recipes.conversion import Conversion
from downslope.recipes.from_adamw import MuonFromAdamW
from downslope.recipes.recipe import Recipe
from downslope.recipes.spelled import title

MARKS = {
    "always": ("✓", "exact", "green"),
    "constant lr": ("≈", "exact while the learning rate is constant", "yellow"),
    "never": ("✗", "not exact", "red"),
    "none": ("✗", "no counterpart", "red"),
    "thumb": ("≈", "a rule of thumb", "yellow"),
}


def convert(
    name: Annotated[
        str,
        typer.Argument(
            help="The optimizer, as its framework calls it: RMSprop with --from keras, or keras.RMSprop. Or a rule of "
            "your own: file.py:name.",
            show_default=False,
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Its arguments, under the framework's names: lr=1e-3 rho=0.9.", show_default=False),
    ] = None,
    source: Annotated[str, typer.Option("--from", help="note, torch, keras, tf1 or optax.", show_default=False)] = "",
    to: Annotated[
        str,
        typer.Option(
            help="note, torch, keras, tf1 or optax. Or torch.Muon (note.muon, keras.Muon, optax.muon): what Muon's "
            "learning rate is where AdamW's is known.",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
    state: Annotated[
        Path | None, typer.Option(help="A training saved by downslope, to be written anew.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default=False)] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="A parameter's new name, OLD=NEW. Repeat for more.", show_default=False)
    ] = None,
    transpose: Annotated[
        list[str] | None,
        typer.Option(
            help="A parameter whose axes are to be reversed, or NAME=3,2,0,1 for another order. Repeat for more.",
            show_default=False,
        ),
    ] = None,
    closest: Annotated[bool, typer.Option(help="Convert a training also where that is not exact.")] = False,
) -> None:
    """Say what an optimizer of one framework is in another.

    For example: downslope convert --from keras --to torch RMSprop lr=1e-3 rho=0.9

    With --state and --out a saved training is moved there. And for Muon in the place of AdamW:
    downslope convert torch.AdamW lr=3e-4 weight_decay=0.1 --to torch.Muon

    Both optimizers are run on a small, hard training. Differences are shares of the distance that a weight has moved.
    """
    try:
        if state is None:
            _refuse(
                "goes only with", {"--out": out, "--rename": rename, "--transpose": transpose, "--closest": closest}
            )
            found: Sequence[Conversion | MuonFromAdamW] = [_converted(name, settings or [], source, to)]
        else:
            given = [*([name] if "=" in name else []), *(settings or [])]
            _refuse("does not go with", {name: name and "=" not in name, "--from": source})
            found = _moved(state, out, to, given, rename or [], transpose or [], closest)
    except (ValueError, TypeError, OSError, downslope.FormulaError) as error:
        refuse("convert", error)
    if as_json:
        data = [_data(conversion) for conversion in found]
        typer.echo(json.dumps(data[0] if state is None else data, indent=2, allow_nan=False))
        return
    for conversion in {str(conversion): conversion for conversion in found}.values():
        _show(conversion, code=state is None)
    if state is not None:
        typer.echo(f"Training: {printable(str(out))}")


def _refuse(why: str, given: dict[str, Any]) -> None:
    if used := [option for option, value in given.items() if value]:
        raise ValueError(f"{used[0]} {why} --state")


def _converted(name: str, settings: Iterable[str], source: str, to: str) -> Conversion | MuonFromAdamW:
    recipe = recipe_named(name, source, settings_typed(settings))
    dialect, rule = with_dialect(to)
    check_dialect("--to", dialect or rule)
    if not dialect:
        return downslope.convert(recipe, rule)
    wanted = rule.lower().rpartition(".")[2]
    if wanted != "muon":
        if recipe.rule.name == "muon" and wanted in ("adam", "adamw"):
            raise ValueError(
                f"--to {to}: the rule of thumb leads from AdamW to Muon only; convert an AdamW with a learning rate "
                f"that you would try, and compare: torch.AdamW lr=3e-4 --to {dialect}.Muon"
            )
        raise ValueError(f"--to {to}: give a dialect, --to {dialect}; the only rule that may follow it is Muon")
    if recipe.rule.name == "muon":
        return downslope.convert(recipe, dialect)
    return downslope.muon_from_adamw(recipe, dialect)


def _moved(
    state: Path,
    out: Path | None,
    to: str,
    settings: Iterable[str],
    rename: Iterable[str],
    transpose: Iterable[str],
    closest: bool,
) -> tuple[Conversion, ...]:
    if out is None:
        raise ValueError("--state: say where to write the training, with --out FILE")
    if to:
        check_dialect("--to", to)
    names: dict[str, str] = {}
    for text in rename:
        old, new = _pair("--rename", text)
        if names.setdefault(old, new) != new:
            raise ValueError(f"--rename {text}: {old} is given twice")
    axes: dict[str, list[int] | None] = {}
    for text in transpose:
        parameter, _, order = text.partition("=")
        if parameter in axes:
            raise ValueError(f"--transpose {text}: {parameter} is given twice")
        try:
            axes[parameter] = [int(axis) for axis in order.split(",")] if order else None
        except ValueError:
            raise ValueError(f"--transpose {text}: give the axes as numbers, NAME=1,0") from None
    numbers = settings_typed(settings)
    if taken := [name for name in numbers if name in inspect.signature(downslope.convert_file).parameters]:
        raise ValueError(f"{taken[0]}={numbers[taken[0]]!r}: {taken[0]} is not a hyperparameter")
    if numbers and not to:
        raise ValueError(f"{next(iter(numbers))}=... goes only with --to")
    return downslope.convert_file(state, out, to=to or None, names=names, axes=axes, closest=closest, **numbers)


def _pair(what: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise ValueError(f"{what} {text}: give OLD=NEW")
    return name, value


def _data(conversion: Conversion | MuonFromAdamW) -> dict[str, Any]:
    """Everything about a conversion, for programs."""
    if isinstance(conversion, MuonFromAdamW):
        return {
            "from": _recipe_data(conversion.own),
            "to": conversion.to,
            "muon": _recipe_data(conversion.muon),
            "rest": _recipe_data(conversion.rest),
            "by_shape": [
                {"layer": list(layer), "lr": lr, "weight_decay": decay}
                for layer, (lr, decay) in conversion.by_shape.items()
            ],
            "sentence": str(conversion),
            "snippet": conversion.snippet(),
        }
    comparison, recipe = conversion.comparison, conversion.recipe
    names = [] if recipe is None else list(recipe.program.states)
    return {
        "from": _recipe_data(conversion.own),
        "to": conversion.to,
        "counterpart": None if recipe is None else _recipe_data(recipe),
        "exact": conversion.exact,
        "same": "never" if comparison is None else comparison.same,
        "first_step": None if comparison is None else comparison.first_step,
        "with_lr": None if comparison is None else comparison.with_lr,
        "steps": None if comparison is None else comparison.steps,
        "at_step_1": None if comparison is None else _finite(comparison.at_step_1),
        "at_last_step": None if comparison is None else _finite(comparison.at_last_step),
        "states": {name: str(conversion.origins[name]) if name in conversion.origins else None for name in names},
        "sentence": str(conversion),
        "snippet": conversion.snippet(),
    }


def _finite(size: float) -> float | None:
    """A number that JSON has: one recipe may end in nan where the other does not."""
    return size if math.isfinite(size) else None


def _recipe_data(recipe: Recipe) -> dict[str, Any]:
    return {"dialect": recipe.dialect, "rule": recipe.rule.name, "settings": recipe.settings}


def _show(conversion: Conversion | MuonFromAdamW, *, code: bool) -> None:
    """Print a conversion: on a terminal in colours, else as Python, the sentences as comments."""
    console = Console(highlight=False)
    if not console.is_terminal:
        typer.echo(textwrap.fill(str(conversion), 80, initial_indent="# ", subsequent_indent="# "))
        if code:
            typer.echo(f"\n{conversion.snippet()}")
        return
    there = DIALECTS[conversion.to].framework
    if isinstance(conversion, MuonFromAdamW):
        there, kind = title(conversion.muon), "thumb"
    else:
        kind = "none" if conversion.comparison is None else conversion.comparison.same
    mark, verdict, colour = MARKS[kind]
    console.print(
        Text.assemble((f"{mark} {title(conversion.own)} → {there}", f"bold {colour}"), (f"  {verdict}", colour))
    )
    console.print(Text(str(conversion)), width=min(console.width, 80), soft_wrap=False)
    if code:
        console.print()
        console.print(
            Syntax(conversion.snippet(), "python", theme="ansi_dark", background_color="default"), soft_wrap=True
        )
