"""The folder of a race: what decides its runs, and every run that is finished.

    plan.json             what decides the runs alike, what was decided by measuring, what was typed: written first
    runs/<hash>.parquet   runs that are finished, one row each; the name is the hash of the bytes
    race.json             what they say, once the race has ended; its runs are named, not repeated

A run is in the folder, or it is not: there is no state between. Each row says in its key all that decides its run, and
is named by the hash of that. So nothing that was cut short, changed or put there by somebody else is taken for a run.
Nothing is ever replaced but plan.json and race.json, and these as a whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope import files
from downslope.lab.engines.protocol import Run
from downslope.lab.keeping.claims import CLAIMS
from downslope.lab.keeping.identity import Identity, but_for_rounding, canonical
from downslope.lab.keeping.sealed import sealed, unsealed
from downslope.lab.races.store import decode, encode

PLAN, RUNS, RACE = "plan.json", "runs", "race.json"
CURVES = ("train_loss", "valid_loss", "valid_accuracy", "steps")
COLUMNS = ("key", "run", "seconds", "seen", *CURVES, "trail")
AGAIN = "delete that file, and its runs are trained again"


class FolderError(ValueError):
    """A folder cannot be used for a race; the message says why, and what to do."""


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


@dataclass(frozen=True)
class Planned:
    """What plan.json says.

    Attributes:
        identity: What decides the runs alike.
        decided: What was found out by measuring, and is not to be found out again.
        checked: What the first runs said about code of the user's own, in sentences; None if they were not asked yet.
        typed: What was typed, by option; None if nothing was.
        place: In which folder.
    """

    identity: Identity
    decided: Mapping[str, Any] = field(default_factory=dict)
    checked: Sequence[str] | None = None
    typed: Mapping[str, Any] | None = None
    place: str = ""


class Folder:
    """The folder of a race.

    Args:
        path: Where it is, or is to be.
        typed: What was typed, by option.
        mix: Whether runs count that have another processor or other versions of libraries, so that their last digits
            may differ.
        join: Whether other processes train runs of the race too, in the same folder.
        other: Whether to take another name where there is something of this one: a folder that is new.

    Attributes:
        path: Where it is, once it is open.
        planned: What its plan says.
        trained: How many runs of this race have been added.
        answered: How many were there before.
        mixed: How many of these differ by rounding.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        typed: Mapping[str, Any] | None = None,
        mix: bool = False,
        other: bool = False,
        join: bool = False,
    ):
        self.path, self.typed, self.mix, self.other, self.join = Path(path), typed, mix, other, join
        self.planned: Planned | None = None
        self.trained = self.answered = self.mixed = 0
        self._runs: dict[str, tuple[Kept, Path]] = {}
        self._read: set[str] = set()  # the names of the files that have been
        self._lock = threading.Lock()

    @classmethod
    def of(cls, given: str | Path | Folder, *, mix: bool = False) -> Folder:
        """The folder that is meant."""
        return given if isinstance(given, Folder) else cls(given, mix=mix)

    def open(self, identity: Identity, decided: Mapping[str, Any] | None = None) -> Planned:
        """Make the folder, or read what is in it.

        Args:
            identity: What decides the runs of the race.
            decided: What was found out by measuring; what the folder says of that goes before it.

        Returns:
            What its plan says.

        Raises:
            FolderError: It cannot be made, read or written, holds something else, or runs that are decided otherwise.
        """
        first, number = self.path, 1
        while True:
            try:
                return self._opened(Planned(identity, decided or {}))
            except AnotherRaceError:
                if not self.other:
                    raise
                number += 1
                self.path = first.with_name(f"{first.name}-{number}")

    def _opened(self, new: Planned) -> Planned:
        try:
            if self.other:
                self.path.mkdir(parents=True)
            (self.path / RUNS).mkdir(parents=True, exist_ok=True)
            there = {path.name for path in self.path.iterdir()}
            if PLAN not in there and there - {RUNS, CLAIMS} - {name for name in there if name.startswith(".")}:
                raise AnotherRaceError(
                    f"folder={self.path} holds other things and no {PLAN}; give an empty folder, or a new name"
                )
            files.sweep(self.path)
            files.sweep(self.path / RUNS)
            if PLAN not in there:
                self.write_plan(new)
            self.write_plan(self._continued(read_plan(self.path), new.identity))  # perhaps another process's by now
        except FileExistsError as error:
            if self.other:
                raise AnotherRaceError(f"folder={self.path} is there already") from None
            raise FolderError(f"folder={self.path}: {_told(error)}; give the name of a folder") from None
        except OSError as error:
            raise FolderError(f"folder={self.path}: {_told(error)}; give a folder that can be written to") from None
        self.refresh()
        assert self.planned is not None
        return self.planned

    def _continued(self, planned: Planned, identity: Identity) -> Planned:
        """The plan of a race that goes on."""
        other, rounding = identity.difference(planned.identity)
        if other:
            raise AnotherRaceError(
                f"folder={self.path} is that of another race ({'; '.join(other)}); give it a folder of its own"
            )
        if rounding and not self.mix:
            raise AnotherRaceError(
                f"folder={self.path} has runs whose last digits may be others ({'; '.join(rounding)}); go on where it "
                "was begun, give another folder, or say mix=True to count them alike"
            )
        return planned

    def write_plan(self, planned: Planned) -> None:
        """Write what is decided.

        Raises:
            OSError: It cannot be written.
        """
        if self.typed is not None:
            planned = dataclasses.replace(planned, typed=self.typed, place=str(Path.cwd()))
        self.planned = planned
        files.write(self.path / PLAN, sealed(encode(planned, PLAN)))

    def refresh(self) -> int:
        """Read the runs that others have added, and say how many.

        Raises:
            FolderError: A file is not as it was written.
        """
        new = 0
        with self._lock:
            for path in sorted((self.path / RUNS).glob("*.parquet")):
                if path.name not in self._read:
                    for kept in read_runs(path):
                        new += self._add(kept, path)
                    self._read.add(path.name)
        return new

    def _add(self, kept: Kept, path: Path) -> bool:
        known = kept.key in self._runs
        if not known or (self._runs[kept.key][0].trail is None and kept.trail is not None):
            self._runs[kept.key] = kept, path
            if self.mix:
                self._runs.setdefault(but_for_rounding(kept.key), (kept, path))
        return not known

    def __len__(self) -> int:
        """How many runs there are."""
        return sum(key == kept.key for key, (kept, _) in self._runs.items())

    def find(self, key: str) -> Kept | None:
        """The run that this decides, if it is finished."""
        found = self._runs.get(key) or (self._runs.get(but_for_rounding(key)) if self.mix else None)
        return None if found is None else found[0]

    def trail(self, key: str) -> Trail | None:
        """Where a run went, read from its file; None if it is not known."""
        found = self._runs.get(key) or (self._runs.get(but_for_rounding(key)) if self.mix else None)
        if found is None or found[0].trail is None:
            return None
        kept, path = found
        return next(one.trail for one in read_runs(path, points=True) if one.key == kept.key)

    def add(self, runs: Sequence[Kept]) -> None:
        """Write runs that are finished; when this returns they survive a failure of power.

        Raises:
            OSError: They cannot be written.
        """
        content = written(runs)
        path = self.path / RUNS / f"{hashlib.sha256(content).hexdigest()}.parquet"
        files.write(path, content)
        with self._lock:
            self._read.add(path.name)
            for kept in runs:
                bare = kept.trail and Trail(kept.trail.epochs, np.zeros(0, kept.trail.points.dtype))
                self.trained += self._add(dataclasses.replace(kept, trail=bare), path)


