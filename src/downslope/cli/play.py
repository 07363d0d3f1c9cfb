"""The command `downslope play`."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from downslope import files
from downslope.cli.ending import refuse
from downslope.cli.names import rules_named
from downslope.language.operations import FormulaError
from downslope.printable import printable

if TYPE_CHECKING:
    from downslope.rule import Rule


def play(
    rules: Annotated[
        list[str] | None,
        typer.Argument(help="Rules to begin with: names such as adam and keras.adam, and your own as file.py:name."),
    ] = None,
    link: Annotated[
        str, typer.Option(help="The state to begin with, as in the page's link: 'surface=valley&adam.lr=0.1'.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page, for a web server too, instead of opening it.")
    ] = None,
) -> None:
    """Open the playground: one page that needs no network, in which you can feel every rule.

    For example: downslope play my_rules.py:my_rule adam
    """
    try:
        if out is not None and files.descriptor(out) is None:
            files.check(out)
        chosen = rules_named(",".join(rules or []), "RULES")
        text = _page(chosen, link.removeprefix("#"))
        if out is not None:
            files.write(out, text)
    except (ValueError, OSError, ImportError, FormulaError) as error:
        refuse("play", error)
    if out is not None:
        if files.descriptor(out) is None:
            Console(highlight=False).print(f"Written: {printable(str(out))}", markup=False, soft_wrap=True)
        return
    with tempfile.NamedTemporaryFile("wb", prefix="downslope-play-", suffix=".html", delete=False) as file:
        file.write(text.encode())
    typer.echo(f"Opening {file.name}")
    if not webbrowser.open(Path(file.name).as_uri()):
        refuse("play", f"there is no browser to open it with; open {file.name} yourself, or use --out page.html", 1)


def _page(chosen: dict[str, Rule], link: str) -> str:
    """The page with one's own rules among the others, where those that were asked for walk."""
    from downslope.play.page import page
    from downslope.play.rules import every_rule

    known = every_rule()
    names = {name: name if known.get(name) in (None, rule) else f"own.{name}" for name, rule in chosen.items()}
    own = {names[name]: rule for name, rule in chosen.items() if known.get(names[name]) is not rule}
    walking = [f"rules={','.join(names.values())}"] if names else []
    return page(own, "&".join([*walking, *([link] if link else [])]))
