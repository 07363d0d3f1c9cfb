"""The exact derivative of an expression, written so that a person can read it.

Where a function has a kink the derivative is the mean of what it is on either side, as automatic differentiation has
it: that of `abs(x)` at 0 is 0, and where both arguments of `maximum` are the same, half of each counts. A `sign` and a
condition change nothing but where they jump; the derivative of what they choose is chosen alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from downslope.language.algebra import Algebra
from downslope.language.expression import Expression
from downslope.language.operations import OVER_TENSORS, POWERS, FormulaError
from downslope.language.program import in_order


def derivative(e: Expression, by: str) -> Expression:
    """How fast an expression grows with one of its inputs.

    Args:
        e: A number, of inputs.
        by: The name of the input; if the expression has none of this name, the derivative is 0.

    Returns:
        An expression of the same inputs. It is a constant where the expression grows in proportion to the input, and
        it mentions no input by which it does not change.

    Example:
        >>> from downslope.language.grammar import parse
        >>> from downslope.targets.formula import text
        >>> print(text(derivative(parse("x**2/10 + 5*y**2"), "y")))
        10 * y
        >>> print(text(derivative(parse("(1 - x)**2 + 100*(y - x**2)**2"), "x")))
        -2 * (1 - x) - 400 * x * (y - x**2)
    """
    return gradient(e, [by])[0]


def gradient(e: Expression, by: Sequence[str]) -> tuple[Expression, ...]:
    """The derivatives by several inputs; what they have in common is one object.

    Example:
        >>> from downslope.language.grammar import parse
        >>> gradient(parse("x * y"), ("x", "y"))
        (y, x)
    """
    return tuple(slopes(e, by))


def slopes(e: Expression, by: Iterable[str]) -> Iterator[Expression]:
    """The same, one after the other, for who may not need them all."""
    algebra = Algebra()
    canonical = algebra.canonical(e)
    return (_derivative(canonical, name, algebra) for name in by)


def _derivative(e: Expression, by: str, algebra: Algebra) -> Expression:
    slopes: dict[Expression, Expression] = {}
    zero, one = algebra.number(0), algebra.number(1)
    for part in in_order([e]):
        inner = [slopes[arg] for arg in part.args]
        if all(slope is zero for slope in inner):
            slopes[part] = one if part.op == "input" and part.value == by else zero
        else:
            slopes[part] = chain(part, inner, algebra)
    return slopes[e]


def chain(e: Expression, slopes: list[Expression], algebra: Algebra) -> Expression:
    """The derivative of an operation, given those of what it is applied to.

    Args:
        e: The operation, made by `algebra`, like all here.
        slopes: The derivative of each of its arguments.
        algebra: Makes the expressions.
    """
    product, total, make = algebra.product, algebra.total, algebra.make
    match e.op, e.args, slopes:
        case "add", _, [da, db]:
            return total(da, db)
        case "sub", _, [da, db]:
            return total(da, product(-1, db))
        case "neg", _, [da]:
            return product(-1, da)
        case "mul", [a, b], [da, db]:
            return total(product(da, b), product(a, db))
        case "div", [a, b], [da, db]:
            return total(product(da, over=[b]), product(-1, a, db, over=[b, b]))
        case "pow", [a, b], [da, db]:
            return total(_by_base(a, b, da, algebra), _by_exponent(e, db, algebra))
        case (("square" | "cube" | "fourth"), [a], [da]):
            exponent = next(exponent for exponent, op in POWERS.items() if op == e.op)
            return product(exponent, algebra.power(a, exponent - 1), da)
        case "abs", [a], [da]:
            return product(make("sign", a), da)
        case "sqrt", _, [da]:
            return product(da, over=[2, e])
        case "exp", _, [da]:
            return product(da, e)
        case "expm1", [a], [da]:
            return product(da, make("exp", a))
        case "log", [a], [da]:
            return product(da, over=[a])
        case "tanh", _, [da]:
            return product(da, total(1, product(-1, e, e)))
        case "sin", [a], [da]:
            return product(da, make("cos", a))
        case "cos", [a], [da]:
            return product(-1, da, make("sin", a))
        case (("maximum" | "minimum"), [a, b], [da, db]):
            equal = algebra.choice(make("eq", a, b), product(total(da, db), over=[2]), db)
            return algebra.choice(make("gt" if e.op == "maximum" else "lt", a, b), da, equal)
        case "where", [condition, _, _], [_, da, db]:
            return algebra.choice(condition, da, db)
    if e.op in OVER_TENSORS:
        raise FormulaError(f"the derivative of {e!r} by one weight is not worked out: {e.op} is of a whole tensor")
    return algebra.number(0)  # sign, and truth values


def _by_base(a: Expression, b: Expression, da: Expression, algebra: Algebra) -> Expression:
    """The part of the derivative of `a**b` that comes from `a`; anything to the power of 0 is 1."""
    if b.op == "constant":
        less = algebra.total(b, -1)
        return algebra.product(b, algebra.power(a, less.number), da) if b.number else algebra.number(0)
    grown = algebra.product(b, algebra.make("pow", a, algebra.total(b, -1)), da)
    zero = algebra.number(0)
    return algebra.choice(algebra.make("eq", b, zero), zero, grown)


def _by_exponent(e: Expression, db: Expression, algebra: Algebra) -> Expression:
    """The part of the derivative of `a**b` that comes from `b`; powers of 0 do not grow."""
    a, _ = e.args
    if a.op != "constant":
        a = algebra.choice(algebra.make("eq", a, algebra.number(0)), algebra.number(1), a)
    return algebra.product(e, algebra.make("log", a), db)
