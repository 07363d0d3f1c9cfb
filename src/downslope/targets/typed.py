"""The JavaScript that reads formulas and rules typed into a page: the twin of `language.grammar` and `language.lines`.

The page makes a tree of a text and works it out by looking up its operations; no text is ever run. What there is to
look up is written from the tables of the language: the words, how tightly operators bind, what each operation is and
how its slope follows from those of its arguments.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from downslope.language import lines
from downslope.language.algebra import Algebra
from downslope.language.derivative import chain
from downslope.language.expression import Expression
from downslope.language.grammar import BINARY, CALLED, DEEPEST, LONGEST, SIGNS
from downslope.language.operations import OPERATIONS, POWERS
from downslope.language.ranges import ANY, FRACTION, USUAL, Range
from downslope.language.trace import number
from downslope.targets.dense import dense
from downslope.targets.javascript import JAVASCRIPT
from downslope.targets.javascript import number as number_in_javascript
from downslope.targets.write import Scope

SCRIPTS = ("typed.js", "typed_rule.js")


@functools.cache
def reader() -> str:
    """The text of an object that reads formulas, to be put into a script after `javascript.LIBRARY`.

    - `parse(text, variables)` gives the tree of a formula. It throws a `GrammarError` with `place`, the index of the
      character where the text goes wrong, and `problem`.
    - `loss(tree, variables)` gives a function of the variables that returns the value.
    - `slope(tree, variables)` gives a function of the variables and an array `out`, which it fills with the value and
      its derivatives by each of them; `curvature(tree, variables)` the same for the second derivatives, row by row.
    - `parseRule(text)` reads the lines of a rule, and throws as `parse` does; `parseRule(text, choice)` for one of the
      `choices(flags)` of its flags. `stepping(read, name)` makes of that an object with the members that
      `javascript.javascript` gives a rule.
    """
    tables = {
        "LONGEST": json.dumps(LONGEST),
        "DEEPEST": json.dumps(DEEPEST),
        "BINARY": json.dumps(BINARY),
        "CALLED": json.dumps(CALLED),
        "POWERS": json.dumps({f"{exponent:g}": op for exponent, op in POWERS.items()}),
        "CONSTANTS": json.dumps({"pi": math.pi}),
        "SIGNS": json.dumps(SIGNS),
        "LONGEST_RULE": json.dumps(lines.LONGEST),
        "RULE_SIGNS": json.dumps(lines.SIGNS),
        "SETTING": json.dumps(lines.SETTING),
        "TAKEN": json.dumps(lines.TAKEN),
        "DEFAULTS": json.dumps(lines.DEFAULTS),
        "TRUTHS": json.dumps(lines.TRUTHS),
        "MOST_FLAGS": json.dumps(lines.MOST_FLAGS),
        "USUAL": f"{{ {', '.join(f'{name}: {_range(allowed)}' for name, allowed in USUAL.items())} }}",
        "FRACTION": _range(FRACTION),
        "ANY": _range(ANY),
        "OPERATIONS": "{\n" + "".join(f"{op}: {_operation(op)},\n" for op in OPERATIONS) + "}",
    }
    constants = "".join(f"const {name} = {text};\n" for name, text in tables.items())
    code = (resources.files("downslope.targets").joinpath(name).read_text("utf-8") for name in SCRIPTS)
    return f"(() => {{\n{dense(constants)}{''.join(code)}}})()"


def _range(allowed: Range) -> str:
    """What a hyperparameter may be."""
    ends = f"low: {number_in_javascript(allowed.low).text}, high: {number_in_javascript(allowed.high).text}"
    return f"{{ {ends}, closed: {json.dumps(allowed.closed)}, words: {json.dumps(str(allowed))} }}"


def _operation(op: str) -> str:
    """What a page needs to know of an operation."""
    takes = OPERATIONS[op].takes
    algebra = Algebra()
    letters = {algebra.canonical(number(name)): name for name in "abcefg"}
    numbers = list(letters)
    arguments = [
        algebra.make("ne", e, algebra.number(0)) if kind == "truth" else e
        for kind, e in zip(takes, numbers, strict=False)
    ]
    value = algebra.make(op, *arguments)
    slopes = {key: _tree(e, {**letters, value: "r"}) for key, e in _slopes(value, numbers[3:], algebra)}
    return (
        f"{{ takes: {json.dumps(takes)}, truth: {json.dumps(value.is_condition)}, "
        f"value: (t, o, a, b, c) => () => {_assigned(value, letters)}, slopes: {json.dumps(slopes)} }}"
    )


def _slopes(value: Expression, slopes: list[Expression], algebra: Algebra) -> Iterator[tuple[str, Expression]]:
    """How the slope of an operation follows, for each choice of arguments that have one, in their order."""
    zero = algebra.number(0)
    for has in itertools.product((0, 1), repeat=len(value.args)):
        given = [slope if one else zero for one, slope in zip(has, slopes, strict=False)]
        if any(one and arg.is_condition for one, arg in zip(has, value.args, strict=True)):
            continue
        slope = chain(value, given, algebra)
        if any(has) and slope is not zero:
            yield "".join(map(str, has)), slope


def _tree(e: Expression, letters: Mapping[Expression, str]) -> Any:
    """An expression as a letter, a number, or an operation and what it is applied to."""
    if e in letters:
        return letters[e]
    return e.number if e.op == "constant" else [e.op, *(_tree(arg, letters) for arg in e.args)]


def _assigned(e: Expression, letters: Mapping[Expression, str]) -> str:
    """The statements that put a value into its place."""
    scope = Scope(JAVASCRIPT, {*JAVASCRIPT.reserved, *"toabc"}, {e: f"t[{letter}]" for e, letter in letters.items()})
    above = [f"const {name} = {text};" for name, text in scope.lines([e], {})]
    return f"{{ {' '.join([*above, f't[o] = {scope.text(e)};'])} }}"
