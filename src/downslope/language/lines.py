"""Rules as text: a few lines as they stand in a rule's function, read by a grammar of our own and never run.

    rule   = line , { ( ";" | end of line ) , line } ;
    line   = name , "=" , [ "+" | "-" ] , number
           | name , "=" , ( "True" | "False" )
           | name , ( "=" | "+=" | "-=" | "*=" | "/=" ) , formula
           | "lookahead" , "=" , formula
           | "return" , formula , { "," , name } ;

with the formulas of `grammar`, in which an end of line between brackets is a blank, and one more:

    formula = either , [ "if" , [ "not" ] , name , "else" , formula ] ;

`x` are the weights, `dx` the gradient and `t` the number of the step; the new weights are what `x` is in the end, or
what the last line returns. A name that is used before a line sets it is a state, 0 before the first step; behind what
is returned the states may stand, as they do in Python. A line that gives a name a number makes it a hyperparameter with
this default; those in `DEFAULTS` need no such line. If a line below sets the name anew, it is a state that begins with
the number. A line that gives a name True or False makes it a flag, a choice that is settled before anything is
computed: all that `if` asks for, while numbers are compared by `where`. How far from `x` the gradient is taken is
`lookahead`, made of states and hyperparameters as they are before the step.

A text has at most 500 characters and 3 flags. It is read in one pass for each choice of them, with the same states and
hyperparameters in each, and makes no more operations than it has characters.
"""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from downslope.language import grammar
from downslope.language.expression import Expression, expression
from downslope.language.formula import ARGUMENTS, RESERVED
from downslope.language.grammar import CALLED, GrammarError, Reader, Token, is_truth, tokens
from downslope.language.options import FIXED
from downslope.language.program import in_order
from downslope.language.ranges import usual_range
from downslope.language.trace import array, number

LONGEST = 500
"""How many characters a text may have."""

MOST_FLAGS = 3
"""How many choices a rule may leave open: each doubles the programs that it is."""

TRUTHS = {"True": True, "False": False}
"""What a line gives a flag."""

DEFAULTS = {
    "lr": 0.01,
    "mu": 0.9,
    "momentum": 0.9,
    "decay_rate": 0.99,
    "rho": 0.9,
    "beta": 0.9,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
}
"""The hyperparameters that may be used without giving them a number, and the number they have."""

SETTING = {"=": "", "+=": "add", "-=": "sub", "*=": "mul", "/=": "div"}
"""What sets a name, and the operation on what it was and what follows."""

TAKEN = (
    *sorted((RESERVED - {"x", "dx"}) | ARGUMENTS | {*FIXED, "pi", *CALLED, *keyword.kwlist}),
    *(
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
    ),
)
"""The names that cannot be set: they mean something, in the language of formulas or to what computes them."""

SIGNS = rf"[-+*/]=|{grammar.SIGNS}|[=;]"
"""The signs of a rule, as a pattern."""


@dataclass(frozen=True)
class Lines:
    """A rule that has been read from a text, for one choice of its flags.

    Attributes:
        states: Its states with what they are before the first step, in the order in which they are used.
        hyperparameters: Its hyperparameters with their defaults.
        flags: Its flags with their defaults.
        outputs: The new weights and states, by name.
        uses_t: Whether the number of the step is used.
        lookahead: How far from the weights the gradient is taken; None where it is taken at them.
    """

    states: Mapping[str, float]
    hyperparameters: Mapping[str, float]
    flags: Mapping[str, bool]
    outputs: Mapping[str, Expression]
    uses_t: bool
    lookahead: Expression | None = None


def choices(flags: Mapping[str, bool]) -> Iterator[dict[str, bool]]:
    """Each choice of flags, their defaults first.

    Example:
        >>> list(choices({"centered": True}))
        [{'centered': True}, {'centered': False}]
    """
    for values in itertools.product(*((default, not default) for default in flags.values())):
        yield dict(zip(flags, values, strict=True))


