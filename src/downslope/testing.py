"""Certifying a rule, anyone's: every target that is installed computes the formula, and states survive."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from downslope.installed import Target, targets
from downslope.language.operations import FACTORS
from downslope.language.options import NUMBERS
from downslope.language.program import Program
from downslope.numpy.optimizer import Optimizer
from downslope.rule import Rule
from downslope.targets.arrays import interpret
from downslope.targets.enclose import enclose, enclose_scalars, enclose_sums
from downslope.targets.intervals import Interval
from downslope.targets.shapes import held_shape
from downslope.training.settings import Settings

Array = np.ndarray[Any, Any]


class RuleCheckError(AssertionError):
    """A rule failed a check; the message says which, where, and by how much."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked, and what was seen."""

    name: str
    passed: bool
    seen: str


@dataclass(frozen=True)
class Certificate:
    """What `check_rule` found."""

    rule: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.seen}" for check in self.checks]
        return "\n".join([f"{self.rule}: {'certified' if self.passed else 'not certified'}", *lines])


def check_rule(rule: Rule, **flags: bool) -> Certificate:
    """Certify a rule.

    Checked are: that the program read from the formula computes what the formula computes; that every installed
    target (NumPy, the compiled kernel, JAX, PyTorch, Triton's kernel where there is a GPU; float32 and float64 where it
    has both) ends, on ordinary and on hard inputs (denormal, tiny, huge, zero), inside the interval that the formula's
    own rounding errors span around the float64 value; that the options wrap it; that saved states go on bit for bit;
    and that its look-ahead, if it has one, gives the same path stored and explicit.

    Args:
        rule: One of downslope's, of a dialect or your own.
        **flags: Boolean hyperparameters to certify it with, other than their defaults.

    Returns:
        A certificate that lists what was checked; print it.

    Raises:
        RuleCheckError: A check failed.
        FormulaError: The rule cannot be compiled at all.

    Example:
        >>> import downslope
        >>> downslope.check_rule(downslope.momentum).passed
        True
    """
    program = Settings.of(rule, flags).program
    required = {name: 0.1 for name, value in rule.hyperparameters.items() if value is None}
    settings = {**{k: v for k, v in rule.hyperparameters.items() if v is not None}, **required}
    tasks: list[Callable[[], Check]] = [lambda: _check_reading(rule, program, settings, flags)]
    tasks += [functools.partial(check_target, target, program, settings) for target in targets()]
    tasks.append(lambda: _check_options(rule, flags, settings))
    tasks.append(lambda: _check_round_trip(rule, program, {**required, **flags}))
    if rule.ahead:
        tasks.append(lambda: _check_lookahead(rule, program, {**required, **flags}))
    certificate = Certificate(rule.name, ())
    for task in tasks:
        certificate = Certificate(rule.name, (*certificate.checks, task()))
        if not certificate.passed:
            raise RuleCheckError(str(certificate))
    return certificate


def hard_values(count: int, dtype: Any, seed: int = 0) -> Array:
    """Numbers that break careless code: zeros, denormals, tiny and huge ones, besides ordinary ones, of either sign."""
    generator = np.random.default_rng(seed)
    info = np.finfo(dtype)
    exponents = generator.uniform(info.minexp - info.nmant, info.maxexp - 1, count)
    ordinary = generator.standard_normal(count)
    spread = np.ldexp(generator.uniform(1, 2, count), exponents.astype(int)) * generator.choice([-1, 1], count)
    special = generator.choice([0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal, info.tiny, 1.0], count)
    kind = generator.integers(0, 8, count)
    values: Array = np.where(kind < 4, ordinary, np.where(kind < 7, spread, special)).astype(dtype)
    return values


def situations(
    program: Program, settings: Mapping[str, float], dtype: Any
) -> Iterator[tuple[dict[str, Array], dict[str, float]]]:
    """Inputs to test a program with: the states are those that its own formula reaches, from step to step.

    Where one huge value would be all that a norm or a product shows, there are ordinary ones first.
    """
    if program.over_tensors:
        yield from _walk(program, settings, dtype, _ordinary)
    yield from _walk(program, settings, dtype, hard_values)


def _ordinary(count: int, dtype: Any, seed: int = 0) -> Array:
    values: Array = np.random.default_rng(seed).standard_normal(count).astype(dtype)
    return values


