"""Programs in forty digits: what a formula says, as good as without rounding.

In floating-point numbers two ways to write one formula part by rounding errors, and a difference of two close numbers
can make these as large as what an epsilon does. In forty digits nothing is left to judge: what is the same agrees to
dozens of digits, and what is not does not.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from itertools import repeat
from typing import Any

from downslope.expression import Expression
from downslope.interpret import small_power
from downslope.trace import Program, in_order

Numbers = list[Decimal]
"""One number per weight."""

_CONTEXT = Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
"""Forty digits, no overflow to speak of, and nan and infinity where IEEE arithmetic has them."""

NAN = Decimal("nan")


def forty_digits() -> AbstractContextManager[Context]:
    """The arithmetic in which everything here is to be run."""
    return localcontext(_CONTEXT)


def compute(program: Program, arrays: Mapping[str, Numbers], scalars: Mapping[str, Decimal]) -> dict[str, Any]:
    """Compute one step.

    Args:
        program: The program.
        arrays: `x`, `dx` and the states.
        scalars: Hyperparameters, scalar states, and `t` where the program takes it.

    Returns:
        The new weights and states by name, scalar states included.

    Example:
        >>> import downslope
        >>> from downslope.trace import trace
        >>> with forty_digits():
        ...     new = compute(trace(downslope.sgd), {"x": [Decimal(1)], "dx": [Decimal(3)]}, {"lr": Decimal("0.1")})
        ...     print(new["x"][0])
        0.7
    """
    roots = {**program.outputs, **program.scalar_outputs}
    values: dict[Expression, Any] = {}
    for e in _order(program):
        if e.op == "constant":
            values[e] = Decimal(float(e.value or 0.0))
        elif e.op == "input":
            name = str(e.value)
            values[e] = arrays[name] if e.per_weight else scalars[name]
        else:
            values[e] = _apply(_function(e), [values[arg] for arg in e.args])
    count = len(arrays["x"])
    return {
        name: values[e] if e.per_weight or name in program.scalar_outputs else [values[e]] * count
        for name, e in roots.items()
    }


@functools.lru_cache(maxsize=32)
def _order(program: Program) -> list[Expression]:
    return in_order([*program.outputs.values(), *program.scalar_outputs.values()])


def _function(e: Expression) -> Callable[..., Any]:
    count = small_power(e) if e.op == "pow" else 0
    if count:
        return {2: _square, 3: lambda a, _: a * a * a, 4: lambda a, _: a * a * a * a}[count]
    return _FUNCTIONS[e.op]


def _apply(function: Callable[..., Any], args: list[Any]) -> Any:
    if not any(isinstance(arg, list) for arg in args):
        return function(*args)
    return list(map(function, *(arg if isinstance(arg, list) else repeat(arg) for arg in args)))


def _square(a: Decimal, _: Decimal) -> Decimal:
    return a * a


def _power(a: Decimal, b: Decimal) -> Decimal:
    return Decimal(1) if not b else a**b


def _sign(a: Decimal) -> Decimal:
    return a if a.is_nan() else Decimal((a > 0) - (a < 0))


def _maximum(a: Decimal, b: Decimal) -> Decimal:
    return b if b > a or b.is_nan() else a


def _minimum(a: Decimal, b: Decimal) -> Decimal:
    return b if b < a or b.is_nan() else a


def _tanh(a: Decimal) -> Decimal:
    if abs(a) > 60:
        return _sign(a)
    grown = (2 * a).exp()
    return (grown - 1) / (grown + 1)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": _power,
    "neg": operator.neg,
    "abs": abs,
    "sign": _sign,
    "sqrt": Decimal.sqrt,
    "exp": Decimal.exp,
    "log": Decimal.ln,
    "tanh": _tanh,
    "maximum": _maximum,
    "minimum": _minimum,
    "where": lambda condition, a, b: a if condition else b,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": operator.not_,
}
