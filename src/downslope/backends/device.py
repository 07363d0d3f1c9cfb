"""The tensors of a table in a device's memory: what the device is sent before a launch, and the launch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from downslope.backends.cpu import body_scalar
from downslope.backends.memory import SIZE
from downslope.backends.sending import Columns, Memory
from downslope.backends.table import SlotTable
from downslope.backends.triton import blocks, launcher, load, shape_of, slot_columns
from downslope.backends.triton_coefficients import WorkedOut
from downslope.backends.triton_survey import Survey
from downslope.language.program import Program, in_order

Array = np.ndarray[Any, Any]


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
        self._factor, self._scaled_by = None, scale_column(program)
        module = load(program, storages, rounding)
        self.work_out_at = module.work_out.address
        block, warps = shape_of(storages)
        count, listed = len(table.slots), blocks(table.slots[:, SIZE], block)
        held = memory.hold(listed)
        ends_of_slots = np.searchsorted(listed >> 32, np.arange(count), "right")
        parts = [0, *ends_of_slots] if table.shared else [0, len(listed)]  # to be done one after another
        self._slots = Columns(memory, table, self._columns, repeated=not table.counted)
        self._rows: Sent | WorkedOut = (
            Sent(memory, self.dtype, count * self.width)
            if table.counted
            else WorkedOut(memory, program, self.dtype, table, self._slots, self._columns)
        )
        given = self._slots.copy, self._rows.numbers
        with memory.here():  # where the slots have no weights yet
            self._launches = [
                launcher(module.update, int(end - begin), (held[begin:end], *given), {"BLOCK_": block}, warps)
                for begin, end in pairwise(parts)
                if begin < end
            ]

    def update(self, rows: Array, workers: int, done: ctypes.c_int64) -> None:
        """Have the device update all weights and states of the slots that take part."""
        memory = self._memory
        with memory.here():
            self._slots.send()
            self._rows.bring(rows)
            if self._factor is not None:
                self._rows.numbers.view(-1, self.width)[:, self._scaled_by].copy_(self._factor)
            for launch in self._launches:
                launch()
            if memory.recording():
                memory.keep(self._launches, self._rows.kept, self.__dict__.get("_survey"))
        done.value = 1

    def follow(self, tensors: Sequence[tuple[slice, int, Any]]) -> None:
        """Read some of the scalars where the device has them; see `WorkedOut.follow`."""
        self._rows.follow(tensors)

    def leave_out(self, flag: Any) -> None:
        """Leave the next step out if a number on the device is not 0; see `WorkedOut.leave_out`."""
        self._rows.leave_out(flag)

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
            self._slots.send()
            return self._survey.norm()

    def squares(self) -> Any:
        """The sum of squares of all gradients, on the device; None for gradients in double precision."""
        if self._table.storages[1] == "float64":
            return None
        with self._memory.here():
            self._slots.send()
            return self._survey.found()[0]


class Sent:
    """Coefficients that the host works out.

    Attributes:
        numbers: The tensor of all coefficients, row by row.
        kept: What of it a graph refers to: none can be recorded.
    """

    kept = None

    def __init__(self, memory: Memory, dtype: np.dtype[Any], count: int):
        """Take a page for so many coefficients."""
        self._page = memory.page(-(-count * dtype.itemsize // 8))
        self._text = self._page.words.view(dtype)
        self.numbers = memory.floats(self._page.copy, dtype.name, count)

    def bring(self, coefficients: Array) -> None:
        """Send the coefficients of this step."""
        self._text[: coefficients.size] = coefficients.reshape(-1)
        self._page.send()

    def follow(self, tensors: Sequence[tuple[slice, int, Any]]) -> None:
        """The host reads every scalar itself."""
        assert not tensors

    def leave_out(self, flag: Any) -> None:
        """The host counts, and has to know whether a step is left out."""
        assert flag is None


def scale_column(program: Program) -> int:
    """Which of the coefficients is what gradients are multiplied by; -1 if it is none, or in others besides.

    Only if it is one can gradients be scaled by a number that the host does not know.
    """
    named = [e.op == "input" and e.value == "grad_scale" for e in program.coefficients]
    others = [e for e, is_scale in zip(program.coefficients, named, strict=True) if not is_scale]
    if any(e.value == "grad_scale" for e in in_order([*others, *program.scalar_outputs.values()])):
        return -1
    return named.index(True) if True in named else -1
