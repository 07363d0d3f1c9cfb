"""From a program to source text: one table of operations per target language.

A table gives, for every operation, how it is written and how tightly it binds. Brackets are set so that the operations
happen in the author's order.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from downslope.expression import CONDITIONS, Expression
from downslope.interpret import small_power
from downslope.trace import Program, in_order

ATOM = 10


@dataclass(frozen=True)
class Target:
    """A language: how each operation is written, and how tightly it binds (10: like a name)."""

    operations: Mapping[str, tuple[str, int]]
    constant: Callable[[float], str]

    def write(self, e: Expression, known: Mapping[Expression, str], *, top: bool = True) -> tuple[str, int]:
        """The text of an expression, and how tightly it binds; expressions in `known` are written as that name."""
        if e in known and not top:
            return known[e], ATOM
        if e.op == "constant":
            text = self.constant(_number(e))
            return text, 0 if text.startswith("-") else 6 if " " in text else 8 if "^" in text else ATOM
        if e.op == "input":
            return known[e], ATOM
        template, binding = self.operations[e.op]
        count = small_power(e) if e.op == "pow" else 0
        if count and "square" in self.operations:
            template, binding = self.operations["square"]
            factor = self.operand(e.args[0], known, binding + 1)
            return template.join([factor] * count), binding
        calls = binding == ATOM or template.startswith((r"\frac", r"\begin"))  # arguments stand apart as they are
        exponent = 1 if e.op == "pow" and "^{" in template else None  # raised, it stands apart too
        operands = [
            self.operand(arg, known, 0 if calls or i == exponent else binding + (i > 0 or e.op == "pow"))
            for i, arg in enumerate(e.args)
        ]
        if "times" in self.operations and e.op in ("add", "sub", "mul"):  # a space would not keep them apart
            if operands[1].startswith("-"):
                operands[1] = f"({operands[1]})"
            elif operands[1][0].isdigit() and e.op == "mul":
                template, binding = self.operations["times"]
        return template.format(*operands), binding

    def operand(self, e: Expression, known: Mapping[Expression, str], least: int) -> str:
        """The text of an operand, in brackets unless it binds at least this tightly."""
        text, binding = self.write(e, known, top=False)
        if binding >= least:
            return text
        return rf"\left({text}\right)" if r"\frac" in text or r"\begin" in text else f"({text})"


_COMPARISONS = {
    "lt": ("{} < {}", 4),
    "le": ("{} <= {}", 4),
    "gt": ("{} > {}", 4),
    "ge": ("{} >= {}", 4),
    "eq": ("{} == {}", 4),
    "ne": ("{} != {}", 4),
    "and": ("{} and {}", 2),
    "or": ("{} or {}", 1),
    "not": ("not {}", 3),
}
_ARITHMETIC = {
    "add": ("{} + {}", 5),
    "sub": ("{} - {}", 5),
    "mul": ("{} * {}", 6),
    "div": ("{} / {}", 6),
    "neg": ("-{}", 7),
    "pow": ("{} ** {}", 8),
    "square": (" * ", 6),
    "where": ("({1} if {0} else {2})", ATOM),
    "abs": ("abs({})", ATOM),
}
_FUNCTIONS = {name: (name + "({})", ATOM) for name in ("sqrt", "exp", "log", "tanh", "sign")} | {
    name: (name + "({}, {})", ATOM) for name in ("maximum", "minimum")
}

_HOST = {
    "sign": ("np.sign({})", ATOM),
    "maximum": ("np.maximum({}, {})", ATOM),
    "minimum": ("np.minimum({}, {})", ATOM),
    "pow": ("pow({}, {})", ATOM),  # that of math, which is never complex
}

OPERATIONS = _COMPARISONS | _ARITHMETIC | _FUNCTIONS

READABLE = Target(OPERATIONS, repr)
"""As one would write it, for comments."""

PYTHON = Target(OPERATIONS | _HOST, repr)
"""Double precision on the host, for coefficients."""


def cpu_target(scalar: str) -> Target:
    """The subset of Python that kernels are written in, for weights of this scalar type (`float32` or `float64`)."""
    return Target(OPERATIONS, lambda value: f"{scalar}({value!r})")


def _number(e: Expression) -> float:
    assert isinstance(e.value, float)
    return e.value


def coefficients_source(program: Program) -> str:
    """Python source of `coefficients(*scalars)`: the program's coefficients, then its new scalar states, as floats."""
    results = [*program.coefficients, *program.scalar_outputs.values()]
    used = {*_PYTHON_WORDS}
    known: dict[Expression, str] = {}
    arguments = {name: _claim(name.replace(" ", "_"), used) for name in program.scalars}
    known = {e: arguments[str(e.value)] for e in in_order(results) if e.op == "input"}
    lines: list[str] = []
    for e in _own_lines(results):
        text = PYTHON.write(e, known)[0]
        known[e] = _claim(f"r{len(lines)}", used)
        lines.append(f"    {known[e]} = {text}\n")
    texts = [known[e] if e in known else PYTHON.write(e, known)[0] for e in results]
    numbers = [f"1.0 if {t} else 0.0" if e.op in CONDITIONS else t for e, t in zip(results, texts, strict=True)]
    returned = "(\n" + "".join(f"        {text},\n" for text in numbers) + "    )" if numbers else "()"
    return (
        f"def coefficients({', '.join(arguments.values())}):\n"
        '    """What does not differ from weight to weight: worked out once per step, in double precision."""\n'
        f"{''.join(lines)}    return {returned}\n"
    )


