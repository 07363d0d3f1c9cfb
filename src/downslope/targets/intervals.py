"""Arithmetic on intervals: each operation is done in double precision and widened by what one rounding can do.

What two mathematical libraries disagree on (`exp`, `log`, `tanh`, `sin`, `cos`, general powers) is widened by more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from downslope.language.expression import Expression
from downslope.language.operations import FACTORS
from downslope.language.operations import OPERATIONS as KNOWN

Array = np.ndarray[Any, Any]

FUNCTION_ULPS = 4.0
"""How far exp, expm1, log, tanh, sin, cos and general powers of the usual mathematical libraries are apart, at most, in
units in the last place; in double precision each of them is within 1 or 2 of the true value."""


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
        denormal: The smallest denormal number, in which errors near zero are counted.
        flushed: The smallest normal number where denormals count as zero, else 0.
        largest: The largest finite number.
    """

    unit: float
    denormal: float
    flushed: float
    largest: float

    @classmethod
    def of(cls, dtype: Any, *, flush: bool = False) -> Precision:
        """The precision of a dtype; `flush` where denormal numbers may be taken for zero."""
        info = np.finfo(dtype)
        flushed = float(info.tiny) if flush else 0.0
        return cls(float(info.eps) / 2, float(info.smallest_subnormal), flushed, float(info.max))

    def widen(self, low: Array, high: Array, ulps: float = 0.5) -> Interval:
        """The interval of what these values may be rounded to."""
        relative = 2 * ulps * self.unit * (1 + 1e-9)  # the ends themselves were rounded, in double precision
        least = max(self.flushed, max(ulps, 0.5) * self.denormal)
        invalid = np.isnan(low) | np.isnan(high)
        wide_low = np.where(np.isinf(low), low, low - relative * np.abs(low) - least)
        wide_high = np.where(np.isinf(high), high, high + relative * np.abs(high) + least)
        wide_low = np.where(low >= 0, np.maximum(wide_low, 0), wide_low)  # rounding does not change a sign
        wide_high = np.where(high <= 0, np.minimum(wide_high, 0), wide_high)
        wide_low = np.where(wide_low < -self.largest, -np.inf, wide_low)
        wide_high = np.where(wide_high > self.largest, np.inf, wide_high)
        wide_low = np.where(wide_low > self.largest, self.largest, wide_low)
        wide_high = np.where(wide_high < -self.largest, -self.largest, wide_high)
        return Interval(np.where(invalid, -np.inf, wide_low), np.where(invalid, np.inf, wide_high))


def _add(precision: Precision, a: Interval, b: Interval) -> Interval:
    return precision.widen(a.low + b.low, a.high + b.high)


def _subtract(precision: Precision, a: Interval, b: Interval) -> Interval:
    return precision.widen(a.low - b.high, a.high - b.low)


def _multiply(precision: Precision, a: Interval, b: Interval) -> Interval:
    corners = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    return precision.widen(corners.min(axis=0), corners.max(axis=0))  # min and max hand nan on


def _divide(precision: Precision, a: Interval, b: Interval) -> Interval:
    corners = np.stack([a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high])
    low, high = corners.min(axis=0), corners.max(axis=0)
    through_zero = (b.low <= 0) & (b.high >= 0)
    return precision.widen(np.where(through_zero, np.nan, low), np.where(through_zero, np.nan, high))


def _power(precision: Precision, a: Interval, b: Interval) -> Interval:
    corners = np.stack([a.low**b.low, a.low**b.high, a.high**b.low, a.high**b.high])
    result_low, result_high = corners.min(axis=0), corners.max(axis=0)
    whole = (b.low == b.high) & (np.floor(b.low) == b.low)
    invalid = (a.low < 0) & ~(whole & (a.high < 0))
    return precision.widen(np.where(invalid, np.nan, result_low), np.where(invalid, np.nan, result_high), FUNCTION_ULPS)


def _square(precision: Precision, a: Interval) -> Interval:
    """A square is not negative, which intervals of two different factors would not know."""
    ends = np.abs(a.low), np.abs(a.high)
    across = (a.low < 0) & (a.high > 0)
    return precision.widen(np.where(across, 0, np.minimum(*ends) ** 2), np.maximum(*ends) ** 2)


def _cube(precision: Precision, a: Interval) -> Interval:
    return _multiply(precision, _square(precision, a), a)


