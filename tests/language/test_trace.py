import cProfile
import sys

import numpy as np
import pytest

import downslope
from downslope import FormulaError, rule, scalar, where
from downslope.language.expression import Expression
from downslope.language.options import compose
from downslope.language.program import in_order
from downslope.language.spaces import WEIGHT
from downslope.targets.arrays import interpret


def test_what_depends_on_no_array_is_a_coefficient():
    program = compose(downslope.adam)
    assert program.arrays == ("x", "dx", "m", "v")
    assert set(program.scalars) == {"lr", "beta1", "beta2", "eps", "t"}
    assert all(not e.from_arrays for e in program.coefficients)
    assert {repr(e) for e in program.coefficients} == {
        "beta1",
        "beta2",
        "lr",
        "eps",
        "sub(1.0, beta1)",
        "sub(1.0, beta2)",
        "sub(1.0, pow(beta1, t))",
        "sub(1.0, pow(beta2, t))",
    }
    assert not {"exp", "log", "where"} & {e.op for e in program.body}
    assert not any(e.op == "pow" for e in program.body)  # the powers of the betas are the host's


def test_a_boolean_is_settled_before_compilation():
    simple = compose(downslope.adam, bias_correction=False)
    assert "t" not in simple.scalars
    assert len(simple.body) == len(compose(downslope.adam).body) - 2
    assert "bias_correction" not in simple.hyperparameters


def test_equal_subexpressions_are_worked_out_once():
    @rule
    def twice(x, dx, a=0, b=0):
        return x - (dx * 3) * (3 * dx) - dx * 3, dx * 3, dx * 3

    program = compose(twice)
    assert sum(e.op == "mul" for e in program.body) == 3  # dx * 3, 3 * dx, and their product
    assert program.outputs["a"] is program.outputs["b"]


def test_zero_and_minus_zero_stay_apart():
    @rule
    def zeros(x, dx, a=0, b=0):
        return x, dx * 0.0, dx * -0.0

    outputs = interpret(compose(zeros), {name: np.ones(1) for name in ("x", "dx", "a", "b")}, {})
    assert np.signbit(outputs["b"]) != np.signbit(outputs["a"])


def test_nothing_is_reassociated():
    @rule
    def left(x, dx):
        return (x + dx) - 1e16

    @rule
    def right(x, dx):
        return x + (dx - 1e16)

    arrays = {"x": np.array([1.0]), "dx": np.array([1e16])}
    assert interpret(compose(left), arrays, {})["x"] == 0
    assert interpret(compose(right), arrays, {})["x"] == 1


def test_in_order_puts_arguments_first_and_each_once():
    x = Expression("input", value="x", space=WEIGHT)
    square = x * x
    order = [repr(e) for e in in_order([square + x, square])]
    assert order == ["x", "mul(x, x)", "add(mul(x, x), x)"]


def test_scalar_states_and_scalar_conditions_are_the_hosts():
    @rule
    def warm(x, dx, product=scalar(1.0), *, t, mu=0.9):
        product = where(t == 1, mu, product * mu)
        return x - dx / (1 - product), product

    program = compose(warm)
    assert program.arrays == ("x", "dx")
    assert set(program.scalar_outputs) == {"product"}
    assert set(program.scalars) == {"product", "t", "mu"}
    assert {e.op for e in program.body} == {"div", "sub"}


def test_an_unused_hyperparameter_is_still_one():
    @rule
    def lazy(x, dx, *, lr=0.1, unused=3.0):
        return x - lr * dx

    program = compose(lazy)
    assert program.scalars == ("lr",)
    assert dict(program.hyperparameters) == {"lr": 0.1, "unused": 3.0}


def test_a_lookahead_has_a_program_of_its_own():
    program = compose(downslope.nesterov)
    arrays = {"x": np.array([1.0]), "dx": np.array([np.nan]), "v": np.array([2.0])}
    assert program.lookahead is not None
    assert interpret(program.lookahead, arrays, {"mu": 0.5})["x"] == 2.0
    assert compose(downslope.momentum).lookahead is None


def test_a_profiler_is_left_running():
    import sys

    def watch(*event):
        pass

    sys.setprofile(watch)
    try:
        compose(downslope.adam)
        assert sys.getprofile() is watch
    finally:
        sys.setprofile(None)


# Functions that are no formulas


def returns_nothing(x, dx, v=0):
    x - dx


def returns_too_little(x, dx, v=0):
    return x - dx


def returns_too_much(x, dx):
    return x - dx, dx


def returns_a_list(x, dx, v=0):
    return [x - dx, v]


def returns_text(x, dx):
    return "x"


def returns_true(x, dx):
    return True


def returns_a_condition(x, dx):
    return x > dx


def returns_none_for_a_state(x, dx, v=0):
    return x - dx, None


def scalar_state_per_weight(x, dx, s=scalar(0.0)):
    return x - dx, s + dx


def branches(x, dx):
    if dx > 0:
        return x - dx
    return x


def unknown_function(x, dx):
    return x - np.arcsinh(dx)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (returns_nothing, "return x, v"),
        (returns_too_little, "returns 1 value(s); expected 2: x, v"),
        (returns_too_much, "returns 2 value(s); expected 1: x"),
        (returns_a_list, "1 value(s)"),
        (returns_text, "'x'"),
        (returns_true, "True"),
        (returns_a_condition, "where"),
        (returns_none_for_a_state, "None as the new v"),
        (scalar_state_per_weight, "scalar state s"),
        (branches, "if"),
        (unknown_function, "numpy.arcsinh"),
    ],
)
def test_a_function_that_is_no_formula_is_refused(function, named):
    with pytest.raises(FormulaError) as caught:
        compose(rule(function))
    assert named in str(caught.value)
    assert function.__name__ in str(caught.value)


def test_an_error_of_the_authors_own_is_shown_as_it_is():
    @rule
    def broken(x, dx):
        return x - undefined_name * dx  # noqa: F821

    with pytest.raises(NameError, match="undefined_name"):
        compose(broken)


def test_flags_are_checked():
    with pytest.raises(TypeError, match="bias_corection"):
        compose(downslope.adam, bias_corection=False)
    with pytest.raises(TypeError, match="bias_correction='no'"):
        compose(downslope.adam, bias_correction="no")


def test_the_authors_names_are_there_whoever_is_watching():
    def names():
        return set(compose(downslope.adam).names.values())

    alone = names()
    assert {"m_hat", "v_hat"} <= alone
    with cProfile.Profile():
        assert names() == alone
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        assert names() == alone
    finally:
        sys.settrace(before)
