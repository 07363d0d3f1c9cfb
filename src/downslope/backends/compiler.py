"""A small subset of Python, compiled to LLVM's assembly: what a kernel and the code around it are written in.

A function has an annotation for every argument and for what it returns: `int64`, `float32`, `float64`, `boolean`, or
the address of many of them, `words`, `halves`, `singles`, `doubles`, which are read and written as `words[i]`. What has
no annotation is `float64`, and a function that does not say what it returns is written wherever it is called.

There are assignments, `if`, `while`, `for ... in range(...)`, `continue`, `return`, arithmetic, comparisons, calls. A
variable has the type of what it is first given. Of an integer and any float comes a `float64`, of two floats the wider.
Nothing is re-associated, and nothing is checked. Names that are no variables are the module's: numbers, other functions
of the same library, and `Word`s, for which instructions are written in their place.
"""

from __future__ import annotations

import ast
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

T = TypeVar("T", int, float)


class Address(Generic[T]):
    """The address of many numbers, as a type checker sees it: outside of compiled code there is none.

    Raises:
        NotImplementedError: Python has come to run what is written for the compiler.
    """

    def __init__(self, at: int | Address[int]):
        """The numbers that begin at this address."""
        only_compiled()

    def __add__(self, elements: int) -> Address[T]:
        only_compiled()

    def __getitem__(self, i: int) -> T:
        only_compiled()

    def __setitem__(self, i: int, value: T) -> None:
        only_compiled()


def only_compiled() -> NoReturn:
    """Refuse to do in Python what only compiled code can."""
    raise NotImplementedError("this is for compiled code; make it a function of a Library and call that")


words: TypeAlias = Address[int]
"""The address of integers of 64 bits."""
halves: TypeAlias = Address[int]
"""The address of integers of 32 bits, which are read with their sign."""
singles: TypeAlias = Address[float]
"""The address of numbers of single precision."""
doubles: TypeAlias = Address[float]
"""The address of numbers of double precision."""
int64: TypeAlias = int
boolean: TypeAlias = bool
float32: TypeAlias = float
float64: TypeAlias = float


def call(function: int, *arguments: int | Address[int]) -> int:
    """In compiled code: call the function at an address with whole numbers; what it returns."""
    only_compiled()


TYPES = {
    "int64": "i64",
    "boolean": "i1",
    "float32": "float",
    "float64": "double",
    "words": "i64*",
    "halves": "i32*",
    "singles": "float*",
    "doubles": "double*",
    "None": "void",
}
"""The types by the names that annotations give them, and what they are called here; an address with a star."""

_WIDTHS = {"i64*": 8, "i32*": 4, "float*": 4, "double*": 8}
_OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("add", "fadd"),
    ast.Sub: ("sub", "fsub"),
    ast.Mult: ("mul", "fmul"),
    ast.Div: ("", "fdiv"),
    ast.FloorDiv: ("sdiv", ""),  # of numbers that are not negative
    ast.BitAnd: ("and", ""),
    ast.BitOr: ("or", ""),
    ast.BitXor: ("xor", ""),
    ast.LShift: ("shl", ""),
    ast.RShift: ("lshr", ""),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("slt", "olt"),
    ast.LtE: ("sle", "ole"),
    ast.Gt: ("sgt", "ogt"),
    ast.GtE: ("sge", "oge"),
    ast.Eq: ("eq", "oeq"),
    ast.NotEq: ("ne", "une"),
}
_INTRINSICS = ("sqrt", "exp", "log", "pow")
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
class Word:
    """A function for which a writer puts instructions in its place; see `Writer` for what they are written with."""

    write: Callable[[Writer, Sequence[Value]], Value | None]

    def __call__(self, *arguments: Any) -> Any:
        """Only compiled code can say it."""
        only_compiled()


def machine_type(kind: str) -> str:
    """How LLVM calls a type: an address is an integer until it is used."""
    return "i64" if kind.endswith("*") else kind


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


@dataclass(frozen=True)
class Function:
    """A function to be compiled.

    Attributes:
        name: Its name.
        tree: What it says.
        scope: The names of its module.
        exported: Whether it can be called from outside, by its address.
        flags: How its sums may be written, "reassoc" or nothing.
    """

    name: str
    tree: ast.FunctionDef
    scope: Mapping[str, Any]
    exported: bool = False
    flags: str = ""

    @property
    def in_place(self) -> bool:
        """Whether it is written wherever it is called: it does not say what it returns."""
        return self.tree.returns is None

    @property
    def arguments(self) -> list[tuple[str, str]]:
        """Names and types of the arguments."""
        return [(arg.arg, _annotated(arg.annotation)) for arg in self.tree.args.args]

    @property
    def returns(self) -> str:
        """The type of what it returns."""
        return _annotated(self.tree.returns)


