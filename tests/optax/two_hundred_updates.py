"""Two hundred steps with gradients that are given, in single or double precision.

The learning rate changes on the way, which tells a rate inside a buffer from one outside, and every tenth gradient is a
hundred times larger.
"""

import contextlib

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

STEPS = 200
RATES = 0.1 * (0.5 + 0.5 * np.cos(np.arange(STEPS) / 20))
GENERATOR = np.random.default_rng(0)
START = np.float32(GENERATOR.standard_normal((3, 7)))
SIZES = np.where(np.arange(STEPS) % 10 == 9, 100, 1)
GRADIENTS = np.float32(GENERATOR.standard_normal((STEPS, *START.shape)) * SIZES[:, None, None])


@contextlib.contextmanager
def precision_of(double):
    """Inside this block JAX has double precision, or has not."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", double)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def rate(count):
    """The learning rate, as a schedule of Optax."""
    return jnp.asarray(RATES)[count]


def paths_of(transformations, *, double, parts=1):
    """The weights after each step, for each transformation, in one compiled program.

    Args:
        transformations: The transformations, each of which has its own weights.
        double: Whether in double precision.
        parts: Into how many parameters, by the names "0", "1" ..., the weights are taken apart.
    """
    with precision_of(double):
        dtype = jnp.float64 if double else jnp.float32

        def tree(rows):
            pieces = np.array_split(np.asarray(rows), parts, axis=-2)
            return {str(k): jnp.asarray(piece, dtype) for k, piece in enumerate(pieces)}

        def step(carry, gradient):
            new = []
            for transformation, (x, state) in zip(transformations, carry, strict=True):
                updates, state = transformation.update(gradient, state, x)
                new.append((optax.apply_updates(x, updates), state))
            return new, [x for x, _ in new]

        carry = [(tree(START), transformation.init(tree(START))) for transformation in transformations]
        paths = jax.jit(lambda carry, gradients: jax.lax.scan(step, carry, gradients)[1])(carry, tree(GRADIENTS))
        assert all(array.dtype == dtype for array in jax.tree.leaves(paths))
        return [np.concatenate([np.asarray(a, np.float64) for a in path.values()], axis=1) for path in paths]
