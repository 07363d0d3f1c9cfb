"""The dialect of Keras 3, beside `keras.optimizers` itself, on whichever backend Keras runs.

On TensorFlow Keras takes a Python float in single precision where it casts one, so its hyperparameters are given as
NumPy's float64.

The 0.96 in Nadam cannot be given so: on TensorFlow it is 2.2e-8 of itself too small. Its t-th power is then off by at
most max(t * 0.96**t) * 2.2e-8 = 2e-7, the coefficient u of the momentum by less than half of that, and the corrected
momentum by less than 9e-8 / 0.53 of |m| + |g|, as 1 - u_product is never below 0.53. Neither |m| nor |g| exceeds
sqrt(t) < 14.2 times the root mean square of the gradients, and the learning rate is at most 0.1, which makes
0.1 * 28.4 * 9e-8 / 0.53 = 5e-7 a step.
"""

import inspect
import os

import numpy as np
import pytest
from coverage_table import assert_all_are_tested
from extreme_gradients import START as EXTREME_START
from extreme_gradients import STEPS as EXTREME_STEPS
from extreme_gradients import assert_extreme_path

import downslope
import paths
from downslope.dialects import keras as dialect
from downslope.language.options import compose

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
keras = pytest.importorskip("keras")
optimizers = keras.optimizers

