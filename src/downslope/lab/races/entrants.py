"""What the rules of a race are called: in its table, its verdict, its files and on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from downslope.dialects import full_name
from downslope.lab.engines.entrant import for_matrices
from downslope.rule import Rule
from downslope.rules import adamw

T = TypeVar("T")


BESIDE = f"+{adamw.name}"
"""What the name of a rule for matrices has after it in a race, where another one trains the rest beside it."""


def name_in_a_race(name: str, rule: Rule) -> str:
    """What a rule of this name is called in a race.

    Example:
        >>> import downslope
        >>> name_in_a_race("muon", downslope.muon), name_in_a_race("adam", downslope.adam)
        ('muon+adamw', 'adam')
    """
    return name + BESIDE if for_matrices(rule) else name


def named(rules: Sequence[Rule] | Mapping[str, Rule]) -> dict[str, Rule]:
    """Rules by what they are called in a race: as their keys say or, of a list, by their names.

    A framework's form of a rule is called by its dialect too, and a rule for matrices by what trains the rest.

    Raises:
        ValueError: There is no rule, something else is among them, or two would be called the same.

    Example:
        >>> import downslope
        >>> list(named([downslope.adam, downslope.dialects.keras.adam]))
        ['adam', 'keras.adam']
    """
    if isinstance(rules, str) or not rules:
        raise ValueError(f"rules={rules!r}: give a list of rules, such as [downslope.sgd, downslope.adam]")
    pairs = rules.items() if isinstance(rules, Mapping) else ((None, rule) for rule in rules)
    found: dict[str, Rule] = {}
    for name, rule in pairs:
        if not isinstance(rule, Rule):
            raise ValueError(f"rules holds {rule!r}; give rules such as downslope.adam")
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise ValueError(f"rules: {name!r} is no name for {rule.name}; give text")
        called = name_in_a_race(full_name(rule), rule) if name is None else name
        if called in found:
            raise ValueError(
                f"rules: two of them are called {called!r}; every rule needs a name of its own, as in "
                f"{{'{called}': ..., 'mine': ...}}"
            )
        found[called] = rule
    return found


def called(name: str, rules: Mapping[str, Rule]) -> list[str]:
    """Which rules of a race a person means by a name: the one that is called so, else all whose own name it is.

    Example:
        >>> import downslope
        >>> called("adam", {"keras.adam": downslope.dialects.keras.adam})
        ['keras.adam']
    """
    found = next((one for one in (name, name + BESIDE) if one in rules), None)
    return [found] if found else [other for other, rule in rules.items() if rule.name == name]


def by_rule(given: Mapping[str, Mapping[str, T]], rules: Mapping[str, Rule]) -> dict[str, Mapping[str, T]]:
    """Hyperparameters by what their rules are called in a race.

    Raises:
        ValueError: A key names no rule of the race, or more than one.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, values in given.items():
        meant = called(name, rules)
        if len(meant) != 1 or meant[0] in found:
            why = "no rule is named" if not meant else f"{', '.join(meant)} are all named" if meant[1:] else "twice"
            raise ValueError(f"hyperparameters: {why} {name!r}; the rules are {', '.join(rules)}")
        found[meant[0]] = values
    return found
