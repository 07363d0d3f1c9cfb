"""Products and sums as one would write them: numbers in front, like factors as powers, like terms once.

Only what is asked for is rearranged: a formula's own sums and products stay as their author wrote them where they are
parts of others. Numbers are multiplied and added as the decimals they are written as, so that three times 0.1 is 0.3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from downslope.language.expression import Expression, apply
from downslope.language.operations import POWERS
from downslope.language.program import in_order

_EXPONENTS = {operation: int(exponent) for exponent, operation in POWERS.items()}

_LARGEST = 1e15
"""Exponents up to this one are added and subtracted."""


@dataclass(frozen=True)
class _Product:
    """`number / over` times powers of expressions, whose exponents are whole numbers other than 0."""

    number: Fraction = Fraction(1)
    over: Fraction = Fraction(1)
    powers: Mapping[Expression, int] = field(default_factory=dict)

    @property
    def kind(self) -> frozenset[tuple[int, int]]:
        """What like terms have in common."""
        return frozenset((id(base), exponent) for base, exponent in self.powers.items())


class Algebra:
    """Makes expressions; equal ones are one object."""

    def __init__(self) -> None:
        self._one: dict[tuple[object, ...], Expression] = {}
        self._sums: dict[Expression, list[_Product]] = {}
        self._factors: dict[Expression, _Product] = {}

    def canonical(self, e: Expression) -> Expression:
        """The one object that says what an expression says."""
        new: dict[Expression, Expression] = {}
        for part in in_order([e]):
            new[part] = self._kept(Expression(part.op, tuple(new[arg] for arg in part.args), part.value, part.space))
        return new[e]

    def _kept(self, e: Expression) -> Expression:
        key = (e.op, tuple(map(id, e.args)), str(e.value), e.from_arrays)
        return self._one.setdefault(key, e)

    def number(self, value: float) -> Expression:
        """A number."""
        return self._kept(Expression("constant", value=float(value)))

    def make(self, op: str, *args: Expression) -> Expression:
        """An operation on expressions made here."""
        return self._kept(apply(op, *args))

    def choice(self, condition: Expression, a: Expression, b: Expression) -> Expression:
        """One of two expressions, which may be the same."""
        return a if a is b else self.make("where", condition, a, b)

    def power(self, base: Expression, exponent: float) -> Expression:
        """A power with a number as its exponent."""
        if exponent.is_integer() and abs(exponent) < _LARGEST:
            return self._product(_Product(powers={base: int(exponent)} if exponent else {}))
        return self.make("pow", base, self.number(exponent))

    def product(self, *factors: Expression | float, over: Iterable[Expression | float] = ()) -> Expression:
        """The product of all factors, divided by others."""
        parts = [*map(self._factored, factors), *(_inverse(self._factored(divisor)) for divisor in over)]
        return self._product(functools.reduce(self._times, parts))

    def total(self, *terms: Expression | float) -> Expression:
        """The sum of all terms."""
        collected: dict[object, _Product] = {}
        for term in terms:
            for product in self._terms(term):
                like = collected.get(product.kind)
                collected[product.kind] = product if like is None else _sum_of_like(like, product)
        return self._sum([product for product in collected.values() if product.number])

    def _factored(self, e: Expression | float) -> _Product:
        if not isinstance(e, Expression):
            e = self.number(e)
        if e not in self._factors:
            self._factors[e] = self._factorized(e)
        return self._factors[e]

    def _factorized(self, e: Expression) -> _Product:
        match e.op, e.args:
            case "constant", _ if math.isfinite(e.number):
                return _Product(Fraction(repr(e.number)))
            case "neg", [a]:
                return self._times(_Product(Fraction(-1)), self._factored(a))
            case "mul", [a, b]:
                return self._times(self._factored(a), self._factored(b))
            case "div", [a, b]:
                below = self._factored(b)
                if below.number:
                    return self._times(self._factored(a), _inverse(below))
            case (("square" | "cube" | "fourth"), [a]):
                return _Product(powers={a: _EXPONENTS[e.op]})
            case "pow", [a, b] if b.op == "constant" and b.number.is_integer() and 0 < abs(b.number) < _LARGEST:
                return _Product(powers={a: int(b.number)})
        return _Product(powers={e: 1})

    def _times(self, a: _Product, b: _Product) -> _Product:
        number = a.number * b.number
        if not number:
            return _Product(number)
        powers = dict(a.powers)
        for base, exponent in b.powers.items():
            powers[base] = powers.get(base, 0) + exponent
            if not powers[base]:
                del powers[base]
        return _Product(*_reduced(number, a.over * b.over), powers)

    def _terms(self, e: Expression | float) -> list[_Product]:
        """The terms of a sum made here, or of its negative; anything else is a term."""
        product = self._factored(e)
        [*alone] = product.powers.items()
        if len(alone) == 1 and alone[0][1] == 1 and abs(product.number) == product.over == 1:
            terms = self._sums.get(alone[0][0], [])
            if terms:
                return [self._times(_Product(product.number), term) for term in terms]
        return [product]

    # Writing

    def _sum(self, terms: list[_Product]) -> Expression:
        if not terms:
            return self.number(0)
        first = next((index for index, term in enumerate(terms) if term.number > 0), 0)
        terms.insert(0, terms.pop(first))
        e = self._product(terms[0])
        for term in terms[1:]:
            size = self._product(_Product(abs(term.number), term.over, term.powers))
            e = self.make("add" if term.number > 0 else "sub", e, size)
        if len(terms) > 1:
            self._sums[e] = terms
        return e

    def _product(self, product: _Product) -> Expression:
        above = [self._power(base, k) for base, k in sorted(product.powers.items(), key=_rank) if k > 0]
        below = [self._power(base, -k) for base, k in sorted(product.powers.items(), key=_rank) if k < 0]
        if product.over != 1:
            below.insert(0, self.number(_double(product.over)))
        negative = product.number == -1 and bool(above)
        if abs(product.number) != 1 or not above:
            above.insert(0, self.number(_double(product.number)))
        if negative and not below:
            above[0] = self.make("neg", above[0])
        e = self._chain(above)
        if below:
            e = self.make("div", e, self._chain(below))
        return self.make("neg", e) if negative and below else e

    def _chain(self, factors: list[Expression]) -> Expression:
        e = factors[0]
        for factor in factors[1:]:
            e = self.make("mul", e, factor)
        return e

    def _power(self, base: Expression, exponent: int) -> Expression:
        return base if exponent == 1 else self.make("pow", base, self.number(exponent))


def _rank(power: tuple[Expression, int]) -> int:
    """Where a factor stands: parameters first, then variables, functions, and sums."""
    base, _ = power
    if base.op in ("input", "constant"):
        return 1 if base.from_arrays else 0
    return 3 if base.op in ("add", "sub", "where") else 2


def _inverse(product: _Product) -> _Product:
    sign = 1 if product.number > 0 else -1
    return _Product(sign * product.over, abs(product.number), {base: -k for base, k in product.powers.items()})


def _sum_of_like(a: _Product, b: _Product) -> _Product:
    return _Product(*_reduced(a.number * b.over + b.number * a.over, a.over * b.over), a.powers)


def _reduced(number: Fraction, over: Fraction) -> tuple[Fraction, Fraction]:
    """In lowest terms, if it is a fraction of whole numbers: what is a decimal stays one."""
    if number.denominator == over.denominator == 1:
        divisor = math.gcd(int(number), int(over))
        return number / divisor, over / divisor
    return number, over


def _double(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
