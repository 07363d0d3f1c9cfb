"""Every rule as a gradient transformation, beside the formula itself in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import downslope
import downslope.optax
from downslope import rule, scalar
from downslope.dialects import keras, tf1, torch
from downslope.dialects import optax as dialect
from downslope.language.options import compose
from downslope.rule import Rule
from downslope.rules import RULES
from paths import precision_of

MODULES = {"torch": torch, "keras": keras, "tf1": tf1, "optax": dialect}
CASES = {a_rule.name: a_rule for a_rule in RULES} | {
    f"{name}.{value.name}": value
    for name, module in MODULES.items()
    for value in vars(module).values()
    if isinstance(value, Rule) and not compose(value).of_matrices
}
GIVEN = {"momentum": 0.9, "lr": 0.1}
GENERATOR = np.random.default_rng(1)
START = GENERATOR.uniform(1, 2, 20)
GRADIENTS = GENERATOR.uniform(0.5, 2, (6, 20)) * np.where(np.arange(20) % 3, 1, -1)
# RAdam's length as frameworks have it is a difference of two numbers 400 times larger, at first
LOSSY = {"torch.radam": 400, "optax.radam": 400}


def settings_of(a_rule):
    return {name: value for name, value in GIVEN.items() if name in a_rule.hyperparameters}


def formula_path(a_rule, first):
    """The weights after each step by the formula itself, the first step having this number, if it counts."""
    settings = settings_of(a_rule)
    numbers = {**a_rule.hyperparameters, **settings}
    x, states = START, {**a_rule.scalar_states}
    for name, start in a_rule.states.items():
        states[name] = np.full_like(x, numbers[start] if isinstance(start, str) else start)
    for t, dx in enumerate(GRADIENTS, first):
        with np.errstate(invalid="ignore"):  # the root in RAdam's branch that is not taken
            new = a_rule(x, dx, **states, **settings, **({"t": t} if a_rule.uses_t else {}))
        x, *values = new if isinstance(new, tuple) else (new,)
        states = dict(zip(a_rule.signature_states, values, strict=True))
        yield x


@pytest.mark.parametrize(
    ("case", "first"), [(case, first) for case in CASES for first in (1, 1000) if first == 1 or CASES[case].uses_t]
)
def test_single_precision_follows_the_formula(case, first):
    a_rule = CASES[case]
    transformation = downslope.optax.optimizer(a_rule, **settings_of(a_rule))
    x = jnp.asarray(START, jnp.float32)
    state = transformation.init(x)._replace(count=jnp.int32(first - 1))
    for t, expected in enumerate(formula_path(a_rule, first), 1):
        updates, state = transformation.update(jnp.asarray(GRADIENTS[t - 1], jnp.float32), state, x)
        x = optax.apply_updates(x, updates)
        assert x.dtype == jnp.float32
        # twenty roundings a step of numbers that are at most 2 and of steps that are at most as long as seen
        size = max(2, np.abs(expected).max())
        bound = 20 * t * 6e-8 * size * (LOSSY.get(case, 1) if first == 1 else 1)
        np.testing.assert_allclose(downslope.optax.weights(transformation, x, state), expected, rtol=0, atol=bound)


@rule
def own(x, dx, m=0, start="x", product=scalar(1.0), *, t, lr=0.1, mu=0.9, steep=False):
    """A rule of a user, with one of everything."""
    product = product * mu
    m = mu * m + (1 - mu) * (dx**3 if steep else dx)
    return x - lr * m / (1 - product) - lr / t * (x - start), m, start, product


CLIPPED = {"weight_decay": 0.1, "max_norm": 1.0, "maximize": True, "averaging": 0.9}
CAUTIOUS = {"weight_decay": 0.1, "decoupled": True, "cautious": True}
TOWARDS_ZERO = {"weight_decay": 0.1, "cautious_decay": True}


@pytest.mark.parametrize(
    ("a_rule", "options"), [(own, CLIPPED), (own, CAUTIOUS), (downslope.nesterov, CAUTIOUS), (own, TOWARDS_ZERO)]
)
def test_options_mean_what_they_mean_in_numpy(a_rule, options):
    arrays = {"W": START[:12].reshape(3, 4).copy(), "b": START[12:].copy()}
    in_numpy = downslope.Optimizer(arrays, a_rule, lr=lambda t: 0.1 / t, **options)
    transformation = downslope.optax.optimizer(a_rule, lr=lambda count: 0.1 / (count + 1), **options)
    with precision_of(True):
        params = {"W": jnp.asarray(START[:12].reshape(3, 4)), "b": jnp.asarray(START[12:])}
        state, update = transformation.init(params), jax.jit(transformation.update)
        for dx in GRADIENTS:
            gradients = {"W": dx[:12].reshape(3, 4), "b": dx[12:]}
            in_numpy.step(gradients)
            updates, state = update(jax.tree.map(jnp.asarray, gradients), state, params)
            params = optax.apply_updates(params, updates)
        found = {"x": params, **state.states}
        for name, by_array in {"x": arrays, **in_numpy.state}.items():
            for key, array in by_array.items():
                np.testing.assert_allclose(found[name][key], array, rtol=0, atol=1e-14, err_msg=f"{name} {key}")
        with in_numpy.at_weights():
            for key, array in downslope.optax.weights(transformation, params, state).items():
                np.testing.assert_allclose(array, arrays[key], rtol=0, atol=1e-14)
        if "averaging" in options:
            np.testing.assert_array_equal(downslope.optax.average(state)["b"], state.states["average"]["b"])


def test_a_momentum_that_changes_moves_the_point_ahead_with_it():
    momenta = [0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9]
    x, v = START.copy(), np.zeros(20)
    stored = downslope.optax.optimizer(downslope.nesterov, lr=0.1, mu=lambda count: jnp.asarray(momenta)[count])
    explicit = downslope.optax.optimizer(
        downslope.nesterov, lr=0.1, mu=lambda count: jnp.asarray(momenta)[count], lookahead="explicit"
    )
    with precision_of(True):
        point = weights = jnp.asarray(START)
        state, other = stored.init(point), explicit.init(weights)
        for mu in momenta[:-1]:
            ahead = x + mu * v
            np.testing.assert_allclose(point, ahead, rtol=0, atol=1e-14)
            seen = downslope.optax.point_ahead(explicit, weights, other)
            np.testing.assert_allclose(seen, ahead, rtol=0, atol=1e-14)
            v = mu * v - 0.1 * ahead  # the gradient of half the square
            x = x + v
            updates, state = stored.update(point, state)
            point = optax.apply_updates(point, updates)
            updates, other = explicit.update(seen, other)
            weights = optax.apply_updates(weights, updates)
            np.testing.assert_allclose(weights, x, rtol=0, atol=1e-14)
            np.testing.assert_allclose(downslope.optax.weights(stored, point, state), x, rtol=0, atol=1e-14)
            assert downslope.optax.weights(explicit, weights, other) is weights
            assert downslope.optax.point_ahead(stored, point, state) is point


def test_a_small_step_of_large_weights_is_not_lost():
    transformation = downslope.optax.optimizer(downslope.adam, lr=1e-6, weight_decay=0.1, decoupled=True, cautious=True)
    x = jnp.full(3, 1e4)
    updates, _ = transformation.update(jnp.ones(3), transformation.init(x), x)
    np.testing.assert_allclose(updates, -1e-6 - 1e-7 * 1e4, rtol=1e-6)


def test_half_precision_is_computed_in_single_and_rounded_once():
    transformation = downslope.optax.optimizer(downslope.adam, lr=0.1)
    x, dx = (jnp.asarray(values, jnp.bfloat16) for values in (START, GRADIENTS[0]))
    updates, state = transformation.update(dx, transformation.init(x), x)
    singles, exact = transformation.update(dx.astype(jnp.float32), transformation.init(x.astype(jnp.float32)))
    assert updates.dtype == jnp.bfloat16
    np.testing.assert_array_equal(updates, singles.astype(jnp.bfloat16))
    for name, values in exact.states.items():
        assert state.states[name].dtype == jnp.bfloat16
        np.testing.assert_array_equal(state.states[name], values.astype(jnp.bfloat16))


def test_gradients_of_less_precision_do_not_spoil_the_step():
    transformation = downslope.optax.optimizer(downslope.sgd, lr=0.1)
    updates, _ = transformation.update(jnp.ones(3, jnp.bfloat16), transformation.init(jnp.ones(3)), jnp.ones(3))
    assert updates.dtype == jnp.float32
    np.testing.assert_array_equal(updates, np.float32(-0.1))


@pytest.mark.parametrize(("size", "norm"), [(1e30, 2e30), (1e-30, 2e-30), (0.5, 1.0), (0.0, 0.0)])
def test_the_norm_of_gradients_whose_squares_cannot_be_represented(size, norm):
    transformation = downslope.optax.optimizer(downslope.sgd, lr=1.0, max_norm=norm / 2)
    params = {"W": jnp.zeros((1, 2)), "b": jnp.zeros(2), "empty": jnp.zeros(0)}
    gradients = jax.tree.map(lambda p: jnp.full_like(p, size), params)
    updates, _ = transformation.update(gradients, transformation.init(params))
    np.testing.assert_allclose(updates["W"], -size / 2, rtol=1e-6)


def test_a_gradient_that_is_not_finite_is_not_hidden_by_clipping():
    transformation = downslope.optax.optimizer(downslope.sgd, lr=1.0, max_norm=1.0)
    updates, _ = transformation.update(jnp.array([1.0, jnp.nan]), transformation.init(jnp.zeros(2)))
    assert jnp.isnan(updates).all()


def test_the_count_does_not_overflow():
    transformation = downslope.optax.optimizer(downslope.adam)
    last = transformation.init(jnp.ones(1))._replace(count=jnp.int32(2**31 - 1))
    updates, state = transformation.update(jnp.ones(1), last)
    assert state.count == 2**31 - 1
    assert jnp.isfinite(updates).all()
