"""Where every faithful computation of a program must lie: interval arithmetic over a formula.

Any target that computes the author's operations, each rounded correctly (or better: fused), ends inside.

The scalars come first, in double precision. Their sums, products, quotients and roots are correctly rounded everywhere
and therefore the same number everywhere; what two mathematical libraries disagree on becomes an interval, which a
difference like `1 - exp(log(beta) / t)` may make thousands of times wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from downslope.language.expression import Expression
from downslope.language.operations import OPERATIONS, OVER_TENSORS
from downslope.language.program import Program
from downslope.language.spaces import WEIGHT
from downslope.language.together import Round, divided
from downslope.targets.compute import compute
from downslope.targets.evaluate import evaluate, evaluate_in_order
from downslope.targets.intervals import Array, Interval, Precision, applied, exactly, over_tensor
from downslope.targets.shapes import matrix_shape, settled


def enclose(
    program: Program,
    arrays: Mapping[str, Array],
    scalars: Mapping[str, Any],
    dtype: Any,
    *,
    flush: bool = False,
    coefficient_ulps: float = 0.5,
) -> dict[str, Interval]:
    """The intervals in which one step of a program must end when its body is computed in some precision.

    Args:
        program: What the step computes.
        arrays: Weights, gradient and states, exactly as the target has them.
        scalars: Hyperparameters, scalar states, `t`.
        dtype: The precision of the body.
        flush: Whether the target may take denormal numbers for zero.
        coefficient_ulps: How far the coefficients may be off, besides what `enclose_scalars` allows: 0.5 where they are
            worked out in double precision and rounded once.

    Returns:
        An interval for the new weights and each new per-weight state.

    Example:
        >>> import numpy as np, downslope
        >>> from downslope.language.options import compose
        >>> x, dx = np.float32([1.0]), np.float32([0.3])
        >>> inside = enclose(compose(downslope.sgd), {"x": x, "dx": dx}, {"lr": 0.1}, np.float32)["x"]
        >>> downslope.sgd(x, dx, lr=np.float32(0.1)) in inside, np.float32([0.96999]) in inside
        (True, False)
    """
    precision = Precision.of(dtype, flush=flush)
    if program.over_all:
        program, scalars = enclose_sums(program, arrays, scalars, dtype, flush=flush, coefficient_ulps=coefficient_ulps)
    outputs = _inside(program, arrays, scalars, precision, coefficient_ulps)
    return {name: Interval(*np.broadcast_arrays(i.low, i.high, arrays[name])[:2]) for name, i in outputs.items()}


def enclose_sums(
    program: Program,
    arrays: Mapping[str, Any],
    scalars: Mapping[str, Any],
    dtype: Any,
    *,
    flush: bool = False,
    coefficient_ulps: float = 0.5,
) -> tuple[Program, dict[str, Any]]:
    """What is left of a program that sums up all tensors, and its scalars with intervals for the sums over this one.

    The arguments are those of `enclose`. Sums are bounded as wide as a target works them out: in double precision or,
    where coefficients are off by more than one rounding, in that of the body.
    """
    precision, found = Precision.of(dtype, flush=flush), {**scalars}
    with np.errstate(all="ignore"):
        for each in divided(program).rounds:
            found |= _sums(each, arrays, found, precision, coefficient_ulps)
    return divided(program).rest, found


def _sums(
    each: Round, arrays: Mapping[str, Any], scalars: Mapping[str, Any], precision: Precision, coefficient_ulps: float
) -> dict[str, Interval]:
    """The intervals of a round's sums over a tensor that is all there is."""
    found: dict[str, Interval] = {}
    wide = Precision.of(np.float64) if coefficient_ulps <= 0.5 else precision
    inside = _inside(each.program, arrays, scalars, precision, coefficient_ulps)
    for name, e in each.program.outputs.items():
        like = arrays["x"] if e.space == WEIGHT else inside[name].low
        low, high, _ = np.broadcast_arrays(inside[name].low, inside[name].high, like)
        count = np.asarray(float(low.size))
        word = Expression(each.words[name], (e,))
        summed = Interval(count, count) if word.op == "size" else over_tensor(wide, word, [Interval(low, high)])
        found[name] = Interval(*map(np.asarray, (summed.low, summed.high)))
    return found


def _inside(
    program: Program,
    arrays: Mapping[str, Any],
    scalars: Mapping[str, Any],
    precision: Precision,
    coefficient_ulps: float,
) -> dict[str, Interval]:
    """The interval of each output, as wide as it was worked out; see `enclose`."""
    if program.over_tensors:
        program = settled(program, matrix_shape(program, arrays["x"].shape))

    def leaf(e: Expression) -> Interval:
        if e.op == "constant":
            return Interval(np.asarray(e.value, np.float64), np.asarray(e.value, np.float64))
        given = np.asarray(arrays[str(e.value)], np.float64)
        return precision.widen(given, given, 0.0) if precision.flushed else Interval(given, given)

    def rounded(e: Expression, exact: Interval) -> Interval:
        return exact if e.is_condition else precision.widen(exact.low, exact.high, coefficient_ulps)

    summed = any(isinstance(value, Interval) for value in scalars.values())
    known = enclose_scalars(program, scalars, precision if summed and coefficient_ulps > 0.5 else None)
    with np.errstate(all="ignore"):
        scalar = {e: rounded(e, exact) for e, exact in known.items()}

    def apply(e: Expression, args: list[Interval]) -> Interval:
        if e.op in OVER_TENSORS:
            return over_tensor(precision, e, args)
        return applied(precision, e.op, args)

    with np.errstate(all="ignore"):
        values = evaluate(program.outputs.values(), leaf, apply, known=scalar)
    return {name: values[e] for name, e in program.outputs.items()}


def enclose_scalars(
    program: Program, scalars: Mapping[str, Any], precision: Precision | None = None
) -> dict[Expression, Interval]:
    """The intervals in which everything that depends on no array lies, worked out in double precision by any library.

    Args:
        program: The one whose scalar expressions are wanted.
        scalars: Hyperparameters, scalar states, `t`, and intervals for sums over all tensors.
        precision: That in which they are worked out, if it is not double.

    Returns:
        An interval (of arrays without dimensions) for each scalar expression, new scalar states included.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> program = compose(downslope.schedule_free_sgd)
        >>> inside = enclose_scalars(program, {"lr": 0.5, "beta": 0.9, "t": 2.0, "warmup_steps": 4.0, "total": 0.25})
        >>> total = inside[program.scalar_outputs["total"]]
        >>> float(total.low), float(total.high)
        (0.3125, 0.3125)
    """
    given_in, precision = precision, precision or Precision.of(np.float64)

    def leaf(e: Expression) -> Interval:
        if e.op == "input" and isinstance(given := scalars[str(e.value)], Interval):
            return given
        point = np.asarray(e.value if e.op == "constant" else scalars[str(e.value)], np.float64)
        return exactly(point) if given_in is None else given_in.widen(point, point)

    def apply(e: Expression, args: list[Interval]) -> Interval:
        known = OPERATIONS[e.op]
        if not known.exact or any(arg.low != arg.high for arg in args):
            return applied(precision, e.op, args)
        points = [arg.low != 0 if kind == "truth" else arg.low for arg, kind in zip(args, known.takes, strict=True)]
        return exactly(np.asarray(compute(e.op, points), np.float64))

    with np.errstate(all="ignore"):
        return evaluate_in_order([e for e in program.expressions if not e.from_arrays], leaf, apply)
