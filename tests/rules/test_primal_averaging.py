"""Generalised primal averaging: the distance `d = z - x` in place of `z`, and what it contains."""

import numpy as np
import papers
import pytest

import downslope
import paths
from downslope import Optimizer
from paths import STEPS

PROBLEM = paths.quadratic(40, 11, spread=3, away=3)
RATES = paths.rates(0.02)

CASES = {
    "as published": {},
    "decay": {"mu_x": 0.9, "mu_y": 0.2, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.3},
    "gradients where the steps are": {"mu_x": 0.95, "mu_y": 0.0},
    "gradients at the average": {"mu_x": 0.5, "mu_y": 1.0},
    "schedule-free": {"beta1": 0.5, "schedule_free": True},
}

# Fewer than 30 roundings a step, of quantities below 8, which the quadratic does not amplify; all one way
BOUND = STEPS * 30 * 8 * np.finfo(np.float64).eps / 2


def rate_of(t):
    return RATES[t - 1]


@pytest.mark.parametrize("case", CASES)
def test_the_ordinary_loop_trains_at_y_and_the_weights_are_x(case):
    points, weights = papers.walk(papers.gpa_adamw, PROBLEM.start, PROBLEM.gradient, RATES, **CASES[case])
    params = PROBLEM.start.copy()
    optimizer = Optimizer(params, downslope.gpa_adamw, lr=rate_of, threads=1, **CASES[case])
    for t in range(1, STEPS + 1):
        np.testing.assert_allclose(params, points[t - 1], rtol=0, atol=BOUND)
        optimizer.step(PROBLEM.gradient(params, t))
    assert (np.abs(points[-1] - weights[-1]).max() > 1e-3) == (CASES[case].get("mu_y") != 1)
    with optimizer.at_weights():
        np.testing.assert_allclose(params, weights[-1], rtol=0, atol=BOUND)
    assert np.abs(weights[-1] - PROBLEM.start).max() > 0.1  # it did go somewhere


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_schedule_free_adamw_is_a_mode_of_it(decay):
    settings = {"lr": rate_of, "weight_decay": decay, "beta2": 0.95}
    one = paths.end_of(downslope.gpa_adamw, PROBLEM, beta1=0.0, mu_y=0.9, schedule_free=True, **settings)
    other = paths.end_of(downslope.schedule_free_adamw, PROBLEM, beta1=0.9, weight_by_largest=True, **settings)
    np.testing.assert_allclose(one, other, rtol=0, atol=BOUND)


def test_without_memory_of_the_average_it_is_adamw():
    settings = {"lr": rate_of, "weight_decay": 0.1}
    one = paths.end_of(downslope.gpa_adamw, PROBLEM, mu_x=0.0, **settings)
    np.testing.assert_allclose(one, paths.end_of(downslope.adamw, PROBLEM, **settings), rtol=0, atol=BOUND)


def test_the_mode_is_certified():
    assert downslope.check_rule(downslope.gpa_adamw, schedule_free=True).passed
