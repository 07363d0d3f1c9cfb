"""What a step adds to the weights, as a formula of its own, without ever taking the difference of two large numbers.

Frameworks that pass updates around instead of new weights need `new x - x`. In single precision that difference is
wrong by half a unit in the last place of `x`, which is all of a small step: at `x = 10,000` that is 0.0005. So it is
found in the formula: `x - step` becomes `-step`, `(1 - c) * x - step` becomes `-c * x - step`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from downslope.language.expression import Expression, apply
from downslope.language.operations import OPERATIONS
from downslope.language.program import Program, in_order, share
from downslope.language.trace import array

COMPARISONS = frozenset(
    name for name, (takes, gives, *_) in OPERATIONS.items() if gives == "truth" and takes == ("number", "number")
)


def difference(program: Program) -> Program:
    """The same program with `x` as what is to be added to the weights: `new x - x`.

    It is found by following `x` through sums, factors and choices; what it is added to, multiplied and divided by may
    be anything. Where `x` enters the new weights in no such way (`sqrt(x**2 + 1)`, say), it is the plain difference.
    Choices that compare two points, as caution does, compare what lies between them. The states are as before.

    Args:
        program: One that gives new weights.

    Example:
        >>> import numpy as np, downslope
        >>> from downslope.targets.arrays import interpret
        >>> from downslope.language.options import compose
        >>> program = compose(downslope.sgd)
        >>> arrays = {"x": np.float32([10_000]), "dx": np.float32([1])}
        >>> print(interpret(difference(program), arrays, {"lr": 1e-6})["x"])
        [-1.e-06]
        >>> print(interpret(program, arrays, {"lr": 1e-6})["x"] - arrays["x"])
        [0.]
    """
    new = program.outputs["x"]
    x = next((e for e in in_order([new]) if e.op == "input" and e.value == "x"), array("x"))
    outputs = {**program.outputs, "x": _Follower(x).difference(new)}
    outputs, names = share(outputs, program.names)
    return replace(program, outputs=outputs, names=names)


@dataclass(frozen=True)
class _Affine:
    """`(1 + excess) * base + rest`."""

    excess: Expression
    rest: Expression


class _Follower:
    """Finds how expressions are made of one of them, the base; each is looked at once."""

    def __init__(self, base: Expression):
        self.base = base
        self.found: dict[Expression, _Affine | None] = {}

    def difference(self, e: Expression) -> Expression:
        """What `e` and the base differ by."""
        affine = self.affine(e)
        return e - self.base if affine is None else _plus(_times(affine.excess, self.base), affine.rest)

    def affine(self, e: Expression) -> _Affine | None:
        """How `e` is made of the base, or None where it is not a sum or multiple of it."""
        if e not in self.found:
            self.found[e] = self._affine(e)
        return self.found[e]

    def _affine(self, e: Expression) -> _Affine | None:
        if e is self.base:
            return _Affine(_number(0), _number(0))
        parts = [self.affine(arg) if arg.from_arrays else None for arg in e.args]
        if not any(parts):
            return None
        match e.op, parts, e.args:
            case (("add" | "sub"), [first, second], [a, b]):
                return self._sum(e.op, first, second, a, b)
            case "neg", [_Affine(excess, rest)], _:
                return _Affine(_minus(_number(-2), excess), _negative(rest))
            case "mul", [_Affine(excess, rest), _], [_, k]:
                return _Affine(_plus(_excess(k), _times(excess, k)), _times(rest, k))
            case "mul", [_, _Affine(excess, rest)], [k, _]:
                return _Affine(_plus(_excess(k), _times(k, excess)), _times(k, rest))
            case "div", [_Affine(excess, rest), _], [_, k]:
                return _Affine(_over(_minus(excess, _excess(k)), k), _over(rest, k))
            case "where", _, [condition, a, b]:
                chosen = apply("where", self._condition(condition), self.difference(a), self.difference(b))
                return _Affine(_number(0), chosen)
            case (("maximum" | "minimum"), _, [a, b]):  # rounding keeps the order, so the choice is the same
                return _Affine(_number(0), apply(e.op, self.difference(a), self.difference(b)))
        return None

    def _sum(
        self, op: str, first: _Affine | None, second: _Affine | None, a: Expression, b: Expression
    ) -> _Affine | None:
        """A sum or difference; where both sides hold the base, that with it as a whole is followed."""
        whole = second is not None and op == "add" and _is(second.excess, 0)
        if first is not None and not (whole and not _is(first.excess, 0)):
            return _Affine(first.excess, (_plus if op == "add" else _minus)(first.rest, b))
        if second is None:
            return None
        if op == "add":
            return _Affine(second.excess, _plus(a, second.rest))
        return _Affine(_minus(_number(-2), second.excess), _minus(a, second.rest))

    def _condition(self, e: Expression) -> Expression:
        """The condition with comparisons of two points as comparisons of their difference with zero."""
        if e.op in ("and", "or", "not"):
            return apply(e.op, *map(self._condition, e.args))
        if e.op not in COMPARISONS or not all(arg.from_arrays and self.affine(arg) for arg in e.args):
            return e
        a, b = e.args
        for near, far, order in ((b, a, 1), (a, b, -1)):
            walk = _Follower(near)
            if walk.affine(far) is not None:
                sides = (walk.difference(far), _number(0))
                return apply(e.op, *sides[::order])
        return e


def _excess(k: Expression) -> Expression:
    """`k - 1`, without rounding where `k` is written as 1 plus or minus something."""
    known = _known_excess(k)
    return k - 1 if known is None else known


def _known_excess(k: Expression) -> Expression | None:
    parts: list[Expression | None] = [_known_excess(arg) for arg in k.args]
    match k.op, k.args, parts:
        case "constant", _, _:
            return _number(k.number - 1)
        case "sub", [one, c], _ if _is(one, 1):
            return _negative(c)
        case "add", [one, c], _ if _is(one, 1):
            return c
        case "add", [c, one], _ if _is(one, 1):
            return c
        case "mul", [_, b], [Expression() as first, Expression() as second]:
            return _plus(_times(first, b), second)
        case "div", [_, b], [Expression() as first, Expression() as second]:
            return _over(_minus(first, second), b)
        case "where", [condition, a, b], _:
            return apply("where", condition, _excess(a), _excess(b))
    return None


def _number(value: float) -> Expression:
    return Expression("constant", value=float(value))


def _is(e: Expression, value: float) -> bool:
    return e.op == "constant" and e.value == value


def _folded(operation: Callable[[Any, Any], Any], a: Expression, b: Expression) -> Expression:
    """The operation on two expressions, done right away where both are numbers."""
    if a.op == b.op == "constant":
        return _number(operation(a.value, b.value))
    combined: Expression = operation(a, b)
    return combined


def _plus(a: Expression, b: Expression) -> Expression:
    if _is(a, 0):
        return b
    if _is(b, 0):
        return a
    if b.op == "neg":
        return _minus(a, b.args[0])
    return _folded(operator.add, a, b)


def _minus(a: Expression, b: Expression) -> Expression:
    if _is(b, 0):
        return a
    if _is(a, 0):
        return _negative(b)
    if b.op == "neg":
        return _plus(a, b.args[0])
    return _folded(operator.sub, a, b)


def _negative(a: Expression) -> Expression:
    """`-a`, with the sign on a number that is worked out once, where there is one: signs do not round."""
    match a.op, a.args:
        case "constant", _:
            return _number(-a.number)
        case "neg", [inner]:
            return inner
        case "mul", [k, e] if not k.from_arrays and e.from_arrays:
            return _negative(k) * e
        case "mul", [e, k] if not k.from_arrays and e.from_arrays:
            return e * _negative(k)
        case "div", [e, k]:
            return _negative(e) / k
    return -a


def _times(a: Expression, b: Expression) -> Expression:
    if _is(a, 0) or _is(b, 0):
        return _number(0)
    if _is(a, 1):
        return b
    if _is(b, 1):
        return a
    return _folded(operator.mul, a, b)


def _over(a: Expression, b: Expression) -> Expression:
    return a if _is(a, 0) or _is(b, 1) else a / b
