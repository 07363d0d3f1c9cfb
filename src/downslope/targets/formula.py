"""The formula itself, as its author would write it: the lines that a program is made of, and their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from downslope.language.expression import Expression
from downslope.language.operations import FACTORS, TENSOR_WORDS
from downslope.language.program import Program, in_order
from downslope.targets.python import FORMS, number
from downslope.targets.write import ATOM, Form, Target, Text, call, identifier, infix


def _short(value: float) -> Text:
    text = number(value)
    binding = text.binding if not text.first else FORMS["mul"].binding  # the minus in front of a product is that of it
    return text._replace(text=text.text.removesuffix(".0"), binding=binding)


FORMULA = Target(
    FORMS
    | {
        "pow": Form("{}**{}", 8, (9, 9)),
        "square": Form("{}**2", 8, (9,)),
        "cube": Form("{}**3", 8, (9,)),
        "fourth": Form("{}**4", 8, (9,)),
        "where": Form("where({}, {}, {})"),
        "or": Form("{} | {}", 4, (ATOM, ATOM)),
        "and": Form("{} & {}", 4, (ATOM, ATOM)),
        "not": Form("~{}", 7, (ATOM,)),
        "transpose": Form("{}.T", ATOM, (ATOM,)),
        "product": infix("@", 6),
        "called": Form("{}({})"),
        "sort_by": Form("sort_by({}, {})"),
    }
    | {op: call(op) for op in (*TENSOR_WORDS, *FACTORS)}
    | {f"{op} {axis}": Form(f"{op}({{}}, axis={axis})") for op in TENSOR_WORDS for axis in (0, 1)}
    | {f"{op} all": Form(f'{op}({{}}, over="all")') for op in TENSOR_WORDS},
    _short,
)
"""The words of a formula, as its author writes them."""


def text(e: Expression) -> str:
    """One expression, as its author would write it.

    Example:
        >>> from downslope.language.grammar import parse
        >>> text(parse("x^2 + 5*y"))
        'x**2 + 5 * y'
    """
    return FORMULA.write(e, {leaf: str(leaf.value) for leaf in in_order([e]) if leaf.op == "input"}).text


@dataclass(frozen=True)
class Line:
    """One line of a formula: a name, the value it is given, and the named values and inputs that this takes."""

    name: str
    value: Expression
    reads: frozenset[Expression]


def lines_of(program: Program) -> tuple[list[Line], dict[Expression, str]]:
    """A line for every value its author gave a name, and what each of these values, and each input, is called.

    A line comes after those that work out what it reads and, where there is such an order, after those that read what
    its name stood for before; the new weights come last where nothing forbids it.
    """
    roots = {**program.scalar_outputs, **program.outputs}
    ordered = in_order(e for name, e in sorted(roots.items(), key=lambda item: item[0] == "x"))
    names = {e: name for e, name in program.names.items() if e.args}
    names |= {e: name for name, e in reversed(roots.items()) if e.args}
    called = {e: str(e.value) for e in ordered if e.op == "input"} | names
    waiting = [Line(names[e], e, _read(e.args, called)) for e in ordered if e in names]
    waiting += [Line(name, e, _read([e], called)) for name, e in roots.items() if names.get(e) != name]
    waiting.sort(key=lambda line: line.name == "x" and line.value is roots["x"])
    lines: list[Line] = []
    while waiting:
        unknown = {line.value for line in waiting if names.get(line.value) == line.name}
        ready = [line for line in waiting if not line.reads & unknown]
        free = [line for line in ready if not overwritten(line, waiting, called)]
        lines.append((free or ready)[0])
        waiting.remove(lines[-1])
    return lines, called


def _read(roots: Iterable[Expression], called: Mapping[Expression, str]) -> frozenset[Expression]:
    """What has a name among the expressions and, where they have none, among what they are made of."""
    seen: set[Expression] = set()
    waiting = list(roots)
    while waiting:
        e = waiting.pop()
        if e not in seen:
            seen.add(e)
            if e not in called:
                waiting.extend(e.args[1:] if e.op == "called" else e.args)
    return frozenset(seen & called.keys())


def overwritten(line: Line, others: Iterable[Line], called: Mapping[Expression, str]) -> set[Expression]:
    """What others still read by the name that the line gives to another value."""
    read = {e for other in others if other is not line for e in other.reads}
    return {e for e in read if called[e] == line.name and e is not line.value}


def formula(program: Program) -> tuple[tuple[str, str], ...]:
    """The program as its author would write it: for every value with a name, the name and the text of the value.

    The lines can be carried out one after the other. With a look-ahead, the first says where the gradient is taken.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> for name, value in formula(compose(downslope.rmsprop)):
        ...     print(name, "=", value)
        cache = decay_rate * cache + (1 - decay_rate) * dx**2
        x = x - lr * dx / (sqrt(cache) + eps)
    """
    lines, called = lines_of(program)
    known = {e: name for e, name in called.items() if e.op == "input"}
    texts: list[tuple[str, str]] = []
    if program.lookahead:
        point = program.lookahead.outputs["x"]
        inputs = {e: str(e.value) for e in in_order([point]) if e.op == "input"}
        texts.append(("dx", f"gradient at {FORMULA.write(point, inputs).text}"))
    for index, line in enumerate(lines):
        kept = identifier(f"{line.name}_before", called.values())
        for e in overwritten(line, lines[index + 1 :], called):
            if known.get(e) == line.name:
                texts.append((kept, line.name))
                known[e] = kept
        value = FORMULA.write(line.value, known, top=line.value not in known).text
        known.setdefault(line.value, line.name)
        if value != line.name:
            texts.append((line.name, value))
    return tuple(texts)
