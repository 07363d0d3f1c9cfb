"""The dialect of Optax, beside `optax` itself."""

import inspect

import numpy as np
import pytest
from coverage_table import assert_all_are_tested
from extreme_gradients import START as EXTREME_START
from extreme_gradients import STEPS as EXTREME_STEPS
from extreme_gradients import assert_extreme_path

import downslope
import paths
from downslope.dialects import optax as dialect
from downslope.language.options import compose

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

NAMES = {"lr": "learning_rate", "beta1": "b1", "beta2": "b2", "beta3": "b3"}
MOMENTUM = {"momentum": 0.9}
CENTERED = {"centered": True}

CASES = {
    "sgd": (dialect.sgd, optax.sgd, {}),
    "momentum": (dialect.sgd_momentum, optax.sgd, MOMENTUM),
    "nesterov": (dialect.sgd_momentum, optax.sgd, {**MOMENTUM, "nesterov": True}),
    "adagrad": (dialect.adagrad, optax.adagrad, {}),
    "adagrad, initial value": (dialect.adagrad, optax.adagrad, {"initial_accumulator_value": 0.0, "eps": 0.3}),
    "rmsprop": (dialect.rmsprop, optax.rmsprop, {}),
    "rmsprop, initial value": (dialect.rmsprop, optax.rmsprop, {"initial_scale": 1.0, "eps": 0.3}),
    "rmsprop, epsilon outside": (dialect.rmsprop, optax.rmsprop, {"eps_in_sqrt": False, "eps": 0.3}),
    "rmsprop, bias correction": (dialect.rmsprop, optax.rmsprop, {"bias_correction": True, "decay": 0.99}),
    "rmsprop, centered": (dialect.rmsprop, optax.rmsprop, CENTERED),
    "rmsprop, centered, epsilon outside": (
        dialect.rmsprop,
        optax.rmsprop,
        {**CENTERED, "eps_in_sqrt": False, "eps": 0.3},
    ),
    # An initial value, as otherwise the first corrected variance is g**2 - g**2: nothing but rounding.
    "rmsprop, centered, bias correction": (
        dialect.rmsprop,
        optax.rmsprop,
        {**CENTERED, "bias_correction": True, "initial_scale": 0.5},
    ),
    "rmsprop, momentum": (dialect.rmsprop_momentum, optax.rmsprop, MOMENTUM),
    "rmsprop, momentum, centered": (dialect.rmsprop_momentum, optax.rmsprop, {**MOMENTUM, **CENTERED}),
    "rmsprop, nesterov": (dialect.rmsprop_momentum, optax.rmsprop, {**MOMENTUM, "nesterov": True}),
    "rmsprop, nesterov, centered, bias correction, epsilon outside": (
        dialect.rmsprop_momentum,
        optax.rmsprop,
        {
            **MOMENTUM,
            **CENTERED,
            "nesterov": True,
            "bias_correction": True,
            "eps_in_sqrt": False,
            "initial_scale": 0.5,
            "eps": 0.3,
        },
    ),
    "adam": (dialect.adam, optax.adam, {}),
    "adam (epsilons)": (dialect.adam, optax.adam, {"eps": 0.1, "eps_root": 0.3, "beta1": 0.8, "beta2": 0.9}),
    "nadam": (dialect.nadam, optax.nadam, {}),
    "nadam (epsilons)": (dialect.nadam, optax.nadam, {"eps": 0.1, "eps_root": 0.3, "beta1": 0.8}),
    "amsgrad": (dialect.amsgrad, optax.amsgrad, {}),
    "amsgrad, uncorrected": (
        dialect.amsgrad,
        optax.amsgrad,
        {"bias_correction_mu": False, "bias_correction_nu": False, "eps_root": 0.3},
    ),
    "amsgrad, nu uncorrected": (dialect.amsgrad, optax.amsgrad, {"bias_correction_nu": False}),
    "adamw": (dialect.adam, optax.adamw, {"weight_decay": 1e-4}),
    "adamax, decoupled decay": (dialect.adamax, optax.adamaxw, {"weight_decay": 0.02}),
    "nadam, decoupled decay": (dialect.nadam, optax.nadamw, {"weight_decay": 0.02}),
    "adamax": (dialect.adamax, optax.adamax, {}),
    "adamax (epsilon)": (dialect.adamax, optax.adamax, {"eps": 0.3}),
    "adadelta": (dialect.adadelta, optax.adadelta, {}),
    "adadelta, coupled decay": (
        dialect.adadelta,
        optax.adadelta,
        {"eps": 1e-2, "rho": 0.8, "weight_decay": 0.02},
    ),
    "radam": (dialect.radam, optax.radam, {}),
    "radam, nesterov": (dialect.radam, optax.radam, {"nesterov": True, "eps_root": 0.3, "threshold": 10.0}),
    "lion": (dialect.lion, optax.lion, {"weight_decay": 0.0}),
    "lion, decoupled decay": (dialect.lion, optax.lion, {"weight_decay": 1e-3}),
    "adabelief": (dialect.adabelief, optax.adabelief, {}),
    "adabelief, nesterov": (dialect.adabelief, optax.adabelief, {"nesterov": True, "eps": 0.1, "eps_root": 1e-2}),
    "yogi": (dialect.yogi, optax.yogi, {}),
    "yogi (short memory)": (dialect.yogi, optax.yogi, {"beta2": 0.8, "eps": 0.3}),
    "ademamix": (dialect.ademamix, optax.contrib.ademamix, {}),
    "ademamix, decoupled decay": (
        dialect.ademamix,
        optax.contrib.ademamix,
        {"beta3": 0.99, "alpha": 2.0, "eps_root": 0.3, "weight_decay": 0.02},
    ),
    "adopt": (dialect.adopt, optax.contrib.adopt, {}),
    "adopt, nesterov": (dialect.adopt, optax.contrib.adopt, {"nesterov": True, "beta2": 0.9}),
    "adan": (dialect.adan, optax.adan, {}),
    "adan, decoupled decay": (dialect.adan, optax.adan, {"beta2": 0.8, "eps_root": 0.3, "weight_decay": 0.02}),
    "adopt, unclipped": (dialect.adopt, optax.contrib.adopt, {"use_clipping": False, "eps": 0.1}),
}


