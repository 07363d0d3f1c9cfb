"""The names of rules on the command line: those of downslope, of a dialect, and one's own as `file.py:name`."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import Any

from downslope.recipes import catalogue
from downslope.rule import Rule


def named(name: str, argument: str) -> str | Rule:
    """What a person means by the name of a rule: a family of rules, or one rule.

    Args:
        name: Such as `adam`, `keras.adam`, `torch.optim.NAdam` or `file.py:name`.
        argument: What the text was given as, for errors.

    Returns:
        A rule, or the name of a family where no dialect and no file is named.

    Raises:
        ValueError: There is none of this name.
    """
    if names_a_file(name):
        return own_rule(name, argument)
    try:
        return catalogue.find(name)
    except ValueError as error:
        raise ValueError(f"{argument} {name}: {error}; your own are file.py:name") from None


def rule_named(name: str, argument: str) -> Rule:
    """The rule of this name; of a family its first form, the textbook's where there is one.

    Raises:
        ValueError: There is none.
    """
    found = named(name, argument)
    return next(iter(catalogue.families()[found].values())) if isinstance(found, str) else found


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
    if not isinstance(found, Rule):
        if inspect.isfunction(found):
            raise ValueError(
                f"{argument} {name}: {attribute} is a function that is not a rule yet; write @downslope.rule in the "
                f"line before its def"
            )
        there = [key for key, value in space.items() if isinstance(value, Rule)]
        raise ValueError(f"{argument} {name}: {path} has no rule of this name; it has {', '.join(there) or 'none'}")
    try:
        found.latex()
    except Exception as error:  # whatever the author's own code raises
        raise ValueError(f"{argument} {name}: the formula raised {type(error).__name__}: {error}") from None
    return found
