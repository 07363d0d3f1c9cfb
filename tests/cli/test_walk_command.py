import pytest
from typer.testing import CliRunner

from downslope.cli import app
from downslope.walks.surfaces import SURFACES


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *arguments: CliRunner().invoke(app, ["walk", *arguments])


def test_a_walk_ends_with_a_table_and_a_film(run, tmp_path):
    done = run("bowl")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "rule"
    assert {line.split()[0] for line in lines[1:7]} == {"sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"}
    assert lines[-1] == "Written: walk.html"
    assert (tmp_path / "walk.html").read_text().startswith("<!doctype html>")


def test_everything_can_be_said(run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import downslope\n@downslope.rule\ndef half(x, dx, *, lr=0.1):\n    return x - lr * dx / 2\n"
    )
    arguments = ["--rules", "momentum,keras.adam,mine.py:half", "--set", "mu=0.5", "--set", "keras.adam.beta1=0.8"]
    arguments += [
        "--shape",
        "kappa=10",
        "--start=-3,2",
        "--steps",
        "30",
        "--lr",
        "0.1",
        "--noise",
        "0.1",
        "--seed",
        "7",
    ]
    done = run("valley", *arguments, "--out", "a.csv", "--out", "b.html")
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert rows[0].startswith("rule,lr,step,x,y,loss")
    assert rows[1].startswith("momentum,0.1,0,-3.0,2.0,4.9,")  # (9 + 10 * 4) / 10
    page = (tmp_path / "b.html").read_text()
    assert '"mu":0.5' in page
    assert '"beta1":0.8' in page
    assert "half" in page


def test_a_formula_and_the_list_of_surfaces(run):
    assert run("x**2/10 + 5*y**2", "--rules", "sgd").exit_code == 0
    listed = run("--surfaces").stdout
    assert all(surface.name in listed for surface in SURFACES)


def test_to_standard_output_goes_the_film_alone(run, capfd):
    done = run("bowl", "--rules", "sgd", "--out", "/dev/stdout")
    assert done.exit_code == 0
    assert capfd.readouterr().out.startswith("<!doctype html>")
    assert "steps to goal" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["__import__('os').system('x')"], "unexpected"),
        (["valley", "--rules", "adamm"], "--rules adamm"),
        (["valley", "--rules", ","], "at least one rule"),
        (["valley", "--set", "mu"], "--set mu: give NAME=VALUE"),
        (["valley", "--set", "lr=1"], "the learning rate of all is --lr"),
        (["valley", "--set", "lion.mu=1"], "no rule of this walk is named lion"),
        (["valley", "--shape", "kapa=3"], "kapa"),
        (["valley", "--start", "1,b"], "--start 1,b: give a number for each weight"),
        (["valley", "--lr", "fast"], "--lr fast: give a number, best or own"),
        (["valley", "--lr=-1"], "lr=-1.0"),
        (["valley", "--steps", "0"], "steps=0"),
        (["valley", "--noise=-1"], "noise=-1.0"),
        (["valley", "--out", "walk.mp4"], "should end with"),
        (["valley", "--out", "missing/walk.html"], "there is no folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_writes_nothing(run, tmp_path, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("downslope walk: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
