"""`downslope race file.py:function`: a race on a training of one's own, from the command line."""

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


@pytest.fixture
def race(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(TRAINING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")  # no cell of the table is folded
    return lambda *arguments: CliRunner().invoke(app, ["race", *arguments])


def test_a_race_on_ones_own_training_with_what_is_used_now(race, tmp_path):
    done = race("mine.py:descend", *QUICK, "--now", "torch.optim.SGD lr=0.01", "--json", "race.json")
    assert done.exit_code == 0, done.output
    found = Race.from_json((tmp_path / "race.json").read_text())
    for said in ("Your own training, descend", "First run, now at lr 0.01: ", "0.01 (as it is)", found.verdict):
        assert said in " ".join(done.output.split())
    assert "of the steps against what you do now" in found.verdict
    assert found.now.hyperparameters["weight_decay"] == 0
    assert {run.steps[-1] for rule in found.rules for run in rule.verdict} == {8}
    assert "validation" not in done.output
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine.py:ascend"], "mine.py has no function of this name to train a run; it has descend"),
        (["mine.py:learning_rate"], "it has descend"),
        (["theirs.py:descend"], "there is no file theirs.py"),
        (["mine.py:descend", "--target", "price"], "--target is for a table"),
        (["mine.py:descend", "--epochs", "3"], "--epochs is for a table"),
        (["mine.py:descend", "--why"], "--why is for a race on a table"),
        (["mine.py:descend", "--steps", "0"], "--steps 0: give the steps"),
        (["mine.py:descend", "--limit", "-1"], "--limit -1.0: give the most seconds"),
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
