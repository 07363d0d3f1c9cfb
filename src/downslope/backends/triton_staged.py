"""Kernels for GPUs of rules over whole tensors: their module, and what is launched for the tensors of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from downslope.backends.cpu import body_scalar, described, plain
from downslope.backends.host import host
from downslope.backends.memory import COLUMNS, ROWS, SCRATCH
from downslope.backends.sending import Memory
from downslope.backends.table import SlotTable
from downslope.backends.triton import PLAIN, Shape, interpreted, listed, loaded
from downslope.backends.triton_between import BetweenText
from downslope.backends.triton_functions import ENTRIES, LIBRARY, PASSES, Functions, Turn
from downslope.backends.triton_kernel import HEAD, STORING, shape_of, slot_columns
from downslope.backends.triton_passes import PassText
from downslope.backends.triton_pieces import FLAT, SIDE, TALL, TILE, WIDE, pieces_of, tile_of
from downslope.language.program import Program
from downslope.targets import triton as target
from downslope.targets.shapes import matrix_shape
from downslope.version import __version__

Array = np.ndarray[Any, Any]


class Work(NamedTuple):
    """Something that is launched.

    Attributes:
        function: The function.
        blocks: What its programs work on; see `backends.triton`.
        constants: What is compiled in.
        shape: How it is shared out among threads.
    """

    function: Any
    blocks: Array
    constants: dict[str, int]
    shape: Shape


class StagedPasses:
    """A program over whole tensors for the tensors of a table on a GPU.

    Attributes:
        module: The module of its functions.
        columns: Which columns of a slot they are given.
        works: What is launched, in order.
    """

    def __init__(self, memory: Memory, program: Program, rounding: str, table: SlotTable):
        """Generate the module, and give the slots their scratch memory, which is kept as long as this is.

        Raises:
            ShapeError: What is updated has more dimensions than the rule knows.
        """
        assert rounding == "nearest"
        storages = table.storages[: len(program.arrays)]
        for tensors in table.held:
            matrix_shape(program, tuple(tensors[0].shape) if tensors else ())
        self._functions, width = staged(program, storages), table.slots.shape[1]
        self.columns = [*slot_columns(storages, "nearest"), *(width + column for column in (ROWS, COLUMNS, SCRATCH))]
        self.module = load(program, storages, self._functions)
        self._shapes = [(int(slot[ROWS]), int(slot[COLUMNS])) for slot in table.slots]
        parts = [self._functions.scratch.of(*shape) if all(shape) else np.zeros(0) for shape in self._shapes]
        self.scratch = memory.hold(np.concatenate([*parts, np.zeros(1)]).view(np.int64))
        offsets = np.cumsum([0, *map(len, parts)])[:-1]
        table.slots[:, SCRATCH] = memory.address(self.scratch) + 8 * offsets
        self._passes = shape_of_passes(storages)
        self.works = [work for turn in self._functions.turns for work in self._works(turn)]

    def _works(self, turn: Turn) -> Iterator[Work]:
        """What is launched for a function: a pass is compiled for every kind of tile."""
        function = getattr(self.module, turn.name)
        matrices, shape = self._functions.of_matrices, self._passes if turn.shared == PASSES else PLAIN
        for tile in (FLAT, WIDE, TALL) if turn.shared == PASSES else (FLAT,):
            counts = []
            for rows, columns in self._shapes:
                count = 1
                if turn.shared == PASSES:
                    across, down = pieces_of(rows, columns, matrices) if rows * columns else (0, 0)
                    count = across * down if tile_of(rows, columns, matrices) == tile else 0
                elif turn.shared == ENTRIES:
                    count = turn.rows * -(-rows // SIDE) + turn.columns * -(-columns // SIDE)
                counts.append(count if rows * columns else 0)
            if any(counts):
                yield Work(function, listed(counts), {"TALL_": tile[0], "WIDE_": tile[1]}, shape)


def shape_of_passes(storages: Sequence[str]) -> Shape:
    """The shape of passes: a thread has as many weights of a tile as of a block in kernels of one pass."""
    block, warps, _ = shape_of(storages)
    return Shape(TILE, TILE * warps // block, None)


def staged(program: Program, storages: Sequence[str]) -> Functions:
    """The functions that compute a program for tensors that are stored like this."""
    functions = Functions(program, storages)
    between, passes = BetweenText(functions), PassText(functions)
    for k in range(len(functions.plan.between)):
        between.write(k)
        if k < len(functions.plan.passes):
            passes.write(k, functions.plan.passes[k])
    return functions


def load(program: Program, storages: Sequence[str], functions: Functions) -> ModuleType:
    """The module of a program's functions. Nothing is compiled for a device before it is launched."""
    stem = f"{plain(program.name)}_{described(storages)}_triton{'_interpreted' if interpreted() else ''}"
    scalar = body_scalar(storages)
    parts = host(program, scalar)
    head = HEAD.format(
        name=plain(program.name),
        stored=described(storages),
        version=__version__,
        functions=parts.functions,
        coefficients=parts.coefficients,
        work_out=parts.work_out,
        words=target.LIBRARY.format(scalar=scalar) + (STORING if "bfloat16" in storages else "") + LIBRARY,
        register="l" if scalar == "float64" else "r",
    )
    return loaded(stem, "\n\n\n".join([head.rstrip("\n"), *functions.texts]) + "\n")
