"""Reading and writing memory from compiled code, and the checks that come first.

`take` is the only place where an address is born: it reads it, together with everything that must hold for it to be
used, from live array objects that the caller holds. NumPy's array object has had the same public layout (the one that
compiled extensions read through `PyArray_DATA` and friends) since 1.7; `_known_layout` makes sure of it once.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import boolean, float32, float64, int32, int64, njit, types
from numba.extending import intrinsic

START, LENGTH, ROW, DTYPE, FIRST = 0, 1, 2, 3, 4
"""Columns of a slot table: the slot's first weight among all, its number of weights, its row of coefficients, the
identity of the weights' dtype object; from `FIRST` on, the addresses of its arrays: weights, gradient, states; then the
identities of weights and states."""

_HEAD = object.__basicsize__
_TYPE, _DATA, _NDIM, _SHAPE, _DTYPE, _FLAGS = _HEAD - 8, _HEAD, _HEAD + 8, _HEAD + 16, _HEAD + 40, _HEAD + 48
_READABLE = 0x0001 | 0x0100  # C-contiguous, aligned
_WRITABLE = _READABLE | 0x0400
_SCOPES = 32


def _scope(module: Any, which: int) -> tuple[Any, Any]:
    """LLVM metadata that tells the arrays of a slot apart: they never overlap, which `take` has checked."""
    domain = module.add_metadata([ir.MetaDataString(module, "downslope")])
    scopes = [module.add_metadata([ir.MetaDataString(module, f"downslope.{k}"), domain]) for k in range(_SCOPES)]
    return module.add_metadata([scopes[which]]), module.add_metadata(scopes[:which] + scopes[which + 1 :])


def _mark(instruction: Any, module: Any, which: int | None) -> Any:
    if which is not None:
        own, others = _scope(module, which)
        instruction.set_metadata("alias.scope", own)
        instruction.set_metadata("noalias", others)
    return instruction


def access(scalar: Any, which: int | None = None) -> tuple[Any, Any]:
    """Functions for compiled code: `load(address, i)` and `store(address, i, value)`.

    Args:
        scalar: Numba's type of one element.
        which: Which array of a slot this is, so that the compiler knows that the others do not overlap it; None
            makes no such promise.
    """

    @intrinsic
    def load(typing_context: Any, address: Any, i: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], context.get_value_type(scalar).as_pointer())
            return _mark(builder.load(builder.gep(pointer, [args[1]], inbounds=True)), builder.module, which)

        return scalar(int64, int64), generate

    @intrinsic
    def store(typing_context: Any, address: Any, i: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], context.get_value_type(scalar).as_pointer())
            _mark(builder.store(args[2], builder.gep(pointer, [args[1]], inbounds=True)), builder.module, which)
            return context.get_dummy_value()

        return types.void(int64, int64, scalar), generate

    return load, store


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """For compiled code: ask for the cache line of an address, which need not be one that may be read."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        reading, keep, data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(args[0], byte), reading, keep, data])
        return context.get_dummy_value()

    return types.void(int64), generate


_word, _ = access(int64)
_half, _ = access(int32)
_load32, _ = access(float32)
_load64, _ = access(float64)


@njit(boolean(int64, int64, int64, int64, int64), cache=True)
def _sound(array, model, dtype, other_dtype, flags):  # type: ignore[no-untyped-def]
    """Whether the array has one of these two dtype objects, these flags, and the shape of the model."""
    found = _word(array + _DTYPE, 0)
    if found != dtype and found != other_dtype:
        return False
    if _half(array + _FLAGS, 0) & flags != flags:
        return False
    dimensions = _half(array + _NDIM, 0)
    if dimensions != _half(model + _NDIM, 0):
        return False
    for axis in range(dimensions):
        if _word(_word(array + _SHAPE, 0), axis) != _word(_word(model + _SHAPE, 0), axis):
            return False
    return True


@njit(int64(int64), cache=True)
def _size(array):  # type: ignore[no-untyped-def]
    size = 1
    for axis in range(_half(array + _NDIM, 0)):
        size *= _word(_word(array + _SHAPE, 0), axis)
    return size


