"""States in eight bits: what a code means.

The weights of a tensor, in their order, are in blocks of `BLOCK`. A block has a scale `a`, a power of two, and each of
its values a code: the leading bits of `z = |value| / a + c`, which lies between `c` and 2. There are as many codes from
each power of two to the next, so that `z` is known to one part in so many; what is small beside `c` is evenly spaced.

| code    | values                | c        | codes | between a value s and what is kept of it, in a block up to M |
|---------|-----------------------|----------|-------|--------------------------------------------------------------|
| `uint8` | that are not negative | 2**-15   | 16    | less than s / 16 + M / 507000                                |
| `int8`  | of either sign        | 2**-3    | 32    | less than abs(s) / 32 + M / 236                              |

Squares of gradients are spread over many powers of two, and under a root and a line their error is half as large.

What lies between two codes becomes one or the other at random, such that the mean is right, by the same keys as
stochastic rounding: with the nearest, a moving average would stand still wherever a step changes it by less than half
the way to the next code. Zero is kept as zero by both; with `uint8`, which is for what may stand in a denominator,
nothing else becomes zero. `int8` is a sign and seven bits, not the number that these would be.

A block that holds not-a-number, an infinity or a value of 1.5e38 or more has the scale nan: all of it is then read as
nan. No scale is less than 2**-126, so that M counts as at least that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK = 256
"""How many weights share a scale."""

CODED, SCALES = ".codes", ".scales"
"""What is put behind the name of a state, for its codes and for their scales."""

INFINITE, MAGNITUDE = 0x7F800000, 0x7FFFFFFF
LEAST, MOST = 1 << 23, 253 << 23
"""The smallest and the largest scale, as bits: their reciprocals are no denormal numbers."""

TABLE = 1024
"""How many numbers there are to round by: multiples of the golden section, of whose fractions any that follow one
another are evenly spread. A block takes as many of them as it has weights, from where a key and its number say."""

GOLDEN, MIXED, FURTHER = 0x9E3779B1, 0x9E3779B97F4A7C15, 389


@dataclass(frozen=True)
class Code:
    """What eight bits mean.

    Attributes:
        signed: Whether one of them is a sign.
        power: The power of two that is added to a value before its leading bits are taken.
        shift: The bits of a float32 that are left out.
    """

    signed: bool
    power: int
    shift: int

    @property
    def magnitudes(self) -> int:
        """The bits of a code that are not its sign."""
        return 0x7F if self.signed else 0xFF

    @property
    def offset(self) -> int:
        """What is added, as bits of a float32."""
        return (127 + self.power) << 23

    @property
    def room(self) -> int:
        """What carries bits of a float32 over into the exponent where the last code would be passed otherwise."""
        return (1 << self.shift) + (1 << 23 + self.power) - 1


CODES = {"int8": Code(True, -3, 18), "uint8": Code(False, -15, 19)}
"""The codes, by the type of the integers that hold them."""


def blocks(size: int) -> int:
    """How many blocks a tensor of so many weights has."""
    return -(-size // BLOCK)


def encode(values: Array, kind: str, noise: Array | int | None = None) -> tuple[Array, Array]:
    """Codes and scales of the values of a tensor.

    Args:
        values: The values, float32, in the order of the tensor.
        kind: The code, one of `CODES`; values are not negative where it has no sign.
        noise: What is added to the bits below the last that is kept, less than `2**shift` for each value; by default a
            half, so that the nearest code is taken.

    Returns:
        The codes, of the type `kind` and as many as the values, and a float32 scale for each block.
    """
    code, count = CODES[kind], values.size
    rows = np.zeros((blocks(count), BLOCK), np.float32)
    rows.reshape(-1)[:count] = values.reshape(-1)
    bits = rows.view(np.uint32)
    peak = (bits & MAGNITUDE).max(axis=1, initial=0)
    scale_bits = np.clip((np.minimum(peak, INFINITE) + code.room) & INFINITE, LEAST, None)
    scales = np.where(scale_bits > MOST, np.nan, scale_bits.view(np.float32)).astype(np.float32)
    inverse = (np.uint32(254 << 23) - np.minimum(scale_bits, MOST)).view(np.float32)
    with np.errstate(all="ignore"):
        z = np.abs(rows) * inverse[:, None] + np.uint32(code.offset).view(np.float32)
    half = 1 << (code.shift - 1)
    flat = z.view(np.uint32).reshape(-1)[:count] + np.asarray(half if noise is None else noise, np.uint32)
    found = (flat >> code.shift) & code.magnitudes
    sign = (bits.reshape(-1)[:count] >> 24) & 0x80
    found = found | sign if code.signed else np.maximum(found, rows.reshape(-1)[:count] != 0)
    return found.astype(np.uint8).view(kind), scales


def decode(codes: Array, scales: Array) -> Array:
    """The values, float32, of codes whose type says which they are."""
    code = CODES[str(codes.dtype)]
    byte = codes.reshape(-1).view(np.uint8).astype(np.uint32)
    offset = np.uint32(code.offset)
    z = (((byte & code.magnitudes) << code.shift) + offset).view(np.float32) - offset.view(np.float32)
    signed = np.where(byte & ~np.uint32(code.magnitudes), -z, z)
    return np.asarray(signed * np.repeat(scales, BLOCK)[: byte.size], np.float32)


def check_scales(scales: Array) -> None:
    """Make sure that these are scales.

    Raises:
        ValueError: One is not a power of two of those there are; the message begins with its value.
    """
    bits = np.ascontiguousarray(scales, np.float32).view(np.uint32)
    strange = (bits & ~np.uint32(INFINITE) != 0) | (bits < LEAST) | (bits > MOST)
    if strange.any():
        raise ValueError(
            f"{scales[strange][0]!r:.40}; a scale is a power of two from 2**-126 to 2**126, or nan only while a "
            "training goes on whose states are no numbers"
        )


def noise(key: int, which: int, count: int, kind: str) -> Array:
    """What a kernel adds to the bits of the values number 0 to `count` of the coded state number `which` of a slot."""
    table = (np.arange(TABLE + BLOCK, dtype=np.uint32) * np.uint32(GOLDEN)) >> np.uint32(32 - CODES[kind].shift)
    starts = ((key * (MIXED * (2 * which + 1)) >> 40) % TABLE + np.arange(blocks(count)) * FURTHER) % TABLE
    return np.asarray(table[starts[:, None] + np.arange(BLOCK)].reshape(-1)[:count])
