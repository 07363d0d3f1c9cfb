"""How PyTorch's tensors are described: at sight where their layout is known, else by PyTorch.

Its tensor type offers a C function for this (DLPack 1.3), which takes five times as long as to look. The objects behind
tensors are laid out as PyTorch's headers say, which every compiled extension reads them by. `at_sight` is given tensors
of all kinds, and makes sure that each is described as PyTorch describes it; if one is not, PyTorch is always asked.
Whatever is out of the ordinary is told apart by its words, and left to PyTorch: other classes, more than five axes,
lazily negated, conjugated or copied tensors, those of other devices, traced ones.

A gradient may be described by the parameter that it belongs to. That spares its object of Python's, which PyTorch
makes when `grad` is first asked for; but whoever asks so holds no gradient, and has to be done with it before anything
else runs.

Source: https://github.com/dmlc/dlpack, `DLPackExchangeAPI`; PyTorch 2.11 to 2.13, `c10/core/TensorImpl.h`,
`StorageImpl.h`, `impl/PyObjectSlot.h`, `torch/csrc/autograd/variable.h`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from downslope.backends.compiler import boolean, call, int64, words
from downslope.backends.describe import (
    DATA,
    DESCRIPTION,
    DEVICE,
    KIND,
    OFFSET,
    SHAPE,
    STRIDES,
    TYPE,
    Describer,
)
from downslope.backends.machine import Library
from downslope.backends.memory import address

_STORAGE, _AUTOGRAD, _LAYOUTS = 2, 3, (7, 8)
"""Words of a tensor's implementation: its storage, what autograd keeps with it, and from where on those below follow.
Right before them stands its object of Python: one word, and up to PyTorch 2.12 also the interpreter that it is of."""

_AXES, _SHAPE, _STRIDES, _FIRST, _COUNT, _OF, _KEYS = 0, 1, 6, 11, 12, 13, 14
"""The words that follow. `_OF`: dtype (16 bits), device (8), its number (8), whether there is one (8)."""

_DATA, _CHECKS = 2, 7
"""Words of a storage. `_CHECKS`: among others, in its fourth byte, whether it may not be read just so."""

_GRADIENTS = 5, 4
"""The word of what autograd keeps that is the gradient. A name comes first, a string of four words in GNU's library of
C++ and of three in LLVM's."""

_INLINE = 5
"""Up to so many axes have their shape and strides in the implementation itself."""

_BEHIND = object.__basicsize__
"""Where a tensor says what its implementation is, in bytes."""

_ASK, _LAYOUT, _GRADIENT, _PLAIN, _NAMED, _PLACES = range(6)
_PLACE, _WHERE, _KEYSET = range(3)
_DTYPES = _PLACES + 2 * 3
_MOST = 64
"""What the describing functions are told: where PyTorch's own is; which one of the layouts holds; which one of
`_GRADIENTS`, or 0; the two classes that they may look at; for each of two devices what a tensor says that is there,
what a description says then, and the keys of an ordinary tensor there; and for every dtype by its number the upper half
of `KIND`, or 0."""

_library = Library(__file__)


@_library.function(python=True)
def _at_sight(tensor: int64, at: words, told: words) -> int64:
    """Describe a tensor at `at`, if it is an ordinary one; else -1."""
    if _is_known(tensor, told):
        return _implemented(words(tensor + _BEHIND)[0], at, told)
    return -1


@_library.function(python=True, address=True)
def _gradient(parameter: int64, at: words, told: words) -> int64:
    """Describe the gradient of a tensor at `at`, if both are ordinary ones; else -1, as where there is none."""
    if not _is_known(parameter, told):
        return -1
    kept = words(words(parameter + _BEHIND)[0])[_AUTOGRAD]
    if kept == 0:
        return -1
    return _implemented(words(kept)[told[_GRADIENT]], at, told)


@_library.function()
def _is_known(thing: int64, told: words) -> boolean:
    """Whether an object is of the classes that may be looked at."""
    kind = words(thing + TYPE)[0]
    return kind == told[_PLAIN] or kind == told[_NAMED]


@_library.function()
def _implemented(whole: int64, at: words, told: words) -> int64:
    """Describe a tensor at `at`, given its implementation."""
    begin = whole + 8 * told[_LAYOUT]
    behind = words(begin)
    of = behind[_OF]
    dtype = of & 0xFFFF
    place = told + _PLACES
    if of >> 16 & 0xFFFFFF != place[_PLACE]:
        place = place + 3
        if of >> 16 & 0xFFFFFF != place[_PLACE]:
            return -1
    if behind[_KEYS] != place[_KEYSET] or behind[_AXES] > _INLINE or dtype >= _MOST or told[_DTYPES + dtype] == 0:
        return -1
    storage = words(words(whole)[_STORAGE])
    if storage[_CHECKS] & 0xFF000000 != 0:
        return -1
    word = told[_DTYPES + dtype]
    at[DATA] = 0 if behind[_COUNT] == 0 else storage[_DATA] + behind[_FIRST] * (word >> 11 & 31)
    at[DEVICE] = place[_WHERE]
    at[KIND] = behind[_AXES] | word << 32
    at[SHAPE] = begin + 8 * _SHAPE
    at[STRIDES] = begin + 8 * _STRIDES
    at[OFFSET] = 0
    return 0


