"""A race for TensorBoard, MLflow and Optuna: what each of them is given, and where."""

from __future__ import annotations

import importlib
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from downslope.extras import require
from downslope.lab.races.results import Race

Tool = Literal["tensorboard", "mlflow", "optuna"]
"""The tools that a race can be exported to."""


@dataclass(frozen=True)
class _Needs:
    package: str
    ending: str  # of the name that is made where none is given


TOOLS = {
    "tensorboard": _Needs("tensorboard", "tensorboard"),
    "mlflow": _Needs("mlflow", "mlflow.db"),
    "optuna": _Needs("optuna", "optuna.log"),
}


def export(race: Race, to: Tool, place: str | Path) -> None:
    """Write a race for another tool.

    - `"tensorboard"`: a folder that has one for each run, `RULE/lr=LR/PHASE-SEED`, with its curves over steps, and its
      settings for the tab *HParams*. Look at it by `tensorboard --logdir PLACE`.
    - `"optuna"`: a journal with one study, which has one trial for each rule and learning rate. Its value is the
      geometric mean of the final losses over the tuning seeds, infinite where one diverged; its intermediate values are
      those means while they train. Look at it by `optuna-dashboard PLACE`, or `optuna.load_study`.
    - `"mlflow"`: one run of MLflow for the race with its verdict, and below it one for each run, with parameters and
      curves over steps. Look at it by `mlflow ui --backend-store-uri sqlite:///PLACE`.

    Args:
        race: The race, also one that was stopped.
        to: The tool.
        place: The folder (TensorBoard) or file (Optuna) to make. For MLflow a SQLite file, made if it is not there, or
            the address of a tracking server: `http://...`, `sqlite:///...`.

    Raises:
        ImportError: The tool is not installed; the message says how to.
        ValueError: `to` is another one, or there is something at `place`.
        OSError: It cannot be written, or MLflow does not take it.
    """
    if to not in TOOLS:
        raise ValueError(f"to={to!r}: give {', '.join(map(repr, get_args(Tool)))}")
    require(f"An export to {to}", to, [TOOLS[to].package], load=True)
    write: Callable[[Race, str], None] = importlib.import_module(f"downslope.lab.exports.{to}").write
    if to == "mlflow":
        write(race, str(place))
        return
    whole = Path(place)
    if whole.exists():
        raise ValueError(f"place={place} is there already; give a new name")
    draft = whole.with_name(f".{whole.name}.{secrets.token_hex(4)}.draft")
    try:
        write(race, str(draft))
        draft.rename(whole)
    finally:
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink(missing_ok=True)
