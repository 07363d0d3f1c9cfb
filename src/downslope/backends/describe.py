"""What compiled code is told of an array or tensor: six words, as DLPack's `DLTensor` has them.

A C function writes such a description of a live object: for a framework's tensors see `tensors`; for NumPy's arrays
`_describe` here. Their objects have had the same public
layout (the one that compiled extensions read through `PyArray_DATA` and friends) since NumPy 1.7; `of_arrays` makes
sure of it. A description is asked for right before a launch and never kept.

Source: https://github.com/dmlc/dlpack, `DLPackExchangeAPI`.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from downslope.backends.compiler import halves, int64, words
from downslope.backends.machine import Library
from downslope.backends.memory import address

DATA, DEVICE, KIND, SHAPE, STRIDES, OFFSET, DESCRIPTION = range(7)
"""The words of a description, and how many there are. In `KIND` the number of axes comes before the dtype. Where
`STRIDES` are 0, the elements stand in the order of the axes, without gaps."""

CPU = 1
"""The device whose memory compiled code can reach."""

READ_ONLY = 1
"""What a function returns that has described something whose memory must not be written to; 0 where it may be."""

KINDS = {
    ("float64", False): (2, 64),
    ("float32", False): (2, 32),
    ("float16", False): (2, 16),
    ("bfloat16", False): (4, 16),
    ("int8", False): (0, 8),
    ("uint8", False): (1, 8),
    ("float64", True): (5, 128),
    ("float32", True): (5, 64),
    ("float16", True): (5, 32),
}
"""DLPack's code and bits for what is stored, real or complex (a complex number is two real ones)."""

_HEAD = object.__basicsize__
TYPE = _HEAD - 8
"""Where in any object of Python its type is told, in bytes."""

_DATA, _NDIM, _SHAPE, _DTYPE, _FLAGS = _HEAD, _HEAD + 8, _HEAD + 16, _HEAD + 40, _HEAD + 48
_READABLE, _WRITABLE = 0x0001 | 0x0100, 0x0400  # C-contiguous and aligned; not read-only
_LETTERS = _HEAD + 8  # of a dtype: kind, character and byte order
_SINGLE, _DOUBLE = int.from_bytes(b"ff=", "little"), int.from_bytes(b"fd=", "little")
_SIGNED, _UNSIGNED = int.from_bytes(b"ib|", "little"), int.from_bytes(b"uB|", "little")


@dataclass(frozen=True, eq=False)
class Describer:
    """How the objects of a table are looked at.

    Attributes:
        function: The address of the C function that describes one: given its identity, where to, and `told`.
        told: What it has to know, as words.
        type: The identity of the only type whose objects it may be given; 0 if it looks at the type itself.
        absent: The identity of the object that stands where there is no gradient; 0 if there always is one.
        gradient: The address of the function that describes the gradient that belongs to an object; 0 if none does.
    """

    function: int
    told: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(1, np.int64))
    type: int = 0
    absent: int = 0
    gradient: int = 0


def kind_word(storage: str, *, pairs: bool = False) -> int:
    """DLPack's dtype, as the upper half of a description's `KIND`."""
    code, bits = KINDS[storage, pairs]
    return code | bits << 8 | 1 << 16


_library = Library(__file__)


@_library.function(python=True, address=True)
def _describe(array: int64, at: words, told: words) -> int64:
    """Describe an array of NumPy's own type at `at`.

    -1 if it is not one float32, float64, int8 or uint8 after another, aligned.
    """
    flags = halves(array + _FLAGS)[0]
    letters = halves(words(array + _DTYPE)[0] + _LETTERS)[0] & 0xFFFFFF
    code, bits = 2, 32
    if letters == _DOUBLE:
        bits = 64
    elif letters == _SIGNED:
        code, bits = 0, 8
    elif letters == _UNSIGNED:
        code, bits = 1, 8
    elif letters != _SINGLE:
        return -1
    if flags & _READABLE != _READABLE:
        return -1
    at[DATA] = words(array + _DATA)[0]
    at[DEVICE] = CPU
    at[KIND] = halves(array + _NDIM)[0] | (code | bits << 8 | 1 << 16) << 32
    at[SHAPE] = words(array + _SHAPE)[0]
    at[STRIDES] = 0
    at[OFFSET] = 0
    return 0 if flags & _WRITABLE == _WRITABLE else READ_ONLY


@functools.cache
def of_arrays() -> Describer:
    """For NumPy's arrays, as they are in this interpreter.

    Raises:
        RuntimeError: They are laid out in a way that is not known; no kernel may run.
    """
    room = np.zeros(DESCRIPTION, np.int64)
    sound = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.zeros((3, 1, 2)), np.zeros((), np.float32)
    codes = np.zeros((2, 3), np.int8), np.zeros(5, np.uint8)
    frozen = np.ones((2, 2))
    frozen.flags.writeable = False
    wrong = (
        sound[0].T,
        sound[1][::2],
        sound[0].astype(sound[0].dtype.newbyteorder()),
        np.zeros(2, np.int32),
        np.ones(2, bool),
    )

    def known(array: np.ndarray[Any, Any]) -> bool:
        found = _describe.call(id(array), address(room), 0)
        kind = array.ndim | kind_word(array.dtype.name) << 32
        same = [*room[[DATA, DEVICE, KIND, STRIDES, OFFSET]]] == [address(array), CPU, kind, 0, 0]
        if found != (0 if array.flags.writeable else READ_ONLY) or not same:
            return False
        return array.ndim == 0 or (*(ctypes.c_int64 * array.ndim).from_address(int(room[SHAPE])),) == array.shape

    good: list[np.ndarray[Any, Any]] = [*sound, *codes, frozen]
    refused = all(_describe.call(id(array), address(room), 0) == -1 for array in wrong)
    if not refused or not all(map(known, good)):
        raise RuntimeError(
            f"NumPy {np.__version__} lays out its arrays in a way this version of downslope does not know"
        )
    return Describer(_describe.address, type=id(np.ndarray))
