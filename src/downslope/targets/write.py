"""From a program to source text: one writer for every language, given a table of its operations.

A table gives, for every operation, how it is written and how tightly it binds. Brackets are set so that the operations
happen in the author's order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
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
        text: The text.
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
        forms: How each operation is written.
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
        return self.join(e.op, [self.write(arg, known, top=False) for arg in e.args])

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
            uses[arg] = uses.get(arg, 0) + (2 if target.forms[e.op].repeated else 1)
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


def _claim(wish: str, used: set[str]) -> str:
    """The name wished for, made different from those in use, and now in use itself."""
    name = identifier(wish.replace(" ", "_"), used)
    used.add(name)
    return name


@dataclass(frozen=True)
class Coefficients:
    """What is worked out once per step, as text."""

    arguments: tuple[str, ...]  # a variable for each of the program's scalars
    lines: tuple[tuple[str, str], ...]  # variable, text of its value
    results: tuple[tuple[Expression, str], ...]  # the coefficients, then the new scalar states


def coefficients(program: Program, target: Target) -> Coefficients:
    """The coefficients of a program and its new scalar states in a target language."""
    results = [*program.coefficients, *program.scalar_outputs.values()]
    used = {*target.reserved}
    arguments = {name: _claim(name, used) for name in program.scalars}
    known = {e: arguments[str(e.value)] for e in in_order(results) if e.op == "input"}
    lines: list[tuple[str, str]] = []
    for e in _own_lines(results, target):
        text = target.write(e, known).text
        known[e] = _claim(f"r{len(lines)}", used)
        lines.append((known[e], text))
    texts = tuple((e, known[e] if e in known else target.write(e, known).text) for e in results)
    return Coefficients(tuple(arguments.values()), tuple(lines), texts)


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
        program: The program.
        target: The language.
        taken: Names that the text around the body already uses.
        notes: The language in which is said what a coefficient stands for.
    """
    used = {*taken, *target.reserved}
    known: dict[Expression, str] = {}

    def name(e: Expression, wish: str) -> str:
        known[e] = _claim(wish, used)
        return known[e]

    ordered = in_order(program.outputs.values())
    loads = tuple((name(e, str(e.value)), str(e.value)) for e in ordered if e.op == "input" and e.per_weight)
    scalars = {e: str(e.value) for e in in_order(program.coefficients) if e.op == "input"}
    coefficients = []
    for index, e in enumerate(program.coefficients):
        meaning = notes.write(e, scalars).text if e.args and len(in_order([e])) <= DEEPEST else ""
        variable = name(e, f"c{index}" if e.args else str(e.value))
        coefficients.append((variable, meaning if len(meaning) <= LONGEST else ""))
        if e.is_condition:  # it arrives as 1.0 or 0.0
            known[e] = f"({known[e]} != 0)"

    outputs = {e: array for array, e in program.outputs.items()}
    own_lines = {e for e in _own_lines(program.outputs.values(), target) if e.per_weight}
    lines: list[str] = []
    for e in program.body:
        wish = program.names.get(e) or (f"new_{outputs[e]}" if e in outputs else "")
        if wish or e in own_lines:
            text = target.write(e, known).text
            wish = f"new_{wish}" if any(wish == array for _, array in loads) else wish or f"r{len(lines)}"
            lines.append(f"{name(e, wish)} = {text}")
    stores = tuple(
        (array, known[e] if e in known else target.write(e, known).text)
        for array, e in program.outputs.items()
        if not (e.op == "input" and e.value == array)
    )
    return Body(loads, tuple(coefficients), tuple(lines), stores)
