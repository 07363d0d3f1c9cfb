"""The words of a formula that sum up a whole tensor: `norm`, `mean`, `sum`, `max`, and its `size`.

Called with arrays of any library they compute; of expressions they make an expression. With `axis=0` there is one value
for each column, with `axis=1` one for each row, kept as a column or row so that it fits the matrix. A vector is a
matrix of one row.

With `over="all"` there is one value for all tensors that are updated together: those of one parameter group that have
a gradient. Of nothing but empty tensors it is 0. A nan in one of them is in all that depends on the value.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np

from downslope.language.operations import TENSOR_WORDS, FormulaError, namespace

__all__ = ["max", "mean", "norm", "size", "sum"]

AXES = (None, 0, 1)
"""What may be summed up: all of a tensor, its columns, its rows."""


def reduced(op: str, a: Any, axis: int | None, xp: ModuleType, stacked: bool = False) -> Any:
    """One of the words, of an array of a library that is a matrix, a vector or a number.

    Sums of squares and of single precision are added up in double precision where the library has it, so that they
    neither overflow nor depend much on the order.

    Args:
        op: The word.
        a: The array.
        axis: What it is summed up along; None for all of it.
        xp: The library, such as `numpy`, `torch`, `jax.numpy`, `keras.ops`.
        stacked: Whether it is several of them, one behind the other along a dimension before theirs; all dimensions
            are kept then.
    """
    shape = tuple(a.shape)
    if stacked:
        along: Any = tuple(range(1, len(shape))) if axis is None else axis + 1
        return xp.amax(a, along, keepdims=True) if op == "max" else _added(op, a, along, xp)
    if axis is not None and len(shape) > 2:
        raise ValueError(
            f"{op}(axis={axis}) is of a matrix; this array has shape {shape}: reshape it to two dimensions"
        )
    along = None if axis is None else axis - (2 - len(shape))
    if op == "size":
        return float(math.prod(shape) if along is None else shape[along] if along >= 0 else 1)
    if along is not None and along < 0:  # along the one row of a vector, the one column of a number
        return abs(a) if op == "norm" else a
    if op == "max":
        found = xp.amax if hasattr(xp, "amax") else xp.max
        return found(a) if along is None else found(a, along, keepdims=True)
    return _added(op, a, along, xp)


def _added(op: str, a: Any, along: int | tuple[int, ...] | None, xp: ModuleType) -> Any:
    """A norm, sum or mean."""
    by_columns = isinstance(along, int) and along < len(a.shape) - 1  # where it is the slower one
    if op == "norm" and not by_columns and _in_double(a, xp):
        return xp.linalg.vector_norm(a, dim=along, keepdim=along is not None, dtype=xp.float64).float()
    wide, back = _widened(a, xp)
    kept = {} if along is None else {"axis": along, "keepdims": True}
    if op == "norm":
        return back(xp.sqrt(xp.sum(wide * wide, **kept)))
    found = xp.sum(wide, **kept)
    if op == "mean":
        whole = range(len(a.shape)) if along is None else along if isinstance(along, tuple) else (along,)
        count = math.prod(a.shape[k] for k in whole)
        if not count:
            raise ValueError(f"there is no mean of an array of shape {tuple(a.shape)}, which is empty")
        found = found / count
    return back(found)


def summed(op: str, a: Any, xp: ModuleType) -> Any:
    """What one tensor gives to a word that is over all of them, for `joined`: in double precision where there is one.

    Args:
        op: The word.
        a: The array; a tensor is not empty.
        xp: The library.
    """
    if op == "size":
        return float(math.prod(a.shape))
    if op == "max":
        return reduced(op, a, None, xp)
    if op == "norm" and _in_double(a, xp):
        return xp.linalg.vector_norm(a, dtype=xp.float64).square()
    wide, _ = _widened(a, xp)
    return xp.sum(wide * wide if op == "norm" else wide)


def joined(op: str, parts: Sequence[Any], count: int, xp: ModuleType) -> Any:
    """The value of a word over all tensors: 0 of none.

    Args:
        op: The word.
        parts: What `summed` gives of each tensor: all numbers, or values of the library.
        count: How many elements they have together.
        xp: The library.
    """
    if not parts:
        return 0.0
    if op == "max":
        return functools.reduce(_library(parts, xp).maximum, parts)
    total = functools.reduce(operator.add, parts)
    if op == "norm":
        return _library(parts, xp).sqrt(total)
    return total / count if op == "mean" else total


def _library(values: Sequence[Any], xp: ModuleType) -> Any:
    """What computes with these: NumPy with numbers, as wide as there are."""
    return np if all(isinstance(value, (int, float, np.number)) for value in values) else xp


def _widened(a: Any, xp: ModuleType) -> tuple[Any, Callable[[Any], Any]]:
    """The array in double precision, if it is of single precision in a library that computes so, and the way back."""
    if xp is np and isinstance(a, (np.ndarray, np.generic)) and a.dtype == np.float32:
        return a.astype(np.float64), lambda found: np.float32(found) if not np.ndim(found) else found.astype(np.float32)
    if _in_double(a, xp):
        return a.double(), lambda found: found.float()
    return a, lambda found: found


def _in_double(a: Any, xp: ModuleType) -> bool:
    """Whether it is a tensor of PyTorch in single precision, on a device that knows double."""
    return xp.__name__ == "torch" and a.dtype == xp.float32 and a.device.type in ("cpu", "cuda")


def _word(op: str, what: str) -> Callable[..., Any]:
    def word(a: Any, *, axis: int | None = None, over: Literal["all"] | None = None) -> Any:
        if over not in (None, "all"):
            raise FormulaError(
                f'{op}(over={over!r}): give "all" for one value of all tensors, or nothing for one a tensor'
            )
        if over is not None and axis is not None:
            raise FormulaError(f'{op}(axis={axis!r}, over="all"): all tensors have no common axis; give one of the two')
        if isinstance(axis, bool) or axis not in AXES:
            raise FormulaError(
                f"{op}(axis={axis!r}): give 0 for one value a column, 1 for one a row, or nothing for the whole tensor"
            )
        if hasattr(type(a), "__over_tensor__"):
            return a.__over_tensor__(op, axis, over)
        xp = namespace([a])
        return reduced(op, a if hasattr(a, "shape") else np.asarray(a, np.float64), axis, xp)

    word.__name__ = word.__qualname__ = op
    word.__doc__ = f"""{what} of a tensor; with `axis=0` of each of its columns, with `axis=1` of each of its rows.

    With `over="all"` it is of all tensors of one parameter group that have a gradient in this step, taken as one. An
    array is all that there is.

    Args:
        a: An array of any library, of at most two dimensions where there is an axis; or an expression of a formula.
        axis: 0, 1 or None.
        over: "all" or None.

    Raises:
        FormulaError: `axis` or `over` is none of these, both are given, or there is nothing to sum up.
    """
    return word


norm = _word("norm", "The Euclidean norm")
mean = _word("mean", "The mean")
sum = _word("sum", "The sum")
max = _word("max", "The largest element")
size = _word("size", "How many elements there are")

assert set(__all__) == set(TENSOR_WORDS)
