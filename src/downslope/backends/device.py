"""The tensors of a table in a device's memory: what the device is sent before a launch, and the launch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from downslope.backends.cpu import body_scalar
from downslope.backends.memory import SIZE
from downslope.backends.sending import Columns, Memory, Page
from downslope.backends.table import SlotTable
from downslope.backends.triton import NOTHING, blocks, launcher
from downslope.backends.triton_coefficients import WorkedOut
from downslope.backends.triton_kernel import (
    GIVEN,
    SCALED,
    TABLE,
    load,
    numbers_of,
    scale_column,
    shape_of,
    slot_columns,
)
from downslope.backends.triton_staged import StagedPasses, Work
from downslope.backends.triton_survey import Survey
from downslope.language.program import Program

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
        self._table, self._memory, count = table, memory, len(table.slots)
        self._factor, self._scaled_by = None, scale_column(program)
        kind = StagedPasses if program.over_tensors else OnePass
        self._kernel = kind(memory, program, rounding, table)
        self._columns, self.work_out_at = self._kernel.columns, self._kernel.module.work_out.address
        self._works = [*_parted(memory, self._kernel.works, count, apart=table.shared)]
        self._nowhere, self._scale = (
            memory.hold(np.array([NOTHING])),
            memory.floats(memory.hold(np.zeros(1)), "float32", 1),
        )
        self._slots = Columns(memory, table, self._columns, repeated=not table.counted)
        self._none = [0.0] * numbers_of(program, storages)
        self._rows: Sent | WorkedOut = (
            Sent(memory, self.dtype, count * self.width, alone=bool(self._none))
            if table.counted
            else WorkedOut(memory, program, self.dtype, table, self._slots, self._columns)
        )
        self._launches: dict[int, list[Callable[..., Any]]] = {}
        with memory.here():
            self._launches_from(GIVEN if self._none and table.counted else TABLE)

    def _launches_from(self, source: int) -> list[Callable[..., Any]]:
        """What launches the kernel, which has the coefficients from there."""
        if source not in self._launches:
            given = self._slots.copy, self._rows.numbers if source == TABLE else self._scale
            trial = self._nowhere, *given
            self._launches[source] = [
                launcher(
                    work.function,
                    len(work.blocks),
                    (work.blocks, *given),
                    {**work.constants, "FROM_": source},
                    work.shape,
                    len(self._none),
                    trial,
                )
                for work in self._works
            ]
        return self._launches[source]

    def update(self, rows: Array, workers: int, done: ctypes.c_int64) -> None:
        """Have the device update all weights and states of the slots that take part."""
        memory = self._memory
        with memory.here():
            self._slots.send()
            numbers = self._rows.bring(rows)
            source = GIVEN if numbers else TABLE
            if self._factor is not None and numbers:
                source = SCALED
                if self._factor is not self._scale:  # where a survey has put it already
                    self._scale.copy_(self._factor)
            elif self._factor is not None:
                self._rows.numbers.view(-1, self.width)[:, self._scaled_by].copy_(self._factor)
            launches = self._launches_from(source)
            for launch in launches:
                launch(*(numbers or self._none))
            if memory.recording():
                memory.keep(launches, self._kernel, self._rows.kept, self.__dict__.get("_survey"))
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
        return Survey(self._memory, listed, self._slots.copy, self._columns, table.storages[1], self._scale)

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

    def within(self, limit: float) -> Any:
        """What keeps their norm within a limit, a number on the device; None for gradients in double precision."""
        if self._table.storages[1] == "float64" or self._scaled_by < 0:
            return None
        with self._memory.here():
            self._slots.send()
            return self._survey.within(limit)


class OnePass:
    """A program that treats each weight by itself, as its kernel is launched: what `StagedPasses` is for others."""

    def __init__(self, memory: Memory, program: Program, rounding: str, table: SlotTable):
        """Generate the module; the arguments are those of `OnDevice`."""
        storages = table.storages[: len(program.arrays)]
        self.columns, shape = slot_columns(table.storages, rounding), shape_of(storages)
        self.module = load(program, storages, rounding)
        listed = blocks(table.slots[:, SIZE], shape.block)
        self.works = [Work(self.module.update, listed, {"BLOCK_": shape.block}, shape)]


def _parted(memory: Memory, works: Sequence[Work], count: int, *, apart: bool) -> Iterator[Work]:
    """What is launched, its blocks in the device's memory; for one of so many slots after the other if `apart`."""
    held = [memory.hold(work.blocks) for work in works]
    ends = [np.searchsorted(work.blocks >> 32, np.arange(count), "right") for work in works]
    for slot in range(count) if apart else [count - 1]:
        for work, blocks_, end in zip(works, held, ends, strict=True):
            begin = end[slot - 1] if apart and slot else 0
            if begin < end[slot]:
                yield work._replace(blocks=blocks_[begin : end[slot]])


class Sent:
    """Coefficients that the host works out.

    Attributes:
        kept: What of it a graph refers to: none can be recorded.
    """

    kept = None

    def __init__(self, memory: Memory, dtype: np.dtype[Any], count: int, *, alone: bool):
        """Prepare to send so many coefficients.

        Args:
            memory: The device's.
            dtype: Their precision.
            count: How many there are, of all slots.
            alone: Whether a row that is the only one need not be sent.
        """
        self._memory, self._dtype, self._count, self._alone = memory, dtype, count, alone

    @functools.cached_property
    def _page(self) -> Page:
        return self._memory.page(-(-self._count * self._dtype.itemsize // 8))

    @functools.cached_property
    def numbers(self) -> Any:
        """The tensor of all coefficients, row by row."""
        return self._memory.floats(self._page.copy, self._dtype.name, self._count)

    def bring(self, coefficients: Array) -> list[float]:
        """Send the coefficients of this step; or return them, if they are to come along with the launch."""
        if self._alone and len(coefficients) == 1:
            found: list[float] = coefficients[0].tolist()
            return found
        self._page.words.view(self._dtype)[: coefficients.size] = coefficients.reshape(-1)
        self._page.send()
        return []

    def follow(self, tensors: Sequence[tuple[slice, int, Any]]) -> None:
        """The host reads every scalar itself."""
        assert not tensors

    def leave_out(self, flag: Any) -> None:
        """The host counts, and has to know whether a step is left out."""
        assert flag is None
