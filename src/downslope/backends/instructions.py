"""LLVM's instructions: the text of one function, written one instruction after another.

A value's type is `i1`, `i64`, `float` or `double`; other integers and `half` are what some instructions make and take.
An address has the type of what it leads to and a star, `i64*`, and is an integer of 64 bits until it is used. Nothing
here knows what the instructions are for, nor what they are made from.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

_BYTES = {"i64*": 8, "i32*": 4, "float*": 4, "double*": 8}
_OPERATIONS = {
    "+": ("add", "fadd"),
    "-": ("sub", "fsub"),
    "*": ("mul", "fmul"),
    "/": ("", "fdiv"),
    "//": ("sdiv", ""),  # of numbers that are not negative
    "&": ("and", ""),
    "|": ("or", ""),
    "^": ("xor", ""),
    "<<": ("shl", ""),
    ">>": ("lshr", ""),
}
_COMPARISONS = {
    "<": ("slt", "olt"),
    "<=": ("sle", "ole"),
    ">": ("sgt", "ogt"),
    ">=": ("sge", "oge"),
    "==": ("eq", "oeq"),
    "!=": ("ne", "une"),
}
_CONVERSIONS = {
    ("i1", "i64"): "zext",
    ("i1", "float"): "uitofp",
    ("i1", "double"): "uitofp",
    ("i64", "float"): "sitofp",
    ("i64", "double"): "sitofp",
    ("float", "double"): "fpext",
    ("double", "float"): "fptrunc",
    ("float", "i64"): "fptosi",
    ("double", "i64"): "fptosi",
    ("i32", "i64"): "sext",
}
_INTRINSICS = {"sqrt": "sqrt", "exp": "exp", "log": "log", "pow": "pow", "abs": "fabs"}
_CALLED = ("expm1", "tanh", "sin", "cos")
OF_THE_C_LIBRARY = tuple(f"{name}{end}" for name in ("exp", "log", "pow", *_CALLED) for end in ("", "f"))
"""Functions that compiled code calls."""


@dataclass(frozen=True)
class Value:
    """A value in a register, or a constant: its type and its text."""

    type: str
    text: str

    def __str__(self) -> str:
        return f"{machine_type(self.type)} {self.text}"


@dataclass(frozen=True)
class Variable:
    """A place in memory of a value that may change: its type and its address."""

    type: str
    place: str


def machine_type(kind: str) -> str:
    """How LLVM calls a type: an address is an integer until it is used."""
    return "i64" if kind.endswith("*") else kind


def common_type(left: Value, right: Value) -> str:
    """What two values become before they are combined: an integer and a float both double, two floats the wider."""
    kinds = {"i64" if value.type == "i1" else machine_type(value.type) for value in (left, right)}
    return kinds.pop() if len(kinds) == 1 else "double"


def number(value: float, kind: str) -> Value:
    """A constant."""
    if kind == "i1":
        return Value(kind, "true" if value else "false")
    if kind not in ("float", "double"):
        return Value(kind, str((int(value) + 2**63) % 2**64 - 2**63))
    if kind == "float":
        try:
            value = struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return Value(kind, f"0x{struct.pack('>d', value).hex()}")


class Writer:
    """Writes the instructions of one function.

    Attributes:
        declared: The functions it calls that are elsewhere: by name, how they are declared.
        metadata: What its instructions refer to: by name, the text.
    """

    def __init__(self, flags: str = ""):
        """Begin; sums may be written with these flags, "reassoc" or none."""
        self.declared: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._flags = flags
        self._lines: list[str] = []
        self._places: list[str] = []
        self._rooms: dict[str, str] = {}
        self._count = 0

    def function(self, name: str, arguments: Sequence[tuple[str, str]], returns: str, *, exported: bool) -> str:
        """The text of the function.

        Args:
            name: Its name.
            arguments: Names and types.
            returns: The type of what it returns, or "void".
            exported: Whether it can be called from outside.
        """
        taken = ", ".join(f"{machine_type(kind)} %{argument}" for argument, kind in arguments)
        linkage, more = ("", " noinline") if exported else ("internal ", "")
        head = f"define {linkage}{machine_type(returns)} @{name}({taken}) nounwind{more} {{"
        return "\n".join([head, "entry:", *self._places, *self._lines, "}"])

    def put(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append(f"  {text}")

    def new(self, kind: str, text: str) -> Value:
        """The result of an instruction."""
        self._count += 1
        self._lines.append(f"  %r{self._count} = {text}")
        return Value(kind, f"%r{self._count}")

    # ---- where to go on

    def label(self) -> str:
        """A place to jump to that has not been reached yet."""
        self._count += 1
        return f"b{self._count}"

    def reach(self, label: str) -> None:
        """Go on at a place; what was written last has to end with a jump."""
        self._lines.append(f"{label}:")

    def jump(self, label: str) -> None:
        """Jump to a place."""
        self.put(f"br label %{label}")

    def branch(self, test: Value, then: str, otherwise: str) -> None:
        """Jump to one place if this is true, else to another."""
        self.put(f"br i1 {test.text}, label %{then}, label %{otherwise}")

    def leave(self, value: Value | None = None) -> None:
        """Return."""
        self.put("ret void" if value is None else f"ret {value}")

    # ---- memory

    def variable(self, kind: str) -> Variable:
        """A new variable."""
        self._count += 1
        place = f"%v.{self._count}"
        self._places.append(f"  {place} = alloca {machine_type(kind)}")
        return Variable(kind, place)

    def room(self, name: str, kind: str, count: int) -> str:
        """Memory of the function's own for so many elements, the same for one name."""
        if name not in self._rooms:
            self._count += 1
            self._rooms[name] = f"%v.{self._count}"
            self._places.append(f"  {self._rooms[name]} = alloca [{count} x {kind}], align 64")
        return f"ptr {self._rooms[name]}"

    def set(self, variable: Variable, value: Value) -> None:
        """Give a variable a value."""
        self.put(f"store {self.cast(value, variable.type)}, ptr {variable.place}")

    def get(self, variable: Variable) -> Value:
        """What a variable holds."""
        return self.new(variable.type, f"load {machine_type(variable.type)}, ptr {variable.place}")

    def pointer(self, address: Value, kind: str, index: Value | None = None) -> str:
        """The operand for a load or store of the element with this index."""
        start = self.new("ptr", f"inttoptr i64 {address.text} to ptr")
        if index is not None:
            start = self.new("ptr", f"getelementptr inbounds {kind}, {start}, {self.cast(index, 'i64')}")
        return str(start)

    def load(self, address: Value, index: Value) -> Value:
        """The element with this index."""
        kind = address.type.removesuffix("*")
        loaded = self.new(kind, f"load {kind}, {self.pointer(address, kind, index)}")
        return self.cast(loaded, "i64") if kind == "i32" else loaded

    def store(self, address: Value, index: Value, value: Value) -> None:
        """Set the element with this index."""
        kind = address.type.removesuffix("*")
        at = self.pointer(address, kind, index)
        self.put(f"store {self.cast(value, kind)}, {at}")

    # ---- calls

    def call(self, kind: str, name: str, arguments: Sequence[Value], declared: str = "") -> Value:
        """Call a function that is elsewhere."""
        types = ", ".join(machine_type(a.type) for a in arguments)
        self.declared[name] = declared or f"declare {kind} @{name}({types})"
        return self.result(kind, f"@{name}", arguments)

    def call_at(self, address: Value, arguments: Sequence[Value]) -> Value:
        """Call the function at an address, of whole numbers."""
        function = self.new("ptr", f"inttoptr i64 {address.text} to ptr")
        return self.result("i64", function.text, [self.cast(value, "i64") for value in arguments])

    def result(self, kind: str, function: str, arguments: Sequence[Value]) -> Value:
        """What a function returns."""
        text = f"call {machine_type(kind)} {function}({', '.join(map(str, arguments))})"
        if kind == "void":
            self.put(text)
            return Value("void", "")
        return self.new(kind, text)

    # ---- arithmetic

    def cast(self, value: Value, kind: str) -> Value:
        """The value as one of another type."""
        here, there = machine_type(value.type), machine_type(kind)
        if here == there:
            return Value(kind, value.text)
        if there == "i1":
            return self.compare("!=", value, number(0, "i64"))
        return self.new(kind, f"{_CONVERSIONS[here, there]} {value} to {there}")

    def combine(self, operation: str, left: Value, right: Value) -> Value:
        """What an operation, such as "+", makes of two values."""
        if left.type in _BYTES and operation == "+":  # so many elements further
            far = self.combine("*", right, number(_BYTES[left.type], "i64"))
            return self.new(left.type, f"add i64 {left.text}, {far.text}")
        kind = common_type(left, right)
        if operation == "/" and kind == "i64":
            kind = "double"
        left, right = self.cast(left, kind), self.cast(right, kind)
        whole, broken = _OPERATIONS[operation]
        how = whole if kind == "i64" else f"{broken} {self._flags}".rstrip()
        return self.new(kind, f"{how} {left}, {right.text}")

    def compare(self, comparison: str, left: Value, right: Value) -> Value:
        """Whether two values compare so, such as "<"."""
        kind = common_type(left, right)
        left, right = self.cast(left, kind), self.cast(right, kind)
        whole, broken = _COMPARISONS[comparison]
        how = f"icmp {whole}" if kind == "i64" else f"fcmp {broken}"
        return self.new("i1", f"{how} {left}, {right.text}")

    def both(self, first: Value, second: Value) -> Value:
        """Whether both are true."""
        return self.new("i1", f"and {first}, {second.text}")

    def opposite(self, value: Value) -> Value:
        """Whether it is false, or 0."""
        return self.new("i1", f"xor {self.cast(value, 'i1')}, true")

    def negative(self, value: Value) -> Value:
        """The value with the other sign."""
        if value.type in ("float", "double"):
            return self.new(value.type, f"fneg {value}")
        return self.combine("-", number(0, "i64"), value)

    def select(self, test: Value, then: Value, otherwise: Value) -> Value:
        """One value if this is true, else the other."""
        return self.new(then.type, f"select {test}, {then}, {otherwise}")

    def function_of(self, name: str, arguments: Sequence[Value]) -> Value:
        """A function of mathematics, of floats, in double precision if one of them is double."""
        if any(value.type == "double" for value in arguments):
            arguments = [self.cast(value, "double") for value in arguments]
        kind, first = arguments[0].type, arguments[0]
        if name in _CALLED:
            return self.call(kind, f"{name}f" if kind == "float" else name, arguments)
        if name == "sign":
            zero, one, less = (number(value, kind) for value in (0.0, 1.0, -1.0))
            up, down = self.compare(">", first, zero), self.compare("<", first, zero)
            return self.select(up, one, self.select(down, less, first))
        if name in ("maximum", "minimum"):
            keep = self.compare(">=" if name == "maximum" else "<=", first, arguments[1])
            odd = self.new("i1", f"fcmp uno {first}, {first.text}")
            return self.select(self.new("i1", f"or {keep}, {odd.text}"), first, arguments[1])
        assert name in _INTRINSICS, name
        return self.call(kind, f"llvm.{_INTRINSICS[name]}.{'f32' if kind == 'float' else 'f64'}", arguments)
