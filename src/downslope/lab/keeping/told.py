"""What the runs in a folder say: race.json has the race without its runs, which it names; here both are joined."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from downslope import files
from downslope.lab.engines.protocol import Run
from downslope.lab.keeping.folder import RACE, RUNS
from downslope.lab.keeping.identity import name_of
from downslope.lab.keeping.planned import read_plan
from downslope.lab.keeping.refusing import FolderError
from downslope.lab.keeping.rows import Kept, read_all
from downslope.lab.races.results import Race, RuleResult
from downslope.sealed import sealed, unsealed

AGAIN = "delete that file, and go on with the race: it is written anew"


def write_race(folder: Path, race: Race, key: Callable[[Run], str]) -> None:
    """Write race.json.

    Args:
        folder: The folder of the race.
        race: What the runs say.
        key: All that decides a run.

    Raises:
        OSError: It cannot be written.
    """
    bare = replace(race, rules=tuple(replace(result, tuning=(), verdict=()) for result in race.rules))
    runs = {
        result.rule: [[name_of(key(run)) for run in part] for part in (result.tuning, result.verdict)]
        for result in race.rules
    }
    files.write(folder / RACE, sealed({"race": json.loads(bare.to_json()), "runs": runs}))


def read_race(folder: Path, kept: Mapping[str, Kept] | None = None) -> Race | None:
    """The race that a folder holds, as it was when it ended or was stopped; None if it has done neither yet.

    Args:
        folder: The folder.
        kept: Its runs, if they have been read.

    Raises:
        FolderError: It is no folder of a race, or a file is not as it was written.
    """
    kept = kept_runs(folder) if kept is None else kept
    runs = {name_of(key): one.run for key, one in kept.items()}
    try:
        document = unsealed((folder / RACE).read_text(encoding="utf-8"))
        race = Race.from_json(json.dumps(document["race"]))
        return replace(race, rules=tuple(_filled(result, document["runs"], runs) for result in race.rules))
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise FolderError(f"{folder / RACE} names runs that are not in the folder ({error}); {AGAIN}") from None
    except (OSError, ValueError) as error:
        raise FolderError(f"{folder / RACE} cannot be read ({error}); {AGAIN}") from None


def _filled(result: RuleResult, names: Mapping[str, Any], runs: Mapping[str, Run]) -> RuleResult:
    """What was found out about a rule, with its runs."""
    tuning, verdict = (tuple(replace(runs[name], rule=result.rule) for name in part) for part in names[result.rule])
    return replace(result, tuning=tuning, verdict=verdict)


def kept_runs(folder: Path) -> dict[str, Kept]:
    """The runs in a folder by all that decides them.

    Raises:
        FolderError: It is no folder of a race, or a file is not as it was written.
    """
    read_plan(folder)
    return {kept.key: kept for kept in read_all(sorted((folder / RUNS).glob("*.parquet")))}
