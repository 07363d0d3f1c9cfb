import numpy as np
import pytest

import downslope
from downslope import exp, rule, size
from downslope.language.options import compose
from downslope.language.rewrites import accurate_coefficients
from downslope.targets.arrays import interpret_scalars
from downslope.targets.evaluate import evaluate
from downslope.targets.shapes import settled


def values_in_single_precision(program, scalars, roots):
    single = {name: np.float32(value) for name, value in scalars.items()}
    operations = {"expm1": np.expm1, "log": np.log, "exp": np.exp, "pow": np.power, "neg": np.negative}
    operations |= {"sub": np.subtract, "mul": np.multiply, "where": np.where, "gt": np.greater}

    def leaf(e):
        return np.float32(e.value) if e.op == "constant" else single[e.value]

    return evaluate(roots, leaf, lambda e, args: operations[e.op](*args))


@pytest.mark.parametrize("t", [1, 7, 1000])
def test_the_bias_correction_is_right_in_single_precision(t):
    program = compose(downslope.adam)
    beta = 1 - 2.0**-10  # without rounding in single precision
    scalars = {"lr": 0.1, "eps": 1e-8, "beta1": beta, "beta2": beta, "t": t}
    exact = interpret_scalars(program, scalars)
    accurate = accurate_coefficients(program)
    corrections = [e for e in accurate if repr(e).startswith("sub(1.0, pow(beta")]
    assert len(corrections) == 2
    found = values_in_single_precision(program, scalars, [accurate[e] for e in corrections])
    for e in corrections:
        assert abs(found[accurate[e]] / exact[e] - 1) < 4e-7


def test_a_base_of_unknown_sign_keeps_the_plain_form_below_zero():
    @rule(ranges={"base": (-2.0, 2.0)})
    def some(x, dx, *, t, base=0.5):
        return x - (1 - base**t) * dx

    program = compose(some)
    accurate = accurate_coefficients(program)
    (difference,) = program.coefficients
    for base, expected in ((0.5, 0.875), (-0.5, 1.125), (0.0, 1.0), (-2.0, 9.0)):
        with np.errstate(all="ignore"):
            found = values_in_single_precision(program, {"base": base, "t": 3.0}, [accurate[difference]])
        np.testing.assert_allclose(found[accurate[difference]], expected, rtol=3e-7)


def test_one_minus_an_exponential_loses_no_digits():
    @rule
    def some(x, dx, *, a=1e-6):
        return x - (1 - exp(-a)) * dx

    program = compose(some)
    accurate = accurate_coefficients(program)
    (difference,) = program.coefficients
    found = values_in_single_precision(program, {"a": 1e-6}, [accurate[difference]])
    np.testing.assert_allclose(found[accurate[difference]], -np.expm1(-1e-6), rtol=3e-7)
    plain = values_in_single_precision(program, {"a": 1e-6}, [difference])
    assert abs(plain[difference] / 1e-6 - 1) > 1e-2


def test_what_needs_no_rewriting_stays_the_same_object():
    program = compose(downslope.sgd)
    assert all(e is new for e, new in accurate_coefficients(program).items())


def test_what_has_become_equal_is_one_and_what_stays_is_the_very_same():
    @rule
    def by_size(x, dx, *, t, lr=0.1):
        return x - lr / t * dx * size(dx, axis=0) / size(dx, axis=1)

    program = compose(by_size)
    square = settled(program, (3, 3))
    assert square.coefficients == program.coefficients  # so that numbers worked out for one are found for the other
    assert sum(e.op == "constant" and e.value == 3.0 for e in square.expressions) == 1
    assert not any(e.op == "size" for e in square.expressions)
