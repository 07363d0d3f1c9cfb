"""What `convert` calls exact is so when both frameworks run, over everything that it knows.

Sentence, JSON and code say one thing, and where that is "the same path", the frameworks' own code is run on both sides.
"""

import functools
import importlib.util
import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from downslope import Recipe, convert
from downslope.cli import app
from downslope.dialects import DIALECTS
from downslope.recipes.spelled import native, title

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
pytestmark = pytest.mark.slow

STEPS = 12
MODULES = {"torch": "torch", "keras": "keras", "tf1": "tensorflow", "optax": "optax"}
START = np.linspace(-1, 1, 6).reshape(2, 3)
RATE = 0.125  # which single precision, in which Keras keeps a learning rate, has too


def settled(spelling):
    """A recipe with the framework's defaults and a number for what has none; the learning rate is always the same."""
    names = [*spelling.rule.hyperparameters, *spelling.rule.flags, *(["weight_decay"] if spelling.decay else [])]
    settings = {name: spelling.default(name) for name in names}
    settings = {name: 0.75 if value is None else value for name, value in settings.items()} | {"lr": RATE}
    if "momentum" in settings:
        settings["momentum"] = 0.75
    if "eps" in settings and settings["eps"] > 0:
        settings["eps"] = 0.0625  # large enough for its place in the formula to count
    if not settings.get("weight_decay"):
        settings.pop("weight_decay", None)
    return Recipe(spelling.rule, **settings, decoupled=spelling.decay == "decoupled" and "weight_decay" in settings)


def variants(dialect):
    """Everything that a framework can be asked for by name, without and with a decay, and its first rule uphill.

    Uphill is a sign before any formula, whichever it is.
    """
    spellings = DIALECTS[dialect].spellings
    for spelling in spellings:
        recipe = settled(spelling)
        yield recipe
        uphill = [{"maximize": True}] if spelling is spellings[0] else []
        for settings in ({"weight_decay": 0.25}, {"weight_decay": 0.25, "decoupled": True}, *uphill):
            if "weight_decay" in settings and recipe.decayed and recipe.options["decoupled"]:
                continue
            try:
                other = recipe.with_settings(**settings)
            except TypeError:
                continue
            if dialect == "note" or native(other) is not None:
                yield other


ALL = {(name, repr(recipe)): recipe for name in ("torch", "keras", "tf1", "optax") for recipe in variants(name)}


def gradients():
    generator = np.random.default_rng(0)
    return 2.0 * generator.normal(size=(STEPS, *START.shape))


def path_of(recipe):
    """Where the framework's own code leads, in double precision."""
    line = native(recipe)
    assert line is not None
    return path(recipe.dialect, line)


@functools.cache
def path(dialect, line):
    """Where a line of a framework's own code leads: run once, however many recipes it is the counterpart of."""
    return np.array(list(weights(dialect, line)))


def weights(dialect, line):
    start = START
    if dialect == "torch":
        import torch

        x = torch.nn.Parameter(torch.from_numpy(start.copy()))
        optimizer = eval(line.replace("model.parameters()", "[x]"), {"torch": torch, "x": x})
        for dx in gradients():
            x.grad = torch.from_numpy(dx)
            optimizer.step()
            yield x.detach().numpy().copy()
    elif dialect == "optax":
        import jax
        import jax.numpy as jnp
        import optax

        with jax.enable_x64(True):
            optimizer, x = eval(line, {"optax": optax}), jnp.asarray(start)
            state = optimizer.init(x)
            for dx in gradients():
                updates, state = optimizer.update(jnp.asarray(dx), state, x)
                x = optax.apply_updates(x, updates)
                yield np.asarray(x)
    else:
        import keras
        import tensorflow as tf

        optimizer, x = eval(line, {"keras": keras, "tf": tf}), tf.Variable(start)
        if dialect == "keras":
            x = keras.Variable(start, dtype="float64")
        for dx in gradients():
            optimizer.apply_gradients([(tf.constant(dx), x)])
            yield np.array(x.numpy() if dialect == "tf1" else x.value.numpy())


@pytest.mark.parametrize("source", MODULES)
def test_what_is_called_exact_is_the_same_when_both_run(source):
    """In every other framework that is there, recipe by recipe: the path of one is then worked out once."""
    pytest.importorskip(MODULES[source])
    exact = {to: 0 for to, module in MODULES.items() if to != source and importlib.util.find_spec(module)}
    for (name, _), recipe in ALL.items():
        for to in exact if name == source else ():
            exact[to] += what_is_said_holds(recipe, to)
    assert exact
    assert min(exact.values()) >= 2, exact


def what_is_said_holds(recipe, to):
    """Assert it of one conversion; whether the two are called the same, be it with a constant learning rate."""
    found = convert(recipe, to)
    sentence, code = str(found), found.snippet()
    line = native(found.recipe) if found.recipe is not None else None
    assert found.recipe is None or line is not None  # a counterpart is something the framework has
    same = "never" if found.comparison is None else found.comparison.same
    assert found.exact is (same == "always")
    said = f"{title(recipe)} is {title(found.recipe)}" if found.recipe is not None else ""
    assert (": the same path, also while" in sentence and sentence.startswith(said)) is found.exact
    assert ("as long as the learning rate is constant" in sentence) is (same == "constant lr")
    own = code.partition("\n\n")[0] == DIALECTS[to].imports
    assert own is found.exact
    if same == "never":
        return False
    here, there = path_of(recipe), path_of(found.recipe)
    # TensorFlow takes a Python number in single precision, and so does Keras: what is 1 - 0.999 is 5e-5 off there
    np.testing.assert_allclose(there, here, rtol=0, atol=2e-4, err_msg=f"{recipe} -> {found.recipe}")
    return True


def test_a_decay_that_the_other_framework_does_not_have_makes_no_counterpart():
    """PyTorch's is coupled, Keras's is not: 20 steps of both are (.461, -1.323) and (-.0189, -.0848)."""
    from downslope.dialects import torch

    found = convert(torch.sgd_momentum, "keras", lr=0.1, momentum=0.9, weight_decay=0.1)
    assert not found.exact
    assert found.comparison.same == "never"
    assert str(found).startswith(
        "Keras has no exact counterpart of PyTorch's SGD. Its closest is Keras's SGD: they part"
    )
    assert "optimizer = downslope.keras.Optimizer(\n    dialects.torch.sgd_momentum" in found.snippet()
    arguments = ["--from", "torch", "--to", "keras", "SGD", "lr=0.1", "momentum=0.9", "weight_decay=0.1", "--json"]
    data = json.loads(CliRunner().invoke(app, ["convert", *arguments]).stdout)
    assert (data["exact"], data["same"]) == (False, "never")
    assert (data["sentence"], data["snippet"]) == (str(found), found.snippet())
