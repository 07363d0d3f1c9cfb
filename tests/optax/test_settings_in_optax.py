"""Settings: honoured or refused at any step, and under Optax's names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope.optax

KINDS = {
    "float": float,
    "np.float64": np.float64,
    "np.float32": np.float32,
    "0-d array of NumPy": lambda value: np.array(float(value)),
    "array of JAX": lambda value: jnp.asarray(float(value)),
    "int": int,
    "np.int64": np.int64,
    "array of integers": lambda value: jnp.asarray(int(value)),
}
choices = st.tuples(st.sampled_from(["learning_rate", "momentum"]), st.sampled_from(sorted(KINDS)), st.booleans())


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(steps=st.lists(st.one_of(st.none(), choices), min_size=1, max_size=6))
def test_a_setting_of_any_kind_is_taken_at_any_step(compiled, steps):
    """Beside Optax's own, through any sequence of steps and of numbers put into the state."""
    paths = []
    for place in (downslope.optax, optax):
        transformation = optax.inject_hyperparams(place.sgd)(0.25, momentum=0.5)
        params = jnp.zeros(2)
        state = transformation.init(params)
        update = jax.jit(transformation.update) if compiled else transformation.update
        for what in steps:
            if what is not None:
                name, kind, value = what
                state.hyperparams[name] = KINDS[kind](value)
            updates, state = update(jnp.array([1.0, -2.0]), state, params)
            params = optax.apply_updates(params, updates)
            paths.append(np.asarray(params))
    np.testing.assert_allclose(paths[: len(steps)], paths[len(steps) :], rtol=1e-6, atol=1e-6)


def injected(**options):
    transformation = optax.inject_hyperparams(downslope.optax.adam, **options)(1e-2)
    params = jnp.zeros(2, jnp.bfloat16)
    return transformation.update(jnp.ones(2, jnp.bfloat16), transformation.init(params), params)[0]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_hyperparameters_in_half_precision_are_refused(wrap):
    """Where 0.999 is 1, the second moment never moves and is divided by 0: nan, in silence, under jit."""
    message = r"b1 is an array of dtype bfloat16, in which 0.999 is 1 .*hyperparam_dtype=jnp.float32"
    with pytest.raises(TypeError, match=message):
        wrap(injected)()
    for options in ({"hyperparam_dtype": jnp.float32}, {"static_args": ("b1", "b2", "eps", "eps_root")}):
        np.testing.assert_allclose(np.asarray(injected(**options), np.float32), -0.01, rtol=2**-8)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: downslope.optax.adam(-1.0), "learning_rate=-1.0 is out of range"),
        (lambda: downslope.optax.adam("fast"), "learning_rate='fast' is a str"),
        (lambda: downslope.optax.adamw(1.0, b1=1.0), "b1=1.0 is out of range"),
        (lambda: downslope.optax.lion(1.0, b2=True), "b2=True is a bool"),
        (lambda: downslope.optax.adam(1.0, b2=jnp.ones(2)), "b2 is an array of shape (2,)"),
        (lambda: downslope.optax.adam(lambda count: -1.0).update(*first()), "learning_rate=-1.0 is out"),
    ],
)
def test_messages_speak_of_what_the_user_wrote(attempt, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        attempt()


def first():
    return jnp.ones(2), downslope.optax.adam(1.0).init(jnp.ones(2)), jnp.ones(2)
