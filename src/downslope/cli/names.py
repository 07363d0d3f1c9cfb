"""What a person means by a name on the command line: a rule of downslope, of a dialect, or one's own in a file."""

from __future__ import annotations

import ast
import inspect
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from downslope.dialects import DIALECTS, full_name
from downslope.recipes.families import find, first_form
from downslope.recipes.recipe import Recipe
from downslope.recipes.spelled import read_recipe
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
        return find(name)
    except ValueError as error:
        raise ValueError(f"{argument} {name}: {error}; your own are file.py:name") from None


def rule_named(name: str, argument: str) -> Rule:
    """The rule of this name; of a family its first form, the textbook's where there is one.

    Raises:
        ValueError: There is none.
    """
    return first_form(named(name, argument))


def rules_named(text: str, argument: str) -> dict[str, Rule]:
    """The rules of a list with commas between, by what they are called beside each other.

    A framework's form is called by its dialect too, as in `keras.adam`; one's own by its file where another has its
    name, as in `file.py:adam`.

    Raises:
        ValueError: There is no rule of a name, or one is given twice.
    """
    given = [(name.strip(), rule_named(name.strip(), argument)) for name in text.split(",") if name.strip()]
    usual = [full_name(rule) for _, rule in given]
    found: dict[str, Rule] = {}
    for (typed, rule), name in zip(given, usual, strict=True):
        called = typed if usual.count(name) > 1 and names_a_file(typed) else name
        if called in found:
            raise ValueError(f"{argument} {text}: {called} is given twice")
        found[called] = rule
    return found


def recipe_named(name: str, dialect: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of an optimizer and its arguments.

    Args:
        name: What its framework calls it, or its rule; with the dialect before it, such as `keras.Adam`, or as the
            framework's code has it, such as `torch.optim.Adam`, where no dialect is given. Or `file.py:name`.
        dialect: The dialect, or nothing.
        settings: The arguments, under the framework's names or those of the dialect.

    Raises:
        ValueError: The dialect is missing or unknown, it has no such optimizer, or a value is out of range.
        TypeError: An argument is unknown, given twice, missing or of the wrong kind.
    """
    if names_a_file(name):
        if dialect:
            raise ValueError(f"--from {dialect} does not go with {name}, a rule of your own")
        return Recipe(own_rule(name, "NAME"), **settings)
    if not dialect:
        dialect, name = with_dialect(name)
    check_dialect("--from", dialect)
    if not name:
        names = dict.fromkeys(spelling.name for spelling in DIALECTS[dialect].spellings)
        raise ValueError(f"say which optimizer: {', '.join(names)}")
    return read_recipe(dialect, name, settings)


def with_dialect(name: str) -> tuple[str, str]:
    """The dialect that a name says, and the rest of it; no dialect where it says none."""
    for dialect, spoken in DIALECTS.items():
        if name.lower() in (spelling.call.lower() for spelling in spoken.spellings):
            return dialect, name
    dialect, _, rest = name.partition(".")
    return (dialect.lower(), rest) if dialect.lower() in DIALECTS and rest else ("", name)


def settings_typed(texts: Iterable[str]) -> dict[str, Any]:
    """The arguments of a call as a person types them, such as `lr=1e-3`, `nesterov=True` or `betas=(0.9,0.99)`.

    Raises:
        ValueError: A text is no such argument, or one is given twice.
    """
    found: dict[str, Any] = {}
    for name, value in map(_setting, texts):
        if name in found:
            raise ValueError(f"{name}={value}: {name} is given twice")
        found[name] = value
    return found


_WORDS = {word for dialect in DIALECTS.values() for spelling in dialect.spellings for word in spelling.words.values()}
"""The arguments of frameworks that are words, such as PyTorch's `adjust_lr_fn=match_rms_adamw`."""


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"{text}: give arguments as NAME=VALUE, such as lr=1e-3")
    try:
        return name, value if value in _WORDS else ast.literal_eval(
            {"true": "True", "false": "False"}.get(value, value)
        )
    except (ValueError, SyntaxError):
        raise ValueError(f"{text}: {value or 'nothing'} is not a number, True or False, or a pair of numbers") from None


def recipe_typed(text: str, argument: str) -> Recipe:
    """The recipe of an optimizer with its arguments in one text, such as `torch.optim.AdamW lr=3e-4`.

    Raises:
        ValueError: There is no such optimizer, or an argument is wrong.
    """
    name, *arguments = text.split() or [""]
    try:
        return recipe_named(name, "", settings_typed(arguments))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} {text}: {error}") from None


def check_dialect(option: str, value: str) -> None:
    """Refuse what is no dialect.

    Raises:
        ValueError: It is none.
    """
    if value not in DIALECTS:
        what = f"{option} {value}: there is no such dialect" if value else f"{option} is missing"
        raise ValueError(f"{what}; choose one of {', '.join(DIALECTS)}")


def names_a_file(name: str) -> bool:
    """Whether the text is of the form `file.py:name`."""
    path, colon, _ = name.rpartition(":")
    return bool(colon) and path.endswith(".py")


def own_function(name: str, argument: str, purpose: str) -> Callable[..., Any]:
    """The function `file.py:name`.

    Args:
        name: The file and the function's name in it.
        argument: What the text was given as, for errors.
        purpose: What it is for, such as `"to train a run"`, for errors.

    Raises:
        ValueError: There is no such file or function, or the author's code raised something.
    """
    path, _, attribute = name.rpartition(":")
    space = _run(name, argument)
    found = space.get(attribute)
    if not callable(found) or isinstance(found, (type, Rule)):
        there = [key for key, value in space.items() if getattr(value, "__module__", "") == "<run_path>"]
        listed = ", ".join(there) or "none"
        raise ValueError(f"{argument} {name}: {path} has no function of this name {purpose}; it has {listed}")
    function: Callable[..., Any] = found
    return function


def _run(name: str, argument: str) -> dict[str, Any]:
    """What a file that a name is of defines.

    What lies beside it can be imported as by a script: by its functions too, when they are called later.
    """
    path = name.rpartition(":")[0]
    if not Path(path).is_file():
        raise ValueError(f"{argument} {name}: there is no file {path}")
    folder, before = str(Path(path).resolve().parent), sys.path[:]
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    try:
        return runpy.run_path(path)
    except (Exception, SystemExit) as error:
        sys.path[:] = before
        raise ValueError(f"{argument} {name}: the file raised {type(error).__name__}: {error}") from None


def own_rule(name: str, argument: str) -> Rule:
    """The rule `file.py:name`, once its formula has been read.

    Args:
        name: The file and the rule's name in it.
        argument: What the text was given as, for errors.

    Raises:
        ValueError: There is no such file or rule, or the author's code raised something.
    """
    path, _, attribute = name.rpartition(":")
    space = _run(name, argument)
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
