"""Training with `fit`, callbacks, mixed precision, saving and loading.

What compiles takes long. So where a test has two cases TensorFlow, which keeps state in variables as PyTorch does, sees
one, JAX, which hands it on, the other, and PyTorch, which compiles nothing, both.
"""

import concurrent.futures

import keras
import numpy as np
import pytest
from each_backend import each_on, mirrored, on, once
from network import Rates, fit, network, values_of

import downslope
import downslope.keras
from downslope import rule

BACKEND = keras.backend.backend()
own_rules = {}


@rule
def halved(x, dx, v=0, *, lr=0.1, mu=0.5):
    """A user's rule that other processes can import."""
    v = mu * v - lr * dx
    return x + v / 2, v


def local_rule():
    @rule
    def inner(x, dx, *, lr=0.1):
        return x - lr * dx

    return inner


def differences(mine, theirs):
    return max(np.abs(a - b).max() for a, b in zip(mine, theirs, strict=True))


ONE, OTHER = ("tensorflow", "torch"), ("jax", "torch")


@each_on(
    ("name", "settings"),
    [("AdamW", {"global_clipnorm": 1.0}, OTHER), ("Nadam", {"use_ema": True, "gradient_accumulation_steps": 2}, ONE)],
)
def test_fit_is_that_of_keras(name, settings, data):
    ours, theirs = (
        fit(network(getattr(place, name)(learning_rate=0.01, **settings)), data, 3)
        for place in (downslope.keras, keras.optimizers)
    )
    # 12 steps of at most 0.1 with a relative error of 1,200 roundings each (see checks_numbers), whose gradients follow
    assert differences(ours, theirs) < 12 * 0.1 * 1200 * np.finfo("float32").eps
    assert differences(ours, network("sgd").get_weights()) > 0.01


def test_every_loop_takes_the_same_steps(data):
    x, y = data
    reference = fit(network(downslope.keras.Adam(0.01)), data, 1)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def batch(model, optimizer, inputs, targets):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(inputs) - targets))
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        for wrap in (lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)):
            model, optimizer = network("sgd"), downslope.keras.Adam(0.01)
            optimizer.build(model.trainable_variables)
            step = wrap(lambda a, b, m=model, o=optimizer: batch(m, o, a, b))
            for k in range(0, 64, 16):
                step(tf.constant(x[k : k + 16]), tf.constant(y[k : k + 16]))
            assert int(optimizer.iterations) == 4
            assert differences(model.get_weights(), reference) < 1e-5
    eagerly = {"run_eagerly": True, "jit_compile": False}
    for settings in (eagerly, {"jit_compile": True})[: 2 if BACKEND == "tensorflow" else 1]:  # JAX has always done so
        assert differences(fit(network(downslope.keras.Adam(0.01), **settings), data, 1), reference) < 1e-5


@each_on(("formula",), [(downslope.schedule_free_adamw, OTHER), (halved, ONE)], ids=lambda r: getattr(r, "name", None))
def test_a_saved_model_trains_on_with_the_same_numbers(formula, data, tmp_path):
    path = tmp_path / "model.keras"
    straight = network(downslope.keras.Optimizer(formula, lr=0.02, cautious=formula is halved))
    callbacks = [downslope.keras.AtWeights()]
    fit(straight, data, 1, callbacks=callbacks)
    straight.save(path)
    resumed = keras.saving.load_model(path)
    assert isinstance(resumed.optimizer, downslope.keras.Optimizer)
    assert resumed.optimizer.rule is formula
    assert resumed.optimizer.get_config() == straight.optimizer.get_config()
    assert int(resumed.optimizer.iterations) == 4
    fit(straight, data, 1, callbacks=callbacks)
    fit(resumed, data, 1, callbacks=callbacks)
    for a, b in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(straight.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(values_of(a), values_of(b))


@once
def test_a_drop_in_is_saved_under_its_own_name(data, tmp_path):
    model = network(downslope.keras.RMSprop(Rates(), momentum=0.9, centered=True, weight_decay=0.01))
    before = fit(model, data)
    model.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Rates": Rates})
    assert type(resumed.optimizer) is downslope.keras.RMSprop
    assert (resumed.optimizer.momentum, resumed.optimizer.centered) == (0.9, True)
    assert resumed.optimizer.weight_decay == 0.01
    assert differences(resumed.get_weights(), before) == 0


@once
def test_state_goes_to_keras_and_back(data):
    ours, theirs = network(downslope.keras.Adam(0.01, amsgrad=True)), network(keras.optimizers.Adam(0.01, amsgrad=True))
    fit(theirs, data)
    ours.set_weights(theirs.get_weights())
    ours.optimizer.build(ours.trainable_variables)
    ours.optimizer.set_weights([values_of(v) for v in theirs.optimizer.variables])
    assert differences(fit(ours, data), fit(theirs, data)) < 1e-5


@once
def test_a_rule_that_is_not_there_is_named(data, tmp_path):
    formula = local_rule()
    model = network(downslope.keras.Optimizer(formula))
    before = fit(model, data, 1)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"inner.* is not known here: import the module.* or pass custom_objects"):
        keras.saving.load_model(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"inner": formula})
    assert resumed.optimizer.rule is formula
    assert differences(resumed.get_weights(), before) == 0


