"""Where every faithful computation of a program must lie: interval arithmetic over a formula.

Each operation is done on intervals in double precision and widened by what one rounding in the precision of the target
can do. Any target that computes the author's operations, each rounded correctly (or better: fused), ends inside.

The scalars come first, in double precision. Their sums, products, quotients and roots are correctly rounded everywhere
and therefore the same number everywhere; what two mathematical libraries disagree on (`exp`, `log`, `tanh`, general
powers) becomes an interval, which a difference like `1 - exp(log(beta) / t)` may make thousands of times wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from downslope.expression import CONDITIONS, Expression
from downslope.interpret import _apply as plainly
from downslope.interpret import small_power
from downslope.trace import Program, in_order

Array = np.ndarray[Any, Any]

FUNCTION_ULPS = 4.0
"""How far exp, log, tanh and general powers of the usual mathematical libraries are apart, at most, in units in the
last place; in double precision each of them is within 1 or 2 of the true value."""


@dataclass(frozen=True)
class Interval:
    """All values between two ends, element by element; a condition's ends are 0 (false) and 1 (true)."""

    low: Array
    high: Array

    def __contains__(self, values: Array) -> bool:
        return bool(self.holds(values).all())

    def holds(self, values: Array) -> Array:
        """Which of the values lie inside; where anything can come out, nan does too."""
        anything = (self.low == -np.inf) & (self.high == np.inf)
        inside: Array = anything | ((self.low <= values) & (values <= self.high))
        return inside


@dataclass(frozen=True)
class Precision:
    """How a target rounds.

    Attributes:
        unit: The largest relative error of one correctly rounded operation.
        least: The largest absolute error near zero: half the smallest denormal number, or the smallest normal one
            where denormals count as zero.
        largest: The largest finite number.
    """

    unit: float
    least: float
    largest: float

    @classmethod
    def of(cls, dtype: Any, *, flush: bool = False) -> Precision:
        """The precision of a dtype; `flush` where denormal numbers may be taken for zero."""
        info = np.finfo(dtype)
        least = float(info.tiny) if flush else float(info.smallest_subnormal) / 2
        return cls(float(info.eps) / 2, least, float(info.max))

    def widen(self, low: Array, high: Array, ulps: float = 0.5) -> Interval:
        """The interval of what these values may be rounded to."""
        relative = 2 * ulps * self.unit * (1 + 1e-9)  # the ends themselves were rounded, in double precision
        invalid = np.isnan(low) | np.isnan(high)
        wide_low = np.where(np.isinf(low), low, low - relative * np.abs(low) - self.least)
        wide_high = np.where(np.isinf(high), high, high + relative * np.abs(high) + self.least)
        wide_low = np.where(low >= 0, np.maximum(wide_low, 0), wide_low)  # rounding does not change a sign
        wide_high = np.where(high <= 0, np.minimum(wide_high, 0), wide_high)
        wide_low = np.where(wide_low < -self.largest, -np.inf, wide_low)
        wide_high = np.where(wide_high > self.largest, np.inf, wide_high)
        wide_low = np.where(wide_low > self.largest, self.largest, wide_low)
        wide_high = np.where(wide_high < -self.largest, -self.largest, wide_high)
        return Interval(np.where(invalid, -np.inf, wide_low), np.where(invalid, np.inf, wide_high))


def enclose(
    program: Program,
    arrays: Mapping[str, Array],
    scalars: Mapping[str, float],
    dtype: Any,
    *,
    flush: bool = False,
    coefficient_ulps: float = 0.5,
) -> dict[str, Interval]:
    """The intervals in which one step of a program must end when its body is computed in some precision.

    Args:
        program: The program.
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
        >>> from downslope.trace import trace
        >>> x, dx = np.float32([1.0]), np.float32([0.3])
        >>> inside = enclose(trace(downslope.sgd), {"x": x, "dx": dx}, {"lr": 0.1}, np.float32)["x"]
        >>> downslope.sgd(x, dx, lr=np.float32(0.1)) in inside, np.float32([0.96999]) in inside
        (True, False)
    """
    precision = Precision.of(dtype, flush=flush)
    shape = np.shape(arrays["x"])
    values: dict[Expression, Interval] = {}
    exact = enclose_scalars(program, scalars)
    with np.errstate(all="ignore"):
        for e in in_order(program.outputs.values()):
            if e.per_weight and e.op == "input":
                given = np.asarray(arrays[str(e.value)], np.float64)
                values[e] = precision.widen(given, given, 0.0) if flush else Interval(given, given)
            elif e.per_weight:
                values[e] = _apply(e, [values[arg] for arg in e.args], precision)
            else:
                low, high = np.full(shape, exact[e].low), np.full(shape, exact[e].high)
                plain = e.op in CONDITIONS
                values[e] = Interval(low, high) if plain else precision.widen(low, high, coefficient_ulps)
    return {name: values[e] for name, e in program.outputs.items()}


def enclose_scalars(program: Program, scalars: Mapping[str, float]) -> dict[Expression, Interval]:
    """The intervals in which everything that depends on no array lies, worked out in double precision by any library.

    Args:
        program: The program.
        scalars: Hyperparameters, scalar states, `t`.

    Returns:
        An interval (of arrays without dimensions) for each scalar expression, new scalar states included.

    Example:
        >>> import downslope
        >>> from downslope.trace import trace
        >>> program = trace(downslope.schedule_free_sgd)
        >>> inside = enclose_scalars(program, {"lr": 0.5, "beta": 0.9, "t": 2.0, "warmup_steps": 4.0, "total": 0.25})
        >>> total = inside[program.scalar_outputs["total"]]
        >>> float(total.low), float(total.high)
        (0.3125, 0.3125)
    """
    precision = Precision.of(np.float64)
    values: dict[Expression, Interval] = {}
    with np.errstate(all="ignore"):
        for e in in_order([*program.outputs.values(), *program.scalar_outputs.values()]):
            if e.per_weight:
                continue
            args = [values[arg] for arg in e.args]
            if e.op in ("constant", "input"):
                point = np.asarray(e.value if e.op == "constant" else scalars[str(e.value)], np.float64)
                values[e] = Interval(point, point)
            elif _same_everywhere(e) and all(a.low == a.high for a in args):
                values[e] = _exactly(e, args)
            else:
                values[e] = _apply(e, args, precision)
    return values


