"""States in eight bits: what a code means, in NumPy, and the words with which kernels read and write it.

The weights of a tensor, in their order, are in blocks of `BLOCK`. A block has a scale `a`, a power of two, and each of
its values a code: the leading bits of `z = |value| / a + c`, which lies between `c` and 2. There are 32 codes from each
power of two to the next, so that `z` is known to one part in 32 and values that are small beside `c` are evenly spaced.

| code    | values                 | c     | between a value s and what is kept of it, in a block up to M |
|---------|------------------------|-------|--------------------------------------------------------------|
| `uint8` | that are not negative  | 1/128 | less than s / 32 + M / 4015                                  |
| `int8`  | of either sign         | 1/8   | less than abs(s) / 32 + M / 236                              |

What lies between two codes becomes one or the other at random, such that the mean is right, by the same keys as
stochastic rounding: with the nearest, a moving average would stand still wherever a step changes it by less than half
the way to the next code. Zero is kept as zero by both; with `uint8`, which is for what may stand in a denominator,
nothing else becomes zero. `int8` is a sign and seven bits, not the number that these would be.

A block that holds not-a-number, an infinity or a value of 1.5e38 or more has the scale nan: all of it is then read as
nan. No scale is less than 2**-126, so that M counts as at least that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from downslope.backends.compiler import Word
from downslope.backends.instructions import Value, Writer, number
from downslope.backends.memory import _mark

Array = np.ndarray[Any, Any]

BLOCK = 256
"""How many weights share a scale."""

_SHIFT = 18
"""The bits of a float32 that a code leaves out."""

_INFINITE, _MAGNITUDE = 0x7F800000, 0x7FFFFFFF
_LEAST, _MOST = 1 << 23, 253 << 23
"""The smallest and the largest scale, as bits: their reciprocals are no denormal numbers."""

_TABLE = 1024
"""How many numbers there are to round by: multiples of the golden section, of whose fractions any that follow one
another are evenly spread. A block takes as many of them as it has weights, from where a key and its number say."""

_GOLDEN, _MIXED, _FURTHER = 0x9E3779B1, 0x9E3779B97F4A7C15, 389


@dataclass(frozen=True)
class Code:
    """What eight bits mean.

    Attributes:
        signed: Whether one of them is a sign.
        offset: What is added to a value before its leading bits are taken, as bits of a float32.
        room: What carries bits of a float32 over into the exponent where the last code would be passed otherwise.
    """

    signed: bool
    offset: int
    room: int

    @property
    def magnitudes(self) -> int:
        """The bits of a code that are not its sign."""
        return 0x7F if self.signed else 0xFF


CODES = {
    "int8": Code(True, 124 << 23, (5 << _SHIFT) - 1),
    "uint8": Code(False, 120 << 23, (5 << (_SHIFT - 2)) - 1),
}
"""The codes, by the type of the integers that hold them."""


def blocks(size: int) -> int:
    """How many blocks a tensor of so many weights has."""
    return -(-size // BLOCK)


def encode(values: Array, kind: str, noise: Array | int = 1 << (_SHIFT - 1)) -> tuple[Array, Array]:
    """Codes and scales of the values of a tensor.

    Args:
        values: The values, float32, in the order of the tensor.
        kind: The code, one of `CODES`; values are not negative where it has no sign.
        noise: What is added to the bits below the last that is kept, from 0 to 2**18 - 1 for each value; by default a
            half, so that the nearest code is taken.

    Returns:
        The codes, of the type `kind` and as many as the values, and a float32 scale for each block.
    """
    code, count = CODES[kind], values.size
    rows = np.zeros((blocks(count), BLOCK), np.float32)
    rows.reshape(-1)[:count] = values.reshape(-1)
    bits = rows.view(np.uint32)
    peak = (bits & _MAGNITUDE).max(axis=1, initial=0)
    scale_bits = np.clip((peak + code.room) & _INFINITE, _LEAST, None)
    scales = np.where(scale_bits > _MOST, np.nan, scale_bits.view(np.float32)).astype(np.float32)
    inverse = (np.uint32(254 << 23) - np.minimum(scale_bits, _MOST)).view(np.float32)
    with np.errstate(all="ignore"):
        z = np.abs(rows) * inverse[:, None] + np.uint32(code.offset).view(np.float32)
    flat = z.view(np.uint32).reshape(-1)[:count] + np.asarray(noise, np.uint32)
    found = (flat >> _SHIFT) & code.magnitudes
    sign = (bits.reshape(-1)[:count] >> 24) & 0x80
    found = found | sign if code.signed else np.maximum(found, rows.reshape(-1)[:count] != 0)
    return found.astype(np.uint8).view(kind), scales


def decode(codes: Array, scales: Array) -> Array:
    """The values, float32, of codes whose type says which they are."""
    code = CODES[str(codes.dtype)]
    byte = codes.reshape(-1).view(np.uint8).astype(np.uint32)
    offset = np.uint32(code.offset)
    z = (((byte & code.magnitudes) << _SHIFT) + offset).view(np.float32) - offset.view(np.float32)
    signed = np.where(byte & ~np.uint32(code.magnitudes), -z, z)
    return np.asarray(signed * np.repeat(scales, BLOCK)[: byte.size], np.float32)


def noise(key: int, which: int, count: int) -> Array:
    """What a kernel adds to the bits of the values number 0 to `count` of the state number `which` of a slot."""
    table = (np.arange(_TABLE + BLOCK, dtype=np.uint32) * np.uint32(_GOLDEN)) >> np.uint32(32 - _SHIFT)
    starts = ((key * (_MIXED * (2 * which + 1)) >> 40) % _TABLE + np.arange(blocks(count)) * _FURTHER) % _TABLE
    return np.asarray(table[starts[:, None] + np.arange(BLOCK)].reshape(-1)[:count])


# ---- words for compiled code


def reading(kind: str, which: int) -> Word:
    """A word `load(address, i, scale)`: the value of a code of the array number `which` of a slot."""
    code = CODES[kind]

    def load(writer: Writer, arguments: Sequence[Value]) -> Value:
        address, i, scale = arguments
        new = writer.new
        byte = new("i8", f"load i8, {writer.pointer(address, 'i8', i)}{_mark(writer, which)}")
        wide = new("i32", f"{'sext' if code.signed else 'zext'} {byte} to i32")
        moved = new("i32", f"shl {wide}, {_SHIFT}")
        offset = number(code.offset, "i32")
        if code.signed:  # the sign has come to stand in front, and all between it and the magnitude is taken away
            kept = new("i32", f"and {moved}, {-0x80000000 | code.magnitudes << _SHIFT}")
            sign = new("i32", f"and {kept}, {-0x80000000}")
            z = new("i32", f"or {kept}, {offset.text}")
            offset = new("i32", f"or {sign}, {offset.text}")
        else:
            z = new("i32", f"add {moved}, {offset.text}")
        floats = [new("float", f"bitcast {part} to float") for part in (z, offset)]
        return new("float", f"fmul {new('float', f'fsub {floats[0]}, {floats[1].text}')}, {scale.text}")

    return Word(load)


def held(name: str) -> tuple[Word, Word]:
    """Words `load(i)` and `store(i, value)` of a float32 in memory of a function's own, which has room for a block."""

    def at(writer: Writer, i: Value) -> str:
        start = writer.room(name, "float", BLOCK)
        return str(writer.new("ptr", f"getelementptr inbounds float, {start}, {writer.cast(i, 'i64')}"))

    def load(writer: Writer, arguments: Sequence[Value]) -> Value:
        return writer.new("float", f"load float, {at(writer, arguments[0])}")

    def store(writer: Writer, arguments: Sequence[Value]) -> None:
        i, value = arguments
        writer.put(f"store {writer.cast(value, 'float')}, {at(writer, i)}")

    return Word(load), Word(store)


