import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
from downslope import FormulaError, rule
from downslope.language.expression import Expression
from downslope.language.operations import OPERATIONS, WORDS, function_of
from downslope.language.spaces import WEIGHT

NUMBERS = st.floats(allow_nan=False, width=32)
ONE_ARGUMENT = ("sqrt", "exp", "expm1", "log", "tanh", "sin", "cos", "sign")
TWO_ARGUMENTS = ("maximum", "minimum")


def symbol(name="x"):
    return Expression("input", value=name, space=WEIGHT)


# The words with numbers and arrays


@pytest.mark.parametrize("word", ONE_ARGUMENT)
@settings(deadline=None)
@given(value=NUMBERS)
def test_a_word_with_a_number_is_numpys(word, value):
    with np.errstate(all="ignore"):
        np.testing.assert_equal(getattr(downslope, word)(value), getattr(np, word)(value))


@pytest.mark.parametrize("word", TWO_ARGUMENTS)
@settings(deadline=None)
@given(a=NUMBERS, b=NUMBERS)
def test_a_word_with_two_numbers_is_numpys(word, a, b):
    assert getattr(downslope, word)(a, b) == getattr(np, word)(a, b)


def test_where_chooses_element_by_element():
    x = np.float32([-1, 0, 2])
    chosen = downslope.where(x > 0, x, 7)
    np.testing.assert_array_equal(chosen, np.float32([7, 7, 2]))
    assert chosen.dtype == np.float32


@pytest.mark.parametrize("word", WORDS)
def test_every_word_keeps_single_precision(word):
    x = np.float32([0.25, 2])
    arguments = {"where": (x > 1, x, x), "maximum": (x, x), "minimum": (x, x)}.get(word, (x,))
    assert getattr(downslope, word)(*arguments).dtype == np.float32


def test_words_follow_the_library_of_their_argument():
    jnp = pytest.importorskip("jax.numpy")
    x = jnp.asarray([4.0, 9.0])
    assert type(downslope.sqrt(x)) is type(x)
    np.testing.assert_array_equal(downslope.where(x > 5, downslope.maximum(x, 10), 0), [0, 10])


@pytest.mark.parametrize("word", WORDS)
def test_a_word_with_the_wrong_number_of_arguments_is_named(word):
    with pytest.raises(FormulaError, match=word):
        getattr(downslope, word)(1.0, 2.0, 3.0, 4.0)


# The words with expressions


def test_numpys_functions_are_the_same_as_the_words():
    x, y = symbol("x"), symbol("y")
    assert repr(np.sqrt(x)) == repr(downslope.sqrt(x)) == "sqrt(x)"
    assert repr(np.maximum(x, y)) == repr(downslope.maximum(x, y)) == "maximum(x, y)"
    assert repr(np.where(x > 0, x, y)) == repr(downslope.where(x > 0, x, y))
    assert repr(np.square(x)) == repr(x**2)
    assert repr(np.float64(2) * x) == "mul(2.0, x)"


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (lambda x: 1 - x, "sub(1.0, x)"),
        (lambda x: x - 1, "sub(x, 1.0)"),
        (lambda x: 2 / x, "div(2.0, x)"),
        (lambda x: x / 2, "div(x, 2.0)"),
        (lambda x: 2**x, "pow(2.0, x)"),
        (lambda x: x**2, "square(x)"),
        (lambda x: x**4, "fourth(x)"),
        (lambda x: x**5, "pow(x, 5.0)"),
        (lambda x: np.square(x), "square(x)"),
        (lambda x: -x, "neg(x)"),
        (lambda x: +x, "x"),
        (abs, "abs(x)"),
        (lambda x: x < 1, "lt(x, 1.0)"),
        (lambda x: np.float64(1) < x, "lt(1.0, x)"),
        (lambda x: ~(x <= 1), "not(le(x, 1.0))"),
        (lambda x: (x >= 1) & (x != 2), "and(ge(x, 1.0), ne(x, 2.0))"),
        (lambda x: (x > 1) | (x == 2), "or(gt(x, 1.0), eq(x, 2.0))"),
    ],
)
def test_operators_keep_their_order(formula, expected):
    assert repr(formula(symbol())) == expected


