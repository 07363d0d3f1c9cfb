"""Programs in forty digits: what a formula says, as good as without rounding.

In floating-point numbers two ways to write one formula part by rounding errors, and a difference of two close numbers
can make these as large as what an epsilon does. In forty digits nothing is left to judge: what is the same agrees to
dozens of digits, and what is not does not.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from typing import Any

import numpy as np

from downslope.language import operations
from downslope.language.expression import Expression
from downslope.language.operations import FACTORS, TENSOR_WORDS, FormulaError
from downslope.language.program import Program, in_order
from downslope.language.spaces import WEIGHT
from downslope.language.together import Round, divided
from downslope.targets.decimal_factors import FACTORIZED, sort_by
from downslope.targets.evaluate import evaluate_in_order
from downslope.targets.shapes import Shape, held_shape, settled

Numbers = list[Decimal]
"""One number per weight."""

_CONTEXT = Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
"""Forty digits, no overflow to speak of, and nan and infinity where IEEE arithmetic has them."""

NAN = Decimal("nan")


def forty_digits() -> AbstractContextManager[Context]:
    """The arithmetic in which everything here is to be run."""
    return localcontext(_CONTEXT)


def compute(
    program: Program, arrays: Mapping[str, Numbers], scalars: Mapping[str, Decimal], shapes: Sequence[Shape] = ()
) -> dict[str, Any]:
    """Compute one step.

    Args:
        program: What the step computes.
        arrays: `x`, `dx` and the states; those that are one for each row or column have one number for each of these.
        scalars: Hyperparameters, scalar states, and `t` where the program takes it.
        shapes: Of which matrices the lists are, one after the other, row by row, if the program goes by whole tensors.
            Without any they are one vector.

    Raises:
        FormulaError: The program goes by rows and columns, and no shapes are given.

    Returns:
        The new weights and states by name, scalar states included.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> with forty_digits():
        ...     new = compute(compose(downslope.sgd), {"x": [Decimal(1)], "dx": [Decimal(3)]}, {"lr": Decimal("0.1")})
        ...     print(new["x"][0])
        0.7
    """
    if program.of_matrices and not shapes:
        raise FormulaError(f"{program.name} goes by rows and columns; say of which matrices the lists are")
    tensors: list[tuple[Shape, dict[str, Any]]] = []
    begin = dict.fromkeys(arrays, 0)
    for shape in shapes if shapes and program.over_tensors else [(1, len(arrays["x"]))]:
        matrices = {}
        for name, values in arrays.items():
            own = held_shape(program, name, shape)
            part = slice(begin[name], begin[name] + math.prod(own))
            matrices[name], begin[name] = np.array(values[part], object).reshape(own), part.stop
        tensors.append((shape, matrices))
    for each in divided(program).rounds:
        scalars = {**scalars, **_over_all(each, tensors, scalars)}
    program = divided(program).rest
    found: dict[str, Any] = {name: [] for name in program.outputs}
    for shape, matrices in tensors:
        new = _of_matrix(_settled(program, shape, scalars) if program.over_tensors else program, matrices, scalars)
        for name in program.outputs:
            found[name] += np.broadcast_to(new[name], held_shape(program, name, shape)).ravel().tolist()
        found |= {name: new[name] for name in program.scalar_outputs}
    return found


def _settled(program: Program, shape: Shape, scalars: Mapping[str, Decimal]) -> Program:
    """The program for a matrix of one shape and this step."""
    numbers = in_order(program.conditions)
    found = evaluate_in_order(
        numbers,
        lambda e: Decimal(e.number) if e.op == "constant" else scalars[str(e.value)],
        lambda e, args: OPERATIONS[e.op](*args),
    )
    return settled(program, shape, tuple(bool(found[e]) for e in program.conditions))


def _over_all(
    each: Round, tensors: Sequence[tuple[Shape, Mapping[str, Any]]], scalars: Mapping[str, Decimal]
) -> dict[str, Decimal]:
    """What is summed up over all matrices."""
    found: dict[str, list[Decimal]] = {name: [] for name in each.words}
    for shape, matrices in tensors:
        new = _of_matrix(_settled(each.program, shape, scalars), matrices, scalars)
        for name, e in each.program.outputs.items():
            whole = shape if e.space == WEIGHT else np.shape(new[name])
            found[name] += np.broadcast_to(new[name], whole).ravel().tolist()
    return {name: _summed(word, found[name]) for name, word in each.words.items()}


def _of_matrix(program: Program, matrices: Mapping[str, Any], scalars: Mapping[str, Decimal]) -> dict[str, Any]:
    """The same for one matrix: what is one for each row is a column, what is one for the tensor is a number.

    What goes by no rows and columns is a matrix of one row.
    """

    def leaf(e: Expression) -> Any:
        if e.op == "constant":
            return Decimal(e.number)
        return matrices[str(e.value)] if e.from_arrays else scalars[str(e.value)]

    def apply(e: Expression, args: list[Any]) -> Any:
        if e.op == "called":
            return args[0]
        if e.op == "product":
            return args[0] @ args[1]
        if e.op == "transpose":
            return args[0].T
        if e.op in FACTORS:
            return FACTORIZED[e.op](args[0])
        if e.op == "sort_by":
            return sort_by(*args)
        if not e.from_arrays:
            return OPERATIONS[e.op](*args)
        if e.op not in TENSOR_WORDS:
            return _for_each(e.op)(*args)
        if e.value is None:
            return _summed(e.op, np.ravel(args[0]).tolist())
        lines = args[0].T if float(e.value) == 0 else args[0]
        sums = np.array([[_summed(e.op, line.tolist())] for line in lines], object)
        return sums.T if float(e.value) == 0 else sums

    values = evaluate_in_order(program.expressions, leaf, apply)
    return {name: values[e] for name, e in {**program.outputs, **program.scalar_outputs}.items()}


@functools.cache
def _for_each(op: str) -> Any:
    """An operation on each number of arrays."""
    return np.frompyfunc(OPERATIONS[op], len(operations.OPERATIONS[op].takes), 1)


def _summed(op: str, values: list[Decimal]) -> Decimal:
    """What sums up a list."""
    if op == "size":
        return Decimal(len(values))
    if op == "max":
        return functools.reduce(_maximum, values)
    total = sum((value * value for value in values) if op == "norm" else values, Decimal(0))
    return total.sqrt() if op == "norm" else total / len(values) if op == "mean" else total


def _power(a: Decimal, b: Decimal) -> Decimal:
    if not b:
        return Decimal(1)
    return _raised(a, b) if a else a**b


@functools.lru_cache(maxsize=4096)
def _raised(a: Decimal, b: Decimal) -> Decimal:
    """A power, kept: those of the number of a step are the same in every training, and take as long as a whole step.

    Of zeros there are two that are equal and have other powers, so that neither comes here.
    """
    return a**b


def _sign(a: Decimal) -> Decimal:
    return a if a.is_nan() else Decimal((a > 0) - (a < 0))


def _maximum(a: Decimal, b: Decimal) -> Decimal:
    return b if b > a or b.is_nan() else a


def _minimum(a: Decimal, b: Decimal) -> Decimal:
    return b if b < a or b.is_nan() else a


def _expm1(a: Decimal) -> Decimal:
    lost = -a.adjusted() if a.is_finite() and a else 0
    if lost > _CONTEXT.prec:
        return a
    with localcontext() as context:
        context.prec += max(lost, 0)
        grown = a.exp() - 1
    return +grown


def _tanh(a: Decimal) -> Decimal:
    if abs(a) > 60:
        return _sign(a)
    grown = (2 * a).exp()
    return (grown - 1) / (grown + 1)


@functools.cache
def _pi(digits: int) -> Decimal:
    """Pi, by Machin's formula."""
    with localcontext() as context:
        context.prec = digits + 10
        return 16 * _arctangent(5, digits) - 4 * _arctangent(239, digits)


