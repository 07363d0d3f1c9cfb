"""What the page of a rule shows as its formula runs as it stands there, and is the rule."""

import re

import numpy as np
import pytest
import shown
from sybil import Sybil

import downslope
from downslope.recipes import catalogue
from downslope.rules import OVER_TENSORS, RULES
from reader import PARSERS

FORMS = {
    f"{dialect}.{rule.name}": rule
    for name in (rule.name for rule in RULES)
    for dialect, rule in catalogue.families()[name].items()
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