def _walk(
    program: Program, settings: Mapping[str, float], dtype: Any, values: Callable[..., Array]
) -> Iterator[tuple[dict[str, Array], dict[str, float]]]:
    shape = (48, 32) if program.of_matrices else (4096,)
    count = math.prod(shape)

    def drawn(seed: int) -> Array:
        return values(count, dtype, seed=seed).reshape(shape)

    x = drawn(1)
    starts = {name: program.initial(name, settings) for name in program.states}
    states = {
        name: x.copy() if v is None else np.full(held_shape(program, name, shape), v, dtype)
        for name, v in starts.items()
    }
    scalar_states = dict(program.scalar_states)
    for t in range(1, 6):
        dx = drawn(100 + t) if t % 2 else np.random.default_rng(t).standard_normal(count).reshape(shape)
        arrays = {"x": x, "dx": dx.astype(dtype), **states}
        scalars = {**settings, "t": float(t), **scalar_states}
        yield arrays, scalars
        new = interpret(program, {name: array.astype(np.float64) for name, array in arrays.items()}, scalars)
        with np.errstate(over="ignore"):
            rounded = {name: np.nan_to_num(new[name]).astype(dtype) for name in program.outputs}
        x = drawn(200 + t)
        states = {name: np.nan_to_num(rounded[name]) for name in states}
        scalar_states = {name: float(new[name]) for name in scalar_states}


def _check_reading(rule: Rule, program: Program, settings: Mapping[str, float], flags: Mapping[str, bool]) -> Check:
    name = "the program computes the formula"
    for arrays, scalars in situations(program, settings, np.float64):
        clock = {"t": int(scalars["t"])} if rule.uses_t else {}
        known = {**dict.fromkeys(rule.states, 0.0), **rule.scalar_states, **arrays, **scalars}
        states = [known[s] for s in rule.signature_states]
        with np.errstate(all="ignore"):
            direct = rule(arrays["x"], arrays["dx"], *states, **settings, **flags, **clock)
        values = direct if isinstance(direct, tuple) else (direct,)
        rest, known = enclose_sums(program, arrays, scalars, np.float64)
        inside = enclose(rest, arrays, known, np.float64)
        for output, value in zip(("x", *rule.signature_states), values, strict=True):
            if output in inside and not inside[output].holds(np.asarray(value)).all():
                return Check(name, False, f"the new {output} differs at t={clock.get('t', 1)}: is the function pure?")
        numbers = enclose_scalars(rest, known)
        for output, e in rest.scalar_outputs.items():
            called, interval = float(values[("x", *rule.signature_states).index(output)]), numbers[e]
            if not interval.holds(np.asarray(called)):
                expected = f"{float(interval.low)!r} to {float(interval.high)!r}"
                return Check(name, False, f"the formula gives {called!r} as the new {output}, expected {expected}")
    alone = '; of one tensor, which is all there is to over="all"' if program.over_all else ""
    return Check(name, True, f"equal in double precision, within its rounding{alone}")


@functools.lru_cache(maxsize=4)  # targets of one precision come one soon after the other
def _bounded(
    program: Program, settings: tuple[tuple[str, float], ...], dtype: Any, flush: bool, coefficient_ulps: float
) -> list[tuple[dict[str, Array], dict[str, float], dict[str, Interval]]]:
    """Situations, which nobody may change, and the bounds of what the formula makes of each."""
    found = []
    for arrays, scalars in situations(program, dict(settings), dtype):
        for array in arrays.values():
            array.flags.writeable = False
        inside = enclose(program, arrays, scalars, dtype, flush=flush, coefficient_ulps=coefficient_ulps)
        found.append((arrays, scalars, inside))
    return found


def _at(array: Array, place: Sequence[Any]) -> Any:
    """What stands in an array there, or for that row or column; the first of it beside a single number."""
    wanted = [*place] if len(place) == array.ndim else [0] * array.ndim
    return array[tuple(min(k, n - 1) for k, n in zip(wanted, array.shape, strict=True))]


