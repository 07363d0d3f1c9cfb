"""Reading and writing memory from compiled code, and how it is laid out: addresses, and the columns of a slot table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from downslope.backends.compiler import Word
from downslope.backends.instructions import Value, Writer, number
from downslope.backends.machine import converts_halves

START, LENGTH, ROW, KEY, SIZE, ACTIVE, FIRST = 0, 1, 2, 3, 4, 5, 6
"""Columns of a slot table: the slot's first weight among all, how many of its weights are in this launch, its row of
coefficients, the key of its random numbers, its number of weights, whether it takes part in this launch; from `FIRST`
on, the addresses of its arrays: weights, gradient, states; then what `table.take` needs to know."""

SCRATCH, COLUMNS, ROWS = -4, -3, -2
"""Columns counted from the end: where a kernel for whole tensors has room for what it adds up, and how many columns and
rows there are; one row where rows do not matter."""

_SCOPES = 32


def mark(writer: Writer, which: int | None) -> str:
    """What is added to a load or store to tell the arrays of a slot apart: they never overlap, as `take` makes sure."""
    if which is None:
        return ""
    numbers = range(1, _SCOPES + 1)
    writer.metadata["scopes"] = "\n".join(
        [
            '!0 = distinct !{!0, !"downslope"}',
            *(f'!{k} = distinct !{{!{k}, !0, !"downslope.{k}"}}' for k in numbers),
            *(f"!{_SCOPES + k} = !{{!{k}}}" for k in numbers),
            *(f"!{2 * _SCOPES + k} = !{{{', '.join(f'!{j}' for j in numbers if j != k)}}}" for k in numbers),
        ]
    )
    return f", !alias.scope !{_SCOPES + 1 + which}, !noalias !{2 * _SCOPES + 1 + which}"


_STORED = {"float32": "float", "float64": "double", "int64": "i64", "bfloat16": "i16", "float16": "half"}


def access(scalar: str, which: int | None = None, storage: str = "") -> tuple[Word, Word]:
    """Words for compiled code: `load(address, i)` and `store(address, i, value)`.

    Args:
        scalar: The type of one element, as compiled code works with it: "float32", "float64" or "int64".
        which: Which array of a slot this is, so that the compiler knows that the others do not overlap it; None
            makes no such promise.
        storage: What stands in memory: "bfloat16" or "float16", read exactly and written rounded to the nearest, ties
            to even, for a `scalar` of float32; otherwise the scalar itself. A bfloat16 is written of what is a number
            or came of `usual_nan`.
    """
    kind, stored = _STORED[scalar], _STORED[storage or scalar]

    def load(writer: Writer, arguments: Sequence[Value]) -> Value:
        address, i = arguments
        text = f"load {stored}, {writer.pointer(address, stored, i)}{mark(writer, which)}"
        return _widened(writer, writer.new(stored if storage else kind, text), storage)

    def store(writer: Writer, arguments: Sequence[Value]) -> None:
        address, i, value = arguments
        narrow = _narrowed(writer, writer.cast(value, kind), storage)
        writer.put(f"store {narrow}, {writer.pointer(address, stored, i)}{mark(writer, which)}")

    return Word(load), Word(store)


def _widened(writer: Writer, value: Value, storage: str) -> Value:
    if storage == "float16":
        if not converts_halves():
            return _widened_half(writer, value)
        return writer.new("float", f"fpext {value} to float")
    if storage == "bfloat16":  # the upper half of a float32
        wide = writer.new("i32", f"zext {value} to i32")
        bits = writer.new("i32", f"shl {wide}, 16")
        return writer.new("float", f"bitcast {bits} to float")
    return value


def _narrowed(writer: Writer, value: Value, storage: str, noise: Value | None = None) -> Value:
    """The value as it is stored: rounded to the nearest, or up with a probability that noise of 16 bits decides."""
    if storage == "float16":
        if not converts_halves():
            return _narrowed_half(writer, value)
        return writer.new("half", f"fptrunc {value} to half")
    if storage != "bfloat16":
        return value
    new = writer.new
    bits = new("i32", f"bitcast {value} to i32")
    if noise is not None:
        magnitude = new("i32", f"and {bits}, {0x7FFFFFFF}")
        infinite = new("i1", f"icmp eq {magnitude}, {0x7F800000}")
        lower = new("i32", f"and {noise}, {0xFFFF}")
        to_add = new("i32", f"select {infinite}, i32 0, {lower}")
    else:
        upper = new("i32", f"lshr {bits}, 16")
        last = new("i32", f"and {upper}, 1")
        to_add = new("i32", f"add {last}, {0x7FFF}")
    sum_ = new("i32", f"add {bits}, {to_add.text}")
    rounded = new("i32", f"lshr {sum_}, 16")
    return new("i16", f"trunc {rounded} to i16")


def _usual(writer: Writer, arguments: Sequence[Value]) -> Value:
    value = writer.cast(arguments[0], "float")
    strange = writer.new("i1", f"fcmp uno {value}, {value.text}")
    return writer.select(strange, number(float("nan"), "float"), value)


usual_nan = Word(_usual)
"""For compiled code: a float32, or the usual not-a-number in the place of any other. One is told from another by bits
that come from whoever made it, and rounding to a bfloat16 could carry these over into the sign, or leave nothing of
them. What is computed from the usual one, or from what a bfloat16 holds, can be rounded like any number: so this is
done once for what is loaded, rather than for everything that is stored."""


def _widened_half(writer: Writer, value: Value) -> Value:
    """Half precision as single, by its bits alone."""
    new = writer.new
    bits = new("i32", f"zext {new('i16', f'bitcast {value} to i16')} to i32")
    magnitude = new("i32", f"and {bits}, {0x7FFF}")
    moved = new("i32", f"shl {magnitude}, 13")
    normal = new("i32", f"add {moved}, {112 << 23}")
    special = new("i32", f"or {moved}, {0x7F800000}")
    quiet = new("i32", f"or {special}, {0x400000}")
    small = new("float", f"uitofp {magnitude} to float")
    small = new("float", f"fmul {small}, {number(2.0**-24, 'float').text}")
    small = new("i32", f"bitcast {small} to i32")
    found = new("i32", f"select {new('i1', f'icmp ult {magnitude}, {0x400}')}, {small}, {normal}")
    found = new("i32", f"select {new('i1', f'icmp uge {magnitude}, {0x7C00}')}, {special}, {found}")
    found = new("i32", f"select {new('i1', f'icmp ugt {magnitude}, {0x7C00}')}, {quiet}, {found}")
    sign = new("i32", f"shl {new('i32', f'and {bits}, {0x8000}')}, 16")
    return new("float", f"bitcast {new('i32', f'or {found}, {sign.text}')} to float")


def _narrowed_half(writer: Writer, value: Value) -> Value:
    """Single precision rounded to half, to the nearest, ties to even, by its bits."""
    new = writer.new
    bits = new("i32", f"bitcast {value} to i32")
    magnitude = new("i32", f"and {bits}, {0x7FFFFFFF}")
    last = new("i32", f"and {new('i32', f'lshr {magnitude}, 13')}, 1")
    rest = new("i32", f"add {last}, {0xFFF - (112 << 23)}")
    normal = new("i32", f"lshr {new('i32', f'add {magnitude}, {rest.text}')}, 13")
    half = number(0.5, "float")  # whose last bit is the last of the small numbers
    small = new("float", f"fadd {new('float', f'bitcast {magnitude} to float')}, {half.text}")
    small = new("i32", f"sub {new('i32', f'bitcast {small} to i32')}, {0x3F000000}")
    payload = new("i32", f"and {new('i32', f'lshr {magnitude}, 13')}, {0x3FF}")
    quiet = new("i32", f"or {payload}, {0x7E00}")
    found = new("i32", f"select {new('i1', f'icmp ult {magnitude}, {0x38800000}')}, {small}, {normal}")
    found = new("i32", f"select {new('i1', f'icmp uge {magnitude}, {0x47800000}')}, i32 {0x7C00}, {found}")
    found = new("i32", f"select {new('i1', f'icmp ugt {magnitude}, {0x7F800000}')}, {quiet}, {found}")
    sign = new("i32", f"and {new('i32', f'lshr {bits}, 16')}, {0x8000}")
    narrow = new("i16", f"trunc {new('i32', f'or {found}, {sign.text}')} to i16")
    return new("half", f"bitcast {narrow} to half")


def rounding(storage: str) -> Word:
    """For compiled code: a word that gives a float32 the value it will have once stored."""

    def rounded(writer: Writer, arguments: Sequence[Value]) -> Value:
        return _widened(writer, _narrowed(writer, arguments[0], storage), storage)

    return Word(rounded)


def dithered_store(which: int) -> Word:
    """For compiled code: `store(address, i, value, key)` of a bfloat16, rounded up or down at random.

    The probability of either neighbour is how near it is, so that the mean of what is stored is the value itself. The
    random number depends on `key` and `i` alone, whoever stores it and when. Source: Croci et al., "Stochastic
    rounding: implementation, error analysis and applications", 2022.
    """

    def store(writer: Writer, arguments: Sequence[Value]) -> None:
        address, i, value, key = arguments
        new = writer.new
        mixed = new("i64", f"xor {i}, {new('i64', f'lshr {key}, 32').text}")
        lower, upper = new("i32", f"trunc {mixed} to i32"), new("i64", f"lshr {i}, 32")
        bits = new("i32", f"xor {lower}, {new('i32', f'trunc {upper} to i32').text}")
        bits = new("i32", f"mul {bits}, {0x9E3779B1}")
        bits = new("i32", f"add {bits}, {new('i32', f'trunc {key} to i32').text}")
        for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 0)):
            bits = new("i32", f"xor {bits}, {new('i32', f'lshr {bits}, {shift}').text}")
            bits = new("i32", f"mul {bits}, {factor}") if factor else bits
        narrow = _narrowed(writer, writer.cast(value, "float"), "bfloat16", bits)
        writer.put(f"store {narrow}, {writer.pointer(address, 'i16', i)}{mark(writer, which)}")

    return Word(store)


def _ask(writer: Writer, arguments: Sequence[Value]) -> None:
    at = writer.new("ptr", f"inttoptr {arguments[0]} to ptr")
    flags = [number(value, "i32") for value in (0, 3, 1)]  # to read, to be kept, data
    writer.call("void", "llvm.prefetch.p0", [at, *flags], "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")


prefetch = Word(_ask)
"""For compiled code: ask for the cache line of an address, which need not be one that may be read."""

_, put_word = access("int64")


def address(array: np.ndarray[Any, Any]) -> int:
    """The address of an array's first element, read from the live object."""
    return int(array.__array_interface__["data"][0])


