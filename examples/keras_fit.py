"""Train with `model.fit` on any Keras backend: `keras.optimizers.Adam` becomes `downslope.keras.Adam`, nothing else.

    KERAS_BACKEND=jax python examples/keras_fit.py

Then the same training by a rule of one's own, saved as a `.keras` file and gone on with.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np

import downslope.keras
from downslope import rule, sign, where


@rule
def careful(x, dx, last=0, *, lr=1e-2):
    """He takes half a step wherever the slope has just turned round."""
    return x - lr * where(sign(dx) * sign(last) < 0, 0.5, 1) * sign(dx), dx


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(1)])


def main() -> dict[str, float]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(512, 8)).astype("float32")
    y = np.sin(x).sum(1, keepdims=True)
    losses = {}
    for optimizer in (
        downslope.keras.Adam(1e-2, weight_decay=1e-3),
        downslope.keras.Optimizer(careful, learning_rate=keras.optimizers.schedules.CosineDecay(1e-2, 320)),
    ):
        model = network()
        model.compile(optimizer, loss="mse")
        history = model.fit(x, y, epochs=10, verbose=0)
        losses[optimizer.name] = history.history["loss"][-1]

    path = Path(tempfile.mkdtemp(), "model.keras")
    model.save(path)
    resumed = keras.saving.load_model(path)  # finds the rule, since this file defines it; goes on at the same step
    losses["resumed"] = resumed.fit(x, y, epochs=10, verbose=0).history["loss"][-1]
    return losses


if __name__ == "__main__":
    for name, loss in main().items():
        print(f"{name:<12} {loss:.4f}")
