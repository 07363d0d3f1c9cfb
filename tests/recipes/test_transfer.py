"""Trainings that move: other names, other axes, another dialect."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import downslope
from downslope import CheckpointError, convert_file, rules
from downslope.cli import app
from downslope.dialects import keras, optax, torch
from downslope.training import checkpoint
from downslope.training.checkpoint import Raw

NAMES = {"dense/kernel": "0.weight", "dense/bias": "0.bias"}
DECAY = {"weight_decay": 0.1, "decoupled": True}
AVERAGE = {"averaging": 0.9}
AHEAD = {"nesterov": True, "momentum": 0.8}
AXES = {"dense/kernel": (1, 0)}


def weights():
    return {"dense/kernel": np.linspace(-1, 1, 6).reshape(2, 3), "dense/bias": np.array([0.5, -0.5, 2.0])}


def gradients(params, t):
    generator = np.random.default_rng(t)
    return {name: generator.standard_normal(np.shape(x)) + 0.1 * x for name, x in params.items()}


def train(rule, steps=5, **settings):
    optimizer = downslope.Optimizer(weights(), rule, **settings)
    for t in range(steps):
        optimizer.step(gradients(optimizer.params, t))
    return optimizer


def moved(params):
    return {NAMES[name]: array.T if name in AXES else array for name, array in params.items()}


def empty(dtype=np.float64):
    return {"0.weight": np.zeros((3, 2), dtype), "0.bias": np.zeros(3, dtype)}


def both_go_on(before, after, factor=lambda t: 1.0, rtol=0.0):
    """Ten steps of both on the same gradients, with learning rates that change by a factor."""
    lr = before.groups[0]["lr"]
    for t in range(5, 15):
        for optimizer in (before, after):
            optimizer.set(lr=lr * factor(t))
        given = gradients(before.params, t)
        before.step(given)
        after.step({name: np.ascontiguousarray(g) for name, g in moved(given).items()})
    for name, array in moved(before.params).items():
        np.testing.assert_allclose(after.params[name], array, rtol=rtol, atol=rtol)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "training.safetensors"


def test_names_and_axes_change_and_the_training_goes_on(file, tmp_path):
    before = train(keras.rmsprop, averaging=0.9, weight_decay=0.1, max_norm=1.0)
    before.save(file)
    assert convert_file(file, tmp_path / "new", names=NAMES, axes=AXES) == ()
    after = downslope.Optimizer(empty(), keras.rmsprop, averaging=0.5, weight_decay=0.0, max_norm=9.0)
    after.load(tmp_path / "new")
    assert after.t == 5
    np.testing.assert_array_equal(after.state["average"]["0.weight"], before.state["average"]["dense/kernel"].T)
    both_go_on(before, after, lambda t: t % 3)


@pytest.mark.parametrize(("known", "columns"), [(True, 1), (True, 2), (False, 2)])
def test_a_state_of_rows_is_not_turned_into_one_of_columns(file, known, columns):
    @downslope.rule
    def by_rows(x, dx, v=downslope.rows(0), *, lr=0.1):
        return x - lr * v * dx, downslope.mean(abs(dx), axis=1)

    rule = rules.normuon if known else by_rows
    optimizer = downslope.Optimizer({"W": np.ones((3, columns))}, rule, lr=0.1)
    optimizer.step({"W": np.ones((3, columns))})
    optimizer.save(file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=rf"axes\['W'\]=\(1, 0\): v of {rule.name} has one value for each row or col"):
        convert_file(file, file, axes={"W": (1, 0)})
    assert file.read_bytes() == before
    convert_file(file, file, axes={"W": (0, 1)}, names={"W": "V"})
    downslope.Optimizer({"V": np.ones((3, columns))}, rule, lr=0.1).load(file)


@pytest.mark.parametrize(
    ("source", "settings", "to", "target", "own"),
    [
        (keras.nadam, {"eps": 1e-6}, "torch", torch.nadam, {}),
        (torch.adam, {"weight_decay": 0.1, "decoupled_weight_decay": True}, "optax", optax.adam, {**DECAY, "lr": 1.0}),
        (rules.nesterov, {"mu": 0.8, **AVERAGE}, "keras", keras.sgd_momentum, {**AHEAD, "averaging": 0.1}),
        (keras.sgd_momentum, {**AHEAD, **AVERAGE}, "note", rules.nesterov, {"averaging": 0.1}),
    ],
    ids=lambda v: getattr(v, "name", None),
)  # fmt: skip
def test_another_dialect_goes_on_with_the_same_numbers(file, source, settings, to, target, own):
    before = train(source, **settings)
    before.save(file)
    (done,) = convert_file(file, file, to=to, names=NAMES, axes=AXES)
    assert done.exact
    after = downslope.Optimizer(empty(), target, **own)
    after.load(file)
    for name, array in moved(before.params).items():  # the point ahead, where there is one
        np.testing.assert_allclose(after.params[name], array, rtol=1e-15)
    both_go_on(before, after, lambda t: t % 3, rtol=1e-11)


def test_a_training_in_numpy_goes_on_in_pytorch_and_back(file):
    """From Keras's formula to PyTorch's classes, and to Keras's again; within single precision's rounding."""
    framework, front = pytest.importorskip("torch"), pytest.importorskip("downslope.torch")
    single = {name: array.astype(np.float32) for name, array in weights().items()}
    before = downslope.Optimizer(single, keras.sgd_momentum, momentum=0.8, nesterov=True)
    model = framework.nn.Sequential(framework.nn.Linear(2, 3))
    optimizer = front.SGD(model.parameters(), momentum=0.9, nesterov=True)

    def step(t):
        given = {name: g.astype(np.float32) for name, g in gradients(before.params, t).items()}
        before.step(given)
        return moved(given)

    for t in range(5):
        step(t)
    before.save(file)
    convert_file(file, file, to="torch", names=NAMES, axes=AXES, closest=True)  # the learning rate is constant
    optimizer.load(file, model)
    for t in range(5, 10):
        given = step(t)
        for name, p in model.named_parameters():
            p.grad = framework.tensor(given[name])
        optimizer.step()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), moved(before.params)[name], rtol=1e-5, atol=1e-6)
    optimizer.save(file, model)
    back = {new: old for old, new in NAMES.items()}
    convert_file(file, file, to="keras", names=back, axes={"0.weight": None}, closest=True)
    empty_again = {name: np.zeros_like(array) for name, array in single.items()}
    after = downslope.Optimizer(empty_again, keras.sgd_momentum, momentum=0.8, nesterov=True)
    after.load(file)
    assert after.t == 10
    np.testing.assert_allclose(after.params["dense/kernel"], before.params["dense/kernel"], rtol=1e-5, atol=1e-6)


def test_a_learning_rate_in_the_buffer_needs_leave(file):
    before = train(torch.sgd_momentum, lr=0.1)
    before.save(file)
    content = file.read_bytes()
    with pytest.raises(ValueError, match=r"as long as the learning rate is constant.*closest=True to convert all the"):
        convert_file(file, file, to="keras", names=NAMES, axes=AXES)
    assert file.read_bytes() == content
    convert_file(file, file, to="keras", names=NAMES, axes=AXES, closest=True)
    after = downslope.Optimizer(empty(), keras.sgd_momentum, momentum=0.5)
    after.load(file)
    both_go_on(before, after, rtol=1e-12)


def test_there_and_back_is_the_identity(file, tmp_path):
    train(keras.nadam).save(file)
    convert_file(file, tmp_path / "there", to="torch", names=NAMES, axes=AXES)
    back = {new: old for old, new in NAMES.items()}
    convert_file(tmp_path / "there", tmp_path / "back", to="keras", names=back, axes={"0.weight": None})
    (before, record), (after, its) = checkpoint.read(file), checkpoint.read(tmp_path / "back")
    scalars = record["groups"][0].pop("scalar_states"), its["groups"][0].pop("scalar_states")
    assert scalars[1] == pytest.approx(scalars[0], rel=1e-15)
    assert its == record
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)


def test_groups_keep_their_own_settings(file):
    x = weights()
    groups = [{"params": {name: x[name]}, "lr": lr} for name, lr in zip(x, (0.1, 0.2), strict=True)]
    optimizer = downslope.Optimizer(groups, keras.nadam)
    optimizer.step([gradients({name: x[name]}, 0) for name in x])
    optimizer.save(file)
    found = convert_file(file, file, to="torch", names=NAMES)
    assert [done.recipe.numbers["lr"] for done in found] == [0.1, 0.2]
    like = {"0.weight": np.zeros((2, 3)), "0.bias": np.zeros(3)}
    later = downslope.Optimizer([{"params": {name: like[name]}} for name in like], torch.nadam)
    later.load(file)
    assert [group["lr"] for group in later.groups] == [0.1, 0.2]


def test_parameters_with_clocks_of_their_own(file):
    """PyTorch counts for each parameter: one that came later, and one that has not begun."""
    train(keras.nadam).save(file)
    tensors, record = checkpoint.read(file)
    record["clocks"] = {"dense/bias": {"t": 2, "scalar_states": {"u_product": 0.25}}}
    checkpoint.write(file, tensors, record)
    convert_file(file, file, to="torch", names=NAMES)
    assert checkpoint.read(file)[1]["clocks"] == {"0.bias": {"t": 2, "scalar_states": {"mu_product": 0.25}}}
    record["clocks"]["dense/bias"] = {"t": 0, "scalar_states": {"u_product": 1.0}}
    kept = {
        key: array for key, array in tensors.items() if key in ("x/dense/bias", *(k for k in tensors if "kernel" in k))
    }
    checkpoint.write(file, kept, record)
    convert_file(file, file, to="torch", names=NAMES)
    assert set(checkpoint.read(file)[0]) == {"x/0.bias", "x/0.weight", "exp_avg/0.weight", "exp_avg_sq/0.weight"}


def test_a_file_that_lacks_a_state_is_refused(file):
    train(keras.nadam, steps=1).save(file)
    tensors, record = checkpoint.read(file)
    del tensors["velocity/dense/bias"]
    checkpoint.write(file, tensors, record)
    with pytest.raises(CheckpointError, match=r"no velocity of 'dense/bias', which has done 1 step"):
        convert_file(file, file, to="torch")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": None}, "a group's names are None; expected parameters of the file"),
        ({"names": ["dense/kernel", "other"]}, "a group's names are ['dense/kernel', 'other']"),
        ({"hyperparameters": [1]}, "a group's hyperparameters are [1]; expected values by name"),
        ({"scalar_states": None}, "a group's scalar_states are None"),
        ({"options": 3}, "a group's options are 3"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_a_record_that_is_none_is_refused(file, tmp_path, change, message):
    train(keras.lion, steps=1).save(file)
    tensors, record = checkpoint.read(file)
    record["groups"][0].update(change)
    checkpoint.write(file, tensors, record)
    for settings in ({}, {"to": "optax"}):
        with pytest.raises(CheckpointError) as raised:
            convert_file(file, tmp_path / "new", **settings)
        assert message in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_bfloat16_and_complex_tensors(file):
    """Two bytes a number; pairs of numbers, whose last axis stays where it is."""
    train(torch.sgd_momentum, lr=0.1, momentum=0.5).save(file)
    tensors, record = checkpoint.read(file)
    record["groups"][0]["complex"] = ["dense/kernel"]
    rounded = {}
    for key, array in tensors.items():
        pairs = np.stack([array, -array], -1) if "kernel" in key else array
        bits = (pairs.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        rounded[key] = Raw("bfloat16", pairs.shape, bits.reshape(-1).view(np.uint8))
    checkpoint.write(file, rounded, record)
    convert_file(file, file, to="keras", names=NAMES, axes=AXES, closest=True)
    found, its = checkpoint.read_raw(file)
    assert its["groups"][0]["complex"] == ["0.weight"]
    weight, buffer = found["x/0.weight"], found["momentums/0.weight"]
    assert (weight.dtype, weight.shape, buffer.shape) == ("bfloat16", (3, 2, 2), (3, 2, 2))

    def numbers(raw):
        return (raw.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(raw.shape)

    np.testing.assert_array_equal(numbers(weight), numbers(rounded["x/dense/kernel"]).transpose(1, 0, 2))
    expected = -0.1 * numbers(rounded["momentum_buffer/dense/kernel"]).transpose(1, 0, 2)
    np.testing.assert_allclose(numbers(buffer), expected, rtol=2**-8)


def test_a_schedule_is_asked_for(file):
    train(keras.nadam, steps=1, lr=lambda t: 0.1 / t).save(file)
    with pytest.raises(
        ValueError, match=r"lr followed a schedule, and the file has no value of it; give it, as in lr=0.01"
    ):
        convert_file(file, file, to="torch")
    (done,) = convert_file(file, file, to="torch", lr=0.02)
    assert done.recipe.numbers["lr"] == 0.02


def test_a_rule_of_ones_own_and_a_file_before_the_first_step(file):
    """States that have not begun start as the new dialect's do."""

    @downslope.rule
    def rmsprop(x, dx, mean=1, *, lr=0.1, rho=0.9, eps=1e-8):
        mean = mean + (1 - rho) * (dx**2 - mean)
        return x - lr * dx / (downslope.sqrt(mean) + eps), mean

    train(rmsprop, steps=0).save(file)
    convert_file(file, file, names=NAMES)
    convert_file(file, file, names={new: old for old, new in NAMES.items()})
    with pytest.raises(CheckpointError, match=r"formula of the file's 'rmsprop'.*give your own as rule=..."):
        convert_file(file, file, to="torch")
    with pytest.raises(CheckpointError, match="has not the formula of the file's 'rmsprop'"):
        convert_file(file, file, to="torch", rule=rules.rmsprop)
    (done,) = convert_file(file, file, to="optax", rule=rmsprop)
    assert done.recipe == downslope.Recipe(optax.rmsprop, lr=0.1, eps_in_sqrt=False, initial_scale=1.0)
    tensors, record = checkpoint.read(file)
    np.testing.assert_array_equal(tensors["nu/dense/bias"], 1.0)
    assert (record["rule"], record["groups"][0]["hyperparameters"]["initial_scale"]) == ("rmsprop", 1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"names": {"kernel": "a"}}, ValueError, "names has 'kernel', which is not in the file; it has dense/bias"),
        ({"axes": {"kernel": (0,)}}, ValueError, "axes has 'kernel', which is not in the file"),
        ({"axes": {"dense/kernel": (0, 0)}}, ValueError, "axes['dense/kernel']=(0, 0): the shape is (2, 3), so give"),
        ({"axes": {"dense/bias": (1, 0)}}, ValueError, "axes['dense/bias']=(1, 0): the shape is (3,)"),
        ({"names": {"dense/kernel": "dense/bias"}}, ValueError, "names would call both"),
        ({"names": {"dense/kernel": ""}}, ValueError, "names['dense/kernel']='': give the new name"),
        ({"to": "jax"}, ValueError, "to='jax' is not a dialect"),
        ({"to": "torch"}, ValueError, "PyTorch has no counterpart of Keras's Lion"),
        ({"to": "optax", "rho": 1.0}, TypeError, "lion has no hyperparameter 'rho'"),
        ({"lr": 1.0}, TypeError, "give to=... as well"),
        ({"to": "optax", "averaging": 0.9}, TypeError, "lion has no hyperparameter 'averaging'"),
        ({"to": "optax", "cautious": True}, TypeError, "cautious=True: the file settles this"),
    ],
)
def test_bad_input_writes_nothing(file, tmp_path, arguments, error, message):
    train(keras.lion, steps=1).save(file)
    with pytest.raises(error) as raised:
        convert_file(file, tmp_path / "new", **arguments)
    assert message in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_the_command(file, tmp_path):
    before = train(keras.nadam, lr=lambda t: 0.1)
    before.save(file)
    out = tmp_path / "new.safetensors"
    arguments = [
        *("convert", "--state", str(file), "--out", str(out), "--to", "torch", "lr=0.1"),
        *("--rename", "dense/kernel=0.weight", "--rename", "dense/bias=0.bias", "--transpose", "dense/kernel"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("# Keras's Nadam is PyTorch's NAdam: the same path")
    assert done.output.endswith(f"Training: {out}\n")
    np.testing.assert_array_equal(checkpoint.read(out)[0]["x/0.weight"], before.params["dense/kernel"].T)
    (data,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert data["states"] == {"exp_avg": "momentums", "exp_avg_sq": "velocity"}
    assert data["exact"]
