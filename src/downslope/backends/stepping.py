"""A whole step in compiled code: check and take everything, work out the coefficients, update, count.

A small model's step takes less time than the calls it would otherwise be made of.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from downslope.backends import taking
from downslope.backends.cpu import THREADED_FROM, Kernel, share_out, whereabouts
from downslope.backends.device import OnDevice
from downslope.backends.memory import address
from downslope.backends.sending import Memory
from downslope.backends.staged import StagedKernel
from downslope.backends.table import SlotTable
from downslope.language.program import Program


class Place(Protocol):
    """A program compiled for the arrays or tensors of a table, where they are.

    Attributes:
        dtype: The precision it computes in.
        width: How many coefficients there are.
        work_out_at: Where the function is that works out the coefficients.
        update_at: Where the one is that updates, if compiled code of the host can call it; else 0.
        alone: Whether a whole step is best done by that code, on one thread.
    """

    dtype: np.dtype[Any]
    width: int
    work_out_at: int
    update_at: int
    alone: bool

    def update(self, rows: Any, workers: int, done: ctypes.c_int64) -> None:
        """Update all weights and states of the slots that take part; `done` is then 1.

        Args:
            rows: Rows of coefficients; or of scalars, where the table says that nobody on the host counts.
            workers: How many threads may share the work.
            done: See above.
        """

    def follow(self, tensors: Sequence[tuple[slice, int, Any]]) -> None:
        """Read some of the scalars from tensors on the device: which rows, which column, the tensor."""

    def leave_out(self, flag: Any) -> None:
        """Leave the next step out if this number on the device is not 0; only where the device counts."""

    def scale(self, factor: Any) -> None:
        """Multiply gradients by a number of the device's, or by what the coefficients say where it is None."""

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of all gradients whose addresses have just been taken, and how many are not finite: see `survey`."""

    def squares(self) -> Any:
        """The sum of their squares, as a tensor on the device where they are, for which nobody has waited.

        It is finite if all gradients are. None where the host has to look: where it does so anyhow, and for gradients
        in double precision, whose squares may overflow.
        """

    def within(self, limit: float) -> Any:
        """What to multiply these gradients by so that their norm is within a limit, as a tensor for `scale`; or None.

        It goes by the gradients of this table alone. None as for `squares`, and where `scale` takes no tensor.
        """


class OnHost:
    """A program compiled for arrays or tensors in the host's memory: a `Place`."""

    def __init__(self, program: Program, rounding: str, table: SlotTable):
        """Compile the program; the arguments are those of `Stepper`."""
        self._table, storages = table, table.storages[: len(program.arrays)]
        self._kernel: Kernel | StagedKernel
        if program.over_tensors:
            self._kernel = StagedKernel(program, storages)
            self._scratch = self._kernel.prepare(table)
        else:
            self._kernel = Kernel(program, storages, rounding)
        self.dtype, self.width = self._kernel.dtype, self._kernel.width
        self.work_out_at, self.update_at = self._kernel.work_out_at, self._kernel.update_at
        self.alone = table.total < THREADED_FROM
        self.survey = table.survey

    def update(self, rows: Any, workers: int, done: ctypes.c_int64) -> None:
        """Update all weights and states of the slots that take part."""
        table = self._table
        slots, coefficients, at = whereabouts(table.slots), address(rows), ctypes.addressof(done)
        if workers == 1 or table.shared:
            self._kernel.update(*slots, coefficients, 0, table.total, at)
        elif isinstance(self._kernel, StagedKernel):
            self._kernel.share_out(table.slots, coefficients, workers, at)
        else:
            share_out(self._kernel, slots, coefficients, table.total, workers, at)

    def follow(self, tensors: Sequence[tuple[slice, int, Any]]) -> None:
        """The host reads every scalar itself."""
        assert not tensors

    def leave_out(self, flag: Any) -> None:
        """The host knows whether it leaves a step out."""
        assert flag is None

    def scale(self, factor: Any) -> None:
        """The coefficients say it."""

    def squares(self) -> Any:
        """The host has to know it."""
        return None

    def within(self, limit: float) -> Any:
        """The host has to know it."""
        return None


