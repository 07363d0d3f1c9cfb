"""A training loop of one's own in TensorFlow: `tf.GradientTape`, `apply_gradients`, compiled by XLA.

    KERAS_BACKEND=tensorflow python examples/tensorflow_loop.py

The rule is Nesterov's in its textbook form: during training the variables hold the point ahead, where the tape takes
the gradient, and `at_weights` moves to the weights themselves.
"""

import keras
import numpy as np
import tensorflow as tf

import downslope
import downslope.keras


def main() -> tuple[float, float]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(1)])
    optimizer = downslope.keras.Optimizer(downslope.nesterov, learning_rate=0.01, mu=0.9, global_clipnorm=1.0)
    optimizer.build(model.trainable_variables)  # a compiled function must not make variables

    @tf.function(jit_compile=True)
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    x = np.random.default_rng(0).normal(size=(512, 8)).astype("float32")
    y = np.sin(x).sum(1, keepdims=True)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
    first = float(step(x[:64], y[:64]))
    for _ in range(20):
        for batch in batches:
            step(*batch)
    with optimizer.at_weights():
        last = float(tf.reduce_mean(tf.square(model(x) - y)))
    return first, last


if __name__ == "__main__":
    print("loss before {:.4f}, after {:.4f}".format(*main()))