@once
@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "downslope.rules.no_such:adam",
        "downslope.rules.adaptive:rule",
        "antigravity:adam",
        "adam",
        ":",
        "a.b:c.d",
    ],
)
def test_a_file_cannot_have_anything_imported_or_called(name):
    import sys

    config = {**downslope.keras.Optimizer(downslope.adam).get_config(), "rule": name}
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"the rule|has no rules"):
        downslope.keras.Optimizer.from_config(config)
    assert set(sys.modules) <= {*before, "downslope.rules.no_such"}


@once
def test_callbacks_change_the_learning_rate(data):
    seen = []
    optimizer = downslope.keras.Adam(0.01)
    model = network(optimizer)
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(float(optimizer.learning_rate))),
    ]
    fit(model, data, 3, callbacks=callbacks)
    np.testing.assert_allclose(seen, [0.005, 0.0025, 0.00125], rtol=1e-6)
    optimizer.learning_rate = 0.0
    before = model.get_weights()
    assert differences(fit(model, data, 1), before) == 0
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=0, factor=0.1)
    optimizer.learning_rate = 1e-3
    fit(network(optimizer := downslope.keras.SGD(1e-12)), data, 3, callbacks=[plateau])
    assert float(optimizer.learning_rate) < 1e-12


def test_mixed_precision_scales_the_loss(data):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        ours, theirs = (network(place.Adam(0.01)) for place in (downslope.keras, keras.optimizers))
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(ours.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(ours.optimizer.inner_optimizer, downslope.keras.Adam)
    assert ours.trainable_variables[0].dtype == "float32"
    # the gradients have eleven bits
    assert differences(fit(ours, data), fit(theirs, data)) < 8 * 0.01 * 0.05
    assert 0 < int(ours.optimizer.iterations) <= 8


def test_half_precision_rounds_once(data):
    optimizer = downslope.keras.Optimizer(downslope.adam, lr=0.5)
    variable = keras.Variable(np.ones(3, "float32"), dtype="bfloat16")
    optimizer.apply([keras.ops.cast([1.0, -1.0, 0.5], "bfloat16")], [variable])
    np.testing.assert_array_equal(values_of(variable).astype("float32"), [0.5, 1.5, 0.5])
    assert optimizer.variables[-1].dtype == "bfloat16"


def test_gradients_that_are_missing(data):
    shapes = [(3,), (2,)]
    first, second = (keras.Variable(np.ones(shape, "float32")) for shape in shapes)
    optimizer = downslope.keras.Optimizer(downslope.adam, lr=0.1)
    optimizer.build([first, second])
    gradient = keras.ops.convert_to_tensor(np.ones(3, "float32"))
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([gradient, None], [first, second])
    np.testing.assert_array_equal(values_of(second), [1, 1])
    optimizer.apply([gradient, gradient[:2]], [first, second])
    # Keras counts steps for all variables together: t is 2 for both
    m_hat, v_hat = 0.1 / (1 - 0.9**2), 0.001 / (1 - 0.999**2)
    np.testing.assert_allclose(values_of(first), [0.8] * 3, rtol=1e-6)
    np.testing.assert_allclose(values_of(second), [1 - 0.1 * m_hat / np.sqrt(v_hat)] * 2, rtol=1e-6)


def test_a_variable_with_two_gradients_takes_two_steps():
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer = downslope.keras.SGD(0.25)
    optimizer.apply_gradients([(keras.ops.ones(3), variable), (2 * keras.ops.ones(3), variable)])
    np.testing.assert_array_equal(values_of(variable), [0.25] * 3)


@once
def test_an_embedding_is_updated_as_if_dense():
    """A row that is looked up twice too, where Keras's own squares the parts of its gradient, not their sum."""
    x, y = np.array([[0, 1], [1, 2]]), np.ones((2, 2, 1), "float32")
    looked_up = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(5, 3), keras.layers.Dense(1)])
    dense = keras.Sequential([keras.Input((2, 5)), keras.layers.Dense(3, use_bias=False), keras.layers.Dense(1)])
    dense.set_weights(looked_up.get_weights())
    looked_up.compile(downslope.keras.Adam(0.01), "mse", jit_compile=False)
    dense.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    looked_up.fit(x, y, epochs=3, verbose=0)
    dense.fit(keras.ops.one_hot(x, 5), y, epochs=3, verbose=0)
    assert differences(looked_up.get_weights(), dense.get_weights()) < 1e-5


