"""Python: the coefficients, in double precision on the host, and the subset of it that kernels are written in."""

from __future__ import annotations

import keyword

from downslope.language.program import Program
from downslope.targets.write import ATOM, Form, Target, Text, call, coefficients, infix, prefix

FORMS = {
    "or": infix("or", 1),
    "and": infix("and", 2),
    "not": prefix("not ", 3),
    "lt": infix("<", 4),
    "le": infix("<=", 4),
    "gt": infix(">", 4),
    "ge": infix(">=", 4),
    "eq": infix("==", 4),
    "ne": infix("!=", 4),
    "add": infix("+", 5),
    "sub": infix("-", 5),
    "mul": infix("*", 6),
    "div": infix("/", 6),
    "square": Form("{0} * {0}", 6, (7,)),
    "cube": Form("{0} * {0} * {0}", 6, (7,)),
    "fourth": Form("{0} * {0} * {0} * {0}", 6, (7,)),
    "neg": prefix("-", 7),
    "pow": Form("{} ** {}", 8, (9, 9)),
    "where": Form("({1} if {0} else {2})"),
    "abs": Form("abs({})"),
    "sign": call("sign"),
    "sqrt": call("sqrt"),
    "exp": call("exp"),
    "expm1": call("expm1"),
    "log": call("log"),
    "tanh": call("tanh"),
    "sin": call("sin"),
    "cos": call("cos"),
    "maximum": call("maximum", 2),
    "minimum": call("minimum", 2),
}

RESERVED = frozenset(
    {"abs", "inf", "nan", "np", "pow", *(form.word for form in FORMS.values() if form.word)}
    | {*keyword.kwlist, *keyword.softkwlist}
)


def number(value: float) -> Text:
    """A number in Python."""
    text = repr(value)
    return Text(text, 0, first="minus") if text.startswith("-") else Text(text)


READABLE = Target(FORMS, number)
"""As one would write it, for comments."""

PYTHON = Target(
    FORMS
    | {
        "sign": Form("np.sign({})"),
        "maximum": Form("np.maximum({}, {})"),
        "minimum": Form("np.minimum({}, {})"),
        "pow": call("pow", 2),  # that of math, which is never complex
    },
    number,
    RESERVED,
)
"""Double precision on the host, for coefficients."""


def kernel_target(scalar: str) -> Target:
    """What kernels are written in, for weights of this scalar type (`float32` or `float64`)."""
    return Target(FORMS, lambda value: Text(f"{scalar}({value!r})", ATOM), RESERVED)


def coefficients_source(program: Program) -> str:
    """Python source of `coefficients(*scalars)`: the program's coefficients, then its new scalar states, as floats."""
    text = coefficients(program, PYTHON)
    lines = "".join(f"    {name} = {value}\n" for name, value in text.lines)
    numbers = [f"1.0 if {value} else 0.0" if e.is_condition else value for e, value in text.results]
    returned = "(\n" + "".join(f"        {value},\n" for value in numbers) + "    )" if numbers else "()"
    return (
        f"def coefficients({', '.join(text.arguments)}):\n"
        '    """What does not differ from weight to weight: worked out once per step, in double precision."""\n'
        f"{lines}    return {returned}\n"
    )
