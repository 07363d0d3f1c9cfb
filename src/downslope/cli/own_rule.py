"""A rule of one's own, named on the command line as `file.py:name`."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import Any

import downslope
from downslope.rule import Rule


def names_a_file(name: str) -> bool:
    """Whether the text is of the form `file.py:name`."""
    path, colon, _ = name.rpartition(":")
    return bool(colon) and path.endswith(".py")


def own_rule(name: str, argument: str) -> Rule:
    """The rule `file.py:name`, once its formula has been read.

    Args:
        name: The file and the rule's name in it.
        argument: What the text was given as, for errors.

    Raises:
        ValueError: There is no such file or rule, or the author's code raised something.
    """
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"{argument} {name}: there is no file {path}")
    try:
        space: dict[str, Any] = runpy.run_path(path)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{argument} {name}: the file raised {type(error).__name__}: {error}") from None
    found = space.get(attribute)
    if not isinstance(found, downslope.Rule):
        if inspect.isfunction(found):
            raise ValueError(
                f"{argument} {name}: {attribute} is a function that is not a rule yet; write @downslope.rule in the "
                f"line before its def"
            )
        there = [key for key, value in space.items() if isinstance(value, downslope.Rule)]
        raise ValueError(f"{argument} {name}: {path} has no rule of this name; it has {', '.join(there) or 'none'}")
    try:
        found.latex()
    except Exception as error:  # whatever the author's own code raises
        raise ValueError(f"{argument} {name}: the formula raised {type(error).__name__}: {error}") from None
    return found
