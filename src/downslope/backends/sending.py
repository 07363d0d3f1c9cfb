"""What a device is sent by the host, and the memory that it goes to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from downslope.backends.table import SlotTable

Array = np.ndarray[Any, Any]


class Page(Protocol):
    """Words of the host, and their copy on a device.

    Attributes:
        words: Those of the host, to be written to.
        copy: The tensor that is their copy.
    """

    words: Array
    copy: Any

    def send(self) -> None:
        """Bring the copy up to date, behind what the device has been given to do before; wait for nothing.

        To be called where the memory is `here`.
        """


class Memory(Protocol):
    """The memory of a device, as a framework has it."""

    def hold(self, words: Array) -> Any:
        """A tensor with these integers of 64 bits."""

    def address(self, words: Any) -> int:
        """Where such a tensor is."""

    def page(self, count: int, *, repeated: bool = False) -> Page:
        """So many words, all of them 0.

        Args:
            count: How many.
            repeated: Whether a graph may record how they are sent.
        """

    def floats(self, words: Any, dtype: str, count: int) -> Any:
        """The beginning of a tensor of words as so many numbers of this dtype."""

    def recording(self) -> bool:
        """Whether a graph records what the device is given: nothing is done now, and all of it at every run."""

    def keep(self, *things: Any) -> None:
        """Never let go of what a graph that is being recorded refers to: nobody knows for how long it is there."""

    def here(self) -> AbstractContextManager[Any]:
        """Inside this block kernels are launched, and pages sent, on this device."""


class Sheet:
    """A page that is sent when it has changed.

    Where a graph has recorded how it is sent, it is always sent: what the graph sends each time it is run is what the
    page was then, and nobody tells when that is.
    """

    def __init__(self, memory: Memory, count: int, *, repeated: bool):
        """Take a page.

        Args:
            memory: The device's.
            count: How many words there are.
            repeated: Whether a graph may record how they are sent.
        """
        self._memory, self._page = memory, memory.page(count, repeated=repeated)
        self._sent, self._always = self._page.words.tobytes(), False
        self.words, self.copy = self._page.words, self._page.copy

    def send(self) -> None:
        """Bring the copy up to date."""
        words, recording = self.words.tobytes(), self._memory.recording()
        if words != self._sent or self._always or recording:
            self._page.send()
            self._sent = words
            self._always |= recording

    def overwritten(self) -> None:
        """The copy is no longer what was sent: it is sent again the next time."""
        self._sent = b""


class Columns:
    """Some columns of the slots of a table, on a device.

    Attributes:
        copy: The tensor that they are in, slot by slot.
    """

    def __init__(self, memory: Memory, table: SlotTable, columns: Sequence[int], *, repeated: bool = False):
        """Take a page; the arguments are those of `Sheet`, besides the table and which columns of it are meant."""
        count = len(table.slots)
        self._table, self._columns = table, np.array(columns)
        self._sheet = Sheet(memory, count * len(columns), repeated=repeated)
        self._words = self._sheet.words.reshape(count, len(columns))
        self.copy = self._sheet.copy

    def send(self) -> None:
        """Bring the copy up to date with the table."""
        self._table.slots.take(self._columns, 1, self._words, "clip")  # "clip" spares a copy
        self._sheet.send()

    def overwritten(self) -> None:
        """See `Sheet.overwritten`."""
        self._sheet.overwritten()
