"""The tensors of a deep-learning framework as a slot table, read through DLPack's C interface.

A framework's tensor type offers a table of C functions as `__dlpack_c_exchange_api__` (DLPack 1.3), one of which
describes a live tensor: address, device, dtype, shape, strides. `take` asks it about every tensor of a launch, right
before the launch, and never keeps a description.

Source: https://github.com/dmlc/dlpack, `DLPackExchangeAPI`.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from downslope.backends.compiler import (
    boolean,
    call,
    doubles,
    float64,
    int64,
    singles,
    words,
)
from downslope.backends.cpu import SIZES
from downslope.backends.machine import Library
from downslope.backends.memory import ACTIVE, FIRST, KEY, LENGTH, ROW, START, address
from downslope.backends.survey import survey

KINDS = {
    ("float64", False): (2, 64),
    ("float32", False): (2, 32),
    ("float16", False): (2, 16),
    ("bfloat16", False): (4, 16),
    ("float64", True): (5, 128),
    ("float32", True): (5, 64),
    ("float16", True): (5, 32),
}
"""DLPack's code and bits for what is stored, real or complex (a complex number is two real ones)."""

ALL, SOME, OTHER_CLOCKS = 0, -1, -2
"""What `take` returns when all is well: every slot takes part, or only some have a gradient; or when a slot's count of
steps or scalar states are not those of its row. A positive number is 1 + that of a slot to be looked into."""

_DATA, _DEVICE, _KIND, _SHAPE, _STRIDES, _OFFSET = range(6)  # a DLTensor as six words
_CPU = 1

(
    _COUNT,
    _WIDTH,
    _CLOCKS,
    _ARRAYS,
    _INTERVALS,
    _FUNCTION,
    _CLEAR,
    _NONE,
    _SEED,
    _ROWS,
    _CLOCKS_AT,
    _SCALARS_AT,
    _SCALARS,
    _COEFFICIENTS_AT,
    _WORK_OUT,
    _UPDATE,
    _TOTAL,
    _AT,
) = range(18)
_SLOTS_AT, _OBJECTS_AT, _SIZES_AT, _KINDS_AT, _INTERVALS_AT, _ACTIVE_AT, _SCRATCH_AT = range(_AT, _AT + 7)
_HEADER = _AT + 7
"""A table is one array of words: this header, and the sections whose beginnings it names."""

_library = Library(__file__)


@_library.function()
def _look(book: words, tensor: int64, at: words) -> int64:
    """Describe a tensor at `at`, and return its address; -1 if it is not one in main memory that can be described."""
    if call(book[_FUNCTION], tensor, at) & 0xFFFFFFFF != 0:
        call(book[_CLEAR])
        return -1
    if at[_DEVICE] & 0xFFFFFFFF != _CPU:
        return -1
    return at[_DATA] + at[_OFFSET]


@_library.function()
def _elements(at: words) -> int64:
    count = 1
    shape = words(at[_SHAPE])
    for axis in range(at[_KIND] & 0xFFFFFFFF):
        count *= shape[axis]
    return count


@_library.function()
def _fills(at: words) -> boolean:
    """Whether the elements, each in a place of its own, fill the memory from the first to the last."""
    axes = at[_KIND] & 0xFFFFFFFF
    shape, strides = words(at[_SHAPE]), words(at[_STRIDES])
    elements = _elements(at)
    filled = 1  # so many elements from the first on are those of some of the axes
    for _ in range(axes):
        for back in range(axes):
            axis = axes - 1 - back
            if shape[axis] > 1 and strides[axis] == filled:
                filled *= shape[axis]
        if filled >= elements:
            return True
    return filled >= elements


@_library.function()
def _alike(at: words, other: words) -> boolean:
    """Whether two descriptions have the same shape and the same order in memory."""
    axes = at[_KIND] & 0xFFFFFFFF
    if other[_KIND] & 0xFFFFFFFF != axes:
        return False
    shape, strides = words(at[_SHAPE]), words(at[_STRIDES])
    other_shape, other_strides = words(other[_SHAPE]), words(other[_STRIDES])
    for axis in range(axes):
        if other_shape[axis] != shape[axis]:
            return False
        if shape[axis] > 1 and strides[axis] != other_strides[axis]:
            return False
    return True