def _magnitude(writer: Writer, arguments: Sequence[Value]) -> Value:
    bits = writer.new("i32", f"bitcast {writer.cast(arguments[0], 'float')} to i32")
    return writer.new("float", f"bitcast {writer.new('i32', f'and {bits}, {_MAGNITUDE}')} to float")


magnitude = Word(_magnitude)
"""For compiled code: a float32 without its sign."""


def _peak(writer: Writer, arguments: Sequence[Value]) -> Value:
    return _larger(writer, arguments[0], writer.new("i32", f"bitcast {arguments[1]} to i32"))


peak = Word(_peak)
"""For compiled code: `peak(most, magnitude)`, the larger of two magnitudes, the first as bits: nan is largest."""

no_peak = Word(lambda writer, arguments: number(0, "i32"))
"""For compiled code: where `peak` begins."""


def scaling(kind: str) -> Word:
    """A word `scale(peak)`: the scale of a block with this largest magnitude."""
    code = CODES[kind]

    def scale(writer: Writer, arguments: Sequence[Value]) -> Value:
        new = writer.new
        up = new("i32", f"add {arguments[0]}, {code.room}")
        bits = _larger(writer, new("i32", f"and {up}, {_INFINITE}"), number(_LEAST, "i32"))
        too_large = new("i1", f"icmp ugt {bits}, {_MOST}")
        return writer.select(too_large, number(float("nan"), "float"), new("float", f"bitcast {bits} to float"))

    return Word(scale)


