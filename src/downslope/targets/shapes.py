"""What a program over whole tensors is for tensors of one shape: sizes are numbers, and choices by size are made."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from downslope.language.expression import Expression
from downslope.language.operations import TENSOR_WORDS
from downslope.language.program import Program, in_order, is_decided
from downslope.language.rewrites import rewritten, with_rewritten
from downslope.language.spaces import NUMBER, Space, join
from downslope.targets.compute import OPERATIONS, compute

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A rule cannot work on a tensor of this shape."""


def multiplies(program: Program) -> bool:
    """Whether a program multiplies matrices, so that it is for nothing else, unless it says that it is."""
    said = program.least_dimensions
    return any(e.op == "product" for e in program.over_tensors) and (said is None or said > 1)


def matrix_shape(program: Program, shape: Sequence[int]) -> Shape:
    """As what a tensor is taken: as it is or, by rules that go by rows and columns, as a matrix.

    Raises:
        ShapeError: The rule multiplies matrices, and this is none, or it has more dimensions than the rule knows.
    """
    shape = tuple(shape)
    if program.most_dimensions is not None and len(shape) > program.most_dimensions:
        raise ShapeError(
            f"{program.name} is for tensors of at most {program.most_dimensions} dimensions, and one has shape {shape}"
        )
    if not program.of_matrices:
        return shape
    least = (2 if multiplies(program) else 0) if program.least_dimensions is None else program.least_dimensions
    if len(shape) < least:
        what = f"a tensor of shape {shape}" if shape else "a single number"
        if least == 1:
            raise ShapeError(
                f"{program.name} is for vectors and matrices, and {what} is neither; put it into a group with its own "
                "rule, such as downslope.adamw"
            )
        raise ShapeError(f"{program.name} multiplies matrices, and {what} is none")
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


def check_shapes(program: Program, shapes: Iterable[tuple[str, Sequence[int]]], remedy: str) -> None:
    """Refuse parameters of shapes that a rule cannot work on, before any step.

    Args:
        program: The rule with its options.
        shapes: The name of each parameter, and its shape.
        remedy: What to do in this framework, as a sentence goes on after a semicolon.

    Raises:
        ShapeError: One is none for the rule; the message names it, and what to do.
    """
    if not (program.of_matrices or program.most_dimensions is not None):
        return
    for name, shape in shapes:
        try:
            matrix_shape(program, shape)
        except ShapeError as error:
            raise ShapeError(f"the parameter {name}: {error}; {remedy}") from None


def held_shape(program: Program, state: str, shape: Sequence[int]) -> Shape:
    """The shape in which a state is kept: as many dimensions as the weights, of which those have 1 that it is not for.

    What is one for each pair of rows, or of columns, is a square matrix, of one element where the program for weights
    of this shape has no use for it.

    Args:
        program: The one whose state it is; or `x`, or `dx`.
        state: Its name.
        shape: The shape of the weights.

    Example:
        >>> from downslope import mean, rows, rule
        >>> from downslope.language.options import compose
        >>> @rule
        ... def by_rows(x, dx, r=rows(0), *, lr=0.1):
        ...     return x - lr * r * dx, mean(abs(dx), axis=1)
        >>> [held_shape(compose(by_rows), "r", shape) for shape in ((4, 2, 3, 3), (4, 2), (2,), ())]
        [(4, 1, 1, 1), (4, 1), (1,), ()]
    """
    shape = tuple(shape)
    if state not in program.spaces:
        return shape
    space, ends = program.spaces[state], len(shape) > 1
    if space.is_square:
        matrix = (shape[0] if ends else 1, math.prod(shape[ends:]))
        side = 1 if _is_idle(program, state, matrix) else matrix[space.first == "columns"]
        return (side, side)
    first = shape[:ends] if space.first else (1,) * ends
    return (*first, *(shape[ends:] if space.second else (1,) * len(shape[ends:])))


@functools.lru_cache(maxsize=512)
def _is_idle(program: Program, state: str, shape: Shape) -> bool:
    """Whether a program for tensors of one shape neither changes a state nor reads it."""
    outputs = settled(program, shape).outputs
    kept = state in outputs and outputs[state].op == "input" and outputs[state].value == state
    others = in_order(e for name, e in outputs.items() if name != state)
    return kept and not any(e.op == "input" and e.value == state for e in others)


