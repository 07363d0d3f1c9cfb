"""The command `downslope convert`."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from downslope.cli import app


def command(*arguments):
    return CliRunner().invoke(app, ["convert", *arguments])


FRAMEWORKS = {"torch": "torch", "keras": "keras", "optax": "optax", "tf1": "tensorflow", "note": "numpy"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "keras", "--to", "torch", "RMSprop", "lr=1e-3", "rho=0.9"),
        (
            "--from",
            "tf1",
            "--to",
            "torch",
            "MomentumOptimizer",
            "learning_rate=0.1",
            "momentum=0.9",
            "use_nesterov=True",
        ),
        ("--from", "torch", "--to", "optax", "AdamW", "betas=(0.9,0.99)", "weight_decay=0.1"),
        ("--from", "torch", "--to", "optax", "sgd", "lr=0.1", "momentum=0.9", "weight_decay=0.1"),
        ("--from", "keras", "--to", "optax", "adam", "learning_rate=1e-4", "beta_1=0.8"),
        ("--from", "torch", "--to", "keras", "SGD", "momentum=0.9", "nesterov=true"),
        ("--from", "optax", "--to", "keras", "rmsprop", "learning_rate=0.1"),
        ("--from", "torch", "--to", "tf1", "adam"),
        ("--from", "keras", "--to", "tf1", "Adam", "weight_decay=0.1", "maximize=True"),
        ("--from", "torch", "--to", "note", "SGD", "momentum=0.9"),
    ],
    ids=" ".join,
)
def test_the_printed_code_runs(arguments):
    """All that is printed is Python, and trains."""
    to = arguments[3]
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    pytest.importorskip(FRAMEWORKS[to])
    done = command(*arguments)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("# ")
    assert max(map(len, done.output.split("\n\n")[0].splitlines())) <= 80
    space = {"params": np.ones(3)}
    if to == "torch":
        import torch as framework

        space["model"] = framework.nn.Linear(2, 1)
    exec(done.output, space)
    optimizer = space["optimizer"]
    if to == "note":
        optimizer.step(np.full(3, 2.0))
        np.testing.assert_allclose(space["params"], 1 - 1e-3 * 2)
    if to == "torch":
        before = space["model"].weight.detach().clone()
        space["model"](framework.ones(1, 2)).sum().backward()
        optimizer.step()
        assert (space["model"].weight < before).all()


@pytest.mark.parametrize("name", ["keras.RMSprop", "Keras.rmsprop", "keras.optimizers.RMSprop"])
def test_the_dialect_may_be_said_in_the_name_as_for_every_command(name):
    said = command("--to", "torch", name, "lr=1e-3", "rho=0.9")
    assert said.exit_code == 0, said.output
    assert said.output == command("--from", "keras", "--to", "torch", "RMSprop", "lr=1e-3", "rho=0.9").output


def test_a_rule_of_ones_own_is_converted_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    formula = "@rule\ndef momentum(x, dx, v=0, *, lr=0.1, mu=0.8):\n    v = mu * v - lr * dx\n    return x + v, v\n"
    (tmp_path / "mine.py").write_text(f"from downslope import rule\n\n{formula}")
    done = json.loads(command("--to", "torch", "mine.py:momentum", "mu=0.7", "--json").output)
    assert done["from"] == {"dialect": None, "rule": "momentum", "settings": {"lr": 0.1, "mu": 0.7}}
    assert (done["counterpart"]["rule"], done["counterpart"]["settings"]["momentum"]) == ("sgd_momentum", 0.7)
    assert done["same"] == "constant lr"


def test_json_says_everything():
    done = json.loads(command("--from", "torch", "--to", "keras", "SGD", "lr=0.1", "momentum=0.9", "--json").output)
    assert done["from"] == {
        "dialect": "torch",
        "rule": "sgd_momentum",
        "settings": {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
    }
    assert done["counterpart"]["settings"] == {"lr": 0.1, "momentum": 0.9, "nesterov": False}
    assert (done["to"], done["exact"], done["same"], done["first_step"]) == ("keras", False, "constant lr", 21)
    assert done["with_lr"] is None
    assert done["states"] == {"momentums": "-lr * momentum_buffer"}
    assert 0.1 < done["at_last_step"] < 1
    assert "downslope.keras.Optimizer(\n    dialects.torch.sgd_momentum, learning_rate=0.1" in done["snippet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--from", "kers", "--to", "torch", "Adam"),
            "--from kers: there is no such dialect; choose one of note, torch",
        ),
        (("--from", "keras", "--to", "jax", "Adam"), "--to jax: there is no such dialect; choose one of note, torch"),
        (("--to", "torch", "Adam"), "--from is missing; choose one of note"),
        (("torch.", "--to", "keras"), "--from is missing; choose one of note"),
        (("mine.py:rule", "--from", "keras", "--to", "torch"), "--from keras does not go with mine.py:rule"),
        (("gone.py:rule", "--to", "torch"), "NAME gone.py:rule: there is no file gone.py"),
        (("--from", "keras", "--to", "torch"), "say which optimizer: SGD, Adagrad, RMSprop"),
        (("--from", "keras", "--to", "torch", "Adamm"), "'Adamm' is not an optimizer of Keras; it has SGD"),
        (("--from", "keras", "--to", "torch", "Adam", "rate=1"), "has no hyperparameter 'rate'; it has learning_rate"),
        (("--from", "keras", "--to", "torch", "Adam", "lr=fast"), "lr=fast: fast is not a number"),
        (("--from", "keras", "--to", "torch", "Adam", "lr"), "lr: give arguments as NAME=VALUE"),
        (("--from", "keras", "--to", "torch", "Adam", "lr=-1"), "lr=-1 is out of range"),
        (("--from", "keras", "--to", "torch", "Adam", "lr=1", "lr=2"), "lr is given twice"),
        (("--from", "optax", "--to", "torch", "adam"), "adam has no default for lr; give lr=..."),
        (("--from", "keras", "--to", "torch", "Adam", "--out", "x"), "--out goes only with --state"),
        (("Adam", "--state", "x"), "Adam does not go with --state"),
        (("--state", "x"), "--state: say where to write the training, with --out FILE"),
        (("--state", "missing.safetensors", "--out", "x"), "there is no file missing.safetensors"),
        (("--state", "x", "--out", "y", "--rename", "a"), "--rename a: give OLD=NEW"),
        (("--state", "x", "--out", "y", "--transpose", "a=b"), "--transpose a=b: give the axes as numbers"),
        (("--state", "x", "--out", "y", "--to", "jax"), "--to jax: there is no such dialect"),
        (("--state", "x", "--out", "y", "--to", "torch", "rule=3"), "rule=3: rule is not a hyperparameter"),
        (("--state", "x", "--out", "y", "lr=3"), "lr=... goes only with --to"),
        (("--state", "x", "--out", "y", "--rename", "a=b", "--rename", "a=c"), "--rename a=c: a is given twice"),
        (("--state", "x", "--out", "y", "--transpose", "a", "--transpose", "a=1,0"), "a is given twice"),
    ],
)
def test_bad_input_ends_with_one_clear_line(arguments, message):
    done = command(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("downslope convert: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
