"""State that goes to NumPy, PyTorch and back, by name."""

import keras
import numpy as np
import pytest
from each_backend import each_on, on, once
from network import Bound, fit, gradients_of, network, path_of, start_of, values_of, variables_of

import downslope
import downslope.keras
from downslope.dialects import keras as dialect
from downslope.training.checkpoint import CheckpointError

SHAPES = [(4, 3), (3,)]
NAMES = ["kernel", "bias"]
STEPS = gradients_of(SHAPES, 30)


def in_numpy(formula, arrays, settings, options):
    """The same optimizer for NumPy arrays."""
    renamed = {"global_clipnorm": "max_norm"}
    options = {renamed.get(name, name): value for name, value in options.items()}
    decoupled = {"decoupled": True} if "weight_decay" in options else {}
    return downslope.Optimizer(arrays, formula, **settings, **options, **decoupled)


CASES = [
    (dialect.adam, {"lr": 0.01}, {"weight_decay": 0.1, "global_clipnorm": 4.0}, ["tensorflow"]),
    (dialect.nadam, {"lr": 0.01}, {}, ["tensorflow", "torch"]),
    (downslope.schedule_free_sgd, {"lr": 0.1}, {"cautious": True}, ["jax", "torch"]),
    (downslope.nesterov, {"lr": 0.02, "mu": 0.8}, {"weight_decay": 0.1}, ["tensorflow"]),
]


@each_on(("formula", "settings", "options"), CASES, ids=lambda value: getattr(value, "name", None))
def test_ten_steps_in_keras_ten_in_numpy_ten_in_keras(formula, settings, options, tmp_path):
    straight = downslope.keras.Optimizer(formula, **settings, **options)
    whole = path_of(straight, variables_of(SHAPES), STEPS)
    bound = Bound(start_of(SHAPES), 200)
    for seen in whole:
        bound.check(seen, seen)

    variables = variables_of(SHAPES)
    first = downslope.keras.Optimizer(formula, **settings, **options)
    path_of(first, variables, STEPS[:10])
    first.save(tmp_path / "first.safetensors", names=NAMES)

    arrays = {name: np.zeros(shape, "float32") for name, shape in zip(NAMES, SHAPES, strict=True)}
    second = in_numpy(formula, arrays, settings, options)
    second.load(tmp_path / "first.safetensors")
    assert second.t == 10
    np.testing.assert_array_equal(arrays["kernel"], values_of(variables[0]))
    for gradient in STEPS[10:20]:
        second.step(dict(zip(NAMES, gradient, strict=True)))
    second.save(tmp_path / "second.safetensors")

    third, last = downslope.keras.Optimizer(formula, **settings, **options), variables_of(SHAPES)
    third.build(last)
    third.load(tmp_path / "second.safetensors", names=NAMES)
    np.testing.assert_array_equal(values_of(last[0]), arrays["kernel"])
    path_of(third, last, STEPS[20:])
    bound.hold(map(values_of, last), whole[-1])
    assert int(third.iterations) == 30


@on("torch")  # the others would have to load PyTorch; what they write is read in NumPy above
def test_ten_steps_in_keras_and_twenty_in_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    import downslope.torch

    whole = path_of(downslope.keras.Adam(0.01), variables_of(SHAPES), STEPS)
    bound = Bound(start_of(SHAPES), 200)
    for seen in whole:
        bound.check(seen, seen)
    first = downslope.keras.Adam(0.01)
    path_of(first, variables_of(SHAPES), STEPS[:10])
    first.save(tmp_path / "state", names=NAMES)
    tensors = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in zip(NAMES, SHAPES, strict=True)}
    model = torch.nn.ParameterDict(tensors)
    second = downslope.torch.Optimizer(model.parameters(), dialect.adam)
    second.load(tmp_path / "state", model)
    for gradient in STEPS[10:]:
        for name, values in zip(NAMES, gradient, strict=True):
            tensors[name].grad = torch.from_numpy(values)
        second.step()
    bound.hold([tensors[name].detach().numpy() for name in NAMES], whole[-1])
    second.save(tmp_path / "state", model)
    back, variables = downslope.keras.Adam(0.01), variables_of(SHAPES)
    back.build(variables)
    back.load(tmp_path / "state", names=NAMES)
    np.testing.assert_array_equal(values_of(variables[1]), tensors["bias"].detach().numpy())
    np.testing.assert_array_equal(values_of(back.variables[2]), second.state[tensors["kernel"]]["momentums"].numpy())


@on("jax", "torch")  # on TensorFlow steps are taken, and state is held, as on PyTorch
def test_fit_goes_on_from_a_file_bit_for_bit(data, tmp_path):
    straight, later = (
        network(downslope.keras.Adam(0.01, weight_decay=0.01, gradient_accumulation_steps=2)) for _ in range(2)
    )
    fit(straight, data, 1)
    straight.optimizer.save(tmp_path / "state")
    later.optimizer.load(tmp_path / "state", later)
    for a, b in zip(fit(straight, data, 1), fit(later, data, 1), strict=True):
        np.testing.assert_array_equal(a, b)


