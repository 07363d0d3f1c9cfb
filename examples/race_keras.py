"""A race on a Keras model that `fit` trains, on any backend of Keras.

    pip install "downslope[lab]" keras && KERAS_BACKEND=jax python examples/race_keras.py

`compile` takes the optimizer of the run, and a callback reports the validation loss of every epoch. `AtWeights` is for
rules with a look-ahead, which keep the point ahead in the model's variables while they train.
"""

import keras
import numpy as np

import downslope.keras
from downslope.lab import OwnRun, race, write_report

EPOCHS, BATCHES = 10, 8


class Report(keras.callbacks.Callback):
    """Tells the run the validation loss of every epoch, and `fit` whether to go on."""

    def __init__(self, run: OwnRun) -> None:
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """After every epoch."""
        if not self.run.report((epoch + 1) * BATCHES, logs["val_loss"]):
            self.model.stop_training = True


def train(run: OwnRun) -> None:
    """One run: data, initial weights and batches come from its seed."""
    keras.utils.set_random_seed(run.seed)
    generator = np.random.default_rng(run.seed)
    x = generator.normal(size=(16 * BATCHES + 64, 5)).astype("float32")
    y = np.sin(x).sum(1, keepdims=True)
    learn, held_out = slice(64, None), (x[:64], y[:64])

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(1)])
    model.compile(run.optimizer(), loss="mse")
    run.report(0, model.evaluate(*held_out, verbose=0))
    callbacks = [downslope.keras.AtWeights(), Report(run)]
    model.fit(
        x[learn], y[learn], batch_size=16, epochs=EPOCHS, validation_data=held_out, callbacks=callbacks, verbose=0
    )


def main() -> None:
    result = race(train, now=keras.optimizers.Adam(1e-3), limit=120, tuning_seeds=2)
    print(result.verdict)
    write_report(result, "report.html")


if __name__ == "__main__":
    main()
