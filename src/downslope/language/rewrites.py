"""Rewriting expressions: passes that a target may ask for before it writes or computes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from downslope.language.expression import Expression
from downslope.language.operations import expm1, log, where
from downslope.language.program import Program, in_order


def rewritten(roots: Iterable[Expression], replace: Callable[[Expression], Any]) -> dict[Expression, Expression]:
    """What becomes of every expression that the roots are made of.

    Args:
        roots: What is to be computed.
        replace: Given an expression whose arguments have been rewritten: what stands in its place, or None.
    """
    new: dict[Expression, Expression] = {}
    for e in in_order(roots):
        args = tuple(new[arg] for arg in e.args)
        same = all(a is b for a, b in zip(args, e.args, strict=True))
        candidate = e if same else Expression(e.op, args, e.value, e.space)
        other = replace(candidate)
        new[e] = candidate if other is None else other
    return new


@functools.lru_cache(maxsize=256)
def accurate_coefficients(program: Program) -> dict[Expression, Expression]:
    """What depends on no array, for targets that work it out in single precision.

    `1 - beta**t` becomes `-expm1(t * log(beta))`, and `1 - exp(a)` becomes `-expm1(a)`: the plain forms are wrong by up
    to 1e-4 there.
    """
    names = {name for name, allowed in program.ranges.items() if allowed.low >= 0}
    scalars = [e for e in program.expressions if not e.from_arrays]

    def replace(e: Expression) -> Any:
        if e.op != "sub" or e.args[0].value != 1.0 or e.args[0].op != "constant":
            return None
        lost = e.args[1]
        if lost.op == "exp":
            return -expm1(lost.args[0])
        if lost.op != "pow":
            return None
        base, exponent = lost.args
        if base.op == "input" and base.value in names:
            return -expm1(exponent * log(base))
        logarithm = log(where(base > 0, base, 1))
        return where(base > 0, -expm1(exponent * logarithm), e)

    return rewritten(scalars, replace)
