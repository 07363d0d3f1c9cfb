"""The six rules: against the textbooks, against PyTorch, and the properties that set them apart."""

import numpy as np
import pytest

import downslope
import paths
import textbook
from downslope import Optimizer
from paths import STEPS

PROBLEM = paths.quadratic(47, 2)
START, gradient = PROBLEM.start, PROBLEM.gradient

RULES = {
    "sgd": (downslope.sgd, textbook.sgd, {"lr": 0.05}),
    "momentum": (downslope.momentum, textbook.momentum, {"lr": 0.02, "mu": 0.9}),
    "nesterov": (downslope.nesterov, textbook.nesterov, {"lr": 0.02, "mu": 0.9}),
    "adagrad": (downslope.adagrad, textbook.adagrad, {"lr": 0.1, "eps": 1e-6}),
    "rmsprop": (downslope.rmsprop, textbook.rmsprop, {"lr": 0.01, "decay_rate": 0.95, "eps": 1e-6}),
    "adam": (downslope.adam, textbook.adam, {"lr": 0.01, "beta1": 0.8, "beta2": 0.99, "eps": 1e-6}),
    "adam-simple": (downslope.adam, textbook.adam, {"lr": 0.01, "bias_correction": False}),
}


# A step makes at most 20 roundings, each of a quantity below 4. What a rounding does to the weights is remembered by
# the velocity, 1 / (1 - mu) = 10 times over at most, and the quadratic never amplifies it (lr * curvature < 1).
# float64: the worst case, all roundings one way. float32: roundings are independent of one another, so they add up like
# a random walk; four standard deviations.
BOUNDS = {
    np.float64: STEPS * 20 * 4 * 10 * np.finfo(np.float64).eps / 2,
    np.float32: 4 * np.sqrt(STEPS * 20) * 4 * np.finfo(np.float32).eps / 2 * 10,
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", RULES)
def test_two_hundred_steps_are_those_of_the_textbook(name, dtype):
    rule, reference, settings = RULES[name]
    problem = PROBLEM.astype(dtype)
    found = paths.end_of(rule, problem, **settings)
    expected = reference(problem.start.astype(np.float64), gradient, STEPS, **settings)
    assert found.dtype == dtype
    assert np.abs(expected - START).max() > 0.3  # it did go somewhere
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUNDS[dtype])


@pytest.mark.parametrize("name", RULES)
def test_the_rule_called_as_a_function_is_the_textbooks(name):
    rule, reference, settings = RULES[name]
    x, states = START, [np.zeros_like(START) for _ in rule.states]
    for t in range(1, STEPS + 1):
        point = x + rule.ahead(states[0], mu=settings["mu"]) if rule.ahead else x
        returned = rule(x, gradient(point, t), *states, **settings, **({"t": t} if rule.uses_t else {}))
        x, *states = returned if isinstance(returned, tuple) else (returned,)
    np.testing.assert_allclose(x, reference(START, gradient, STEPS, **settings), rtol=0, atol=BOUNDS[np.float64])


def test_defaults_are_the_documented_ones():
    defaults = {name: dict(rule.hyperparameters) for name, (rule, _, _) in RULES.items()}
    assert defaults["momentum"]["mu"] == defaults["nesterov"]["mu"] == 0.9
    assert (defaults["adam"]["beta1"], defaults["adam"]["beta2"]) == (0.9, 0.999)
    assert {values["eps"] for values in defaults.values() if "eps" in values} == {1e-8}
    assert downslope.adam.flags["bias_correction"] is True


@pytest.mark.parametrize("name", RULES)
def test_a_rule_tells_its_source_and_its_intuition(name):
    rule = RULES[name][0]
    assert any(year in rule.source for year in ("1951", "1964", "1983", "2011", "2012", "2015"))
    assert rule.intuition.endswith(".")


# What the pictures say, of formulas


def steps_of(rule, gradients, **settings):
    """How far a weight moves at each step, along these gradients."""
    x = np.zeros(1)
    optimizer = downslope.Optimizer(x, rule, threads=1, **settings)
    moved = []
    for dx in gradients:
        before = float(x[0])
        optimizer.step(np.array([float(dx)]))
        moved.append(float(x[0]) - before)
    return np.array(moved)


@pytest.mark.parametrize(
    ("name", "inertia"),
    [("sgd", False), ("momentum", True), ("adagrad", False), ("rmsprop", False), ("adam", True)],
)
def test_inertia_is_what_goes_on_where_it_is_level(name, inertia):
    moved = steps_of(RULES[name][0], [1, 1, 0, 0])
    assert (moved[:2] < 0).all()
    assert (moved[2:] < 0).all() if inertia else (moved[2:] == 0).all()


def test_inertia_adds_up_what_steps_have_in_common_and_cancels_zigzags():
    straight, zigzag = steps_of(downslope.momentum, [1] * 50), steps_of(downslope.momentum, [1, -1] * 25)
    assert straight[-1] == pytest.approx(-0.01 / (1 - 0.9), rel=0.01)
    assert abs(zigzag[-1]) == pytest.approx(0.01 / (1 + 0.9), rel=0.01)


