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
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from downslope import files
from downslope.lab.keeping.claims import CLAIMS
from downslope.lab.keeping.identity import Identity, but_for_rounding
from downslope.lab.keeping.planned import PLAN, Planned, read_plan
from downslope.lab.keeping.refusing import FolderError, told
from downslope.lab.keeping.rows import Kept, Trail, read_runs, written
from downslope.lab.races.store import encode
from downslope.sealed import sealed

RUNS, RACE = "runs", "race.json"


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
        first: Where it would be, had there been nothing.
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
        self.first = self.path
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
        number = 1
        while True:
            try:
                return self._opened(Planned(identity, decided or {}))
            except AnotherRaceError:
                if not self.other:
                    raise
                number += 1
                self.path = self.first.with_name(f"{self.first.name}-{number}")

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
            raise FolderError(f"folder={self.path}: {told(error)}; give the name of a folder") from None
        except OSError as error:
            raise FolderError(f"folder={self.path}: {told(error)}; give a folder that can be written to") from None
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

    def find(self, key: str) -> Kept | None:
        """The run that this decides, if it is finished."""
        found = self._runs.get(key) or (self._runs.get(but_for_rounding(key)) if self.mix else None)
        return None if found is None else found[0]

    @property
    def seconds(self) -> float:
        """What all of its runs took."""
        return math.fsum({id(kept): kept.seconds for kept, _ in self._runs.values()}.values())

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
