import math

import numpy as np
import pytest

import downslope
from downslope import rule
from downslope.language.options import compose
from downslope.targets.catapult import catapult


def of(which, **settings):
    numbers = which.complete(settings)
    flags = {name: numbers.pop(name) for name in which.flags}
    return catapult(compose(which, **flags), numbers)


@pytest.mark.parametrize("lr", [1e-4, 0.1, 7.0])
def test_gradient_descent_comes_back_from_up_to_four(lr):
    assert of(downslope.sgd, lr=lr) == pytest.approx(4, rel=1e-9)


def comes_back(which, product, steps=1500):
    """Whether a network of two layers of 60 weights, written out, settles: the rule by hand, in vectors."""
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 60))
    v -= (u @ v) / (u @ u) * u
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    v = v + 1e-4 * u
    lr, mu = product / 2, 0.9  # the curvature is |u|² + |v|² = 2
    speed_u, speed_v = np.zeros(60), np.zeros(60)
    for _ in range(steps):
        ahead_u, ahead_v = (u + mu * speed_u, v + mu * speed_v) if which == "nesterov" else (u, v)
        f = ahead_u @ ahead_v
        speed_u, speed_v = mu * speed_u - lr * f * ahead_v, mu * speed_v - lr * f * ahead_u
        u, v = u + speed_u, v + speed_v
        if not abs(u @ v) < 1e3:
            return False
    return abs(u @ v) < 1e-3 and lr * (u @ u + v @ v) < product


@pytest.mark.parametrize("which", ["momentum", "nesterov"])
def test_a_network_written_out_comes_back_below_and_not_above(which):
    found = of(getattr(downslope, which), mu=0.9)
    limit = getattr(downslope, which).stability(mu=0.9).limit
    assert limit < 0.9 * found
    assert comes_back(which, math.sqrt(limit * found))  # above the limit, where a quadratic would have no way back
    assert not comes_back(which, 1.3 * found)


def test_without_momentum_it_is_gradient_descent():
    assert of(downslope.momentum, mu=0.0) == pytest.approx(4, rel=1e-9)
    assert of(downslope.nesterov, mu=0.0) == pytest.approx(4, rel=1e-9)


def test_a_rule_that_nothing_is_known_of_has_none():
    assert of(downslope.adam) is None  # its limit is one of the preconditioned curvature
    assert of(downslope.lion) is None


def test_a_rule_that_any_quadratic_throws_off_has_none():
    @rule
    def climb(x, dx, *, lr=0.1):
        return x + lr * dx

    assert of(climb) is None
