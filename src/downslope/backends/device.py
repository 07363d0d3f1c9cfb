"""The tensors of a table in a device's memory: what the device is sent before a launch, and the launch."""

from __future__ import annotations

import ctypes
import functools
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from downslope.backends.cpu import body_scalar
from downslope.backends.memory import SIZE
from downslope.backends.table import SlotTable
from downslope.backends.triton import blocks, launcher, load, shape_of, slot_columns
from downslope.backends.triton_survey import Survey
from downslope.language.program import Program, in_order

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

    def page(self, count: int) -> Page:
        """So many words, all of them 0."""

    def floats(self, words: Any, dtype: str, count: int) -> Any:
        """The beginning of a tensor of words as so many numbers of this dtype."""

    def here(self) -> AbstractContextManager[Any]:
        """Inside this block kernels are launched, and pages sent, on this device."""


class OnDevice:
    """A program compiled for the tensors of a table, on the device where they are: a `stepping.Place`."""

    alone, update_at = False, 0

    def __init__(self, memory: Memory, program: Program, rounding: str, table: SlotTable):
        """Generate and compile the kernel, or take it from the caches, and put what it needs into the device's memory.

        Args:
            memory: Where the tensors are.
            program: What a step computes.
            rounding: How new weights are rounded to their storage, one of `cpu.ROUNDINGS`.
            table: The tensors.
        """
        storages = table.storages[: len(program.arrays)]
        self.dtype, self.width = np.dtype(body_scalar(storages)), len(program.coefficients)
        self._table, self._memory, self._columns = table, memory, slot_columns(table.storages, rounding)
        self._factor, self._program, self._scaled_by = None, program, scale_column(program)
        module = load(program, storages, rounding)
        self.work_out_at = module.work_out.address
        block, warps = shape_of(storages)
        count, listed = len(table.slots), blocks(table.slots[:, SIZE], block)
        held = memory.hold(listed)
        ends_of_slots = np.searchsorted(listed >> 32, np.arange(count), "right")
        parts = [0, *ends_of_slots] if table.shared else [0, len(listed)]  # to be done one after another
        self._rows = memory.page(-(-count * self.width * self.dtype.itemsize // 8))  # one for each slot at the most
        self._numbers = self._rows.words.view(self.dtype)
        self._coefficients = memory.floats(self._rows.copy, self.dtype.name, count * self.width)
        self._slots = memory.page(count * len(self._columns))
        self._sent = self._slots.words.tobytes()
        self._taken_columns = np.array(self._columns)
        self._taken_words = self._slots.words.reshape(count, len(self._columns))
        given = self._slots.copy, self._coefficients
        with memory.here():  # where the slots have no weights yet
            self._launches = [
                launcher(module.update, int(end - begin), (held[begin:end], *given), {"BLOCK_": block}, warps)
                for begin, end in pairwise(parts)
                if begin < end
            ]

    def _taken(self) -> None:
        """Let the device have the addresses that have just been taken."""
        self._table.slots.take(self._taken_columns, 1, self._taken_words, "clip")  # "clip" spares a copy
        words = self._taken_words.tobytes()
        if words != self._sent:
            self._slots.send()
            self._sent = words

    def update(self, coefficients: Array, workers: int, done: ctypes.c_int64) -> None:
        """Have the device update all weights and states of the slots that take part."""
        self._numbers[: coefficients.size] = coefficients.reshape(-1)
        with self._memory.here():
            self._taken()
            self._rows.send()
            if self._factor is not None:
                self._coefficients.view(-1, self.width)[:, self._scaled_by].copy_(self._factor)
            for launch in self._launches:
                launch()
        done.value = 1

    def scale(self, factor: Any) -> None:
        """Multiply gradients by a number of the device's, or by what the coefficients say where it is None."""
        self._factor = factor

    @functools.cached_property
    def _survey(self) -> Survey:
        table = self._table
        listed = blocks(table.slots[:, SIZE])
        return Survey(self._memory, listed, self._slots.copy, self._columns, table.storages[1])

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of all gradients, a scale, and how many are not finite, as soon as the device has found out."""
        with self._memory.here():
            self._taken()
            return self._survey.norm()

    def squares(self) -> Any:
        """The sum of squares of all gradients, on the device; None where `scaled_by_one` says so."""
        if not scaled_by_one(self._program, self._table.storages[1]):
            return None
        with self._memory.here():
            self._taken()
            return self._survey.found()[0]


def scale_column(program: Program) -> int:
    """Which of the coefficients is what gradients are multiplied by; -1 if it is none, or in others besides."""
    named = [e.op == "input" and e.value == "grad_scale" for e in program.coefficients]
    others = [e for e, is_scale in zip(program.coefficients, named, strict=True) if not is_scale]
    if any(e.value == "grad_scale" for e in in_order([*others, *program.scalar_outputs.values()])):
        return -1
    return named.index(True) if True in named else -1


def scaled_by_one(program: Program, gradient: str) -> bool:
    """Whether gradients can be scaled by a number that the host does not know.

    Not where they are in double precision, so that their squares may overflow, nor by a program that does more with the
    scale than to multiply gradients by it.

    Args:
        program: What a step computes.
        gradient: What gradients are stored as.
    """
    return gradient != "float64" and scale_column(program) >= 0
