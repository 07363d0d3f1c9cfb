"""What the page of a rule shows as its formula runs as it stands there, and is the rule."""

import re

import matrix_pictures
import numpy as np
import pytest
import shown
from sybil import Sybil

import downslope
from downslope.recipes import catalogue
from downslope.recipes.families import families
from downslope.rules import OVER_TENSORS, RULES
from reader import PARSERS

FORMS = {
    f"{dialect}.{rule.name}": rule
    for name in (rule.name for rule in RULES)
    for dialect, rule in families()[name].items()
    if dialect != "note"
}


def run(source, path, given):
    """Run a block of a page; what it has defined in the end."""
    path.write_text(f"```python\n{source}\n```\n", encoding="utf-8")
    document = Sybil(PARSERS).parse(path)
    document.namespace |= given
    for example in document.examples():
        example.evaluate()
    return document.namespace


@pytest.mark.parametrize("rule", [*RULES, *OVER_TENSORS], ids=lambda rule: rule.name)
def test_the_formula_of_a_page_is_the_rule(rule, tmp_path):
    found = run(shown.formula(rule), tmp_path / "page.md", {})[rule.name]
    assert found.latex() == rule.latex()
    assert (found.flags, found.hyperparameters) == (rule.flags, rule.hyperparameters)


@pytest.mark.parametrize("name", FORMS)
def test_the_formula_of_a_framework_is_code(name, tmp_path):
    source = "\n".join(catalogue.facts(FORMS[name])["formula"])
    called = set(re.findall(r"\b(\w+)\(", source))  # a state may have the name of a word, as sum has
    words = {word: getattr(downslope, word, abs) if word in called else np.full(2, 0.5) for word in shown.read(source)}
    if "t" in words:
        words["t"] = 1000.0
    before = words["x"]
    after = run(source, tmp_path / "page.md", words)["x"]
    assert after.shape == (2,)
    assert not np.array_equal(after, before)


def test_the_picture_of_a_matrix_is_of_a_valley():
    generator, start = np.random.default_rng(1), matrix_pictures.valley()[3]
    for _ in range(3):
        way = 1e-6 * generator.normal(size=start.shape)
        rise = matrix_pictures.loss(start + way) - matrix_pictures.loss(start - way)
        assert rise == pytest.approx(2 * np.sum(way * matrix_pictures.gradient(start)), rel=1e-6)
    assert matrix_pictures.loss(matrix_pictures.valley()[2]) == 0


def test_muon_steps_in_all_directions():
    muon, sgd = (matrix_pictures.directions(rule) for rule in (downslope.muon, downslope.sgd))
    assert muon[6] > 0.5
    assert sgd[2] < 0.05
    losses, _ = matrix_pictures.descended(downslope.sgd, 1e3, steps=20)
    assert np.isinf(losses[-1])
