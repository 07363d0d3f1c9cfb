"""JavaScript of plain doubles: for pages that compute by themselves.

A rule becomes an object that steps any number of weights in place, and an expression a function of its inputs. Both are
text to be put into a script, after `LIBRARY`, and need nothing else: no network, no `eval`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from downslope.language.expression import Expression
from downslope.language.program import Program, in_order
from downslope.targets.write import (
    ATOM,
    Form,
    Scope,
    Target,
    Text,
    author_names,
    body_lines,
    call,
    infix,
    prefix,
    stored,
)

LIBRARY = """\
function pow(a, b) { return a === 1 || (a === -1 && (b === Infinity || b === -Infinity)) ? 1 : Math.pow(a, b); }
function sign(a) { return a > 0 ? 1 : a < 0 ? -1 : a + 0; }
function maximum(a, b) { return a > b || a !== a ? a : b; }
function minimum(a, b) { return a < b || a !== a ? a : b; }
function tanh(a) {
  const size = Math.abs(a);
  if (!(size < 1)) return (1 - 2 / (Math.expm1(2 * size) + 2)) * (a < 0 ? -1 : 1);
  const square = a * a;
  let below = 17;
  for (let k = 15; k > 1; k -= 2) below = k + square / below;
  const part = square / below;
  return a === 0 ? a : a - a * (part / (1 + part));
}
"""
"""The functions that the text calls besides those of `Math`: once in every script.