def _absolute(_: Precision, a: Interval) -> Interval:
    return Interval(np.maximum(np.maximum(a.low, -a.high), 0), np.maximum(np.abs(a.low), np.abs(a.high)))


def _rising(function: np.ufunc, ulps: float = 0.5) -> Callable[..., Interval]:
    """A function that grows with its argument."""
    return lambda precision, a: precision.widen(function(a.low), function(a.high), ulps)


def _wave(function: np.ufunc, crest: float) -> Callable[..., Interval]:
    """A function that goes up and down: crests at even, troughs at odd multiples of pi from one of its crests."""

    def wave(precision: Precision, a: Interval) -> Interval:
        first, last = (a.low - crest) / np.pi, (a.high - crest) / np.pi
        slack = 1e-15 * np.maximum(np.abs(first), np.abs(last))  # pi is rounded, and so were the quotients
        first, last = first - slack, last + slack
        has_crest, has_trough = (2 * np.ceil((first - odd) / 2) + odd <= last for odd in (0, 1))
        ends = function(a.low), function(a.high)
        low, high = np.where(has_trough, -1, np.minimum(*ends)), np.where(has_crest, 1, np.maximum(*ends))
        endless = np.isinf(a.low) | np.isinf(a.high)
        return precision.widen(np.where(endless, np.nan, low), np.where(endless, np.nan, high), FUNCTION_ULPS)

    return wave


def _choice(_: Precision, condition: Interval, a: Interval, b: Interval) -> Interval:
    low = np.where(condition.low > 0, a.low, np.where(condition.high < 1, b.low, np.minimum(a.low, b.low)))
    high = np.where(condition.low > 0, a.high, np.where(condition.high < 1, b.high, np.maximum(a.high, b.high)))
    return Interval(low, high)


def _truth(surely: Array, possibly: Array) -> Interval:
    return Interval(surely.astype(float), possibly.astype(float))


def _less(_: Precision, a: Interval, b: Interval) -> Interval:
    return _truth(a.high < b.low, a.low < b.high)


def _at_most(_: Precision, a: Interval, b: Interval) -> Interval:
    return _truth(a.high <= b.low, a.low <= b.high)


def _equal(_: Precision, a: Interval, b: Interval) -> Interval:
    point = (a.low == a.high) & (b.low == b.high) & (a.low == b.low)
    return _truth(point, (a.low <= b.high) & (b.low <= a.high))


def _not(_: Precision, a: Interval) -> Interval:
    return Interval(1 - a.high, 1 - a.low)


def exactly(point: Array) -> Interval:
    """The interval of one number; where it is nan, anything can come out."""
    return Interval(np.where(np.isnan(point), -np.inf, point), np.where(np.isnan(point), np.inf, point))


def applied(precision: Precision, op: str, args: list[Interval]) -> Interval:
    """The interval of an operation on numbers: anything, where one of them can be anything, and so nan."""
    found = OPERATIONS[op](precision, *args)
    if "truth" in (KNOWN[op].gives, *KNOWN[op].takes):
        return found
    anything = functools.reduce(np.logical_or, (arg.holds(np.asarray(np.nan)) for arg in args))
    return Interval(np.where(anything, -np.inf, found.low), np.where(anything, np.inf, found.high))


OPERATIONS: dict[str, Callable[..., Interval]] = {
    "add": _add,
    "sub": _subtract,
    "mul": _multiply,
    "div": _divide,
    "pow": _power,
    "square": _square,
    "cube": _cube,
    "fourth": lambda precision, a: _multiply(precision, _cube(precision, a), a),
    "neg": lambda _, a: Interval(-a.high, -a.low),
    "abs": _absolute,
    "sign": lambda _, a: Interval(np.sign(a.low), np.sign(a.high)),
    "sqrt": _rising(np.sqrt),
    "exp": _rising(np.exp, FUNCTION_ULPS),
    "expm1": _rising(np.expm1, FUNCTION_ULPS),
    "log": _rising(np.log, FUNCTION_ULPS),
    "tanh": _rising(np.tanh, FUNCTION_ULPS),
    "sin": _wave(np.sin, np.pi / 2),
    "cos": _wave(np.cos, 0),
    "maximum": lambda _, a, b: Interval(np.maximum(a.low, b.low), np.maximum(a.high, b.high)),
    "minimum": lambda _, a, b: Interval(np.minimum(a.low, b.low), np.minimum(a.high, b.high)),
    "where": _choice,
    "lt": _less,
    "le": _at_most,
    "gt": lambda precision, a, b: _less(precision, b, a),
    "ge": lambda precision, a, b: _at_most(precision, b, a),
    "eq": _equal,
    "ne": lambda precision, a, b: _not(precision, _equal(precision, a, b)),
    "and": lambda _, a, b: Interval(a.low * b.low, a.high * b.high),
    "or": lambda _, a, b: Interval(np.maximum(a.low, b.low), np.maximum(a.high, b.high)),
    "not": _not,
}
"""The interval of what each operation, rounded as a precision rounds, may give."""


