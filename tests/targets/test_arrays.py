import numpy as np
import pytest

import downslope
from downslope import rule, where
from downslope.language.options import compose
from downslope.targets.arrays import interpret

RNG = np.random.default_rng(0)
RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")


def arrays_for(program, dtype, shape=(5, 3)):
    arrays = {name: RNG.standard_normal(shape).astype(dtype) for name in program.arrays}
    return arrays | {name: abs(arrays[name]) for name in ("v", "cache") if name in arrays}


def settings_for(program, t=3):
    return {**program.hyperparameters, "t": t}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", RULES)
def test_interpretation_is_the_formula(name, dtype):
    formula = getattr(downslope, name)
    program = compose(formula)
    arrays = arrays_for(program, dtype)
    found = interpret(program, arrays, settings_for(program))
    doubles = {key: array.astype(np.float64) for key, array in arrays.items()}
    expected = formula(*doubles.values(), **({"t": 3} if formula.uses_t else {}))
    expected = expected if isinstance(expected, tuple) else (expected,)
    # at most nine roundings, each of a quantity below 4 that enters x with a weight of at most 1
    tolerance = 9 * 4 * np.finfo(dtype).eps
    for value, key in zip(expected, ("x", *program.states), strict=True):
        assert found[key].dtype == dtype
        np.testing.assert_allclose(found[key], value, rtol=0, atol=tolerance)


@rule
def every_word(x, dx, v=0, *, t, lr=0.1):
    v = downslope.maximum(v, downslope.exp(-abs(dx))) + downslope.minimum(dx, 0) * downslope.tanh(dx)
    lift = downslope.log(1 + dx**4) + downslope.sqrt(abs(v)) ** 0.5 - downslope.sign(dx)
    flat = ((dx > 0.5) | ~(x <= 0)) & (v != 0)
    return where(flat, x - lr * lift, where(t == 1, x, -x)), v


@rule
def constant_outputs(x, dx, v=1, *, lr=0.5):
    return lr, 2.0


@pytest.mark.parametrize("namespace", ["jax.numpy", "torch"])
@pytest.mark.parametrize(
    "formula", [*(getattr(downslope, name) for name in (*RULES, "adopt")), every_word, constant_outputs]
)
def test_every_array_library_computes_the_same(formula, namespace):
    library = pytest.importorskip(namespace)
    program = compose(formula)
    arrays = arrays_for(program, np.float32)
    expected = interpret(program, arrays, settings_for(program))
    there = {name: library.asarray(array) for name, array in arrays.items()}
    found = interpret(program, there, settings_for(program), library)
    for name, value in expected.items():
        assert str(found[name].dtype).removeprefix("torch.") == "float32"
        # the same operations in single precision; exp, log and tanh of another library differ in their last bits
        np.testing.assert_allclose(np.asarray(found[name]), value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
def test_a_traced_step_number_keeps_its_digits(beta):
    jax = pytest.importorskip("jax")

    @rule
    def correction(x, dx, *, t, beta2=0.9):
        return dx / (1 - beta2**t)

    program = compose(correction)
    arrays = {"x": jax.numpy.ones(1), "dx": jax.numpy.ones(1)}
    step = jax.jit(lambda t: interpret(program, arrays, {"beta2": beta, "t": t}, jax.numpy)["x"])
    for t in (1, 2, 10, 1000):
        exact = 1 / -np.expm1(t * np.log(beta))
        # -expm1(t log beta) has three roundings, of log(beta), of the product and of the result; the naive form is
        # wrong by eps / (t (1 - beta)), 1e-3 for beta = 0.9999
        np.testing.assert_allclose(step(np.float32(t)), exact, rtol=8 * np.finfo(np.float32).eps)


def test_a_traced_condition_and_learning_rate():
    jax = pytest.importorskip("jax")

    @rule
    def first_larger(x, dx, *, t, lr=0.1):
        return x - where(t == 1, 10 * lr, lr) * dx

    program = compose(first_larger)
    arrays = {"x": jax.numpy.zeros(2), "dx": jax.numpy.ones(2)}
    step = jax.jit(lambda t, lr: interpret(program, arrays, {"t": t, "lr": lr}, jax.numpy)["x"])
    np.testing.assert_allclose(step(1, 0.5), -5)
    np.testing.assert_allclose(step(2, 0.5), -0.5)


def test_one_learning_rate_per_member_of_a_population():
    program = compose(downslope.momentum)
    arrays = {name: np.ones((4, 3)) for name in program.arrays}
    rates = np.array([[0.1], [0.2], [0.3], [0.4]])
    found = interpret(program, arrays, {"lr": rates, "mu": 0.5})["x"]
    np.testing.assert_allclose(found, np.broadcast_to(1.5 - rates, (4, 3)))


def test_coefficients_are_worked_out_in_double_precision_and_rounded_once():
    @rule
    def fine(x, dx, *, a=0.1, b=0.2):
        return x + (a + b - 0.3) * dx

    arrays = {"x": np.zeros(1, np.float32), "dx": np.ones(1, np.float32)}
    assert interpret(compose(fine), arrays, {"a": 0.1, "b": 0.2})["x"][0] == np.float32(0.1 + 0.2 - 0.3) != 0


def test_infinities_are_those_of_ieee():
    @rule
    def bold(x, dx, *, zero=0.0):
        return x + dx / zero + downslope.log(zero) * 0

    arrays = {"x": np.zeros(2), "dx": np.array([1.0, -1.0])}
    assert np.isnan(interpret(compose(bold), arrays, {"zero": 0.0})["x"]).all()
    arrays = {"x": np.zeros(2, np.float32), "dx": np.float32([3e38, -3e38])}
    np.testing.assert_array_equal(interpret(compose(downslope.sgd), arrays, {"lr": 1e6})["x"], [-np.inf, np.inf])


def test_outputs_that_are_numbers_fill_the_shape():
    found = interpret(
        compose(constant_outputs), {name: np.ones((2, 2), np.float32) for name in ("x", "dx", "v")}, {"lr": 3}
    )
    np.testing.assert_array_equal(found["x"], np.full((2, 2), 3))
    np.testing.assert_array_equal(found["v"], np.full((2, 2), 2))
    assert found["x"].dtype == np.float32


def test_a_weight_that_is_not_finite_does_not_spoil_a_number():
    found = interpret(
        compose(constant_outputs), {name: np.array([np.nan, np.inf]) for name in ("x", "dx", "v")}, {"lr": 3}
    )
    np.testing.assert_array_equal(found["x"], [3, 3])
