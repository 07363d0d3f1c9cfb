"""From a program to what people read: its formula as its author would write it, and in LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from downslope.emit import ATOM, OPERATIONS, Target, identifier
from downslope.expression import Expression
from downslope.trace import Program, in_order

_AS_WRITTEN = {"pow": ("{}**{}", 8), "where": ("where({}, {}, {})", ATOM)}

FORMULA = Target(
    {op: form for op, form in (OPERATIONS | _AS_WRITTEN).items() if op != "square"},
    lambda value: repr(value).removesuffix(".0"),
)
"""The words of a formula, as its author writes them."""

LATEX = Target(
    {
        "add": ("{} + {}", 5),
        "sub": ("{} - {}", 5),
        "mul": (r"{} \, {}", 6),
        "times": (r"{} \cdot {}", 6),  # before a numeral
        "div": (r"\frac{{{}}}{{{}}}", 8),
        "neg": ("-{}", 7),
        "pow": ("{}^{{{}}}", 9),
        "abs": (r"\left|{}\right|", ATOM),
        "sqrt": (r"\sqrt{{{}}}", ATOM),
        "exp": (r"\exp\left({}\right)", ATOM),
        "log": (r"\log\left({}\right)", ATOM),
        "tanh": (r"\tanh\left({}\right)", ATOM),
        "sign": (r"\operatorname{{sign}}\left({}\right)", ATOM),
        "maximum": (r"\max\left({}, {}\right)", ATOM),
        "minimum": (r"\min\left({}, {}\right)", ATOM),
        "where": (r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}", 0),
        "lt": ("{} < {}", 4),
        "le": (r"{} \le {}", 4),
        "gt": ("{} > {}", 4),
        "ge": (r"{} \ge {}", 4),
        "eq": ("{} = {}", 4),
        "ne": (r"{} \ne {}", 4),
        "and": (r"{} \land {}", 2),
        "or": (r"{} \lor {}", 1),
        "not": (r"\lnot {}", 3),
    },
    lambda value: _latex_number(value),
)


def _latex_number(value: float) -> str:
    if math.isinf(value):
        return r"\infty" if value > 0 else r"-\infty"
    digits, _, exponent = repr(value).partition("e")
    digits = digits.removesuffix(".0")
    if not exponent:
        return digits
    power = f"10^{{{int(exponent)}}}"
    return digits[:-1] + power if digits in ("1", "-1") else rf"{digits} \cdot {power}"


@dataclass(frozen=True)
class _Line:
    """One line of a formula: a name, the value it is given, and the named values and inputs that this takes."""

    name: str
    value: Expression
    reads: frozenset[Expression]


def _lines(program: Program) -> tuple[list[_Line], dict[Expression, str]]:
    """A line for every value its author gave a name, and what each of these values, and each input, is called.

    A line comes after those that work out what it reads and, where there is such an order, after those that read what
    its name stood for before; the new weights come last where nothing forbids it.
    """
    roots = {**program.scalar_outputs, **program.outputs}
    ordered = in_order(e for name, e in sorted(roots.items(), key=lambda item: item[0] == "x"))
    names = {e: name for e, name in program.names.items() if e.args}
    names |= {e: name for name, e in reversed(roots.items()) if e.args}
    called = {e: str(e.value) for e in ordered if e.op == "input"} | names
    waiting = [_Line(names[e], e, _read(e.args, called)) for e in ordered if e in names]
    waiting += [_Line(name, e, _read([e], called)) for name, e in roots.items() if names.get(e) != name]
    waiting.sort(key=lambda line: line.name == "x" and line.value is roots["x"])
    lines: list[_Line] = []
    while waiting:
        unknown = {line.value for line in waiting if names.get(line.value) == line.name}
        ready = [line for line in waiting if not line.reads & unknown]
        free = [line for line in ready if not _overwritten(line, waiting, called)]
        lines.append((free or ready)[0])
        waiting.remove(lines[-1])
    return lines, called


def _read(roots: Iterable[Expression], called: Mapping[Expression, str]) -> frozenset[Expression]:
    """What has a name among the expressions and, where they have none, among what they are made of."""
    found: set[Expression] = set()
    waiting = list(roots)
    while waiting:
        e = waiting.pop()
        if e in called:
            found.add(e)
        else:
            waiting.extend(e.args)
    return frozenset(found)


def _overwritten(line: _Line, others: Iterable[_Line], called: Mapping[Expression, str]) -> set[Expression]:
    """What others still read by the name that the line gives to another value."""
    read = {e for other in others if other is not line for e in other.reads}
    return {e for e in read if called[e] == line.name and e is not line.value}


def formula(program: Program) -> tuple[tuple[str, str], ...]:
    """The program as its author would write it: for every value with a name, the name and the text of the value.

    The lines can be carried out one after the other. With a look-ahead, the first says where the gradient is taken.

    Example:
        >>> import downslope
        >>> from downslope.trace import trace
        >>> for name, value in formula(trace(downslope.rmsprop)):
        ...     print(name, "=", value)
        cache = decay_rate * cache + (1 - decay_rate) * dx**2
        x = x - lr * dx / (sqrt(cache) + eps)
    """
    lines, called = _lines(program)
    known = {e: name for e, name in called.items() if e.op == "input"}
    texts: list[tuple[str, str]] = []
    if program.lookahead:
        point = program.lookahead.outputs["x"]
        inputs = {e: str(e.value) for e in in_order([point]) if e.op == "input"}
        texts.append(("dx", f"gradient at {FORMULA.write(point, inputs)[0]}"))
    for index, line in enumerate(lines):
        kept = identifier(f"{line.name}_before", called.values())
        for e in _overwritten(line, lines[index + 1 :], called):
            if known.get(e) == line.name:
                texts.append((kept, line.name))
                known[e] = kept
        value = FORMULA.write(line.value, known, top=line.value not in known)[0]
        known.setdefault(line.value, line.name)
        if value != line.name:
            texts.append((line.name, value))
    return tuple(texts)


def latex(program: Program) -> str:
    """The program in LaTeX: one line for every value its author gave a name, new states before the new weights.

    With a look-ahead, the first line says where the gradient is taken.
    """
    lines, called = _lines(program)
    roots = {**program.outputs, **program.scalar_outputs}
    before = {"x", *program.states, *program.scalar_states}
    varying: set[Expression] = set()
    for e in in_order(roots.values()):
        if e.per_weight or e.value in (*before, "t") or not varying.isdisjoint(e.args):
            varying.add(e)

    def symbol(name: str, e: Expression) -> str:
        if e.op == "input":
            return _latex_name(name, "t-1" if name in before else "t" if name == "dx" else "")
        taken = roots.get(name) is not e and name in {*before, "dx", *program.scalars}
        return _latex_name(name, "t" if e in varying or roots.get(name) is e else "", prime=taken)

    known = {e: symbol(name, e) for e, name in called.items()}
    texts = []
    if program.lookahead:
        point = program.lookahead.outputs["x"]
        inputs = {e: symbol(str(e.value), e) for e in in_order([point]) if e.op == "input"}
        texts.append(rf"dx_{{t}} &= \nabla L\left({LATEX.write(point, inputs)[0]}\right)")
    for line in lines:
        is_definition = line.value.op != "input" and called.get(line.value) == line.name
        left = known[line.value] if is_definition else _latex_name(line.name, "t")
        texts.append(f"{left} &= {LATEX.write(line.value, known, top=is_definition)[0]}")
    return "\\begin{aligned}\n" + " \\\\\n".join(texts) + "\n\\end{aligned}"


_GREEK = frozenset(
    {"alpha", "beta", "gamma", "delta", "epsilon", "eta", "theta", "kappa", "lambda", "mu", "nu", "pi", "rho", "sigma"}
    | {"tau", "phi", "psi", "omega"}
)


def _latex_name(name: str, time: str, *, prime: bool = False) -> str:
    stem = name.removesuffix("_hat")
    letters, digits, word = _parts(stem)
    if letters == "eps":
        symbol = r"\varepsilon"
    elif letters in _GREEK:
        symbol = f"\\{letters}"
    elif len(letters) == 1 or letters == "dx":
        symbol = letters
    else:
        symbol = _upright(letters)
    symbol = f"\\hat{{{symbol}}}" if stem != name else symbol
    below = ",".join(part for part in (digits, _upright(word) if word else "", time) if part)
    symbol = f"{{{symbol}'}}" if prime else symbol
    return symbol + (f"_{below}" if len(below) == 1 and not time else f"_{{{below}}}" if below else "")


def _upright(word: str) -> str:
    return r"\mathrm{" + word.replace("_", r"\_") + "}"


def _parts(name: str) -> tuple[str, str, str]:
    """A name as a symbol, its number and the word below it: `mu_next` is a mu, `weight_decay` is one word."""
    found = re.fullmatch(r"([A-Za-z]+)(\d*)(?:_(\w+))?", name)
    if found and (len(found[1]) == 1 or found[1] in {"dx", "eps", *_GREEK}):
        return found[1], found[2], found[3] or ""
    letters = name.rstrip("0123456789")
    return letters, name[len(letters) :], ""