BOUND_WITH_SINGLE_096 = 5e-7
NAMES = {"lr": "learning_rate", "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
DECAY = {"weight_decay": 0.02}

CASES = {
    "sgd": (dialect.sgd, optimizers.SGD, {}),
    "sgd, decoupled decay": (dialect.sgd, optimizers.SGD, DECAY),
    "momentum": (dialect.sgd_momentum, optimizers.SGD, {"momentum": 0.9}),
    "momentum, decoupled decay": (dialect.sgd_momentum, optimizers.SGD, {"momentum": 0.9, **DECAY}),
    "nesterov": (dialect.sgd_momentum, optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "nesterov, decoupled decay": (dialect.sgd_momentum, optimizers.SGD, {"momentum": 0.9, "nesterov": True, **DECAY}),
    "adagrad": (dialect.adagrad, optimizers.Adagrad, {}),
    "adagrad, initial value": (dialect.adagrad, optimizers.Adagrad, {"initial_accumulator_value": 2.0, "eps": 0.3}),
    "adagrad, decoupled decay": (dialect.adagrad, optimizers.Adagrad, DECAY),
    "rmsprop": (dialect.rmsprop, optimizers.RMSprop, {}),
    "rmsprop, decoupled decay": (dialect.rmsprop, optimizers.RMSprop, {"eps": 0.3, "rho": 0.5, **DECAY}),
    "rmsprop, centered": (dialect.rmsprop, optimizers.RMSprop, {"centered": True}),
    "rmsprop, momentum": (dialect.rmsprop_momentum, optimizers.RMSprop, {"momentum": 0.9}),
    "rmsprop, momentum, centered": (
        dialect.rmsprop_momentum,
        optimizers.RMSprop,
        {"momentum": 0.8, "centered": True, "eps": 0.3},
    ),
    "adam": (dialect.adam, optimizers.Adam, {}),
    "adam (epsilon)": (dialect.adam, optimizers.Adam, {"eps": 0.1, "beta1": 0.8, "beta2": 0.9}),
    "amsgrad": (dialect.adam, optimizers.Adam, {"amsgrad": True}),
    "adamw": (dialect.adam, optimizers.AdamW, {"weight_decay": 0.004}),
    "amsgrad, decoupled decay": (dialect.adam, optimizers.AdamW, {"amsgrad": True, **DECAY}),
    "nadam": (dialect.nadam, optimizers.Nadam, {}),
    "nadam, decoupled decay": (dialect.nadam, optimizers.Nadam, DECAY),
    "adamax": (dialect.adamax, optimizers.Adamax, {}),
    "adamax (epsilon)": (dialect.adamax, optimizers.Adamax, {"eps": 0.3}),
    "adamax, decoupled decay": (dialect.adamax, optimizers.Adamax, DECAY),
    "adadelta": (dialect.adadelta, optimizers.Adadelta, {}),
    "adadelta (epsilon)": (dialect.adadelta, optimizers.Adadelta, {"eps": 1e-2, "rho": 0.8}),
    "adadelta, decoupled decay": (dialect.adadelta, optimizers.Adadelta, DECAY),
    "lion": (dialect.lion, optimizers.Lion, {}),
    "lion, decoupled decay": (dialect.lion, optimizers.Lion, {"beta1": 0.8, **DECAY}),
}


@pytest.fixture
def double_precision():
    """JAX has to be told; the other backends keep the variables in the dtype asked for."""
    if keras.config.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


class Rates(optimizers.schedules.LearningRateSchedule):
    """The learning rates of a path, in double precision."""

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(paths.rates(), "float64"), step)


def path_of(kind, given):
    """The weights after each step of Keras's optimizer with these settings and its own defaults."""
    settings = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    settings |= {NAMES.get(name, name): value for name, value in given.items()}
    floats = {name: value for name, value in settings.items() if type(value) is float}
    # rho is never cast, and NumPy would take a product with Keras's variable for its own to work out.
    doubles = {name: value if name == "rho" else np.float64(value) for name, value in floats.items()}
    flags = {name: value for name, value in given.items() if isinstance(value, bool)}
    variable = keras.Variable(paths.GIVEN.start, dtype="float64")
    optimizer = kind(**{**doubles, **flags, "learning_rate": Rates()})
    optimizer.build([variable])

    def step(gradient):
        optimizer.apply([gradient], [variable])

    if keras.config.backend() == "tensorflow":  # op by op a step takes ten milliseconds
        step = pytest.importorskip("tensorflow").function(step, autograph=False)
    for gradient in paths.GIVEN.noise:
        step(keras.ops.convert_to_tensor(gradient, "float64"))
        yield keras.ops.convert_to_numpy(variable)


@pytest.mark.skipif(keras.config.backend() in ("numpy", "openvino"), reason="this backend cannot train")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps_are_those_of_keras(case):
    rule, kind, given = CASES[case]
    single = rule is dialect.nadam and keras.config.backend() == "tensorflow"
    bound = {"bound": BOUND_WITH_SINGLE_096} if single else {}
    paths.assert_path(path_of(kind, given), rule, given, **bound)


@pytest.mark.skipif(keras.config.backend() in ("numpy", "openvino"), reason="this backend cannot train")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_squares_overflow_and_vanish_where_those_of_keras_do(case):
    rule, kind, given = CASES[case]
    variable = keras.Variable(EXTREME_START, dtype="float32")
    optimizer = kind(**{NAMES.get(name, name): value for name, value in {"lr": 0.1, **given}.items()})
    optimizer.build([variable])

    def path():
        for gradient in EXTREME_STEPS:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
            yield keras.ops.convert_to_numpy(variable)

    assert_extreme_path(path(), rule, given)


@pytest.mark.parametrize("case", CASES)
def test_the_defaults_are_those_of_keras(case):
    rule, kind, _ = CASES[case]
    signature = inspect.signature(kind).parameters
    for name, value in {**rule.hyperparameters, **rule.flags}.items():
        default = signature[NAMES.get(name, name)].default
        if name == "momentum":
            assert value is None
            assert default == 0.0  # none at all: the rule without momentum
        else:
            assert value == default, name


def test_weight_decay_is_off_but_in_adamw():
    defaults = {kind: inspect.signature(kind).parameters["weight_decay"].default for _, kind, _ in CASES.values()}
    assert defaults.pop(optimizers.AdamW) == CASES["adamw"][2]["weight_decay"]
    assert set(defaults.values()) == {None}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("rmsprop_momentum", {"centered": True}),
    ],
)
def test_the_formulas_are_certified(name, flags):
    assert downslope.check_rule(getattr(dialect, name), **flags).passed


def test_a_state_that_no_choice_uses_is_not_kept():
    assert list(compose(dialect.rmsprop).states) == ["velocity"]
    assert list(compose(dialect.adam).states) == ["momentums", "velocity"]
    assert list(compose(dialect.adam, amsgrad=True).states) == ["momentums", "velocity", "velocity_hat"]


def test_the_page_lists_what_is_tested():
    assert_all_are_tested("keras", CASES)
