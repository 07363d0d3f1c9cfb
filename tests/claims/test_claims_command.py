"""`downslope claims`: what it says, writes, remembers and refuses."""

import json
import subprocess
import sys

import pytest
from test_claims import FIRST, VALLEY, claim_of
from typer.testing import CliRunner

from downslope.claims import Part, Raced, at_least, at_most, measuring
from downslope.claims import measures as m
from downslope.cli import app
from downslope.version import __version__

WALKED = claim_of(
    "walked",
    Part("it is the first step", m.stride("adam, plain", "adam"), at_least(2), "yes", FIRST),
    Part("the way is measured", m.detour("momentum", "sgd"), at_most(1), "yes", VALLEY),
)
RACED = claim_of(
    "raced",
    Part(
        "it is a bent valley",
        m.loss("sgd", "momentum"),
        at_most(1),
        "open",
        Raced(
            "rosenbrock",
            "sgd, momentum",
            {
                "learning_rates": (0.0001, 0.001),
                "tuning_seeds": 1,
                "confirming_seeds": 0,
                "verdict_seeds": 6,
                "epochs": 2,
            },
        ),
    ),
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(measuring, "CLAIMS", (WALKED, RACED))
    return lambda *arguments: CliRunner().invoke(app, ["claims", *arguments])


def test_stopped_it_goes_on_where_it_was(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Raced, "run", lambda self, folder: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = run()
    assert stopped.exit_code == 130
    assert stopped.stdout.splitlines()[:3] == [
        "walked: A claim.",
        "  ◐ holds under conditions; 1 of 2 as expected",
        "  Holds when",
    ]
    assert "stopped after 1 of 2 claims; go on with: downslope claims --folder claims" in stopped.stderr
    page = (tmp_path / "claims/claims.html").read_text()
    assert "It was stopped after 1 of 2 claims." in page
    assert 'id="raced"' not in page

    with monkeypatch.context() as patch:
        patch.setattr(measuring.Walked, "run", lambda *given: pytest.fail("what is finished is measured again"))
        done = run()
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[:3] == stopped.stdout.splitlines()[:3]
    page = (tmp_path / "claims/claims.html").read_text()
    assert "stopped" not in page
    assert 'id="raced"' in page
    assert page.count('<svg class="drawn"') == 3
    assert 'href="playground.html#surface=bowl"' in page
    assert "<!doctype html>" in (tmp_path / "claims/playground.html").read_text()
    assert "script-src &#x27;none&#x27;" in page

    # The race's number is that of the lab's own comparison, and its runs are kept.
    from downslope.lab.keeping.told import kept_runs, read_race

    (folder,) = (tmp_path / "claims/races").iterdir()
    race = read_race(folder, kept_runs(folder))
    (ratio,) = race.comparisons
    told = json.loads((tmp_path / "claims/results/raced.json").read_text())["found"][0]["quantity"]
    ends = [ratio.ratio.estimate, ratio.ratio.low, ratio.ratio.high]
    assert [float(told[name]) for name in ("estimate", "low", "high")] == ends

    # A result that somebody broke is measured anew.
    (tmp_path / "claims/results/walked.json").write_text("{")
    assert run("--only", "walked").exit_code == 0
    assert json.loads((tmp_path / "claims/results/walked.json").read_text())["name"] == "walked"


def test_what_is_wrong_is_refused(run, tmp_path):
    unknown = run("--only", "walked", "--only", "wlaked")
    assert unknown.exit_code == 2
    assert unknown.stderr == "downslope claims: --only wlaked: there is no such claim; choose from walked, raced\n"
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("years of work")
    for folder, why in (
        ("taken", "give the name of a folder"),
        ("full", "it holds other things; give an empty folder"),
    ):
        refused = run("--folder", folder)
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"downslope claims: --folder {folder}: ")
        assert why in refused.stderr
    assert [each.name for each in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    assert run("--list").stdout.splitlines() == ["walked           A claim.", "raced            A claim."]
    assert not (tmp_path / "claims").exists()


def test_without_what_others_need_the_rest_is_shown(tmp_path):
    """Without JAX, PyTorch, TensorFlow, a browser: races are named as missing, and not remembered; walks are there."""
    (tmp_path / "claims/results").mkdir(parents=True)
    (tmp_path / "claims/playground.html").write_text(f'"version":"{__version__}"')  # to make it takes seconds
    script = f"""
import sys
for name in ("jax", "torch", "tensorflow", "keras", "playwright"):
    sys.modules[name] = None
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})


from downslope.claims import measuring
from test_claims_command import RACED, WALKED
measuring.CLAIMS = (RACED, WALKED)
from downslope.cli import app
app(["claims"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "downslope.lab needs jax, which is not installed" in done.stdout
    assert "length of the first step, adam, plain over adam: 3.16" in done.stdout
    page = (tmp_path / "claims/claims.html").read_text()
    assert "– not measured" in page
    assert "needs jax" in page
    assert [each.name for each in (tmp_path / "claims/results").iterdir()] == ["walked.json"]
