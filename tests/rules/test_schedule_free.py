"""The schedule-free rules: the distance `d = z - x` in place of `z`, and the look-ahead that it makes of `y`."""

import math

import numpy as np
import papers
import pytest

import downslope
import paths
from downslope import Optimizer
from downslope.language.options import compose
from downslope.rules import SCHEDULE_FREE
from paths import STEPS

PROBLEM = paths.quadratic(40, 11, spread=3, away=3)
START, gradient = PROBLEM.start, PROBLEM.gradient

CASES = {
    "sgd": (downslope.schedule_free_sgd, papers.schedule_free_sgd, 0.3, {}),
    "sgd, warmup": (downslope.schedule_free_sgd, papers.schedule_free_sgd, 0.3, {"beta": 0.6, "warmup_steps": 30}),
    "sgd, no interpolation": (downslope.schedule_free_sgd, papers.schedule_free_sgd, 0.3, {"beta": 0.0}),
    "sgd, decay": (downslope.schedule_free_sgd, papers.schedule_free_sgd, 0.3, {"weight_decay": 0.2}),
    "adamw": (downslope.schedule_free_adamw, papers.schedule_free_adamw, 0.02, {}),
    "adamw, warmup, decay": (
        downslope.schedule_free_adamw,
        papers.schedule_free_adamw,
        0.02,
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.3, "warmup_steps": 50},
    ),
    "sgd, largest": (downslope.schedule_free_sgd, papers.schedule_free_sgd, 0.3, {"weight_by_largest": True}),
    "adamw, largest, warmup": (
        downslope.schedule_free_adamw,
        papers.schedule_free_adamw,
        0.02,
        {"weight_by_largest": True, "warmup_steps": 50},
    ),
}

# Fewer than 30 roundings a step, of quantities below 8, which the quadratic does not amplify; all one way
BOUND = STEPS * 30 * 8 * np.finfo(np.float64).eps / 2


def rate(base):
    return lambda t: base * (1 + (t % 7) / 7)  # the squared rates weigh the average


def of_the_paper(case, steps=STEPS):
    _, paper, base, settings = CASES[case]
    return papers.walk(paper, START, gradient, [rate(base)(t) for t in range(1, steps + 1)], **settings)


@pytest.mark.parametrize("case", CASES)
def test_the_ordinary_loop_trains_at_y_and_the_weights_are_x(case):
    rule, _, base, settings = CASES[case]
    points, weights = of_the_paper(case)
    params = START.copy()
    optimizer = Optimizer(params, rule, lr=rate(base), threads=1, **settings)
    for t in range(1, STEPS + 1):
        np.testing.assert_allclose(params, points[t - 1], rtol=0, atol=BOUND)
        optimizer.step(gradient(params, t))
    assert np.abs(points[-1] - weights[-1]).max() > 1e-3  # they are two
    np.testing.assert_allclose(params, points[-1], rtol=0, atol=BOUND)
    with optimizer.at_weights():
        np.testing.assert_allclose(params, weights[-1], rtol=0, atol=BOUND)


@pytest.mark.parametrize("case", [case for case in CASES if case != "sgd, decay"])  # an option, not of the formula
def test_the_formula_called_directly_is_that_of_the_paper(case):
    rule, _, base, settings = CASES[case]
    points, weights = of_the_paper(case)
    x, states = START, {s: rule.scalar_states.get(s, np.zeros_like(START)) for s in rule.signature_states}
    name = "beta" if "beta" in rule.hyperparameters else "beta1"
    beta = {name: settings.get(name, rule.hyperparameters[name])}
    for t in range(1, STEPS + 1):
        y = x + rule.ahead(states["d"], **beta)
        np.testing.assert_allclose(y, points[t - 1], rtol=0, atol=BOUND)
        x, *new = rule(x, gradient(y, t), *states.values(), lr=rate(base)(t), t=t, **settings)
        states = dict(zip(states, new, strict=True))
    np.testing.assert_allclose(x, weights[-1], rtol=0, atol=BOUND)


def root_mean_square(array):
    return np.sqrt(np.mean(np.square(array, dtype=np.float64)))