def test_what_uses_a_weight_differs_from_weight_to_weight():
    x, lr = symbol(), Expression("input", value="lr")
    assert (lr * x).from_arrays
    assert not (lr * 2).from_arrays


def test_every_operation_counts_its_arguments():
    assert set(OPERATIONS) >= set(WORDS)
    assert {word for word in WORDS if len(OPERATIONS[word].takes) != 1} == {"maximum", "minimum", "where"}


# What a formula cannot use is named, whatever it is

OUTSIDE_THE_LANGUAGE = {
    "a branch": (lambda x: x if x > 0 else -x, "if"),
    "and": (lambda x: x > 0 and x < 1, "and"),
    "a chained comparison": (lambda x: 0 < x < 1, "where(condition, a, b)"),
    "max()": (lambda x: max(x, 0), "maximum(a, b)"),
    "math.sqrt": (lambda x: math.sqrt(x), "math"),
    "float()": (lambda x: float(x), "float()"),
    "int()": (lambda x: int(x), "int()"),
    "complex()": (lambda x: complex(x), "complex()"),
    "round()": (lambda x: round(x), "round"),
    "math.floor": (lambda x: math.floor(x), "math"),
    ".sum()": (lambda x: x.sum(), ".sum"),
    "an index": (lambda x: x[0], "[0]"),
    "a slice": (lambda x: x[1:], "slice"),
    "len()": (lambda x: len(x), "len()"),
    "a loop": (lambda x: [w for w in x], "loop"),  # noqa: C416
    "@": (lambda x: x @ x, "the product of one a weight and one a weight does not fit"),
    "@ with a number": (lambda x: 2 @ x, "a number multiplies with *"),
    "@ from the right": (lambda x: np.eye(2) @ x, "matmul"),
    "//": (lambda x: x // 2, "//"),
    "%": (lambda x: 2 % x, "%"),
    "<<": (lambda x: x << 1, "<<"),
    "^": (lambda x: x ^ x, "^"),
    "divmod": (lambda x: divmod(x, 2), "divmod"),
    "np.cumsum": (lambda x: np.cumsum(x), "numpy.cumsum"),
    "np.sum": (lambda x: np.sum(x), "numpy.sum"),
    "np.linalg.norm": (lambda x: np.linalg.norm(x), "norm"),
    "np.clip": (lambda x: np.clip(x, 0, 1), "numpy.clip"),
    "np.arctan2": (lambda x: np.arctan2(x, x), "numpy.arctan2"),
    "np.isnan": (lambda x: np.isnan(x), "numpy.isnan"),
    "a reduction": (lambda x: np.add.reduce(x), "numpy.add.reduce"),
    "out=": (lambda x: np.add(x, 1, out=np.zeros(2)), "out"),
    "an array": (lambda x: x + np.ones(2), "array"),
    "a string": (lambda x: x + "1", "'1'"),
    "None": (lambda x: x + None, "None"),
    "a complex number": (lambda x: x * 1j, "1j"),
    "a truth value as a number": (lambda x: x * (x > 0), "truth value"),
    "a number as a condition": (lambda x: downslope.where(x, 1, 2), "condition"),
    "& of numbers": (lambda x: downslope.where(x & x, 1, 2), "condition"),
}


@pytest.mark.parametrize(("formula", "named"), OUTSIDE_THE_LANGUAGE.values(), ids=OUTSIDE_THE_LANGUAGE)
def test_an_operation_outside_the_language_is_named(formula, named):
    with pytest.raises(FormulaError) as caught:
        formula(symbol())
    assert named in str(caught.value)


def test_writing_into_the_weights_is_refused():
    x = symbol()
    with pytest.raises(FormulaError, match=r"\[0\]"):
        x[0] = 1


def test_the_error_names_the_rule():
    @rule
    def hopeful(x, dx):
        return x - dx.mean()

    with pytest.raises(FormulaError, match=r"hopeful: .*\.mean"):
        hopeful.cost()


def test_what_an_array_library_lacks_is_found_elsewhere():
    assert function_of("tanh", np) is np.tanh
    erf = function_of("erf", np)
    assert erf(0.5) == math.erf(0.5)
    found = erf(np.float32([0.5, -0.5]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32([math.erf(0.5), math.erf(-0.5)]))
    jax = pytest.importorskip("jax")
    assert function_of("erf", jax.numpy) is jax.scipy.special.erf
