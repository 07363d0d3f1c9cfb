"""Whether lists and dicts still hold the very objects that they held: one look in compiled code.

It reads them with functions of Python's stable C interface. Asking Python itself touches several times as many objects,
and that is what a step costs when other code has filled the caches.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from downslope.backends.compiler import call, int64, words
from downslope.backends.machine import Library
from downslope.backends.memory import address

_RECORDS, _LIST_SIZE, _LIST_ITEM, _DICT_SIZE, _DICT_NEXT, _POSITION, _KEY, _VALUE, _HEADER = range(9)
_LIST, _DICT = 0, 1

_library = Library(__file__)


@_library.function(objects=True)
def _unchanged(watch: words, roots: words, given: int64) -> int64:
    """1 if all that is watched is as it was, else 0.

    Args:
        watch: Functions of Python, room for what they find, and a record of every container: its kind, its identity,
            how much is in it, and the identities of that.
        roots: The first containers, in the order of their records.
        given: How many there are.
    """
    record = watch + _HEADER
    for k in range(watch[_RECORDS]):
        container, count = record[1], record[2]
        if k < given and roots[k] != container:
            return 0
        if record[0] == _LIST:
            if call(watch[_LIST_SIZE], container) != count:
                return 0
            for i in range(count):
                if call(watch[_LIST_ITEM], container, i) != record[3 + i]:
                    return 0
            record = record + (3 + count)
        else:
            if call(watch[_DICT_SIZE], container) != count:
                return 0
            watch[_POSITION] = 0
            for i in range(count):
                if (
                    call(watch[_DICT_NEXT], container, watch + _POSITION, watch + _KEY, watch + _VALUE) & 0xFFFFFFFF
                    == 0
                ):
                    return 0
                if watch[_KEY] != record[3 + 2 * i] or watch[_VALUE] != record[4 + 2 * i]:
                    return 0
            record = record + (3 + 2 * count)
    return 1


class Watch:
    """Lists and dicts, and what they hold now.

    Attributes:
        unchanged: Given the first containers, 1 if they are the same and all of them hold the same, else 0.
    """

    unchanged: Callable[..., int]

    def __init__(self, containers: Sequence[list[Any] | Mapping[Any, Any]]):
        """Note what is in these containers; what they hold is kept alive, so that nothing else takes its place."""
        self._held: list[Any] = list(containers)
        numbers = [len(containers)]
        numbers += [_function(f"Py{name}") for name in ("List_Size", "List_GetItem", "Dict_Size", "Dict_Next")]
        numbers += [0, 0, 0]
        for container in containers:
            if isinstance(container, list):
                parts = list(container)
            else:
                parts = [part for item in container.items() for part in item]
            self._held += parts
            numbers += [_LIST if isinstance(container, list) else _DICT, id(container), len(container), *map(id, parts)]
        self._numbers = np.array(numbers, np.int64)
        self.unchanged = _unchanged.bound(address(self._numbers))


def _function(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
