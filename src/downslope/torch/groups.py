"""Parameter groups of any rule that say its momentum under the names which PyTorch's schedules look for as well."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from downslope.rule import Rule


def aliases(rule: Rule) -> dict[str, tuple[str, ...]]:
    """What schedules that cycle momentum look for, and the rule's own names for it.

    Example:
        >>> import downslope
        >>> aliases(downslope.nesterov), aliases(downslope.adan)
        ({'momentum': ('mu',)}, {'betas': ('beta1', 'beta2', 'beta3')})
    """
    own = {*rule.hyperparameters, *rule.flags}
    found: dict[str, tuple[str, ...]] = {}
    if "mu" in own and "momentum" not in own:
        found["momentum"] = ("mu",)
    betas = tuple(itertools.takewhile(own.__contains__, (f"beta{k}" for k in itertools.count(1))))
    if betas and "betas" not in own:
        found["betas"] = betas
    return found


def aliases_beside(rule: Rule, usual: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The same of a group with a rule of its own: schedules look at the names of the optimizer's rule, in all groups.

    Example:
        >>> import downslope
        >>> aliases_beside(downslope.muon, {"lr", "betas"}), aliases_beside(downslope.adamw, {"lr", "momentum"})
        ({'betas': ('momentum',)}, {'betas': ('beta1', 'beta2'), 'momentum': ('beta1',)})
    """
    own, found = {*rule.hyperparameters, *rule.flags}, aliases(rule)
    momentum = next((name for name in ("momentum", "mu", "beta1") if name in own), None)
    wanted = [name for name in ("betas", "momentum") if name in usual and name not in {*own, *found}]
    return found | {name: (momentum,) for name in wanted if momentum is not None}


def cycled(entries: Iterable[str]) -> dict[str, Any]:
    """What schedules that cycle the momentum look for among these names, as it is for a rule that has no momentum.

    Example:
        >>> cycled({"lr", "betas"}), cycled({"lr", "momentum"}), cycled({"lr"})
        ({'betas': (0.0,)}, {'momentum': 0.0}, {})
    """
    without: dict[str, Any] = {"betas": (0.0,), "momentum": 0.0}
    return {name: value for name, value in without.items() if name in entries}


class AliasedGroup(dict[str, Any]):
    """A parameter group with two names for one thing: whichever is set, the other follows.

    Args:
        entries: The entries. Where both names are given, it is the rule's own that counts.
        names: As `aliases` gives them.
    """

    names: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, entries: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]):
        super().__init__()
        self.names = names
        for key in sorted(entries, key=lambda key: key not in names):
            self[key] = entries[key]

    def __setitem__(self, key: str, value: Any) -> None:
        changed = self.names.get(key, (key,))
        if key in self.names:
            super().update(zip(changed, parts(key, value, len(changed)), strict=True))
        super().__setitem__(key, value)
        for name, own in self.names.items():
            if name != key and not set(changed).isdisjoint(own) and all(part in self for part in own):
                values = tuple(self[part] for part in own)
                super().__setitem__(name, values if name == "betas" else values[0])

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As that of a dict."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **entries: Any) -> None:
        """As that of a dict."""
        for key, value in dict(*others, **entries).items():
            self[key] = value

    def __ior__(self, other: Any) -> AliasedGroup:  # type: ignore[override,misc]
        self.update(other)
        return self

    def copy(self) -> AliasedGroup:
        """Another group with the same entries."""
        return AliasedGroup(self, self.names)


def parts(name: str, value: Any, count: int) -> Iterable[Any]:
    """The rule's own values from that of a schedule's name.

    Raises:
        TypeError: It is `betas`, and not as many numbers as the rule has.
    """
    if name != "betas":
        return (value,)
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise TypeError(f"betas={value!r}: give {count} number(s), such as {(0.9, 0.999, 0.99)[:count]}")
    return value


def refuse_contradiction(entries: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse entries that say one thing twice, and not the same.

    Raises:
        ValueError: They do.
        TypeError: `betas` are not as many numbers as the rule has.
    """
    said = {part: (part, entries[part]) for own in names.values() for part in own if part in entries}
    for name, own in names.items():
        if name in entries:
            for part, value in zip(own, parts(name, entries[name], len(own)), strict=True):
                other, before = said.setdefault(part, (name, value))
                if before is not value and before != value:
                    raise ValueError(
                        f"the parameter group has {other}={entries[other]!r} and {name}={entries[name]!r}, which are "
                        "two names for one thing; give one of them"
                    )