@_library.function(python=True, address=True)
def _describe(tensor: int64, at: words, told: words) -> int64:
    """Describe a tensor at `at`; what is no tensor, or has no memory, gives what PyTorch's function then returns."""
    if _at_sight(tensor, at, told) == 0:
        return 0
    return call(told[_ASK], tensor, at) & 0xFFFFFFFF


def of_tensors(kind: type) -> Describer:
    """For a framework's tensors of this type, which it is asked about; where there is no gradient, there is None.

    Raises:
        ImportError: The framework is too old to describe them.
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
    told = np.zeros(_DTYPES + _MOST, np.int64)
    told[_ASK] = int(table[5])
    return Describer(_describe.address, told=told, absent=id(None))


def at_sight(asked: Describer, usual: Sequence[Any], others: Sequence[Any]) -> Describer:
    """For PyTorch's tensors: those like the usual ones are described at sight.

    Args:
        asked: What `of_tensors` gives.
        usual: Ordinary tensors: with one or two classes, on one or two devices, of the dtypes to be known, and with
            gradients.
        others: More tensors, ordinary or not, which must be described as PyTorch does.

    Returns:
        A describer; `asked` itself if in this version of PyTorch tensors are laid out in another way.
    """
    layout = next((layout for layout in _LAYOUTS if all(_laid_out(tensor, layout) for tensor in usual)), None)
    if layout is None:
        return asked
    told = asked.told.copy()
    told[_LAYOUT] = layout
    places: dict[int, list[int]] = {}
    classes = [*{id(type(tensor)): None for tensor in usual}]
    told[_PLAIN:_PLACES] = classes[0], classes[-1]
    for tensor in usual:
        said = _described(tensor, asked)
        if said is None:
            return asked
        *_, of, keys = _words(tensor._cdata + 8 * layout, _KEYS + 1)
        place, dtype = of >> 16 & 0xFFFFFF, of & 0xFFFF
        if dtype >= _MOST:
            return asked
        places.setdefault(place, [place, said[DEVICE], keys])
        told[_DTYPES + dtype] = said[KIND] >> 32
    first, *_, last = [*places.values()] * 2
    told[_PLACES:_DTYPES] = [*first, *last]
    sighted, room = Describer(asked.function, told=told, absent=asked.absent), np.zeros(DESCRIPTION, np.int64)
    if any(_at_sight.call(id(tensor), address(room), address(told)) != 0 for tensor in usual):
        return asked
    everything = [*usual, *others]
    if any(_described(tensor, sighted) != _described(tensor, asked) for tensor in everything):
        return asked
    told[_GRADIENT] = next((word for word in _GRADIENTS if all(_kept_at(word, tensor) for tensor in usual)), 0)
    if told[_GRADIENT] == 0:
        return sighted
    of_gradients = Describer(_gradient.address, told=told)
    due = [None if tensor.grad is None else _described(tensor.grad, asked) for tensor in everything]
    same = [_described(tensor, of_gradients) for tensor in everything] == due
    return replace(sighted, gradient=of_gradients.function) if same else sighted


_CALLED = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)


def _words(at: int, count: int) -> list[int]:
    """So many words that begin at an address, which somebody holds."""
    return (ctypes.c_int64 * count).from_address(at)[:]


def _laid_out(tensor: Any, layout: int) -> bool:
    """Whether an ordinary tensor's words are what PyTorch says of it, one after the other as far as they are known."""
    held = tensor.untyped_storage()
    if _words(id(tensor) + _BEHIND, 1) != [tensor._cdata]:
        return False
    storage, behind = _words(tensor._cdata, _STORAGE + 1)[-1], _words(tensor._cdata + 8 * layout, _KEYS + 1)
    shape, strides = behind[_SHAPE:][: tensor.dim()], behind[_STRIDES:][: tensor.dim()]
    found = storage, behind[_AXES], shape, strides, behind[_FIRST], behind[_COUNT]
    due = held._cdata, tensor.dim(), [*tensor.shape], [*tensor.stride()], tensor.storage_offset(), tensor.numel()
    return found == due and _words(held._cdata, _CHECKS + 1)[_DATA] == held.data_ptr()


def _kept_at(word: int, tensor: Any) -> bool:
    """Whether a tensor's gradient, if it has one, is this word of what autograd keeps with it."""
    if tensor.grad is None:
        return True
    kept = _words(tensor._cdata, _AUTOGRAD + 1)[_AUTOGRAD]
    return kept != 0 and _words(kept, word + 1)[word] == tensor.grad._cdata


def _described(tensor: Any, describer: Describer) -> list[int] | None:
    """A tensor's description; None if it has none."""
    room = np.zeros(DESCRIPTION, np.int64)
    try:
        found = _CALLED(describer.function)(id(tensor), address(room), address(describer.told))
    except Exception:  # whatever the framework raises
        return None
    return room.tolist() if found == 0 else None
