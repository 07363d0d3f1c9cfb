"""The slot table: where arrays or tensors are that one kernel updates; see `taking` for the checks before a launch."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from downslope.backends.cpu import SIZES
from downslope.backends.describe import CPU, DESCRIPTION, Describer, kind_word
from downslope.backends.memory import COLUMNS, FIRST, ROW, ROWS, SIZE, START, address, joined
from downslope.backends.survey import survey
from downslope.backends.taking import ALL, SOME, Head, look, take
from downslope.targets.codes import blocks


class SlotTable:
    """The arrays or tensors that one kernel updates, and where they are.

    Attributes:
        describer: How it is looked at.
        held: What is held; see `__init__`.
        storages: What weights, gradients and states are stored as.
        slots: The slots, one row each.
        total: The number of weights in all slots, a complex one counted twice.
        shared: Whether weights of different slots share memory, so that slots have to be updated one after another.
        address: Where the table is.
        take: The function `take`, given the gradients one by one.
        counted: Whether clocks are counted by the host.
        clocks: Per row of coefficients the number of the steps done and the scalar states.
    """

    GOOD = (ALL, SOME)

    def __init__(
        self,
        describer: Describer,
        held: Sequence[Sequence[Any]],
        storages: Sequence[str],
        *,
        pairs: bool = False,
        scales: int = 0,
        narrow: int = 0,
        matrices: bool = False,
        scalars: int = 0,
        own_clocks: bool = False,
        numbers: Sequence[int] = (),
        seed: int = 0,
        device: int = CPU,
        counted: bool = True,
    ):
        """Lay out the table, with one row of coefficients, whose clocks are 0.

        Args:
            describer: How what is held is looked at.
            held: Per slot the weights, states and, if slots have them, clocks: a float32 that counts its steps and a
                float64 for each scalar state. Kept alive by the table; empty for a slot that has no states yet.
            storages: What weights, gradients and states are stored as.
            pairs: Whether the tensors are complex.
            scales: How many of the last arrays are the scales of those that are kept as codes.
            narrow: How many of the last arrays are one for each row or column.
            matrices: Whether the weights are matrices, of rows in the order of memory.
            scalars: How many scalar states there are.
            own_clocks: Whether slots have clocks.
            numbers: The number of each slot's tensor among all of the optimizer's; by default, that of the slot.
            seed: The seed of random numbers.
            device: Where arrays have to be, as a description says it; see `describe.on`.
            counted: Whether clocks are in the host's memory and counted here. If not, they are where arrays are, nobody
                here looks at what they say, and every slot needs a row of its own.

        Raises:
            ValueError: States share memory with something else, or something is not in memory that can be updated.
        """
        count, arrays, own = len(held), len(storages), 1 + scalars if own_clocks else 0
        self.held, self.storages = [list(things) for things in held], list(storages)
        kinds = [kind_word(storage, pairs=pairs) for storage in storages]
        kinds += [kind_word("float32"), *[kind_word("float64")] * scalars][:own]
        apart = scales + narrow
        width = FIRST + 2 * (arrays + own) + apart + 4
        lengths = [count * width, len(kinds), 2 * sum(map(len, self.held)), 2 * DESCRIPTION]
        at = [Head.length + sum(lengths[:k]) for k in range(5)]
        self._book = np.zeros(at[-1], np.int64)
        head = self.head = Head(self._book)
        head.slots, head.kinds, head.spans, head.scratch = at[:4]
        head.apart, head.lengths, head.matrices = apart, FIRST + 2 * (arrays + own), matrices
        head.count, head.width, head.arrays, head.own, head.clocks = count, width, arrays, own, 1 + scalars
        head.objects, head.number = FIRST + arrays + own, width - 1
        head.describe, head.type, head.absent = describer.function, describer.type, describer.absent
        self.describer, head.told = describer, address(describer.told)
        head.device, head.counted = device, counted
        head.clear, head.seed = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value or 0, seed
        self._book[at[1] : at[2]] = kinds
        self.address = address(self._book)
        self.slots = self._book[at[0] : at[1]].reshape(count, width)
        self.slots[:, -1] = numbers or range(count)
        self._look, self.take = look.bound(self.address), take.bound(self.address)
        self._pairs, self.counted = pairs, counted
        self.locate()
        for slot, things in zip(self.slots, self.held, strict=True):
            shape = tuple(things[0].shape) if things else ()
            slot[ROWS] = shape[0] if matrices and len(shape) > 1 else 1
            slot[COLUMNS] = slot[SIZE] // max(1, slot[ROWS])
            known = [blocks(int(slot[SIZE]))] * scales
            known += [math.prod(thing.shape) for thing in things[arrays - 1 - narrow : arrays - 1]] if narrow else []
            slot[head.lengths : head.lengths + len(known)] = known
        self.group_rows([0] * count, np.zeros((1, 1 + scalars)))

    def locate(self) -> None:
        """Note where everything is that is held, afresh.

        Raises:
            ValueError: As when the table was made. Nothing has been changed.
        """
        slots, spans = self.slots.copy(), []
        arrays, objects = self.head.arrays, self.head.objects
        sizes = [SIZES[storage] for storage in self.storages] + [4, *[8] * (self.head.own - 1)]
        for slot, things in zip(slots, self.held, strict=True):
            for k, thing in enumerate(things):
                column = k + (k > 0)
                slot[objects + column] = id(thing)
                begin = self._look(thing) if column < arrays or not self.counted else self._look(thing, thing)
                size = 0 if begin == -1 else math.prod(thing.shape)
                if begin == -1 or (begin <= 0 and size):
                    kind, where = type(thing).__name__, getattr(thing, "device", "cpu")
                    raise ValueError(
                        f"a {kind} of shape {tuple(thing.shape)} on {where} has no memory that could be updated; it "
                        "may have been released"
                    )
                if column < arrays:
                    size *= 2 if self._pairs else 1
                    slot[FIRST + column] = begin
                if column == 0:
                    slot[SIZE] = size
                if size:
                    spans.append((begin, begin + size * sizes[column], column))
        stretches, self.shared = joined(spans)
        slots[:, START] = np.cumsum(slots[:, SIZE]) - slots[:, SIZE]
        self.slots[:] = slots
        self.total = self.head.total = int(slots[:, SIZE].sum())
        self.head.intervals = len(stretches)
        first = self.head.spans
        self._book[first : first + 2 * len(stretches)] = np.array(stretches, np.int64).reshape(-1)

    def group_rows(self, rows: Sequence[int], clocks: Any) -> None:
        """Assign every slot to a row of coefficients, whose clocks are these."""
        self.slots[:, ROW] = rows
        self.clocks = np.array(clocks, np.float64).reshape(-1, self.head.clocks)
        self._active = np.zeros(len(self.clocks), np.int64)
        head = self.head
        head.rows, head.clocks_at, head.active_at = len(self.clocks), address(self.clocks), address(self._active)

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of all gradients whose addresses have just been taken, and how many are not finite: see `survey`."""
        return survey(self.slots, self.total, self.storages[1], workers)
