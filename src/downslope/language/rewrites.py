"""Rewriting: other expressions in the place of those of a program, which is left as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from downslope.language.expression import Expression
from downslope.language.operations import expm1, log, where
from downslope.language.program import Program, in_order, share


def rewritten(
    roots: Iterable[Expression], instead: Callable[[Expression, tuple[Expression, ...]], Expression | None]
) -> dict[Expression, Expression]:
    """What becomes of every expression that the roots are made of.

    Args:
        roots: What is to be computed.
        instead: Given an expression and what has become of its arguments: what stands in its place, or None for the
            same operation of these.
    """
    new: dict[Expression, Expression] = {}
    for e in in_order(roots):
        args = tuple(new[arg] for arg in e.args)
        other = instead(e, args)
        new[e] = e.of(args) if other is None else other
    return new


def with_rewritten(program: Program, new: Mapping[Expression, Expression]) -> Program:
    """The program with these in the place of its expressions, equal ones as one object: its own where it has one.

    Args:
        program: What has been rewritten.
        new: What has become of everything that comes out of it, and of what its author gave a name.
    """
    results = (*program.outputs.items(), *program.scalar_outputs.items())
    named = {new[e]: name for e, name in program.names.items() if e in new}
    own = [e for e in program.expressions if new.get(e) is e]
    roots, names = share({name: new[e] for name, e in results}, named, own)
    outputs, scalar_outputs = ({name: roots[name] for name in of} for of in (program.outputs, program.scalar_outputs))
    return replace(program, outputs=outputs, scalar_outputs=scalar_outputs, names=names)


@functools.lru_cache(maxsize=256)
def accurate_coefficients(program: Program) -> dict[Expression, Expression]:
    """What depends on no array, for targets that work it out in single precision.

    `1 - beta**t` becomes `-expm1(t * log(beta))`, and `1 - exp(a)` becomes `-expm1(a)`: the plain forms are wrong by up
    to 1e-4 there.
    """
    names = {name for name, allowed in program.ranges.items() if allowed.low >= 0}
    scalars = [e for e in program.expressions if not e.from_arrays]

    def instead(e: Expression, args: tuple[Expression, ...]) -> Any:
        if e.op != "sub" or e.args[0].value != 1.0 or e.args[0].op != "constant":
            return None
        lost = args[1]
        if lost.op == "exp":
            return -expm1(lost.args[0])
        if lost.op != "pow":
            return None
        base, exponent = lost.args
        if base.op == "input" and base.value in names:
            return -expm1(exponent * log(base))
        logarithm = log(where(base > 0, base, 1))
        return where(base > 0, -expm1(exponent * logarithm), e.of(args))

    return rewritten(scalars, instead)