@_library.function()
def _key(seed: int64, number: int64, t: int64) -> int64:
    """A key of the random numbers of one tensor at one step, all bits of it mixed."""
    key = seed * 0x9E3779B97F4A7C15 + (number + 1) * 0xD1B54A32D192ED03 + t * 0x8CB92BA72F3D8DD7
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB
    return key ^ (key >> 31)


@_library.function(objects=True)
def look(book: words, objects: words, given: int64) -> int64:
    """Describe one tensor at the table's place for it, and return its address; see `_look`."""
    return _look(book, objects[0], book + book[_SCRATCH_AT])


@_library.function(objects=True)
def take(book: words, gradients: words, given: int64) -> int64:
    """Check every tensor of a launch and put the addresses of gradients and clocks into the slot table.

    Runs with the interpreter's lock held, so that no other thread changes a tensor in the meantime.

    Args:
        book: A table, whose sections are: the slots, with the addresses of weights and states; the identities of each
            slot's tensors, which the caller holds (weights, nothing, states, clocks; 0 where there is none yet); sizes
            (the number of weights, and of the tensor among all); DLPack's dtypes of weights, gradients, states, clocks;
            first and last byte of every held tensor, in ascending order; how many slots of every row take part; two
            descriptions to work with.
        gradients: The identities of the gradients or of None, objects that the caller holds.
        given: How many there are.

    Returns:
        `ALL`, `SOME`, `OTHER_CLOCKS`, or 1 + the number of the first slot with something to be looked into; in the last
        two cases nothing may be launched.
    """
    count, counts, arrays, width = book[_COUNT], book[_CLOCKS], book[_ARRAYS], book[_WIDTH]
    kinds, intervals, active = book + book[_KINDS_AT], book + book[_INTERVALS_AT], book + book[_ACTIVE_AT]
    x = book + book[_SCRATCH_AT]
    other = x + 6
    if given != count:
        return 1
    for row in range(book[_ROWS]):
        active[row] = 0
    taking_part = 0
    same_clocks = True
    pair = 2 if kinds[0] & 0xFF == 5 else 1
    gradient_size = (kinds[1] >> 8 & 0xFF) // 8 // pair
    for s in range(count):
        slot = book + book[_SLOTS_AT] + s * width
        objects = book + book[_OBJECTS_AT] + s * (arrays + counts)
        size = book[book[_SIZES_AT] + 2 * s]
        slot[ACTIVE] = 0
        slot[LENGTH] = 0
        if gradients[s] == book[_NONE]:
            continue
        if objects[0] == 0:
            return s + 1
        if _look(book, objects[0], x) != slot[FIRST] or x[_KIND] >> 32 != kinds[0]:
            return s + 1
        if _elements(x) * pair != size or not _fills(x) or (slot[FIRST] <= 0 and size > 0):
            return s + 1
        for k in range(2, arrays):
            if _look(book, objects[k], other) != slot[FIRST + k] or (slot[FIRST + k] <= 0 and size > 0):
                return s + 1
            if other[_KIND] >> 32 != kinds[k] or not _alike(x, other):
                return s + 1
        row = slot[ROW]
        clocks = doubles(book[_CLOCKS_AT]) + row * counts
        for j in range(counts):
            at = _look(book, objects[arrays + j], other)
            if at <= 0 or other[_KIND] >> 32 != kinds[arrays + j] or _elements(other) != 1:
                return s + 1
            slot[FIRST + arrays + j] = at
            value = float64(singles(at)[0]) if j == 0 else doubles(at)[0]
            due = clocks[j]
            if not (value == due or (value != value and due != due)):
                same_clocks = False
        at = _look(book, gradients[s], other)
        if other[_KIND] >> 32 != kinds[1] or not _alike(x, other) or (at <= 0 and size > 0):
            return s + 1
        end = at + size * gradient_size
        low, high = 0, book[_INTERVALS]
        while low < high:  # the first interval that ends after the gradient begins
            middle = (low + high) // 2
            if intervals[2 * middle + 1] > at:
                high = middle
            else:
                low = middle + 1
        if at < end and low < book[_INTERVALS] and intervals[2 * low] < end:
            return s + 1
        slot[FIRST + 1] = at
        slot[LENGTH] = size
        slot[KEY] = _key(book[_SEED], book[book[_SIZES_AT] + 2 * s + 1], int64(clocks[0]))
        slot[ACTIVE] = 1
        active[row] += 1
        taking_part += 1
    if not same_clocks:
        return OTHER_CLOCKS
    return ALL if taking_part == count else SOME