@pytest.mark.parametrize("case", ["sgd", "adamw"])
@pytest.mark.parametrize("lookahead", ["stored", "explicit"])
def test_two_thousand_float32_steps_lose_no_more_than_the_papers_own_form(case, lookahead):
    rule, paper, base, _ = CASES[case]
    rng = np.random.default_rng(0)
    steps, count = 2000, 1000
    start, minimum, noise = (
        a.astype(np.float32) for a in np.split(3 * rng.standard_normal((2 + steps, count)), [1, 2])
    )
    curvature = rng.uniform(0.1, 1, count).astype(np.float32)

    def slope(y, t):
        return curvature.astype(y.dtype) * (y - minimum[0].astype(y.dtype)) + noise[t - 1].astype(y.dtype)

    rates = [rate(base)(t) for t in range(1, steps + 1)]
    exact = papers.walk(paper, start[0].astype(np.float64), slope, rates)[1][-1]
    single = papers.walk(paper, start[0], slope, rates)[1][-1]
    assert single.dtype == np.float32
    params = start[0].copy()
    optimizer = Optimizer(params, rule, lr=rate(base), lookahead=lookahead, threads=1)
    for t in range(1, steps + 1):
        with optimizer.at_lookahead():
            dx = slope(params, t)
        optimizer.step(dx)
    assert np.abs(exact - start[0]).max() > 1
    with optimizer.at_weights():
        # root mean squares of 1,000 errors, of unequal size: each is good to some 5 %
        assert root_mean_square(params - exact) < 1.1 * root_mean_square(single - exact)
        np.testing.assert_allclose(params, exact, rtol=0, atol=5e-6 * np.abs(exact).max())


def test_the_average_is_weighted_by_squared_rates():
    # With gradients that do not depend on the point, z is known: x is the weighted mean of z_1 ... z_n
    rates = np.array([0.5, 1.0, 0.25, 2.0, 1.0])
    x = np.zeros(1)
    optimizer = Optimizer(x, downslope.schedule_free_sgd, lr=lambda t: float(rates[min(t, 5) - 1]), threads=1)
    for _ in rates:
        optimizer.step(np.array([-1.0]))
    with optimizer.at_weights():
        np.testing.assert_allclose(x, np.average(np.cumsum(rates), weights=rates**2), rtol=1e-14)


def test_a_rate_of_zero_has_no_weight():
    x = np.ones(2)
    optimizer = Optimizer(x, downslope.schedule_free_sgd, lr=lambda t: 0.0 if t <= 2 else 0.5, threads=1)
    for _ in range(2):
        optimizer.step(np.ones(2))
    np.testing.assert_array_equal(x, 1)
    optimizer.step(np.ones(2))
    np.testing.assert_allclose(x, 0.5, rtol=1e-15)


@pytest.mark.parametrize("rule", SCHEDULE_FREE, ids=lambda rule: rule.name)
def test_the_first_step_takes_all_three_sequences_to_the_same_point(rule):
    x = np.zeros(3)
    optimizer = Optimizer(x, rule, lr=0.25, threads=1)
    optimizer.step(np.array([1.0, -1.0, 1.0]))
    np.testing.assert_allclose(x, [-0.25, 0.25, -0.25], rtol=1e-7)  # c_1 is 1; Adam's first step is lr, but for eps
    np.testing.assert_array_equal(optimizer.state["d"]["0"], 0)


def test_the_average_has_less_noise_than_the_steps():
    # On a quadratic with unit noise, SGD hovers at a variance of lr / (2 - lr) = 1/3 for ever
    chains, steps = 2000, 400
    rng = np.random.default_rng(0)
    x = np.zeros(chains)
    optimizer = Optimizer(x, downslope.schedule_free_sgd, lr=0.5, threads=1)
    for _ in range(steps):
        optimizer.step(x + rng.standard_normal(chains))
    with optimizer.at_weights():
        assert np.mean(x * x) < 0.1 / 3


def test_saved_and_loaded_it_goes_on(tmp_path):
    runs = []
    for interrupted in (False, True):
        x = START.copy()
        optimizer = Optimizer(x, downslope.schedule_free_adamw, lr=0.02, warmup_steps=5, threads=1)
        for t in range(1, 21):
            if interrupted and t == 11:
                optimizer.save(tmp_path / "state.safetensors")
                x = np.zeros_like(START)
                optimizer = Optimizer(x, downslope.schedule_free_adamw, lr=0.02, warmup_steps=5, threads=1)
                optimizer.load(tmp_path / "state.safetensors")
            optimizer.step(gradient(x, t))
        runs.append(x)
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("rule", SCHEDULE_FREE, ids=lambda rule: rule.name)
def test_it_finds_the_minimum_without_a_schedule(rule):
    x = START.copy()
    optimizer = Optimizer(x, rule, lr=1.0 if rule is downslope.schedule_free_sgd else 0.1, threads=1)
    for _ in range(3000):
        optimizer.step(PROBLEM.curvature * (x - PROBLEM.minimum))
    with optimizer.at_weights():
        assert np.abs(x - PROBLEM.minimum).max() < 0.02


def test_the_average_may_be_weighted_by_the_largest_rate_so_far():
    rates = np.array([0.5, 1.0, 0.25, 2.0, 1.0])
    x = np.zeros(1)
    rate_of = lambda t: float(rates[min(t, 5) - 1])  # noqa: E731
    optimizer = Optimizer(x, downslope.schedule_free_sgd, lr=rate_of, weight_by_largest=True, threads=1)
    for _ in rates:
        optimizer.step(np.array([-1.0]))
    with optimizer.at_weights():
        largest = [0.5, 1.0, 1.0, 2.0, 2.0]
        np.testing.assert_allclose(x, np.average(np.cumsum(rates), weights=np.square(largest)), rtol=1e-14)


