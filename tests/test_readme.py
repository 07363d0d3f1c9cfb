"""The README's promises: its commands, its links, its example. What is code in it is run, as in all pages."""

import re
import runpy
from pathlib import Path

import pytest

from downslope.rules import TEXTBOOK

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_ci_finds_the_two_commands():
    commands = re.findall(r"^pip install -e .*$", TEXT, re.MULTILINE)
    assert commands == [
        'pip install -e ".[lab]" && downslope race',
        'pip install -e ".[test]" -c constraints.txt && pytest -m ""',
    ]


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "README.zh.md", "CONTRIBUTING.md"),
        *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
        *(f"docs/learn/{name}.md" for name in ("index", "lesson", "glossary")),
    ],
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not link.startswith(("http", "rules/", "learn/rules/")):  # pages of rules are written when the site is built
            assert ((ROOT / page).parent / link).exists(), link


def test_code_is_of_a_language_that_is_run():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
    said = {
        (page.name, language)
        for page in pages
        for block in re.findall(r"^ *```.*?^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
        if not (language := block.partition("\n")[0].strip(" `")).startswith("{")
    }
    shown = {("how.md", "text"), ("play.md", "text"), ("CONTRIBUTING.md", "text")}  # assembly, a link, a map of folders
    assert {language for _, language in said - shown} <= {"python", "sh", "shell"}


@pytest.mark.slow
def test_the_example_gets_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "custom_rule.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "lion: certified" in printed
    assert r"\operatorname{sign}" in printed
    assert "12 bytes read, 8 bytes written" in printed
    assert re.search(r"lion|adam", printed.splitlines()[-1])


def test_the_example_is_six_lines_at_most():
    source = (ROOT / "examples/custom_rule.py").read_text()
    start = source.index("@rule")
    formula = source[start : source.index("\n\n", start)]
    lines = [line for line in formula.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) <= 6


def test_the_pictures_are_those_of_the_rules():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", TEXT.partition("| the picture |")[2].partition("\n\n")[0], re.M)
    assert [name for name, _ in rows] == [rule.name for rule in TEXTBOOK]
    assert [picture for _, picture in rows] == [rule.intuition for rule in TEXTBOOK]