@functools.lru_cache(maxsize=512)
def settled(program: Program, shape: Shape, decisions: tuple[bool | None, ...] = ()) -> Program:
    """The program for tensors of one shape, and for steps in which the same is decided.

    Args:
        program: One over whole tensors; it works out the same numbers before, whatever shapes there are.
        shape: As `matrix_shape` gives it.
        decisions: The value of each of the program's `conditions`, None where it is not known; without them none is.

    Example:
        >>> from downslope import rule, size
        >>> from downslope.language.options import compose
        >>> from downslope.targets.formula import formula
        >>> @rule
        ... def slower_if_tall(x, dx, *, lr=0.1):
        ...     return x - lr * dx * size(dx, axis=1) / size(dx, axis=0)
        >>> formula(settled(compose(slower_if_tall), (4, 2)))
        (('x', 'x - lr * dx * 2 / 4'),)
    """
    known: dict[Expression, Any] = {
        e: value for e, value in zip(program.conditions, decisions, strict=False) if value is not None
    }

    widths: dict[Expression, Space] = {}  # in which what has been chosen is

    def instead(e: Expression, args: tuple[Expression, ...]) -> Expression | None:
        widths[e] = e.space if not e.args else NUMBER
        if e.op == "where" and e.args[0] in known and (e.args[0].from_arrays or is_decided(e)):
            chosen = 1 if known[e.args[0]] else 2
            if e.args[chosen] in known:
                known[e] = known[e.args[chosen]]
            widths[e] = widths[e.args[chosen]]
            return args[chosen]
        if e.op == "constant":
            known[e] = np.float64(e.number)
        elif e.op == "size" and not e.over_all:
            known[e] = np.float64(_size(e, shape))
        elif e.from_arrays and e.args and all(arg in known for arg in e.args):
            value = _folded(e, [known[arg] for arg in e.args], shape)
            if value is not None:
                known[e] = value
        if e in known and e.from_arrays and not e.is_condition:
            return Expression("constant", value=float(known[e]))
        widths[e] = _narrow(e, [widths[arg] for arg in e.args])
        return _of_all_it_stands_for(e, args, [widths[arg] for arg in e.args], shape)

    return with_rewritten(program, rewritten(program.expressions, instead))


def _of_all_it_stands_for(
    e: Expression, args: Sequence[Expression], narrow: Sequence[Space], shape: Shape
) -> Expression | None:
    """A sum, norm or product of what has been chosen to be narrower than it might be, as of all elements it stands for.

    A choice between one number for each row and one for each weight is one for each weight, whatever is chosen.

    Args:
        e: A word over a whole tensor.
        args: What has become of its arguments.
        narrow: The spaces in which these are.
        shape: That of the weights.
    """
    if e.op in ("sum", "norm") and not e.over_all:
        times = _size(e, shape) / max(1, _size(e, shape, narrow[0]))
        return None if times in (0, 1) else e.of(tuple(args)) * (times if e.op == "sum" else math.sqrt(times))
    if e.op != "product" or not e.args[0].space.second or (narrow[0].second and narrow[1].first):
        return None
    a, b = args
    if narrow[1].first:
        b = b.__over_tensor__("sum", 0, None)
    elif narrow[0].second:
        a = a.__over_tensor__("sum", 1, None)
    new = e.of((a, b)) if a.space.of_tensor and b.space.of_tensor else a * b
    return new if narrow[0].second or narrow[1].first else new * _side(e.args[0].space.second, shape)


def _narrow(e: Expression, narrow: Sequence[Space]) -> Space:
    """The space in which the elements are that are worked out of arguments of these spaces."""
    if e.op == "product":
        return Space(True, narrow[0].first, narrow[1].second)
    if e.op in TENSOR_WORDS:
        return e.space if e.over_all else narrow[0].without(None if e.value is None else int(float(e.value)))
    if e.op == "transpose":
        return narrow[0].transposed
    return join(*narrow) if e.op in OPERATIONS else e.space


def sides(e: Expression, of: Space | None = None) -> tuple[str, ...]:
    """The sides of the weights along which a `size`, or another word over a whole tensor, counts: "rows", "columns".

    Something that is the same for all rows, say, has one element along them. It is in this space, if one is given.
    """
    of = e.args[0].space if of is None else of
    along = (of.first, of.second) if e.value is None else ((of.first, of.second)[int(float(e.value))],)
    return tuple(side for side in along if side)


def _size(e: Expression, shape: Shape, of: Space | None = None) -> int:
    """How many elements there are in something, or along one of its directions, with weights of this shape."""
    return math.prod(_side(side, shape) for side in sides(e, of))


def _side(side: str, shape: Shape) -> int:
    """How many rows or columns there are; one along no side."""
    rows, columns = shape if len(shape) == 2 else (1, math.prod(shape))
    return {"rows": rows, "columns": columns, "": 1}[side]


def _folded(e: Expression, values: Sequence[Any], shape: Shape) -> Any:
    """The number that an operation makes of numbers, each of which may stand for many; None if it makes none."""
    if e.op in OPERATIONS:
        return compute(e.op, [*values])
    value = values[0]
    if e.op == "norm":
        return abs(value) * np.sqrt(_size(e, shape))
    if e.op == "sum":
        return value * _size(e, shape)
    if e.op == "product":
        return value * values[1] * _side(e.args[0].space.second, shape)
    return value if e.op in ("mean", "max", "called", "transpose") else None
