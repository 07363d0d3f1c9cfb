import numpy as np
import pytest

import downslope
from downslope import FormulaError, Optimizer, rule
from downslope.interpret import interpret
from downslope.options import compose, stored_point

RNG = np.random.default_rng(0)
X = RNG.standard_normal(40)
GRADIENTS = RNG.standard_normal((12, 40))
LR, DECAY = 0.05, 0.25


def walked(rule_, **options):
    """The weights after all gradients, and the optimizer."""
    x = X.copy()
    optimizer = Optimizer(x, rule_, **options)
    for g in GRADIENTS:
        optimizer.step(g)
    return x, optimizer


# Against the same thing written out; the bound is two hundred roundings of quantities below 10


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=200 * 10 * np.finfo(np.float64).eps)


def test_coupled_weight_decay_is_part_of_the_gradient():
    x, v = X.copy(), np.zeros(40)
    for g in GRADIENTS:
        v = 0.9 * v - LR * (g + DECAY * x)
        x = x + v
    close(walked(downslope.momentum, lr=LR, weight_decay=DECAY)[0], x)


def test_decoupled_weight_decay_shrinks_the_weights_before_the_step():
    x, v = X.copy(), np.zeros(40)
    for g in GRADIENTS:
        v = 0.9 * v - LR * g
        x = (1 - LR * DECAY) * x + v
    close(walked(downslope.momentum, lr=LR, weight_decay=DECAY, decoupled=True)[0], x)


def test_weight_decay_may_follow_a_schedule():
    x = X.copy()
    for t, g in enumerate(GRADIENTS, start=1):
        x = x - LR * (g + x / t)
    close(walked(downslope.sgd, lr=LR, weight_decay=lambda t: 1 / t)[0], x)


def test_maximize_walks_up_but_still_decays():
    x = X.copy()
    for g in GRADIENTS:
        x = x - LR * (-g + DECAY * x)
    close(walked(downslope.sgd, lr=LR, weight_decay=DECAY, maximize=True)[0], x)


def test_averaging_starts_from_the_initial_weights():
    x, average = X.copy(), X.copy()
    for g in GRADIENTS:
        x = x - LR * g
        average = 0.75 * average + 0.25 * x
    weights, optimizer = walked(downslope.sgd, lr=LR, averaging=0.75)
    close(weights, x)
    close(optimizer.state["average"]["0"], average)
    with optimizer.at_average():
        close(weights, average)
    close(weights, x)


@pytest.mark.parametrize("lookahead", ["stored", "explicit"])
def test_the_average_is_of_the_weights_not_of_the_point_ahead(lookahead):
    x, v, average = X.copy(), np.zeros(40), X.copy()
    for g in GRADIENTS:
        v = 0.9 * v - LR * g
        x = x + v
        average = 0.5 * average + 0.5 * x
    _, optimizer = walked(downslope.nesterov, lr=LR, averaging=0.5, lookahead=lookahead)
    close(optimizer.state["average"]["0"], average)


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 6.0, 1e6])
def test_max_norm_scales_the_common_norm_of_all_gradients(max_norm):
    parts = np.split(np.arange(40), [1, 30])
    params = {f"p{k}": X[part].copy() for k, part in enumerate(parts)}
    optimizer = Optimizer(params, downslope.sgd, lr=LR, max_norm=max_norm)
    x = X.copy()
    for g in GRADIENTS:
        optimizer.step({f"p{k}": g[part].copy() for k, part in enumerate(parts)})
        x = x - LR * g * min(1.0, max_norm / np.sqrt(np.sum(g * g)))
    close(np.concatenate(list(params.values())), x)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e150, 1e200, 1e300])
def test_max_norm_of_huge_gradients(size):
    x = np.zeros(3)
    Optimizer(x, downslope.sgd, lr=1.0, max_norm=1e-3).step(np.array([3.0, 0.0, -4.0]) * size)
    scale = min(1.0, 1e-3 / (5 * size)) * size
    np.testing.assert_allclose(x, [-3 * scale, 0, 4 * scale], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_norm_of_zero_gradients(dtype):
    x = np.ones(3, dtype)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0, max_norm=1.0)
    optimizer.step(np.zeros(3, dtype))
    np.testing.assert_array_equal(x, 1)
    frozen = Optimizer(x, downslope.sgd, lr=1.0, max_norm=0.0)
    frozen.step(np.zeros(3, dtype))
    frozen.step(np.full(3, 5, dtype))
    np.testing.assert_array_equal(x, 1)


def test_clipping_comes_before_weight_decay():
    x = X.copy()
    for g in GRADIENTS:
        x = x - LR * (g / np.sqrt(np.sum(g * g)) + DECAY * x)
    close(walked(downslope.sgd, lr=LR, weight_decay=DECAY, max_norm=1.0)[0], x)


def test_options_share_one_pass_over_memory():
    program = compose(downslope.adam, max_norm=True, weight_decay=True, averaging=True)
    cost = program.cost()
    assert (cost.read, cost.written) == (20, 16)  # x, dx, m, v, average; all but dx written
    assert {"grad_scale", "weight_decay", "averaging"} <= set(program.scalars)


# A rule of one's own that has the option already


@rule
def has_its_own(x, dx, *, lr=0.1, weight_decay=0.5):
    return x - lr * (dx - weight_decay)


def test_a_rules_own_hyperparameter_comes_before_the_option():
    x = np.zeros(2)
    Optimizer(x, has_its_own, lr=1.0, weight_decay=0.25).step(np.ones(2))
    np.testing.assert_array_equal(x, -0.75)
    with pytest.raises(FormulaError, match="weight_decay"):
        compose(has_its_own, weight_decay=True)


def test_decoupled_needs_weight_decay_and_a_learning_rate():
    @rule
    def no_rate(x, dx):
        return x - dx

    with pytest.raises(FormulaError, match="weight_decay="):
        compose(downslope.sgd, decoupled=True)
    with pytest.raises(FormulaError, match="no_rate has none"):
        compose(no_rate, decoupled=True, weight_decay=True)


# The stored look-ahead as a formula


def test_the_stored_point_and_back():
    arrays = {"x": np.array([1.0]), "v": np.array([0.5])}
    ahead = interpret(stored_point(downslope.nesterov, to_weights=False), arrays, {"mu": 0.5})["x"]
    assert ahead == 1.25
    assert interpret(stored_point(downslope.nesterov, to_weights=True), {**arrays, "x": ahead}, {"mu": 0.5})["x"] == 1


def test_the_stored_form_is_the_shifted_form_of_the_notes():
    program = compose(downslope.nesterov, stored_ahead=True)
    arrays = {name: RNG.standard_normal(30) for name in program.arrays}
    found = interpret(program, arrays, {"lr": LR, "mu": 0.9, "mu next": 0.9})
    v = 0.9 * arrays["v"] - LR * arrays["dx"]
    close(found["v"], v)
    close(found["x"], arrays["x"] - 0.9 * arrays["v"] + 1.9 * v)
