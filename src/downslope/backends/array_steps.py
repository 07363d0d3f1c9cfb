"""A step of a rule that multiplies matrices for NumPy arrays: array by array, in place of a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from downslope.backends.table import SlotTable
from downslope.backends.taking import ALL
from downslope.language.program import Program
from downslope.language.together import divided
from downslope.targets.arrays import interpret, with_sums
from downslope.targets.shapes import held_shape


class ArrayStepper:
    """A step of a program for the arrays of a table, by NumPy itself: as `stepping.Stepper`, but for its kernel."""

    def __init__(self, program: Program, table: SlotTable, narrow: Sequence[Sequence[Any]]):
        """Lay out the arrays.

        Args:
            program: What a step computes.
            table: The arrays of one value a weight that are updated.
            narrow: Per slot the states that are one for each row or column, in the order of the program's `narrow`.
        """
        self.program, self.table, self._narrow = program, table, narrow
        alike = (name for name in program.states if name not in program.spaces)
        self._names = ("x", *alike, *program.narrow)
        self.group_rows([0] * len(table.held), np.zeros((1, 1 + len(program.scalar_states))))

    def group_rows(self, rows: Sequence[int], clocks: Any) -> None:
        """Assign every slot to a row of numbers, whose clocks are these; `settle` is then due.

        What is summed up over all tensors is summed up over those of one row.
        """
        self.table.group_rows(rows, clocks)
        self._rows = list(rows)
        self._numbers: list[dict[str, float]] = [{} for _ in self.table.clocks]

    def settle(self, row: int, scalars: Sequence[float]) -> None:
        """Set the program's scalar inputs of a row; those that are its clocks are not looked at."""
        self._numbers[row] = dict(zip(self.program.scalars, scalars, strict=True))

    def scale(self, factor: float) -> None:
        """Set what gradients are multiplied by."""
        for numbers in self._numbers:
            numbers["grad_scale"] = factor

    def quick_step(self) -> None:
        """There is none: array by array nothing is quick."""

    def step(self, *gradients: Any, workers: int) -> int:
        """Update all weights and states; see `table.take` for what is returned: unless it is `ALL`, nothing changes.

        Args:
            gradients: One for each slot.
            workers: How many threads may share the work, which NumPy decides by itself.
        """
        found = self.table.take(*gradients)
        if found != ALL:
            return found
        for slot, (held, narrow) in enumerate(zip(self.table.held, self._narrow, strict=True), 1):
            for name, array in zip(self.program.narrow, narrow, strict=True):
                if array.shape != held_shape(self.program, name, held[0].shape) or not array.flags.writeable:
                    return slot
        program, clocks = divided(self.program).rest, self.table.clocks
        numbers = [
            {**row, "t": clock[0] + 1, **dict(zip(program.scalar_states, clock[1:], strict=True))}
            for row, clock in zip(self._numbers, clocks.tolist(), strict=True)
        ]
        tensors: list[Mapping[str, Any]] = [
            {"dx": np.asarray(dx), **dict(zip(self._names, [*held, *narrow], strict=True))}
            for dx, held, narrow in zip(gradients, self.table.held, self._narrow, strict=True)
        ]
        for row in {*self._rows}:
            together = [(self.program, arrays) for k, arrays in zip(self._rows, tensors, strict=True) if k == row]
            numbers[row] = {**with_sums(self.program, lambda given=together: given, numbers[row])}  # type: ignore[misc]
        after: dict[int, list[float]] = {}
        made: list[tuple[Any, Any]] = []
        for row, arrays in zip(self._rows, tensors, strict=True):
            new = interpret(program, arrays, numbers[row])
            made += [(arrays[name], new[name]) for name in program.outputs]
            after[row] = [numbers[row]["t"], *(float(new[name]) for name in program.scalar_states)]
        for array, value in made:
            array[...] = value
        for row, clock in after.items():
            clocks[row] = clock
        return ALL
