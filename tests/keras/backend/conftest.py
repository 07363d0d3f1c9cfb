import os

import numpy as np
import pytest

if os.environ["KERAS_BACKEND"] == "tensorflow":  # before anything runs on a device
    import tensorflow as tf

    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)


@pytest.fixture(autouse=True)
def seeded():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 5)).astype("float32")
    return x, np.tanh(x.sum(1, keepdims=True))
