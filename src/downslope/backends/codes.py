"""Words with which kernels read and write states in eight bits: see `downslope.targets.codes` for what these mean."""

from __future__ import annotations

from collections.abc import Sequence

from downslope.backends.compiler import Word
from downslope.backends.instructions import Value, Writer, number
from downslope.backends.memory import mark
from downslope.targets.codes import (
    BLOCK,
    CODES,
    FURTHER,
    GOLDEN,
    INFINITE,
    LEAST,
    MAGNITUDE,
    MIXED,
    MOST,
    TABLE,
    Code,
)


def reading(kind: str, which: int) -> Word:
    """A word `load(address, i, scale)`: the value of a code of the array number `which` of a slot."""
    code = CODES[kind]

    def load(writer: Writer, arguments: Sequence[Value]) -> Value:
        address, i, scale = arguments
        new = writer.new
        byte = new("i8", f"load i8, {writer.pointer(address, 'i8', i)}{mark(writer, which)}")
        wide = new("i32", f"{'sext' if code.signed else 'zext'} {byte} to i32")
        moved = new("i32", f"shl {wide}, {code.shift}")
        offset = number(code.offset, "i32")
        if code.signed:  # the sign has come to stand in front, and all between it and the magnitude is taken away
            kept = new("i32", f"and {moved}, {-0x80000000 | code.magnitudes << code.shift}")
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
    return writer.new("float", f"bitcast {writer.new('i32', f'and {bits}, {MAGNITUDE}')} to float")


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
        least = _smaller(writer, arguments[0], number(INFINITE, "i32"))  # with a nan's bits the sum may be negative
        up = new("i32", f"add {least}, {code.room}")
        bits = _larger(writer, new("i32", f"and {up}, {INFINITE}"), number(LEAST, "i32"))
        too_large = new("i1", f"icmp ugt {bits}, {MOST}")
        return writer.select(too_large, number(float("nan"), "float"), new("float", f"bitcast {bits} to float"))

    return Word(scale)


def _inverse(writer: Writer, arguments: Sequence[Value]) -> Value:
    bits = writer.new("i32", f"bitcast {arguments[0]} to i32")
    return writer.new("float", f"bitcast {writer.new('i32', f'sub i32 {254 << 23}, {bits.text}')} to float")


inverse = Word(_inverse)
"""For compiled code: one over a scale."""


def _make_noise(writer: Writer, arguments: Sequence[Value]) -> None:
    n = writer.new("i32", f"trunc {arguments[0]} to i32")
    bits = writer.new("i32", f"mul {n}, {GOLDEN}")
    for code in CODES.values():
        value = writer.new("i32", f"lshr {bits}, {32 - code.shift}")
        writer.put(f"store {value}, {_noise_at(writer, arguments[0], code)}")


def _noise_at(writer: Writer, n: Value, code: Code) -> str:
    room = writer.room(f"noise {code.shift}", "i32", TABLE + BLOCK)
    return str(writer.new("ptr", f"getelementptr inbounds i32, {room}, {n}"))


NOISE = TABLE + BLOCK
"""How many numbers have to be made before codes are written."""

make_noise = Word(_make_noise)
"""For compiled code: `make_noise(n)`, put the number `n` to round by in its place."""


def dither(which: int) -> Word:
    """A word `start(key, block)`: where the numbers begin by which a block of the state number `which` is rounded."""

    def start(writer: Writer, arguments: Sequence[Value]) -> Value:
        key, block = arguments
        new = writer.new
        mixed = new("i64", f"mul {key}, {number(MIXED * (2 * which + 1), 'i64').text}")
        further = new("i64", f"mul {block}, {FURTHER}")
        begun = new("i64", f"add {new('i64', f'lshr {mixed}, 40')}, {further.text}")
        return new("i64", f"and {begun}, {TABLE - 1}")

    return Word(start)


def writing(kind: str, which: int) -> Word:
    """A word `store(address, i, value, inverse, n)`: a value as a code of the array number `which` of a slot.

    For a code without sign the value has none; `n` is the place of the number to round by.
    """
    code = CODES[kind]

    def store(writer: Writer, arguments: Sequence[Value]) -> None:
        address, i, value, inverse, n = arguments
        new = writer.new
        noise = new("i32", f"load i32, {_noise_at(writer, n, code)}")
        bits = new("i32", f"bitcast {value} to i32")
        magnitude = new("i32", f"and {bits}, {MAGNITUDE}") if code.signed else bits
        scaled = new("float", f"fmul {new('float', f'bitcast {magnitude} to float')}, {inverse.text}")
        offset = new("float", f"bitcast i32 {code.offset} to float")
        z = new("i32", f"bitcast {new('float', f'fadd {scaled}, {offset.text}')} to i32")
        found = new("i32", f"lshr {new('i32', f'add {z}, {noise.text}')}, {code.shift}")
        if code.signed:  # in bytes, of which there are more in a register
            kept = new("i8", f"and {new('i8', f'trunc {found} to i8')}, {code.magnitudes}")
            below = new("i8", f"trunc {new('i32', f'ashr {bits}, 31')} to i8")
            byte = new("i8", f"or {kept}, {new('i8', f'and {below}, {~code.magnitudes}').text}")
        else:  # what is not zero has no code below 1
            least = new("i32", f"or {_smaller(writer, bits, number(1, 'i32'))}, {code.offset >> code.shift}")
            byte = new("i8", f"trunc {_larger(writer, found, least)} to i8")
        writer.put(f"store {byte}, {writer.pointer(address, 'i8', i)}{mark(writer, which)}")

    return Word(store)


def _larger(writer: Writer, left: Value, right: Value) -> Value:
    return writer.call("i32", "llvm.umax.i32", [left, right])


def _smaller(writer: Writer, left: Value, right: Value) -> Value:
    return writer.call("i32", "llvm.umin.i32", [left, right])
