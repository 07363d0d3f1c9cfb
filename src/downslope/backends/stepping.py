"""A whole step of tensors in compiled code: check and take them, work out the coefficients, update, count.

A small model's step takes less time than the calls it would otherwise be made of.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from downslope.backends import tensors
from downslope.backends.cpu import THREADED_FROM, Kernel, share_out, whereabouts
from downslope.backends.memory import address
from downslope.backends.tensors import TensorTable
from downslope.language.program import Program


class Stepper:
    """A program compiled for the tensors of a table.

    Attributes:
        program: The program.
        table: The table.
    """

    def __init__(self, program: Program, storages: Sequence[str], rounding: str, table: TensorTable):
        self.program, self.table = program, table
        self.kernel = Kernel(program, storages, rounding)
        self._step, self._begin = tensors.step.bound(table.address), tensors.begin.bound(table.address)
        self.alone = table.total < THREADED_FROM
        self._scale_at = program.scalars.index("grad_scale") if "grad_scale" in program.scalars else -1

    def group_rows(self, rows: Sequence[int], clocks: np.ndarray[Any, Any]) -> None:
        """Assign every slot to a row of coefficients, whose clocks are these; `settle` is then due."""
        self.table.group_rows(rows, clocks)
        program, count = self.program, len(clocks)
        self.scalars = np.zeros((count, len(program.scalars) + len(program.scalar_outputs)))
        self.coefficients = np.zeros((count, self.kernel.width), self.kernel.dtype)
        kernel = self.kernel
        self.table.compute_with(kernel.work_out_at, kernel.update_at, self.scalars, self.coefficients)

    def settle(self, row: int, numbers: Mapping[str, float]) -> None:
        """Set the hyperparameters of a row."""
        for k, name in enumerate(self.program.scalars):
            self.scalars[row, k] = numbers.get(name.removesuffix(" next"), 0.0)

    def scale(self, factor: float) -> None:
        """Set what gradients are multiplied by."""
        if self._scale_at >= 0:
            self.scalars[:, self._scale_at] = factor

    def quick_step(self) -> Callable[..., int] | None:
        """A function that does `step` on one thread, given the gradients, None for those that there are not.

        None where several threads would do it faster.
        """
        return self._step if self.alone else None

    def step(self, gradients: Sequence[Any], workers: int) -> int:
        """Update all weights and states whose tensors have a gradient; see `tensors.take` for what is returned.

        Unless that is `ALL` or `SOME`, nothing has been changed.
        """
        table = self.table
        if self.alone or workers == 1 or table.shared:
            return self._step(*gradients)
        found = self._begin(*gradients)
        if found in table.GOOD:
            done = ctypes.c_int64(0)
            rows, at = address(self.coefficients), ctypes.addressof(done)
            try:
                share_out(self.kernel, whereabouts(table.slots), rows, table.total, workers, at)
            finally:  # a signal may have been raised before the work, or when all of it was done
                if done.value:
                    table.advance()
        return found