def _annotated(annotation: ast.expr | None) -> str:
    return TYPES[ast.unparse(annotation)] if annotation is not None else "double"


def assembly(functions: Sequence[Function]) -> str:
    """The text of a module with these functions."""
    texts: list[str] = []
    declared: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for function in functions:
        if function.in_place:
            continue
        writer = Writer(function, {other.name: other for other in functions})
        texts.append(writer.whole())
        declared |= writer.declared
        metadata |= writer.metadata
    return "\n".join([*texts, *declared.values(), *metadata.values()])


class Writer:
    """Writes one function."""

    def __init__(self, function: Function, others: Mapping[str, Function]):
        self.function, self.others = function, others
        self.scope = function.scope
        self.flags = f"{function.flags} " if function.flags else ""
        self.lines: list[str] = []
        self.places: list[str] = []
        self.variables: dict[str, tuple[str, str] | tuple[Value, ...]] = {}
        self.declared: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self.count = 0
        self.next: list[str] = []  # where `continue` goes
        self.given: list[tuple[Value, ...]] = []  # what a function written in place returns

    # ---- instructions

    def put(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def new(self, kind: str, text: str) -> Value:
        """The result of an instruction."""
        self.count += 1
        self.lines.append(f"  %r{self.count} = {text}")
        return Value(kind, f"%r{self.count}")

    def label(self) -> str:
        """A place to jump to that has not been reached yet."""
        self.count += 1
        return f"b{self.count}"

    def reach(self, label: str, *, jump: bool = True) -> None:
        """Go on at a place, from what is written so far too."""
        if jump:
            self.put(f"br label %{label}")
        self.lines.append(f"{label}:")

    def pointer(self, address: Value, kind: str, index: Value | None = None) -> str:
        """The operand for a load or store of the element with this index."""
        start = self.new("ptr", f"inttoptr i64 {address.text} to ptr")
        if index is not None:
            start = self.new("ptr", f"getelementptr inbounds {kind}, {start}, {self.cast(index, 'i64')}")
        return str(start)

    def call(self, kind: str, name: str, arguments: Sequence[Value], declared: str = "") -> Value:
        """Call a function that is elsewhere."""
        types = ", ".join(machine_type(a.type) for a in arguments)
        self.declared[name] = declared or f"declare {kind} @{name}({types})"
        return self.result(kind, f"@{name}", arguments)

    def result(self, kind: str, function: str, arguments: Sequence[Value]) -> Value:
        """What a function returns."""
        text = f"call {machine_type(kind)} {function}({', '.join(map(str, arguments))})"
        if kind == "void":
            self.put(text)
            return Value("void", "")
        return self.new(kind, text)

    def cast(self, value: Value, kind: str) -> Value:
        """The value as one of another type."""
        here, there = machine_type(value.type), machine_type(kind)
        if here == there:
            return Value(kind, value.text)
        if there == "i1":
            return self.compared(ast.NotEq(), value, Value("i64", "0"))
        how = {
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
        }[here, there]
        return self.new(kind, f"{how} {value} to {there}")

    # ---- functions and statements

    def whole(self) -> str:
        """The text of the function."""
        function = self.function
        for name, kind in function.arguments:
            self.assign(name, Value(kind, f"%{name}"))
        self.block(function.tree.body)
        self.put("ret void" if function.returns == "void" else f"ret {number(0, machine_type(function.returns))}")
        arguments = ", ".join(f"{machine_type(kind)} %{name}" for name, kind in function.arguments)
        linkage, more = ("", " noinline") if function.exported else ("internal ", "")
        head = f"define {linkage}{machine_type(function.returns)} @{function.name}({arguments}) nounwind{more} {{"
        return "\n".join([head, "entry:", *self.places, *self.lines, "}"])

    def block(self, statements: Sequence[ast.stmt]) -> None:
        """A list of statements."""
        for statement in statements:
            getattr(self, f"_{type(statement).__name__.lower()}")(statement)

    def assign(self, name: str, value: Value) -> None:
        """Give a variable a value."""
        known = self.variables.get(name)
        if known is None or not isinstance(known[0], str):
            self.count += 1
            known = (value.type, f"%v.{self.count}")
            self.places.append(f"  {known[1]} = alloca {machine_type(value.type)}")
            self.variables[name] = known
        kind, place = known
        assert isinstance(place, str)
        assert isinstance(kind, str)
        self.put(f"store {self.cast(value, kind)}, ptr {place}")

    def _assign(self, statement: ast.Assign) -> None:
        (target,) = statement.targets
        if isinstance(target, ast.Tuple):
            assert isinstance(statement.value, ast.Tuple)
            pairs = list(zip(target.elts, map(self.value, statement.value.elts), strict=True))
        elif isinstance(target, ast.Name) and self._in_place(statement.value):
            self.variables[target.id] = self._written_in_place(statement.value)
            return
        else:
            pairs = [(target, self.value(statement.value))]
        for place, value in pairs:
            self._store(place, value)

    def _store(self, place: ast.expr, value: Value) -> None:
        if isinstance(place, ast.Name):
            self.assign(place.id, value)
            return
        assert isinstance(place, ast.Subscript)
        address = self.value(place.value)
        kind = address.type.removesuffix("*")
        at = self.pointer(address, kind, self.value(place.slice))
        self.put(f"store {self.cast(value, kind)}, {at}")

    def _augassign(self, statement: ast.AugAssign) -> None:
        before = self.value(statement.target)
        after = self.combined(statement.op, before, self.value(statement.value))
        self._store(statement.target, self.cast(after, before.type))

    def _expr(self, statement: ast.Expr) -> None:
        if not isinstance(statement.value, ast.Constant):  # not its description
            self.value(statement.value)

    def _pass(self, statement: ast.Pass) -> None:
        pass

    def _if(self, statement: ast.If) -> None:
        then, otherwise, after = self.label(), self.label(), self.label()
        self.branch(statement.test, then, otherwise)
        for label, body in ((then, statement.body), (otherwise, statement.orelse)):
            self.reach(label, jump=False)
            self.block(body)
            self.put(f"br label %{after}")
        self.reach(after, jump=False)

    def _while(self, statement: ast.While) -> None:
        again, inside, after = self.label(), self.label(), self.label()
        self.reach(again)
        self.branch(statement.test, inside, after)
        with self._looping(inside, again, after):
            self.block(statement.body)

    def _for(self, statement: ast.For) -> None:
        assert isinstance(statement.iter, ast.Call)
        assert isinstance(statement.target, ast.Name)
        bounds = [self.cast(self.value(arg), "i64") for arg in statement.iter.args]
        start, stop = (Value("i64", "0"), bounds[0]) if len(bounds) == 1 else bounds[:2]
        step = bounds[2] if len(bounds) == 3 else Value("i64", "1")
        test, inside, advance, after = self.label(), self.label(), self.label(), self.label()
        self.count += 1
        counter = f"counter {self.count}"  # no name of a variable
        self.assign(counter, start)
        self.reach(test)
        here = self._variable(counter)
        self.put(f"br i1 {self.compared(ast.Lt(), here, stop).text}, label %{inside}, label %{after}")
        with self._looping(inside, advance, after, test):
            self.assign(statement.target.id, here)
            self.block(statement.body)
            self.reach(advance)
            self.assign(counter, self.new("i64", f"add nsw i64 {self._variable(counter).text}, {step.text}"))

    @contextmanager
    def _looping(self, inside: str, next_: str, after: str, test: str = "") -> Iterator[None]:
        self.reach(inside, jump=False)
        self.next.append(next_)
        yield
        self.next.pop()
        self.put(f"br label %{test or next_}")
        self.reach(after, jump=False)

    def _continue(self, statement: ast.Continue) -> None:
        self.put(f"br label %{self.next[-1]}")
        self.reach(self.label(), jump=False)

    def _return(self, statement: ast.Return) -> None:
        if statement.value is None:
            self.put("ret void")
        else:
            self.put(f"ret {self.cast(self.value(statement.value), self.function.returns)}")
        self.reach(self.label(), jump=False)

    def _in_place(self, call: ast.expr) -> bool:
        return (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in self.others
            and self.others[call.func.id].in_place
        )

    def _written_in_place(self, call: ast.expr) -> tuple[Value, ...]:
        """What a function returns that does not say what: all that its last line lists, of double precision."""
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        function, outside = self.others[call.func.id], self.variables
        values = [self.cast(self.value(arg), "double") for arg in call.args]
        self.variables = {}
        for (name, _), value in zip(function.arguments, values, strict=True):
            self.assign(name, value)
        *before, last = function.tree.body
        self.block(before)
        assert isinstance(last, ast.Return)
        assert isinstance(last.value, ast.Tuple)
        found = tuple(self.value(element) for element in last.value.elts)
        self.variables = outside
        return found

    # ---- expressions

    def value(self, e: ast.expr) -> Value:
        """The value of an expression."""
        found: Value = getattr(self, f"_{type(e).__name__.lower()}")(e)
        return found

    def _constant(self, e: ast.Constant) -> Value:
        value: Any = e.value
        return number(value, {bool: "i1", int: "i64", float: "double"}[type(value)])

    def _name(self, e: ast.Name) -> Value:
        if e.id in self.variables:
            return self._variable(e.id)
        value = self.scope[e.id]
        return number(value, "double" if isinstance(value, float) else "i64")

    def _variable(self, name: str) -> Value:
        kind, place = self.variables[name]
        assert isinstance(kind, str)
        return self.new(kind, f"load {machine_type(kind)}, ptr {place}")

    def _subscript(self, e: ast.Subscript) -> Value:
        if isinstance(e.value, ast.Name) and isinstance(e.slice, ast.Constant):
            listed = self.variables.get(e.value.id, ())
            if listed and isinstance(listed[0], Value):
                value = listed[int(str(e.slice.value))]
                assert isinstance(value, Value)
                return value
        address = self.value(e.value)
        kind = address.type.removesuffix("*")
        loaded = self.new(kind, f"load {kind}, {self.pointer(address, kind, self.value(e.slice))}")
        return self.cast(loaded, "i64") if kind == "i32" else loaded

    def _binop(self, e: ast.BinOp) -> Value:
        return self.combined(e.op, self.value(e.left), self.value(e.right))

    def combined(self, op: ast.operator, left: Value, right: Value) -> Value:
        """What an operator makes of two values."""
        if left.type in _WIDTHS and isinstance(op, ast.Add):  # so many elements further
            far = self.combined(ast.Mult(), right, Value("i64", str(_WIDTHS[left.type])))
            return self.new(left.type, f"add i64 {left.text}, {far.text}")
        kind = self._common(left, right)
        if isinstance(op, ast.Div) and kind == "i64":
            kind = "double"
        left, right = self.cast(left, kind), self.cast(right, kind)
        if isinstance(op, ast.Pow):
            return self._intrinsic("pow", [left, right])
        whole, broken = _OPERATORS[type(op)]
        how = whole if kind == "i64" else f"{broken} {self.flags}".rstrip()
        return self.new(kind, f"{how} {left}, {right.text}")

    @staticmethod
    def _common(left: Value, right: Value) -> str:
        kinds = {left.type if left.type != "i1" else "i64", right.type if right.type != "i1" else "i64"}
        kinds = {"i64" if kind.endswith("*") else kind for kind in kinds}
        return kinds.pop() if len(kinds) == 1 else "double"

    def _unaryop(self, e: ast.UnaryOp) -> Value:
        value = self.value(e.operand)
        if isinstance(e.op, ast.Not):
            return self.new("i1", f"xor {self.cast(value, 'i1')}, true")
        if value.type in ("float", "double"):
            return self.new(value.type, f"fneg {value}")
        return self.combined(ast.Sub(), Value("i64", "0"), value)

    def _compare(self, e: ast.Compare) -> Value:
        operands = [self.value(e.left), *map(self.value, e.comparators)]
        found = [self.compared(op, *operands[k : k + 2]) for k, op in enumerate(e.ops)]
        first = found[0]
        for other in found[1:]:
            first = self.new("i1", f"and {first}, {other.text}")
        return first

    def compared(self, op: ast.cmpop, left: Value, right: Value) -> Value:
        """Whether two values compare so."""
        kind = self._common(left, right)
        left, right = self.cast(left, kind), self.cast(right, kind)
        whole, broken = _COMPARISONS[type(op)]
        how = f"icmp {whole}" if kind == "i64" else f"fcmp {broken}"
        return self.new("i1", f"{how} {left}, {right.text}")

    def branch(self, test: ast.expr, then: str, otherwise: str) -> None:
        """Jump to one place or another."""
        if isinstance(test, ast.BoolOp):
            *first, last = test.values
            for part in first:
                more = self.label()
                self.branch(part, *((more, otherwise) if isinstance(test.op, ast.And) else (then, more)))
                self.reach(more, jump=False)
            self.branch(last, then, otherwise)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.branch(test.operand, otherwise, then)
        else:
            value = self.cast(self.value(test), "i1")
            self.put(f"br i1 {value.text}, label %{then}, label %{otherwise}")

    def _boolop(self, e: ast.BoolOp) -> Value:
        return self._chosen(e, ast.Constant(True), ast.Constant(False))

    def _ifexp(self, e: ast.IfExp) -> Value:
        return self._chosen(e.test, e.body, e.orelse)

    def _chosen(self, test: ast.expr, first: ast.expr, second: ast.expr) -> Value:
        then, otherwise, after = self.label(), self.label(), self.label()
        self.count += 1
        chosen = f"chosen {self.count}"  # no name of a variable
        self.branch(test, then, otherwise)
        for label, e in ((then, first), (otherwise, second)):
            self.reach(label, jump=False)
            self.assign(chosen, self.value(e))
            self.put(f"br label %{after}")
        self.reach(after, jump=False)
        return self._variable(chosen)

    def _call(self, e: ast.Call) -> Value:
        name = e.func.id if isinstance(e.func, ast.Name) else ast.unparse(e.func).removeprefix("np.")
        arguments = [self.value(arg) for arg in e.args]
        if isinstance(e.func, ast.Attribute) and name == "sign":  # which knows no negative zero
            arguments = [self.combined(ast.Add(), arguments[0], number(0.0, "double"))]
        word = self.scope.get(name)
        if isinstance(word, Word):
            return word.write(self, arguments) or Value("void", "")
        if name in self.others:
            function = self.others[name]
            cast = [self.cast(v, kind) for v, (_, kind) in zip(arguments, function.arguments, strict=True)]
            return self.result(function.returns, f"@{name}", cast)
        if name in TYPES:
            return self.cast(arguments[0], TYPES[name])
        if name == "call":
            return self._indirect(arguments)
        if name in ("min", "max"):
            less = self.compared(ast.Lt() if name == "min" else ast.Gt(), *arguments)
            return self.new(arguments[0].type, f"select {less}, {arguments[0]}, {arguments[1]}")
        if name == "abs":
            kind = arguments[0].type
            return self.call(kind, f"llvm.fabs.{'f32' if kind == 'float' else 'f64'}", arguments)
        return self._mathematical(name, arguments)

    def _indirect(self, arguments: Sequence[Value]) -> Value:
        """Call the function at an address, with whole numbers."""
        address, *rest = arguments
        function = self.new("ptr", f"inttoptr i64 {address.text} to ptr")
        return self.result("i64", function.text, [self.cast(value, "i64") for value in rest])

    def _mathematical(self, name: str, arguments: Sequence[Value]) -> Value:
        wide = any(v.type == "double" for v in arguments)
        arguments = [self.cast(v, "double" if wide else v.type) for v in arguments]
        kind = arguments[0].type
        if name in _INTRINSICS:
            return self._intrinsic(name, arguments)
        if name in _CALLED:
            return self.call(kind, f"{name}f" if kind == "float" else name, arguments)
        first = arguments[0]
        if name == "sign":
            zero, one, less = (number(v, kind) for v in (0.0, 1.0, -1.0))
            up, down = self.compared(ast.Gt(), first, zero), self.compared(ast.Lt(), first, zero)
            negative = self.new(kind, f"select {down}, {less}, {first}")
            return self.new(kind, f"select {up}, {one}, {negative}")
        assert name in ("maximum", "minimum"), name
        keep = self.compared(ast.GtE() if name == "maximum" else ast.LtE(), first, arguments[1])
        odd = self.new("i1", f"fcmp uno {first}, {first.text}")
        keep = self.new("i1", f"or {keep}, {odd.text}")
        return self.new(kind, f"select {keep}, {first}, {arguments[1]}")

    def _intrinsic(self, name: str, arguments: Sequence[Value]) -> Value:
        kind = arguments[0].type
        return self.call(kind, f"llvm.{name}.{'f32' if kind == 'float' else 'f64'}", arguments)
