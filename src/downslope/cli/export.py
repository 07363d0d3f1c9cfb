"""The command `downslope export`: a race in a folder, written for another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from downslope.cli.ending import refuse
from downslope.cli.wording import as_typed
from downslope.extras import require

if TYPE_CHECKING:
    from downslope.lab.exports.export import Tool


def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a race that has ended or was stopped.")],
    to: Annotated[str, typer.Option(help="tensorboard, mlflow or optuna.")],
    out: Annotated[
        str,
        typer.Option(
            help="The folder (TensorBoard) or file (Optuna, MLflow) to make, or the address of a tracking server of "
            "MLflow. Default: beside the folder, named after it.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Write a race in a folder for TensorBoard, MLflow or Optuna."""
    try:
        require("A race", "lab", ["jax", "rich.console", "polars"])
        from downslope.cli.keeping import go_on
        from downslope.lab.exports.export import TOOLS
        from downslope.lab.exports.export import export as write
        from downslope.lab.keeping.told import read_race

        if to not in TOOLS:
            raise ValueError(f"--to {to}: give {', '.join(TOOLS)}")
        race = read_race(folder)
        if race is None:
            raise ValueError(f"the race in {folder} has not ended; go on with: {go_on(folder)}")
        place = out or str(folder.with_name(f"{folder.name}.{TOOLS[to].ending}"))
        write(race, cast("Tool", to), place)
    except ImportError as error:
        refuse("export", error, 1)
    except (OSError, ValueError) as error:
        refuse("export", as_typed(str(error), ["to"]).replace("place=", "--out "))
    typer.echo(f"Written for {to}: {place}")
