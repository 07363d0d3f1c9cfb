"""Rules that sum up all tensors, as gradient transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import downslope
import downslope.optax
from training.sums_over_all import STEPS, clipped, gradients, spread, trained, weights


def _trained(rule, steps=STEPS, **settings):
    transformation = downslope.optax.optimizer(rule, **settings)
    params = {name: jnp.asarray(array) for name, array in weights().items()}
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for step in range(steps):
        updates, state = update({name: jnp.asarray(g) for name, g in gradients(step).items()}, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("rule", [clipped, spread])
def test_it_takes_the_steps_that_numpy_takes(rule):
    params, state = _trained(rule)
    expected, optimizer = trained(rule, np.float32)
    for name, array in expected.items():
        np.testing.assert_allclose(params[name], array, rtol=2e-5, atol=2e-5)
    for name, value in optimizer._groups[0].scalar_states.items():
        np.testing.assert_allclose(state.scalars[name], value, rtol=1e-5)


def test_clipping_as_a_formula_is_the_option():
    option, _ = _trained(downslope.sgd, lr=0.05, max_norm=1.5)
    for name, array in trained(clipped, np.float32)[0].items():
        np.testing.assert_allclose(option[name], array, rtol=1e-5, atol=1e-6)


def test_what_has_no_gradient_is_not_among_all():
    transformation = downslope.optax.optimizer(clipped)
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    given = {"a": jnp.array([3.0, 0.0, 4.0]), "b": None}
    updates, _ = transformation.update(given, transformation.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.05 * 1.5 / 5 * given["a"], rtol=1e-6)
    assert updates["b"] is None


@pytest.mark.parametrize("rule", [clipped, spread])
def test_where_nothing_has_a_gradient_nothing_is_changed(rule):
    transformation = optax.masked(downslope.optax.optimizer(rule), {"a": False})
    given = {"a": jnp.ones(3)}
    updates, state = transformation.update(given, transformation.init(given), given)
    np.testing.assert_array_equal(updates["a"], given["a"])  # as Optax leaves what is not masked in
    assert dict(state.inner_state.scalars) == {name: np.float32(v) for name, v in rule.scalar_states.items()}
