"""The text of a GPU's kernel around states that are kept as codes: see `downslope.targets.codes` for what these mean.

A block of a launch is then a block of codes, and one group of threads has it to itself: it finds the largest of its
values without waiting for others. What is done is done with the bits of numbers, as on the CPU, and ends in the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from downslope.targets.codes import BLOCK, CODES, FURTHER, GOLDEN, INFINITE, LEAST, MAGNITUDE, MIXED, MOST, TABLE

_LIBRARY = f"""

@triton.jit
def begun(key, turn, first):
    start = (key.to(tl.uint64) * turn >> 40).to(tl.int64) + first // {BLOCK} * {FURTHER}
    return (start & {TABLE - 1}).to(tl.uint32)


@triton.jit
def noise(start, i):
    return (start + i.to(tl.uint32)) * {GOLDEN:#x}


@triton.jit
def magnitude(value):
    return value.to(tl.uint32, bitcast=True) & {MAGNITUDE:#x}


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def scale_of(size, room: tl.constexpr):
    peak = tl.minimum(tl.reduce(size, 0, larger), {INFINITE:#x})
    bits = tl.maximum((peak + room) & {INFINITE:#x}, {LEAST:#x})
    return tl.where(bits > {MOST:#x}, 0x7FC00000, bits).to(tl.uint32)


@triton.jit
def scaled(size, scale):
    return size.to(tl.float32, bitcast=True) * ({254 << 23:#x} - scale).to(tl.float32, bitcast=True)
"""

_SIGNED = """

@triton.jit
def from_{kind}(code, scale):
    moved = code.to(tl.int32).to(tl.uint32, bitcast=True) << {shift}
    z = (moved & {kept:#x} | {offset:#x}).to(tl.float32, bitcast=True)
    c = (moved & 0x80000000 | {offset:#x}).to(tl.float32, bitcast=True)
    return (z - c) * scale


@triton.jit
def to_{kind}(value, size, scale, noise):
    z = (scaled(size, scale) + real({c!r})).to(tl.uint32, bitcast=True)
    found = (z + (noise >> {spare})) >> {shift}
    return (found & {magnitudes:#x} | (value.to(tl.uint32, bitcast=True) >> 24) & {sign:#x}).to(tl.{kind})
"""

_UNSIGNED = """

@triton.jit
def from_{kind}(code, scale):
    z = ((code.to(tl.uint32) << {shift}) + {offset:#x}).to(tl.float32, bitcast=True)
    return (z - real({c!r})) * scale


@triton.jit
def to_{kind}(value, size, scale, noise):
    z = (scaled(size, scale) + real({c!r})).to(tl.uint32, bitcast=True)
    found = (z + (noise >> {spare})) >> {shift}
    return tl.maximum(found & {magnitudes:#x}, tl.minimum(size, 1)).to(tl.{kind})
"""


def library(kinds: Iterable[str]) -> str:
    """The functions that the text calls, for states that are kept as these codes."""
    parts = []
    for kind in sorted(set(kinds)):
        code = CODES[kind]
        parts.append(
            (_SIGNED if code.signed else _UNSIGNED).format(
                kind=kind,
                shift=code.shift,
                spare=32 - code.shift,
                magnitudes=code.magnitudes,
                sign=0xFF & ~code.magnitudes,
                kept=1 << 31 | code.magnitudes << code.shift,
                offset=code.offset,
                c=2.0**code.power,
            )
        )
    return "".join([_LIBRARY, *parts]) if parts else ""


def names(states: Iterable[str]) -> set[str]:
    """The names that the text uses for these states."""
    used = {f"{what}_{name}_" for name in states for what in ("at_scale", "to_scale", "scale", "size", "start", "kept")}
    called = {"begun", "noise", "magnitude", "larger", "scale_of", "scaled"}
    return used | called | {f"{way}_{kind}" for way in ("from", "to") for kind in CODES}


def prologue(name: str, which: int, column: int) -> list[str]:
    """Lines that are said once for the coded state number `which`, whose scales a column of the slot says."""
    to_scale = f"tl.load(slot_ + {column}).to(tl.pointer_type(tl.float32)) + first_ // {BLOCK}"
    turn = MIXED * (2 * which + 1) % 2**64
    return [f"to_scale_{name}_ = {to_scale}", f"start_{name}_ = begun(key_, {turn:#x}, first_)"]


def read(name: str, kind: str) -> str:
    """The text of a state's values."""
    return f"from_{kind}(tl.load(to_{name}_<inside>), tl.load(to_scale_{name}_<any>))"


def written(name: str, kind: str) -> list[str]:
    """The lines that store a state's new values."""
    code = f"to_{kind}(kept_{name}_, size_{name}_, scale_{name}_, noise(start_{name}_, i_))"
    return [
        f"kept_{name}_ = tl.broadcast_to(new_{name}_, i_.shape)",
        f"size_{name}_ = <only>magnitude(kept_{name}_)<else>",
        f"scale_{name}_ = scale_of(size_{name}_, {CODES[kind].room:#x})",
        f"tl.store(to_scale_{name}_, scale_{name}_.to(tl.float32, bitcast=True)<any>)",
        f"tl.store(to_{name}_, {code}<inside>)",
    ]
