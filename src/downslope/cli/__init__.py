"""The command `downslope`."""

from __future__ import annotations

import sys
from typing import Annotated

import downslope

try:
    import typer
except ImportError:  # pragma: no cover
    sys.exit('The command line needs more than the bare library. Install it with: pip install "downslope[lab]"')

from downslope.cli.convert import convert
from downslope.cli.race import race
from downslope.cli.rules import rules

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Race update rules of neural networks on real data, each fairly tuned; convert them between frameworks."""
    if version:
        typer.echo(downslope.__version__)
        raise typer.Exit


app.command()(race)
app.command()(convert)
app.command()(rules)


def main() -> None:
    """Run the command."""
    app()
