"""`downslope claims`: what it says, writes, remembers and refuses."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.cells import cell_len
from test_claims import FIRST, VALLEY, claim_of
from typer.testing import CliRunner

import downslope.play.page
from downslope.claims import Part, Raced, at_least, at_most, measuring, shelf
from downslope.claims import measures as m
from downslope.claims.shelf import Shelf
from downslope.cli import app
from downslope.sealed import sealed, unsealed
from downslope.version import __version__

PLAYGROUND = f'<title>downslope playground</title> "version":"{__version__}"'
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
    monkeypatch.setattr(shelf, "CLAIMS", (WALKED, RACED))
    monkeypatch.setattr(downslope.play.page, "page", lambda: PLAYGROUND)  # to make it takes seconds
    return lambda *arguments: CliRunner().invoke(app, ["claims", *arguments])


def test_stopped_it_goes_on_where_it_was(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Raced, "run", lambda self, folder: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = run("--folder", "my claims")
    assert stopped.exit_code == 130
    assert stopped.stdout.splitlines()[:5] == [
        "walked: A claim.",
        "  ◐ holds under conditions, in 1 of 2 questions; 1 of 2 as expected",
        "  Holds when",
        "    it is the first step",
        "      length of the first step, adam, plain over adam: 3.16 (adam, plain 0.316, adam 0.1), at least",
    ]
    assert "stopped after 1 of 2 claims; go on with: downslope claims --folder 'my claims'\n" in stopped.stderr
    page = (tmp_path / "my claims/claims.html").read_text()
    assert "It was stopped after 1 of 2 claims." in page
    assert "downslope claims --only walked --folder &#x27;my claims&#x27;</code>" in page
    assert 'id="raced"' not in page

    with monkeypatch.context() as patch:
        patch.setattr(measuring.Walked, "run", lambda *given: pytest.fail("what is finished is measured again"))
        done = run("--folder", "my claims", "--only", "raced")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "my claims/claims.html").read_text()
    assert "stopped" not in page
    assert 'id="raced"' in page
    assert 'id="walked"' in page  # what is there already stays
    assert page.count('<svg class="drawn"') == 3
    assert 'href="playground.html#surface=bowl"' in page
    assert (tmp_path / "my claims/playground.html").read_text() == PLAYGROUND
    assert "script-src &#x27;none&#x27;" in page

    with monkeypatch.context() as patch:  # nor for a page in the other language
        patch.setattr(measuring.Bench, "measure", lambda *given: pytest.fail("what is finished is measured again"))
        told = run("--folder", "my claims", "--language", "zh")
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[1:4] == [
        "  ◐ 有条件地成立：2 问中有 1 问；2 个里有 1 个与预期相符",
        "  成立的情形",
        "    看第一步",
    ]
    assert "，要求至少 2" in told.stdout
    assert max(cell_len(line) for line in lines) <= 100  # a letter of Chinese takes two places
    chinese = (tmp_path / "my claims/claims.html").read_text()
    assert "2 个说法中，1 个有条件地成立" in chinese
    assert 'href="playground.html#lang=zh&amp;surface=bowl"' in chinese
    assert "--folder &#x27;my claims&#x27; --language zh</code>" in chinese

    # The race's number is that of the lab's own comparison, and its runs are kept.
    from downslope.lab.keeping.told import kept_runs, read_race

    (folder,) = (tmp_path / "my claims/races").iterdir()
    race = read_race(folder, kept_runs(folder))
    (ratio,) = race.comparisons
    told = json.loads((tmp_path / "my claims/results/raced.json").read_text())["found"][0]["quantity"]
    ends = [ratio.ratio.estimate, ratio.ratio.low, ratio.ratio.high]
    assert [float(told[name]) for name in ("estimate", "low", "high")] == ends


def test_a_result_that_was_edited_is_refused(run, tmp_path):
    place = tmp_path / "claims/results/walked.json"
    assert run("--only", "walked").exit_code == 0
    told = place.read_text()
    evil = '<meta http-equiv="refresh" content="0;url=http://evil.example">'
    document = unsealed(told)
    document["pictures"][0]["svg"] = evil
    for text, why in (
        ('{"somebody\'s": "work"}', "it is no document of downslope's"),
        (told.replace("3.16", "3.17"), "it is not as it was written"),
        (sealed({**document, "name": "raced"}), "it is not what is measured of walked"),
        (sealed(document), "it is not as it was written"),
    ):
        place.write_text(text)
        refused = run("--only", "walked")
        assert refused.exit_code == 2
        assert refused.stderr.startswith("downslope claims: claims/results/walked.json: ")
        assert why in refused.stderr
        assert "move it away, and the claim is measured again" in refused.stderr
        assert place.read_text() == text
        assert "evil" not in (tmp_path / "claims/claims.html").read_text()
    place.unlink()
    assert run("--only", "walked").exit_code == 0
    assert unsealed(place.read_text())["found"] == unsealed(told)["found"]


def test_only_a_folder_of_its_own_is_written_to(run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "thesis/results").mkdir(parents=True)
    (tmp_path / "thesis/results/walked.json").write_text("years of work")
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked/claims.json").write_text("{}")
    for folder, why in (
        ("taken", "give the name of a folder"),
        ("thesis", "it holds other things and was not made by downslope claims; give an empty folder"),
        ("marked", "it holds other things and was not made by downslope claims; give an empty folder"),
    ):
        refused = run("--folder", folder)
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"downslope claims: --folder {folder}: ")
        assert why in refused.stderr
    assert [each.name for each in (tmp_path / "thesis").iterdir()] == ["results"]
    assert (tmp_path / "thesis/results/walked.json").read_text() == "years of work"
    assert (tmp_path / "marked/claims.json").read_text() == "{}"
    Shelf(tmp_path / "ours")
    for name in ("claims.html", "playground.html"):
        page = tmp_path / "ours" / name
        page.write_text("my claims to the throne")
        refused = run("--folder", "ours")
        assert refused.stderr == (
            f"downslope claims: --folder ours: ours/{name} was not made by downslope and would be replaced; "
            "move it away\n"
        )
        assert page.read_text() == "my claims to the throne"
        page.unlink()


def test_names_are_listed_and_known(run, tmp_path, monkeypatch):
    unknown = run("--only", "walked", "--only", "wlaked")
    assert unknown.exit_code == 2
    assert unknown.stderr == "downslope claims: --only wlaked: there is no such claim; choose from walked, raced\n"
    assert run("--list").stdout.splitlines() == ["walked           A claim.", "raced            A claim."]
    monkeypatch.setattr(shelf, "CLAIMS", (replace(WALKED, words="One word after another, " * 4),))
    first, *rest = run("--list").stdout.splitlines()
    assert first.startswith("walked           One word")
    assert rest
    assert all(line[:17].isspace() and line[17] != " " for line in rest)
    assert not (tmp_path / "claims").exists()


def test_without_what_others_need_the_rest_is_shown(tmp_path):
    """Without JAX, PyTorch, TensorFlow, a browser: races are named as missing, and not remembered; walks are there."""
    Shelf(tmp_path / "claims")
    (tmp_path / "claims/playground.html").write_text(PLAYGROUND)  # to make it takes seconds
    script = f"""
import sys
for name in ("jax", "torch", "tensorflow", "keras", "playwright"):
    sys.modules[name] = None
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})


from downslope.claims import shelf
from test_claims_command import RACED, WALKED
shelf.CLAIMS = (RACED, WALKED)
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


def test_languages(run):
    told = run("--list", "--language", "zh", "--only", "walked")
    assert told.stdout.split() == ["walked", "A", "claim."]  # of what nobody translated, the English
    refused = run("--language", "fr")
    assert refused.exit_code == 2
    assert refused.stderr == "downslope claims: --language fr: there is no such language; choose from en, zh\n"
