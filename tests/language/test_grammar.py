"""Formulas as text: what Python's own grammar says of them, what is refused and where, and that nothing takes long."""

import ast
import operator
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
from downslope.language.expression import Expression, apply, expression
from downslope.language.grammar import CALLED, DEEPEST, LONGEST, GrammarError, parse
from downslope.language.operations import OPERATIONS, WORDS
from downslope.language.program import in_order
from downslope.language.spaces import WEIGHT
from downslope.targets import arrays
from downslope.targets.evaluate import evaluate
from downslope.targets.formula import FORMULA

POINT = {"x": np.float64(0.7), "y": np.float64(-1.3)}


def value(e):
    def leaf(e):
        return np.float64(e.value) if e.op == "constant" else POINT[e.value]

    with np.errstate(all="ignore"):
        return evaluate([e], leaf, lambda e, args: arrays.compute(e.op, args))[e]


def read(text):
    """The formula, or what is wrong with the text."""
    try:
        return parse(text)
    except GrammarError as error:
        if 0 <= error.place <= len(text):
            return error.problem
        raise


# What a text means

PYTHON = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def pythons(node):
    """The value that Python's own reading of the text has."""
    match node:
        case ast.Constant(number):
            return np.float64(number)
        case ast.Name(name):
            return {**POINT, "pi": np.float64(np.pi)}[name]
        case ast.UnaryOp(op, operand):
            return PYTHON[type(op)](pythons(operand))
        case ast.BinOp(left, op, right):
            return PYTHON[type(op)](pythons(left), pythons(right))
        case ast.Call(ast.Name(name), args):
            return abs(*map(pythons, args)) if name == "abs" else getattr(np, name)(*map(pythons, args))
    raise AssertionError(node)


SIGNS = st.sampled_from(["+", "-", "*", "/", "**", " + ", "- ", "* "])
OPERANDS = st.sampled_from(
    [
        "x",
        "y",
        "2",
        "3.",
        ".5",
        "1e-1",
        "1.5E+1",
        "pi",
        "-x",
        "--y",
        "+2",
        "(x-y)",
        "-(y)",
        "cos(x)",
        "abs(-x*y)",
        "maximum(x,y)",
        "sin(x+y)",
        "-x**2",
        "2**-1",
        "(x)",
    ]
)


@settings(deadline=None)
@given(st.lists(st.tuples(OPERANDS, SIGNS), max_size=8), OPERANDS)
def test_a_text_means_what_it_means_in_python(pairs, last):
    text = "".join(f"{operand}{sign}" for operand, sign in pairs) + last
    with np.errstate(all="ignore"):
        expected = pythons(ast.parse(text, mode="eval").body)
    found = read(text)
    if isinstance(found, Expression):
        np.testing.assert_allclose(value(found), expected, rtol=1e-9)  # x**3 is x * x * x here
    else:  # powers and quotients of numbers alone
        assert found == "this is not a finite number"
        assert "*" in text or "/" in text