@on(*OTHER)
def test_validation_is_at_the_weights_with_the_callback(data):
    model = network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05, mu=0.9))
    ahead = []

    class Batches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ahead.append([values_of(v) for v in self.model.trainable_variables])

    callbacks = [downslope.keras.AtWeights(), Batches()]
    settings = {"epochs": 3, "batch_size": 16, "shuffle": False, "verbose": 0}
    history = model.fit(*data, validation_data=data, callbacks=callbacks, **settings).history
    final = float(model.evaluate(*data, verbose=0))
    np.testing.assert_allclose(history["val_loss"][-1], final, rtol=1e-5)  # fit leaves the model at its weights
    assert differences(ahead[-1], model.get_weights()) > 1e-3  # during training it held the point ahead
    plain = network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05, mu=0.9, lookahead="stored"))
    assert differences(fit(plain, data, 3), model.get_weights()) == 0


class Looking(keras.callbacks.Callback):
    """Keeps what it finds of a model's weights, as callbacks that average them do."""

    def __init__(self):
        super().__init__()
        self.after_batches, self.after_epochs, self.variables = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.after_batches.append(self.model.get_weights())

    def on_epoch_end(self, epoch, logs=None):
        self.after_epochs.append(self.model.get_weights())
        self.variables.append([values_of(v) for v in self.model.trainable_variables])


@each_on(
    ("formula", "first"),
    [(downslope.nesterov, True, OTHER), (downslope.schedule_free_adamw, False, ONE)],
    ids=lambda value: {True: "first", False: "last"}.get(value),
)
def test_callbacks_keep_save_and_restore_the_weights(formula, first, data, tmp_path):
    """Wherever they stand among the callbacks, at the end of an epoch and in the middle of it."""

    def model():
        return network(downslope.keras.Optimizer(formula, lr=0.05))

    weights = [fit(model(), data, n, callbacks=[downslope.keras.AtWeights()]) for n in (1, 2)]
    looking = Looking()
    others = [
        looking,
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=2),
        keras.callbacks.EarlyStopping("val_loss", patience=1, mode="max", restore_best_weights=True),
    ]
    at = downslope.keras.AtWeights()
    trained = model()
    callbacks = [at, *others] if first else [*others, at]
    restored = fit(trained, data, 9, validation_data=data, callbacks=callbacks)
    assert len(looking.after_epochs) == 2
    assert differences(restored, weights[0]) == 0
    for k, expected in enumerate(weights):
        assert differences(looking.after_epochs[k], expected) == 0
        assert differences(looking.after_batches[4 * k + 3], expected) == 0
        assert not first or differences(looking.variables[k], expected) == 0
        assert differences(keras.saving.load_model(tmp_path / f"{k + 1}.keras").get_weights(), expected) == 0
        other = model()
        other.optimizer.build(other.trainable_variables)
        other.load_weights(tmp_path / f"{k + 1}-4.weights.h5")
        assert differences(other.get_weights(), expected) == 0
    assert trained.get_weights.__func__ is keras.Model.get_weights  # nothing is left behind


@each_on(("first",), [(True, ONE), (False, OTHER)], ids=lambda value: {True: "first", False: "last"}.get(value))
def test_a_training_goes_on_from_a_backup(first, data, tmp_path):
    class Power(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 6:
                raise ConnectionError("gone")

    def model():
        return network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05))

    whole = fit(model(), data, 3, callbacks=[downslope.keras.AtWeights()])
    at, backup = downslope.keras.AtWeights(), keras.callbacks.BackupAndRestore(tmp_path / "backup")
    callbacks = [at, backup] if first else [backup, at]
    with pytest.raises(ConnectionError):
        fit(model(), data, 3, callbacks=[*callbacks, Power()])
    gone_on = fit(model(), data, 3, callbacks=callbacks)
    # once to the weights and back: two roundings of weights below 2, which some steps may double
    assert differences(gone_on, whole) < 2 * 2 * 10 * np.finfo("float32").eps