@_library.function(python=True)
def advance(book: words) -> None:
    """Count the step in every row that has just taken part, and write its clocks to the tensors of its slots."""
    arrays, counts, width = book[_ARRAYS], book[_CLOCKS], book[_SCALARS]
    for row in range(book[_ROWS]):
        if book[book[_ACTIVE_AT] + row] > 0:
            clocks = doubles(book[_CLOCKS_AT]) + row * counts
            new = doubles(book[_SCALARS_AT]) + ((row + 1) * width - counts)
            clocks[0] += 1
            for j in range(1, counts):
                clocks[j] = new[j]
    for s in range(book[_COUNT]):
        slot = book + book[_SLOTS_AT] + s * book[_WIDTH]
        if slot[ACTIVE] == 1:
            clocks = doubles(book[_CLOCKS_AT]) + slot[ROW] * counts
            singles(slot[FIRST + arrays])[0] = clocks[0]
            for j in range(1, counts):
                doubles(slot[FIRST + arrays + j])[0] = clocks[j]


@_library.function(objects=True)
def begin(book: words, gradients: words, given: int64) -> int64:
    """Take all tensors, and have the kernel work out the coefficients of every row and its new scalar states."""
    found = take(book, gradients, given)
    if found <= 0 and found != OTHER_CLOCKS:
        call(book[_WORK_OUT], book[_ROWS], book[_CLOCKS_AT], book[_SCALARS_AT], book[_COEFFICIENTS_AT])
    return found


@_library.function(objects=True)
def step(book: words, gradients: words, given: int64) -> int64:
    """A whole step on one thread; see `take`."""
    found = begin(book, gradients, given)
    if found <= 0 and found != OTHER_CLOCKS:
        slots = book + book[_SLOTS_AT]
        call(book[_UPDATE], slots, book[_COUNT], book[_WIDTH], book[_COEFFICIENTS_AT], 0, book[_TOTAL], 0)
        advance(book)
    return found


@functools.cache
def describer(kind: type) -> int:
    """The address of the C function that describes tensors of this type.

    Raises:
        ImportError: The framework is too old to offer one.
    """
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        raise ImportError(
            f"{kind.__module__}.{kind.__qualname__} has no __dlpack_c_exchange_api__: downslope needs a newer version "
            "of this framework (PyTorch 2.11 or later)"
        )
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = (ctypes.c_int64 * 7).from_address(pointer(capsule, b"dlpack_exchange_api"))
    major = table[0] & 0xFFFFFFFF
    if major != 1:
        raise ImportError(
            f"{kind.__module__} offers version {major} of DLPack's C interface; downslope knows version 1"
        )
    return int(table[5])


_CLEAR_ERROR = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value or 0


def kind_word(storage: str, pairs: bool) -> int:
    """DLPack's dtype as the word that `take` compares."""
    code, bits = KINDS[storage, pairs]
    return code | bits << 8 | 1 << 16


