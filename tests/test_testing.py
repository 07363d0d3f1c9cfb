"""What `check_rule` certifies, and what it refuses to."""

import numpy as np
import pytest

import downslope
from downslope import exp, log, rule, scalar, sign, sqrt, tanh, where
from downslope.installed import Target, targets
from downslope.language.options import compose
from downslope.language.program import in_order
from downslope.rules import __all__ as names
from downslope.targets.arrays import compute, interpret, interpret_body, interpret_scalars
from downslope.targets.enclose import enclose, enclose_scalars
from downslope.targets.intervals import Precision
from downslope.testing import RuleCheckError, check_target, hard_values


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
    program = compose(downslope.adam)
    settings = {name: value for name, value in program.hyperparameters.items() if value is not None}
    right = Target("right", np.float32, interpret)
    wrong = Target("wrong", np.float32, lambda *given: spoil(interpret(*given)))
    assert check_target(right, program, settings).passed
    assert not check_target(wrong, program, settings).passed


@pytest.mark.parametrize("which", ["x", "r", "c"])
def test_a_wrong_target_is_caught_beside_states_by_rows_and_columns(which):
    program = compose(downslope.adafactor)

    def step(*given):
        new = interpret(*given)
        spoilt = new[which].copy()
        spoilt.flat[-1] += 1
        return {**new, which: spoilt}

    check = check_target(Target("wrong", np.float32, step), program, downslope.adafactor.complete({}))
    assert not check.passed
    assert f"the new {which} are off" in check.seen


def test_bounds_are_tight():
    """The interval of a product is two units in the last place wide, not more."""
    program = compose(downslope.sgd)
    x, dx = np.zeros(1000, np.float32), hard_values(1000, np.float32)
    interval = enclose(program, {"x": x, "dx": dx}, {"lr": 0.5}, np.float32)["x"]
    normal = np.abs(dx) > 1e-30
    width = (interval.high - interval.low)[normal] / np.abs(0.5 * dx[normal].astype(np.float64))
    assert width.max() < 4 * np.finfo(np.float32).eps


def test_near_zero_a_function_may_be_off_by_as_many_denormals_as_units_elsewhere():
    value = np.array(4 * 5e-324)  # erf of it is 4.51 of them, for which two libraries have 4 and 5
    assert 5 * 5e-324 in Precision.of(np.float64).widen(value, value, 4.0)
    assert 5 * 5e-324 not in Precision.of(np.float64).widen(value, value)


def test_the_targets_include_both_precisions_of_the_kernel():
    assert {"cpu float32", "cpu float64"} <= {target.name for target in targets()}


# Scalars: mathematical libraries differ in the last place, and a difference of two of their results shows it.


@rule
def waning(x, dx, *, t, lr=0.1, beta=0.9999):
    return x - lr * (1 - exp(log(beta) / t)) * dx


@rule
def rooted(x, dx, *, t, lr=0.1, beta=0.9999):
    return x - lr * (1 - beta ** (1 / t)) * dx


@rule
def saturating(x, dx, *, lr=0.1, width=20.0):
    return x - lr * dx / (1.5 - tanh(width))


@rule
def remembered(x, dx, total=scalar(0.0), *, t, lr=0.1, beta=0.9999):
    total = total + (1 - exp(log(beta) / t))
    return x - lr * dx / (1 + total), total


@rule
def alternating(x, dx, *, t, lr=0.1, turn=-0.9):
    return x - lr * turn**t * dx


@pytest.mark.parametrize("a_rule", [waning, rooted, saturating, remembered, alternating], ids=lambda r: r.name)
def test_what_libraries_may_disagree_on_is_no_fault(a_rule):
    assert downslope.check_rule(a_rule).passed


def target_with(dtype, spoil):
    """A target whose coefficients are those of the program, spoilt."""

    def step(program, arrays, scalars):
        values = {e: spoil(e, float(v)) for e, v in interpret_scalars(program, scalars).items() if e.op != "constant"}
        constants = {e: v for e, v in interpret_scalars(program, scalars).items() if e.op == "constant"}
        return interpret_body(program, arrays, {**constants, **values}, np)

    return Target("spoilt", dtype, step)


