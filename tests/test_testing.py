"""What `check_rule` certifies, and what it refuses to."""

import numpy as np
import pytest

import downslope
from downslope import rule, scalar, sign, sqrt, where
from downslope.bounds import enclose
from downslope.interpret import interpret
from downslope.rules import __all__ as names
from downslope.testing import RuleCheckError, Target, _check_target, hard_values, targets
from downslope.trace import trace


@pytest.mark.parametrize("name", names)
def test_the_rules_are_certified_on_every_target(name):
    certificate = downslope.check_rule(getattr(downslope, name))
    seen = " ".join(check.name for check in certificate.checks)
    assert certificate.passed
    assert all(target in seen for target in ("numpy float32", "cpu float32", "cpu float64", "jax", "torch"))


def test_a_flag_is_certified_too():
    assert downslope.check_rule(downslope.adam, bias_correction=False).passed


@rule
def everything(x, dx, m=0, z="x", product=scalar(1.0), *, t, lr=0.1, mu=0.9):
    product = product * mu
    m = mu * m + where(t == 1, dx, (1 - mu) * dx)
    z = where(abs(dx) > 1, z - lr * sign(dx), z)
    return x - lr * m / (sqrt(abs(m)) + 1 - product) + 0.5 * (z - x), m, z, product


def test_every_part_of_the_language_is_certified():
    assert downslope.check_rule(everything).passed


def test_a_required_hyperparameter_gets_a_value():
    @rule
    def plain(x, dx, *, lr):
        return x - lr * dx

    assert downslope.check_rule(plain).passed


def test_an_impure_function_is_not_certified():
    calls = iter(range(10**6))

    @rule
    def drifting(x, dx, *, lr=0.1):
        return x - lr * dx * (1 + 0.01 * next(calls))

    with pytest.raises(RuleCheckError, match=r"FAIL .*formula: the new x differs"):
        downslope.check_rule(drifting)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda new: {**new, "x": new["x"] * np.float32(1 + 1e-6)},
        lambda new: {**new, "v": np.where(new["v"] == 0, np.float32(1e-30), new["v"])},
        lambda new: {**new, "m": -new["m"]},
    ],
    ids=["one part in a million", "a tiny value for zero", "the wrong sign"],
)
def test_a_wrong_target_is_caught(spoil):
    program = trace(downslope.adam)
    settings = {name: value for name, value in program.hyperparameters.items() if value is not None}
    right = Target("right", np.float32, interpret)
    wrong = Target("wrong", np.float32, lambda *given: spoil(interpret(*given)))
    assert _check_target(right, program, settings).passed
    assert not _check_target(wrong, program, settings).passed


def test_bounds_are_tight():
    """The interval of a product is two units in the last place wide, not more."""
    program = trace(downslope.sgd)
    x, dx = np.zeros(1000, np.float32), hard_values(1000, np.float32)
    interval = enclose(program, {"x": x, "dx": dx}, {"lr": 0.5}, np.float32)["x"]
    normal = np.abs(dx) > 1e-30
    width = (interval.high - interval.low)[normal] / np.abs(0.5 * dx[normal].astype(np.float64))
    assert width.max() < 4 * np.finfo(np.float32).eps


def test_the_targets_include_both_precisions_of_the_kernel():
    assert {"cpu float32", "cpu float64"} <= {target.name for target in targets()}
