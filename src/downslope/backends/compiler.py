"""A small subset of Python, compiled to LLVM's assembly: what a kernel and the code around it are written in.

A function has an annotation for every argument and for what it returns: `int64`, `float32`, `float64`, `boolean`, or
the address of many of them, `words`, `halves`, `singles`, `doubles`, which are read and written as `words[i]`. What has
no annotation is `float64`, and a function that does not say what it returns is written wherever it is called.

There are assignments, `if`, `while`, `for ... in range(...)`, `continue`, `return`, arithmetic, comparisons, calls.
A variable has the type of what it is first given. Of an integer and any float comes a `float64`, of two floats the
wider. Nothing is re-associated, and nothing is checked. Names that are no variables are the module's: numbers, classes
whose attributes are whole numbers, other functions of the same library, and `Word`s, for which instructions are written
in their place.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from downslope.backends.instructions import Value, Variable, Writer, common_type, machine_type, number

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

_OPERATIONS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


@dataclass(frozen=True)
class Word:
    """A function for which a writer puts instructions in its place; see `Writer` for what they are written with."""

    write: Callable[[Writer, Sequence[Value]], Value | None]

    def __call__(self, *arguments: Any) -> Any:
        """Only compiled code can say it."""
        only_compiled()


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
        compilation = _Compilation(function, {other.name: other for other in functions})
        texts.append(compilation.text())
        declared |= compilation.writer.declared
        metadata |= compilation.writer.metadata
    return "\n".join([*texts, *declared.values(), *metadata.values()])


class _Compilation:
    """One function, statement by statement and expression by expression: a method for every kind of either.

    Attributes:
        writer: What has been written.
    """

    def __init__(self, function: Function, others: Mapping[str, Function]):
        self.writer = Writer(function.flags)
        self._function, self._others = function, others
        self._variables: dict[str, Variable | tuple[Value, ...]] = {}
        self._next: list[str] = []  # where `continue` goes

    def text(self) -> str:
        """The text of the function."""
        function = self._function
        for name, kind in function.arguments:
            self._assign_name(name, Value(kind, f"%{name}"))
        self._block(function.tree.body)
        self.writer.leave(None if function.returns == "void" else number(0, machine_type(function.returns)))
        return self.writer.function(function.name, function.arguments, function.returns, exported=function.exported)

    # ---- statements

    def _block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            getattr(self, f"_{type(statement).__name__.lower()}")(statement)

    def _assign_name(self, name: str, value: Value) -> None:
        variable = self._variables.get(name)
        if not isinstance(variable, Variable):
            variable = self._variables[name] = self.writer.variable(value.type)
        self.writer.set(variable, value)

    def _assign(self, statement: ast.Assign) -> None:
        (target,) = statement.targets
        if isinstance(target, ast.Tuple):
            assert isinstance(statement.value, ast.Tuple)
            pairs = list(zip(target.elts, map(self._value, statement.value.elts), strict=True))
        elif isinstance(target, ast.Name) and self._is_in_place(statement.value):
            self._variables[target.id] = self._written_in_place(statement.value)
            return
        else:
            pairs = [(target, self._value(statement.value))]
        for place, value in pairs:
            self._store(place, value)

    def _store(self, place: ast.expr, value: Value) -> None:
        if isinstance(place, ast.Name):
            self._assign_name(place.id, value)
            return
        assert isinstance(place, ast.Subscript)
        self.writer.store(self._value(place.value), self._value(place.slice), value)

    def _augassign(self, statement: ast.AugAssign) -> None:
        before = self._value(statement.target)
        after = self._combined(statement.op, before, self._value(statement.value))
        self._store(statement.target, self.writer.cast(after, before.type))

    def _expr(self, statement: ast.Expr) -> None:
        if not isinstance(statement.value, ast.Constant):  # not its description
            self._value(statement.value)

    def _pass(self, statement: ast.Pass) -> None:
        pass

    def _if(self, statement: ast.If) -> None:
        write = self.writer
        then, otherwise, after = write.label(), write.label(), write.label()
        self._branch(statement.test, then, otherwise)
        for label, body in ((then, statement.body), (otherwise, statement.orelse)):
            write.reach(label)
            self._block(body)
            write.jump(after)
        write.reach(after)

    def _while(self, statement: ast.While) -> None:
        write = self.writer
        again, inside, after = write.label(), write.label(), write.label()
        write.jump(again)
        write.reach(again)
        self._branch(statement.test, inside, after)
        write.reach(inside)
        self._repeated(statement.body, again)
        write.jump(again)
        write.reach(after)

    def _for(self, statement: ast.For) -> None:
        assert isinstance(statement.iter, ast.Call)
        assert isinstance(statement.target, ast.Name)
        write = self.writer
        bounds = [write.cast(self._value(arg), "i64") for arg in statement.iter.args]
        start, stop = (number(0, "i64"), bounds[0]) if len(bounds) == 1 else bounds[:2]
        step = bounds[2] if len(bounds) == 3 else number(1, "i64")
        test, inside, advance, after = write.label(), write.label(), write.label(), write.label()
        counter = write.variable("i64")
        write.set(counter, start)
        write.jump(test)
        write.reach(test)
        here = write.get(counter)
        write.branch(write.compare("<", here, stop), inside, after)
        write.reach(inside)
        self._assign_name(statement.target.id, here)
        self._repeated(statement.body, advance)
        write.jump(advance)
        write.reach(advance)
        write.set(counter, write.new("i64", f"add nsw i64 {write.get(counter).text}, {step.text}"))
        write.jump(test)
        write.reach(after)

    def _repeated(self, body: Sequence[ast.stmt], next_: str) -> None:
        self._next.append(next_)
        self._block(body)
        self._next.pop()

    def _continue(self, statement: ast.Continue) -> None:
        self.writer.jump(self._next[-1])
        self.writer.reach(self.writer.label())

    def _return(self, statement: ast.Return) -> None:
        write, value = self.writer, statement.value
        write.leave(None if value is None else write.cast(self._value(value), self._function.returns))
        write.reach(write.label())

    def _branch(self, test: ast.expr, then: str, otherwise: str) -> None:
        if isinstance(test, ast.BoolOp):
            *first, last = test.values
            for part in first:
                more = self.writer.label()
                self._branch(part, *((more, otherwise) if isinstance(test.op, ast.And) else (then, more)))
                self.writer.reach(more)
            self._branch(last, then, otherwise)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self._branch(test.operand, otherwise, then)
        else:
            self.writer.branch(self.writer.cast(self._value(test), "i1"), then, otherwise)

    # ---- functions without a type of their own

    def _is_in_place(self, call: ast.expr) -> bool:
        return (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in self._others
            and self._others[call.func.id].in_place
        )

    def _written_in_place(self, call: ast.expr) -> tuple[Value, ...]:
        """What a function returns that does not say what: all that its last line lists, of double precision."""
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        function, outside = self._others[call.func.id], self._variables
        values = [self.writer.cast(self._value(arg), "double") for arg in call.args]
        self._variables = {}
        for (name, _), value in zip(function.arguments, values, strict=True):
            self._assign_name(name, value)
        *before, last = function.tree.body
        self._block(before)
        assert isinstance(last, ast.Return)
        assert isinstance(last.value, ast.Tuple)
        found = tuple(self._value(element) for element in last.value.elts)
        self._variables = outside
        return found

    # ---- expressions

    def _value(self, e: ast.expr) -> Value:
        found: Value = getattr(self, f"_{type(e).__name__.lower()}")(e)
        return found

    def _constant(self, e: ast.Constant) -> Value:
        value: Any = e.value
        return number(value, {bool: "i1", int: "i64", float: "double"}[type(value)])

    def _name(self, e: ast.Name) -> Value:
        variable = self._variables.get(e.id)
        if isinstance(variable, Variable):
            return self.writer.get(variable)
        value = self._function.scope[e.id]
        return number(value, "double" if isinstance(value, float) else "i64")

    def _attribute(self, e: ast.Attribute) -> Value:
        assert isinstance(e.value, ast.Name)
        return number(getattr(self._function.scope[e.value.id], e.attr), "i64")

    def _subscript(self, e: ast.Subscript) -> Value:
        if isinstance(e.value, ast.Name) and isinstance(e.slice, ast.Constant):
            listed = self._variables.get(e.value.id)
            if isinstance(listed, tuple):
                return listed[int(str(e.slice.value))]
        return self.writer.load(self._value(e.value), self._value(e.slice))

    def _binop(self, e: ast.BinOp) -> Value:
        return self._combined(e.op, self._value(e.left), self._value(e.right))

    def _combined(self, op: ast.operator, left: Value, right: Value) -> Value:
        if isinstance(op, ast.Pow):
            kind = common_type(left, right)
            return self.writer.function_of("pow", [self.writer.cast(value, kind) for value in (left, right)])
        return self.writer.combine(_OPERATIONS[type(op)], left, right)

    def _unaryop(self, e: ast.UnaryOp) -> Value:
        value = self._value(e.operand)
        return self.writer.opposite(value) if isinstance(e.op, ast.Not) else self.writer.negative(value)

    def _compare(self, e: ast.Compare) -> Value:
        operands = [self._value(e.left), *map(self._value, e.comparators)]
        pairs = zip(e.ops, pairwise(operands), strict=True)
        first, *others = [self.writer.compare(_COMPARISONS[type(op)], *pair) for op, pair in pairs]
        return functools.reduce(self.writer.both, others, first)

    def _boolop(self, e: ast.BoolOp) -> Value:
        return self._chosen(e, ast.Constant(True), ast.Constant(False))

    def _ifexp(self, e: ast.IfExp) -> Value:
        return self._chosen(e.test, e.body, e.orelse)

    def _chosen(self, test: ast.expr, first: ast.expr, second: ast.expr) -> Value:
        write = self.writer
        then, otherwise, after = write.label(), write.label(), write.label()
        self._branch(test, then, otherwise)
        chosen: Variable | None = None
        for label, e in ((then, first), (otherwise, second)):
            write.reach(label)
            value = self._value(e)
            chosen = chosen or write.variable(value.type)
            write.set(chosen, value)
            write.jump(after)
        write.reach(after)
        assert chosen is not None
        return write.get(chosen)

    def _call(self, e: ast.Call) -> Value:
        write = self.writer
        name = e.func.id if isinstance(e.func, ast.Name) else ast.unparse(e.func).removeprefix("np.")
        arguments = [self._value(arg) for arg in e.args]
        if isinstance(e.func, ast.Attribute) and name == "sign":  # which knows no negative zero
            arguments = [write.combine("+", arguments[0], number(0.0, "double"))]
        word = self._function.scope.get(name)
        if isinstance(word, Word):
            return word.write(write, arguments) or Value("void", "")
        if name in self._others:
            function = self._others[name]
            cast = [write.cast(v, kind) for v, (_, kind) in zip(arguments, function.arguments, strict=True)]
            return write.result(function.returns, f"@{name}", cast)
        if name in TYPES:
            return write.cast(arguments[0], TYPES[name])
        if name == "call":
            return write.call_at(arguments[0], arguments[1:])
        if name in ("min", "max"):
            return write.select(write.compare("<" if name == "min" else ">", *arguments), *arguments)
        return write.function_of(name, arguments)