def other_library(ulps):
    """A target whose exp, log, tanh and powers are that many units in the last place from NumPy's."""

    def step(program, arrays, scalars):
        values = {}
        for e in in_order([*program.outputs.values(), *program.scalar_outputs.values()]):
            if not e.from_arrays:
                args = [values[arg] for arg in e.args]
                value = e.value if e.op == "constant" else scalars[e.value] if e.op == "input" else None
                value = compute(e.op, args) if value is None else np.float64(value)
                values[e] = value + ulps * np.spacing(value) if e.op in ("exp", "log", "tanh", "pow") else value
        return interpret_body(program, arrays, values, np)

    return Target("another library", np.float64, step)


@pytest.mark.parametrize("a_rule", [waning, rooted, saturating, remembered, alternating], ids=lambda r: r.name)
def test_another_library_is_inside_the_bounds_and_a_sloppy_one_is_not(a_rule):
    program = compose(a_rule)
    for ulps in (1, -1):
        assert check_target(other_library(ulps), program, settings_of(program)).passed
        if a_rule in (waning, rooted):
            assert not check_target(other_library(20 * ulps), program, settings_of(program)).passed


def settings_of(program):
    return {name: value for name, value in program.hyperparameters.items() if value is not None}


def off_by(relative):
    return lambda e, v: v * (1 + relative) if not e.is_condition else v != 0


def in_single_precision(e, v):
    return v != 0 if e.is_condition else float(np.float32(v))


@pytest.mark.parametrize("a_rule", [waning, rooted], ids=lambda r: r.name)
def test_scalar_intervals_are_tight(a_rule):
    """One unit in the last place of an exponential near 1 is 1e-12 of what is left of 1: ten times that is found."""
    program = compose(a_rule)
    assert check_target(target_with(np.float64, off_by(0)), program, settings_of(program)).passed
    for wrong in (off_by(3e-11), off_by(-3e-11), in_single_precision):
        assert not check_target(target_with(np.float64, wrong), program, settings_of(program)).passed


@pytest.mark.parametrize("name", ["adam", "adamax", "nadam", "amsgrad", "adamw", "radam", "adabelief", "adan"])
def test_coefficients_of_single_precision_are_caught(name):
    program = compose(getattr(downslope, name), **({"bias_correction": True} if name == "amsgrad" else {}))
    settings = settings_of(program)
    assert check_target(target_with(np.float64, off_by(0)), program, settings).passed
    assert not check_target(target_with(np.float64, in_single_precision), program, settings).passed
    assert not check_target(target_with(np.float64, off_by(1e-11)), program, settings).passed


def test_a_power_subtracted_in_single_precision_is_caught():
    program = compose(downslope.adam)

    def spoil(e, v):
        if e.op == "sub" and e.args[1].op == "pow":  # 1 - beta**t
            return float(np.float32(1) - np.float32(1 - v))
        return v

    assert not check_target(target_with(np.float32, spoil), program, settings_of(program)).passed


def test_numbers_without_functions_are_points():
    """Sums, products, quotients and roots in double precision are the same everywhere."""

    @rule
    def plain(x, dx, *, t, lr=0.1, beta=0.9):
        return x - lr * where((t > 2) & (beta < 1), sqrt(t / 3), (1 - beta) ** 3) * dx

    program = compose(plain)
    for t in (1.0, 5.0):
        inside = enclose_scalars(program, {"t": t, "lr": 0.1, "beta": 0.9})
        assert all(interval.low == interval.high for interval in inside.values())
        expected = 0.1 * (np.sqrt(t / 3) if t > 2 else (1 - 0.9) * (1 - 0.9) * (1 - 0.9))
        assert expected in [float(interval.low) for interval in inside.values()]
