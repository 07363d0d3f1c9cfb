"""A rule with its settings: what one framework's line of code says, as a value that can be compared and converted."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from downslope.dialects import dialect_of
from downslope.language.options import CHOICES, NAMES
from downslope.language.program import Program
from downslope.rule import Rule
from downslope.training.arguments import every_option, takes
from downslope.training.settings import Settings, settle

ELSEWHERE = ("averaging", "max_norm")
"""The options that are no part of a recipe."""

AROUND = tuple(name for name in NAMES if name not in ELSEWHERE)
"""Those that are."""


class Recipe:
    """A rule with all of its hyperparameters and flags, and with the options around it.

    A recipe cannot be changed; `with_settings` gives another one. Two recipes are equal if all they hold is.

    Args:
        rule: The rule, one of downslope's, of a dialect or your own.
        **settings: Hyperparameters, as numbers, and flags; the rest have the rule's defaults. And the options of every
            optimizer (`downslope.Options`) but for those that do not change the path or need the gradients of all
            weights together, `averaging` and `max_norm`.

    Attributes:
        chosen: The rule with its flags and options.
        numbers: Its hyperparameters, and `weight_decay` where the option is used.

    Raises:
        TypeError: A name is unknown, a value is of the wrong kind, or a hyperparameter is missing.
        ValueError: A value is out of range.
        FormulaError: The rule cannot be compiled, or an option does not fit it.

    Example:
        >>> from downslope import Recipe, dialects
        >>> recipe = Recipe(dialects.keras.rmsprop, rho=0.95)
        >>> recipe
        Recipe(dialects.keras.rmsprop, lr=0.001, rho=0.95)
        >>> recipe.dialect, recipe.numbers["eps"]
        ('keras', 1e-07)
    """

    __slots__ = ("chosen", "numbers")
    chosen: Settings
    numbers: Mapping[str, float]

    @takes(*every_option(but=ELSEWHERE), rest="settings")
    def __init__(self, rule: Rule, **settings: Any):
        for name, value in settings.items():
            if callable(value):
                raise TypeError(f"{name}={value!r}: a recipe holds numbers; give the schedule's value at one step")
            if name in ELSEWHERE and isinstance(rule, Rule):
                rule.checked(name, value)  # raises unless it is a hyperparameter
        chosen, (given,) = settle(rule, settings)
        numbers = {name: value for name, value in given.items() if not callable(value)}
        object.__setattr__(self, "chosen", chosen)
        object.__setattr__(self, "numbers", MappingProxyType(numbers))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name}={value!r}: a recipe cannot be changed; use recipe.with_settings({name}=...)")

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self.chosen.rule

    @property
    def flags(self) -> Mapping[str, bool]:
        """Its boolean hyperparameters."""
        return self.chosen.choices

    @property
    def options(self) -> Mapping[str, bool]:
        """The options that are on or off, by name."""
        return {name: name in self.chosen.options for name in CHOICES}

    @property
    def program(self) -> Program:
        """The formula with the options around it, read; where there is a look-ahead, `x` are the weights."""
        return self.chosen.program

    def with_settings(self, **settings: Any) -> Recipe:
        """This recipe with other settings."""
        return Recipe(self.rule, **{**self.settings, **settings})

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that `Recipe` is given besides the rule: numbers, flags, and the options that are on."""
        return {**self.numbers, **self.flags, **{name: True for name in CHOICES if self.options[name]}}

    @property
    def changed(self) -> dict[str, Any]:
        """The settings without those that are the rule's defaults; a learning rate is always among them."""
        defaults: dict[str, Any] = {**self.rule.hyperparameters, **self.rule.flags}
        settings = self.settings
        return {name: v for name, v in settings.items() if name == "lr" or defaults.get(name) != v}

    @property
    def dialect(self) -> str | None:
        """The dialect that the rule is of; None for a rule of your own."""
        return dialect_of(self.rule)

    @property
    def label(self) -> str:
        """The rule's name after that of its dialect, as in `keras.adam`."""
        return f"{self.dialect}.{self.rule.name}" if self.dialect else self.rule.name

    @property
    def decayed(self) -> bool:
        """Whether the option `weight_decay` is used."""
        return "weight_decay" in self.numbers and "weight_decay" not in self.rule.hyperparameters

    @property
    def besides(self) -> dict[str, Any]:
        """What is given for the options that are used besides a weight decay."""
        used = self.chosen.options - {"weight_decay", "decoupled"}
        return {name: self.numbers.get(name, True) for name in AROUND if name in used}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        return self.rule is other.rule and self._key == other._key

    def __hash__(self) -> int:
        return hash((id(self.rule), self._key))

    @property
    def _key(self) -> tuple[Any, ...]:
        return tuple(sorted(self.settings.items()))

    def __reduce__(self) -> Any:
        return _made, (self.rule, self.settings)

    def __repr__(self) -> str:
        place = {None: "", "note": "rules."}.get(self.dialect, f"dialects.{self.dialect}.")
        return f"Recipe({', '.join([place + self.rule.name, *written(self.changed)])})"


def _made(rule: Rule, settings: Mapping[str, Any]) -> Recipe:
    return Recipe(rule, **settings)


def written(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the arguments of a call, in Python."""
    return [f"{name}={literal(value)}" for name, value in settings.items()]


def literal(value: Any) -> str:
    """A value in Python, with exponents as people write them."""
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))})"
    return repr(value).replace("e-0", "e-").replace("e+", "e") if isinstance(value, float) else repr(value)