DEEPEST = 16
"""How deeply operations are nested in one line of text."""


def _own_lines(roots: Iterable[Expression]) -> Iterator[Expression]:
    """The operations that get a line of their own: those used more than once, and where nesting gets deep."""
    ordered = in_order(roots)
    uses: dict[Expression, int] = {}
    for e in ordered:
        for arg in e.args:
            uses[arg] = uses.get(arg, 0) + (2 if e.op == "pow" and small_power(e) else 1)
    depth: dict[Expression, int] = {}
    for e in ordered:
        depth[e] = 1 + max((depth[arg] for arg in e.args), default=-1)
        if e.args and (uses.get(e, 0) > 1 or depth[e] >= DEEPEST):
            depth[e] = 0
            yield e


def _claim(wish: str, used: set[str]) -> str:
    """The name wished for, made different from those in use, and now in use itself."""
    name = identifier(wish, used)
    used.add(name)
    return name


_PYTHON_WORDS = frozenset({*keyword.kwlist, *keyword.softkwlist, "abs", "inf", "nan", "np", "pow"} | set(_FUNCTIONS))


def identifier(name: str, taken: Iterable[str]) -> str:
    """The name, with underscores behind it if it is taken."""
    while name in taken:
        name += "_"
    return name


@dataclass(frozen=True)
class Body:
    """The body of a program as text: what to load, the lines in between, what to store."""

    loads: tuple[tuple[str, str], ...]  # variable, array
    coefficients: tuple[tuple[str, str], ...]  # variable, what it stands for
    lines: tuple[str, ...]
    stores: tuple[tuple[str, str], ...]  # array, text of its new value
    words: frozenset[str]  # the functions the lines call


def body(program: Program, target: Target, taken: Iterable[str]) -> Body:
    """The body of a program in a target language.

    Args:
        program: The program.
        target: The language.
        taken: Names that the text around the body already uses.
    """
    used = {*taken, *_PYTHON_WORDS}
    known: dict[Expression, str] = {}

    def name(e: Expression, wish: str) -> str:
        known[e] = _claim(wish.replace(" ", "_"), used)
        return known[e]

    ordered = in_order(program.outputs.values())
    loads = tuple((name(e, str(e.value)), str(e.value)) for e in ordered if e.op == "input" and e.per_weight)
    scalars = {e: str(e.value) for e in in_order(program.coefficients) if e.op == "input"}
    coefficients = []
    for index, e in enumerate(program.coefficients):
        short = e.args and len(in_order([e])) <= DEEPEST
        meaning = READABLE.write(e, scalars)[0] if short else ""
        coefficients.append((name(e, f"c{index}" if e.args else str(e.value)), meaning))
        if e.op in CONDITIONS:  # it arrives as 1.0 or 0.0
            known[e] = f"({known[e]} != 0)"

    outputs = {e: array for array, e in program.outputs.items()}
    own_lines = {e for e in _own_lines(program.outputs.values()) if e.per_weight}
    lines: list[str] = []
    for e in program.body:
        wish = program.names.get(e) or (f"new_{outputs[e]}" if e in outputs else "")
        if wish or e in own_lines:
            text = target.write(e, known)[0]
            wish = f"new_{wish}" if any(wish == array for _, array in loads) else wish or f"r{len(lines)}"
            lines.append(f"{name(e, wish)} = {text}")
    stores = tuple(
        (array, known[e] if e in known else target.write(e, known)[0])
        for array, e in program.outputs.items()
        if not (e.op == "input" and e.value == array)
    )
    words = frozenset(e.op for e in program.body if e.op in _FUNCTIONS)
    return Body(loads, tuple(coefficients), tuple(lines), stores, words)
