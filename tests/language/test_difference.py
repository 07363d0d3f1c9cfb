import itertools

import numpy as np
import pytest

import downslope
from downslope import maximum, minimum, rule, sqrt, where
from downslope.dialects import keras, optax, tf1, torch
from downslope.language.difference import difference
from downslope.language.options import compose
from downslope.rule import Rule
from downslope.rules import RULES
from downslope.targets.arrays import interpret
from downslope.targets.cost import cost

DIALECTS = {"torch": torch, "keras": keras, "tf1": tf1, "optax": optax}
CASES = {f"{rule.name}": rule for rule in RULES} | {
    f"{dialect}.{name}": value
    for dialect, module in DIALECTS.items()
    for name, value in vars(module).items()
    if isinstance(value, Rule) and not compose(value).of_matrices
}
OPTIONS = (
    {},
    {"averaging": True, "maximize": True},
    {"cautious": True},
    {"weight_decay": True},
    {"weight_decay": True, "decoupled": True, "cautious": True},
)


def programs_of(a_rule):
    """The rule with each of its choices and the options that fit it."""
    stored = (False, True) if a_rule.ahead else (False,)
    for choices in itertools.product((False, True), repeat=len(a_rule.flags)):
        flags = dict(zip(a_rule.flags, choices, strict=True))
        for options, ahead in itertools.product(OPTIONS, stored):
            if "weight_decay" not in options or "weight_decay" not in a_rule.hyperparameters:
                yield compose(a_rule, **options, **flags, stored_ahead=ahead)


def inputs_of(program, *, x=1.0, lr=0.1):
    """Arrays in double precision that single precision can hold, and scalars."""
    generator = np.random.default_rng(0)
    arrays = {name: generator.uniform(0.9, 1.1, 50) for name in program.states}
    # averages of the gradient itself, of which a square must stay below the mean square
    first = ("mu", "mg", "grad_avg", "average_gradient", "momentums", "m", "exp_avg")
    arrays |= {name: 0.3 * arrays[name] for name in first if name in arrays}
    arrays |= {"d": lr * arrays["d"]} if "d" in arrays else {}  # a distance between points, of the size of steps
    arrays |= {"x": x * generator.uniform(0.9, 1.1, 50), "dx": generator.standard_normal(50)}
    arrays = {name: array.astype(np.float32).astype(np.float64) for name, array in arrays.items()}
    given = {name: 0.5 if value is None else value for name, value in program.hyperparameters.items()}
    scalars = {**given, "lr": lr, "weight_decay": 0.01, "t": 7, "grad_scale": 1.0}
    scalars |= {f"{name} next": value for name, value in scalars.items()}
    return arrays, {
        **scalars,
        "product": 0.5,
        "mu_product": 0.5,
        "u_product": 0.5,
        "weight": 6,
        "age": 20,
        "total": 2,
        "largest": 0.2,
    }


