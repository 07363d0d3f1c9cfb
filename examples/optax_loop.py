"""A plain JAX loop: schedule-free training by a rule of downslope, compiled whole, and evaluated at the weights.

    python examples/optax_loop.py

The data are three spiral arms; there is no schedule of the learning rate.
"""

import functools
import math

import jax
import jax.numpy as jnp
import optax

import downslope
import downslope.optax

BATCH = 32


@functools.partial(jax.jit, static_argnames="points")
def spiral(key: jax.Array, points: int, noise: float = 0.3) -> tuple[jax.Array, jax.Array]:
    """Three interleaved arms in the plane, and which arm each point belongs to."""
    along, beside = jax.random.split(key)
    radius = jax.random.uniform(along, (3, points))
    angle = 4 * (radius + jnp.arange(3)[:, None] * math.tau / 12) + noise * jax.random.normal(beside, (3, points))
    inputs = jnp.stack([radius * jnp.sin(angle), radius * jnp.cos(angle)], axis=-1)
    return inputs.reshape(-1, 2), jnp.repeat(jnp.arange(3), points)


def network(params: dict[str, jax.Array], inputs: jax.Array) -> jax.Array:
    return jax.nn.relu(inputs @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]


def loss(params: dict[str, jax.Array], inputs: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(network(params, inputs), labels).mean()


@jax.jit
def accuracy(params: dict[str, jax.Array], inputs: jax.Array, labels: jax.Array) -> jax.Array:
    return (network(params, inputs).argmax(1) == labels).mean()


def main() -> None:
    start, train_key, test_key, order = jax.random.split(jax.random.key(0), 4)
    inputs, labels = spiral(train_key, 320)
    test = spiral(test_key, 1000)
    params = {
        "W1": jax.random.normal(start, (2, 100)),
        "b1": jnp.zeros(100),
        "W2": jnp.zeros((100, 3)),
        "b2": jnp.zeros(3),
    }
    transformation = downslope.optax.optimizer(downslope.schedule_free_adamw, lr=0.05, max_norm=1.0)
    state = transformation.init(params)

    @jax.jit
    def epoch(params, state, key):
        def step(carry, batch):
            params, state = carry
            gradients = jax.grad(loss)(params, inputs[batch], labels[batch])
            updates, state = transformation.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        batches = jax.random.randint(key, (len(labels) // BATCH, BATCH), 0, len(labels))
        return jax.lax.scan(step, (params, state), batches)[0]

    for number, key in enumerate(jax.random.split(order, 20), 1):
        params, state = epoch(params, state, key)
        if number % 5 == 0:
            ahead = accuracy(params, *test)
            weights = accuracy(downslope.optax.weights(transformation, params, state), *test)
            print(f"epoch {number}: {weights:.1%} on new points, {ahead:.1%} where the gradient is taken")


if __name__ == "__main__":
    main()