@njit(int64(int64[:, ::1], int64[::1], int64[:, ::1], int64, int64, int64), cache=True)
def take(slots, gradients, intervals, array_type, dtype, itemsize):  # type: ignore[no-untyped-def]
    """Check every array of a launch and put the addresses of the gradients into the slot table.

    Runs with the interpreter's lock held, so that no other thread changes an array in the meantime.

    Args:
        slots: The slot table; the addresses and identities of weights and states, which the caller holds, are in it.
        gradients: The identities of the gradients, objects the caller holds.
        intervals: First and last byte of every held array, in ascending order.
        array_type: The identity of the array type.
        dtype: The identity of the dtype object that states have, and gradients too unless they have the weights'.
        itemsize: Bytes of one element.

    Returns:
        0 if all is well, else 1 + the number of the first slot with something to be looked into; the table's
        gradients are then not to be used.
    """
    held = (slots.shape[1] - FIRST) // 2  # weights and states; the gradient makes the addresses one more
    for s in range(slots.shape[0]):
        model = slots[s, FIRST + held + 1]
        for k in range(held):
            array = slots[s, FIRST + held + 1 + k]
            column = FIRST + k + (k > 0)
            own_dtype = slots[s, DTYPE] if k == 0 else dtype
            if _word(array + _DATA, 0) != slots[s, column] or not _sound(array, model, own_dtype, own_dtype, _WRITABLE):
                return s + 1
        if _size(model) != slots[s, LENGTH]:
            return s + 1
        if _word(gradients[s] + _TYPE, 0) != array_type:  # of an object that may be anything, only this is known
            return s + 1
        if not _sound(gradients[s], model, dtype, slots[s, DTYPE], _READABLE):
            return s + 1
        begin = _word(gradients[s] + _DATA, 0)
        end = begin + slots[s, LENGTH] * itemsize
        low, high = 0, intervals.shape[0]
        while low < high:  # the first interval that ends after the gradient begins
            middle = (low + high) // 2
            if intervals[middle, 1] > begin:
                high = middle
            else:
                low = middle + 1
        if begin < end and low < intervals.shape[0] and intervals[low, 0] < end:
            return s + 1
        slots[s, FIRST + 1] = begin
    return 0


def address(array: np.ndarray[Any, Any]) -> int:
    """The address of an array's first element, read from the live object."""
    return int(array.__array_interface__["data"][0])


PAGE = 4096


def alongside(weights: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A new array of the weights' shape that begins where the weights begin within a page.

    A processor compares the lower 12 bits of addresses to see whether a load has to wait for an earlier store. With
    all arrays of a step at one place within their pages, it never takes one array for another.
    """
    if weights.nbytes < 16 * PAGE:
        return np.empty(weights.shape, dtype)
    memory = np.empty(weights.size * dtype.itemsize + PAGE, np.uint8)
    first = (address(weights) - address(memory)) % PAGE
    return memory[first : first + memory.size - PAGE].view(dtype).reshape(weights.shape)


@functools.cache
def known_layout() -> bool:
    """Whether arrays of this interpreter and NumPy have the layout that `take` reads.

    Raises:
        RuntimeError: They have not; no kernel may run.
    """
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    other = np.zeros((2, 3), np.float32)
    begin = address(array)
    slots = np.array([[0, 6, 0, id(array.dtype), begin, 0, id(array)]], np.int64)
    intervals = np.array([[begin, begin + 24]], np.int64)
    ids = (id(np.ndarray), id(array.dtype), 4)
    if take(slots, np.array([id(other)]), intervals, *ids) != 0 or slots[0, FIRST + 1] != address(other):
        raise RuntimeError(
            f"NumPy {np.__version__} lays out its arrays in a way this version of downslope does not know"
        )
    return True


PIECE = 1 << 16
"""Weights that `survey` sums at a time: the sum does not depend on how many threads share the work."""


@njit(
    types.void(int64[:, ::1], float64[:, ::1], float64, int64, int64, int64),
    nogil=True,
    cache=True,
    fastmath={"reassoc"},
    error_model="numpy",
)
def survey(slots, found, scale, itemsize, begin, end):  # type: ignore[no-untyped-def]
    """Look at the gradients of the weights number `begin` to `end`, counted over all slots, piece by piece.

    Args:
        slots: The slot table, with addresses just taken.
        found: For each piece of `PIECE` weights, receives the sum of squares of the scaled gradients, and how many
            gradients are not finite.
        scale: What gradients are multiplied by before they are squared.
        itemsize: 4 for float32, 8 for float64.
        begin: The first weight, a multiple of `PIECE`.
        end: The weight after the last.
    """
    for piece in range(begin // PIECE, (end + PIECE - 1) // PIECE):
        total = 0.0
        bad = 0
        for s in range(slots.shape[0]):
            first = max(piece * PIECE - slots[s, START], 0)
            last = min(min((piece + 1) * PIECE, end) - slots[s, START], slots[s, LENGTH])
            where = slots[s, FIRST + 1]
            if itemsize == 4:
                for i in range(first, last):
                    g = float64(_load32(where, i)) * scale
                    total += g * g
                    bad += not (abs(g) < np.inf)
            else:
                for i in range(first, last):
                    g = _load64(where, i) * scale
                    total += g * g
                    bad += not (abs(g) < np.inf)
        found[piece, 0] = total
        found[piece, 1] = bad
