"""What the playground knows of a rule: its programs as JavaScript, their formulas, and what may be chosen."""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from downslope.dialects import dialect_of, full_name
from downslope.language.expression import Expression
from downslope.language.options import compose
from downslope.language.program import Program, in_order
from downslope.language.ranges import Range, usual_range
from downslope.pages import data_in_page
from downslope.recipes.families import families
from downslope.rule import Rule
from downslope.targets.formula import FORMULA, lines_of
from downslope.targets.javascript import moving
from downslope.walks.emitted import recurrence_code, response_code

UNBOUNDED = 1e300
"""An end of a range beyond this is none."""

SHORT = 20
"""A text of no more characters stands wherever it is needed."""

USUAL = {"lr": 1.0}
"""What is taken for a number that a framework demands; 0.9 for what is not here, which is a momentum then."""


def every_rule() -> dict[str, Rule]:
    """All rules that treat each weight by itself, by the names they have beside each other, as `keras.adam`."""
    every = (rule for family in families().values() for rule in family.values())
    return {full_name(rule): rule for rule in every if not compose(rule).over_tensors}


def rules_code(rules: Mapping[str, Rule]) -> str:
    """The declaration of `RULES`, for `ruleEntry` of rules.js: what is known of each that is not usual for its name.

    Texts that would stand in it more than once stand before it.
    """
    homes = {rule: name for name, family in families().items() for rule in family.values()}
    entries = {name: _entry(name, rule, homes.get(rule, rule.name)) for name, rule in rules.items()}
    counts = Counter(text for _, forms in entries.values() for form in forms.values() for text in form.values())
    names = {text: f"${k}" for k, text in enumerate(t for t, count in counts.items() if count > 1 and len(t) > SHORT)}
    members = []
    for name, (told, forms) in entries.items():
        programs = [
            (flags, _object((part, names.get(text, text)) for part, text in form.items()))
            for flags, form in forms.items()
        ]
        members.append((name, f"{{ {data_in_page(told)[1:-1]}, forms: {_object(programs)} }}"))
    shared = "".join(f"const {name} = {text};\n" for text, name in names.items())
    return f"{shared}const RULES = ruleEntries({_object(members)});"


def sentence(rule: Rule) -> str:
    """The picture of a rule in one sentence: the first of its docstring."""
    doc = inspect.getdoc(rule.function) or ""
    return " ".join(doc.partition("\n\n")[0].split())


@functools.cache
def _entry(name: str, rule: Rule, family: str) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """What is told of a rule beside what its name says, and its programs by the flags that are on."""
    numbers = rule.hyperparameters.items()
    told: dict[str, Any] = {
        "family": family,
        "dialect": dialect_of(rule) or "own",
        "python": _in_python(rule),
        "numbers": {key: USUAL.get(key, 0.9) if value is None else value for key, value in numbers},
        "demanded": [key for key, value in numbers if value is None],
        "ranges": {key: _ends(held) for key, held in rule.ranges.items() if held != usual_range(key)},
        "flags": dict(rule.flags),
    }
    usual = _usual(name)
    told = {key: value for key, value in told.items() if value != usual.get(key)}
    forms = {flags_key(each): _program(compose(rule, **each)) for each in _choices(rule.flags)}
    return told, forms


def _usual(name: str) -> dict[str, Any]:
    """What holds of a rule of this name unless it is told otherwise: what `ruleEntry` of rules.js takes for granted."""
    dialect, _, called = name.rpartition(".")
    python = f"downslope.dialects.{name}" if dialect else f"downslope.{name}"
    empty: dict[str, Any] = {"demanded": [], "ranges": {}, "flags": {}}
    return {"family": called, "dialect": dialect or "note", "python": python, **empty}


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


def _program(program: Program) -> dict[str, str]:
    methods = [re.sub(r"(\w)_all\b", r"\1$", text) for text in moving(program).values()]
    starts = {"states": dict(program.states), "scalars": dict(program.scalar_states)}
    told = [f"{name}: {data_in_page(value)}" for name, value in starts.items() if value]
    return {
        "code": f"{{ {', '.join([*told, *methods])} }}",
        "response": response_code(program),
        "recurrence": recurrence_code(program),
        "lines": data_in_page(_lines(program)),
    }


def _lines(program: Program) -> list[list[Any]]:
    """The lines of a formula: name, text of its value, and 1 if it changes from step to step, 2 if it needs a prime.

    In a text `_0` is the value of the first line, and so on. With a look-ahead that is where the gradient is taken,
    called `ahead`.
    """
    lines, called = lines_of(program)
    known = {e: str(e.value) for e in in_order(line.value for line in lines) if e.op == "input"}
    found: list[list[Any]] = []
    if program.lookahead:
        ahead = program.lookahead.outputs["x"]
        inputs = {e: str(e.value) for e in in_order([ahead]) if e.op == "input"}
        found.append(["ahead", _written(ahead, inputs), 1])
    varying = {e for e in in_order(line.value for line in lines) if _varies(e, program)}
    for line in lines:
        written = _written(line.value, known)
        roots = {**program.outputs, **program.scalar_outputs}
        primed = roots.get(line.name) is not line.value and line.name in {"dx", *program.arrays, *program.scalars}
        found.append([line.name, written, 2 if primed else int(line.value in varying or line.name in roots)])
        if line.value.op != "input" and called.get(line.value) == line.name:
            known[line.value] = f"_{len(found) - 1}"
    return found


def _written(e: Expression, known: Mapping[Expression, str]) -> str:
    return FORMULA.write(e, known).text.replace(" ", "")


def _varies(e: Expression, program: Program) -> bool:
    return any(
        part.from_arrays or part.value in ("t", *program.scalar_states) for part in in_order([e]) if part.op == "input"
    )


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