@pytest.mark.parametrize("case", CASES)
def test_added_to_the_weights_it_gives_the_new_ones(case):
    for program in programs_of(CASES[case]):
        arrays, scalars = inputs_of(program)
        expected = interpret(program, arrays, scalars)
        found = interpret(difference(program), arrays, scalars)
        assert found.keys() == expected.keys()
        found["x"] = arrays["x"] + found["x"]
        for name, value in expected.items():
            # up to 20 roundings of numbers that are at most 10
            np.testing.assert_allclose(found[name], value, rtol=0, atol=20 * 10 * np.finfo(float).eps, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_single_precision_keeps_the_digits_of_a_small_step(case):
    for program in programs_of(CASES[case]):
        arrays, scalars = inputs_of(program, x=1e4, lr=1e-6)
        update = difference(program)
        exact = interpret(update, arrays, scalars)["x"]
        singles = {name: array.astype(np.float32) for name, array in arrays.items()}
        found = interpret(update, singles, scalars)["x"]
        # 20 roundings of 6e-8, and terms that cancel to a tenth; new weights less old ones are wrong by up to 5e-4,
        # where the largest step of any rule here is 2.5
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_it_is_the_new_weights_less_the_old_that_loses_the_digits():
    program = compose(downslope.adam)
    arrays, scalars = inputs_of(program, x=1e4, lr=1e-6)
    exact = interpret(difference(program), arrays, scalars)["x"]
    singles = {name: array.astype(np.float32) for name, array in arrays.items()}
    naive = interpret(program, singles, scalars)["x"] - singles["x"]
    assert np.abs(exact).min() > 1e-9
    assert not naive.any()


@rule
def other_way_round(x, dx, *, lr=0.1):
    return -(lr * dx - x)


@rule
def scaled_up_and_down(x, dx, *, lr=0.1):
    return (8 * x - 8 * lr * dx) / 8


@rule
def times_a_ratio(x, dx, *, lr=0.1, a=0.01, b=0.02):
    return x * ((1 - lr * a) / (1 + lr * b)) * where(lr > 0, 1 - lr * b, 1) - lr * dx


@rule
def decayed_by_a_mask(x, dx, size=1, *, lr=0.1):
    return (1 - lr * size) * x + dx * lr, size


@rule
def kept_between_bounds(x, dx, *, lr=0.1):
    return minimum(maximum(x - lr * dx, -1e5), 1e5)


@rule
def only_downhill(x, dx, *, lr=0.1):
    new = x - lr * dx * abs(dx)
    return where(~((x < new) | (dx < 0)), new, x)


@rule
def step_added(x, dx, *, lr=0.1):
    return lr * dx + (lr * 2 + x)


FOLLOWED = (
    other_way_round,
    scaled_up_and_down,
    times_a_ratio,
    decayed_by_a_mask,
    kept_between_bounds,
    only_downhill,
    step_added,
)


@pytest.mark.parametrize("formula", FOLLOWED)
def test_the_weights_are_followed_through_the_formula(formula):
    program = compose(formula)
    arrays, scalars = inputs_of(program, x=1e4, lr=1e-6)
    doubles = interpret(program, arrays, scalars)["x"] - arrays["x"]
    singles = {name: array.astype(np.float32) for name, array in arrays.items()}
    found = interpret(difference(program), singles, scalars)["x"]
    assert np.abs(doubles).max() < 0.02
    # 2e-12 is what double precision loses at 1e4, 1e-5 what twenty roundings in single precision may
    np.testing.assert_allclose(found, doubles, rtol=0, atol=1e-5 * np.abs(doubles).max() + 4e-12)


@rule
def not_a_sum(x, dx, *, lr=0.1):
    return sqrt(x**2 + lr * dx**2)


@rule
def forgets_where_it_was(x, dx, *, lr=0.1):
    return lr * dx


@rule
def goes_nowhere(x, dx, v=0, *, lr=0.1):
    return x, v + dx


@rule
def twice(x, dx, *, lr=0.1):
    return x + x - lr * dx


@rule
def squared(x, dx, *, lr=0.1):
    return x * x * lr / x


@pytest.mark.parametrize("formula", [*FOLLOWED, not_a_sum, forgets_where_it_was, goes_nowhere, twice, squared])
def test_it_is_right_whatever_the_formula(formula):
    program = compose(formula)
    arrays, scalars = inputs_of(program)
    expected = interpret(program, arrays, scalars)["x"]
    found = interpret(difference(program), arrays, scalars)["x"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(arrays["x"] + found, expected, rtol=0, atol=1e-14)


def test_the_weights_are_not_needed_where_the_step_does_not_depend_on_them():
    for a_rule in (downslope.adam, downslope.lion, optax.radam, downslope.schedule_free_sgd):
        update = difference(compose(a_rule, cautious=True, stored_ahead=a_rule.ahead is not None))
        assert cost(update).read == 4 * (1 + len(update.states))  # the gradient and the states
    assert cost(difference(compose(downslope.adam, averaging=True))).read == 4 * (2 + 3)


def test_a_weight_that_is_not_a_number_does_not_become_one():
    program = difference(compose(downslope.sgd, cautious=True))
    arrays = {"x": np.ones(3), "dx": np.array([np.nan, np.inf, 1.0])}
    np.testing.assert_array_equal(interpret(program, arrays, {"lr": 0.5})["x"], [np.nan, -np.inf, -0.5])
