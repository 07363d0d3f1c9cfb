"""Muon in the place of AdamW: the learning rate of the papers' formulas, and code that steps as far as it says."""

import json
import math
import os

import numpy as np
import pytest
from typer.testing import CliRunner

import downslope
from downslope import Recipe, dialects, muon_from_adamw
from downslope.cli import app
from downslope.recipes.from_adamw import AS_LONG, BY_SHAPE
from downslope.recipes.spelled import read_recipe
from downslope.recipes.strides import rate_of_adamw

ADAMW = read_recipe("torch", "AdamW", {"lr": 3e-4, "weight_decay": 0.1})


@pytest.mark.parametrize("to", AS_LONG)
def test_learning_rate_and_weight_decay_are_taken_over(to):
    found = muon_from_adamw(ADAMW, to)
    assert found.muon.numbers["lr"] == 3e-4
    assert found.muon.numbers["weight_decay"] == found.rest.numbers["weight_decay"] == 0.1
    assert found.rest.dialect == found.muon.dialect == to
    assert (found.rest.rule.name, found.rest.numbers["lr"]) == ("adam", 3e-4)
    assert all(rate_of_adamw(3e-4, found.muon, layer) == pytest.approx(3e-4, rel=1e-4) for layer in [(8, 8), (8, 24)])
    assert "rule of thumb" in str(found)
    assert "lr=0.0003, weight_decay=0.1, in every layer" in str(found)
    assert bool(found.by_shape) == (to in BY_SHAPE)
    for (inputs, outputs), (lr, decay) in found.by_shape.items():
        assert lr == pytest.approx(3e-4 * 0.2 * math.sqrt(max(inputs, outputs) / max(1, outputs / inputs)), rel=5e-3)
        assert lr * decay == pytest.approx(3e-4 * 0.1, rel=5e-3)  # weights fade as fast


def test_without_a_weight_decay_there_is_none():
    assert "weight_decay" not in str(muon_from_adamw(Recipe(downslope.adam), "keras"))
    torch = muon_from_adamw(Recipe(downslope.adam), "torch")
    assert torch.muon.numbers["weight_decay"] == 0  # PyTorch's default is another
    assert "Muon(split.matrices, lr=0.001, weight_decay=0.0," in torch.snippet()


