"""`downslope race --folder` and `--resume`: a race that is stopped, and goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from downslope.cli import app
from downslope.lab.keeping import claims
from downslope.lab.keeping.told import kept_runs, read_race
from downslope.lab.workers import cluster

TRAINING = """
import os
import numpy as np

def descend(run):
    if os.path.exists("stop"):
        with open("stop") as file:
            if len(os.listdir("report.race/runs")) >= int(file.read()):
                raise KeyboardInterrupt
    x = np.random.default_rng(run.seed).normal(size=3)
    optimizer = run.optimizer(x)
    for step in range(4):
        run.report(step, x @ x)
        optimizer.step(2 * x)
    run.report(4, x @ x)
"""
HANGS = """    if "HANGS" in os.environ and os.listdir("race/runs"):
        open("hangs", "w").close()
        __import__("time").sleep(3600)
    if os"""
"""What the second shell does in its second run, until it is killed there: it holds that run's claim."""
QUICK = ["mine.py:descend", "--rules", "sgd,adam", "--lrs", "0.01,0.1", "--tuning-seeds", "1", "--seeds", "3"]


@pytest.fixture
def race(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(TRAINING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: CliRunner().invoke(app, ["race", *arguments])


def show(*folders):
    return CliRunner().invoke(app, ["show", *map(str, folders)])


def numbers(path):
    """All runs of a race that was written as JSON."""
    return [(rule["rule"], rule["tuning"], rule["verdict"]) for rule in json.loads(path.read_text())["rules"]]


def test_a_race_that_was_stopped_says_how_to_go_on_and_goes_on_from_anywhere(race, tmp_path, monkeypatch):
    whole = race(*QUICK, "--json", "whole.json")
    assert whole.exit_code == 0, whole.output
    assert "Runs: report.race" in whole.output
    (tmp_path / "report.race").rename(tmp_path / "whole")
    (tmp_path / "stop").write_text("1")
    stopped = race(*QUICK, "--json", "race.json")
    assert stopped.exit_code == 128 + signal.SIGINT
    assert "go on with: downslope race --resume report.race" in stopped.stderr
    (tmp_path / "stop").unlink()
    under_way = show("report.race")
    assert "downslope race mine.py:descend --rules sgd,adam" in under_way.output
    assert "It has not ended; go on with: downslope race --resume report.race" in under_way.output
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    done = race("--resume", "../report.race")
    assert done.exit_code == 0, done.output
    assert "were there and were not trained again" in done.output
    assert numbers(tmp_path / "race.json") == numbers(tmp_path / "whole.json")
    assert read_race(tmp_path / "report.race").verdict == read_race(tmp_path / "whole").verdict
    exported = CliRunner().invoke(app, ["export", str(tmp_path / "report.race"), "--to", "optuna"])
    assert exported.output == f"Written for optuna: {tmp_path / 'report.race.optuna.log'}\n"
    assert (tmp_path / "report.race.optuna.log").is_file()
    ended = show(tmp_path / "report.race")
    assert read_race(tmp_path / "whole").verdict in ended.output
    count = len(kept_runs(tmp_path / "whole"))
    both = show(tmp_path / "report.race", tmp_path / "whole")
    assert f"{count} runs are in both, {count} of them equal bit for bit." in both.output
    before = set(kept_runs(tmp_path / "report.race"))
    again = race("--resume", str(tmp_path / "report.race"))
    assert again.exit_code == 0
    assert set(kept_runs(tmp_path / "report.race")) == before


def test_a_grid_that_is_typed_goes_on(race, tmp_path):
    (tmp_path / "stop").write_text("1")
    stopped = race(*QUICK, "--grid", "weight_decay=0,0.1", "--grid", "cautious=false,true")
    assert stopped.exit_code == 128 + signal.SIGINT
    (tmp_path / "stop").unlink()
    assert "--grid weight_decay=0,0.1 --grid cautious=false,true" in show("report.race").output
    done = race("--resume", "report.race", "--json", "race.json")
    assert "over learning rate, weight_decay and cautious, with the same budget of" in done.output.replace("\n", " ")
    settings = {json.dumps(run["setting"]) for _, tuning, _ in numbers(tmp_path / "race.json") for run in tuning}
    assert len(settings) == 5  # and the default one


def test_a_race_that_is_stopped_before_its_first_run_says_how_to_go_on(race, tmp_path):
    (tmp_path / "stop").write_text("0")
    stopped = race(*QUICK, "--budget", "1h")
    assert stopped.exit_code == 128 + signal.SIGINT
    assert "go on with: downslope race --resume report.race" in stopped.stderr
    (tmp_path / "stop").unlink()
    assert race("--resume", "report.race").exit_code == 0
    assert read_race(Path("report.race")).budget.seconds == 3600


def test_a_new_race_never_takes_the_folder_of_another_unasked(race, tmp_path):
    (tmp_path / "report.race").mkdir()
    done = race(*QUICK)
    assert "Runs: report.race-2\n" in done.output
    assert not list((tmp_path / "report.race").iterdir())


def test_what_a_folder_settles_is_not_given_anew(race, tmp_path):
    assert race(*QUICK, "--folder", "kept").exit_code == 0
    refused = race("--resume", "kept", "--lrs", "0.1")
    assert refused.exit_code == 2
    assert "--lrs is settled there" in refused.stderr
    other = race(*QUICK, "--folder", "kept", "--steps", "4")
    assert other.exit_code == 2
    assert "--folder kept is that of another race (steps: 4 here, none in the folder)" in other.stderr
    wider = race(*QUICK[:-1], "4", "--folder", "kept")
    assert "were there and were not trained again" in wider.output
    assert "it has no plan.json" in race("--resume", ".").stderr
    wide = show("kept", "kept")
    assert "0 more are in kept, 0 more in kept" in wide.output
    assert "is no folder of a race" in show(".").stderr
    assert "--mix is for the runs in a folder" in race(*QUICK, "--mix").stderr


def test_workers_that_are_not_there_are_refused_in_a_line(race):
    assert "--workers 0: give a number of processes" in race(*QUICK, "--workers", "0").stderr
    both = race(*QUICK, "--workers", "2", "--scheduler", "tcp://127.0.0.1:1")
    assert "leave one out" in both.stderr
    budget = race("parabola", "--budget", "1min", "--workers", "2")
    assert "--workers 2 does not go with a budget here" in budget.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_of_two_shells_that_join_a_race_one_may_be_killed(race, tmp_path, monkeypatch):
    assert race(*QUICK, "--folder", "alone", "--json", "alone.json").exit_code == 0
    (tmp_path / "mine.py").write_text(TRAINING.replace("    if os", HANGS, 1))
    code = "from downslope.cli import main; main()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, "race", *QUICK, "--join", "race", "--out", "other.html"],
        env={**os.environ, "HANGS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not Path("hangs").exists():
        assert other.poll() is None
        time.sleep(0.05)
    monkeypatch.setattr(claims, "STALE", 3.0)
    killer = threading.Timer(1.0, other.kill)
    killer.start()
    done = race("--join", "race", "--json", "race.json")
    assert done.exit_code == 0, done.output
    assert other.wait() == -signal.SIGKILL
    other.stderr.close()
    assert numbers(tmp_path / "race.json") == numbers(tmp_path / "alone.json")


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_told(race, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "ANSWERS", 0.2)
    done = race(*QUICK, "--scheduler", "tcp://127.0.0.1:1")
    assert done.exit_code == 2
    assert "no scheduler answers there" in done.stderr


@pytest.mark.slow
def test_a_race_goes_on_with_workers(race, tmp_path):
    assert race(*QUICK, "--folder", "one", "--json", "one.json").exit_code == 0
    (tmp_path / "stop").write_text("0")
    done = race(*QUICK, "--folder", "report.race")
    assert done.exit_code == 128 + signal.SIGINT
    (tmp_path / "stop").unlink()
    done = race("--resume", "report.race", "--workers", "2", "--json", "two.json")
    assert done.exit_code == 0, done.output
    assert numbers(tmp_path / "two.json") == numbers(tmp_path / "one.json")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals for a child process")
def test_a_signal_loses_no_run_that_has_ended(race, tmp_path):  # bench/killed_races.py has SIGKILL too, at any moment
    code = "from downslope.cli import main; main()"
    slow = TRAINING.replace("for step", "import time\n    time.sleep(0.05)\n    for step")
    (tmp_path / "mine.py").write_text(slow)
    process = subprocess.Popen(
        [sys.executable, "-c", code, "race", *QUICK, "--json", "race.json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(Path("report.race/runs").glob("*.parquet")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 128 + signal.SIGTERM, err
    done = race("--resume", "report.race")
    assert done.exit_code == 0, done.output
    assert "were there and were not trained again" in done.output
