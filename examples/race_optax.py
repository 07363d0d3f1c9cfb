"""A race on a plain JAX loop: the network is a function of a tree of arrays, as it is with Flax and Equinox too.

    pip install "downslope[lab]" && python examples/race_optax.py

The loop is compiled, twenty steps at a time, and reports between them: at `run.weights`, which of a rule with a
look-ahead are not what is trained. Everything random comes from the run's seed. Each run is compiled, which takes most
of the race, some minutes.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from downslope.lab import OwnRun, race, write_report

EVERY = 20  # steps from one report to the next


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]


@jax.jit
def loss(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((network(params, x) - y) ** 2)


def train(run: OwnRun, steps: int = 200) -> None:
    """One run of 200 steps."""
    data, start, order = jax.random.split(jax.random.key(run.seed), 3)
    x = jax.random.normal(data, (320, 5))
    y = jnp.sin(x).sum(1, keepdims=True)
    learn, held_out = (x[64:], y[64:]), (x[:64], y[:64])
    one, two = jax.random.split(start)
    params = {
        "W1": jax.random.normal(one, (5, 16)) / 5**0.5,
        "b1": jnp.zeros(16),
        "W2": jax.random.normal(two, (16, 1)) / 4,
        "b2": jnp.zeros(1),
    }
    transformation = run.optimizer(params)
    state = transformation.init(params)

    @jax.jit
    def some_steps(params, state, key):
        def step(carry, rows):
            params, state = carry
            gradient = jax.grad(loss)(params, *(part[rows] for part in learn))
            updates, state = transformation.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), jax.random.randint(key, (EVERY, 32), 0, 256))[0]

    for step in range(0, steps + 1, EVERY):
        if not run.report(step, loss(run.weights(params, state), *held_out)):
            return
        params, state = some_steps(params, state, jax.random.fold_in(order, step))


def main() -> None:
    now = functools.partial(optax.adam, learning_rate=1e-3)
    result = race(train, now=now, limit=120, tuning_seeds=2)
    print(result.verdict)
    write_report(result, "report.html")


if __name__ == "__main__":
    main()