def parse_lines(text: str, /, **flags: bool) -> Lines:
    r"""Read the lines of a rule that somebody typed.

    Args:
        text: Such as `v = mu*v - lr*dx; x += v`.
        **flags: A choice of all flags. Without it the text is read for every choice, and given for their defaults.

    Raises:
        GrammarError: The text is no rule, be it for one choice only.

    Example:
        >>> parse_lines("v = mu*v - lr*dx; x += v").outputs["v"]
        sub(mul(mu, v), mul(lr, dx))
        >>> parse_lines("v = mu*v - lr*dx\nx += w")
        Traceback (most recent call last):
        downslope.language.grammar.GrammarError: there is no 'w'; a line w = 0.5 above would make it a hyperparameter
          x += w
               ^
    """
    if not isinstance(text, str):
        raise TypeError(f"text={text!r} is a {type(text).__name__}; expected lines such as 'v = mu*v - lr*dx; x += v'")
    if len(text) > LONGEST:
        raise GrammarError(text, LONGEST, f"the rule has {len(text)} characters; at most {LONGEST} are read")
    read = _Lines(text, flags).lines()
    if not flags:
        for other in [*choices(read.flags)][1:]:
            _Lines(text, other).lines()
    return read


def _pieces(text: str) -> Iterator[Token]:
    """What a text is made of; `;` ends a line, and an end of line between brackets does not."""
    depth = 0
    for token in tokens(text, SIGNS):
        depth += (token.text == "(") - (token.text == ")")
        if token.text == ";":
            yield Token("line", "", token.place)
        elif token.kind != "line" or depth <= 0:
            yield token


