"""A rule as chosen: what a step computes, but for the numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from downslope.language.formula import unknown
from downslope.language.options import AFTER, BEFORE, CHOICES, FIXED, NAMES, NUMBERS, compose, stored_point
from downslope.language.program import Program
from downslope.language.ranges import check_number
from downslope.rule import Rule
from downslope.targets.arrays import interpret
from downslope.training.checks import check_rule

Schedule = Callable[[int], float]
"""A hyperparameter that changes: called with the number of the step, from 1, it returns the value for that step."""

SETTLED = tuple(sorted({*FIXED, "lookahead", "nonfinite", "threads"}))
"""What holds for a whole optimizer from the start."""


@dataclass(frozen=True)
class Settings:
    """A rule, the choices among its formulas, and the options around it.

    Attributes:
        rule: The formula.
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

    def complete(self, given: Mapping[str, Any]) -> dict[str, float | Schedule]:
        """All hyperparameters, checked: those given, else the defaults; an option that is not given here counts as 0.

        Raises:
            TypeError: A name is unknown, a value is of the wrong kind, or a hyperparameter is missing.
            ValueError: A value is out of range.
        """
        absent = {name: 0.0 for name in NUMBERS if name in self.options}
        numbers = {**self.program.hyperparameters, **absent, **given}
        for name, value in numbers.items():
            if value is None and name not in given:
                raise TypeError(f"{self.rule.name} has no default for {name}; give {name}=...")
        return {name: self.checked(name, value) for name, value in numbers.items()}

    def checked(self, name: str, value: Any) -> float | Schedule:
        """The number or schedule for this hyperparameter.

        Raises:
            TypeError: The name is unknown or of something else than a hyperparameter, or the value of the wrong kind.
            ValueError: The value is out of range.
        """
        if name in self.program.hyperparameters:
            if callable(value):
                schedule: Schedule = value
                check_number(f"{name}(t=1)", schedule(1), self.program.ranges[name])
                return schedule
            return check_number(name, value, self.program.ranges[name])
        if name in (*self.rule.flags, *SETTLED, *NUMBERS):
            raise TypeError(f"{name} is settled for the whole optimizer when it is made; it cannot be set here")
        valid = dict.fromkeys((*self.program.hyperparameters, *self.rule.flags, *NUMBERS, *SETTLED))
        raise unknown(f"an optimizer with the rule {self.rule.name}", name, list(valid))


def settle(
    rule: Rule,
    shared: Mapping[str, Any],
    own: Sequence[Mapping[str, Any]] = ({},),
    *,
    stored_ahead: bool = False,
) -> tuple[Settings, list[dict[str, float | Schedule]]]:
    """Settle a rule with what it is given: its settings, and the hyperparameters of every group.

    Args:
        rule: What a step computes.
        shared: Hyperparameters and flags for all groups, and options; an option that is None is not wanted.
        own: The hyperparameters that each group sets for itself.
        stored_ahead: Keep the point of the look-ahead in the arrays.

    Raises:
        TypeError: A name is unknown, a value is of the wrong kind, or a hyperparameter is missing.
        ValueError: A value is out of range.
        FormulaError: The rule cannot be compiled, or an option does not fit it.
    """
    check_rule(rule)
    fixed = {name: shared[name] for name in FIXED if name in shared}
    flags = {name: shared[name] for name in rule.flags if name in shared}
    absent = {name for name in NUMBERS if name in shared and shared[name] is None}
    numbers = {name: value for name, value in shared.items() if name not in {*fixed, *flags, *absent}}
    given = {*numbers, *(name for group in own for name in group)}
    added = {name for name in NUMBERS if name in given and name not in {*rule.hyperparameters, *rule.flags}}
    settings = Settings.of(rule, flags, added | wanted(fixed), stored_ahead=stored_ahead)
    return settings, [settings.complete({**numbers, **group}) for group in own]


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


def wanted(options: Mapping[str, Any]) -> set[str]:
    """Those of the options given that are wanted.

    Raises:
        TypeError: One that is a yes or no is neither True nor False.
    """
    for name, value in options.items():
        if name in CHOICES and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}={value!r}: give True or False")
    return {name for name, value in options.items() if (value if name in CHOICES else value is not None)}


def without(options: frozenset[str], own: Collection[str]) -> frozenset[str]:
    """Options of several rules without those that one of them has itself, and without what says how to apply these.

    Args:
        options: The names of the options around all of them.
        own: The rule's own hyperparameters and flags.

    Example:
        >>> sorted(without(frozenset({"weight_decay", "decoupled", "averaging"}), {"lr", "weight_decay"}))
        ['averaging']
    """
    left = options.intersection(own)
    return options - left - {each.option for each in (*BEFORE, *AFTER) if not left.isdisjoint(each.numbers)}


@functools.lru_cache(maxsize=256)
def _program(settings: Settings) -> Program:
    return compose(settings.rule, stored_ahead=settings.stored_ahead, **settings.around, **dict(settings.flags))


@functools.lru_cache(maxsize=256)
def _ahead(rule: Rule, flags: frozenset[tuple[str, bool]]) -> Ahead:
    to_point, to_weights = (stored_point(rule, to_weights=way, **dict(flags)) for way in (False, True))
    return Ahead(to_point, to_weights)
