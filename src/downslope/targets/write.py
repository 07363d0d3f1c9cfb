"""From a program to source text: one writer for every language, given a table of its operations.

A table gives, for every operation, how it is written and how tightly it binds. Brackets are set so that the operations
happen in the author's order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from downslope.language.expression import Expression
from downslope.language.program import Program, in_order

ATOM = 10
"""How tightly a name or a call binds: nothing pulls it apart."""


class Form(NamedTuple):
    """How an operation is written.

    Attributes:
        template: The text, with a place for each operand.
        binding: How tightly the result binds.
        least: How tightly each operand must bind to stand without brackets; empty where any may.
        tall: Whether it is higher than a line, as a fraction is, and needs brackets to match.
        word: The function that is called by name, which the text around it may have to import.
    """

    template: str
    binding: int = ATOM
    least: tuple[int, ...] = ()
    tall: bool = False
    word: str = ""

    @property
    def repeated(self) -> bool:
        """Whether an operand stands in it more than once."""
        return self.template.count("{0}") > 1


def infix(sign: str, binding: int) -> Form:
    """An operator between two operands, carried out from the left."""
    return Form(f"{{}} {sign} {{}}", binding, (binding, binding + 1))


def prefix(sign: str, binding: int) -> Form:
    """An operator in front of its operand."""
    return Form(f"{sign}{{}}", binding, (binding,))


def call(name: str, arity: int = 1) -> Form:
    """The call of a function."""
    return Form(f"{name}({', '.join(['{}'] * arity)})", word=name)


class Text(NamedTuple):
    """An expression as text.

    Attributes:
        text: How it is written.
        binding: How tightly it binds.
        tall: Whether something in it is higher than a line.
        first: What it begins with, where that matters to what stands before it.
    """

    text: str
    binding: int = ATOM
    tall: bool = False
    first: Literal["", "minus", "digit"] = ""


@dataclass(frozen=True)
class Target:
    """A language.

    Attributes:
        forms: How each operation is written; one along an axis under its name and the axis, as in "mean 0".
        constant: How a number is.
        reserved: The names that a variable cannot have.
    """

    forms: Mapping[str, Form]
    constant: Callable[[float], Text]
    reserved: Collection[str] = ()

    def write(self, e: Expression, known: Mapping[Expression, str], *, top: bool = True) -> Text:
        """The text of an expression; expressions in `known` are written as that name, `e` itself unless `top`."""
        if e.op == "input" or (e in known and not top):
            return Text(known[e])
        if e.op == "constant":
            return self.constant(e.number)
        if e.op == "called" and "called" not in self.forms:
            return self.write(e.args[0], known, top=False)
        if e.op == "called":
            return self.join("called", [Text(str(e.value)), self.write(e.args[1], known, top=False)])
        op = e.op if e.value is None else f"{e.op} all" if e.over_all else f"{e.op} {float(e.value):.0f}"  # an axis
        return self.join(op, [self.write(arg, known, top=False) for arg in e.args])

    def join(self, op: str, operands: list[Text]) -> Text:
        """The text of an operation on operands."""
        form = self.forms[op]
        least = form.least or (0,) * len(operands)
        texts = [
            self.bracketed(operand) if operand.binding < wanted else operand
            for operand, wanted in zip(operands, least, strict=True)
        ]
        return self.joined(op, texts)

    def joined(self, op: str, texts: list[Text]) -> Text:
        """The text of an operation on operands that have their brackets."""
        form = self.forms[op]
        first = texts[0].first if form.template.startswith("{") else "minus" if form.template.startswith("-") else ""
        tall = form.tall or any(text.tall for text in texts)
        return Text(form.template.format(*(text.text for text in texts)), form.binding, tall, first)

    def bracketed(self, inner: Text) -> Text:
        """The text in brackets."""
        return Text(f"({inner.text})", ATOM, inner.tall)

    def words(self, expressions: Iterable[Expression]) -> set[str]:
        """The functions that the text of these operations calls."""
        return {self.forms[e.op].word for e in expressions if e.args} - {""}


DEEPEST = 16
"""How deeply operations are nested in one line of text."""

LONGEST = 100
"""How many characters a note may have."""


def _own_lines(roots: Iterable[Expression], target: Target) -> Iterator[Expression]:
    """The operations that get a line of their own: those used more than once, and where nesting gets deep."""
    ordered = in_order(roots)
    uses: dict[Expression, int] = {}
    for e in ordered:
        for arg in e.args:
            uses[arg] = uses.get(arg, 0) + (2 if e.op in target.forms and target.forms[e.op].repeated else 1)
    depth: dict[Expression, int] = {}
    for e in ordered:
        depth[e] = 1 + max((depth[arg] for arg in e.args), default=-1)
        if e.args and (uses.get(e, 0) > 1 or depth[e] >= DEEPEST):
            depth[e] = 0
            yield e


def identifier(name: str, taken: Iterable[str]) -> str:
    """The name, with underscores behind it if it is taken."""
    while name in taken:
        name += "_"
    return name


@dataclass
class Scope:
    """A piece of text that shares its names: what is known by which name, and the names that are taken.

    Attributes:
        target: The language.
        taken: The names that nothing else may have.
        known: What is written as a name.
    """

    target: Target
    taken: set[str]
    known: dict[Expression, str] = field(default_factory=dict)

    def claim(self, wish: str) -> str:
        """The name wished for, made different from those that are taken, and now taken itself."""
        name = identifier(wish.replace(" ", "_"), self.taken)
        self.taken.add(name)
        return name

    def name(self, e: Expression, wish: str) -> str:
        """Give an expression a name."""
        self.known[e] = self.claim(wish)
        return self.known[e]

    def text(self, e: Expression) -> str:
        """An expression: its name if it has one."""
        return self.target.write(e, self.known, top=False).text

    def lines(self, roots: Sequence[Expression], wishes: Mapping[Expression, str]) -> Iterator[tuple[str, str]]:
        """Variables and the text of their values, in order: what the roots are made of and is not known yet.

        Args:
            roots: The expressions.
            wishes: The names wished for; what has none but needs a line of its own is numbered.
        """
        own_lines = set(_own_lines(roots, self.target))
        count = 0
        for e in in_order(roots, tuple(self.known)):
            if e.args and (e in wishes or e in own_lines):
                text = self.target.write(e, self.known).text
                yield self.name(e, wishes.get(e, f"r{count}")), text
                count += 1


@dataclass(frozen=True)
class Coefficients:
    """What is worked out once per step, as text."""

    arguments: tuple[str, ...]  # a variable for each of the program's scalars
    lines: tuple[tuple[str, str], ...]  # variable, text of its value
    results: tuple[tuple[Expression, str], ...]  # the coefficients, then the new scalar states


def coefficients(program: Program, target: Target) -> Coefficients:
    """The coefficients of a program and its new scalar states in a target language."""
    results = [*program.coefficients, *program.scalar_outputs.values()]
    scope = Scope(target, {*target.reserved})
    arguments = {name: scope.claim(name) for name in program.scalars}
    scope.known |= {e: arguments[str(e.value)] for e in in_order(results) if e.op == "input"}
    lines = tuple(scope.lines(results, {}))
    return Coefficients(tuple(arguments.values()), lines, tuple((e, scope.text(e)) for e in results))


@dataclass(frozen=True)
class Body:
    """The body of a program as text: what to load, the lines in between, what to store."""

    loads: tuple[tuple[str, str], ...]  # variable, array
    coefficients: tuple[tuple[str, str], ...]  # variable, what it stands for
    lines: tuple[str, ...]
    stores: tuple[tuple[str, str], ...]  # array, text of its new value


def body(program: Program, target: Target, taken: Iterable[str], notes: Target) -> Body:
    """The body of a program in a target language.

    Args:
        program: The one whose body is written.
        target: How operations are written in the language.
        taken: Names that the text around the body already uses.
        notes: The language in which is said what a coefficient stands for.
    """
    scope = Scope(target, {*taken, *target.reserved})
    read = [e for e in in_order(program.outputs.values()) if e.op == "input" and e.from_arrays]
    loads = tuple((scope.name(e, str(e.value)), str(e.value)) for e in read)
    scalars = {e: str(e.value) for e in in_order(program.coefficients) if e.op == "input"}
    coefficients = []
    for index, e in enumerate(program.coefficients):
        meaning = notes.write(e, scalars).text if e.args and len(in_order([e])) <= DEEPEST else ""
        variable = scope.name(e, f"c{index}" if e.args else str(e.value))
        coefficients.append((variable, meaning if len(meaning) <= LONGEST else ""))
        if e.is_condition:  # it arrives as 1.0 or 0.0
            scope.known[e] = f"({variable} != 0)"
    lines = tuple(f"{variable} = {text}" for variable, text in body_lines(program, scope))
    return Body(loads, tuple(coefficients), lines, tuple((name, scope.text(e)) for name, e in stored(program)))


def stored(program: Program) -> list[tuple[str, Expression]]:
    """The arrays that the body writes, and their new values."""
    return [(name, e) for name, e in program.outputs.items() if not (e.op == "input" and e.value == name)]


def body_lines(program: Program, scope: Scope) -> Iterator[tuple[str, str]]:
    """The lines of a body whose arrays and coefficients are known, by their author's names where there are any.

    Raises:
        FormulaError: It does not treat each weight by itself.
    """
    program.refuse_over_tensors("a kernel or script of one pass")
    return scope.lines(tuple(program.outputs.values()), author_names(program))


def author_names(program: Program) -> dict[Expression, str]:
    """What the author called an expression; "new_" before it where that is what comes in, and before what goes out."""
    outputs = {**program.outputs, **program.scalar_outputs}
    inputs = {str(e.value) for e in in_order(outputs.values()) if e.op == "input"}
    named = {e: f"new_{name}" if name in inputs else name for e, name in program.names.items()}
    return {e: f"new_{name}" for name, e in outputs.items()} | named
