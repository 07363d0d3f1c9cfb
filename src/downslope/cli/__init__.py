"""The command `downslope`."""

from __future__ import annotations

import sys
from typing import Annotated

from downslope.extras import require
from downslope.version import __version__

try:
    require("The command line", "lab", ["typer", "rich.console"], load=True)
except ImportError as error:
    sys.exit(f"downslope: {error}")

import typer

from downslope.cli.claims import claims
from downslope.cli.convert import convert
from downslope.cli.ending import speak_any_locale
from downslope.cli.export import export
from downslope.cli.play import play
from downslope.cli.race import race
from downslope.cli.rules import rules
from downslope.cli.show import show
from downslope.cli.walk import walk

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Race update rules of neural networks on real data, watch them walk, convert them between frameworks."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


app.command()(race)
app.command()(show)
app.command()(export)
app.command()(walk)
app.command()(play)
app.command()(claims)
app.command()(convert)
app.command()(rules)


def main() -> None:
    """Run the command."""
    speak_any_locale()
    app()
