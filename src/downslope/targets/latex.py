"""A program in LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from downslope.language.expression import Expression
from downslope.language.program import Program, in_order
from downslope.targets.formula import lines_of
from downslope.targets.write import ATOM, Form, Target, Text, infix, prefix


class _Latex(Target):
    """LaTeX, where a product is written without a sign: what follows must not look like a sum, or like more digits."""

    def joined(self, op: str, texts: list[Text]) -> Text:
        if op == "called":
            texts = [Text(texts[0].text.replace("_", " ")), texts[1]]
        if op in ("add", "sub", "mul"):
            if texts[1].first == "minus":
                texts = [texts[0], self.bracketed(texts[1])]
            elif texts[1].first == "digit" and op == "mul":
                op = "times"
        return super().joined(op, texts)

    def bracketed(self, inner: Text) -> Text:
        text = rf"\left({inner.text}\right)" if inner.tall else f"({inner.text})"
        return Text(text, ATOM, inner.tall)


_PRODUCT = 6
"""How tightly a product binds."""


def _number(value: float) -> Text:
    if math.isinf(value):
        return Text(r"\infty") if value > 0 else Text(r"-\infty", 0, first="minus")
    turns = value / math.pi
    if value and turns.is_integer() and abs(turns) < 1000:
        text = r"\pi" if abs(turns) == 1 else rf"{abs(turns):g} \pi"
        return Text(f"-{text}", _PRODUCT, first="minus") if value < 0 else Text(text, _PRODUCT, first="digit")
    digits, _, exponent = repr(value).partition("e")
    digits = digits.removesuffix(".0")
    text, binding = digits, ATOM
    if exponent:
        power = f"10^{{{int(exponent)}}}"
        alone = digits in ("1", "-1")
        text, binding = (digits[:-1] + power, 8) if alone else (rf"{digits} \cdot {power}", _PRODUCT)
    if value < 0 or digits.startswith("-"):
        return Text(text, _PRODUCT, first="minus")  # in front of a product it is the minus of all of it
    return Text(text, binding, first="digit")


def _over_tensors() -> dict[str, Form]:
    """What sums up a tensor, or each of its columns or rows."""
    found = {"norm": Form(r"\left\|{}\right\|")}
    found |= {word: Form(rf"\operatorname{{{{{word}}}}}\left({{}}\right)") for word in ("mean", "sum", "max", "size")}
    each = {"0": r"_{{\mathrm{{columns}}}}", "1": r"_{{\mathrm{{rows}}}}", "all": r"_{{\mathrm{{all}}}}"}
    found |= {f"{op} {axis}": Form(form.template + of) for op, form in found.items() for axis, of in each.items()}
    counts = {"size 0": "rows", "size 1": "columns"}
    return found | {op: Form(rf"\operatorname{{{{{word}}}}}\left({{}}\right)") for op, word in counts.items()}


LATEX = _Latex(
    {
        "or": infix(r"\lor", 1),
        "and": infix(r"\land", 2),
        "not": prefix(r"\lnot ", 3),
        "lt": infix("<", 4),
        "le": infix(r"\le", 4),
        "gt": infix(">", 4),
        "ge": infix(r"\ge", 4),
        "eq": infix("=", 4),
        "ne": infix(r"\ne", 4),
        "add": infix("+", 5),
        "sub": infix("-", 5),
        "mul": infix(r"\,", _PRODUCT),
        "times": infix(r"\cdot", _PRODUCT),
        "entries": infix(r"\odot", _PRODUCT),
        "neg": prefix("-", 7),
        "div": Form(r"\frac{{{}}}{{{}}}", 8, tall=True),
        "pow": Form("{}^{{{}}}", 9, (ATOM, 0)),
        "square": Form("{}^{{2}}", 9, (ATOM,)),
        "cube": Form("{}^{{3}}", 9, (ATOM,)),
        "fourth": Form("{}^{{4}}", 9, (ATOM,)),
        "where": Form(
            r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}", 0, tall=True
        ),
        "abs": Form(r"\left|{}\right|"),
        "sqrt": Form(r"\sqrt{{{}}}"),
        "exp": Form(r"\exp\left({}\right)"),
        "expm1": Form(r"\operatorname{{expm1}}\left({}\right)"),
        "log": Form(r"\log\left({}\right)"),
        "tanh": Form(r"\tanh\left({}\right)"),
        "sin": Form(r"\sin\left({}\right)"),
        "cos": Form(r"\cos\left({}\right)"),
        "sign": Form(r"\operatorname{{sign}}\left({}\right)"),
        "maximum": Form(r"\max\left({}, {}\right)"),
        "minimum": Form(r"\min\left({}, {}\right)"),
        "transpose": Form(r"{}^{{\top}}", 9, (ATOM,)),
        "product": infix(r"\,", _PRODUCT),
        "eigenvectors": Form(r"\operatorname{{eigenvectors}}\left({}\right)"),
        "qr": Form(r"\operatorname{{qr}}\left({}\right)"),
        "sort_by": Form(r"\operatorname{{sort}}\left({}\text{{ by }}{}\right)"),
        "called": Form(r"\text{{{}}}\left({}\right)"),
        **_over_tensors(),
    },
    _number,
)


class _OfMatrices(_Latex):
    """The same beside products of matrices: what is multiplied entry by entry must not look like one."""

    def write(self, e: Expression, known: Mapping[Expression, str], *, top: bool = True) -> Text:
        if e.op == "mul" and (top or e not in known) and all(arg.space.first and arg.space.second for arg in e.args):
            return self.join("entries", [self.write(arg, known, top=False) for arg in e.args])
        return super().write(e, known, top=top)


_OF_MATRICES = _OfMatrices(LATEX.forms, LATEX.constant)


def expression_latex(e: Expression) -> str:
    r"""One expression in LaTeX.

    Example:
        >>> from downslope.language.grammar import parse
        >>> print(expression_latex(parse("cos(2 * pi * x) - x**2 / 10")))
        \cos\left(2 \pi \, x\right) - \frac{x^{2}}{10}
    """
    return LATEX.write(e, {leaf: _latex_name(str(leaf.value), "") for leaf in in_order([e]) if leaf.op == "input"}).text


def latex(program: Program) -> str:
    """The program in LaTeX: one line for every value its author gave a name, new states before the new weights.

    With a look-ahead, the first line says where the gradient is taken. A state that stays as it was is a constant.
    Beside a product of matrices, a circled dot is between those that are multiplied entry by entry.
    """
    lines, called = lines_of(program)
    target = _OF_MATRICES if any(e.op == "product" for e in program.expressions) else LATEX
    roots = {**program.outputs, **program.scalar_outputs}
    states = (*program.states, *program.scalar_states)
    constant = {name for name in states if roots[name].op == "input" and roots[name].value == name}
    lines = [line for line in lines if line.name not in constant]
    before = {"x", *states} - constant
    varying: set[Expression] = set()
    for e in in_order(roots.values()):
        if e.from_arrays or e.value in (*before, "t") or not varying.isdisjoint(e.args):
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
        texts.append(rf"dx_{{t}} &= \nabla L\left({target.write(point, inputs).text}\right)")
    for line in lines:
        is_definition = line.value.op != "input" and called.get(line.value) == line.name
        left = known[line.value] if is_definition else _latex_name(line.name, "t")
        texts.append(f"{left} &= {target.write(line.value, known, top=is_definition).text}")
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
