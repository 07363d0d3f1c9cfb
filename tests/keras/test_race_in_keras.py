"""A race on a training of one's own with Keras's `fit`: what is used now trains as it does without downslope."""

import runpy
from pathlib import Path

import keras
import pytest
from each_backend import each_on, on

from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.protocol import Entry
from downslope.lab.now import entrant_now

TRAIN = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "race_keras.py"))["train"]
STEPS = 24


class Told:
    """What a training is handed when there is no race: it only listens."""

    def __init__(self, seed, optimizer):
        self.seed, self.made, self.losses = seed, optimizer, []

    def optimizer(self):
        return self.made

    def report(self, step, loss):
        self.losses.append(float(loss))
        return step < STEPS


MAKES = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "AdamW": lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1),
}


@each_on(
    ("name", "allowed"),
    [
        ("SGD", 1e-6, ("tensorflow", "torch")),
        # Keras works out 1 - beta2**t in single precision: to 1.3e-5, where beta2 is 0.999 and t is 1.
        ("AdamW", 3e-5, ("jax", "torch")),
    ],
)
def test_now_trains_as_plain_keras_does(name, allowed):
    run, alone = now_and_alone(MAKES[name])
    assert run.steps == (0, 8, 16, 24)
    assert run.valid_loss == pytest.approx(alone, rel=allowed)


@on("torch")
def test_what_differs_is_rounding_and_in_double_precision_nothing_does():
    try:
        in_precision("float64")
        run, alone = now_and_alone(lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1))
    finally:
        in_precision("float32")
    assert run.valid_loss == pytest.approx(alone, rel=1e-12)


def in_precision(dtype):
    """Make what is made from now on of this type: layers, losses and optimizers."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


def now_and_alone(make):
    """The run of what is used now in a race, and the losses of the same training without downslope."""
    entrant = entrant_now(make())
    run = OwnEngine(TRAIN, {"now": entrant}, steps=STEPS).run(Entry("now", entrant.lr, seed=3))
    alone = Told(3, make())
    TRAIN(alone)
    assert run.cause == ""
    return run, alone.losses


@on("torch")
def test_a_coupled_decay_that_keras_has_not_is_a_failure_with_its_cause():
    import downslope

    recipe = downslope.Recipe(downslope.sgd, weight_decay=0.1)
    run = OwnEngine(TRAIN, {"now": entrant_now(recipe)}).run(Entry("now", 0.1, seed=0))
    assert "Keras's optimizers have no coupled weight decay" in run.cause


@on("torch")
@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), "is a schedule"),
        (lambda: keras.optimizers.Adam(clipnorm=1.0), "clipnorm=1.0 is no part of a recipe"),
        (lambda: keras.optimizers.Adam(use_ema=True), "use_ema=True is no part of a recipe"),
    ],
)
def test_what_a_recipe_cannot_hold_is_refused(optimizer, said):
    with pytest.raises(ValueError, match=said):
        entrant_now(optimizer())