class TensorTable:
    """The tensors that one kernel updates, and where they are.

    Attributes:
        slots: The slot table.
        total: The number of weights in all slots, a complex one counted twice.
        shared: Whether weights of different slots share memory, so that slots have to be updated one after another.
        book: The table as one array of words, for compiled code.
        clocks: Per row the number of the steps done and the scalar states.
    """

    GOOD = (ALL, SOME)

    def __init__(
        self,
        kind: type,
        held: Sequence[Sequence[Any]],
        storages: Sequence[str],
        *,
        pairs: bool,
        scalars: int,
        numbers: Sequence[int],
        seed: int = 0,
    ):
        """Lay out the table.

        Args:
            kind: The type of the tensors.
            held: Per slot the weights, states and clocks, dense tensors, kept alive by the table; empty for a slot
                that has no states yet.
            storages: What weights, gradients and states are stored as.
            pairs: Whether the tensors are complex.
            scalars: How many scalar states there are.
            numbers: The number of each slot's tensor among all of the optimizer's.
            seed: The seed of random numbers.

        Raises:
            ValueError: States share memory with something else, or a tensor is not in main memory.
        """
        count, arrays, counts = len(held), len(storages), 1 + scalars
        self.held, self.storages = held, storages
        width = FIRST + arrays + counts
        lengths = [count * width, count * (arrays + counts), count * 2, arrays + counts]
        lengths += [2 * sum(len(tensors) for tensors in held), count]
        at = np.cumsum([_HEADER, *lengths])
        book = self.book = np.zeros(at[-1] + 12, np.int64)
        book[_AT:_HEADER] = at
        book[:_ROWS] = count, width, counts, arrays, 0, describer(kind), _CLEAR_ERROR, id(None), seed
        self.address = address(book)
        self._look, self._take = look.bound(self.address), take.bound(self.address)
        self.slots = book[at[0] : at[1]].reshape(count, width)
        self._objects = book[at[1] : at[2]].reshape(count, arrays + counts)
        self._sizes = book[at[2] : at[3]].reshape(count, 2)
        self._sizes[:, 1] = numbers
        kinds = [kind_word(storage, pairs) for storage in storages]
        book[at[3] : at[4]] = [*kinds, kind_word("float32", False), *[kind_word("float64", False)] * scalars]
        spans, self.shared = self._locate(2 if pairs else 1)
        book[_INTERVALS] = len(spans)
        book[at[4] : at[4] + 2 * len(spans)] = np.array(spans, np.int64).reshape(-1)
        self.slots[:, START] = np.cumsum(self._sizes[:, 0]) - self._sizes[:, 0]
        self.total = book[_TOTAL] = int(self._sizes[:, 0].sum())
        self.group_rows([0] * count, np.zeros((1, counts)))

    def _locate(self, parts: int) -> tuple[list[tuple[int, int]], bool]:
        """Note where weights and states are; return their first and last bytes, and whether weights overlap."""
        arrays = len(self.storages)
        spans = []
        for s, tensors in enumerate(self.held):
            for k, tensor in enumerate(tensors):
                column = k + (k > 0)
                self._objects[s, column] = id(tensor)
                begin = self._look(tensor)
                size = 0 if begin == -1 else math.prod(tensor.shape)
                if begin == -1 or (begin <= 0 and size):
                    kind, what = type(tensor).__name__, f"of shape {tuple(tensor.shape)} on {tensor.device}"
                    raise ValueError(f"a {kind} {what} has no memory that could be updated; it may have been released")
                if column >= arrays:
                    spans.append((begin, begin + SIZES["float64" if column > arrays else "float32"], column))
                    continue
                self.slots[s, FIRST + column] = begin
                size *= parts
                if column == 0:
                    self._sizes[s, 0] = size
                if size:
                    spans.append((begin, begin + size * SIZES[self.storages[column]], column))
        spans.sort()
        joined: list[tuple[int, int]] = []
        shared, furthest = False, 0  # furthest: the column whose tensor reaches furthest so far
        for begin, end, column in spans:
            if joined and begin < joined[-1][1]:
                if column or furthest:
                    raise ValueError(
                        "a state shares memory with weights or another state; give each a tensor of its own"
                    )
                shared = True
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((begin, end))
                furthest = column
        return joined, shared

    def group_rows(self, rows: Sequence[int], clocks: np.ndarray[Any, Any]) -> None:
        """Assign every slot to a row of coefficients, whose clocks are these."""
        self.slots[:, ROW] = rows
        self.clocks = np.ascontiguousarray(clocks, np.float64)
        self.book[[_ROWS, _CLOCKS_AT]] = len(clocks), address(self.clocks)

    def compute_with(self, work_out: int, update: int, scalars: np.ndarray[Any, Any], coefficients: Any) -> None:
        """Have steps use a kernel's functions at these addresses, and these arrays, which the caller holds."""
        held = [_SCALARS_AT, _SCALARS, _COEFFICIENTS_AT, _WORK_OUT, _UPDATE]
        self.book[held] = address(scalars), scalars.shape[1], address(coefficients), work_out, update

    def take(self, gradients: Sequence[Any]) -> int:
        """Take the addresses of the gradients; see `take`."""
        return self._take(*gradients)

    def advance(self) -> None:
        """Count the step in the rows that have just been updated, and in the tensors of their slots."""
        advance(self.address)

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of all gradients whose addresses have just been taken, and how many are not finite: see `survey`."""
        return survey(self.slots, self.total, self.storages[1], workers)
