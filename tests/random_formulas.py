"""Random formulas, as nested tuples of operations, for tests of what is written and computed.

The operations are those that are exact or correctly rounded, so that "the same" means the same bits.
"""

import math
import operator

import numpy as np
from hypothesis import strategies as st

from downslope import where
from downslope.language.expression import Expression
from downslope.language.operations import maximum, minimum, sign

LEAVES = ["a", "b", "c", -2.0, -0.0, 0.5, 3.0, 1e-8]


def power(count):
    """A power as the text has it: multiplied out."""
    return lambda value: (
        value**count if isinstance(value, Expression) else math.prod([value] * (count - 1), start=value)
    )


ONE_NUMBER = [operator.neg, abs, sign, power(2), power(3), power(4)]
TWO_NUMBERS = [operator.add, operator.sub, operator.mul, operator.truediv, maximum, minimum]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]


@st.composite
def formulas(draw, depth=3):
    kind = draw(st.sampled_from(["leaf", "one", "two", "where"])) if depth else "leaf"
    below = formulas(depth - 1)
    match kind:
        case "leaf":
            return draw(st.sampled_from(LEAVES))
        case "one":
            return draw(st.sampled_from(ONE_NUMBER)), draw(below)
        case "two":
            return draw(st.sampled_from(TWO_NUMBERS)), draw(below), draw(below)
        case _:
            return where, draw(conditions(depth - 1)), draw(below), draw(below)


@st.composite
def conditions(draw, depth):
    kind = draw(st.sampled_from(["compare", "not", "and", "or"])) if depth else "compare"
    below = conditions(depth - 1)
    match kind:
        case "compare":
            return draw(st.sampled_from(COMPARISONS)), draw(formulas(depth)), draw(formulas(depth))
        case "not":
            return operator.invert, draw(below)
        case _:
            return {"and": operator.and_, "or": operator.or_}[kind], draw(below), draw(below)


def evaluate(formula, values):
    """Apply a formula to symbols or numbers."""
    if isinstance(formula, tuple):
        operation, *args = formula
        return operation(*(evaluate(arg, values) for arg in args))
    return values[formula] if isinstance(formula, str) else np.float64(formula)
