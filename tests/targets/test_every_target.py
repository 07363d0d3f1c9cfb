"""Every target has an entry for every operation, and the words are operations with a word."""

import pytest

import downslope
from downslope import check_rule, cos, exp, expm1, log, maximum, minimum, rule, sign, sin, sqrt, tanh, where
from downslope.language.operations import OPERATIONS, OVER_TENSORS, WORDS
from downslope.targets import arrays, decimals, formula, intervals, javascript, latex, python, triton

TABLES = {
    "python": python.PYTHON.forms,
    "kernels": python.kernel_target("float32").forms,
    "formula": formula.FORMULA.forms,
    "latex": latex.LATEX.forms,
    "javascript": javascript.JAVASCRIPT.forms,
    "triton": triton.TARGETS["float32"].forms,
    "triton in double precision": triton.TARGETS["float64"].forms,
    "arrays": arrays.OPERATIONS,
    "intervals": intervals.OPERATIONS,
    "decimals": decimals.OPERATIONS,
}


@pytest.mark.parametrize("target", TABLES)
def test_no_operation_is_missing(target):
    assert set(OPERATIONS) - set(TABLES[target]) == set()


@pytest.mark.parametrize("target", TABLES)
def test_nothing_is_there_that_is_no_operation(target):
    others = {op.partition(" ")[0] for op in set(TABLES[target]) - set(OPERATIONS)}
    assert others == {"latex": {"times", "entries", *OVER_TENSORS}, "formula": {*OVER_TENSORS}}.get(target, set())


def test_every_word_is_an_operation_and_public():
    assert set(WORDS) <= set(OPERATIONS)
    assert set(WORDS) <= set(downslope.__all__)


@rule
def every_word(x, dx, v=0.5, second=0, third=0, fourth=0, power=0, *, lr=0.1, beta=0.9):
    a = exp(-abs(dx)) + expm1(-abs(dx) * beta) + tanh(dx) * sign(x)
    v = where((dx > 0) & (x <= 1) | ~(v >= dx), maximum(a, v), minimum(a, v))
    new = x - lr * expm1(beta) * sqrt(log(1 + abs(a))) + cos(x) * sin(x * cos(lr))
    return new, v, dx**2, dx**3, dx**4, abs(x) ** 1.5


def test_every_word_is_computed_by_every_target_within_the_bounds():
    assert check_rule(every_word).passed