class _Lines(Reader):
    """Reads the lines of one text in their order."""

    def __init__(self, text: str, chosen: Mapping[str, bool]):
        known = {"x": array("x"), "dx": array("dx"), "t": number("t")}
        super().__init__(text, known, _pieces(text))
        self.chosen = chosen
        self.plain, self.set = self.settings()
        self.set_to_numbers = {*self.plain.values()}
        self.flags: dict[str, bool] = {}
        self.states: dict[str, float] = {}
        self.hyperparameters: dict[str, float] = {}
        self.lookahead: Expression | None = None

    def settings(self) -> tuple[dict[int, str], set[str]]:
        """The names that lines set to a number, by their places in the text, and those that are set to a formula."""
        numbers: dict[int, str] = {}
        others: set[str] = set()
        ends = ["line", "end"]
        for k, (name, sign) in enumerate(itertools.pairwise(self.tokens)):
            if name.kind == "name" and sign.text in SETTING and (k == 0 or self.tokens[k - 1].kind == "line"):
                signed = self.tokens[k + 2].text in ("+", "-")
                value = [token.kind for token in self.tokens[k + 2 + signed : k + 4 + signed]]
                plain = sign.text == "=" and value in (["number", end] for end in ends) and name.text not in ("x", "dx")
                if plain:
                    numbers[name.place] = name.text
                elif sign.text != "=" or self.tokens[k + 2].text not in TRUTHS:
                    others.add(name.text)
        return numbers, others

    def lines(self) -> Lines:
        """The rule that the whole text is."""
        start = self.names["x"]
        while self.token.kind != "end":
            if self.token.kind == "line":
                self.take()
            elif self.token.text == "return":
                self.returned(self.take())
            else:
                self.line(self.take())
        if self.names["x"] is start:
            self.fail("x never gets a new value: end with x = ... or return ...")
        outputs = {name: expression(self.names[name]) for name in ("x", *self.states)}
        used = {e.value for e in in_order(outputs.values()) if e.op == "input"}
        return Lines(self.states, self.hyperparameters, self.flags, outputs, "t" in used, self.lookahead)

    def line(self, name: Token) -> None:
        """Set a name."""
        sign = self.take() if self.token.text in SETTING else None
        if name.kind != "name" or sign is None:
            self.fail("expected a line such as x = ..., or return ...", name.place)
        if (name.text, sign.text) == ("lookahead", "="):
            self.look_ahead(name)
        elif name.text in TAKEN or name.text.startswith("_"):
            self.fail(f"'{name.text}' cannot be set; choose another name", name.place)
        elif name.place in self.plain:
            self.set_to_number(name)
        elif sign.text == "=" and self.token.text in TRUTHS:
            self.set_to_truth(name, TRUTHS[self.take().text])
        else:
            old = self.value(name) if SETTING[sign.text] else None
            value = self.formula(0)
            if SETTING[sign.text]:
                value = self.applied(SETTING[sign.text], sign.place, old, value)
            if is_truth(value) and name.text in ("x", "dx", *self.states):
                self.fail("a truth value where a number is needed", sign.place)
            self.names[name.text] = value
        if self.token.kind not in ("line", "end"):
            self.fail("expected an operator")

    def look_ahead(self, name: Token) -> None:
        """Say how far from the weights the gradient is taken."""
        value = self.formula(0)
        used = {e.value for e in in_order([value]) if e.op == "input"} if isinstance(value, Expression) else set()
        if is_truth(value) or not used & {*self.states} or used - {*self.states, *self.hyperparameters}:
            self.fail("lookahead is made of states and hyperparameters, as they are before the step", name.place)
        self.lookahead = value

    def set_to_number(self, name: Token) -> None:
        """Give a hyperparameter its default, or a state its first value."""
        if name.text in self.names and name.text in self.set:
            self.fail(f"{name.text} begins with a number only above all other lines that name it", name.place)
        if name.text in self.names:
            self.fail(f"{name.text} has a number already; give it one once, in a line above", name.place)
        value = float(self.signed(0))
        if name.text in self.set:
            self.states[name.text] = value
            self.names[name.text] = array(name.text)
            return
        if value not in usual_range(name.text):
            self.fail(f"{name.text} must be {usual_range(name.text)}", name.place)
        self.hyperparameters[name.text] = value
        self.names[name.text] = number(name.text)

    def set_to_truth(self, name: Token, default: bool) -> None:
        """Give a flag its default."""
        if (
            name.text in DEFAULTS
            or name.text in self.names
            or name.text in {*self.flags, *self.set, *self.plain.values()}
        ):
            self.fail(f"{name.text} is something else too; give the choice a name of its own", name.place)
        if len(self.flags) == MOST_FLAGS:
            self.fail(f"a rule has at most {MOST_FLAGS} choices", name.place)
        self.flags[name.text] = default

    def formula(self, depth: int) -> Any:
        """A value, or one of two by a flag. Both are read, so that states are the same for each choice."""
        value = self.operation(1, depth)
        if self.token.text != "if":
            return value
        word = self.take()
        wanted = self.token.text != "not"
        if not wanted:
            self.take()
        if self.token.text not in self.flags:
            self.fail("behind if stands a choice, as correction = True above makes one; numbers are compared by where")
        name = self.take().text
        if self.token.text != "else":
            self.fail("expected else")
        self.take()
        other = self.formula(depth + 1)
        if is_truth(value) != is_truth(other):
            self.fail("a number and a truth value cannot take each other's place", word.place)
        return value if self.chosen.get(name, self.flags[name]) == wanted else other

    def returned(self, word: Token) -> None:
        """The new weights, and the names of all states or of none."""
        value = self.formula(0)
        if is_truth(value):
            self.fail("a truth value where a number is needed", word.place)
        self.names["x"] = value
        named = []
        while self.token.text == ",":
            self.take()
            if self.token.text not in self.states:
                self.fail("behind the new weights only the names of states are returned")
            named.append(self.take().text)
        if named and set(named) != {*self.states}:
            self.fail(f"return all states or none: {', '.join(self.states)}", word.place)
        while self.token.kind == "line":
            self.take()
        if self.token.kind != "end":
            self.fail("nothing can follow what is returned")

    def value(self, name: Token) -> Any:
        """What a name stands for."""
        return self.names[name.text] if name.text in self.names else self.unknown(name)

    def unknown(self, name: Token) -> Any:
        """A state if a line sets it later, else one of the usual hyperparameters."""
        if name.text in self.flags or name.text in TRUTHS:
            self.fail("a choice stands only behind if, as in a if correction else b", name.place)
        if name.text in TAKEN:
            self.fail("expected a number, a name or (", name.place)
        if name.text in self.set and not name.text.startswith("_"):
            self.states[name.text] = 0.0
            self.names[name.text] = array(name.text)
        elif name.text in DEFAULTS and name.text not in self.set_to_numbers:
            self.hyperparameters[name.text] = DEFAULTS[name.text]
            self.names[name.text] = number(name.text)
        elif name.text in self.set_to_numbers:
            self.fail(f"{name.text} gets its number in a line below; put that line above", name.place)
        else:
            line = f"{name.text} = 0.5"
            self.fail(f"there is no '{name.text}'; a line {line} above would make it a hyperparameter", name.place)
        return self.names[name.text]
