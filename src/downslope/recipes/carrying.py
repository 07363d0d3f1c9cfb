"""What the states of one recipe are in another: found by letting both take the same steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import median
from typing import Any

from downslope.recipes.equivalence import NONE
from downslope.recipes.recipe import Recipe
from downslope.recipes.training import Training, gradient, rate
from downslope.targets.decimals import Numbers, compute, forty_digits

FACTORS: dict[str, Callable[[Any], Any]] = {
    "1": lambda lr: type(lr)(1),
    "-1": lambda lr: type(lr)(-1),
    "lr": lambda lr: lr,
    "-lr": lambda lr: -lr,
    "1/lr": lambda lr: 1 / lr,
    "-1/lr": lambda lr: -1 / lr,
}
"""What a state may be multiplied by on its way into another recipe, given the learning rate."""

FROM, TO = 9, 14
"""The steps at which states are compared: every weight has had a gradient by then."""

CLOSE = 0.25
"""The error up to which a state is better taken from another one than started anew."""


@dataclass(frozen=True)
class Origin:
    """Where a state comes from.

    Attributes:
        state: The state of the other recipe.
        factor: What it is multiplied by, one of `FACTORS`.
        constant: Whether this holds only as long as the learning rate is constant.
        exact: Whether it holds; otherwise it comes close.
    """

    state: str
    factor: str
    constant: bool
    exact: bool = True

    def __str__(self) -> str:
        sign, factor = ("-" if self.factor.startswith("-") else ""), self.factor.removeprefix("-")
        return sign + {"1": self.state, "lr": f"lr * {self.state}", "1/lr": f"{self.state} / lr"}[factor]

    def value(self, states: Mapping[str, Any], lr: float) -> Any:
        """The state, from arrays of the other recipe's.

        Raises:
            ValueError: It is to be divided by a learning rate of 0.
        """
        if "/" in self.factor and not lr:
            raise ValueError(f"lr={lr!r}: a state is {self}; give the learning rate with which {self.state} came about")
        return _times(states[self.state], float(FACTORS[self.factor](lr)))

    def decimals(self, states: Mapping[str, Numbers], lr: Decimal) -> Numbers:
        """The same in forty digits."""
        factor = FACTORS[self.factor](lr)
        return [factor * value for value in states[self.state]]


@functools.lru_cache(maxsize=256)
def origins(source: Recipe, target: Recipe) -> dict[str, Origin]:
    """Which state of the source each state of the target is, and with what factor; those that are none are left out.

    A state `s` comes from a state `r` with a factor `f`, if `s = f * r` before a step makes it so after the step, with
    the same weights and gradient, at five steps of a training; with a learning rate that changes, or else with a
    constant one. Where there is no such state, it is the closest, if half of all errors are less than a quarter.
    """
    if "lr" in source.numbers and "lr" in target.numbers:  # not 1, at which all factors are one
        source, target = source.with_settings(lr=0.037), target.with_settings(lr=0.037)
    found: dict[str, Origin] = {}
    with forty_digits():
        trainings = {changing: _trainings(source, changing) for changing in (True, False)}
        before = -1
        while len(found) > before:  # a state may depend on others, so go round until nothing new comes up
            before = len(found)
            for state in target.program.states.keys() - found.keys():
                for origin in _possible(source, target, state):
                    if all(e <= NONE for e in _errors(state, origin, target, found, trainings[not origin.constant])):
                        found[state] = origin
                        break
        for state in target.program.states.keys() - found.keys():
            errors = {
                origin: median(_errors(state, origin, target, found, trainings[not origin.constant]))
                for origin in _possible(source, target, state)
            }
            closest = min(errors, key=errors.__getitem__, default=None)
            if closest is not None and errors[closest] < CLOSE:
                found[state] = replace(closest, exact=False)
    return {state: found[state] for state in target.program.states if state in found}


def _possible(source: Recipe, target: Recipe, state: str) -> Iterator[Origin]:
    """What a state may come from: those that are one per weight, row or column as it is."""
    spaces, space = source.program.spaces, target.program.spaces.get(state)
    for constant in (False, True):
        for factor in FACTORS if "lr" in source.numbers else ("1", "-1"):
            for other in source.program.states:
                if spaces.get(other) == space:
                    yield Origin(other, factor, constant)


def _trainings(source: Recipe, changing: bool) -> list[tuple[Training, Numbers, Decimal]]:
    """A training before each of its steps, the gradient there, and what the learning rate is multiplied by."""
    training, found = Training.begin(source), []
    for t in range(1, TO + 2):
        factor = rate(t) if changing else Decimal(1)
        dx = gradient(t, training.point(factor))
        found.append((training, dx, factor))
        training = training.step(dx, factor)
    return found


def _errors(
    state: str,
    origin: Origin,
    target: Recipe,
    found: Mapping[str, Origin],
    trainings: list[tuple[Training, Numbers, Decimal]],
) -> Iterator[float]:
    """The relative errors of taking a state from another, after each of the steps and for each weight."""
    begun = Training.begin(target)
    known = {**found, state: origin}
    lr = Decimal(target.numbers.get("lr", 1.0))
    for t in range(FROM, TO):
        (_, _, past), (training, dx, factor), (after, _, _) = trainings[t - 1 : t + 2]
        states = {**begun.states, **{name: o.decimals(training.states, past * lr) for name, o in known.items()}}
        mine = training.handed_over(target, states, scalar_states_after(target, t)).step(dx, factor).states[state]
        yield from map(_error, mine, origin.decimals(after.states, factor * lr))


def _error(a: Decimal, b: Decimal) -> float:
    if a == b or (a.is_nan() and b.is_nan()):
        return 0.0
    error = float(abs(a - b) / max(abs(a), abs(b)))
    return 2.0 if math.isnan(error) else error


def scalar_states_after(recipe: Recipe, t: int) -> dict[str, Decimal]:
    """A recipe's scalar states after `t` steps, which depend on nothing but its settings."""
    program = recipe.program
    scalars = {name: Decimal(start) for name, start in program.scalar_states.items()}
    if not scalars:
        return {}
    only = replace(program, outputs={})
    with forty_digits():
        numbers = {name: Decimal(value) for name, value in recipe.numbers.items()}
        for step in range(1, t + 1):
            scalars = compute(only, {"x": []}, {**numbers, **scalars, "t": Decimal(step)})
    return scalars


def _times(value: Any, factor: float) -> Any:
    """An array, or arrays by name, times a number."""
    if isinstance(value, Mapping):
        return {name: _times(part, factor) for name, part in value.items()}
    return value if factor == 1 else value * factor
