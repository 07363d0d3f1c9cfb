"""A whole step in compiled code: check and take everything, work out the coefficients, update, count.

A small model's step takes less time than the calls it would otherwise be made of.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from downslope.backends import table as slot_table
from downslope.backends import triton
from downslope.backends.cpu import THREADED_FROM, Kernel, share_out, whereabouts
from downslope.backends.memory import address
from downslope.backends.table import SlotTable
from downslope.backends.triton_survey import Survey
from downslope.language.program import Program


class Stepper:
    """A program compiled for the arrays or tensors of a table.

    Attributes:
        program: What a step computes.
        table: What is updated, with clocks that say how many steps were done.
        kernel: The program, compiled.
    """

    def __init__(self, program: Program, rounding: str, table: SlotTable, memory: triton.Memory | None = None):
        """Compile the program for what is in a table; its rows have no settings yet.

        Args:
            program: What a step computes.
            rounding: How new weights are rounded to their storage, one of `cpu.ROUNDINGS`.
            table: The arrays or tensors that are updated.
            memory: The memory of the device where they are, or None for that of the host.
        """
        self.program, self.table = program, table
        self.kernel: Kernel | triton.Kernel
        if memory is None:
            self.kernel = Kernel(program, table.storages[: len(program.arrays)], rounding)
        else:
            self.kernel = triton.Kernel(program, table, rounding, memory)
        # Called with the gradients themselves; compiled code gets the table, their identities and their number.
        self._step, self._begin = slot_table.step.bound(table.address), slot_table.begin.bound(table.address)
        self._alone = memory is None and table.total < THREADED_FROM
        self._scale_at = program.scalars.index("grad_scale") if "grad_scale" in program.scalars else -1
        self.group_rows([0] * len(table.held), np.zeros((1, 1 + len(program.scalar_states))))

    def group_rows(self, rows: Sequence[int], clocks: Any) -> None:
        """Assign every slot to a row of coefficients, whose clocks are these; `settle` is then due."""
        self.table.group_rows(rows, clocks)
        program, kernel, count = self.program, self.kernel, len(self.table.clocks)
        self._scalars = np.zeros((count, len(program.scalars) + len(program.scalar_outputs)))
        self._put = functools.partial(struct.Struct(f"{len(program.scalars)}d").pack_into, self._scalars.data)
        self._coefficients = np.zeros((count, kernel.width), kernel.dtype)
        head = self.table.head
        head.work_out, head.update, head.scalars = kernel.work_out_at, kernel.update_at, self._scalars.shape[1]
        head.scalars_at, head.coefficients_at = address(self._scalars), address(self._coefficients)

    def settle(self, row: int, scalars: Sequence[float]) -> None:
        """Set the program's scalar inputs of a row; those that are its clocks are not looked at."""
        self._put(row * self._scalars.strides[0], *scalars)

    def scale(self, factor: Any) -> None:
        """Set what gradients are multiplied by: a number, or a tensor of one on the device where the tensors are."""
        number = isinstance(factor, (int, float))
        if isinstance(self.kernel, triton.Kernel):
            self.kernel.factor = None if number else factor
        if self._scale_at >= 0 and number:
            self._scalars[:, self._scale_at] = factor

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of all gradients whose addresses have just been taken, and how many are not finite: see `survey`."""
        return self._look() if isinstance(self.kernel, triton.Kernel) else self.table.survey(workers)

    @functools.cached_property
    def _look(self) -> Survey:
        assert isinstance(self.kernel, triton.Kernel)
        return Survey(self.kernel)

    def squares(self) -> Any:
        """The sum of their squares, as a tensor on the device where they are; None where the host has to know it.

        That is so for tensors in its own memory, for gradients in double precision, whose squares may overflow, and
        for a program that does more with the scale than to multiply gradients by it.
        """
        kernel = self.kernel
        if not isinstance(kernel, triton.Kernel) or kernel.scaled_by < 0 or self.table.storages[1] == "float64":
            return None
        return self._look.found()[0]

    def quick_step(self) -> Callable[..., int] | None:
        """A function that does `step` on one thread, given the gradients one by one.

        None where several threads would do it faster.
        """
        if isinstance(self.kernel, triton.Kernel):
            return functools.partial(self.step, workers=1)
        return self._step if self._alone else None

    def step(self, *gradients: Any, workers: int) -> int:
        """Update all weights and states whose slots have a gradient; see `table.take` for what is returned.

        Unless that is `ALL` or `SOME`, nothing has been changed. The table's clocks are advanced if, and only if,
        everything has been updated, whatever is raised meanwhile.
        """
        if self._alone:
            return self._step(*gradients)
        table = self.table
        found = self._begin(*gradients)
        if found in table.GOOD:
            done = ctypes.c_int64(0)
            try:
                self._update(workers, done)
            finally:  # a signal may have been raised before the work, or when all of it was done
                if done.value:
                    slot_table.advance(table.address)
        return found

    def _update(self, workers: int, done: ctypes.c_int64) -> None:
        """Have the kernel do its work; `done` is then 1."""
        table, kernel = self.table, self.kernel
        if isinstance(kernel, triton.Kernel):
            kernel.run(self._coefficients)
            done.value = 1
            return
        slots, rows, at = whereabouts(table.slots), address(self._coefficients), ctypes.addressof(done)
        if workers == 1 or table.shared:
            kernel.update(*slots, rows, 0, table.total, at)
        else:
            share_out(kernel, slots, rows, table.total, workers, at)