@pytest.mark.parametrize("to", AS_LONG)
def test_the_code_takes_steps_of_that_length(to):
    """Of what is learned from noise: 0.2 of the learning rate, times singular values between 0.68 and 1.13."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    code = muon_from_adamw(Recipe(downslope.adam, lr=0.01), to).snippet()
    shapes = {"embed.weight": (40, 6), "inner.weight": (24, 40), "head.weight": (3, 24)}
    drawn = np.random.default_rng(1)
    gradients = {name: drawn.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    stepped = {"note": _in_numpy, "torch": _in_torch, "keras": _in_keras, "optax": _in_optax}[to](code, gradients)
    assert 0.6 * 0.2 * 0.01 < np.sqrt(np.mean(stepped["inner.weight"] ** 2)) < 1.2 * 0.2 * 0.01
    for name in ("embed.weight", "head.weight"):
        np.testing.assert_allclose(np.abs(stepped[name]), 0.01, rtol=1e-2)  # of Adam


def _in_numpy(code, gradients):
    params = {name: np.zeros_like(dx) for name, dx in gradients.items()}
    space = {"params": params}
    exec(code, space)
    space["muon"].step({"inner.weight": gradients["inner.weight"]})
    space["adamw"].step({name: dx for name, dx in gradients.items() if name != "inner.weight"})
    return params


def _in_torch(code, gradients):
    torch = pytest.importorskip("torch")
    layers = {name.partition(".")[0]: torch.nn.Linear(*dx.shape[::-1], bias=False) for name, dx in gradients.items()}
    space = {"model": torch.nn.ModuleDict(layers)}
    for name, weight in space["model"].named_parameters():
        weight.data.zero_()
        weight.grad = torch.tensor(gradients[name])
    exec(code, space)
    space["muon"].step()
    space["adamw"].step()
    return {name: weight.detach().numpy() for name, weight in space["model"].named_parameters()}


def _in_keras(code, gradients):
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Dense(len(dx), use_bias=False, kernel_initializer="zeros") for dx in gradients.values()]
    space = {"model": keras.Sequential([keras.Input([6]), *layers])}
    exec(code, space)
    optimizer, weights = space["optimizer"], space["model"].trainable_variables
    optimizer.build(weights)
    optimizer.apply(list(map(keras.ops.convert_to_tensor, (dx.T for dx in gradients.values()))), weights)
    return {name: np.asarray(weight) for name, weight in zip(gradients, weights, strict=True)}


def _in_optax(code, gradients):
    jax = pytest.importorskip("jax")
    params = {name: {"kernel": np.zeros(dx.T.shape, np.float32)} for name, dx in gradients.items()}
    params = {name.partition(".")[0]: kernel for name, kernel in params.items()}
    space = {"params": params}
    exec(code, space)
    dx = {key: {"kernel": gradients[name].T} for key, name in zip(params, gradients, strict=True)}
    updates, _ = jax.jit(space["optimizer"].update)(dx, space["optimizer"].init(params), params)
    return {name: np.asarray(updates[key]["kernel"]) for key, name in zip(params, gradients, strict=True)}


@pytest.mark.parametrize(
    ("recipe", "to", "message"),
    [
        (Recipe(dialects.torch.sgd), "torch", "from that of AdamW or Adam only"),
        (Recipe(downslope.muon), "torch", "from that of AdamW or Adam only"),
        (ADAMW, "tf1", "TensorFlow 1 has no Muon; choose one of note, torch, keras, optax"),
        (ADAMW, "jax", "to='jax' is not a dialect"),
        (Recipe(dialects.torch.adam, weight_decay=0.1), "torch", "weight_decay=0.1 of PyTorch's Adam is added to"),
        (Recipe(downslope.adam, weight_decay=0.1), "torch", "weight_decay=0.1 of downslope's adam with coupled"),
    ],
)
def test_what_the_rule_of_thumb_says_nothing_about_is_refused(recipe, to, message):
    with pytest.raises(ValueError, match=message):
        muon_from_adamw(recipe, to)
    with pytest.raises(TypeError, match="is not a recipe; give one such as"):
        muon_from_adamw(downslope.adamw, to)


def test_options_are_carried_to_both_halves():
    """Caution and the sign change no learning rate: how long steps are is measured without them."""
    uphill = read_recipe("torch", "AdamW", {"lr": 3e-4, "maximize": True})
    found = muon_from_adamw(uphill, "optax")
    assert found.muon.options["maximize"]
    assert found.rest.options["maximize"]
    assert found.snippet().count("optax.chain(optax.scale(-1.0), ") == 2
    plain = muon_from_adamw(ADAMW, "note")
    for options in ({"maximize": True}, {"cautious": True}, {"cautious": True, "maximize": True}):
        found = muon_from_adamw(ADAMW.with_settings(**options), "note")
        assert found.muon.besides == found.rest.besides == options
        assert found.by_shape == plain.by_shape
    cautious = muon_from_adamw(Recipe(downslope.adam, weight_decay=0.1, cautious_decay=True), "note")
    assert cautious.muon.besides == cautious.rest.besides == {"cautious_decay": True}


@pytest.mark.parametrize(
    ("options", "to", "message"),
    [
        (
            {"maximize": True},
            "torch",
            "maximize=True: PyTorch's Muon has no maximize; leave it out and train on the neg",
        ),
        ({"maximize": True}, "keras", "maximize=True: Keras's Muon has no maximize; leave it out and train on the neg"),
        ({"cautious": True}, "torch", "cautious=True: PyTorch's Muon has no cautious; leave it out, or give to='note'"),
        ({"cautious": True}, "optax", "cautious=True: Optax's Muon has no cautious"),
        ({"lr": 0.0}, "torch", "with lr=0 nothing moves"),
        ({"eps": 0.01}, "keras", "Keras has no AdamW that does the same for the rest .* Its closest is Keras's Adam"),
    ],
)
def test_what_the_other_framework_lacks_is_refused_by_name(options, to, message):
    with pytest.raises(ValueError, match=message):
        muon_from_adamw(ADAMW.with_settings(**options), to)


@pytest.mark.parametrize("to", ["note", "torch", "optax"])
def test_a_decay_without_the_learning_rate_is_taken_times_it(to):
    by_itself = Recipe(downslope.adamw, lr=0.001, weight_decay=1e-4, decay_with_lr=False)
    found = muon_from_adamw(by_itself, to)
    for half in (found.muon, found.rest):
        assert half.numbers["lr"] * half.numbers["weight_decay"] == pytest.approx(1e-4)
    assert all(lr * decay == pytest.approx(1e-4, rel=5e-3) for lr, decay in found.by_shape.values())
    assert downslope.equivalent(by_itself, found.rest, steps=3).at_last_step < 1e-12  # but for 0.1 in binary
    assert "lr=0.001 times weight_decay=0.1 here, as long as the learning rate is constant" in str(found)


def test_where_the_rest_is_not_quite_the_same_it_is_said():
    assert "This Keras's Adam is not quite PyTorch's AdamW: they part at step 1" in str(muon_from_adamw(ADAMW, "keras"))
    assert muon_from_adamw(ADAMW, "torch").notes == ()


def command(*arguments):
    return CliRunner().invoke(app, ["convert", "torch.AdamW", "lr=3e-4", "weight_decay=0.1", *arguments])


def test_the_command_names_the_form_of_muon():
    done = command("--to", "torch.optim.Muon")
    assert done.exit_code == 0, done.output
    found = muon_from_adamw(ADAMW, "torch")
    assert " ".join(done.output.split("\n\n")[0].replace("# ", "").split()) == str(found)
    assert done.output.endswith(f"\n\n{found.snippet()}\n")
    data = json.loads(command("--to", "torch.muon", "--json").output)
    assert data["muon"] == {"dialect": "torch", "rule": "muon", "settings": found.muon.settings}
    assert data["by_shape"][1] == {"layer": [256, 1024], "lr": 0.00096, "weight_decay": 0.03125}
    refused = command("--to", "keras.SGD")
    assert (refused.exit_code, "the only rule that may follow it is Muon" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("torch.AdamW", "the rule of thumb leads from AdamW to Muon only"),
        ("torch.Nonsense", "--to torch.Nonsense: give a dialect, --to torch"),
    ],
)
def test_from_muon_the_command_goes_to_muon_only(to, message):
    refused = CliRunner().invoke(app, ["convert", "torch.Muon", "lr=0.02", "--to", to])
    assert refused.exit_code == 2
    assert message in refused.output
