"""The text of a kernel around states that are kept as codes: see `downslope.targets.codes` for what these mean.

The scale of a block is known when all of it has been computed. Until then its new values wait in memory of the
function's own. A block is done by whoever has its first weight to do, so that it does not matter how a launch is shared
out among threads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from downslope.backends.memory import FIRST
from downslope.language.program import Program
from downslope.targets.codes import BLOCK, CODES
from downslope.targets.signs import exact, nonnegative

WORDS = "NOISE, dither, holding, inverse, magnitude, make_noise, no_peak, peak, reading, scaling, writing"
"""What the text needs of `codes`."""

_NAMES = ("load", "store", "store_many", "at", "hold", "peak", "scale", "inverse", "kept", "size", "start")

BLOCKS = """\
        for block_ in range(first_, last_, {block}):
            stop_ = min(block_ + {block}, last_)
            many_ = block_ + (stop_ - block_) // {many} * {many}
            number_ = block_ // {block}
{before}
            for i_ in range(block_, stop_):
{loop}
{between}
            for i_ in range(block_, many_, {many}):
{after_many}
            for i_ in range(many_, stop_):
{after}"""

NOISE = """\
    for n_ in range(NOISE):
        make_noise(n_)
"""
"""What a kernel begins with."""


@functools.lru_cache(256)
def codes_of(program: Program, to_point: Program | None = None) -> Mapping[str, str]:
    """The states of a program that can be kept as codes, and as which: its formula shows it.

    Args:
        program: The program.
        to_point: The way to where the gradient is to be taken, if the program does not say it itself.
    """
    positive, never = nonnegative(program), exact(program, to_point)
    return MappingProxyType({s: "uint8" if s in positive else "int8" for s in program.states if s not in never})


def coded(stored: Mapping[str, str]) -> dict[str, str]:
    """The arrays that are kept as codes, and as which.

    Args:
        stored: What each array is stored as.
    """
    return {name: storage for name, storage in stored.items() if storage in CODES}


def names(states: Mapping[str, str]) -> set[str]:
    """The names that the text uses for these states."""
    used = {
        f"{what}_{name}_" for name in states for what in (*_NAMES, "load_scale", "store_scale", "at_scale", "start")
    }
    return (
        used
        | {f"{what}_of_{name}_" for name in states for what in ("scale", "start")}
        | {"number_", "many_", *WORDS.split(", ")}
    )


def words(states: Mapping[str, str], columns: Mapping[str, int], scales: int) -> list[str]:
    """Lines that make the words for these states.

    Args:
        states: The states and their codes.
        columns: The number of each one's array among those of a slot.
        scales: The number of the first one's scales.
    """
    lines = []
    for j, (name, code) in enumerate(states.items()):
        lines += [
            f'load_{name}_, hold_{name}_ = reading("{code}", {columns[name]}), holding("{name}")',
            f'store_{name}_, store_many_{name}_ = writing("{code}", {columns[name]}, "{name}")',
            f'load_scale_{name}_, store_scale_{name}_ = access("float32", {scales + j})',
            f'scale_of_{name}_, start_of_{name}_ = scaling("{code}"), dither({j})',
        ]
    return lines


def prologue(states: Mapping[str, str], scales: int) -> list[str]:
    """Lines that are said once for each slot."""
    found = []
    for j, name in enumerate(states):
        found.append(f"at_scale_{name}_ = slot_[{FIRST + scales + j}]")
    return found


def load(name: str) -> str:
    """The value of a state."""
    return f"load_{name}_(at_{name}_, i_, scale_{name}_)"


def store(name: str, code: str, value: str) -> list[str]:
    """Lines that keep a new value until its block is done."""
    size, kept = f"size_{name}_", f"kept_{name}_"
    lines = [f"{kept} = {value}", f"{size} = magnitude({kept})"]
    lines.append(f"hold_{name}_(i_ - block_, {kept if CODES[code].signed else size})")
    return [*lines, f"peak_{name}_ = peak(peak_{name}_, {size})"]


def before(read: Sequence[str], written: Sequence[str]) -> list[str]:
    """Lines before a block, of which these states are read and these are written."""
    lines = [f"scale_{name}_ = load_scale_{name}_(at_scale_{name}_, number_)" for name in read]
    return lines + [f"peak_{name}_ = no_peak()" for name in written]


def between(written: Sequence[str]) -> list[str]:
    """Lines between the computation of a block and the writing of its codes."""
    lines = []
    for name in written:
        lines += [
            f"scale_{name}_ = scale_of_{name}_(peak_{name}_)",
            f"store_scale_{name}_(at_scale_{name}_, number_, scale_{name}_)",
            f"inverse_{name}_ = inverse(scale_{name}_)",
            f"start_{name}_ = start_of_{name}_(key_, number_)",
        ]
    return lines


def after(written: Sequence[str], word: str) -> list[str]:
    """Lines that write codes of a block, one of each of these states, or several, by words of this name."""
    place = "i_ - block_"
    return [f"{word}_{name}_(at_{name}_, i_, {place}, inverse_{name}_, start_{name}_ + ({place}))" for name in written]


def bounds(first: str, last: str, length: str) -> tuple[str, str]:
    """The first weight of a slot to do and the last, where a block belongs to whoever has its first weight to do."""
    up = f"+ {BLOCK - 1}) // {BLOCK} * {BLOCK}"
    return f"({first} {up}", f"min(({last} {up}, {length})"
