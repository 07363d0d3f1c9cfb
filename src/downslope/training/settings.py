"""A rule as chosen: what a step computes, but for the numbers."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from downslope.language.options import NAMES, compose, stored_point
from downslope.language.program import Program
from downslope.rule import Rule
from downslope.targets.arrays import interpret


@dataclass(frozen=True)
class Settings:
    """A rule, the choices among its formulas, and the options around it.

    Attributes:
        rule: The rule.
        flags: The value of each of its boolean hyperparameters.
        options: The names of the options around it.
        stored_ahead: Whether the arrays hold the point where the gradient is taken; only of a rule with a look-ahead.
    """

    rule: Rule
    flags: frozenset[tuple[str, bool]]
    options: frozenset[str] = frozenset()
    stored_ahead: bool = False

    @classmethod
    def of(
        cls, rule: Rule, flags: Mapping[str, Any], options: Collection[str] = (), *, stored_ahead: bool = False
    ) -> Settings:
        """The settings with these flags, checked, and the defaults of the rest; the formula is read.

        Raises:
            TypeError: A flag is unknown, or not true or false.
            FormulaError: The rule cannot be compiled, or an option does not fit it.
        """
        complete = {**rule.flags, **{name: rule.checked(name, value) for name, value in flags.items()}}
        stored_ahead = stored_ahead and rule.ahead is not None
        made = cls(rule, frozenset(complete.items()), frozenset(options), stored_ahead)
        _program(made)
        return made

    @property
    def choices(self) -> dict[str, bool]:
        """The flags by name, in the order of the formula."""
        flags = dict(self.flags)
        return {name: flags[name] for name in self.rule.flags}

    @functools.cached_property
    def program(self) -> Program:
        """The rule with everything around it, read once.

        Raises:
            FormulaError: The rule cannot be compiled, or an option does not fit it.
        """
        return _program(self)

    @functools.cached_property
    def ahead(self) -> Ahead | None:
        """The way to the point ahead and back, if the rule has a look-ahead."""
        return None if self.rule.ahead is None else _ahead(self.rule, self.flags)

    @property
    def around(self) -> dict[str, bool]:
        """Whether each of the options there are is around the rule, by name."""
        return {name: name in self.options for name in NAMES}

    def with_options(self, **options: bool) -> Settings:
        """These settings with other options."""
        chosen = {**self.around, **options}
        return replace(self, options=frozenset(name for name in chosen if chosen[name]))


@dataclass(frozen=True)
class Ahead:
    """From the weights to the point ahead of them where the gradient is taken, and back, with the states as they are.

    Attributes:
        to_point: The program from the weights to the point.
        to_weights: The program back.
    """

    to_point: Program
    to_weights: Program

    @property
    def scalars(self) -> tuple[str, ...]:
        """What the way depends on besides weights and states: hyperparameters, scalar states, `t` of the step ahead."""
        return self.to_point.scalars

    def move(
        self, x: Any, states: Mapping[str, Any], scalars: Mapping[str, Any], *, to_weights: bool, xp: Any = np
    ) -> Any:
        """Where an array goes.

        Args:
            x: The weights, or the points ahead; states and result have its shape and dtype.
            states: Its states, by name.
            scalars: What is listed in `scalars`, and perhaps more.
            to_weights: Whether `x` are points ahead and the weights are wanted.
            xp: The array library.
        """
        return interpret(self.to_weights if to_weights else self.to_point, {"x": x, **states}, scalars, xp)["x"]


@functools.lru_cache(maxsize=256)
def _program(settings: Settings) -> Program:
    return compose(settings.rule, stored_ahead=settings.stored_ahead, **settings.around, **dict(settings.flags))


@functools.lru_cache(maxsize=256)
def _ahead(rule: Rule, flags: frozenset[tuple[str, bool]]) -> Ahead:
    to_point, to_weights = (stored_point(rule, to_weights=way, **dict(flags)) for way in (False, True))
    return Ahead(to_point, to_weights)