@st.composite
def expressions(draw, depth=4):
    leaves = st.sampled_from(["x", "y"]).map(lambda name: Expression("input", value=name, space=WEIGHT))
    if depth == 0:
        return draw(leaves)
    op = draw(st.sampled_from(sorted(OPERATIONS.keys() - {"square", "cube", "fourth"})))

    def argument(kind):
        if kind == "truth":
            comparison = draw(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
            return apply(comparison, draw(expressions(depth - 1)), draw(expressions(depth - 1)))
        return draw(st.one_of(expressions(depth - 1), st.floats(-9, 9).map(lambda v: round(v, 3))))

    args = [argument(kind) for kind in OPERATIONS[op].takes]
    if not any(isinstance(arg, Expression) for arg in args):
        args[0] = draw(leaves)
    e = apply(op, *args)
    return apply("where", e, *(draw(expressions(depth - 1)) for _ in range(2))) if e.is_condition else e


@settings(deadline=None)
@given(expressions(3))
def test_what_a_formula_is_written_as_is_read_back(e):
    text = FORMULA.write(e, {leaf: leaf.value for leaf in in_order([e]) if leaf.op == "input"}).text
    if len(text) <= LONGEST:
        assert parse(text).described(100) == e.described(100)


def test_a_power_may_be_written_with_a_hat():
    assert repr(parse("x^2 - 2^-1")) == repr(parse("x**2 - 2**-1")) == "sub(square(x), 0.5)"


def test_comparisons_bind_more_tightly_than_what_joins_them():
    assert repr(parse("where(x > 0 & y <= 1 | x == y, 1, 0)")) == (
        "where(or(and(gt(x, 0.0), le(y, 1.0)), eq(x, y)), 1.0, 0.0)"
    )


def test_numbers_alone_are_worked_out_at_once():
    assert repr(parse("x**(1/3 - 1) + 2**3**2")) == f"add(pow(x, {1 / 3 - 1}), 512.0)"
    assert repr(parse("where(1 < 2 & ~(pi < 3), x, y)")) == "where(eq(0.0, 0.0), x, y)"


def test_other_variables():
    assert repr(parse("w * x", variables=("w", "x"))) == "mul(w, x)"
    with pytest.raises(GrammarError, match="there is no 'y'; there are pi, x, abs, cos"):
        parse("y", variables=("x",))


# What is refused

REFUSED = {
    "": (0, "the formula is empty"),
    " \n": (2, "the formula is empty"),
    "2x": (1, "expected an operator"),
    "x y": (2, "expected an operator"),
    "x +": (3, "expected a number, a name or ("),
    "x * / y": (4, "expected a number, a name or ("),
    "()": (1, "expected a number, a name or ("),
    "(x": (2, "expected )"),
    "(x, y)": (2, "expected )"),
    "x)": (1, "expected an operator"),
    "sin x": (4, "expected ("),
    "sin": (3, "expected ("),
    "1 + sin(x, y)": (4, "sin takes 1 value(s), got 2"),
    "where(x > 0, x)": (0, "where takes 3 value(s), got 2"),
    "sin()": (4, "expected a number, a name or ("),
    "x = 1": (2, "unexpected '='"),
    "x.real": (1, "unexpected '.'"),
    "x[0]": (1, "unexpected '['"),
    "__import__('os')": (11, "unexpected '''"),
    "constructor.constructor('alert(1)')()": (11, "unexpected '.'"),
    "x; y": (1, "unexpected ';'"),
    "x − y": (2, "unexpected '−'"),
    "٣ * x": (0, "unexpected '٣'"),
    "\x1b[31m": (0, "unexpected '\x1b'"),
    "x if y else x": (2, "expected an operator"),
    "x and y": (2, "expected an operator"),
    "1 + 1/0": (5, "this is not a finite number"),
    "x * log(-1)": (4, "this is not a finite number"),
    "x + 1e999": (4, "this is not a finite number"),
    "1e308 * 10 * x": (6, "this is not a finite number"),
    "x > 1": (0, "the formula is a truth value, not a number"),
    "2 > 1": (0, "the formula is a truth value, not a number"),
    "x + (y > 1)": (2, "a truth value where a number is needed"),
    "-(2 > 1)": (0, "a truth value where a number is needed"),
    "+(x > 1)": (0, "a truth value where a number is needed"),
    "0 < x < 1": (6, "a truth value where a number is needed"),
    "where(x, 1, 0)": (0, "a number where a truth value is needed"),
    "where(x > 0 & 1, 1, 0)": (12, "a number where a truth value is needed"),
    "~x": (0, "a number where a truth value is needed"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_is_said_and_shown(text):
    place, problem = REFUSED[text]
    with pytest.raises(GrammarError) as caught:
        parse(text)
    assert (caught.value.text, caught.value.place, caught.value.problem) == (text, place, problem)
    said, shown, pointer = str(caught.value).split("\n")
    assert said == problem
    before, after = text[:place].rpartition("\n")[2], text[place:].partition("\n")[0]
    assert len(shown) == 2 + len(before + after)
    assert pointer == f"{' ' * (2 + len(before))}^"
    assert shown.isprintable()


@pytest.mark.parametrize(
    "name", ["lambda", "import", "not", "constructor", "__proto__", "e", "X", "max", "True", "eval"]
)
def test_an_unknown_name_is_answered_with_those_that_exist(name):
    with pytest.raises(GrammarError) as caught:
        parse(f"x + {name}")
    assert caught.value.place == 4
    assert caught.value.problem == f"there is no '{name}'; there are pi, x, y, {', '.join(('abs', *WORDS))}"


@pytest.mark.parametrize("no_text", [None, 3, b"x", ["x"]])
def test_only_text_is_read(no_text):
    with pytest.raises(TypeError, match="expected a formula such as"):
        parse(no_text)


# Limits


TOO_DEEP = {"(" * 199: 51, "-" * 199 + "x": 51, "2**" * 66 + "2": 153, "~" * 99: 51}
TOO_DEEP |= {"(-" * 99: 51, "(" * 30 + "-" * 30: 51}


@pytest.mark.parametrize("text", TOO_DEEP)
def test_what_is_nested_too_deeply_is_refused(text):
    assert read(text) == f"the formula is nested more than {DEEPEST} deep"
    with pytest.raises(GrammarError) as caught:
        parse(text)
    assert caught.value.place == TOO_DEEP[text]


def test_the_deepest_and_the_longest_that_is_read():
    assert parse("(" * DEEPEST + "x" + ")" * DEEPEST).value == "x"
    longest = "x" + "+x" * 99 + " "
    assert len(longest) == LONGEST
    assert len(in_order([parse(longest)])) == 100  # x, and 99 sums
    with pytest.raises(GrammarError, match=f"has 201 characters; at most {LONGEST}"):
        parse(f"{longest} ")


HOSTILE = ["(" * 10_000, "x" * 10_000, "-" * 10_000, "sin(" * 2_500, "9" * 10_000, "x**" * 5_000, "\0" * 10_000]
HOSTILE += [*(f"{text[: LONGEST - 1]}!" for text in HOSTILE), f"{'9' * (LONGEST - 4)}e999"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_refused_in_no_time(text):
    begun = time.process_time()
    with pytest.raises(GrammarError) as caught:
        parse(text)
    assert len(str(caught.value)) < 1000
    assert time.process_time() - begun < 0.5


@settings(deadline=None)
@given(st.text(max_size=210))
def test_any_text_is_a_formula_or_refused(text):
    assert isinstance(read(text), (Expression, str))


PIECES = ["x", "y", "1", "2.5", "1e300", "(", ")", ",", "+", "-", "*", "/", "**", "^", "<", "==", "&", "|", "~", " "]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*PIECES, *CALLED, "where(x > 0, "]), max_size=40).map("".join))
def test_any_signs_are_a_formula_or_refused(text):
    found = read(text)
    if isinstance(found, Expression):
        assert len(in_order([found])) <= LONGEST
        np.float64(value(found))


def test_what_is_read_is_what_a_function_leaves_behind():
    def typed(x, y):
        return downslope.where(x > 0, (1 - x) ** 2, -downslope.exp(-abs(y))) / 3

    x, y = (Expression("input", value=name, space=WEIGHT) for name in "xy")
    assert repr(parse("where(x > 0, (1 - x)**2, -exp(-abs(y))) / 3")) == repr(expression(typed(x, y)))
