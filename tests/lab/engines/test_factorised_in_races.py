"""Rules that factorise matrices, in heats: the numbers of the formula, whatever the other lanes do, and an end."""

import jax.numpy as jnp
import numpy as np

import downslope
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.jax_engine import JaxEngine
from downslope.lab.engines.model_engine import ModelEngine
from downslope.lab.engines.order import batch_order
from downslope.lab.engines.protocol import Entry
from downslope.lab.problems.examples import examples_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(150, 4)).astype(np.float32)
Y = np.sin(X @ [1.0, -2.0, 0.5, 1.5]).astype(np.float32)
HEAD = np.array([1.0, -0.7, 0.4, 1.3], np.float32)
EPOCHS, BATCH, EVERY = 3, 16, 4
SOAP = Entrant.of("soap", downslope.soap, {"every": EVERY})


def matrix(seed):
    """Square, so that its slopes leave no direction out: in which of several such one looks is nobody's to say."""
    return np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32) / 2


def network(seed):
    return {"mix": jnp.asarray(matrix(seed))}, lambda w, x: jnp.tanh(x @ w["mix"]) @ HEAD


def examples():
    return examples_of((X, Y), epochs=EPOCHS, batch_size=BATCH)


def losses_by_hand(seed, lr):
    """The validation losses before training and after every epoch, in double precision."""
    train, valid, _ = examples().split(0, seed)
    w, head, t = np.float64(matrix(seed)), np.float64(HEAD), 0
    states = [0.0 * w for _ in range(6)] + [0.0]

    def loss(rows):
        return np.mean((np.tanh(np.float64(X[rows]) @ w) @ head - Y[rows]) ** 2)

    found = [loss(valid)]
    for epoch in range(1, EPOCHS + 1):
        for rows in train[batch_order(seed, epoch, len(train), BATCH)]:
            x, t = np.float64(X[rows]), t + 1
            inner = np.tanh(x @ w)
            dx = x.T @ ((2 / len(rows)) * (inner @ head - Y[rows])[:, None] * head * (1 - inner**2))
            w, *states = downslope.soap(w, dx, *states, t=t, lr=lr, every=EVERY)
        found.append(loss(valid))
    return found


def test_soap_in_lanes_that_begin_at_different_steps_is_soap():
    """The run that is lost after an epoch leaves its lane to another, whose directions are renewed at other steps."""
    whole = ModelEngine(network, examples(), {"soap": SOAP}).in_heats(range(4))
    engine = JaxEngine(examples(), {"soap": SOAP}, lanes=2, threads=1, model=whole._evaluator.model)
    assert SOAP.rest is None  # it takes vectors too
    lost, *entries = [Entry("soap", 1e30 if seed == 0 else 0.1, seed) for seed in range(4)]
    found = [run for progress in engine.train([lost, *entries]) for run in progress.finished]
    assert next(run for run in found if run.seed == 0).diverged_at == 1
    for run in found:
        if run.seed:
            np.testing.assert_allclose(run.valid_loss, losses_by_hand(run.seed, 0.1), rtol=1e-4)
