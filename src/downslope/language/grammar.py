"""Formulas as text: a grammar of our own, so that what a stranger types is read and never run.

The text is a formula as Python has it, with the same order of operations, and `^` for `**`:

    formula = either ;
    either  = both , { "|" , both } ;
    both    = test , { "&" , test } ;
    test    = sum , { ( "<" | "<=" | ">" | ">=" | "==" | "!=" ) , sum } ;
    sum     = product , { ( "+" | "-" ) , product } ;
    product = signed , { ( "*" | "/" ) , signed } ;
    signed  = ( "+" | "-" | "~" ) , signed | power ;
    power   = atom , [ ( "**" | "^" ) , signed ] ;
    atom    = number | name | word , "(" , formula , { "," , formula } , ")" | "(" , formula , ")" ;
    number  = ( digits , [ "." , [ digits ] ] | "." , digits ) , [ ( "e" | "E" ) , [ "+" | "-" ] , digits ] ;
    name    = ( letter | "_" ) , { letter | digit | "_" } ;

Letters and digits are those of ASCII; blanks, tabs and ends of lines may stand between any two of these. A name is a
variable or `pi`; a word is `abs` or one of `operations.WORDS`. Comparisons, `&`, `|` and `~` make truth values, which
only `where`, `&`, `|` and `~` take. Operations on numbers alone are done at once in double precision, as Python does
them when a function is read, and their result must be finite.

A text has at most 200 characters, and brackets, calls, signs and exponents in it are nested at most 50 deep: it is read
in one pass, and makes no more operations than it has characters.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from downslope.language.expression import Expression, apply, expression
from downslope.language.operations import OPERATIONS, WORDS
from downslope.language.trace import array

LONGEST = 200
"""How many characters a text may have."""

DEEPEST = 50
"""How deeply brackets, calls, signs and exponents may be nested."""

BINARY = {
    operator: (binding, op)
    for binding, operators in (
        (1, {"|": "or"}),
        (2, {"&": "and"}),
        (3, {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}),
        (4, {"+": "add", "-": "sub"}),
        (5, {"*": "mul", "/": "div"}),
    )
    for operator, op in operators.items()
}
"""How tightly each operator between two operands binds, and its operation."""

CALLED = ("abs", *WORDS)
"""The words that are followed by values in brackets."""

SIGNS = r"\*\*|[<>=!]=|[-+*/^<>&|~(),]"
"""The signs of a formula, as a pattern."""

_PARTS = (
    r"(?P<blank>[ \t\r]+)"
    r"|(?P<line>\n)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>%s)"
)


class GrammarError(ValueError):
    """A text is no formula; the message says what is wrong and points at the place.

    Attributes:
        text: What was to be read.
        place: The index of the character at which it goes wrong; the length of the text where something is missing.
        problem: What is wrong.
    """

    def __init__(self, text: str, place: int, problem: str):
        first = text.rfind("\n", 0, place) + 1
        line = text[first : first + LONGEST + 1].partition("\n")[0]
        shown = "".join(c if c.isprintable() else " " for c in line)
        super().__init__(f"{problem}\n  {shown}\n  {' ' * (place - first)}^")
        self.text, self.place, self.problem = text, place, problem


def parse(text: str, variables: Sequence[str] = ("x", "y")) -> Expression:
    """Read a formula that somebody typed.

    Args:
        text: A formula, such as `x**2 + sin(y)`.
        variables: The names that stand for values; they become inputs that differ from weight to weight.

    Raises:
        GrammarError: The text is no formula of these variables.

    Example:
        >>> parse("x**2 / 10 + 5 * y**2")
        add(div(square(x), 10.0), mul(5.0, square(y)))
        >>> parse("x * (y + 1")
        Traceback (most recent call last):
        downslope.language.grammar.GrammarError: expected )
          x * (y + 1
                    ^
    """
    if not isinstance(text, str):
        raise TypeError(f"text={text!r} is a {type(text).__name__}; expected a formula such as 'x**2 + y**2'")
    if len(text) > LONGEST:
        raise GrammarError(text, LONGEST, f"the formula has {len(text)} characters; at most {LONGEST} are read")
    one_line = (token for token in tokens(text) if token.kind != "line")
    return Reader(text, {name: array(name) for name in variables}, one_line).whole()


class Token(NamedTuple):
    """A number, a name, a sign, the end of a line or of the text, and where in the text it begins."""

    kind: str
    text: str
    place: int


def tokens(text: str, signs: str = SIGNS) -> Iterator[Token]:
    """What a text is made of besides blanks, and its end.

    Args:
        text: What somebody typed.
        signs: The signs that may be in it, as a pattern.
    """
    pattern, place = re.compile(_PARTS % signs), 0
    while place < len(text):
        found = pattern.match(text, place)
        if found is None:
            raise GrammarError(text, place, f"unexpected '{text[place]}'")
        if found.lastgroup != "blank":
            yield Token(str(found.lastgroup), "**" if found[0] == "^" else found[0], place)
        place = found.end()
    yield Token("end", "", len(text))


class Reader:
    """Reads one text from left to right; what is read is worked out like a function that is called with symbols."""

    def __init__(self, text: str, variables: Mapping[str, Any], tokens: Iterable[Token]):
        self.text = text
        self.names: dict[str, Any] = {"pi": np.float64(math.pi), **variables}
        self.tokens = list(tokens)
        self.index = 0

    @property
    def token(self) -> Token:
        """What comes next."""
        return self.tokens[self.index]

    def take(self) -> Token:
        """What comes next, and go on behind it."""
        self.index += 1
        return self.tokens[self.index - 1]

    def fail(self, problem: str, place: int | None = None) -> NoReturn:
        """Refuse the text, at what comes next or at a place."""
        raise GrammarError(self.text, self.token.place if place is None else place, problem)

    def whole(self) -> Expression:
        """The formula that the whole text is."""
        if self.token.kind == "end":
            self.fail("the formula is empty")
        value = self.formula(0)
        if self.token.kind != "end":
            self.fail("expected an operator")
        if is_truth(value):
            self.fail("the formula is a truth value, not a number", 0)
        return expression(value)

    def formula(self, depth: int) -> Any:
        """All that the text makes one value of from here on."""
        return self.operation(1, depth)

    def operation(self, least: int, depth: int) -> Any:
        """Operands and the operators between them that bind at least so tightly."""
        value = self.signed(depth)
        while (found := BINARY.get(self.token.text)) and found[0] >= least:
            binding, op = found
            place = self.take().place
            value = self.applied(op, place, value, self.operation(binding + 1, depth))
        return value

    def signed(self, depth: int) -> Any:
        """An operand with the signs before it and the exponent behind it."""
        if depth > DEEPEST:
            self.fail(f"the formula is nested more than {DEEPEST} deep")
        token = self.token
        if token.text in ("+", "-", "~"):
            self.take()
            value = self.signed(depth + 1)
            negative = self.applied("not" if token.text == "~" else "neg", token.place, value)
            return value if token.text == "+" else negative
        value = self.atom(depth)
        if self.token.text != "**":
            return value
        place = self.take().place
        return self.applied("pow", place, value, self.signed(depth + 1))

    def atom(self, depth: int) -> Any:
        """A number, a variable, a call, or something in brackets."""
        token = self.token
        if token.kind not in ("number", "name") and token.text != "(":
            self.fail("expected a number, a name or (")
        self.take()
        if token.kind == "number":
            return self.finite(np.float64(token.text), token.place)
        if token.text == "(":
            value = self.formula(depth + 1)
            self.close(")")
            return value
        if token.text in self.names:
            return self.names[token.text]
        return self.call(token, depth) if token.text in CALLED else self.unknown(token)

    def unknown(self, name: Token) -> Any:
        """What a name stands for that is neither a word nor known."""
        self.fail(f"there is no '{name.text}'; there are {', '.join([*self.names, *CALLED])}", name.place)

    def call(self, word: Token, depth: int) -> Any:
        """The values in brackets behind a word."""
        self.close("(")
        values = [self.formula(depth + 1)]
        while self.token.text == ",":
            self.take()
            values.append(self.formula(depth + 1))
        self.close(")")
        wanted = len(OPERATIONS[word.text].takes)
        if len(values) != wanted:
            self.fail(f"{word.text} takes {wanted} value(s), got {len(values)}", word.place)
        return self.applied(word.text, word.place, *values)

    def close(self, bracket: str) -> None:
        """Take a bracket that must come here."""
        if self.token.text != bracket:
            self.fail(f"expected {bracket}")
        self.take()

    def applied(self, op: str, place: int, *values: Any) -> Any:
        """The operation on numbers, truth values and expressions."""
        for value, kind in zip(values, OPERATIONS[op].takes, strict=True):
            if is_truth(value) != (kind == "truth"):
                found, needed = ("number", "truth value") if kind == "truth" else ("truth value", "number")
                self.fail(f"a {found} where a {needed} is needed", place)
        if any(isinstance(value, Expression) for value in values):
            return apply(op, *values)
        # Of powers NumPy's function takes the root for an exponent of a half, which keeps the sign of -0.0.
        function = operator.pow if op == "pow" else getattr(np, (*OPERATIONS[op].ufuncs, op)[0])
        with np.errstate(all="ignore"):
            return self.finite(function(*values)[()], place)

    def finite(self, value: Any, place: int) -> Any:
        """The number, if it is finite."""
        if not np.isfinite(value):
            self.fail("this is not a finite number", place)
        return value


def is_truth(value: Any) -> bool:
    """Whether what has been read is a truth value."""
    return value.is_condition if isinstance(value, Expression) else isinstance(value, np.bool_)
