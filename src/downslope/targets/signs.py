"""What a formula shows of its states before anything is computed: which are never negative, and which must be exact.

Intervals answer it: hyperparameters anywhere in their ranges, weights and gradients anything, states whatever they can
be. A state is never negative if it begins so and every step leaves it so, provided that the others of which that was
assumed are so too; the largest such set is found by dropping, again and again, those for which it does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from downslope.language.expression import Expression
from downslope.language.operations import FACTORS, OVER_TENSORS
from downslope.language.program import Program, in_order
from downslope.targets.evaluate import evaluate_in_order
from downslope.targets.intervals import OPERATIONS, Interval, Precision

_FAR = 1e60
"""Anything, to an analysis that asks for signs only: far enough from the largest number that products are finite."""

_PRECISION = Precision(0.0, 0.0, 0.0, math.inf)
"""No rounding, which does not change the sign of one operation on what it is given."""

_DEFINED = {"sqrt": 0, "log": 0, "pow": 0}
"""Operations that have no value where an argument, the first, is negative."""


def nonnegative(program: Program) -> frozenset[str]:
    """The per-weight states that are never negative, whatever gradients come.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> sorted(nonnegative(compose(downslope.adam))), sorted(nonnegative(compose(downslope.momentum)))
        (['v'], [])
    """
    return frozenset(_assumed(program) & program.states.keys())


def exact(program: Program, to_point: Program | None = None) -> frozenset[str]:
    """The per-weight states that must not be changed by what rounding to a few bits does.

    Those that begin as a copy of the weights, since they are places and not steps; those that say where the next
    gradient is to be taken; and those from which something is computed whose root or logarithm is taken and that only
    exact values keep from being negative, such as the variance `mean(dx**2) - mean(dx)**2`.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> sorted(exact(compose(downslope.nesterov))), sorted(exact(compose(downslope.adam)))
        (['v'], [])
    """
    found = {name for name, start in program.states.items() if start == "x"}
    for way in (program.lookahead, to_point):
        if way is not None:
            found |= _read(way.outputs.values())
    values = _signs(program, _assumed(program))
    for e in program.per_weight:
        at = _DEFINED.get(e.op)
        if at is not None and values[e.args[at]].low < 0 and not (e.op == "pow" and _is_whole(e.args[1])):
            found |= _read([e.args[at]])
    return frozenset(found & program.states.keys())


def _is_whole(e: Expression) -> bool:
    return e.op == "constant" and float(e.number).is_integer()


def _read(roots: Collection[Expression]) -> set[str]:
    return {str(e.value) for e in in_order(roots) if e.op == "input" and e.from_arrays}


def _assumed(program: Program) -> set[str]:
    """All states, of weights and scalar ones, that are never negative."""
    starts = {**program.states, **program.scalar_states}
    outputs = {**program.outputs, **program.scalar_outputs}
    found = {name for name, start in starts.items() if _begins(start, program)}
    while True:
        values = _signs(program, found)
        kept = {name for name in found if values[outputs[name]].low >= 0}
        if kept == found:
            return found
        found = kept


def _begins(start: float | str, program: Program) -> bool:
    if isinstance(start, str):
        return start != "x" and program.ranges[start].low >= 0
    return start >= 0


def _signs(program: Program, known: Collection[str]) -> Mapping[Expression, Interval]:
    """Where every expression lies, if these states are never negative."""

    def leaf(e: Expression) -> Interval:
        if e.op == "constant":
            return _between(e.number, e.number)
        name = str(e.value).removesuffix(" next")
        if name in program.ranges:
            return _between(program.ranges[name].low, program.ranges[name].high)
        if name == "t":
            return _between(1, _FAR)
        return _between(0 if name in known else -_FAR, _FAR)

    values: dict[Expression, Interval] = {}

    def apply(e: Expression, args: list[Interval]) -> Interval:
        if e.op in OVER_TENSORS:
            signless = args[0].low >= 0 and e.op not in ("product", *FACTORS)
            found = _between(0 if e.op in ("norm", "size") or signless else -_FAR, _FAR)
        elif e.op == "div" and args[1].low >= 0:  # by what may become 0, as `1 - beta**t` may; the sign stays
            found = _between(0 if args[0].low >= 0 else -_FAR, 0 if args[0].high <= 0 else _FAR)
        else:
            found = OPERATIONS[e.op](_PRECISION, *args)
        if not e.is_condition:
            found = _between(float(found.low), float(found.high))
            if found.low < 0 and (_is_even(e, values) or _is_mean(e, values)):
                found = _between(0, max(float(found.high), 0))
        values[e] = found
        return found

    def kept(e: Expression) -> Interval:
        return values.setdefault(e, leaf(e))

    with np.errstate(all="ignore"):
        return evaluate_in_order(program.expressions, kept, apply)


def _is_even(e: Expression, values: Mapping[Expression, Interval]) -> bool:
    """Whether it is a product of factors that are not negative or come in pairs."""
    if e.op != "mul":
        return False
    counts: dict[Expression, int] = {}
    waiting = [e]
    while waiting:
        factor = waiting.pop()
        if factor.op == "mul":
            waiting.extend(factor.args)
        else:
            counts[factor] = counts.get(factor, 0) + 1
    return all(count % 2 == 0 or values[factor].low >= 0 for factor, count in counts.items())


def _is_mean(e: Expression, values: Mapping[Expression, Interval]) -> bool:
    """Whether it is `a + (b - a) * w` of two that are not negative, with a weight from 0 to 1."""
    for a, change in (e.args, e.args[::-1]) if e.op == "add" else ():
        for way, w in (change.args, change.args[::-1]) if change.op == "mul" else ():
            if way.op == "sub" and way.args[1] is a and values[a].low >= 0 and values[way.args[0]].low >= 0:
                return bool(values[w].low >= 0 and values[w].high <= 1)
    return False


def _between(low: float, high: float) -> Interval:
    if math.isnan(low) or math.isnan(high):
        low, high = -_FAR, _FAR
    return Interval(np.asarray(max(low, -_FAR), np.float64), np.asarray(min(high, _FAR), np.float64))
