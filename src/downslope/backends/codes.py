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
            moved = new("i32", f"and {moved}, {-0x80000000 | code.magnitudes << code.shift}")
        z = new("float", f"bitcast {new('i32', f'or {moved}, {offset.text}')} to float")
        z = new("float", f"fmul contract {z}, {scale.text}")
        c = new("float", f"fmul contract {new('float', f'bitcast {offset} to float')}, {scale.text}")
        if code.signed:
            sign = new("i32", f"and {wide}, {-0x80000000}")
            c = new("i32", f"or {new('i32', f'bitcast {c} to i32')}, {sign.text}")
            c = new("float", f"bitcast {c} to float")
        return new("float", f"fsub contract {z}, {c.text}")  # exact, as the products are: two of the three may be one

    return Word(load)


def _held_at(writer: Writer, name: str, i: Value) -> str:
    start = writer.room(name, "float", BLOCK)
    return str(writer.new("ptr", f"getelementptr inbounds float, {start}, {writer.cast(i, 'i64')}"))


def holding(name: str) -> Word:
    """A word `hold(i, value)`: keep a float32 in memory of a function's own, which has room for a block."""

    def hold(writer: Writer, arguments: Sequence[Value]) -> None:
        i, value = arguments
        writer.put(f"store {writer.cast(value, 'float')}, {_held_at(writer, name, i)}")

    return Word(hold)


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
        writer.put(f"store {writer.new('i32', f'sub {value}, {code.offset}')}, {_noise_at(writer, arguments[0], code)}")


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


MANY = 32
"""How many codes are written at a time."""

_LANES = 8


def writing(kind: str, which: int, name: str) -> tuple[Word, Word]:
    """Words `store(address, i, j, inverse, n)` and `store_many(...)`, which does it for `MANY` codes from there on.

    They write the held value number `j` of this name as the code number `i` of the array number `which` of a slot. For
    a code without sign the value has none; `n` is the place of the number to round by.
    """
    code = CODES[kind]

    def store(writer: Writer, arguments: Sequence[Value]) -> None:
        address, i, j, inverse, n = arguments
        found, other = _encoded(writer, code, name, j, inverse, n, 1)
        byte = _joined(writer, code, found, other, "i32", 1)
        byte = writer.new("i8", f"trunc {byte} to i8")
        writer.put(f"store {byte}, {writer.pointer(address, 'i8', i)}{mark(writer, which)}")

    def store_many(writer: Writer, arguments: Sequence[Value]) -> None:
        address, i, j, inverse, n = arguments
        parts = []
        for part in range(0, MANY, _LANES):
            here, there = (writer.combine("+", place, number(part, "i64")) for place in (j, n))
            parts.append(_encoded(writer, code, name, here, inverse, there, _LANES))
        founds, others = zip(*parts, strict=True)
        found, other = _bytes(writer, founds, code.magnitudes), _bytes(writer, others, -1)
        words = writer.new("<8 x i32>", f"bitcast {_joined(writer, code, found, other, 'i8', MANY)} to <8 x i32>")
        order = "<8 x i32> <i32 0, i32 4, i32 1, i32 5, i32 2, i32 6, i32 3, i32 7>"
        ordered = writer.new("<8 x i32>", f"shufflevector {words}, <8 x i32> poison, {order}")
        writer.put(f"store {ordered}, {writer.pointer(address, 'i8', i)}, align 1{mark(writer, which)}")

    return Word(store), Word(store_many)


def _vector(kind: str, lanes: int) -> str:
    return kind if lanes == 1 else f"<{lanes} x {kind}>"


def _constant(kind: str, value: int, lanes: int) -> str:
    return str(value) if lanes == 1 else f"<{', '.join([f'{kind} {value}'] * lanes)}>"


def _encoded(
    writer: Writer, code: Code, name: str, j: Value, inverse: Value, n: Value, lanes: int
) -> tuple[Value, Value]:
    """Magnitudes of the codes of held values; and numbers whose bit 7 is the sign, or bit 0 whether it is not zero."""
    new, ints, floats = writer.new, _vector("i32", lanes), _vector("float", lanes)
    bits = new(ints, f"load {ints}, {_held_at(writer, name, j)}, align 4")
    noise = new(ints, f"load {ints}, {_noise_at(writer, n, code)}, align 4")
    if lanes > 1:
        first = new(floats, f"insertelement {floats} poison, {inverse}, i32 0")
        inverse = new(floats, f"shufflevector {first}, {floats} poison, {ints} zeroinitializer")
    size = new(ints, f"and {bits}, {_constant('i32', MAGNITUDE, lanes)}") if code.signed else bits
    scaled = new(floats, f"fmul contract {new(floats, f'bitcast {size} to {floats}')}, {inverse.text}")
    offset = new(floats, f"bitcast {ints} {_constant('i32', code.offset, lanes)} to {floats}")
    z = new(ints, f"bitcast {new(floats, f'fadd contract {scaled}, {offset.text}')} to {ints}")  # exact but for the sum
    found = new(ints, f"lshr {new(ints, f'add {z}, {noise.text}')}, {_constant('i32', code.shift, lanes)}")
    found = new(ints, f"and {found}, {_constant('i32', code.magnitudes, lanes)}") if lanes == 1 else found
    if code.signed:
        return found, new(ints, f"lshr {bits}, {_constant('i32', 24, lanes)}")
    some = new(_vector("i1", lanes), f"icmp ne {bits}, {_constant('i32', 0, lanes)}")
    return found, new(ints, f"sext {some} to {ints}")


def _joined(writer: Writer, code: Code, found: Value, other: Value, kind: str, lanes: int) -> Value:
    """Codes, of what `_encoded` gives."""
    whole, bit = _vector(kind, lanes), 0xFF & ~code.magnitudes if code.signed else 1
    below = writer.new(whole, f"and {other}, {_constant(kind, bit, lanes)}")
    if code.signed:
        return writer.new(whole, f"or {found}, {below.text}")
    return writer.call(whole, f"llvm.umax.{kind if lanes == 1 else f'v{lanes}{kind}'}", [found, below])


def _bytes(writer: Writer, parts: Sequence[Value], kept: int) -> Value:
    """The lowest bytes of 32 integers and what bits of them are `kept`, in an order of their own.

    It is that in which processors with 32 bytes to a register make one of two, by one instruction.
    """
    for kind, count in (("i16", 16), ("i8", 32)):
        if kind == "i8":
            parts = [writer.new("<16 x i16>", f"and {part}, {_constant('i16', kept, 16)}") for part in parts]
        whole, quarter = f"<{count} x {kind}>", count // 4
        order = [side + 2 * (half * quarter + k) for half in (0, 1) for side in (0, count) for k in range(quarter)]
        mask = f"<{count} x i32> <{', '.join(f'i32 {k}' for k in order)}>"
        same = [writer.new(whole, f"bitcast {part} to {whole}") for part in parts]
        pairs = zip(same[::2], same[1::2], strict=True)
        parts = [writer.new(whole, f"shufflevector {a}, {b}, {mask}") for a, b in pairs]
    return parts[0]


def _larger(writer: Writer, left: Value, right: Value) -> Value:
    return writer.call("i32", "llvm.umax.i32", [left, right])


def _smaller(writer: Writer, left: Value, right: Value) -> Value:
    return writer.call("i32", "llvm.umin.i32", [left, right])