@once
def test_variables_without_decay_are_a_group_of_their_own(data, tmp_path):
    optimizer = downslope.keras.Adam(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = network(optimizer)
    fit(model, data, 1)
    optimizer.save(tmp_path / "state")
    kernels, biases = ["dense/kernel", "dense_1/kernel"], ["dense/bias", "dense_1/bias"]
    arrays = dict(
        zip(["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"], model.get_weights(), strict=True)
    )
    groups = [
        {"params": {name: arrays[name].copy() for name in kernels}},
        {"params": {name: arrays[name].copy() for name in biases}, "weight_decay": 0.0},
    ]
    there = downslope.Optimizer(groups, dialect.adam, weight_decay=0.1, decoupled=True)
    there.load(tmp_path / "state")
    np.testing.assert_array_equal(there.params["dense_1/bias"], arrays["dense_1/bias"])
    assert (there.t, there.groups[1]["weight_decay"]) == (4, 0.0)


@once
def test_a_schedule_stays(tmp_path):
    from network import Rates

    variables = variables_of(SHAPES)
    optimizer = downslope.keras.Adam(Rates())
    path_of(optimizer, variables, STEPS[:3])
    optimizer.save(tmp_path / "state", names=NAMES)
    fixed = downslope.keras.Adam(0.25)
    fixed.build(variables_of(SHAPES))
    fixed.load(tmp_path / "state", names=NAMES)
    np.testing.assert_allclose(float(fixed.learning_rate), 0.25)
    assert int(fixed.iterations) == 3


def snapshot(optimizer, variables):
    return [values_of(v) for v in [*variables, *optimizer.variables]]


@once
def test_hyperparameters_cannot_be_changed_by_a_file(tmp_path):
    source, variables = downslope.keras.Adam(), variables_of(SHAPES)
    path_of(source, variables, STEPS[:2])
    source.save(tmp_path / "state", names=NAMES)
    optimizer, held = downslope.keras.Adam(beta_1=0.8), variables_of(SHAPES)
    optimizer.build(held)
    before = snapshot(optimizer, held)
    with pytest.raises(CheckpointError, match=r"the file has beta_1=0.9 \(here 0.8\)"):
        optimizer.load(tmp_path / "state", names=NAMES)
    for a, b in zip(before, snapshot(optimizer, held), strict=True):
        np.testing.assert_array_equal(a, b)


@once
def test_variables_of_tensorflow_are_saved_too(tmp_path):
    import tensorflow as tf

    variable = tf.Variable([1.0, 2.0])
    optimizer = downslope.keras.SGD(0.5)
    optimizer.apply_gradients([(tf.ones(2), variable)])
    optimizer.save(tmp_path / "state", names=["w"])
    variable.assign([0.0, 0.0])
    optimizer.load(tmp_path / "state", names=["w"])
    np.testing.assert_array_equal(variable.numpy(), [0.5, 1.5])


@on("jax")  # which counts in 32 bits
def test_more_steps_than_can_be_counted_change_nothing(tmp_path):
    elsewhere = downslope.Optimizer({"w": np.ones(3, "float32")}, downslope.sgd)
    elsewhere.t = 2**40
    elsewhere.save(tmp_path / "state")
    variable = keras.Variable(np.zeros(3, "float32"))
    optimizer = downslope.keras.Optimizer(downslope.sgd)
    optimizer.build([variable])
    with pytest.raises(CheckpointError, match="more steps than Keras counts"):
        optimizer.load(tmp_path / "state", names=["w"])
    np.testing.assert_array_equal(values_of(variable), [0, 0, 0])


@once
def test_what_cannot_be_saved(tmp_path):
    for settings, message in [
        ({"clipvalue": 1.0}, "clipvalue=1.0 is Keras's own"),
        ({"use_ema": True}, "use_ema=True"),
    ]:
        optimizer = downslope.keras.Adam(**settings)
        optimizer.build(variables_of(SHAPES))
        with pytest.raises(ValueError, match=message):
            optimizer.save(tmp_path / "state", names=NAMES)
    with pytest.raises(ValueError, match="give the model"):
        downslope.keras.Adam().save(tmp_path / "state")
    optimizer = downslope.keras.Adam(gradient_accumulation_steps=2)
    path_of(optimizer, variables_of(SHAPES), STEPS[:3])
    with pytest.raises(ValueError, match="a step that is still to come"):
        optimizer.save(tmp_path / "state", names=NAMES)
    for names, error, message in [
        (["one"], ValueError, "names has 1 entries"),
        ({"no": "x"}, ValueError, "not among the variables"),
        (["a", "a"], ValueError, "must be different"),
        ("ab", TypeError, "give a list of names"),
    ]:
        optimizer = downslope.keras.Adam()
        optimizer.build(variables_of(SHAPES))
        with pytest.raises(error, match=message):
            optimizer.save(tmp_path / "state", names=names)
    assert not (tmp_path / "state").exists()


@once
def test_names_do_not_depend_on_how_many_models_there_were(tmp_path):
    from safetensors import safe_open

    found = []
    for k in range(2):
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(4)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.Dense(3)(hidden)))
        model.compile(downslope.keras.SGD())
        model.optimizer.save(tmp_path / str(k), model, {"head/bias": "last"})
        with safe_open(tmp_path / str(k), "numpy") as file:
            found.append(sorted(file.keys()))
    layers = ["dense/bias", "dense/kernel", "dense_1/bias", "dense_1/kernel", "head/kernel", "last"]
    assert found == [[f"x/{name}" for name in layers]] * 2