def _same_everywhere(e: Expression) -> bool:
    """Whether an operation on numbers in double precision gives the same number in every library."""
    return e.op not in ("exp", "log", "tanh") and (e.op != "pow" or small_power(e) > 0)


def _exactly(e: Expression, args: list[Interval]) -> Interval:
    truths = range(1) if e.op == "where" else range(2) if e.op in ("and", "or", "not") else ()
    result = np.asarray(plainly(e, [a.low != 0 if k in truths else a.low for k, a in enumerate(args)], np), np.float64)
    return Interval(result, result)


def _apply(e: Expression, args: list[Interval], precision: Precision) -> Interval:
    match e.op, args:
        case "add", [a, b]:
            return precision.widen(a.low + b.low, a.high + b.high)
        case "sub", [a, b]:
            return precision.widen(a.low - b.high, a.high - b.low)
        case "mul", [a, b]:
            return _product(a, b, precision)
        case "div", [a, b]:
            return _quotient(a, b, precision)
        case "pow", [a, b]:
            return _power(e, a, b, precision)
        case "neg", [a]:
            return Interval(-a.high, -a.low)
        case "abs", [a]:
            return Interval(np.maximum(np.maximum(a.low, -a.high), 0), np.maximum(np.abs(a.low), np.abs(a.high)))
        case "sign", [a]:
            return Interval(np.sign(a.low), np.sign(a.high))
        case "sqrt", [a]:
            return precision.widen(np.sqrt(a.low), np.sqrt(a.high))
        case (("exp" | "log" | "tanh"), [a]):
            function = getattr(np, e.op)
            return precision.widen(function(a.low), function(a.high), FUNCTION_ULPS)
        case "maximum", [a, b]:
            return Interval(np.maximum(a.low, b.low), np.maximum(a.high, b.high))
        case "minimum", [a, b]:
            return Interval(np.minimum(a.low, b.low), np.minimum(a.high, b.high))
        case "where", [condition, a, b]:
            low = np.where(condition.low > 0, a.low, np.where(condition.high < 1, b.low, np.minimum(a.low, b.low)))
            high = np.where(condition.low > 0, a.high, np.where(condition.high < 1, b.high, np.maximum(a.high, b.high)))
            return Interval(low, high)
    return _condition(e.op, args)


def _condition(op: str, args: list[Interval]) -> Interval:
    def truth(surely: Array, possibly: Array) -> Interval:
        return Interval(surely.astype(float), possibly.astype(float))

    match op, args:
        case "lt", [a, b]:
            return truth(a.high < b.low, a.low < b.high)
        case "le", [a, b]:
            return truth(a.high <= b.low, a.low <= b.high)
        case (("gt" | "ge"), [a, b]):
            return _condition({"gt": "lt", "ge": "le"}[op], [b, a])
        case "eq", [a, b]:
            point = (a.low == a.high) & (b.low == b.high) & (a.low == b.low)
            return truth(point, (a.low <= b.high) & (b.low <= a.high))
        case "ne", [a, b]:
            return _condition("not", [_condition("eq", [a, b])])
        case "not", [a]:
            return Interval(1 - a.high, 1 - a.low)
        case "and", [a, b]:
            return Interval(a.low * b.low, a.high * b.high)
        case _, [a, b]:
            return Interval(np.maximum(a.low, b.low), np.maximum(a.high, b.high))
    raise AssertionError(op)


def _product(a: Interval, b: Interval, precision: Precision, *, same: bool = False) -> Interval:
    if same:  # a square is not negative, which intervals of two different factors would not know
        ends = np.abs(a.low), np.abs(a.high)
        across = (a.low < 0) & (a.high > 0)
        return precision.widen(np.where(across, 0, np.minimum(*ends) ** 2), np.maximum(*ends) ** 2)
    corners = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    return precision.widen(corners.min(axis=0), corners.max(axis=0))  # min and max hand nan on


def _quotient(a: Interval, b: Interval, precision: Precision) -> Interval:
    corners = np.stack([a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high])
    low, high = corners.min(axis=0), corners.max(axis=0)
    through_zero = (b.low <= 0) & (b.high >= 0)
    return precision.widen(np.where(through_zero, np.nan, low), np.where(through_zero, np.nan, high))


def _power(e: Expression, a: Interval, b: Interval, precision: Precision) -> Interval:
    count = small_power(e)
    if count:
        square = _product(a, a, precision, same=True)
        result = {2: lambda: square, 3: lambda: _product(square, a, precision)}.get(count)
        return result() if result else _product(_product(square, a, precision), a, precision)
    corners = np.stack([a.low**b.low, a.low**b.high, a.high**b.low, a.high**b.high])
    result_low, result_high = corners.min(axis=0), corners.max(axis=0)
    whole = (b.low == b.high) & (np.floor(b.low) == b.low)
    invalid = (a.low < 0) & ~(whole & (a.high < 0))
    return precision.widen(np.where(invalid, np.nan, result_low), np.where(invalid, np.nan, result_high), FUNCTION_ULPS)