def test_adagrads_shoes_remember_for_ever_and_rmsprops_forget():
    slopes = [100] + [1] * 3000
    adagrad, rmsprop = -steps_of(downslope.adagrad, slopes), -steps_of(downslope.rmsprop, slopes)
    assert (np.diff(adagrad[1:]) < 0).all()  # ever shorter, whether the slope leads home or not
    assert adagrad[-1] < 0.011 * 0.01
    assert rmsprop[1] < 0.11 * 1e-3
    assert rmsprop[-1] == pytest.approx(1e-3, rel=1e-3)  # a full step again


def test_adams_shoes_are_rmsprops_but_for_inertia_and_bias_correction():
    slopes = np.random.default_rng(0).standard_normal(50)
    adam = steps_of(downslope.adam, slopes, beta1=0.0, beta2=0.99, bias_correction=False)
    np.testing.assert_array_equal(adam, steps_of(downslope.rmsprop, slopes))


@pytest.mark.parametrize(("name", "ahead"), [("nesterov", True), ("momentum", False), ("adam", False)])
def test_nesterov_feels_the_slope_where_inertia_alone_leads(name, ahead):
    assert (RULES[name][0].ahead is not None) is ahead


# PyTorch, where the forms agree: velocity with lr inside or outside is one path while lr is constant, and torch's
# Nesterov keeps the point ahead, as the stored look-ahead does

