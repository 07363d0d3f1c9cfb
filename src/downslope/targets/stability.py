r"""What a program does on a quadratic: a linear recurrence, and the learning rate at which it begins to grow.

On a loss with the constant curvature `c` the gradient is `c` times the weight at which it is taken. Where the new
weights and states are sums of multiples of the old ones and of the gradient, which their derivatives say exactly, a
step multiplies the weight and its states by a matrix. Errors shrink as long as its spectral radius is below 1.

Rules that divide by what they remember of past gradients are looked at with these states held still (`held_still`):
what remains is linear in the *preconditioned* curvature, that is the curvature times the factor in front of the
gradient.

Source: Goh, "Why momentum really works", 2017, for momentum; Cohen et al., "Adaptive gradient methods at the edge of
stability", 2022, for preconditioned curvature.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from downslope.language.derivative import gradient
from downslope.language.expression import Expression
from downslope.language.program import Program, in_order
from downslope.language.rewrites import rewritten
from downslope.language.trace import array
from downslope.targets.held_still import NotLinear, linear, mentions, values_of

Array = np.ndarray[Any, Any]

LATE = 1e18
"""The number of a step by which everything that fades has faded."""

SIZES = np.geomspace(1e-9, 1e9, 3601)
"""The products of learning rate and curvature among which limits are looked for first."""


@dataclass(frozen=True)
class Stability:
    """How a rule does on a quadratic, in products of its learning rate and the curvature.

    Attributes:
        limit: From here on errors grow; infinite if they never do. None if it cannot be said.
        fastest: The smallest product at which errors shrink as fast as they can.
        rate: What a step multiplies the error by in the end, at the fastest.
        held: The states that were held still; if there are any, the curvature is the preconditioned one.
        reason: Why it cannot be said.
        gain: How far a step moves a weight at once, per unit of its gradient, `lr` and the factor before the gradient:
            1 - beta1 for Adam. `response` over this is `lr` times the factor.
    """

    limit: float | None = None
    fastest: float | None = None
    rate: float | None = None
    held: tuple[str, ...] = ()
    reason: str = ""
    gain: float | None = None

    def __str__(self) -> str:
        if self.limit is None:
            return f"no limit can be read off: {self.reason}"
        kind = "preconditioned curvature" if self.held else "curvature"
        still = f" ({', '.join(self.held)} held still)" if self.held else ""
        if not self.limit:
            return f"unstable at any lr * {kind}{still}"
        stable = f"stable while lr * {kind} is below {self.limit:.4g}{still}"
        return f"{stable}; fastest at {self.fastest:.4g}, where a step leaves {self.rate:.3g} of the error"


def stability(program: Program, settings: Mapping[str, float]) -> Stability:
    """The limit of a program on a quadratic, read off its expressions.

    Args:
        program: What a step computes.
        settings: The values of its hyperparameters.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> found = stability(compose(downslope.momentum), {"lr": 0.01, "mu": 0.9})
        >>> round(found.limit, 9)
        3.8
    """
    try:
        found = _recurrence(program, settings)
    except NotLinear as why:
        return Stability(reason=str(why))
    limit = _limit(found.radius)
    fastest, rate = _fastest(found.radius, limit, found.blur) if limit else (None, None)
    return Stability(limit, fastest, rate, found.held, gain=found.gain)


def limits(program: Program, settings: Mapping[str, float], rates: Sequence[float]) -> list[Stability]:
    """The limit of a program at several learning rates: with some weight decays it depends on them.

    Args:
        program: What a step computes.
        settings: The values of its hyperparameters.
        rates: The learning rates.

    Returns:
        For each rate what `stability` says, without where it is fastest and the rate there.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> found = limits(compose(downslope.adamw), downslope.adamw.complete({"lr": 1.0}), [1e-3, 1.0])
        >>> [round(each.limit, 4) for each in found]
        [37.9998, 37.81]
    """
    try:
        found = [_recurrence(program, {**settings, "lr": rate} if "lr" in settings else settings) for rate in rates]
    except NotLinear as why:
        return [Stability(reason=str(why)) for _ in rates]
    return [Stability(_limit(each.radius), held=each.held, gain=each.gain) for each in found]


def recurrence(program: Program) -> tuple[tuple[str, ...], int, tuple[Expression, ...]]:
    """A program on a quadratic as a linear recurrence, for targets that work out limits by themselves.

    Args:
        program: What a step computes.

    Returns:
        The states that are held still; how many values move, the weight first; and expressions of the program's
        numbers: for each of these values, how its new one depends on the old ones and on the gradient, and at last how
        the place of the gradient depends on the values. A factor made of what is held still is 1.

    Raises:
        ValueError: It is none with the defaults of its hyperparameters; the message says why.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> from downslope.targets.formula import text
        >>> held, size, roots = recurrence(compose(downslope.momentum))
        >>> held, size, [text(e) for e in roots]
        ((), 2, ['1', 'mu', '-lr', '0', 'mu', '-lr', '1', '0'])
    """
    settings = {name: 1.0 if value is None else value for name, value in program.hyperparameters.items()}
    try:
        _recurrence(program, settings)
        held, size, roots = _derivatives(program)
    except NotLinear as why:
        raise ValueError(str(why)) from None
    one = Expression("constant", value=1.0)

    def instead(e: Expression, args: tuple[Expression, ...]) -> Expression:
        if args:
            return Expression(e.op, args, e.value)
        return one if str(e.value).startswith("factor ") else e

    new = rewritten(roots, instead)
    return held, size, tuple(new[e] for e in roots)


# The recurrence


@dataclass(frozen=True)
class _Recurrence:
    """What a step makes of the weight and its states on a quadratic.

    Attributes:
        lr: The learning rate.
        held: The states that are held still.
        matrix: What a step makes of them without a gradient; the weight is the first.
        slopes: What it adds to them per unit of the gradient.
        point: Where the gradient is taken.
    """

    lr: float
    held: tuple[str, ...]
    matrix: Array
    slopes: Array
    point: Array

    @property
    def gain(self) -> float:
        """How far the weight is moved at once, per unit of the learning rate and the gradient."""
        return float(-self.slopes[0] / self.lr)

    @property
    def blur(self) -> float:
        """How far from 0 rounding may put a radius: a zero may be as manifold as the matrix is large."""
        return float(10 * np.finfo(np.float64).eps ** (1 / len(self.matrix)))

    def radius(self, size: Any) -> Array:
        """The spectral radius at these products of learning rate and curvature."""
        curvature = np.asarray(size)[..., None, None] / self.lr
        found = np.abs(np.linalg.eigvals(self.matrix + curvature * np.outer(self.slopes, self.point)))
        return np.asarray(found.max(axis=-1))


def _recurrence(program: Program, settings: Mapping[str, float]) -> _Recurrence:
    """A program as a linear recurrence, with these settings."""
    if "lr" not in settings:
        raise NotLinear("a limit is one of lr times the curvature, and it has no lr")
    if not settings["lr"]:
        raise NotLinear("with a learning rate of 0 nothing moves")
    held, count, roots = _derivatives(program)
    known = _settled(program, settings, roots)
    factors = sorted({str(part.value) for part in in_order(roots) if str(part.value).startswith("factor ")})

    def coefficients(values: Iterable[float]) -> tuple[Array, Array]:
        leaves = {**known, **dict(zip(factors, values, strict=True))}
        found = values_of(roots, leaves)
        table = np.array([found[e] for e in roots]).reshape(-1)
        width = count + 1
        return table[: width * count].reshape(count, width), table[width * count :]

    table, at = coefficients([1.0] * len(factors))
    if not np.isfinite(table).all() or not np.isfinite(at).all():
        raise NotLinear("its coefficients are not finite")
    _check_common(table, [coefficients(values)[0] for values in itertools.islice(_others(len(factors)), 3)])
    return _Recurrence(settings["lr"], held, table[:, :-1], table[:, -1], at)


@functools.lru_cache(maxsize=256)
def _derivatives(program: Program) -> tuple[tuple[str, ...], int, tuple[Expression, ...]]:
    """What is held still, how many values move, and how the new ones, then the place of the gradient, depend on them.

    The derivatives of each new value are by the old ones and by the gradient.
    """
    held, outputs = linear(program)
    names = list(outputs)
    rows = [gradient(e, [*names, "dx"]) for e in outputs.values()]
    point = program.lookahead.outputs["x"] if program.lookahead else array("x")
    where = gradient(point, names)
    if mentions(where, {*program.states, "x", "dx"}):
        raise NotLinear("its look-ahead is no multiple of what it remembers")
    if mentions([point], {*program.states} - {*names}):
        raise NotLinear("its look-ahead depends on what is held still")
    return held, len(names), tuple(e for row in [*rows, where] for e in row)


def _others(count: int) -> Iterable[list[float]]:
    generator = np.random.default_rng(0)
    while count:
        yield list(generator.uniform(0.5, 2, count))


def _check_common(table: Array, others: Iterable[Array]) -> None:
    """One factor must stand in front of all gradients and states that have any: else there is no one unit."""
    for other in others:
        changed = ~np.isclose(other, table, rtol=1e-12, atol=0)
        ratios = other[changed] / table[changed]
        if ratios.size and np.ptp(ratios) > 1e-9 * np.abs(ratios).max():
            raise NotLinear("it divides by several sizes, and there is no one preconditioned curvature")


def _settled(program: Program, settings: Mapping[str, float], roots: Iterable[Expression]) -> dict[str, float]:
    """The hyperparameters, the step number, late, and the scalar states that no longer change."""
    known = {**settings, "t": LATE}
    used = {str(part.value) for part in in_order([*roots, *program.scalar_outputs.values()]) if part.op == "input"}
    names = [name for name in program.scalar_states if name in used]
    if not names:
        return known
    outputs = [program.scalar_outputs[name] for name in names]
    slopes = [slope for e in outputs for slope in gradient(e, names)]
    now = np.array([program.scalar_states[name] for name in names])
    for _ in range(20):
        found = values_of([*outputs, *slopes], {**known, **dict(zip(names, now, strict=True))})
        change = np.array([found[e] for e in outputs]) - now
        jacobian = np.array([found[e] for e in slopes]).reshape(len(names), len(names))
        if np.abs(change).max() <= 1e-12 * max(1.0, np.abs(now).max()):
            return {**known, **dict(zip(names, map(float, now), strict=True))}
        try:
            now = now + np.linalg.solve(np.eye(len(names)) - jacobian, change)
        except np.linalg.LinAlgError:
            break
        if not np.isfinite(now).all():
            break
    raise NotLinear(f"its step depends on {', '.join(names)}, which never settles")


# The extremes


def _limit(radius: Callable[[Any], Array]) -> float:
    """The first size at which the spectral radius reaches 1; 0 if it is never below, infinite if it always is."""
    growing = np.flatnonzero(radius(SIZES) >= 1)
    if not growing.size:
        return float(np.inf)
    return _bisected(radius, SIZES[growing[0] - 1], SIZES[growing[0]], 1.0) if growing[0] else 0.0


def _fastest(radius: Callable[[Any], Array], limit: float, blur: float) -> tuple[float, float]:
    """The smallest size at which the radius is least, and how small that is.

    Args:
        radius: The spectral radius for an array of sizes.
        limit: Up to where to look.
        blur: How far from 0 rounding may put it.
    """
    sizes = np.concatenate([SIZES[: np.searchsorted(SIZES, limit)], np.linspace(0, min(limit, SIZES[-1]), 2002)[1:-1]])
    sizes.sort()
    radii = radius(sizes)
    best = int(radii.argmin())
    fastest = _least(radius, sizes[max(best - 1, 0)], sizes[min(best + 1, len(sizes) - 1)])
    rate = float(radius(fastest))
    rate = 0.0 if rate < blur else rate
    as_fast = np.flatnonzero(radii <= rate * (1 + 1e-9))
    if len(as_fast) > 1 and as_fast[0]:  # not one size, but all from some size on
        above, below = sizes[as_fast[0] - 1], sizes[as_fast[0]]
        fastest = _bisected(lambda size: -radius(size), above, below, -rate * (1 + 1e-9))
    return fastest, rate


def _bisected(function: Callable[[Any], Array], low: float, high: float, level: float) -> float:
    """Where a function rises from below a level to it, between two numbers."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if function(middle) >= level else (middle, high)
    return float(high)


def _least(function: Callable[[Any], Array], low: float, high: float) -> float:
    """Where a function is least between two numbers, by golden sections."""
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(120):
        a, b = high - golden * (high - low), low + golden * (high - low)
        if not low < a < b < high:  # no numbers are left between them
            break
        at_a, at_b = function(np.array([a, b]))
        low, high = (low, b) if at_a <= at_b else (a, high)
    return float(low + high) / 2