def check_target(target: Target, program: Program, settings: Mapping[str, float]) -> Check:
    """Hold what a target computes to the bounds of the formula, in situations that break careless code.

    Args:
        target: The target.
        program: What it is to compute.
        settings: A number for each hyperparameter.

    Returns:
        Whether every value lies inside the bounds; the first that does not, otherwise how many there were.
    """
    count = 0
    bounded = _bounded(program, tuple(settings.items()), target.dtype, target.flush, target.coefficient_ulps)
    for arrays, scalars, inside in bounded:
        computed = target.step(program, arrays, scalars)
        for name, interval in inside.items():
            values = np.asarray(computed[name], np.float64)
            shape, values = values.shape, values.ravel()
            interval = Interval(interval.low.ravel(), interval.high.ravel())
            wrong = np.flatnonzero(~interval.holds(values))
            count += values.size
            if wrong.size:
                i = wrong[0]
                place = np.unravel_index(i, shape)
                inputs = ", ".join(f"{key}={_at(array, place)!r}" for key, array in arrays.items())
                return Check(
                    target.name,
                    False,
                    f"{wrong.size} of {values.size} values of the new {name} are off at t={scalars['t']:g}, the first "
                    f"{values[i]!r}, expected {interval.low[i]!r} to {interval.high[i]!r}, from {inputs}",
                )
    loose = any(e.op in FACTORS for e in program.expressions)
    known = "; of what is factorised these know no more than how long the columns are" if loose else ""
    return Check(target.name, True, f"{count:,} values inside the bounds of the float64 formula{known}")


def _check_options(rule: Rule, flags: Mapping[str, bool], settings: Mapping[str, float]) -> Check:
    options = {"max_norm": True, "maximize": True}
    own = {*rule.hyperparameters, *rule.flags}
    options |= {name: True for name in NUMBERS if name not in own}
    program = Settings.of(rule, flags, options).program
    more = {**dict.fromkeys(NUMBERS, 0.5), "weight_decay": 0.01, "averaging": 0.9, "grad_scale": 0.5}
    full = {**more, **settings}
    for target in targets():
        if target.name.startswith("cpu"):
            check = check_target(target, program, full)
            if not check.passed:
                return Check(f"with options, {check.name}", False, check.seen)
    return Check("with options", True, f"{', '.join(options)} in the same pass")


def _problem(program: Program) -> tuple[dict[str, Array], Callable[[Mapping[str, Array]], dict[str, Array]]]:
    """Weights, and the gradients of a quadratic with curvatures from 0.1 to 1 at them."""
    curvature = {"W": np.linspace(0.1, 1, 12).reshape(3, 4), "b": np.array(0.5)}
    if program.of_matrices:
        curvature["b"] = curvature["W"].T / 2
    weights = {name: np.cos(np.arange(c.size)).reshape(c.shape) for name, c in curvature.items()}
    return weights, lambda at: {name: curvature[name] * array for name, array in at.items()}


def _check_round_trip(rule: Rule, program: Program, given: Mapping[str, Any]) -> Check:
    weights, gradient = _problem(program)
    first = Optimizer({name: array.copy() for name, array in weights.items()}, rule, **given)
    for _ in range(5):
        first.step(gradient(first.params))
    second = Optimizer({name: array.copy() for name, array in weights.items()}, rule, **given)
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "state.safetensors")
        second.load(Path(folder) / "state.safetensors")
    for _ in range(5):
        for optimizer in (first, second):
            optimizer.step(gradient(optimizer.params))
    for name, array in first.params.items():
        if not np.array_equal(array, second.params[name], equal_nan=True):
            return Check("saved and loaded", False, f"{name} differs after 5 more steps")
    return Check("saved and loaded", True, "goes on bit for bit")


def _check_lookahead(rule: Rule, program: Program, given: Mapping[str, Any]) -> Check:
    weights, gradient = _problem(program)
    stored = Optimizer({name: array.copy() for name, array in weights.items()}, rule, **given)
    explicit = Optimizer({name: array.copy() for name, array in weights.items()}, rule, lookahead="explicit", **given)
    for _ in range(50):
        stored.step(gradient(stored.params))
        with explicit.at_lookahead():
            gradients = gradient(explicit.params)
        explicit.step(gradients)
    with stored.at_weights():
        apart = max(float(np.abs(a - explicit.params[name]).max()) for name, a in stored.params.items())
    return Check("look-ahead", apart < 1e-12, f"stored and explicit paths end {apart:.1e} apart after 50 steps")
