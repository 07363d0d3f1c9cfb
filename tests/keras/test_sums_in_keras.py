"""Rules that sum up all tensors, as optimizers of Keras."""

import keras
import numpy as np
import pytest
from each_backend import mirrored, on

import downslope
import downslope.keras
from training.sums_over_all import STEPS, clipped, gradients, spread, trained, weights


def _trained(optimizer):
    variables = [keras.Variable(array) for array in weights().values()]
    for step in range(STEPS):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients(step).values()], variables)
    return dict(zip(weights(), map(keras.ops.convert_to_numpy, variables), strict=True))


@pytest.mark.parametrize("rule", [clipped, spread])
def test_it_takes_the_steps_that_numpy_takes(rule):
    optimizer = downslope.keras.Optimizer(rule, learning_rate=rule.hyperparameters["lr"])
    found = _trained(optimizer)
    expected, numpys = trained(rule, np.float32)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-5)
    for name, value in numpys._groups[0].scalar_states.items():
        np.testing.assert_allclose(float(optimizer._states.scalars[name]), value, rtol=1e-5)


def test_clipping_as_a_formula_is_the_option():
    option = _trained(downslope.keras.Optimizer(downslope.sgd, learning_rate=0.05, global_clipnorm=1.5))
    for name, array in trained(clipped, np.float32)[0].items():
        np.testing.assert_allclose(option[name], array, rtol=1e-5, atol=1e-6)


@on("tensorflow")  # tf.distribute is its own
def test_replicas_go_by_the_gradients_of_all():
    import tensorflow as tf

    with mirrored().scope():
        variable = keras.Variable(np.zeros(2, "float32"))
        optimizer = downslope.keras.Optimizer(spread)
        optimizer.build([variable])

    def step():
        here = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "float32")
        optimizer.apply([tf.stack([3 * (1 - here), 4 * here])], [variable])  # together (3, 4)

    mirrored().run(step)
    alone = {"x": np.zeros(2, np.float32)}
    numpys = downslope.Optimizer(alone, spread)
    numpys.step({"x": np.array([3, 4], np.float32)})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), alone["x"], rtol=1e-5)
    found = keras.ops.convert_to_numpy(optimizer._states.scalars["d"])
    np.testing.assert_allclose(found, numpys._groups[0].scalar_states["d"], rtol=1e-5)
