"""The command line and `downslope race`, run as a user runs it."""

import csv
import dataclasses
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

import downslope
from downslope.cli import app
from downslope.lab import Race
from race_fixture import make_race

COMMAND = [sys.executable, "-m", "downslope"]
QUICK = ["--rules", "sgd,adam", "--lrs", "0.01,0.1", "--tuning-seeds", "1", "--seeds", "2"]


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "COLUMNS": "150", **environment},
    )


@pytest.fixture
def race(tmp_path, monkeypatch):
    """The command, run in the folder of the test and in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return lambda *arguments: CliRunner().invoke(app, ["race", *arguments])


def test_the_version(tmp_path):
    assert run("--version", cwd=tmp_path).stdout.strip() == downslope.__version__


@pytest.mark.slow
def test_a_race_ends_with_table_verdict_report_and_numbers_in_a_terminal_that_knows_only_ascii(tmp_path):
    files = ("--json", "race.json", "--csv", "runs.csv")
    few = (*QUICK, "--epochs", "2", *files)
    done = run("race", "parabola", *few, cwd=tmp_path, PYTHONIOENCODING="ascii", COLUMNS="60")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    for words in ("best lr", "adam", "x^2", "Report: report.html"):
        assert words in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert 'src="http' not in page
    race = Race.from_json((tmp_path / "race.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert len(rows) == sum(len(rule.tuning) + len(rule.verdict) for rule in race.rules)
    assert {row["rule"] for row in rows} == {"sgd", "adam"}
    last = race.rules[-1].verdict[-1]
    assert float(rows[-1]["valid_loss"]) == last.final_loss
    assert float(rows[-1]["test_loss"]) == last.test_loss


@pytest.mark.slow
def test_a_table_of_ones_own_whose_names_have_brackets_and_a_rule_of_ones_own(tmp_path, race):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((120, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.1 * generator.standard_normal(120)
    lines = ["a[bold],b,c,y[/b]", *(",".join(map(str, [*row, value])) for row, value in zip(x, y, strict=True))]
    (tmp_path / "[b]data.csv").write_text("\n".join(lines))
    (tmp_path / "mine.py").write_text(
        "from downslope import rule, sign\n\n@rule\ndef signs(x, dx, *, lr=0.01):\n    return x - lr * sign(dx)\n"
    )
    done = race(
        *("[b]data.csv", "--target", "y[/b]", "--hidden", "8,4", "--epochs", "2", "--out", "[x].html"),
        *("--rules", "sgd,mine.py:signs", "--lrs", "0.001,0.01", "--tuning-seeds", "1", "--seeds", "2"),
    )
    assert done.exit_code == 0, done.output
    for words in ("signs", "y[/b]", "[x].html"):
        assert words in done.stdout
    assert "3-8-4-1" in (tmp_path / "[x].html").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nothing"], "nothing"),
        (["missing.csv", "--target", "y"], "missing.csv"),
        (["data.csv"], "no file 'data.csv'"),
        (["classes.csv"], "say which column to predict, with --target COLUMN; the columns are 'a', 'y'"),
        (["digits", "--target", "y"], "--target"),
        (["digits", "--rules", "adamm"], "adamm"),
        (["digits", "--rules", "gone.py:mine"], "gone.py"),
        (["digits", "--lrs", "a,b"], "--lrs"),
        (["digits", "--lrs", "-1"], "--lrs"),
        (["digits", "--seeds", "0"], "--seeds 0: give"),
        (["data.tsv", "--target", "y"], "no file 'data.tsv'"),
        (["classes.csv", "--target", "y"], "--task 'regression'"),
        (["classes.csv", "--target", "y", "--batch-size", "0"], "--batch-size: 0 rows"),
        (["gaps.csv", "--target", "y"], "--impute"),
        (["text.csv", "--target", "y"], "--encode"),
        (["escape.csv", "--target", "y\x1b[31m"], r"'y\x1b[31m'"),
        (["digits", "--rules", "undecorated.py:mine"], "write @downslope.rule"),
        (["digits", "--rules", "needy.py:mine"], "--set mine.mu=VALUE"),
        (["digits", "--set", "adam.beta1"], "RULE.NAME=VALUE"),
        (["digits", "--set", "lion.beta1=0.9"], "no rule of this race is named lion"),
        (["digits", "--set", "adam.beta=0.9"], "did you mean beta"),
        (["digits", "--rules", "keras.adam,torch.adam", "--set", "adam.beta1=0.9"], "keras.adam or torch.adam"),
        (["digits", "--rules", "adam,keras.adam,adam"], "adam is given twice"),
        (["digits", "--set", "adam.beta1=2"], "beta1=2.0 is out of range"),
        (["digits", "--set", "adam.beta1=much"], "'much' is neither a number"),
        (["digits", "--set", "adam.lr=1"], "--lrs"),
        (["digits", "--grid", "beta1"], "--grid beta1: give NAME=VALUES"),
        (["digits", "--grid", "beta1=0.8,much"], "'much' is neither a number"),
        (["digits", "--grid", "beta1=0.8", "--grid", "beta1=0.9"], "give all of its values at once"),
        (["digits", "--grid", "lr=0.1"], "--grid: lr is what the race tunes anyway; give --lrs"),
        (["digits", "--grid", "batch_size=0"], "--grid of sgd: batch_size 0: give whole numbers"),
        (["digits", "--seed", "-1"], "--seed -1"),
        (["digits", "--split-seed", "-1"], "--split-seed -1"),
        (["digits", "--splits", "none"], "--splits none"),
        (["digits", "--margin", "1"], "margin"),
        (["digits", "--epochs", "0"], "epochs"),
        (["digits", "--task", "ranking"], "ranking"),
        (["digits", "--out", "no/such/folder.html"], "--out"),
        (["digits", "--hidden", "7"], "--hidden"),
        (["digits", "--batch-size", "0"], "--batch-size"),
        (["digits", "--rules", "broken.py:mine"], "ZeroDivisionError"),
        (["digits", "--rules", "quits.py:mine"], "SystemExit"),
        (["digits", "--rules", "other.py:mine"], "yours"),
        (["digits", "--rules", "wrong.py:mine"], "ZeroDivisionError"),
    ],
)
def test_bad_input_ends_with_one_clear_line(tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0")
    formula = "@rule\ndef mine(x, dx, *, lr=0.1):\n    return x / (1 / 0)"
    (tmp_path / "wrong.py").write_text(f"from downslope import rule\n\n{formula}\n")
    (tmp_path / "quits.py").write_text("raise SystemExit(0)")
    (tmp_path / "other.py").write_text("from downslope import adam as yours")
    (tmp_path / "undecorated.py").write_text("def mine(x, dx, *, lr=0.1):\n    return x - lr * dx\n")
    needy = "@rule\ndef mine(x, dx, v=0, *, lr=0.1, mu):\n    v = mu * v - lr * dx\n    return x + v, v"
    (tmp_path / "needy.py").write_text(f"from downslope import rule\n\n{needy}\n")
    (tmp_path / "classes.csv").write_text("a,y\n" + "\n".join(f"{k * k},{k % 7 if k else 9}" for k in range(40)))
    (tmp_path / "gaps.csv").write_text("a,y\n" + "\n".join(f"{k * k if k else 'NA'},{k / 3}" for k in range(40)))
    (tmp_path / "text.csv").write_text("a,b,y\n" + "\n".join(f"{'uvw'[k % 3]},{k},{k / 3}" for k in range(40)))
    (tmp_path / "escape.csv").write_text("a,y\x1b[32m\n" + "\n".join(f"{k},{k / 3}" for k in range(40)))
    done = CliRunner().invoke(app, ["race", *arguments])
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)  # not one with a traceback
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert named in done.stderr
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.slow
def test_two_dialects_of_one_rule_race_each_other(tmp_path, race):
    settings = ("--set", "keras.adam.eps=0.001", "--set", "sgd_momentum.momentum=0.8")
    rules = "adam,keras.adam,torch.sgd_momentum"
    done = race(
        *("parabola", "--rules", rules, *settings, "--lrs", "0.01", "--tuning-seeds", "1", "--seeds", "2"),
        *("--epochs", "2", "--json", "race.json", "--csv", "-"),
    )
    assert done.exit_code == 0, done.output
    found = Race.from_json((tmp_path / "race.json").read_text())
    assert [one.rule for one in found.rules] == ["adam", "keras.adam", "torch.sgd_momentum"]
    assert (found.rules[1].hyperparameters["eps"], found.rules[2].hyperparameters["momentum"]) == (0.001, 0.8)
    page = (tmp_path / "report.html").read_text()
    for name in ("keras.adam", "torch.sgd_momentum"):
        assert any(line.split()[:1] == [name] for line in done.stderr.splitlines())
        assert any(row["rule"] == name for row in csv.DictReader(io.StringIO(done.stdout)))
        assert f'data-rule="{name}"' in page


def test_a_class_of_a_framework_is_the_rule_of_its_name():
    from downslope.cli.names import rules_named

    assert list(rules_named("torch.optim.SGD", "--rules")) == ["torch.sgd"]


@pytest.mark.slow
def test_a_table_of_another_dialect_and_a_hyperparameter_on_the_command_line(tmp_path, race):
    rows = "\n".join(f"{k};{'uvw'[k % 3]};{k // 7},{k % 7 + 1};{k % 5},5" for k in range(60))
    with gzip.open(tmp_path / "data.tsv.gz", "wt", encoding="cp1252") as file:
        file.write(f";größe;a;y\n{rows}\n60;;?;1,5")
    (tmp_path / "mine.py").write_text(
        "from downslope import rule\n\n@rule\ndef mine(x, dx, v=0, *, lr=0.01, mu):\n"
        "    v = mu * v - lr * dx\n    return x + v, v\n"
    )
    done = race(
        *("data.tsv.gz", "--target", "y", "--encode", "--impute", "--epochs", "2", "--rules", "mine.py:mine"),
        *("--set", "mine.mu=0.9", "--lrs", "0.01", "--tuning-seeds", "1", "--seeds", "2"),
    )
    assert done.exit_code == 0, done.output
    for words in ("semicolons", "decimal commas", "cp1252", "--keep-index keeps it", "1 missing value"):
        assert words in done.stderr
    assert "5-64-1" in (tmp_path / "report.html").read_text()  # four categories and a number


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals for a child process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_race_and_never_replaces_a_report_by_one_that_says_less(tmp_path, number):
    (tmp_path / "old.html").write_text("an earlier race")
    arguments = ["race", "parabola", "--epochs", "100000", "--rules", "sgd", "--lrs", "0.1", "--tuning-seeds", "1"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--out", "old.html", "--json", "new.json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    first = []
    for line in process.stdout:  # the race has begun once its first lines are there
        first.append(line)
        if "Ctrl-C" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 128 + number, err
    assert "Interrupted" in out
    assert "old.html is left as it was" in out
    assert (tmp_path / "old.html").read_text() == "an earlier race"
    assert json.loads((tmp_path / "new.json").read_text())["interrupted"] is True
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [("--json", "-", "--csv", "-"), ("--csv", "no/such/folder.csv"), ("--json", "report.html")]
)
def test_outputs_are_checked_before_anything_is_trained(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["race", "parabola", *arguments])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert arguments[-2] in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "command"),
    [(name, "race") for name in ("jax", "scipy", "sklearn", "polars", "plotly", "rich", "latex2mathml", "typer")]
    + [("rich", "rules"), ("typer", "convert")],
)
def test_a_missing_package_is_said_before_anything_is_trained(tmp_path, package, command):
    script = f"import sys; sys.modules[{package!r}] = None; from downslope.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert package in done.stderr
    assert 'pip install "downslope[lab]"' in done.stderr


def test_a_broken_package_is_said_before_anything_is_trained(tmp_path):
    (tmp_path / "plotly").mkdir()
    (tmp_path / "plotly" / "__init__.py").write_text("raise RuntimeError('half installed')")
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        [*COMMAND, "race", "parabola"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 1
    assert "plotly, which cannot be imported (RuntimeError: half installed)" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_report_goes_beside_an_older_one(tmp_path):
    from downslope.cli.outputs import _place

    file = tmp_path / "page.html"
    whole = make_race()
    stopped = dataclasses.replace(whole, interrupted=True)
    assert _place(whole, file) == _place(stopped, file) == file
    file.write_text("a whole race")
    assert _place(whole, file) == file
    assert _place(stopped, file) == tmp_path / "page-interrupted.html"
    (tmp_path / "page-interrupted.html").write_text("six of seven rules judged")
    assert _place(stopped, file) == tmp_path / "page-interrupted-2.html"
    (tmp_path / "page-interrupted-2.html").symlink_to("nowhere")
    assert _place(stopped, file) == tmp_path / "page-interrupted-3.html"
    unjudged = tuple(dataclasses.replace(result, verdict=()) for result in stopped.rules)
    assert _place(dataclasses.replace(stopped, rules=unjudged), file) is None


@pytest.mark.slow
def test_the_page_goes_to_standard_output_as_to_a_file_whatever_its_encoding_and_words_for_people_elsewhere(tmp_path):
    done = subprocess.run(
        [*COMMAND, "race", "parabola", *QUICK, "--epochs", "2", "--out", "/dev/stdout", "--csv", "runs.csv"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    page, words = done.stdout.decode("utf-8"), done.stderr.decode("ascii")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "y = x² + 0.1 · noise" in page
    assert "Report: /dev/stdout" in words
    runs = pl.read_csv(tmp_path / "runs.csv")
    assert {"rule", "lr", "seed", "phase", "valid_loss", "test_loss"} <= set(runs.columns)
    assert set(runs["phase"]) == {"tuning", "verdict"}


def test_two_outputs_do_not_go_to_standard_output(race):
    taken = race("parabola", *QUICK, "--out", "-", "--json", "-")
    assert taken.exit_code == 2
    assert "--out is written there" in taken.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such paths")
def test_a_stream_is_never_taken_for_an_older_report(tmp_path):
    from downslope.cli.outputs import _place

    with (tmp_path / "log").open("w") as log:
        stream = Path(f"/dev/fd/{log.fileno()}")
        assert _place(dataclasses.replace(make_race(), interrupted=True), stream) == stream


def test_numbers_are_written_even_if_the_page_cannot_be(tmp_path, monkeypatch):
    from rich.console import Console

    from downslope import files
    from downslope.cli.outputs import write_outputs

    written = []

    def write(path, text):
        if path.suffix == ".html":
            raise OSError("the disk is full")
        written.append(path.name)

    monkeypatch.setattr(files, "write", write)
    paths = [tmp_path / name for name in ("page.html", "race.json", "runs.csv")]
    with pytest.raises(typer.Exit):
        write_outputs(make_race(), *paths, Console(file=io.StringIO()))
    assert written == ["race.json", "runs.csv"]
