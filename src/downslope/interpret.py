"""Running a program on any array library: NumPy, JAX, PyTorch, Keras.

For frameworks that compile by themselves, for reference, and as the fallback where a kernel cannot go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from downslope.expression import Expression
from downslope.trace import Program, in_order


def interpret(
    program: Program, arrays: Mapping[str, Any], scalars: Mapping[str, Any], xp: ModuleType = np
) -> dict[str, Any]:
    """Compute one step.

    Args:
        program: The program.
        arrays: `x`, `dx` and the states, all of one shape and dtype, which is the precision of the body.
        scalars: The hyperparameters, scalar states, and `t` where the program takes it: numbers, which are worked
            with in double precision, or traced values of a framework, for which `1 - beta**t` is computed as
            `-expm1(t * log(beta))` and `1 - exp(a)` as `-expm1(a)`, because the plain forms are wrong by up to 1e-4 in
            single precision.
        xp: The array library: `numpy`, `jax.numpy`, `torch`, `keras.ops`.

    Returns:
        The new weights and states by name, scalar states included.

    Example:
        >>> import numpy as np, downslope
        >>> from downslope.trace import trace
        >>> arrays = {"x": np.float32([1, 2]), "dx": np.float32([1, -1])}
        >>> interpret(trace(downslope.sgd), arrays, {"lr": 0.5})["x"]
        array([0.5, 2.5], dtype=float32)
    """
    values = interpret_scalars(program, scalars, xp)
    new = interpret_body(program, arrays, values, xp)
    return {**new, **{name: values[e] for name, e in program.scalar_outputs.items()}}


def interpret_scalars(program: Program, scalars: Mapping[str, Any], xp: ModuleType = np) -> dict[Expression, Any]:
    """The value of every expression that depends on no array: what one step needs once, however many arrays there are.

    Args:
        program: The program.
        scalars: As for `interpret`.
        xp: The array library.
    """
    values: dict[Expression, Any] = {}
    with np.errstate(all="ignore"):  # infinities and nan follow IEEE, here as in a kernel
        for e in in_order([*program.outputs.values(), *program.scalar_outputs.values()]):
            if e.per_weight:
                continue
            if e.op == "constant":
                values[e] = e.value
            elif e.op == "input":
                values[e] = _scalar(scalars[str(e.value)])
            else:
                values[e] = _coefficient(e, [values[arg] for arg in e.args], values, xp)
    return values


def interpret_body(
    program: Program, arrays: Mapping[str, Any], coefficients: Mapping[Expression, Any], xp: ModuleType = np
) -> dict[str, Any]:
    """The new weights and states by name.

    Args:
        program: The program.
        arrays: As for `interpret`.
        coefficients: The value of each of `program.coefficients`, as `interpret_scalars` gives them.
        xp: The array library.
    """
    x = arrays["x"]
    values: dict[Expression, Any] = dict(coefficients)
    with np.errstate(all="ignore"):
        for e in in_order(program.outputs.values()):
            if e.op == "constant":
                values[e] = e.value
            elif e.op == "input" and e.per_weight:
                values[e] = arrays[str(e.value)]
            elif e.per_weight:
                operands = [_cast(values[arg], arg, x, xp) for arg in e.args]
                values[e] = _apply(e, [_full(v, x, xp) for v in operands] if e.op in _FULL else operands, xp)
        result = {}
        for name, e in program.outputs.items():
            value = values[e] if e.per_weight else _cast(values[e], e, x, xp)
            result[name] = value if e.per_weight else value + xp.zeros_like(x)
    return result


def interpret_coefficients(program: Program, scalars: Mapping[str, float]) -> tuple[float, ...]:
    """The coefficients, then the new scalar states, in double precision with IEEE results."""
    values: dict[Expression, Any] = {}
    results = [*program.coefficients, *program.scalar_outputs.values()]
    with np.errstate(all="ignore"):
        for e in in_order(results):
            if e.op == "input":
                values[e] = np.float64(scalars[str(e.value)])
            else:
                values[e] = e.value if e.op == "constant" else _apply(e, [values[arg] for arg in e.args], np)
    return tuple(float(values[e]) for e in results)


def _scalar(value: Any) -> Any:
    """A number in double precision, with IEEE results where Python would raise; a traced value as it is."""
    return np.float64(value) if isinstance(value, (int, float, np.number)) else value


def _cast(value: Any, e: Expression, x: Any, xp: ModuleType) -> Any:
    """A coefficient or constant rounded to the precision of the body, once, as a kernel does."""
    if e.per_weight or isinstance(value, (bool, np.bool_)):
        return value
    if xp is np:
        return x.dtype.type(value)
    if isinstance(value, (int, float, np.number)):
        return float(value)  # a weak number: the framework rounds it to the dtype of the array it meets
    return value.astype(x.dtype) if hasattr(value, "astype") and value.dtype != bool else value


_FULL = frozenset({"maximum", "minimum", "where", "and", "or"})
"""The operations of which some array libraries accept arrays only."""


def _full(value: Any, x: Any, xp: ModuleType) -> Any:
    """A host number or truth value as an array like the weights; an array as it is."""
    if isinstance(value, (bool, np.bool_)):
        return xp.full_like(x, float(value)) != 0
    return xp.full_like(x, value) if isinstance(value, (int, float, np.number)) else value


def _coefficient(e: Expression, args: list[Any], values: Mapping[Expression, Any], xp: ModuleType) -> Any:
    if all(isinstance(arg, (bool, int, float, np.number, np.bool_)) for arg in args):
        return _apply(e, args, np)
    if e.op == "sub" and e.args[0].value == 1.0 and e.args[1].op == "exp":
        return -xp.expm1(values[e.args[1].args[0]])
    one_minus_power = e.op == "sub" and e.args[0].value == 1.0 and e.args[1].op == "pow"
    if one_minus_power:
        base, exponent = (_weak(values[arg]) for arg in e.args[1].args)
        if isinstance(base, float) and base > 0:
            return -xp.expm1(exponent * math.log(base))
        if not isinstance(base, float):
            logarithm = xp.log(xp.where(base > 0, base, xp.ones_like(base)))
            return xp.where(base > 0, -xp.expm1(exponent * logarithm), 1 - base**exponent)
    return _apply(e, [_weak(arg) for arg in args], xp)


def _weak(value: Any) -> Any:
    """A host number as a Python float, which takes on the precision of the traced value it meets."""
    return float(value) if isinstance(value, (int, float, np.number)) else value


def _apply(e: Expression, args: list[Any], xp: ModuleType) -> Any:
    match e.op, args:
        case "add", [a, b]:
            return a + b
        case "sub", [a, b]:
            return a - b
        case "mul", [a, b]:
            return a * b
        case "div", [a, b]:
            return a / b
        case "pow", [a, b]:
            count = small_power(e)
            if not count:
                return a**b
            product = a
            for _ in range(count - 1):
                product = product * a
            return product
        case "neg", [a]:
            return -a
        case "lt", [a, b]:
            return a < b
        case "le", [a, b]:
            return a <= b
        case "gt", [a, b]:
            return a > b
        case "ge", [a, b]:
            return a >= b
        case "eq", [a, b]:
            return a == b
        case "ne", [a, b]:
            return a != b
        case (("and" | "or" | "not"), _):
            return getattr(xp, f"logical_{e.op}")(*args)
        case _:
            return getattr(xp, e.op)(*args)


def small_power(e: Expression) -> int:
    """The exponent of a power that is worked out by repeated multiplication (2 to 4), else 0."""
    exponent = e.args[1]
    return int(exponent.value) if exponent.op == "constant" and exponent.value in (2.0, 3.0, 4.0) else 0
