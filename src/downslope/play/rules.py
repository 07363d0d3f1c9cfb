"""What the playground knows of a rule: its programs as JavaScript, their formulas, and what may be chosen."""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from downslope.dialects import dialect_of, full_name
from downslope.language.expression import Expression
from downslope.language.formula import Range
from downslope.language.options import compose
from downslope.language.program import Program, in_order
from downslope.pages import data_in_page
from downslope.recipes import catalogue
from downslope.rule import Rule
from downslope.targets.formula import lines_of
from downslope.targets.javascript import javascript
from downslope.walks.emitted import recurrence_code, response_code

UNBOUNDED = 1e300
"""An end of a range beyond this is none."""

USUAL = {"lr": 1.0}
"""What is taken for a number that a framework demands; 0.9 for what is not here, which is a momentum then."""


def every_rule() -> dict[str, Rule]:
    """All rules by the names they have beside each other, such as `adam` and `keras.adam`."""
    return {full_name(rule): rule for family in catalogue.families().values() for rule in family.values()}


def rules_code(rules: Mapping[str, Rule]) -> str:
    """An object with each rule under its name: what is known of it, and a program for each choice of its flags."""
    families = {rule: name for name, family in catalogue.families().items() for rule in family.values()}
    return _object((name, _entry(rule, families.get(rule, rule.name))) for name, rule in rules.items())


def sentence(rule: Rule) -> str:
    """The picture of a rule in one sentence: the first of its docstring."""
    doc = inspect.getdoc(rule.function) or ""
    return " ".join(doc.partition("\n\n")[0].split())


@functools.cache
def _entry(rule: Rule, family: str) -> str:
    numbers = rule.hyperparameters.items()
    told = {
        "family": family,
        "dialect": dialect_of(rule) or "own",
        "python": _in_python(rule),
        "numbers": {name: USUAL.get(name, 0.9) if value is None else value for name, value in numbers},
        "demanded": [name for name, value in numbers if value is None],
        "ranges": {name: _ends(rule.ranges[name]) for name in rule.hyperparameters},
        "flags": dict(rule.flags),
    }
    forms = _object((flags_key(each), _program(compose(rule, **each))) for each in _choices(rule.flags))
    return f"{{ ...{data_in_page(told)}, forms: {forms} }}"


def _choices(flags: Mapping[str, bool]) -> list[dict[str, bool]]:
    """Both choices of one flag; of several the usual ones only, since all together would be too much for a page."""
    return [dict(flags)] + [{name: not value} for name, value in flags.items() if len(flags) == 1]


def flags_key(flags: Mapping[str, bool]) -> str:
    """The name of the program for these flags: those that are on, in their order.

    Example:
        >>> flags_key({"centered": True, "nesterov": False})
        'centered'
    """
    return " ".join(name for name, on in flags.items() if on)


def _program(program: Program) -> str:
    code = re.sub(
        r"^\{\n  name: .*\n  hyperparameters: .*\n", "{\n", javascript(program)
    )  # they are told with the rule
    parts = {
        "code": re.sub(r"(\w)_all\b", r"\1$", code.replace("hyperparameters", "numbers").replace("point: null,\n", "")),
        "response": response_code(program),
        "recurrence": recurrence_code(program),
        "lines": data_in_page(_lines(program)),
    }
    return _object(parts.items())


def _lines(program: Program) -> list[list[Any]]:
    """The lines of a formula: name, tree of its value, and 1 if it changes from step to step, 2 if it needs a prime.

    A tree is the name of an input, a number, the index of an earlier line in a list of its own, or an operation and
    what it is applied to. With a look-ahead the first line is where the gradient is taken, as `ahead`.
    """
    lines, called = lines_of(program)
    places: dict[Expression, int] = {}
    found: list[list[Any]] = []
    if program.lookahead:
        found.append(["ahead", _tree(program.lookahead.outputs["x"], {}), 1])
    varying = {e for e in in_order(line.value for line in lines) if _varies(e, program)}
    for line in lines:
        tree = _tree(line.value, places, top=True)
        roots = {**program.outputs, **program.scalar_outputs}
        primed = roots.get(line.name) is not line.value and line.name in {"dx", *program.arrays, *program.scalars}
        found.append([line.name, tree, 2 if primed else int(line.value in varying or line.name in roots)])
        if line.value.op != "input" and called.get(line.value) == line.name:
            places[line.value] = len(found) - 1
    return found


def _varies(e: Expression, program: Program) -> bool:
    return any(
        part.per_weight or part.value in ("t", *program.scalar_states) for part in in_order([e]) if part.op == "input"
    )


def _tree(e: Expression, places: Mapping[Expression, int], *, top: bool = False) -> Any:
    if e in places and not top:
        return [places[e]]
    if e.op == "input":
        return str(e.value)
    if e.op == "constant":
        return e.number
    return [e.op, *(_tree(arg, places) for arg in e.args)]


def _in_python(rule: Rule) -> str | None:
    """How a rule is written in a call; None for one that only its file knows."""
    dialect = dialect_of(rule)
    if dialect is None:
        return None
    return f"downslope.{rule.name}" if dialect == "note" else f"downslope.dialects.{dialect}.{rule.name}"


def _ends(allowed: Range) -> list[float | None]:
    """The lowest and the highest number of a range; None where there is no end."""
    high = allowed.high if allowed.closed else math.nextafter(allowed.high, -math.inf)
    return [end if abs(end) < UNBOUNDED else None for end in (allowed.low, high)]


def _object(members: Iterable[tuple[str, str]]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {text}" for name, text in members) + "\n}"
