"""Derivatives: beside JAX's, beside differences in forty digits, and as a person reads them."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from downslope.language.derivative import derivative, gradient
from downslope.language.expression import Expression, apply
from downslope.language.grammar import LONGEST, parse
from downslope.language.operations import OPERATIONS
from downslope.language.program import in_order
from downslope.language.trace import array, number
from downslope.targets import arrays, decimals
from downslope.targets.evaluate import evaluate
from downslope.targets.formula import text
from downslope.targets.latex import expression_latex

jax = pytest.importorskip("jax")


def value(e, at, xp=np):
    def leaf(e):
        return np.float64(e.value) if e.op == "constant" else at[e.value]

    with np.errstate(all="ignore"):
        return evaluate([e], leaf, lambda e, args: arrays.compute(e.op, args, xp))[e]


def by_jax(e, name, at):
    with jax.enable_x64(True):
        numbers = {key: jax.numpy.float64(each) for key, each in at.items()}
        return float(jax.grad(lambda v: value(e, {**numbers, name: v}, jax.numpy))(numbers[name]))


def difference(e, name, at):
    """That of two values in forty digits, on either side: off by 1e-24 of the third derivative."""

    def leaf(e):
        return Decimal(e.value) if e.op == "constant" else exact[e.value]

    def shifted(step):
        exact.update({key: Decimal(float(each)) for key, each in at.items()})
        exact[name] += step
        return evaluate([e], leaf, lambda e, args: decimals.OPERATIONS[e.op](*args))[e]

    exact, h = {}, Decimal("1e-12")
    with decimals.forty_digits():
        return float((shifted(h) - shifted(-h)) / (2 * h))


# Every operation

POINTS = [{"x": 0.7, "y": 1.3}, {"x": 1.9, "y": 0.4}]
NEGATIVE = {"x": -0.8, "y": 0.6}
X, Y = array("x"), array("y")
POSITIVE_ONLY = ("sqrt", "log", "pow")


def applied(op):
    """The operation on expressions of x and y."""
    if OPERATIONS[op].gives == "truth":
        takes = OPERATIONS[op].takes
        args = [apply("gt", X, Y) if kind == "truth" else each for kind, each in zip(takes, (X, Y), strict=False)]
        return apply("where", apply(op, *args), X * Y, X - Y)
    if op == "where":
        return apply(op, X > Y, X * Y, Y - X)
    return apply(op, *(X * Y, Y + 0.5)[: len(OPERATIONS[op].takes)])


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_beside_jax_and_beside_differences(op, name):
    e = applied(op)
    for at in [*POINTS, *([] if op in POSITIVE_ONLY else [NEGATIVE])]:
        found = value(derivative(e, name), at)
        np.testing.assert_allclose(found, by_jax(e, name, at), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(found, difference(e, name, at), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    "formula", ["x**y", "x**3", "x**5", "x**-2", "x**2.5", "x**(1/3)", "x**1", "x**0", "2**x", "(x*y)**y", "y**(x*y)"]
)
def test_powers_beside_jax_and_beside_differences(formula):
    e = parse(formula)
    for at in POINTS:
        for name in ("x", "y"):
            found = value(derivative(e, name), at)
            np.testing.assert_allclose(found, by_jax(e, name, at), rtol=1e-13, atol=1e-15)
            np.testing.assert_allclose(found, difference(e, name, at), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("sign(x)", 0.0),
        ("maximum(x, 0)", 0.5),
        ("minimum(x, 2*x)", 1.5),
        ("maximum(x, x)", 1.0),
        ("x**1", 1.0),
        ("x**2", 0.0),
        ("x**3", 0.0),
        ("x**5", 0.0),
        ("x**0.5", np.inf),
        ("sqrt(x)", np.inf),
        ("x**1.5", 0.0),
        ("x**y", 1.0),
        ("(x + 2)**(y - 1)", 0.0),
        ("x**(y + 1)", 0.0),
        ("y**x", 0.0),
        ("where(x > 0, x, -x)", -1.0),
        ("tanh(x)", 1.0),
        ("expm1(x)", 1.0),
    ],
)
def test_kinks_and_powers_at_zero_are_those_of_jax(formula, expected):
    at = {"x": 0.0, "y": 1.0}
    e = parse(formula)
    assert value(derivative(e, "x"), at) == expected
    assert by_jax(e, "x", at) == expected


@pytest.mark.parametrize("formula", ["x**0", "x**(y - 1)"])
def test_the_power_of_zero_is_one_and_flat(formula):
    assert value(derivative(parse(formula), "x"), {"x": 0.0, "y": 1.0}) == 0  # JAX has nan


def test_the_kink_of_a_size_is_flat():
    e = derivative(parse("abs(x)"), "x")  # JAX has 1 there, and PyTorch 0
    assert [value(e, {"x": x}) for x in (-2.0, 0.0, 3.0)] == [-1, 0, 1]


def test_a_base_of_zero_does_not_grow_with_its_exponent():
    at = {"x": 0.0, "y": 2.0}
    assert value(derivative(parse("x**y"), "y"), at) == by_jax(parse("x**y"), "y", at) == 0.0


def test_what_is_not_chosen_does_no_harm():
    e = derivative(parse("where(x > 0, log(x), sqrt(-x))"), "x")
    assert value(e, {"x": np.float64(2)}) == 0.5
    assert value(e, {"x": np.float64(-4)}) == -0.25


# Any formula


@st.composite
def formulas(draw, depth=4):
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from([X, Y, X, Y, 2.0, 0.5, -3.0, 0.1]))
    op = draw(st.sampled_from(["add", "sub", "mul", "div", "square", "cube", "neg", "tanh", "sin", "cos", "exp"]))
    return apply(op, *(draw(formulas(depth - 1)) for _ in OPERATIONS[op].takes))


def size(e, at):
    """What rounding is a part of: the sum of all that is computed on the way, as far as it is finite."""
    parts = [float(abs(value(part, at))) for part in in_order([e]) if not part.is_condition]
    return sum(part for part in parts if np.isfinite(part))


@settings(deadline=None)
@example(apply("sub", X, apply("add", X, apply("tanh", X))), 0.0, 0.0)  # every part is 0 there, the difference 3e-25
@example(apply("exp", apply("cube", apply("cube", 2.0))), 0.0, 0.0)  # 2e222, in which the difference of x is lost
@given(formulas(), st.floats(-2, 2).map(lambda v: round(v, 3)), st.floats(-2, 2).map(lambda v: round(v, 3)))
def test_any_formula_beside_differences(e, x, y):
    e = apply("add", e, X)
    at = {"x": np.float64(x), "y": np.float64(y)}
    found = value(derivative(e, "x"), at)
    expected, second = difference(e, "x", at), value(derivative(derivative(e, "x"), "x"), at)
    if all(map(np.isfinite, (value(e, at), found, expected))) and abs(second) < 1e6:  # no pole
        rounding = 1e-14 * size(derivative(e, "x"), at)
        atol = rounding + 1e-18 + 1e-27 * size(e, at)  # the difference is not exact either
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=atol)


@settings(deadline=None)
@given(formulas(3))
def test_second_derivatives_do_not_depend_on_their_order(e):
    e = apply("mul", e, X)
    at = {"x": np.float64(0.37), "y": np.float64(-0.61)}
    one = value(derivative(derivative(e, "x"), "y"), at)
    other = value(derivative(derivative(e, "y"), "x"), at)
    if np.isfinite(one) and np.isfinite(other):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7 * (1 + abs(one)))


def test_beside_sympy():
    sympy = pytest.importorskip("sympy")
    x, y = sympy.symbols("x y", real=True)
    beale = (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2
    ours = gradient(parse("(1.5 - x + x*y)**2 + (2.25 - x + x*y**2)**2 + (2.625 - x + x*y**3)**2"), ("x", "y"))
    for mine, theirs in zip(ours, (sympy.diff(beale, x), sympy.diff(beale, y)), strict=True):
        for at in (*POINTS, NEGATIVE):
            np.testing.assert_allclose(value(mine, at), float(theirs.subs({x: at["x"], y: at["y"]})), rtol=1e-13)


# How it reads

READS = {
    "x**2/10 + 5*y**2": ("x / 5", "10 * y"),
    "(1 - x)**2 + 100*(y - x**2)**2": ("-2 * (1 - x) - 400 * x * (y - x**2)", "200 * (y - x**2)"),
    "(x**2 + y - 11)**2": ("4 * x * (x**2 + y - 11)", "2 * (x**2 + y - 11)"),
    "x**2 - 10*cos(2*pi*x)": ("2 * x + 62.83185307179586 * sin(6.283185307179586 * x)", "0"),
    "x**3 - 3*x*y**2": ("3 * x**2 - 3 * y**2", "-6 * x * y"),
    "sqrt(x**2 + y**2)": ("x / sqrt(x**2 + y**2)", "y / sqrt(x**2 + y**2)"),
    "exp(-x**2) * y": ("-2 * x * y * exp(-x**2)", "exp(-x**2)"),
    "(1.5 - x + x*y)**2": ("2 * (1.5 - x + x * y) * (y - 1)", "2 * x * (1.5 - x + x * y)"),
    "x*x*x*y": ("3 * x**2 * y", "x**3"),
    "x**1.5 / x": ("1.5 * x**0.5 / x - x**1.5 / x**2", "0"),
    "0.1*(x + y)**3": ("0.3 * (x + y)**2", "0.3 * (x + y)**2"),
    "x - (y - x)": ("2", "-1"),
    "-x/y": ("-1 / y", "x / y**2"),
    "tanh(6*(x - 1))": ("6 * (1 - tanh(6 * (x - 1))**2)", "0"),
    "where(x > y, x**2, -y)": ("where(x > y, 2 * x, 0)", "where(x > y, 0, -1)"),
    "maximum(x, y)": ("where(x > y, 1, where(x == y, 1 / 2, 0))", "where(x > y, 0, where(x == y, 1 / 2, 1))"),
    "abs(x) + sign(y)": ("sign(x)", "0"),
    "x**y": ("where(y == 0, 0, y * x**(y - 1))", "x**y * log(where(x == 0, 1, x))"),
}


@pytest.mark.parametrize("formula", READS)
def test_a_derivative_reads_as_one_would_write_it(formula):
    assert tuple(map(text, gradient(parse(formula), ("x", "y")))) == READS[formula]


def test_a_derivative_in_latex():
    e = derivative(parse("(1 - x)**2 + 100*(y - x**2)**2"), "x")
    assert expression_latex(e) == r"-2 \, (1 - x) - 400 \, x \, (y - x^{2})"
    assert expression_latex(derivative(parse("10*cos(2*pi*x)/3"), "x")) == (
        r"\frac{-20 \pi \, \sin\left(2 \pi \, x\right)}{3}"
    )


def test_numbers_too_large_to_multiply_are_left_where_they_are():
    e = derivative(parse("1e300 * x**2 * 1e-300 * 1e10"), "x")
    assert value(e, {"x": np.float64(3)}) == 6e10


# What it is used for


def test_a_linear_formula_has_a_derivative_without_variables():
    lr, mu = number("lr"), number("mu")
    e = X - lr * (mu * Y + (1 - mu) * X)
    found = gradient(e, ("x", "y"))
    assert not any(part.from_arrays for part in in_order(found))
    assert [text(each) for each in found] == ["1 - lr * (1 - mu)", "-lr * mu"]


def test_an_input_that_is_not_there():
    assert derivative(X * X, "z").value == 0.0


def test_the_formula_is_found_again_in_its_derivative():
    e = parse("exp(x*y)")
    by_x, by_y = gradient(e, ("x", "y"))
    common = {id(part) for part in in_order([by_x])} & {id(part) for part in in_order([by_y])}
    assert len(common) == 4  # x, y, their product, the exponential


LONG = {
    "factors": "*".join(["x"] * 100),
    "sums": "+".join(["x*y"] * 50),
    "quotients": "/".join(["x"] * 100),
    "brackets": "sin(" * 39 + "x" + ")" * 39,
    "squares": "(" * 28 + "x*y" + "+1)^2" * 28,
    "powers": "x**x**x**x**x**x**x",
    "choices": "maximum(x*" * 13 + "y" + ",x)" * 13,
}


@pytest.mark.parametrize("name", LONG)
def test_the_derivative_of_a_long_formula_is_not_much_longer(name):
    formula = LONG[name]
    assert len(formula) <= LONGEST
    e = parse(formula)
    found = gradient(e, ("x", "y"))
    assert len(in_order(found)) < 12 * len(in_order([e])) + 20
    assert isinstance(found[0], Expression)