def _inverse(writer: Writer, arguments: Sequence[Value]) -> Value:
    bits = writer.new("i32", f"bitcast {arguments[0]} to i32")
    return writer.new("float", f"bitcast {writer.new('i32', f'sub i32 {254 << 23}, {bits.text}')} to float")


inverse = Word(_inverse)
"""For compiled code: one over a scale."""


def _make_noise(writer: Writer, arguments: Sequence[Value]) -> None:
    n = writer.new("i32", f"trunc {arguments[0]} to i32")
    value = writer.new("i32", f"lshr {writer.new('i32', f'mul {n}, {_GOLDEN}')}, {32 - _SHIFT}")
    writer.put(f"store {value}, {_noise_at(writer, arguments[0])}")


def _noise_at(writer: Writer, n: Value) -> str:
    room = writer.room("noise", "i32", _TABLE + BLOCK)
    return str(writer.new("ptr", f"getelementptr inbounds i32, {room}, {n}"))


NOISE = _TABLE + BLOCK
"""How many numbers have to be made before codes are written."""

make_noise = Word(_make_noise)
"""For compiled code: `make_noise(n)`, put the number `n` to round by in its place."""


def dither(which: int) -> Word:
    """A word `start(key, block)`: where the numbers begin by which a block of the state number `which` is rounded."""

    def start(writer: Writer, arguments: Sequence[Value]) -> Value:
        key, block = arguments
        new = writer.new
        mixed = new("i64", f"mul {key}, {number(_MIXED * (2 * which + 1), 'i64').text}")
        further = new("i64", f"mul {block}, {_FURTHER}")
        begun = new("i64", f"add {new('i64', f'lshr {mixed}, 40')}, {further.text}")
        return new("i64", f"and {begun}, {_TABLE - 1}")

    return Word(start)


def writing(kind: str, which: int) -> Word:
    """A word `store(address, i, value, inverse, n)`: a value as a code of the array number `which` of a slot.

    For a code without sign the value has none; `n` is the place of the number to round by.
    """
    code = CODES[kind]

    def store(writer: Writer, arguments: Sequence[Value]) -> None:
        address, i, value, inverse, n = arguments
        new = writer.new
        noise = new("i32", f"load i32, {_noise_at(writer, n)}")
        bits = new("i32", f"bitcast {value} to i32")
        magnitude = new("i32", f"and {bits}, {_MAGNITUDE}") if code.signed else bits
        scaled = new("float", f"fmul {new('float', f'bitcast {magnitude} to float')}, {inverse.text}")
        offset = new("float", f"bitcast i32 {code.offset} to float")
        z = new("i32", f"bitcast {new('float', f'fadd {scaled}, {offset.text}')} to i32")
        found = new("i32", f"lshr {new('i32', f'add {z}, {noise.text}')}, {_SHIFT}")
        if code.signed:  # in bytes, of which there are more in a register
            kept = new("i8", f"and {new('i8', f'trunc {found} to i8')}, {code.magnitudes}")
            below = new("i8", f"trunc {new('i32', f'ashr {bits}, 31')} to i8")
            byte = new("i8", f"or {kept}, {new('i8', f'and {below}, {~code.magnitudes}').text}")
        else:  # what is not zero has no code below 1
            least = new("i32", f"or {_smaller(writer, bits, number(1, 'i32'))}, {code.offset >> _SHIFT}")
            byte = new("i8", f"trunc {_larger(writer, found, least)} to i8")
        writer.put(f"store {byte}, {writer.pointer(address, 'i8', i)}{_mark(writer, which)}")

    return Word(store)


def _larger(writer: Writer, left: Value, right: Value) -> Value:
    return writer.call("i32", "llvm.umax.i32", [left, right])


def _smaller(writer: Writer, left: Value, right: Value) -> Value:
    return writer.call("i32", "llvm.umin.i32", [left, right])
