"""Which rules there are, and in which dialects: families of forms, and what a person means by a name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from downslope.dialects import ALSO_CALLED, DIALECTS
from downslope.rule import Rule


def families() -> dict[str, dict[str, Rule]]:
    """All rules: by name, then by dialect; the textbook's first, in the order in which they are best learned.

    Example:
        >>> list(families()["adam"])
        ['note', 'torch', 'keras', 'tf1', 'optax']
        >>> families()["adam"]["keras"].hyperparameters["eps"]
        1e-07
    """
    found: dict[str, dict[str, Rule]] = {}
    for dialect, spoken in DIALECTS.items():
        for name, rule in spoken.rules.items():
            found.setdefault(name, {})[dialect] = rule
    return found


def forms_of(name: str) -> dict[str, Rule]:
    """The forms of a family, by dialect.

    Raises:
        ValueError: There is none of this name; the error has those that there are, the closest first.
    """
    known = families()
    if name not in known:
        raise ValueError(f"name={name!r}: {_missing(name, known)}")
    return known[name]


def first_form(found: str | Rule) -> Rule:
    """The rule itself, or of a family its first form: the textbook's where there is one."""
    return next(iter(forms_of(found).values())) if isinstance(found, str) else found


def name_in(dialect: str, name: str) -> str | None:
    """What a dialect calls a rule: the same, or the name of a rule that has it as a choice, or None."""
    spoken = DIALECTS[dialect]
    if name in spoken.rules:
        return name
    called = {spelling.rule.name for spelling in spoken.spellings if spelling.name.lower() == name}
    for other in sorted({other for group in ALSO_CALLED if name in group for other in group} & set(spoken.rules)):
        same_word = name in other.split("_") or other in name.split("_")
        if same_word or other in called or name in spoken.rules[other].flags:
            return other
    return None


def find(text: str) -> str | Rule:
    """What a person means by the name of a rule: a family, or one dialect's form where the dialect is named.

    Args:
        text: A name such as `adam`, `keras.adam`, or a framework's own, `NAdam` or `torch.optim.NAdam`; in large or
            small letters.

    Returns:
        The name of a family, or a rule.

    Raises:
        ValueError: There is no such dialect or rule; the error has what there is, the closest first.

    Example:
        >>> find("Adam"), find("keras.Adam").hyperparameters["eps"]
        ('adam', 1e-07)
    """
    text = text.strip().lower()
    calls = {s.call.lower(): s.rule for spoken in DIALECTS.values() for s in reversed(spoken.spellings)}
    if text in calls:
        return calls[text]
    dialect, dot, name = text.rpartition(".")
    known = families()
    if dot and dialect not in DIALECTS:
        raise ValueError(f"there is no dialect {dialect}; there are {', '.join(_closest(dialect, DIALECTS))}")
    here = {name: rule for name, rule in known.items() if not dot or dialect in rule}
    if name not in here:
        spoken = [DIALECTS[dialect]] if dot else DIALECTS.values()
        name = next((spelling.rule.name for each in spoken for spelling in each.named(name)), name)
    if name not in here:
        others = ", ".join(_closest(name, here))
        if dot and name in known:
            raise ValueError(f"{dialect} has no {name}, which is in {', '.join(known[name])}; {dialect} has {others}")
        raise ValueError(f"{dialect} has no rule {name}; there are {others}" if dot else _missing(name, here))
    return known[name][dialect] if dot else name


def _missing(name: str, known: Mapping[str, Any]) -> str:
    """That there is nothing of a name here, and what there is."""
    return f"there is no rule {name}; there are {', '.join(_closest(name, known))}"


def _closest(name: str, known: Mapping[str, Any]) -> list[str]:
    """The known names, those most like the one given first; the rest in their own order."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return [*near, *(other for other in known if other not in near)]
