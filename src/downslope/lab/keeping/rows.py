"""Runs that are finished, as a Parquet file: one row each, under a name that is the hash of its bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.protocol import Run
from downslope.lab.keeping.identity import canonical
from downslope.lab.keeping.refusing import FolderError, told
from downslope.lab.races.store import decode, encode

CURVES = ("train_loss", "valid_loss", "valid_accuracy", "steps")
COLUMNS = ("key", "run", "seconds", "seen", *CURVES, "trail")
AGAIN = "delete that file, and its runs are trained again"


@dataclass(frozen=True)
class Trail:
    """Where the weights of a run were under way, as far as it is kept.

    Attributes:
        epochs: When.
        points: One vector for each, shape `(epochs, numbers)`, in 32-bit floats or in double precision.
    """

    epochs: tuple[int, ...]
    points: NDArray[Any]


@dataclass(frozen=True)
class Kept:
    """A run that is finished.

    Attributes:
        key: All that decides it.
        run: The run.
        seconds: What it took.
        trail: Where it went; None if nobody looked.
    """

    key: str
    run: Run
    seconds: float
    trail: Trail | None = None


def written(runs: Sequence[Kept]) -> bytes:
    """Runs as the bytes of a Parquet file."""
    import polars as pl

    rows = []
    for kept in runs:
        about = encode(
            dataclasses.replace(kept.run, train_loss=(), valid_loss=(), valid_accuracy=None, steps=None), "run"
        )
        trail = kept.trail
        seen = None if trail is None else {"epochs": list(trail.epochs), "kind": trail.points.dtype.str}
        rows.append(
            {
                "key": kept.key,
                "run": canonical({name: value for name, value in about.items() if name not in CURVES}),
                "seconds": float(kept.seconds),
                "seen": None if seen is None else canonical(seen),
                **{name: getattr(kept.run, name) for name in CURVES},
                "trail": None if trail is None else np.ascontiguousarray(trail.points).tobytes(),
            }
        )
    target = io.BytesIO()
    pl.DataFrame(rows, schema=_schema()).write_parquet(target, compression="zstd", compression_level=1)
    return target.getvalue()


def _schema() -> dict[str, Any]:
    import polars as pl

    return {
        "key": pl.String(),
        "run": pl.String(),
        "seconds": pl.Float64(),
        "seen": pl.String(),
        **dict.fromkeys(CURVES, pl.List(pl.Float64)),
        "steps": pl.List(pl.Int64),
        "trail": pl.Binary(),
    }


def read_runs(path: Path, *, points: bool = False) -> list[Kept]:
    """The runs in a file.

    Args:
        path: The file.
        points: Whether to read where they went too; otherwise only whether it is known.

    Raises:
        FolderError: It is not as it was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {told(error)}") from None
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise FolderError(f"{path} is not as it was written: its name is not the hash of what it holds; {AGAIN}")
    try:
        return list(_rows(content, points=points))
    except Exception as error:  # what a reader of Parquet raises is of many kinds
        raise FolderError(f"{path} holds no runs that this version can read ({error}); {AGAIN}") from None


def read_all(paths: Sequence[Path]) -> list[Kept]:
    """The runs in many files, without where they went; as `read_runs` for each, but in one go.

    Raises:
        FolderError: A file is not as it was written.
    """
    import polars as pl

    contents: list[bytes] = []
    for path in paths:
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise FolderError(f"{path} cannot be read: {told(error)}") from None
    if not contents:
        return []
    named = zip(paths, contents, strict=True)
    if all(hashlib.sha256(content).hexdigest() == path.stem for path, content in named):
        try:
            frame = pl.read_parquet(contents)
            if dict(frame.schema) == _schema():
                return [_kept(row) for row in frame.drop("trail").iter_rows(named=True)]
        except Exception:
            contents = []  # which file it was is found out below
    return [kept for path in paths for kept in read_runs(path)]


def _rows(content: bytes, *, points: bool) -> Iterable[Kept]:
    import polars as pl

    columns = [name for name in COLUMNS if points or name != "trail"]
    schema = pl.read_parquet_schema(io.BytesIO(content))
    if dict(schema) != _schema():
        raise ValueError(f"its columns are {', '.join(schema)}")
    for row in pl.read_parquet(io.BytesIO(content), columns=columns, parallel="none").iter_rows(named=True):
        yield _kept(row)


def _check(run: Run, seconds: float, decided: Mapping[str, Any]) -> None:
    """Refuse a run that is not the one that its key names."""
    decided = {"setting": [], **decided}
    epochs, label = decided.get("epochs"), decided.get("rule", {}).get("label")
    has = encode({"lr": run.lr, "seed": run.seed, "phase": run.phase, "setting": run.setting}, "run")
    other = [name for name, value in has.items() if name in decided and decided[name] != value]
    if label not in (None, run.rule):
        other.append("rule")
    if epochs is not None and run.steps is None and len(run.valid_loss) != epochs + 1:
        other.append("epochs")
    if other:
        raise ValueError(f"a run has the key of one with another {other[0]}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"a run took {seconds} seconds")


def _kept(row: Mapping[str, Any]) -> Kept:
    about = {**json.loads(row["run"]), "train_loss": [], "valid_loss": [], "valid_accuracy": None, "steps": None}
    curves = {name: None if row[name] is None else tuple(row[name]) for name in CURVES}
    lengths = {len(curve) for name, curve in curves.items() if curve is not None and (curve or name != "train_loss")}
    if len(lengths) != 1 or any(None in curve for curve in curves.values() if curve is not None):
        raise ValueError("its curves do not fit each other")
    run = dataclasses.replace(decode(about, Run, "run"), **curves)
    _check(run, float(row["seconds"]), json.loads(row["key"])["run"])
    seen, trail = row["seen"], None
    if seen is not None:
        about = json.loads(seen)
        epochs, kind = tuple(map(int, about["epochs"])), np.dtype(about["kind"])
        if kind not in (np.float32, np.float64):
            raise ValueError(f"its weights are {kind}")
        points = np.frombuffer(row.get("trail") or b"", kind)
        trail = Trail(epochs, points.reshape(len(epochs), -1) if len(points) else points)
    return Kept(row["key"], run, float(row["seconds"]), trail)