TORCH = {
    "sgd": (downslope.sgd, "SGD", {"lr": 0.05}, {}),
    "momentum": (downslope.momentum, "SGD", {"lr": 0.02}, {"momentum": 0.9}),
    "nesterov": (downslope.nesterov, "SGD", {"lr": 0.02}, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (downslope.adagrad, "Adagrad", {"lr": 0.1, "eps": 1e-6}, {}),
    "rmsprop": (downslope.rmsprop, "RMSprop", {"lr": 0.01}, {"alpha": 0.99}),
    "adam": (downslope.adam, "Adam", {"lr": 0.01}, {"betas": (0.9, 0.999)}),
}
OPTIONS = {
    "plain": ({}, {}),
    "coupled": ({"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "maximize": ({"maximize": True, "weight_decay": 0.1}, {"maximize": True, "weight_decay": 0.1}),
}


def torch_end(name, **settings):
    torch = pytest.importorskip("torch")
    return paths.torch_path(lambda params: getattr(torch.optim, name)(params, **settings), PROBLEM)[-1]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", TORCH)
def test_two_hundred_steps_are_those_of_torch(name, options):
    rule, theirs, shared, their_settings = TORCH[name]
    our_options, their_options = OPTIONS[options]
    found = paths.flat(paths.walked(rule, PROBLEM, **shared, **our_options).params)
    expected = torch_end(theirs, **shared, **their_settings, **their_options)
    scale = max(1, np.abs(expected).max())  # walking up takes the weights away from zero
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUNDS[np.float64] * scale)


def test_decoupled_weight_decay_is_torchs_adamw():
    found = paths.end_of(downslope.adam, PROBLEM, lr=0.01, weight_decay=0.1, decoupled=True)
    expected = torch_end("AdamW", lr=0.01, weight_decay=0.1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUNDS[np.float64])


# Stability on a quadratic: the largest lr * curvature at which the weights shrink


@pytest.mark.parametrize(
    ("rule", "settings", "limit"),
    [
        (downslope.sgd, {}, 2),
        (downslope.momentum, {"mu": 0.9}, 3.8),  # 2 (1 + mu)
        (downslope.momentum, {"mu": 0.0}, 2),
        (downslope.nesterov, {"mu": 0.9}, 3.8 / 2.8),  # 2 (1 + mu) / (1 + 2 mu) = 1.357
    ],
)
@pytest.mark.parametrize("lookahead", ["stored", "explicit"])
def test_stability_limit(rule, settings, limit, lookahead):
    curvature = limit * np.linspace(0.5, 1.5, 1001)
    x = np.ones_like(curvature)
    optimizer = Optimizer(x, rule, lr=1.0, lookahead=lookahead, threads=1, **settings)
    with np.errstate(all="ignore"):  # what diverges may overflow
        for _ in range(1000):
            with optimizer.at_lookahead():
                dx = curvature * x
            optimizer.step(dx)
    shrinks = abs(x) < 1
    # at the limit one factor per step passes -1; an excess of 1e-3 shows within 1000 steps, and the grid is that fine
    assert curvature[shrinks].max() == pytest.approx(limit, rel=5e-3)
    assert shrinks[: np.argmin(shrinks)].sum() == shrinks.sum()  # and below it all do


@pytest.mark.parametrize(
    ("rule", "settings", "floor"),
    [
        (downslope.sgd, {}, 0.026316),
        (downslope.momentum, {"mu": 0.9}, 0.256757),
    ],
)
def test_noise_floor(rule, settings, floor):
    chains, burn_in, counted = 4096, 300, 400
    rng = np.random.default_rng(0)
    x = np.zeros(chains)
    optimizer = Optimizer(x, rule, lr=0.1, threads=1, **settings)
    total = 0.0
    for t in range(burn_in + counted):
        optimizer.step(x + rng.standard_normal(chains))
        total += np.mean(x * x) / 2 if t >= burn_in else 0
    # one mean of 4096 squared normals is off by sqrt(2 / 4096) = 2.2 % (one deviation); successive ones are correlated
    # over at most 2 / (1 - 0.9) = 20 steps, so the 400 are worth 20: 0.5 %. The start has decayed by exp(-15) or more.
    assert total / counted == pytest.approx(floor, rel=4 * 0.005)


# Invariances


def path(rule, scale=1.0, steps=50, **settings):
    x = START.copy()
    optimizer = Optimizer(x, rule, **settings)
    for t in range(1, steps + 1):
        optimizer.step(scale * gradient(x, t))
    return x


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adam"])
@pytest.mark.parametrize("scale", [2.0**-12, 1e-3, 1e3])
def test_per_weight_rules_do_not_see_the_scale_of_the_loss(name, scale):
    rule = RULES[name][0]
    plain, scaled = (path(rule, c, lr=0.05, eps=0) for c in (1.0, scale))
    exact = np.log2(scale) == round(np.log2(scale))
    # a power of two scales without rounding; 1000 makes one more per step
    np.testing.assert_allclose(scaled, plain, rtol=0, atol=0 if exact else BOUNDS[np.float64])
    # with the epsilon in place the paths differ, by less than eps / |g| relative to lr
    away = path(rule, 1e-3, lr=0.05, eps=1e-2)
    assert np.abs(away - path(rule, 1.0, lr=0.05, eps=1e-2)).max() > 1e-3


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_the_others_do(name):
    rule = RULES[name][0]
    assert np.abs(path(rule, 2.0, lr=0.01) - path(rule, lr=0.01)).max() > 0.1
    np.testing.assert_allclose(path(rule, 2.0, lr=0.01), path(rule, lr=0.02), atol=BOUNDS[np.float64], rtol=0)


def rotated_path(rule, rotation, **settings):
    """The path on the rotated loss, seen in the coordinates of the plain one."""
    x = rotation @ START[:6]
    optimizer = Optimizer(x, rule, **settings)
    for t in range(1, 51):
        plain = PROBLEM.curvature[:6] * (rotation.T @ x) + PROBLEM.noise[t - 1, :6]
        optimizer.step(rotation @ plain)
    return rotation.T @ x


@pytest.mark.parametrize(("name", "commutes"), [("sgd", True), ("momentum", True), ("nesterov", True), ("adam", False)])
def test_rotating_the_space(name, commutes):
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    rule = RULES[name][0]
    plain = rotated_path(rule, np.eye(6), lr=0.05)
    rotated = rotated_path(rule, rotation, lr=0.05)
    # a product with a 6 x 6 matrix adds some ten roundings per step
    difference = np.abs(rotated - plain).max()
    assert difference < 2 * BOUNDS[np.float64] if commutes else difference > 0.01


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_without_inertia_it_is_gradient_descent(name):
    np.testing.assert_array_equal(path(RULES[name][0], lr=0.05, mu=0), path(downslope.sgd, lr=0.05))


def test_the_first_step_of_adam_is_the_sign_of_the_gradient():
    g = np.array([3.0, -1e-9, 1e9, -2.0, 1e-30])
    x = np.zeros(5)
    Optimizer(x, downslope.adam, lr=0.125, eps=0).step(g)
    np.testing.assert_allclose(x, -0.125 * np.sign(g), rtol=8 * np.finfo(float).eps)  # six roundings
    simple = np.zeros(5)
    Optimizer(simple, downslope.adam, lr=0.125, eps=0, bias_correction=False).step(g)
    np.testing.assert_allclose(simple, -0.125 * 0.1 / np.sqrt(0.001) * np.sign(g), rtol=1e-14)


def effective_rates(rule):
    x = START.copy()
    optimizer = Optimizer(x, rule, lr=0.1)
    rates = []
    for t in range(1, 101):
        dx = gradient(x, t) / t  # gradients that die down
        before = x.copy()
        optimizer.step(dx)
        rates.append((before - x) / dx)
    return np.array(rates)


def test_the_effective_rate_of_adagrad_never_grows_and_that_of_rmsprop_does():
    rates = effective_rates(downslope.adagrad)
    assert (np.diff(rates, axis=0) <= 1e-9 * rates[:-1]).all()
    assert rates[-1].max() < 0.5 * rates[0].max()
    assert (np.diff(effective_rates(downslope.rmsprop), axis=0) > 0).mean() > 0.5


@pytest.mark.parametrize(("gradient", "stands_still"), [(1.8e19, False), (1.9e19, True)])
@pytest.mark.parametrize("rule", [downslope.adagrad, downslope.rmsprop, downslope.adam], ids=lambda rule: rule.name)
def test_a_square_that_single_precision_cannot_hold_stops_the_weight_for_good(rule, gradient, stands_still):
    x = np.float32([0.0])
    optimizer = Optimizer(x, rule)
    optimizer.step(np.float32([gradient]))
    optimizer.step(np.float32([gradient / 10]))
    assert (x[0] == 0) == stands_still
