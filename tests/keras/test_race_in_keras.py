"""A race on a training of one's own with Keras's `fit`: what is used now trains as it does without downslope."""

import keras
import numpy as np
import pytest
from each_backend import on

from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.protocol import Entry
from downslope.lab.racing import entrant_now

EPOCHS = 3


class Report(keras.callbacks.Callback):
    """Reports the validation loss after every epoch, and stops where the run says so."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch, logs=None):
        if not self.run.report(4 * (epoch + 1), logs["val_loss"]):
            self.model.stop_training = True


class Told:
    """What a training is handed when there is no race: it only listens."""

    def __init__(self, seed, optimizer):
        self.seed, self.made, self.losses = seed, optimizer, []

    def optimizer(self):
        return self.made

    def report(self, step, loss):
        self.losses.append(float(loss))
        return step < 4 * EPOCHS


def train(run):
    keras.utils.set_random_seed(run.seed)
    random = np.random.default_rng(run.seed)
    x = random.normal(size=(80, 5)).astype("float32")
    y = np.tanh(x.sum(1, keepdims=True))
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
    model.compile(run.optimizer(), loss="mse")
    held_out = (x[64:], y[64:])
    model.fit(x[:64], y[:64], batch_size=16, epochs=99, validation_data=held_out, callbacks=[Report(run)], verbose=0)


@pytest.mark.parametrize(
    ("make", "allowed"),
    [
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), 1e-6),
        # Keras works out 1 - beta2 in single precision, with a relative error of some hundred roundings.
        (lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1), 3e-5),
    ],
    ids=["SGD", "AdamW"],
)
def test_now_trains_as_plain_keras_does(make, allowed):
    entrant = entrant_now(make())
    run = OwnEngine(train, {"now": entrant}, steps=4 * EPOCHS).run(Entry("now", entrant.lr, seed=3))
    alone = Told(3, make())
    train(alone)
    assert run.cause == ""
    assert run.steps == (4, 8, 12)
    assert run.valid_loss == pytest.approx(alone.losses, rel=allowed)


@on("torch")
def test_a_coupled_decay_that_keras_has_not_is_a_failure_with_its_cause():
    import downslope

    recipe = downslope.Recipe(downslope.sgd, weight_decay=0.1)
    run = OwnEngine(train, {"now": entrant_now(recipe)}).run(Entry("now", 0.1, seed=0))
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