class AnotherRaceError(FolderError):
    """A folder that holds another race."""


def read_plan(path: Path) -> Planned:
    """What the plan in a folder says.

    Raises:
        FolderError: There is none, or it is not one of this version.
    """
    try:
        written: _Written = decode(unsealed((path / PLAN).read_text(encoding="utf-8")), _Written, PLAN)
    except (FileNotFoundError, NotADirectoryError):
        raise FolderError(f"{path} is no folder of a race: it has no {PLAN}") from None
    except OSError as error:
        raise FolderError(f"{path / PLAN} cannot be read: {_told(error)}") from None
    except ValueError as error:
        raise FolderError(f"{path / PLAN} cannot be read ({error}); begin in a new folder") from None
    return written.planned()


@dataclass(frozen=True)
class _WrittenIdentity:
    what: dict[str, Any]
    rounding: dict[str, Any]
    labelled: bool


@dataclass(frozen=True)
class _Written:
    """`Planned` in the types that it is read as."""

    identity: _WrittenIdentity
    decided: dict[str, Any]
    checked: tuple[str, ...] | None
    typed: dict[str, Any] | None
    place: str

    def planned(self) -> Planned:
        identity = Identity(self.identity.what, self.identity.rounding, self.identity.labelled)
        return Planned(identity, self.decided, self.checked, self.typed, self.place)


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
        raise FolderError(f"{path} cannot be read: {_told(error)}") from None
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
            raise FolderError(f"{path} cannot be read: {_told(error)}") from None
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


def _kept(row: Mapping[str, Any]) -> Kept:
    about = {**json.loads(row["run"]), "train_loss": [], "valid_loss": [], "valid_accuracy": None, "steps": None}
    curves = {name: None if row[name] is None else tuple(row[name]) for name in CURVES}
    lengths = {len(curve) for name, curve in curves.items() if curve is not None and (curve or name != "train_loss")}
    if len(lengths) != 1 or any(None in curve for curve in curves.values() if curve is not None):
        raise ValueError("its curves do not fit each other")
    run = dataclasses.replace(decode(about, Run, "run"), **curves)
    decided = json.loads(row["key"])["run"]
    for name, value in decided.items():
        if name in ("lr", "seed", "phase") and value != getattr(run, name):
            raise ValueError(f"a run with {name} {getattr(run, name)} has the key of one with {value}")
    seen, trail = row["seen"], None
    if seen is not None:
        about = json.loads(seen)
        epochs, kind = tuple(map(int, about["epochs"])), np.dtype(about["kind"])
        if kind not in (np.float32, np.float64):
            raise ValueError(f"its weights are {kind}")
        points = np.frombuffer(row.get("trail") or b"", kind)
        trail = Trail(epochs, points.reshape(len(epochs), -1) if len(points) else points)
    return Kept(row["key"], run, float(row["seconds"]), trail)


def _told(error: OSError) -> str:
    return error.strerror or str(error)
