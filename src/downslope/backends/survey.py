"""One look at all gradients of a launch: their norm, and whether they are finite."""

from __future__ import annotations

from math import inf, sqrt
from typing import Any

import numpy as np

from downslope.backends import threads
from downslope.backends.compiler import doubles, float64, int64, words
from downslope.backends.machine import Library
from downslope.backends.memory import FIRST, LENGTH, START, access, address

STORAGES = ("float32", "float64", "bfloat16", "float16")
"""What gradients can be stored as."""

PIECE = 1 << 16
"""Weights that are summed at a time: the sum does not depend on how many threads share the work."""

SHARED_FROM = 1 << 18
"""Weights from which the survey is shared out among threads."""

_load32, _ = access("float32")
_load64, _ = access("float64")
_load_brain, _ = access("float32", storage="bfloat16")
_load_half, _ = access("float32", storage="float16")


_library = Library(__file__)


@_library.function(python=True, release=True, flags="reassoc")
def _sum_squares(
    slots: words, count: int64, width: int64, found: doubles, scale: float64, storage: int64, begin: int64, end: int64
) -> None:
    """Look at the gradients of the weights number `begin` to `end`, counted over all slots, piece by piece.

    Args:
        slots: The slot table, with addresses just taken.
        count: The number of its rows.
        width: And of its columns.
        found: For each piece of `PIECE` weights, receives the sum of squares of the scaled gradients, and how many
            gradients are not finite.
        scale: What gradients are multiplied by before they are squared.
        storage: The number of their storage in `STORAGES`.
        begin: The first weight, a multiple of `PIECE`.
        end: The weight after the last.
    """
    for piece in range(begin // PIECE, (end + PIECE - 1) // PIECE):
        total = 0.0
        bad = 0
        for s in range(count):
            slot = slots + s * width
            first = max(piece * PIECE - slot[START], 0)
            last = min(min((piece + 1) * PIECE, end) - slot[START], slot[LENGTH])
            where = slot[FIRST + 1]
            if storage == 0:
                for i in range(first, last):
                    g = float64(_load32(where, i)) * scale
                    total += g * g
                    bad += not (abs(g) < inf)
            elif storage == 1:
                for i in range(first, last):
                    g = _load64(where, i) * scale
                    total += g * g
                    bad += not (abs(g) < inf)
            elif storage == 2:
                for i in range(first, last):
                    g = float64(_load_brain(where, i)) * scale
                    total += g * g
                    bad += not (abs(g) < inf)
            else:
                for i in range(first, last):
                    g = float64(_load_half(where, i)) * scale
                    total += g * g
                    bad += not (abs(g) < inf)
        found[2 * piece] = total
        found[2 * piece + 1] = bad


def survey(slots: Any, total: int, storage: str, workers: int) -> tuple[float, float, int]:
    """Look at all gradients of a slot table whose addresses have just been taken.

    Args:
        slots: The slot table.
        total: The number of weights in all slots.
        storage: What the gradients are stored as, one of `STORAGES`.
        workers: How many threads may share the work.

    Returns:
        The Euclidean norm of the gradients times a scale, that scale, and how many elements are not finite. The
        scale is 1 unless squares in double precision would overflow or vanish.
    """
    norm, bad = _surveyed(slots, total, storage, 1.0, workers)
    if bad == 0 and storage == "float64" and not 2.0**-400 < norm < inf:
        scale = 2.0**-600 if norm == inf else 2.0**600
        return _surveyed(slots, total, storage, scale, workers)[0], scale, 0
    return norm, 1.0, bad


def _surveyed(slots: Any, total: int, storage: str, scale: float, workers: int) -> tuple[float, int]:
    found = np.zeros((-(-total // PIECE), 2))
    told = address(slots), *slots.shape, address(found), scale, STORAGES.index(storage)
    look = _sum_squares.call
    if workers == 1 or total < SHARED_FROM:
        look(*told, 0, total)
    else:
        many = 4 * PIECE
        threads.share_out(look, [(*told, begin, min(begin + many, total)) for begin in range(0, total, many)], workers)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float(found[:, 0].sum())
    return sqrt(squares), int(found[:, 1].sum())
