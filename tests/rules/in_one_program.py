"""Many steps on a bowl that shakes, in Optax and Keras, as one compiled program each and in double precision.

`slope` of test_over_tensors and test_distances is the gradient: `(x - target) * (1 + 0.5 * sin(t))`.
"""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax

import downslope.keras
import downslope.optax
from paths import precision_of


def in_optax(rule, settings, weights, targets, steps):
    """The weights after these steps, and the scalar states."""
    transformation = downslope.optax.optimizer(rule, **settings)

    def step(carry, t):
        params, state = carry
        gradients = {name: (x - targets[name]) * (1 + 0.5 * jnp.sin(t)) for name, x in params.items()}
        updates, state = transformation.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    with precision_of(True):
        params = {name: jnp.asarray(x) for name, x in weights.items()}
        numbers = jnp.arange(1.0, steps + 1)
        params, state = jax.jit(lambda begin: jax.lax.scan(step, begin, numbers)[0])(
            (params, transformation.init(params))
        )
        scalars = {name: float(value) for name, value in state.scalars.items()}
        return {name: np.asarray(x) for name, x in params.items()}, scalars


def in_keras(rule, settings, weights, targets, steps):
    """The same. Keras holds learning rates in single precision, and works out powers of `t` in it."""
    variables = {name: keras.Variable(x, dtype="float64") for name, x in weights.items()}
    given = {"learning_rate" if name == "lr" else name: value for name, value in settings.items()}
    optimizer = downslope.keras.Optimizer(rule, **given)
    optimizer.build(list(variables.values()))

    def step(share):
        optimizer.apply([(x.value - targets[name]) * share for name, x in variables.items()])

    shares = 1 + 0.5 * np.sin(np.arange(1.0, steps + 1))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def walk(shares):
            for share in shares:
                step(share)

        tf.function(walk)(tf.constant(shares))
    else:
        for share in shares:
            step(share)
    scalars = {name: float(keras.ops.convert_to_numpy(value)) for name, value in optimizer._states.scalars.items()}
    return {name: keras.ops.convert_to_numpy(x) for name, x in variables.items()}, scalars
