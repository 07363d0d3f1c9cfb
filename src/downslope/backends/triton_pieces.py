"""How kernels for GPUs divide tensors of rules over whole tensors, and what is where in scratch memory.

A tensor is a matrix, or rows of so many weights where the rule does not go by rows and columns. It is divided into
pieces that depend on its shape alone, each of some tiles below each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from downslope.language.expression import Expression
from downslope.language.spaces import COLUMN, ROW, TENSOR
from downslope.targets.compute import OPERATIONS, compute
from downslope.targets.passes import Plan
from downslope.targets.shapes import sides

Array = np.ndarray[Any, Any]

TILE = 1024
"""Weights of a tile: what a program works on at a time."""

DEEP = 4
"""Tiles of a piece, below each other."""

SIDE = 32
"""Rows or columns for which a program adds up what pieces have left, so many pieces at a time."""

FLAT, WIDE, TALL = (1, TILE), (8, TILE // 8), (TILE // 16, 16)
"""The tiles that there are, as rows and columns: for a row or two, and wherever these do not matter; for matrices; for
those of few columns."""

FEW_ROWS, FEW_COLUMNS = 2, 32
"""Up to which a matrix is one of the kinds above."""

TILE_TEXT = (
    f"wide_ = tl.where(rows_ <= {FEW_ROWS}, {FLAT[1]}, tl.where(columns_ <= {FEW_COLUMNS}, {TALL[1]}, {WIDE[1]}))",
    f"tall_ = {TILE} // wide_",
)
"""The text of `tile_of`."""

PIECES_TEXT = {
    True: ("across_ = (columns_ + {1} - 1) // {1}", f"down_ = (rows_ + {DEEP} * {{0}} - 1) // ({DEEP} * {{0}})"),
    False: ("across_ = rows_", f"down_ = (columns_ + {DEEP * TILE - 1}) // {DEEP * TILE}"),
}
"""The text of `pieces_of`, of matrices or not, for a tile of so many rows and columns."""


def tile_of(rows: int, columns: int, of_matrices: bool) -> tuple[int, int]:
    """The tile by which a tensor is divided."""
    return FLAT if not of_matrices or rows <= FEW_ROWS else TALL if columns <= FEW_COLUMNS else WIDE


def pieces_of(rows: int, columns: int, of_matrices: bool) -> tuple[int, int]:
    """Into how many pieces a tensor is divided, next to each other and below each other."""
    if not of_matrices:
        return 1, -(-columns // (DEEP * TILE))
    tall, wide = tile_of(rows, columns, of_matrices)
    return -(-columns // wide), -(-rows // (DEEP * tall))


class Scratch:
    """The scratch memory of tensors: doubles, for values that are kept and for what pieces have added up."""

    def __init__(self, plan: Plan, expressions: Collection[Expression], scalar: str, of_matrices: bool):
        """Lay it out.

        Args:
            plan: How a program is computed.
            expressions: All that it is made of, each after what it is made of itself.
            scalar: The precision of its body.
            of_matrices: Whether rows and columns matter.
        """
        self._plan, self._expressions, self._scalar, self._of_matrices = plan, expressions, scalar, of_matrices
        self._kept = {e: n for n, e in enumerate(plan.kept)}

    def areas(self) -> Iterator[tuple[str, Expression, tuple[str, ...]]]:
        """What is in scratch memory, one after another: a name, what it is of, and its room as factors."""
        for e, n in self._kept.items():
            space = self._plan.spaces[e]
            yield f"at{n}_", e, {TENSOR: ("1",), ROW: ("rows_",), COLUMN: ("columns_",)}[space]
            if self._plan.adds_up(e):
                pieces = {TENSOR: ("across_", "down_"), ROW: ("across_", "rows_"), COLUMN: ("down_", "columns_")}
                yield f"part{n}_", e, pieces[space]

    def of(self, rows: int, columns: int) -> Array:
        """The scratch memory of a tensor, with what depends on its shape alone."""
        across, down = pieces_of(rows, columns, self._of_matrices)
        known = {"rows_": rows, "columns_": columns, "across_": across, "down_": down, "1": 1}
        by_shape = self._by_shape(known)
        parts = []
        for name, e, room in self.areas():
            fixed = by_shape[e] if e in by_shape and name.startswith("at") else 0.0
            parts.append(np.full(int(np.prod([known[word] for word in room])), fixed))
        return np.concatenate([np.zeros(0), *parts])

    def _by_shape(self, known: Mapping[str, int]) -> dict[Expression, float]:
        """What depends on a tensor's shape alone: worked out in double precision, and rounded once."""
        found: dict[Expression, Any] = {}
        for e in self._expressions:
            if e not in self._plan.by_shape:
                continue
            if e.op == "constant":
                found[e] = np.float64(e.number)
            elif e.op == "size":
                found[e] = np.float64(np.prod([known[f"{side}_"] for side in sides(e)]))
            elif e.op in OPERATIONS:
                found[e] = compute(e.op, [found[arg] for arg in e.args])
            else:  # the call of a function with a name
                found[e] = found[e.args[0]]
        return {e: float(np.dtype(self._scalar).type(value)) for e, value in found.items()}