@each_on(
    ("middle",), [(True, ONE), (False, OTHER)], ids=lambda value: {True: "in an epoch", False: "between"}.get(value)
)
def test_weights_that_a_callback_sets_are_gone_on_from(middle, data):
    start = [np.full_like(w, 0.25) for w in network("sgd").get_weights()]

    class Setting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if middle and int(self.model.optimizer.iterations) == 4:
                self.model.set_weights(start)

        def on_epoch_end(self, epoch, logs=None):
            if not middle and epoch == 0:
                self.model.set_weights(start)

    class Still(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.optimizer.learning_rate = 0.0

    found = fit(
        network(downslope.keras.Optimizer(halted, lr=0.05)),
        data,
        2,
        callbacks=[downslope.keras.AtWeights(), Setting(), Still()],
    )
    assert differences(found, start) < 1e-6


@rule
def halted(x, dx, v=0, *, lr=0.1):
    """Moves only while it has a learning rate, and looks half a step ahead."""
    v = -lr * dx
    return x + v, v


@halted.lookahead
def halted(v):
    return 0.5 * v


def test_fit_insists_on_the_callback(data, tmp_path):
    """So that no other callback takes the points ahead for the weights."""
    model = network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05))
    before = model.get_weights()
    if BACKEND == "jax":
        warned = pytest.warns(UserWarning, match=r"nesterov keeps the point ahead.*AtWeights\(\)")
        with warned, pytest.raises(RuntimeError, match=r"the model has its weights, but nesterov"):
            fit(model, data)
        assert differences(model.get_weights(), before) > 1e-3
    else:
        with pytest.raises(RuntimeError, match=r"nesterov keeps the point ahead.*AtWeights\(\)"):
            fit(model, data)
        assert differences(model.get_weights(), before) == 0
    model = network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05))
    fit(model, data, callbacks=[downslope.keras.AtWeights()])
    with pytest.raises(RuntimeError, match=r"nesterov keeps the point ahead"):
        fit(model, data)  # whose step is compiled already, except on PyTorch
    model = network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05, lookahead="stored"))
    with pytest.raises(ValueError, match=r"hold the points ahead of the weights.*at_weights\(\)"):
        fit(model, data, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")])
    assert keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(downslope.keras.Optimizer(downslope.nesterov))
    )._insisting


def test_what_a_loop_of_ones_own_saves_are_the_weights(data, tmp_path):
    model = network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05, lookahead="stored"))
    for _ in range(3):
        model.train_on_batch(*data)
    with pytest.raises(ValueError, match=r"hold the points ahead of the weights.*at_weights\(\)"):
        model.save(tmp_path / "model.keras")
    with model.optimizer.at_weights():
        model.save(tmp_path / "model.keras")
        weights = model.get_weights()
    assert differences(model.get_weights(), weights) > 1e-3
    assert differences(keras.saving.load_model(tmp_path / "model.keras").get_weights(), weights) == 0


@on("jax")  # Keras takes the values away only there
def test_an_error_in_a_step_is_the_one_that_is_seen(data):
    calls = []

    def failing(targets, outputs):
        calls.append(targets)
        if len(calls) > 1:  # the first is to find out about shapes
            raise ArithmeticError("of the loss")
        return keras.ops.mean(targets - outputs)

    model = network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05), loss=failing)
    with pytest.raises(ArithmeticError, match="of the loss"):
        fit(model, data, callbacks=[downslope.keras.AtWeights()])


@once
def test_a_second_fit_goes_on_at_the_point_ahead(data):
    whole, parts = (network(downslope.keras.Optimizer(downslope.nesterov, lr=0.05)) for _ in range(2))
    fit(whole, data, 2, callbacks=[downslope.keras.AtWeights()])
    for _ in range(2):
        fit(parts, data, 1, callbacks=[downslope.keras.AtWeights()])
    # once to the weights and back: two roundings of weights below 2, which some steps may double
    assert differences(whole.get_weights(), parts.get_weights()) < 2 * 2 * 10 * np.finfo("float32").eps


@once
def test_explicit_lookahead():
    x = keras.Variable(np.array([1.0], "float32"))
    optimizer = downslope.keras.Optimizer(downslope.nesterov, lr=0.1, mu=0.5, lookahead="explicit")
    optimizer.apply([keras.ops.convert_to_tensor(np.array([2.0], "float32"))], [x])
    np.testing.assert_allclose(values_of(x), [0.8], rtol=1e-6)
    with optimizer.at_lookahead():
        np.testing.assert_allclose(values_of(x), [0.7], rtol=1e-6)
    np.testing.assert_allclose(values_of(x), [0.8], rtol=1e-6)


