"""`downslope race file.py:function`: a race on a training of one's own, from the command line."""

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from downslope.cli import app
from downslope.lab import Race

TRAINING = """
import numpy as np

def descend(run):
    random = np.random.default_rng(run.seed)
    x = random.normal(size=3).astype(np.float32)
    steep = np.array([1.0, 4.0, 10.0], np.float32)
    optimizer, step = run.optimizer(x), 0
    while run.report(step, 0.5 * steep @ x**2):
        optimizer.step(steep * x)
        step += 1

learning_rate = 0.1
"""
QUICK = ["--rules", "sgd,adam", "--lrs", "0.001,0.01,0.1,10", "--tuning-seeds", "1", "--seeds", "8", "--steps", "8"]


MODEL = """
import torch
from torch import nn

def make_net(seed):
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))

def surprise(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)

net = make_net(0)
"""


@pytest.fixture
def race(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(TRAINING)
    (tmp_path / "model.py").write_text(MODEL)
    x = np.random.default_rng(0).normal(size=(60, 2))
    np.savez(tmp_path / "pairs.npz", x=x, y=x[:, 0] > 0)
    (tmp_path / "pairs.csv").write_text("a,b,c\n" + "".join(f"{a},{b},{a > 0}\n" for a, b in x))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])  # the folder of a file is put into it
    monkeypatch.setenv("COLUMNS", "160")  # no cell of the table is folded
    return lambda *arguments: CliRunner().invoke(app, ["race", *arguments])


def test_a_race_on_ones_own_training_with_what_is_used_now(race, tmp_path):
    done = race(
        "mine.py:descend", *QUICK, "--now", "torch.optim.SGD lr=0.01", "--schedule", "linear", "--json", "race.json"
    )
    assert done.exit_code == 0, done.output
    found = Race.from_json((tmp_path / "race.json").read_text())
    for said in ("Your own training, descend", "First run, now at lr 0.01: ", "0.01 (as it is)", found.verdict):
        assert said in " ".join(done.output.split())
    assert "of the steps against what you do now" in found.verdict
    kept = found.rules[0].against_now.outcome != "first" and found.rules[1].against_now.outcome != "first"
    ends = [
        found.verdict,
        "Keep what you have: PyTorch's SGD, lr 0.01."
        if kept
        else "With the schedule linear over 8 steps; at a constant",
        "If you can try k",
    ]
    places = [" ".join(done.output.split()).index(words) for words in ends]
    assert places == sorted(places)
    assert found.now.hyperparameters["weight_decay"] == 0
    assert found.schedule == "linear"
    assert {run.steps[-1] for rule in found.rules for run in rule.verdict} == {8}
    assert "validation" not in done.output
    assert (tmp_path / "report.html").is_file()


def test_a_race_on_ones_own_model(race, tmp_path):
    few = ["--rules", "sgd,adam", "--lrs", "0.01,0.1", "--tuning-seeds", "1", "--seeds", "2", "--epochs", "1"]
    done = race("model.py:make_net", "--data", "pairs.npz", *few, "--batch-size", "8", "--json", "race.json")
    assert done.exit_code == 0, done.output
    found = Race.from_json((tmp_path / "race.json").read_text())
    lines = " ".join(done.output.split())
    for said in (
        "The model make_net, with the loss cross-entropy, since the targets are classes, on pairs.npz",
        "Classification of 60 rows: 36 to train, 12 to validate, 12 to test; each seed has a split of its own",
        "1 epochs in batches of 8; 2 rules, first a run of each",
        "First run, adam at lr 0.001: ",
        found.verdict,
    ):
        assert said in lines
    assert (found.batch_size, found.epochs, found.weights) == (8, 1, 22)
    done = race("model.py:make_net", "--data", "pairs.csv", "--target", "c", "--loss", "model.py:surprise", *few)
    assert "with the loss surprise, on pairs.csv: c" in " ".join(done.output.split())
    assert done.exit_code == 0, done.output


def test_a_dry_run_says_what_the_race_will_be_and_the_race_is_that(race, tmp_path):
    chosen = ["--rules", "sgd,adam", "--steps", "8", "--seeds", "6", "--budget", "1h"]
    dry = race("mine.py:descend", *chosen, "--dry-run")
    assert dry.exit_code == 0, dry.output
    what, how_long, proves, disk = dry.output.strip().splitlines()
    assert what == "Race: 2 rules, 19 learning rates, 3 tuning seeds, 7 confirming seeds, and 6 fresh seeds."
    assert how_long.startswith("188 runs, about ")
    assert proves.startswith("6 fresh seeds can show a winner")
    assert "report of about 2." in disk
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.py:net", "--data", "pairs.npz"], "a Sequential that is made is no factory"),
        (
            ["model.py:neat", "--data", "pairs.npz"],
            "no function of this name to make a model for a seed",
        ),
        (["model.py:make_net", "--data", "pears.npz"], "there is no file 'pears.npz'"),
        (["model.py:make_net", "--data", "pairs.csv"], "target: say which column"),
        (["model.py:make_net", "--data", "pairs.npz", "--encode"], "--encode is for a table; say its --target too"),
        (["model.py:make_net", "--data", "pairs.npz", "--hidden", "4"], "--hidden is for a table without a model"),
        (["model.py:make_net", "--data", "pairs.npz", "--loss", "mae"], "'mae': choose 'mse' or 'cross-entropy'"),
        (["model.py:make_net", "--data", "pairs.npz", "--steps", "9"], "is for a race on a training of your own"),
        (["model.py:make_net", "--data", "pairs.npz", "--why"], "--why is for a race on a problem without a model"),
        (["digits", "--data", "pairs.npz"], "--data pairs.npz is for a model of yours, file.py:function"),
        (["mine.py:descend", "--loss", "mse"], "--loss mse is for a model of yours; give its --data too"),
        (["mine.py:ascend"], "mine.py has no function of this name to train a run; it has descend"),
        (["mine.py:learning_rate"], "it has descend"),
        (["theirs.py:descend"], "there is no file theirs.py"),
        (["mine.py:descend", "--target", "price"], "--target is for a table"),
        (["mine.py:descend", "--epochs", "3"], "--epochs is for a table"),
        (["mine.py:descend", "--why"], "--why is for a race on a table"),
        (["mine.py:descend", "--steps", "0"], "--steps 0: give the steps"),
        (["mine.py:descend", "--limit", "-1"], "--limit -1.0: give the most seconds"),
        (["mine.py:descend", "--budget", "soon"], "--budget 'soon': give seconds, more than 0, or a time such as"),
        (["mine.py:descend", "--schedule", "cosine"], "--schedule 'cosine' needs the number of steps of a run"),
        (["mine.py:descend", "--schedule", "mine.py:ascend"], "--schedule mine.py:ascend: mine.py has no function"),
        (["digits", "--steps", "3"], "--steps 3 is for a race on a training of your own"),
        (["mine.py:descend", "--now", "torch.optim.SDG lr=1"], "--now torch.optim.SDG lr=1: "),
        (["mine.py:descend", "--now", "torch.optim.SGD lr"], "give arguments as NAME=VALUE"),
        (["mine.py:descend", "--now", "optax.adam"], "--now optax.adam: "),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(race, arguments, said):
    done = race(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1