@pytest.fixture(scope="module")
def optax_paths():
    """All in one program, which compiles in half the time."""
    made = [
        kind(paths.schedule(), **{NAMES.get(name, name): value for name, value in given.items()})
        for _, kind, given in CASES.values()
    ]
    return dict(zip(CASES, paths.optax_paths(made, paths.GIVEN), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps_are_those_of_optax(case, optax_paths):
    rule, _, given = CASES[case]
    paths.assert_path(optax_paths[case], rule, given, decoupled=rule is not dialect.adadelta)


# Centred and corrected, the first variance of large gradients is g**2 - g**2: nothing but rounding.
@pytest.mark.parametrize("case", [case for case in CASES if "centered, bias correction" not in case])
def test_squares_overflow_and_vanish_where_those_of_optax_do(case):
    rule, kind, given = CASES[case]
    optimizer = kind(0.1, **{NAMES.get(name, name): value for name, value in given.items()})

    def path():
        x = jax.numpy.asarray(EXTREME_START)
        state = optimizer.init(x)
        for gradient in EXTREME_STEPS:
            updates, state = optimizer.update(jax.numpy.asarray(gradient), state, x)
            x = optax.apply_updates(x, updates)
            yield np.asarray(x)

    assert_extreme_path(path(), rule, given, decoupled=rule is not dialect.adadelta)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("case", [case for case, (_, _, given) in CASES.items() if "weight_decay" in given])
def test_infinite_weights_stay_where_optax_leaves_the_decay_out(case, decay):
    rule, kind, given = CASES[case]
    x, gradient = np.float32([np.inf, -np.inf, 1.0]), np.float32([0.0, 0.0, 0.5])
    given = {**given, "weight_decay": decay}
    optimizer = kind(0.1, **{NAMES.get(name, name): value for name, value in given.items()})
    weights = jax.numpy.asarray(x)
    updates, _ = optimizer.update(jax.numpy.asarray(gradient), optimizer.init(weights), weights)
    decoupled = rule is not dialect.adadelta
    downslope.Optimizer(x, rule, lr=0.1, decoupled=decoupled, **given).step(gradient)
    np.testing.assert_allclose(x, optax.apply_updates(weights, updates), rtol=1e-5)
    assert np.isfinite(x[2])


@pytest.mark.parametrize("case", CASES)
def test_the_defaults_are_those_of_optax(case):
    rule, kind, _ = CASES[case]
    signature = inspect.signature(kind).parameters
    for name, value in {**rule.hyperparameters, **rule.flags}.items():
        default = signature[NAMES.get(name, name)].default
        if name in ("lr", "momentum"):
            assert value is None
            assert default in (None, inspect.Parameter.empty)
        else:
            assert value == default, name


def test_weight_decay_has_the_default_that_is_documented():
    defaults = {name: inspect.signature(getattr(optax, name)).parameters for name in ("adamw", "nadamw", "lion")}
    assert {name: p["weight_decay"].default for name, p in defaults.items()} == {
        "adamw": 1e-4,
        "nadamw": 1e-4,
        "lion": 1e-3,
    }
    assert inspect.signature(optax.adadelta).parameters["weight_decay"].default == 0


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("adabelief", {"nesterov": True}),
        ("adopt", {"nesterov": True}),
    ],
)
def test_the_formulas_are_certified(name, flags):
    assert downslope.check_rule(getattr(dialect, name), **flags).passed


def test_a_state_that_no_choice_uses_is_not_kept():
    assert list(compose(dialect.rmsprop).states) == ["nu"]
    assert list(compose(dialect.rmsprop, centered=True).states) == ["nu", "mu"]


def test_the_page_lists_what_is_tested():
    assert_all_are_tested("optax", CASES)