def over_tensor(precision: Precision, e: Expression, args: list[Interval]) -> Interval:
    """The interval of what an operation on whole tensors may give, in whatever order it adds up.

    A sum of n terms, in any order, is within n roundings of the sum of their sizes.
    """
    if e.op == "called":
        return args[0]
    if e.op == "transpose":
        return Interval(args[0].low.T, args[0].high.T)
    if e.op == "product":
        return _product(precision, *args)
    if e.op in FACTORS:
        return _factor(precision, args[0])
    if e.op == "sort_by":
        return _sorted(*args)
    (a,) = args
    axis = None if e.value is None else int(float(e.value)) if a.low.ndim == 2 else None
    if e.op == "max":
        return Interval(
            a.low.max(axis=axis, keepdims=axis is not None), a.high.max(axis=axis, keepdims=axis is not None)
        )
    if e.op == "norm":
        found = _sum(precision, _square(precision, a), axis)
        return OPERATIONS["sqrt"](precision, found)
    found = _sum(precision, a, axis)
    count = float(a.low.size if axis is None else a.low.shape[axis])
    return found if e.op == "sum" else precision.widen(found.low / count, found.high / count)


def _sum(precision: Precision, a: Interval, axis: int | None) -> Interval:
    kept = axis is not None
    sizes = np.maximum(np.abs(a.low), np.abs(a.high)).sum(axis=axis, keepdims=kept)
    count = a.low.size if axis is None else a.low.shape[axis]
    slack = count * (precision.unit * 1.01 * sizes + max(precision.denormal, precision.flushed))
    low, high = (end.sum(axis=axis, keepdims=kept) for end in (a.low, a.high))
    low = np.where(a.low.min(axis=axis, keepdims=kept) >= 0, np.maximum(low - slack, 0), low - slack)
    high = np.where(a.high.max(axis=axis, keepdims=kept) <= 0, np.minimum(high + slack, 0), high + slack)
    beyond = ~(sizes + slack <= precision.largest)  # what is added up on the way may be
    low = np.where(beyond & (low < 0), -np.inf, low)
    return precision.widen(low, np.where(beyond & (high > 0), np.inf, high))


def _product(precision: Precision, a: Interval, b: Interval) -> Interval:
    middle = [(each.low + each.high) / 2 for each in (a, b)]
    reach = [(each.high - each.low) / 2 for each in (a, b)]
    sizes = [np.abs(m) + r for m, r in zip(middle, reach, strict=True)]
    most = sizes[0] @ sizes[1]
    count = sizes[0].shape[1]
    slack = np.abs(middle[0]) @ reach[1] + reach[0] @ sizes[1]
    slack = slack * (1 + 1e-9) + count * (
        (precision.unit + 1e-15) * 1.01 * most + max(precision.denormal, precision.flushed)
    )
    center = middle[0] @ middle[1]
    beyond = ~(most + slack <= precision.largest)
    low, high = np.where(beyond, -np.inf, center - slack), np.where(beyond, np.inf, center + slack)
    return precision.widen(low, high)


def _factor(precision: Precision, a: Interval) -> Interval:
    """What is known of an orthogonal matrix, however what it comes from was rounded: how long its columns are.

    Eigenvectors whose eigenvalues are close may turn as far as they like by the rounding of one element.
    """
    finite = bool(np.isfinite(a.low).all() and np.isfinite(a.high).all())
    longest = 1 + 10 * a.low.shape[0] * precision.unit if finite else np.inf
    return Interval(np.full(a.low.shape, -longest), np.full(a.low.shape, longest))


def _sorted(a: Interval, by: Interval) -> Interval:
    """What may stand anywhere in a row whose elements are put in another order, or in a column."""
    axis = 0 if by.low.shape[1] == 1 else 1
    low, high = a.low.min(axis=axis, keepdims=True), a.high.max(axis=axis, keepdims=True)
    return Interval(*(np.broadcast_to(end, a.low.shape) for end in (low, high)))