@pytest.mark.parametrize("rule", SCHEDULE_FREE, ids=lambda rule: rule.name)
def test_the_largest_rate_is_a_state_only_where_it_is_asked_for(rule, tmp_path):
    assert list(compose(rule).scalar_states) == ["total"]
    assert list(compose(rule, weight_by_largest=True).scalar_states) == ["total", "largest"]
    assert downslope.check_rule(rule, weight_by_largest=True).passed
    runs = []
    for interrupted in (False, True):
        x = START.copy()
        given = {"lr": lambda t: 0.1 / t, "weight_by_largest": True, "threads": 1}
        optimizer = Optimizer(x, rule, **given)
        for t in range(1, 11):
            if interrupted and t == 6:
                optimizer.save(tmp_path / "state.safetensors")
                x = np.zeros_like(START)
                optimizer = Optimizer(x, rule, **given)
                optimizer.load(tmp_path / "state.safetensors")
            optimizer.step(gradient(x, t))
        runs.append(x)
    np.testing.assert_array_equal(*runs)


# Other implementations.


def of_the_authors(theirs, rates=None, **settings):
    """The weights after all steps of the package `schedulefree`, perhaps with a rate given to each step."""
    schedulefree = pytest.importorskip("schedulefree")
    return paths.torch_path(lambda params: getattr(schedulefree, theirs)(params, **settings), PROBLEM, rates)[-1]


@pytest.mark.parametrize("weight_by_largest", [False, True])
@pytest.mark.parametrize(
    ("rule", "theirs", "ours", "their_settings"),
    [
        (
            downslope.schedule_free_sgd,
            "SGDScheduleFree",
            {"lr": 0.3, "beta": 0.8, "warmup_steps": 20, "weight_decay": 0.1},
            {"lr": 0.3, "momentum": 0.8, "warmup_steps": 20, "weight_decay": 0.1},
        ),
        (
            downslope.schedule_free_adamw,
            "AdamWScheduleFree",
            {"lr": 0.02, "beta1": 0.8, "warmup_steps": 20, "weight_decay": 0.1},
            {"lr": 0.02, "betas": (0.8, 0.999), "warmup_steps": 20, "weight_decay": 0.1},
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_two_hundred_steps_are_those_of_the_authors_code(rule, theirs, ours, their_settings, weight_by_largest):
    """Under a warm-up and then a constant rate, which never falls, both ways to weigh are the authors'."""
    mine = paths.end_of(rule, PROBLEM, **ours, weight_by_largest=weight_by_largest)
    np.testing.assert_allclose(mine, of_the_authors(theirs, **their_settings), rtol=0, atol=BOUND)


FALLING = {
    "linear": lambda t: 1 - (t - 1) / STEPS,
    "cosine": lambda t: (1 + math.cos(math.pi * t / STEPS)) / 2,
    "cycles": lambda t: 1 - 0.9 * (t % 50) / 50,
    "to zero": lambda t: 1.0 if t < 100 else 0.0,
}


@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("schedule", FALLING)
@pytest.mark.parametrize(
    ("rule", "theirs", "base"),
    [
        (downslope.schedule_free_sgd, "SGDScheduleFree", 0.3),
        (downslope.schedule_free_adamw, "AdamWScheduleFree", 0.02),
    ],
    ids=["sgd", "adamw"],
)
def test_under_a_falling_rate_the_authors_code_weighs_by_the_largest(rule, theirs, base, schedule, warmup):
    rate_of = lambda t: base * FALLING[schedule](t)  # noqa: E731
    expected = of_the_authors(theirs, [rate_of(t) for t in range(1, STEPS + 1)], lr=base, warmup_steps=warmup)
    largest = paths.end_of(rule, PROBLEM, lr=rate_of, warmup_steps=warmup, weight_by_largest=True)
    np.testing.assert_allclose(largest, expected, rtol=0, atol=BOUND)
    paper = paths.end_of(rule, PROBLEM, lr=rate_of, warmup_steps=warmup)
    assert np.abs(paper - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [(downslope.schedule_free_sgd, {}), (downslope.schedule_free_adamw, {"weight_decay": 0.0})],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_steps_are_those_of_optax(rule, theirs):
    contrib = pytest.importorskip("optax.contrib")
    transformation = getattr(contrib, rule.name)(learning_rate=0.02, **theirs)
    [expected] = paths.optax_paths([transformation], PROBLEM, weights=contrib.schedule_free_eval_params)
    np.testing.assert_allclose(paths.end_of(rule, PROBLEM, lr=0.02), expected[-1], rtol=0, atol=BOUND)