@on("torch")  # the others compute out of place
def test_two_threads_take_every_step_once_with_a_whole_gradient():
    variable = keras.Variable(np.zeros(5, "float32"))
    optimizer = downslope.keras.SGD(1.0)
    optimizer.build([variable])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # setting gradients at once once crashed the interpreter
        steps = [pool.submit(optimizer.apply, [keras.ops.ones(5)]) for _ in range(400)]
    assert all(step.result() is None for step in steps)
    np.testing.assert_array_equal(values_of(variable), np.full(5, -400))


@on("tensorflow")  # tf.distribute is its own
def test_mirrored_over_two_devices(data):
    """A rule that counts, looks ahead and has a state of one number."""
    formula = downslope.schedule_free_adamw
    settings = {"callbacks": [downslope.keras.AtWeights()]}
    alone = fit(network(downslope.keras.Optimizer(formula, lr=0.01)), data, 1, **settings)
    with mirrored().scope():
        model = network(downslope.keras.Optimizer(formula, lr=0.01))
    assert differences(fit(model, data, 1, **settings), alone) < 1e-5


@once
def test_what_is_refused():
    make, variable = downslope.keras.Optimizer, keras.Variable(np.ones(2, "float32"))
    with pytest.raises(TypeError, match=r"no hyperparameter 'beta'; it has .*did you mean beta"):
        make(downslope.adam, beta=0.9)
    with pytest.raises(ValueError, match=r"beta1=1.5 is out of range"):
        make(downslope.adam, beta1=1.5)
    with pytest.raises(ValueError, match=r"beta_1=1.5 is out of range"):
        downslope.keras.Adam(beta_1=1.5)
    with pytest.raises(TypeError, match="is not a rule"):
        make("adam")
    with pytest.raises(TypeError, match="give one"):
        make(downslope.adam, 0.1, lr=0.1)
    with pytest.raises(ValueError, match="lookahead='later' is unknown"):
        make(downslope.nesterov, lookahead="later")
    with pytest.raises(ValueError, match="use_ema=True would average the points ahead"):
        make(downslope.nesterov, use_ema=True)
    for name, value in [("weight_decay", 0.1), ("cautious", True), ("lookahead", "explicit")]:
        with pytest.raises(AttributeError, match=f"{name}={value!r}: make a new optimizer"):
            setattr(make(downslope.nesterov), name, value)
    with pytest.raises(ValueError, match="use_ema=True would average the points ahead"):
        make(downslope.nesterov).use_ema = True
    for formula in (downslope.nesterov, downslope.adamw):
        with pytest.raises(ValueError, match=r"weight_decay=None: .*give a number"):
            make(formula, weight_decay=0.1).weight_decay = None
    for name, value in [("clipnorm", -1.0), ("global_clipnorm", 0), ("loss_scale_factor", 0.0), ("clipvalue", np.nan)]:
        with pytest.raises(ValueError, match=f"{name}={value!r} is out of range"):
            make(downslope.adam, **{name: value})
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps=2\.5: give a whole number"):
        downslope.keras.Adam(gradient_accumulation_steps=2.5)
    for dtype in ("int32", "complex64"):
        with pytest.raises(TypeError, match=f"is of dtype {dtype}"):
            make(downslope.adam).build([keras.Variable(np.ones(2), dtype=dtype)])
    with pytest.raises(TypeError, match="give momentum="):
        make(downslope.dialects.keras.sgd_momentum)
    optimizer = make(downslope.adamw, weight_decay=0.5)
    assert optimizer.weight_decay == 0.5
    with pytest.raises(TypeError, match="part of the formula of adamw"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.beta1 = 0.8
    assert optimizer.beta1 == 0.8
    optimizer.build([variable])
    with pytest.raises(AttributeError, match=r"beta1=0.7: .*make a new optimizer"):
        optimizer.beta1 = 0.7
    with pytest.raises(ValueError, match="has its variables already"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    for name, value in [("weight_decay", 0.1), ("clipnorm", 1.0), ("cautious", True)]:
        with pytest.raises(AttributeError, match=f"{name}={value}: .*make a new optimizer"):
            setattr(optimizer, name, value)
    with pytest.raises(AttributeError, match="no attribute 'betta'"):
        _ = optimizer.betta

    @rule
    def fixed(x, dx, *, size=0.1):
        return x - size * dx

    with pytest.raises(TypeError, match="fixed has no hyperparameter lr"):
        make(fixed, learning_rate=0.1)
    bare = make(fixed)
    with pytest.raises(TypeError, match="fixed has no hyperparameter lr"):
        bare.learning_rate = 0.5
    assert "learning_rate" not in bare.get_config()
    bare.apply([keras.ops.ones(2)], [variable])
    np.testing.assert_allclose(values_of(variable), [0.9, 0.9], rtol=1e-6)