class Stepper:
    """A step of a program for the arrays or tensors of a table.

    Attributes:
        program: What a step computes.
        table: What is updated, with clocks that say how many steps were done.
        place: The program, compiled for where they are.
        survey: See `Place`, and so for `squares`, `within`, `follow` and `leave_out`.
    """

    def __init__(self, program: Program, rounding: str, table: SlotTable, memory: Memory | None = None):
        """Compile the program for what is in a table; its rows have no settings yet.

        Args:
            program: What a step computes.
            rounding: How new weights are rounded to their storage, one of `cpu.ROUNDINGS`.
            table: The arrays or tensors that are updated.
            memory: The memory of the device where they are, or None for that of the host.
        """
        self.program, self.table = program, table
        self.place: Place = (
            OnHost(program, rounding, table) if memory is None else OnDevice(memory, program, rounding, table)
        )
        self.survey, self.squares, self.follow = self.place.survey, self.place.squares, self.place.follow
        self.leave_out, self.within = self.place.leave_out, self.place.within
        if self.place.alone:  # and nothing else runs before gradients have been used, so that nobody needs to hold them
            table.head.gradient = table.describer.gradient
        # Called with the gradients themselves; compiled code gets the table, their identities and their number.
        self._step = taking.step.bound(table.address)
        self._begin = taking.begin.bound(table.address) if table.counted else table.take
        self._scale_at = program.scalars.index("grad_scale") if "grad_scale" in program.scalars else -1
        self.group_rows([0] * len(table.held), np.zeros((1, 1 + len(program.scalar_states))))

    def group_rows(self, rows: Sequence[int], clocks: Any) -> None:
        """Assign every slot to a row of coefficients, whose clocks are these; `settle` is then due."""
        self.table.group_rows(rows, clocks)
        program, place, count = self.program, self.place, len(self.table.clocks)
        self._scalars = np.zeros((count, len(program.scalars) + len(program.scalar_outputs)))
        self._put = functools.partial(struct.Struct(f"{len(program.scalars)}d").pack_into, self._scalars.data)
        self._coefficients = np.zeros((count, place.width), place.dtype)
        self._rows = self._coefficients if self.table.counted else self._scalars
        head = self.table.head
        head.work_out, head.update, head.scalars = place.work_out_at, place.update_at, self._scalars.shape[1]
        head.scalars_at, head.coefficients_at = address(self._scalars), address(self._coefficients)

    def settle(self, row: int, scalars: Sequence[float]) -> None:
        """Set the program's scalar inputs of a row; those that are its clocks are not looked at."""
        self._put(row * self._scalars.strides[0], *scalars)

    def scale(self, factor: Any) -> None:
        """Set what gradients are multiplied by: a number, or a tensor of one on the device where the tensors are."""
        number = isinstance(factor, (int, float))
        self.place.scale(None if number else factor)
        if self._scale_at >= 0 and number:
            self._scalars[:, self._scale_at] = factor

    def quick_step(self) -> Callable[..., int] | None:
        """A function that does `step` on one thread, given the gradients one by one.

        Given none, it takes those of the weights if all of them have ordinary ones; what it returns is else positive.
        None where several threads would do it faster.
        """
        if not self.place.update_at:
            return functools.partial(self.step, workers=1)
        return self._step if self.place.alone else None

    def step(self, *gradients: Any, workers: int) -> int:
        """Update all weights and states whose slots have a gradient; see `table.take` for what is returned.

        Unless that is `ALL` or `SOME`, nothing has been changed. The table's clocks are advanced if, and only if,
        everything has been updated, whatever is raised meanwhile; but where the device counts, it has done so.
        """
        if self.place.alone:
            return self._step(*gradients)
        table = self.table
        found = self._begin(*gradients)
        if found in table.GOOD:
            done = ctypes.c_int64(0)
            try:
                self.place.update(self._rows, workers, done)
            finally:  # a signal may have been raised before the work, or when all of it was done
                if done.value and table.counted:
                    taking.advance(table.address)
        return found
