"""The README's promises: its commands, its code, its links."""

import re
import runpy
from pathlib import Path

import numpy as np
import optax
import pytest
import torch

import downslope
from downslope.rules import TEXTBOOK

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_ci_finds_the_two_commands():
    commands = re.findall(r"^pip install -e .*$", TEXT, re.MULTILINE)
    assert commands == [
        'pip install -e ".[lab]" && downslope race',
        'pip install -e ".[test]" -c constraints.txt && pytest -m ""',
    ]


def test_the_python_in_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    rule_file = tmp_path / "blocks.py"  # a formula's source is looked up in its file
    space = {"gradients": lambda weights: {name: np.ones_like(array) for name, array in weights.items()}}
    assert len(blocks) == 4
    for block in blocks:
        rule_file.write_text(block)
        exec(compile(block, str(rule_file), "exec"), space)
    assert (tmp_path / "state.safetensors").is_file()
    assert isinstance(space["own"], torch.optim.Optimizer)
    assert space["model"].optimizer.rule is downslope.adabelief
    assert isinstance(space["transformation"], optax.GradientTransformation)
    assert space["rmsprop"].cost().read == 12
    assert space["rmsprop"].cost().written == 8
    assert space["rmsprop"].cost().arithmetic == 9


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link


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
