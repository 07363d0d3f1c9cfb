"""What plan.json says: what decides the runs of a race alike, and what was decided of it before its first run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downslope.lab.engines.protocol import LATER
from downslope.lab.keeping.identity import Identity
from downslope.lab.keeping.refusing import FolderError, told
from downslope.lab.races.store import decode
from downslope.sealed import unsealed

PLAN = "plan.json"


@dataclass(frozen=True)
class Planned:
    """What plan.json says.

    Attributes:
        identity: What decides the runs alike.
        decided: What was found out by measuring, and is not to be found out again.
        checked: What the first runs said about code of the user's own, in sentences; None if they were not asked yet.
        typed: What was typed, by option; None if nothing was.
        place: In which folder.
        spent: What was decided of a race with a budget, and of which; None if it has none.
    """

    identity: Identity
    decided: Mapping[str, Any] = field(default_factory=dict)
    checked: Sequence[str] | None = None
    typed: Mapping[str, Any] | None = None
    place: str = ""
    spent: Mapping[str, Any] | None = None


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
        raise FolderError(f"{path / PLAN} cannot be read: {told(error)}") from None
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
    spent: dict[str, Any] | None = field(default=None, metadata=LATER)

    def planned(self) -> Planned:
        identity = Identity(self.identity.what, self.identity.rounding, self.identity.labelled)
        return Planned(identity, self.decided, self.checked, self.typed, self.place, self.spent)
