"""Reading a formula: the function is run once on symbols, and leaves behind the expressions for what it returns."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np

from downslope.language.expression import Expression, made
from downslope.language.formula import Formula
from downslope.language.operations import FormulaError
from downslope.language.spaces import WEIGHT, Space


def array(name: str, space: Space = WEIGHT) -> Expression:
    """The symbol of an array: of a value for each weight, or for each row or column."""
    return Expression("input", value=name, space=space)


def number(name: str) -> Expression:
    """The symbol of a scalar input."""
    return Expression("input", value=name)


def trace(formula: Formula, x: Any, dx: Any, states: Mapping[str, Any], settings: Mapping[str, Any]) -> Reading:
    """Run a formula on symbols.

    Args:
        formula: Its function is called once.
        x: The symbol of the weights, or an expression in its place.
        dx: The same for the gradient.
        states: The same for every state and scalar state, by name.
        settings: Symbols of the hyperparameters and `t`, and the values of the flags.

    Raises:
        FormulaError: The function is not a formula, with the offending operation by name.
    """
    name = formula.name
    ordered = [states[state] for state in formula.signature_states]
    frame = _FrameOf(formula.function.__code__)
    token = made.set(frame.find)
    try:
        returned = formula.function(x, dx, *ordered, **settings)
    except FormulaError as error:
        raise FormulaError(f"{name}: {error}") from None
    finally:
        made.reset(token)
    values = returned if isinstance(returned, tuple) else (returned,)
    expected = ("x", *formula.signature_states)
    if returned is None:
        raise FormulaError(f"{name} returns nothing; end the formula with: return {', '.join(expected)}")
    if len(values) != len(expected):
        raise FormulaError(f"{name} returns {len(values)} value(s); expected {len(expected)}: {', '.join(expected)}")
    outputs: dict[str, Expression] = {}
    for output, value in zip(expected, values, strict=True):
        value = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
        if not isinstance(value, (Expression, int, float, np.number)) or isinstance(value, bool):
            raise FormulaError(f"{name} returns {value!r} as the new {output}; expected a formula or a number")
        e = value if isinstance(value, Expression) else Expression("constant", value=float(value))
        if e.is_condition:
            raise FormulaError(f"{name} returns the truth value {e!r} as the new {output}; use where(condition, a, b)")
        if output in formula.scalar_states and e.space.of_tensor:
            raise FormulaError(
                f"{name}: the new scalar state {output} depends on arrays: {e!r} is {e.space}; sum it up over all "
                'tensors, as in norm(dx, over="all")'
            )
        space = formula.spaces.get(output, WEIGHT)
        if not e.space.stretches_to(space):
            hint = "; sum it up with mean, norm, sum or max" if e.space == WEIGHT else ""
            raise FormulaError(f"{name} returns {e.space} as the new {output}, where {space} is expected: {e!r}{hint}")
        outputs[output] = e
    return Reading(outputs, frame.names())


@dataclass(frozen=True)
class Reading:
    """What a formula left behind: its outputs by name, and what its author called the steps on the way."""

    outputs: dict[str, Expression]
    names: dict[Expression, str]


class _FrameOf:
    """The frame of a function that is being read: whoever holds it can see its local variables after the return."""

    def __init__(self, code: CodeType):
        self.code = code
        self.frame: FrameType | None = None

    def find(self) -> None:
        """Look for the frame among the callers."""
        if self.frame is None:
            self.frame = sys._getframe(1)
            while self.frame is not None and self.frame.f_code is not self.code:
                self.frame = self.frame.f_back

    def names(self) -> dict[Expression, str]:
        """The author's names: the local variables that held an expression in the end."""
        found: dict[Expression, str] = {}
        for name, value in (self.frame.f_locals if self.frame else {}).items():
            if isinstance(value, Expression):
                found.setdefault(value, name)
        return found
