"""The dialect of TensorFlow 1, beside `tf.compat.v1.train` itself.

TensorFlow takes a Python float in single precision, so its hyperparameters are given as NumPy's float64; Adam's running
powers of beta then are in double precision too.
"""

import inspect

import numpy as np
import pytest
from coverage_table import assert_all_are_tested
from extreme_gradients import START as EXTREME_START
from extreme_gradients import STEPS as EXTREME_STEPS
from extreme_gradients import assert_extreme_path

import downslope
import paths
from downslope.dialects import tf1 as dialect
from downslope.language.options import compose

tf = pytest.importorskip("tensorflow")
train = tf.compat.v1.train

NAMES = {"lr": "learning_rate", "eps": "epsilon", "nesterov": "use_nesterov"}

CASES = {
    "sgd": (dialect.sgd, train.GradientDescentOptimizer, {}),
    "momentum": (dialect.sgd_momentum, train.MomentumOptimizer, {"momentum": 0.9}),
    "nesterov": (dialect.sgd_momentum, train.MomentumOptimizer, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (dialect.adagrad, train.AdagradOptimizer, {}),
    "adagrad, initial value": (dialect.adagrad, train.AdagradOptimizer, {"initial_accumulator_value": 2.0}),
    "rmsprop": (dialect.rmsprop, train.RMSPropOptimizer, {}),
    "rmsprop (epsilon)": (dialect.rmsprop, train.RMSPropOptimizer, {"eps": 0.3, "decay": 0.5}),
    "rmsprop, centered": (dialect.rmsprop, train.RMSPropOptimizer, {"centered": True}),
    "rmsprop, momentum": (dialect.rmsprop_momentum, train.RMSPropOptimizer, {"momentum": 0.9}),
    "rmsprop, momentum, centered": (
        dialect.rmsprop_momentum,
        train.RMSPropOptimizer,
        {"momentum": 0.8, "centered": True, "eps": 0.3},
    ),
    "adam": (dialect.adam, train.AdamOptimizer, {}),
    "adam (epsilon)": (dialect.adam, train.AdamOptimizer, {"eps": 0.1, "beta1": 0.8, "beta2": 0.9}),
    "adadelta": (dialect.adadelta, train.AdadeltaOptimizer, {}),
    "adadelta (epsilon)": (dialect.adadelta, train.AdadeltaOptimizer, {"eps": 1e-2, "rho": 0.8}),
}


def theirs(kind, given, number=np.float64):
    """The settings under TensorFlow's names, the defaults included, with numbers of this type."""
    signature = inspect.signature(kind).parameters
    settings = {name: p.default for name, p in signature.items() if type(p.default) is float} | {
        NAMES.get(name, name): value for name, value in given.items()
    }
    return {name: value if isinstance(value, bool) else number(value) for name, value in settings.items()}


def path_of(kind, given):
    """The weights after each step of TensorFlow."""
    variable = tf.Variable(paths.GIVEN.start, dtype=tf.float64)
    rates = iter(paths.rates())
    optimizer = kind(**{**theirs(kind, given), "learning_rate": lambda: next(rates)})
    for gradient in paths.GIVEN.noise:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        yield variable.numpy()


@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps_are_those_of_tensorflow(case):
    rule, kind, given = CASES[case]
    paths.assert_path(path_of(kind, given), rule, given)


@pytest.mark.parametrize("case", CASES)
def test_squares_overflow_and_vanish_where_those_of_tensorflow_do(case):
    rule, kind, given = CASES[case]
    variable = tf.Variable(EXTREME_START)
    optimizer = kind(**{**theirs(kind, given, float), "learning_rate": 0.1})

    def path():
        for gradient in EXTREME_STEPS:
            optimizer.apply_gradients([(tf.constant(gradient), variable)])
            yield variable.numpy()

    assert_extreme_path(path(), rule, given)


def test_tensorflow_takes_python_numbers_in_single_precision():
    """What a user of TensorFlow gets from `beta2=0.999`, and why the other tests do not write it so."""
    start, gradient = np.array([1.0, 2.0]), np.array([0.5, -3.0])
    variable = tf.Variable(start, dtype=tf.float64)
    train.AdamOptimizer(**theirs(train.AdamOptimizer, {"lr": 0.1}, float)).apply_gradients(
        [(tf.constant(gradient), variable)]
    )
    taken = {name: float(np.float32(v)) for name, v in {**dialect.adam.hyperparameters, "lr": 0.1}.items()}
    computed, *_ = dialect.adam(start, gradient, t=1, **taken)
    np.testing.assert_allclose(variable.numpy(), computed, rtol=1e-7)
    np.testing.assert_allclose(float(np.float32(0.999)), 0.99900001287, rtol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_the_defaults_are_those_of_tensorflow(case):
    rule, kind, _ = CASES[case]
    signature = inspect.signature(kind).parameters
    for name, value in {**rule.hyperparameters, **rule.flags}.items():
        default = signature[NAMES.get(name, name)].default
        if name == "momentum":
            assert value is None
            assert default in (0.0, inspect.Parameter.empty)  # none at all: the rule without momentum
        else:
            assert value == (None if default is inspect.Parameter.empty else default), name


@pytest.mark.parametrize(
    ("name", "flags"),
    [("rmsprop_momentum", {"centered": True})],
)
def test_the_formulas_are_certified(name, flags):
    assert downslope.check_rule(getattr(dialect, name), **flags).passed


def test_a_state_that_no_choice_uses_is_not_kept():
    assert list(compose(dialect.rmsprop).states) == ["rms"]
    assert list(compose(dialect.rmsprop, centered=True).states) == ["rms", "mg"]


def test_what_tensorflow_demands_is_demanded():
    with pytest.raises(TypeError, match="adagrad has no default for lr"):
        downslope.Optimizer(np.zeros(3), dialect.adagrad)
    with pytest.raises(ValueError, match="initial_accumulator_value=0 "):
        downslope.Optimizer(np.zeros(3), dialect.adagrad, lr=0.1, initial_accumulator_value=0)


def test_the_page_lists_what_is_tested():
    assert_all_are_tested("tf1", CASES)
