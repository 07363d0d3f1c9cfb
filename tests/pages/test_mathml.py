from xml.etree import ElementTree

import pytest

from downslope.pages.mathml import mathml
from race_fixture import RULES


@pytest.mark.parametrize("rule", RULES)
def test_formulas_of_rules_become_mathml(rule):
    latex = RULES[rule][4]
    math = ElementTree.fromstring(mathml(latex))
    assert math.tag == "math"
    assert len(math.findall(".//mtr")) == latex.count(r"\\") + 1
    text = "".join(math.itertext())
    assert "&" not in text
    assert "\\" not in text


def test_conditions():
    latex = r"""\begin{aligned}
a &= \begin{cases} 1 & \text{if } t < 2 \\ \left|x_{t}\right| & \text{otherwise (see the\_note)} \end{cases} \\
b &= \operatorname{sign}\left(a\right)
\end{aligned}"""
    math = ElementTree.fromstring(mathml(latex))
    assert len(math.findall(".//mtable")) == 2
    assert "the_note" in "".join(math.itertext())


def test_a_word_is_one_element():
    math = ElementTree.fromstring(mathml(r"\mathrm{weight\_decay} \, x + \mathrm{lr}_{t} \, \mathrm{a} x"))
    assert [each.text for each in math.iter("mi")] == ["weight_decay", "x", "lr", "t", "a", "x"]


@pytest.mark.parametrize(
    "latex",
    [
        "",
        r"\frac{a",
        r"\unknown{x}",
        r"a &= b",
        r"\text{<script>alert(1)</script>}",
        r"\text{<b onclick=x>bold</b>}",
    ],
)
def test_what_cannot_be_converted_is_shown_as_source(latex):
    found = ElementTree.fromstring(mathml(latex))
    assert (found.tag, found.attrib, found.text or "") == ("code", {"class": "latex"}, latex)


def test_links_are_not_let_through():
    assert "javascript" not in mathml(r"\href{javascript:alert(1)}{x}")
