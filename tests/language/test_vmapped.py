"""What JAX's `vmap` makes of factorisations: none in a stack, none that is not wanted, and the same derivatives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from downslope.language.factors import eigenvectors, qr
from downslope.language.vmapped import choose

STACK = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
STACK += STACK.swapaxes(1, 2)


@pytest.mark.parametrize("word", [eigenvectors, qr])
def test_a_stack_is_factorised_matrix_by_matrix(word):
    """A stack would be shared among the threads of XLA, by one of them that then waits."""
    mapped = jax.jit(jax.vmap(jax.vmap(word)))
    calls = [line for line in mapped.lower(STACK[None]).as_text().splitlines() if "@lapack" in line]
    shapes = [shape for line in calls for shape in re.findall(r"tensor<([0-9x]+)xf32>", line)]
    assert shapes
    assert {"x" in shape and shape.count("x") > 1 for shape in shapes} == {False}
    np.testing.assert_allclose(mapped(STACK[None])[0], [word(a) for a in STACK], rtol=1e-4, atol=1e-5)


def test_derivatives_go_through_forward_and_back():
    def first(a):
        return eigenvectors(a)[0, 0]

    def plain(a):
        return jnp.linalg.eigh(a)[1][0, 0]

    found = jax.jit(jax.vmap(jax.grad(first)))(STACK)
    signs = np.sign([first(a) * plain(a) for a in STACK])[:, None, None]
    np.testing.assert_allclose(found, signs * jax.jit(jax.vmap(jax.grad(plain)))(STACK), rtol=1e-3, atol=1e-5)
    along = jax.jit(lambda stack: jax.jvp(jax.vmap(first), [stack], [jnp.ones_like(stack)])[1])(STACK)
    np.testing.assert_allclose(along, found.sum((1, 2)), rtol=1e-3, atol=1e-4)


def test_derivatives_of_a_choice_are_those_of_what_is_chosen():
    def chosen(x, y):
        return choose(x > 2, lambda x, y, k: y * x**k, lambda x, y, k: 3 * x, [x, y, jnp.int32(2)])

    by_x, by_y = jax.jit(jax.vmap(jax.grad(chosen, argnums=(0, 1))))(jnp.array([1.0, 4.0]), jnp.array([5.0, 7.0]))
    np.testing.assert_allclose([by_x, by_y], [[3, 56], [0, 16]])


@pytest.mark.parametrize("wanted", [[], [1], [0, 2]])
def test_only_the_lanes_that_want_it_compute_it(wanted):
    seen = []

    def counted(x, y):
        jax.debug.callback(lambda x: seen.append(float(x)), x)
        return x * y

    def of(condition, x):
        return choose(condition, counted, lambda x, y: x - y, [x, y])

    x, y = jnp.arange(1.0, 4.0), jnp.float32(10)
    conditions = np.isin(np.arange(3), wanted)
    found = jax.jit(jax.vmap(of))(conditions, x)
    jax.effects_barrier()
    np.testing.assert_array_equal(found, np.where(conditions, 10 * x, x - 10))
    assert sorted(seen) == [k + 1.0 for k in wanted]


def test_a_condition_for_all_lanes_is_one():
    text = jax.jit(jax.vmap(lambda x, c: choose(c, jnp.sin, jnp.cos, [x]), in_axes=(0, None))).lower(STACK, True)
    assert "stablehlo.while" not in text.as_text()
    assert "stablehlo.case" in text.as_text()
