"""Two hundred steps of each optimizer against Keras's own, and against the formula in double precision.

Both sides compute in single precision, with gradients that do not depend on the weights, so that errors add up and do
not grow. One step makes fewer than 20 roundings of which each counts for at most 10 (a momentum of 0.9 sums up ten
steps, and so do their errors): 200 roundings of the step. Keras works `1 - beta**t` out in single precision, where
`beta**t` is wrong by up to `t * beta**t` half roundings, which of `1 - beta**t` is up to `1 / (1 - beta)`: for
`beta_2 = 0.999` another 1,000.
"""

import inspect
import itertools

import keras
import numpy as np
import pytest
from each_backend import BACKENDS, each_on, once
from network import RATES, Bound, Rates, gradients_of, path_of, problems_of, start_of, values_of, variables_of

import downslope
import downslope.keras
import paths
from downslope import rule

BACKEND = keras.backend.backend()
SHAPES = [(6, 7), (5,)]
BASE = {
    "plain": {},
    "decay": {"weight_decay": 0.02},
    "clipnorm": {"clipnorm": 3.0},
    "global_clipnorm": {"global_clipnorm": 5.0},
    "clipvalue": {"clipvalue": 1.0},
    "ema": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 30},
    "loss_scale": {"loss_scale_factor": 1024.0},
    "accumulation": {"gradient_accumulation_steps": 3},
}
EPS = {"epsilon": 0.1}
CASES = [
    ("SGD", {}, "decay"),
    ("SGD", {"momentum": 0.9}, "global_clipnorm"),
    ("SGD", {"momentum": 0.9, "nesterov": True}, "ema"),
    ("RMSprop", {}, "accumulation"),
    ("RMSprop", {"momentum": 0.9, "rho": 0.5}, "clipvalue"),
    ("RMSprop", {"momentum": 0.8, "centered": True, **EPS}, "decay"),
    ("Adam", {}, "plain"),
    ("Adam", {"beta_1": 0.8, "beta_2": 0.9, **EPS}, "clipnorm"),
    ("Adam", {"amsgrad": True}, "accumulation"),
    ("Adam", {}, "ema"),
    ("AdamW", {}, "loss_scale"),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.1}, "global_clipnorm"),
    ("Adadelta", {"rho": 0.8, "epsilon": 1e-2}, "decay"),
    ("Adagrad", {}, "clipnorm"),
    ("Adagrad", {"initial_accumulator_value": 2.0, **EPS}, "plain"),
    ("Adamax", EPS, "global_clipnorm"),
    ("Nadam", {}, "plain"),
    ("Nadam", {"beta_1": 0.8, **EPS}, "accumulation"),
    ("Lion", {"beta_1": 0.8}, "decay"),
]
# Each is seen on TensorFlow or JAX, which run the same code
PLACES = itertools.cycle([("tensorflow", "torch"), ("jax",), ("tensorflow",), ("jax",)])


@each_on(("name", "options", "base"), [(*case, next(PLACES)) for case in CASES], ids=str)
def test_two_hundred_steps_are_those_of_keras(name, options, base):
    gradients = gradients_of(SHAPES[:1])
    settings = {"learning_rate": Rates(), **options, **BASE[base]}
    ours, theirs = (getattr(place, name)(**settings) for place in (downslope.keras, keras.optimizers))
    mine, seen = (path_of(optimizer, variables_of(SHAPES[:1]), gradients) for optimizer in (ours, theirs))
    corrected = name in ("Adam", "AdamW", "Nadam")
    bound = Bound(start_of(SHAPES[:1]), 200 + corrected / (1 - options.get("beta_2", 0.999)))
    for values, expected in zip(mine, seen, strict=True):
        bound.check(values, expected)
    assert [v.shape for v in ours.variables] == [v.shape for v in theirs.variables]


@once
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Nadam", "Lion"])
def test_the_signature_is_that_of_keras(name):
    theirs = inspect.signature(getattr(keras.optimizers, name)).parameters
    ours = inspect.signature(getattr(downslope.keras, name)).parameters
    expected = {key: p.default for key, p in theirs.items() if p.kind is not p.VAR_KEYWORD}
    assert {key: p.default for key, p in ours.items()} == {**expected, "cautious": False}
    assert list(ours)[:-1] == list(expected)


