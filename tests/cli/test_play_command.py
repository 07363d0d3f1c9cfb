import pytest
from typer.testing import CliRunner

from downslope.cli import app

OWN = "import downslope\n@downslope.rule\ndef half(x, dx, *, lr=0.1):\n    return x - lr * dx / 2\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(app, ["play", *arguments])


def test_the_page_is_written(run, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    done = run("mine.py:half", "adam", "--link", "#surface=valley", "--out", "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout == "Written: page.html\n"
    text = (tmp_path / "page.html").read_text()
    assert text.startswith("<!doctype html>")
    assert '"link":"rules=half,adam&surface=valley"' in text
    assert '"half":' in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense"),
        (["mine.py:half"], "there is no file mine.py"),
        (["--out", "nowhere/page.html"], "there is no folder"),
        (["adam", "adam"], "adam is given twice"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run, arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("works", [True, False])
def test_it_is_opened(run, tmp_path, monkeypatch, works):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or works)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = run()
    (address,) = opened
    assert address.startswith("file://")
    assert address.endswith(".html")
    assert (tmp_path / address.rpartition("/")[2]).read_text().startswith("<!doctype html>")
    assert done.exit_code == (0 if works else 1)
    assert works or "--out page.html" in done.output
