"""Races on models of Keras: the very numbers of Keras's own loop, from one compiled model for all runs of a rule."""

import keras
import numpy as np
import pytest
from each_backend import on

import downslope
import muon_by_hand
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.model_engine import ModelEngine, examples_for
from downslope.lab.engines.order import batch_order
from downslope.lab.engines.protocol import Entry
from downslope.lab.engines.schedule import Schedule
from downslope.lab.problems.columns import DataError
from downslope.lab.problems.examples import examples_of

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4)).astype(np.float32)
CLASSES = (X[:, 0] > 0).astype(int)
LAYERS = ((6, "tanh"), (5, "tanh"), (2, None))


def make_net(seed):
    return keras.Sequential(
        [keras.layers.Dense(8, activation="tanh"), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    )


def engine_of(make, rules=("sgd",), loss=None, **options):
    entrants = {name: Entrant.of(name, getattr(downslope, name), {}) for name in rules}
    return ModelEngine(make, examples_for((X, CLASSES), loss, epochs=2, batch_size=16), entrants, loss=loss, **options)


def loop(parts, seed, lr):
    """Validation losses of a loop of Keras, and the loss on the test rows."""
    keras.utils.set_random_seed(seed)
    model = make_net(seed)
    model.build((None, 4))
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(lr), loss=criterion)

    def loss_on(rows):
        return float(criterion(CLASSES[rows], model.predict_on_batch(X[rows])))

    losses = [loss_on(parts.valid)]
    for epoch in (1, 2):
        for rows in parts.train[batch_order(seed, epoch, len(parts.train), 16)]:
            model.train_on_batch(X[rows], CLASSES[rows])
        losses.append(loss_on(parts.valid))
    return losses, loss_on(parts.test)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_is_a_loop_of_keras_and_the_same_after_others(schedule):
    engine = engine_of(make_net, schedule=Schedule.of(schedule))
    first, other, again = (
        engine.run(Entry("sgd", lr, seed, "verdict")) for lr, seed in ((0.05, 7), (0.5, 3), (0.05, 7))
    )
    assert again == first
    for run in (first, other):
        rate = run.lr if schedule == "constant" else keras.optimizers.schedules.CosineDecay(run.lr, 8)
        losses, test = loop(engine.examples.split(0, run.seed), run.seed, rate)
        assert run.valid_loss == pytest.approx(losses, rel=1e-6)
        assert run.test_loss == pytest.approx(test, rel=1e-6)
    assert first.train_loss[0] != first.valid_loss[0]
    assert first.valid_accuracy[-1] > 0.5


@on("tensorflow")
def test_rules_that_look_ahead_or_begin_at_the_weights_are_the_same_after_others():
    engine = engine_of(make_net, ("nesterov", "schedule_free_sgd"))
    for name in ("nesterov", "schedule_free_sgd"):
        first, other, again = (engine.run(Entry(name, lr, seed)) for lr, seed in ((0.05, 7), (0.5, 3), (0.05, 7)))
        assert again == first
        assert (first.cause, other.cause) == ("", "")
        assert first.final_loss < first.valid_loss[0]


@on("tensorflow")
@pytest.mark.parametrize(
    ("make", "loss", "said"),
    [
        (lambda seed: keras.Sequential([keras.layers.Flatten()]), None, "has no variable to train"),
        (lambda seed: keras.Sequential([keras.layers.Dense(2, activation="softmax")]), None, "probabilities that sum"),
        (make_net, keras.losses.sparse_categorical_crossentropy, "shape .*give one number|failed"),
        (lambda seed: keras.Sequential([keras.layers.Dense(1)]), None, "targets are of 2 classes"),
    ],
)
def test_models_that_no_race_can_be_made_of_are_refused(make, loss, said):
    with pytest.raises(ValueError, match=said):
        engine_of(make, loss=loss)


@on("tensorflow")
def test_a_loss_of_keras_is_called_as_keras_does_and_an_instance_is_refused():
    probable = engine_of(
        lambda seed: keras.Sequential([keras.layers.Dense(2, activation="softmax")]),
        loss=keras.losses.SparseCategoricalCrossentropy(),
    )
    plain = engine_of(lambda seed: keras.Sequential([keras.layers.Dense(2)]))
    one, other = (engine.run(Entry("sgd", 0.1, 1)) for engine in (probable, plain))
    assert one.valid_loss == pytest.approx(other.valid_loss, rel=1e-5)
    with pytest.raises(ValueError, match=r"a Sequential that is made is no factory"):
        engine_of(make_net(0))


@on("tensorflow")
def test_the_rows_of_a_tensorflow_dataset_batched_or_not():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, CLASSES))
    single, batched = examples_of(data), examples_of(data.batch(9))
    np.testing.assert_array_equal(single.x, X)
    np.testing.assert_array_equal(batched.x, X)
    np.testing.assert_array_equal(single.y, CLASSES)
    assert (single.batch_size, batched.batch_size) == (4, 9)
    with pytest.raises(DataError, match="does not hold pairs"):
        examples_of(tf.data.Dataset.from_tensor_slices(X))
    with pytest.raises(DataError, match=r"never ends; leave out its repeat\(\)"):
        examples_of(data.repeat().batch(9))


@on("tensorflow")
def test_a_tensorflow_dataset_of_unknown_length(monkeypatch):
    import tensorflow as tf

    spec = tf.TensorSpec(X.shape[1:], tf.float32), tf.TensorSpec((), tf.int64)
    rows = tf.data.Dataset.from_generator(lambda: zip(X, CLASSES, strict=True), output_signature=spec)
    for data in (rows, rows.batch(9), rows.filter(lambda x, y: True)):
        np.testing.assert_array_equal(examples_of(data).x, X)
    same = examples_of(tf.data.Dataset.from_tensor_slices((X, X)))  # a row of each, not a batch
    assert same.x.shape == same.y.shape == X.shape
    untold = tf.TensorSpec(None, tf.float32), tf.TensorSpec(None, tf.int64)
    with pytest.raises(DataError, match="does not say how many axes"):
        examples_of(tf.data.Dataset.from_generator(lambda: zip(X, CLASSES, strict=True), output_signature=untold))
    monkeypatch.setattr("downslope.lab.problems.readers.MOST_BYTES", 10_000)
    with pytest.raises(DataError, match=r"gave 1.*e-05 GB of rows and has not ended"):
        examples_of(rows.filter(lambda x, y: True).repeat().filter(lambda x, y: True))


def test_muon_trains_the_inner_matrix_and_adamw_the_rest():
    def make(seed):
        return keras.Sequential([keras.layers.Dense(n, activation=how, use_bias=False) for n, how in LAYERS])

    def begun(seed):
        model = make(seed)
        model.build((None, 4))
        model.set_weights(muon_by_hand.weights_of(seed))
        return model

    muon = Entrant.of("muon+adamw", downslope.muon, {})
    engine = ModelEngine(begun, muon_by_hand.examples(), {"muon+adamw": muon})
    assert "adamw the rest at the same learning rate" in engine.cautions[-1]
    for lr, seed in ((0.05, 7), (0.2, 3), (0.05, 7)):  # by one compiled model
        run = engine.run(Entry("muon+adamw", lr, seed))
        by_hand = muon_by_hand.losses_by_hand(seed, lr, outputs_first=False)
        assert run.valid_loss == pytest.approx(by_hand, rel=2e-4), run.cause
