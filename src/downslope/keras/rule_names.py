"""Rules in saved models: written as `module:name`, and found again without running anything that a file brings."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import keras

from downslope.rule import Rule
from downslope.version import __version__

OURS = ("downslope.rules", "downslope.dialects")
"""The packages whose modules are imported for a rule in a file; of all others those that are imported already count."""


def name_of(rule: Rule) -> str:
    """The name under which a rule is saved, such as `downslope.rules.adaptive:adam`."""
    return f"{rule.function.__module__}:{rule.function.__qualname__}"


def find(name: str, custom_objects: Mapping[str, Any] | None = None) -> Rule:
    """The rule of this name.

    It is looked for among the custom objects, under its whole name or its last part; then among downslope's own rules;
    then in modules that the program has imported. A file cannot have anything else imported.

    Args:
        name: What `name_of` gave.
        custom_objects: Rules by name, besides those of an enclosing `keras.saving.custom_object_scope`.

    Raises:
        ValueError: There is no such rule.

    Example:
        >>> find("downslope.rules.adaptive:adam").name
        'adam'
    """
    module, _, path = name.partition(":")
    for key in (name, path.rpartition(".")[2]):
        known = keras.saving.get_registered_object(key, custom_objects=custom_objects)
        if isinstance(known, Rule):
            return known
    if any(module == package or module.startswith(f"{package}.") for package in OURS):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise ValueError(f"downslope {_version()} has no rules in {module}, where {name!r} should be") from None
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = inspect.getattr_static(found, part, None)  # runs no code of the module
    if isinstance(found, Rule):
        return found
    short = path.rpartition(".")[2]
    raise ValueError(
        f"the rule {name!r} is not known here: import the module that defines it first, or pass "
        f"custom_objects={{{short!r}: {short}}} to the function that loads"
    )


def _version() -> str:

    return __version__