def _arctangent(inverse: int, digits: int) -> Decimal:
    """That of the inverse of a whole number, as a series."""
    power, total, k = Decimal(1) / inverse, Decimal(0), 1
    while power.adjusted() > -digits - 5:
        total += power / (k if k % 4 == 1 else -k)
        power /= inverse * inverse
        k += 2
    return total


def _sine(a: Decimal, quarters: int = 0) -> Decimal:
    """The sine of an angle that is so many right angles larger."""
    if not a.is_finite() or a.adjusted() > _LARGEST_ANGLE:
        return NAN
    digits = _CONTEXT.prec + 30 + max(a.adjusted(), 0)  # near a multiple of pi, most are lost
    with localcontext() as context:
        context.prec = digits
        half = _pi(digits) / 2
        whole = (a / half).to_integral_value()
        rest = a - whole * half  # from -pi/4 to pi/4, with the digits that are left
        quarters += int(whole % 4)
        context.prec = _CONTEXT.prec + 10
        term, total, k = (rest, rest, 1) if quarters % 2 == 0 else (Decimal(1), Decimal(1), 0)
        while term and term.adjusted() > total.adjusted() - context.prec:
            term *= -rest * rest / ((k + 1) * (k + 2))
            total += term
            k += 2
    return +total if quarters % 4 < 2 else -total


_LARGEST_ANGLE = 1000
"""The exponent of ten beyond which an angle has no sine here; no double is as large."""


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": _power,
    "square": lambda a: a * a,
    "cube": lambda a: a * a * a,
    "fourth": lambda a: a * a * a * a,
    "neg": operator.neg,
    "abs": abs,
    "sign": _sign,
    "sqrt": Decimal.sqrt,
    "exp": Decimal.exp,
    "expm1": _expm1,
    "log": Decimal.ln,
    "tanh": _tanh,
    "sin": _sine,
    "cos": lambda a: _sine(a, 1),
    "maximum": _maximum,
    "minimum": _minimum,
    "where": lambda condition, a, b: a if condition else b,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": operator.not_,
}