PAGE = 4096


def alongside(weights: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A new array of the weights' shape that begins where the weights begin within a page.

    A processor compares the lower 12 bits of addresses to see whether a load has to wait for an earlier store. With
    all arrays of a step at one place within their pages, it never takes one array for another.
    """
    if weights.nbytes < 16 * PAGE:
        return np.empty(weights.shape, dtype)
    memory = np.empty(weights.size * dtype.itemsize + PAGE, np.uint8)
    first = (address(weights) - address(memory)) % PAGE
    return memory[first : first + memory.size - PAGE].view(dtype).reshape(weights.shape)


def joined(spans: list[tuple[int, int, int]]) -> tuple[list[tuple[int, int]], bool]:
    """Stretches of memory in ascending order, and whether weights overlap.

    Args:
        spans: The first and last byte of everything that is held, and its column, 0 for weights.

    Raises:
        ValueError: A state overlaps something.
    """
    found: list[tuple[int, int]] = []
    shared, furthest = False, 0  # furthest: the column whose tensor reaches furthest so far
    for begin, end, column in sorted(spans):
        if found and begin < found[-1][1]:
            if column or furthest:
                raise ValueError("a state shares memory with weights or another state; give each a tensor of its own")
            shared = True
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
            furthest = column
    return found, shared