All but the last are NumPy's. JavaScript's own differ: `Math.pow(1, NaN)` is NaN, `Math.sign(-0)` is -0, and `Math.max`
puts 0 above -0. `Math.tanh` is off by up to 1.9 units in the last place, where NumPy's is off by 1.2 and this one, by
Lambert's continued fraction, by 1.0.
"""

FORMS = {
    "or": infix("||", 1),
    "and": infix("&&", 2),
    "eq": infix("===", 3),
    "ne": infix("!==", 3),
    "lt": infix("<", 4),
    "le": infix("<=", 4),
    "gt": infix(">", 4),
    "ge": infix(">=", 4),
    "add": infix("+", 5),
    "sub": infix("-", 5),
    "mul": infix("*", 6),
    "div": infix("/", 6),
    "square": Form("{0} * {0}", 6, (7,)),
    "cube": Form("{0} * {0} * {0}", 6, (7,)),
    "fourth": Form("{0} * {0} * {0} * {0}", 6, (7,)),
    "neg": Form("-{}", 7, (ATOM,)),  # two signs would be an operator of their own
    "not": prefix("!", 7),
    "where": Form("{} ? {} : {}", 0, (1, 0, 0)),
    "pow": call("pow", 2),
    "sign": call("sign"),
    "maximum": call("maximum", 2),
    "minimum": call("minimum", 2),
    "tanh": call("tanh"),
    **{name: call(f"Math.{name}") for name in ("abs", "sqrt", "exp", "expm1", "log", "sin", "cos")},
}

_KEYWORDS = """
arguments await break case catch class const continue debugger default delete do else enum eval export extends false
finally for function if implements import in instanceof interface let new null package private protected public return
static super switch this throw true try typeof var void while with yield
"""

RESERVED = frozenset(
    {"Math", "Float64Array", "Infinity", "NaN", "undefined"}
    | {*_KEYWORDS.split()}
    | {form.word for form in FORMS.values() if form.word.isidentifier()}
)


def number(value: float) -> Text:
    """A number in JavaScript."""
    if not math.isfinite(value):
        text = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    else:
        text = repr(value).removesuffix(".0")
    return Text(text, 0, first="minus") if text.startswith("-") else Text(text)


JAVASCRIPT = Target(FORMS, number, RESERVED)
"""Double precision in a browser."""


def function(name: str, inputs: Sequence[str], roots: Expression | Sequence[Expression]) -> str:
    """A function of numbers.

    Args:
        name: What it is called; nothing for a function without a name.
        inputs: The names of its arguments, in order; among them all inputs of the expressions.
        roots: The expression that it returns; or several, with which it fills its last argument `out`, an array.

    Returns:
        The text of its definition.

    Raises:
        ValueError: An expression takes what is not among the inputs, or the name is not free for a function.

    Example:
        >>> from downslope.language.trace import number
        >>> x, y = number("x"), number("y")
        >>> print(function("valley", ("x", "y"), x**2 / 10 + 5 * y**2))
        function valley(x, y) {
          return x * x / 10 + 5 * (y * y);
        }
        >>> print(function("slope", ("x", "y"), [x / 5, 10 * y]))
        function slope(x, y, out) {
          out[0] = x / 5;
          out[1] = 10 * y;
          return out;
        }
    """
    if name and (name in RESERVED or not name.isidentifier()):
        raise ValueError(f"name={name!r} cannot be that of a function in JavaScript; give another one")
    several = [roots] if isinstance(roots, Expression) else list(roots)
    scope = Scope(JAVASCRIPT, {*RESERVED, "out", name})
    variables = {key: scope.claim(key) for key in inputs}
    for e in in_order(several):
        if e.op == "input":
            if e.value not in variables:
                raise ValueError(f"inputs={tuple(inputs)!r} lack {e.value}, which the formula takes")
            scope.known[e] = variables[str(e.value)]
    lines = _constants(scope.lines(several, {}))
    if isinstance(roots, Expression):
        arguments = [*variables.values()]
        lines.append(f"return {scope.text(roots)};")
    else:
        arguments = [*variables.values(), "out"]
        lines += [f"out[{k}] = {scope.text(e)};" for k, e in enumerate(several)]
        lines.append("return out;")
    return _block(f"function {name}({', '.join(arguments)})", lines)


def javascript(program: Program) -> str:
    """A rule as an object.

    Its weights, gradients and states are `Float64Array`s, its hyperparameters an object with a number for each name
    (with `max_norm` also `grad_scale`). A scalar state is an array of one number.

    - `name`, and `hyperparameters` with their defaults, `null` where there is none.
    - `start(x, hyperparameters)` gives the states before the first step, an array for each name.
    - `step(x, dx, states, hyperparameters, t)` is step number `t`, from 1: weights and states are changed in place.
    - `point(at, x, states, hyperparameters)` writes where the next gradient is to be taken into the array `at`; it is
      `null` for a rule that takes it at `x`.

    Args:
        program: What a step computes.

    Returns:
        The text of an expression, whose names are the author's own.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> print(javascript(compose(downslope.momentum)))
        {
          name: "momentum",
          hyperparameters: { lr: 0.01, mu: 0.9 },
          start(x, hyperparameters) {
            const states = { v: new Float64Array(x.length) };
            states.v.fill(0);
            return states;
          },
          step(x_all, dx_all, states, hyperparameters, t) {
            const { lr, mu } = hyperparameters;
            const v_all = states.v;
            for (let i = 0; i < x_all.length; i++) {
              const x = x_all[i];
              const dx = dx_all[i];
              const v = v_all[i];
              const new_v = mu * v - lr * dx;
              const new_x = x + new_v;
              x_all[i] = new_x;
              v_all[i] = new_v;
            }
          },
          point: null,
        }
    """
    defaults = {name: "null" if v is None else number(v).text for name, v in program.hyperparameters.items()}
    parts = [f"name: {_quoted(program.name)}", f"hyperparameters: {_object(defaults)}", _start(program)]
    parts += moving(program).values()
    if not program.lookahead:
        parts.append("point: null")
    return "{\n" + "".join(f"{_indented(part)},\n" for part in parts) + "}"


def moving(program: Program) -> dict[str, str]:
    """The methods `step` and, if there is a look-ahead, `point` of what `javascript` writes, by name.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> list(moving(compose(downslope.nesterov)))
        ['step', 'point']
    """
    methods = {"step": _over_all(program, "step(x_all, dx_all, states, hyperparameters, t)")}
    if program.lookahead:
        methods["point"] = _over_all(program.lookahead, "point(at_all, x_all, states, hyperparameters)", to="at_all")
    return methods


def _start(program: Program) -> str:
    """The method that makes the states."""
    arrays = dict.fromkeys(program.states, "new Float64Array(x.length)")
    numbers = {name: f"Float64Array.of({number(value).text})" for name, value in program.scalar_states.items()}
    lines = [f"const states = {_object(arrays | numbers)};"]
    for name, value in program.states.items():
        place = f"states{_member(name)}"
        if value == "x":
            lines.append(f"{place}.set(x);")
        else:
            start = f"hyperparameters{_member(value)}" if isinstance(value, str) else number(value).text
            lines.append(f"{place}.fill({start});")
    return _block("start(x, hyperparameters)", [*lines, "return states;"])


def _over_all(program: Program, head: str, *, to: str = "x_all") -> str:
    """The method that computes a program for all weights; the new ones go into the array `to`."""
    scope = Scope(JAVASCRIPT, {*RESERVED, "x_all", "dx_all", "at_all", "states", "hyperparameters", "t", "i"})
    results = [*program.coefficients, *program.scalar_outputs.values()]
    inputs = {str(e.value): e for e in in_order([*program.outputs.values(), *results]) if e.op == "input"}
    read = {name: inputs.pop(name) for name in (*program.arrays, *program.hyperparameters) if name in inputs} | inputs
    elements = {name: scope.name(e, name) for name, e in read.items() if e.from_arrays}
    given: dict[str, str] = {}
    lines: list[str] = []
    for name, e in read.items():
        if name in program.scalar_states:
            lines.append(f"const {scope.name(e, name)} = states{_member(name)}[0];")
        elif name == "t":
            scope.known[e] = "t"
        elif not e.from_arrays:
            given[name] = scope.name(e, name)
    if given:
        lines.insert(0, f"const {_object(given)} = hyperparameters;")
    written = dict(stored(program)) if to == "x_all" else program.outputs
    place = {"x": "x_all", "dx": "dx_all"}
    for name in {**elements, **written}:
        if name not in place:
            place[name] = scope.claim(f"{name}_all")
            lines.append(f"const {place[name]} = states{_member(name)};")
    numbered = {e: f"c{k}" for k, e in enumerate(program.coefficients)}
    lines += _constants(scope.lines(results, numbered | author_names(program)))

    loop = [f"const {variable} = {place[name]}[i];" for name, variable in elements.items()]
    loop += _constants(body_lines(program, scope))
    loop += [f"{to if name == 'x' else place[name]}[i] = {scope.text(e)};" for name, e in written.items()]
    lines += [_block(f"for (let i = 0; i < {to}.length; i++)", loop)] if written else []
    lines += [f"states{_member(name)}[0] = {scope.text(e)};" for name, e in program.scalar_outputs.items()]
    return _block(head, lines)


def _constants(lines: Iterable[tuple[str, str]]) -> list[str]:
    return [f"const {variable} = {text};" for variable, text in lines]


def _block(head: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{head} {{", *(_indented(line) for line in lines), "}"])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _object(members: Mapping[str, str]) -> str:
    """An object, or what takes one apart."""
    pairs = [key if key == value else f"{_key(key)}: {value}" for key, value in members.items()]
    return f"{{ {', '.join(pairs)} }}" if pairs else "{}"


def _quoted(text: str) -> str:
    """A text between quotation marks, which no page takes for the end of its script."""
    return json.dumps(text).replace("<", "\\u003c")


def _key(name: str) -> str:
    """A name as a key."""
    return name if name.isidentifier() else _quoted(name)


def _member(name: str) -> str:
    """The member of this name."""
    return f".{name}" if name.isidentifier() else f"[{_quoted(name)}]"
