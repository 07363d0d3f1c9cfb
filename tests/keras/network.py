"""A small network, and steps of an optimizer with given gradients, on whichever backend Keras runs."""

import keras
import numpy as np

import paths

RATES = paths.rates(0.02).astype("float32")


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rates of `RATES`."""

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(RATES), step)

    def get_config(self):
        return {}


def network(optimizer, **compiled):
    """A compiled network of two layers, with the same weights every time."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
    model.compile(optimizer, **{"loss": "mse", "jit_compile": keras.backend.backend() == "jax", **compiled})
    return model


def fit(model, data, epochs=2, **settings):
    """Train, always on the same batches; returns all weights."""
    model.fit(*data, epochs=epochs, batch_size=16, shuffle=False, verbose=0, **settings)
    return model.get_weights()


def problems_of(shapes, steps=paths.STEPS):
    """A path for variables of these shapes, in single precision, each with gradients of its own."""
    return [paths.given(shape, steps, large=10.0, seed=seed).astype("float32") for seed, shape in enumerate(shapes)]


def gradients_of(shapes, steps=paths.STEPS):
    """One list of gradients per step."""
    return [list(step) for step in zip(*(problem.noise for problem in problems_of(shapes, steps)), strict=True)]


def start_of(shapes):
    """The values that variables begin with."""
    return [problem.start for problem in problems_of(shapes)]


def variables_of(shapes):
    """Variables with these values."""
    return [keras.Variable(value, name=f"w{k}") for k, value in enumerate(start_of(shapes))]


def path_of(optimizer, variables, gradients, *, stateless=False):
    """The values of all variables after each step, compiled where the backend compiles.

    Args:
        optimizer: The optimizer.
        variables: The variables.
        gradients: Per step a gradient for each.
        stateless: Take `stateless_apply` on PyTorch too, where downslope then computes operation by operation.
    """
    optimizer.build(variables)
    found = []
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(optimizer.stateless_apply)
        values, own = [v.value for v in variables], [v.value for v in optimizer.variables]
        for gradient in gradients:
            values, own = step(own, gradient, values)
            found.append([np.asarray(value) for value in values])
        for variable, value in zip([*variables, *optimizer.variables], [*values, *own], strict=True):
            variable.assign(value)
        return found
    if keras.backend.backend() == "torch" and stateless:
        values, own = [v.value for v in variables], [v.value for v in optimizer.variables]
        for gradient in gradients:
            values, own = optimizer.stateless_apply(own, [*map(keras.ops.convert_to_tensor, gradient)], values)
            found.append([np.array(keras.ops.convert_to_numpy(value)) for value in values])
        for variable, value in zip([*variables, *optimizer.variables], [*values, *own], strict=True):
            variable.assign(value)
        return found
    apply = optimizer.apply
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        apply = tf.function(optimizer.apply, autograph=False)
    for gradient in gradients:
        apply([keras.ops.convert_to_tensor(g) for g in gradient])
        found.append([values_of(variable) for variable in variables])
    return found


def values_of(variable):
    """A copy of a variable's value."""
    if keras.backend.backend() == "tensorflow":
        return variable.value.numpy()
    return np.array(keras.ops.convert_to_numpy(variable.value))


class Bound:
    """How far apart two paths in single precision may be, step by step.

    Every update rounds the weights once on each side, by half a rounding of the largest weight seen so far. The steps
    themselves differ by a number of roundings of their size; their sizes are summed up.
    """

    def __init__(self, start, factor):
        """Begin.

        Args:
            start: The values of the variables before the first step.
            factor: The relative error of one step, in roundings.
        """
        self.before, self.factor = [np.array(value, "float64") for value in start], factor
        self.t, self.traveled, self.largest = 0, 0.0, 0.0

    def check(self, mine, theirs):
        """Check the variables' values after the next step."""
        self.t += 1
        self.traveled += max(np.abs(new - old).max() for new, old in zip(theirs, self.before, strict=True))
        self.largest = max(self.largest, *(np.abs(value).max() for value in theirs))
        self.before = [np.array(value, "float64") for value in theirs]
        self.hold(mine, theirs)

    def hold(self, mine, theirs):
        """Check values that belong to the same step."""
        bound = np.finfo("float32").eps * (self.t * self.largest + self.factor * self.traveled)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=bound)