@rule
def own(x, dx, peak="start", best="x", *, t, lr=0.1, start=0.5, slow=False):
    """A rule of a user's, with every kind of initial value."""
    peak = downslope.maximum(0.9 * peak, abs(dx))
    rate = downslope.where(t == 1, lr / 2, lr)
    best = 0.5 * best + 0.5 * x
    return x - rate * dx / (peak + 1) - (0 if slow else 0.01) * (x - best), peak, best


RULES = [
    (own, {"start": 2.0}, {"cautious": True}, BACKENDS),
    (downslope.nesterov, {"mu": 0.8}, {"weight_decay": 0.02}, BACKENDS),
    (downslope.schedule_free_adamw, {"warmup_steps": 5}, {"weight_decay": 0.1}, BACKENDS),
    (downslope.adam, {"eps": 1e-3}, {}, ["jax"]),
    (downslope.adamw, {}, {"weight_decay": 0.1}, ["jax"]),
    (downslope.radam, {}, {}, ["jax"]),
    (downslope.adan, {}, {}, ["jax"]),
    (downslope.momentum, {}, {"cautious": True}, ["jax"]),
    (own, {"slow": True}, {}, ["jax"]),
    (downslope.schedule_free_sgd, {"warmup_steps": 5}, {}, ["jax"]),
]


@each_on(("formula", "settings", "options"), RULES, ids=str)
def test_any_rule_takes_the_steps_of_its_formula(formula, settings, options):
    steps = 60
    optimizer = downslope.keras.Optimizer(formula, learning_rate=Rates(), lookahead="stored", **settings, **options)
    variables = variables_of(SHAPES)
    path = path_of(optimizer, variables, gradients_of(SHAPES, steps), stateless=formula is not own)
    problems, cautious = problems_of(SHAPES, steps), options.get("cautious", False)
    exact = paths.formula_path(formula, problems, RATES[:steps], {**settings, **options}, cautious=cautious)
    weights, ahead = zip(*exact, strict=True)
    bound = Bound(start_of(SHAPES), 200)
    for seen, expected in zip(path, ahead, strict=True):
        bound.check(seen, expected)
    with optimizer.at_weights():
        bound.hold(map(values_of, variables), weights[-1])
    bound.hold(map(values_of, variables), ahead[-1])
    optimizer.finalize_variable_values(variables)
    bound.hold(map(values_of, variables), weights[-1])


@rule
def sized(x, dx, size="lr", *, lr=0.01):
    return x - size * downslope.sign(dx), size * 0.5


@pytest.mark.parametrize("rate", [0.01, Rates(), lambda: 0.01], ids=["number", "schedule", "function"])
def test_a_state_may_start_from_the_learning_rate(rate):
    double = "float32" if BACKEND == "jax" else "float64"  # which JAX has only where it is told to
    variables = [keras.Variable(np.zeros(2, "float32")), keras.Variable(np.zeros(1), dtype=double)]
    optimizer = downslope.keras.Optimizer(sized, rate)
    first = float(RATES[0]) if isinstance(rate, Rates) else 0.01
    for _ in range(2):
        optimizer.apply([keras.ops.convert_to_tensor(np.array([3.0, -2.0], "float32")), np.ones(1, double)], variables)
    np.testing.assert_allclose(values_of(variables[0]), [-1.5 * first, 1.5 * first], rtol=1e-6)
    np.testing.assert_allclose(values_of(variables[1]), [-1.5 * first], rtol=1e-6)


@once
def test_a_state_starts_from_the_rate_that_there_is_when_it_is_made():
    optimizer, variable = downslope.keras.Optimizer(sized, 0.01), keras.Variable(np.zeros(1, "float32"))
    optimizer.learning_rate = 0.5
    optimizer.build([variable])
    optimizer.learning_rate = 0.1
    optimizer.apply([keras.ops.ones(1)])
    np.testing.assert_allclose(values_of(variable), [-0.5], rtol=1e-6)
