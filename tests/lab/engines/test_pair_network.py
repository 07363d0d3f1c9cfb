"""Networks of one's own in JAX: the very numbers of a loop, side by side in compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import downslope
from downslope.lab import race
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.model_engine import ModelEngine, examples_for
from downslope.lab.engines.order import batch_order
from downslope.lab.engines.protocol import Entry

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4)).astype(np.float32)
CLASSES = (X[:, 0] > 0).astype(int)
ENTRANTS = {"adam": Entrant.of("adam", downslope.adam, {})}


def init(key):
    one, two = jax.random.split(key)
    return {"first": jax.random.normal(one, (4, 8)) / 2, "last": [jax.random.normal(two, (8, 2)) / 3, jnp.zeros(2)]}


def apply(weights, x):
    return jnp.tanh(x @ weights["first"]) @ weights["last"][0] + weights["last"][1]


def make_net(seed):
    return init, apply


def surprise(outputs, targets):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()


def engine_of(make, data=(X, CLASSES), loss=None):
    return ModelEngine(make, examples_for(data, loss, epochs=3, batch_size=16), ENTRANTS, loss=loss)


def loop(seed, lr):
    """Validation losses and the loss on the test rows of a loop of Optax."""
    train, valid, test = examples_for((X, CLASSES), None).split(0, seed)
    steps = 3 * (len(train) // 16)
    weights, optimizer = init(jax.random.key(seed)), optax.adam(optax.cosine_decay_schedule(lr, steps))
    state = optimizer.init(weights)
    x, y = jnp.asarray(X), jnp.asarray(CLASSES)
    loss = jax.jit(lambda w, rows: surprise(apply(w, x[rows]), y[rows]))
    gradient = jax.jit(jax.grad(loss))
    losses = [loss(weights, valid)]
    for epoch in range(1, 4):
        for rows in train[batch_order(seed, epoch, len(train), 16)]:
            updates, state = optimizer.update(gradient(weights, rows), state)
            weights = optax.apply_updates(weights, updates)
        losses.append(loss(weights, valid))
    return [float(one) for one in losses], float(loss(weights, test))


def test_a_run_is_bitwise_the_same_in_the_first_lane_in_the_last_alone_and_after_a_refill():
    heats = engine_of(make_net).in_heats((0, 7), 1)
    one = Entry("adam", 0.05, 7)
    others = [Entry("adam", 10.0 ** (k % 5 - 3), 0) for k in range(heats.lanes - 2)]

    def found(*entries):
        return [run for each in heats.train(entries) for run in each.finished if run.entry == one]

    (alone,) = found(one)
    assert alone.valid_loss[-1] < alone.valid_loss[0]
    assert found(one, *others, one, one) == [alone] * 3  # for the last no lane is free but one that a run has left


def taking_rows(key, x):
    assert x.shape[1:] == (4,)
    return init(key)


def test_a_race_on_a_network_of_jax_is_a_loop_of_optax():
    few = {"learning_rates": [0.05], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 1, "threads": 1}
    few |= {"epochs": 3, "batch_size": 16, "schedule": "cosine"}
    found = race(model=make_net, data=(X, CLASSES), rules={"adam": downslope.adam}, **few)
    (run,) = found.rules[0].verdict
    losses, test = loop(run.seed, found.rules[0].best_lr)
    assert run.valid_loss == pytest.approx(losses, rel=1e-4)
    assert run.test_loss == pytest.approx(test, rel=1e-4)
    assert run.valid_accuracy[-1] > 0.8
    assert (found.network, found.weights, found.sizes["train"]) == ("network of JAX", 50, 72)
    assert found.rules[0].default_loss is not None
    assert run.test_accuracy > 0.7


@pytest.mark.parametrize("make", [lambda seed: (taking_rows, apply), lambda seed: (init(jax.random.key(seed)), apply)])
def test_pairs_are_the_same_network_and_a_loss_of_ones_own_is_the_mean_of_its_rows(make):
    networks = [engine_of(one, loss=loss).in_heats((0, 7), 1) for one in (make, make_net) for loss in (None, surprise)]
    found = [one.begin(Entry("adam", 0.05, 7)).weights for one in networks]
    for weights in found[1:]:
        for one, other in zip(weights, found[0], strict=True):
            np.testing.assert_array_equal(one, other)
    models = [one._evaluator.model for one in networks[:2]]
    outputs = models[0].outputs(found[0], X)
    plain, own = (model.losses(outputs, CLASSES) for model in models)
    np.testing.assert_allclose(plain, own, rtol=1e-5)
    assert float(plain.mean()) == pytest.approx(float(surprise(outputs, CLASSES)), rel=1e-5)
    assert (models[0].accurate, models[1].accurate) == (True, False)


def test_rows_of_tokens_are_told_apart_one_by_one():
    tokens = RANDOM.integers(0, 5, (60, 6))
    pair = {"table": 2 * np.eye(5, dtype=np.float32)}, lambda weights, x: weights["table"][x]
    model = engine_of(lambda seed: pair, data=(tokens, tokens)).in_heats((0,), 1)._evaluator.model
    outputs = model.outputs(model.initial(0), tokens)
    np.testing.assert_allclose(model.losses(outputs, tokens), np.log(4 + np.e**2) - 2, rtol=1e-5)
    np.testing.assert_array_equal(model.hits(outputs, tokens), 1)


def test_a_limit_of_seconds_is_for_runs_that_are_trained_one_at_a_time():
    with pytest.raises(ValueError, match="limit=3 is for runs that are trained one at a time"):
        race(model=make_net, data=(X, CLASSES), limit=3)


def test_what_a_seed_decides_is_among_the_weights():
    features = np.random.default_rng(0).normal(size=(8, 4))
    engine = engine_of(lambda seed: (init, lambda weights, x: apply(weights, x * features[seed])))
    with pytest.raises(ValueError, match="networks of two seeds give different outputs with the same weights"):
        engine.in_heats((0, 7), 1)


@pytest.mark.parametrize(
    ("make", "loss", "said"),
    [
        (lambda seed: (lambda key: {"w": jnp.zeros(3, int)}, apply), None, r"the weight \['w'\] is int32; give floats"),
        (lambda seed: (lambda key: {}, apply), None, "has no weight to train"),
        (lambda seed: (init(jax.random.key(0)), init), None, "evaluating it failed"),
        (lambda seed: ({"w": np.full(3, np.nan)}, apply), None, "weights that are not finite"),
        (lambda seed: (np.random.rand, apply), None, "making it failed"),
        (lambda seed: ({"w": jnp.ones((4, 2 + seed))}, apply), None, "different shapes"),
        (make_net, lambda outputs, targets: outputs[:, 0] ** 2, "give one number"),
        (make_net, lambda outputs, targets: (targets**2).mean(), "its gradient is 0 everywhere"),
        (
            lambda seed: (init, lambda w, x: apply(w, x) if float(x.sum()) > 0 else -apply(w, x)),
            None,
            "training it failed: ConcretizationTypeError|TracerBoolConversion",
        ),
        ((init, apply), None, "no factory"),
        (
            make_net,
            lambda outputs, targets: jnp.sqrt(jnp.mean((outputs[:, 0] - targets) ** 2)),
            r"loss: it gives \S+ for 16 rows together, and \S+ as the mean over these rows one by one; give a loss",
        ),
        (make_net, lambda outputs, targets: surprise(outputs, targets) * len(targets), "rows one by one"),
        (
            lambda seed: ({"params": jnp.ones(2), "batch_stats": jnp.ones(2)}, apply),
            None,
            "has batch_stats beside params",
        ),
    ],
)
def test_pairs_that_no_race_can_be_made_of_are_refused(make, loss, said):
    with pytest.raises(ValueError, match=said):
        engine_of(make, loss=loss)
