"""Three questions that a reader has: the answer is two clicks from Start at most, in both languages, and is true."""

import re
from pathlib import Path

import chinese
import numpy as np
import pytest
import rule_pages

import downslope

DOCS = Path(__file__).parent.parent / "docs"
PROSE = rule_pages.prose_of(DOCS / "learn/prose.md")
CLICKS = 2
ASKED = {
    "Why does Adagrad slow down?": ("learn/rules/adagrad", "Why does it slow down?", "The sum only grows."),
    "What does eps do in Keras's Adam?": ("learn/rules/adam", "What does eps do?", "it weighs 32 times as much"),
    "Which lr for Muon, if AdamW liked 3e-4?": (
        "learn/rules/muon",
        "Which learning rate, if AdamW liked 3e-4?",
        "With `match_rms=True` the same, 3e-4",
    ),
    "Which lr for Muon, as a practitioner looks for it": (
        "dialects",
        "Muon: which learning rate is which",
        "from AdamW's rate η",
    ),
}


def text_of(page):
    """What the source of a page says; of a page of a rule what is written by hand."""
    rule = page.removeprefix("learn/rules/")
    return (DOCS / f"{page}.md").read_text(encoding="utf-8") if rule == page else PROSE.get(rule, "")


def led_to(page):
    """The pages that a page links to."""
    found = re.findall(r"\]\(([\w./-]+)\.md(?:#[\w-]*)?\)", text_of(page))
    return {(DOCS / page).parent.joinpath(link).resolve().relative_to(DOCS.resolve()).as_posix() for link in found}


@pytest.mark.parametrize("question", ASKED)
def test_the_answer_is_found(question):
    answered, asked, answer = ASKED[question]
    seen = {"index"}
    for _ in range(CLICKS):
        seen |= {each for page in seen for each in led_to(page)}
    assert answered in seen
    text = " ".join(text_of(answered).split())
    assert asked in text
    assert answer in text


def test_the_questions_are_answered_in_chinese_too():
    known = chinese.chinese()
    for answered, asked, _ in ASKED.values():
        if answered.startswith("learn/"):
            (paragraph,) = (each for _, _, each in chinese.paragraphs(text_of(answered)) if asked in each)
            assert "**" in known[chinese.flat(paragraph)]


def test_adagrad_goes_by_one_over_the_root():
    x, cache = np.zeros(1), np.zeros(1)
    strides = []
    for _ in range(400):
        before = x
        x, cache = downslope.adagrad(x, np.ones(1), cache, lr=1.0)
        strides.append(float(before[0] - x[0]))
    assert strides[99] / strides[399] == pytest.approx(2, rel=1e-3)


def test_eps_of_keras_is_32_times_as_heavy_at_first():
    """Where the slope is as large as eps, Adam's first step is half a learning rate."""
    slope, eps = np.full(1, 1e-7), 1e-7
    plain = -downslope.adam(np.zeros(1), slope, t=1, lr=1.0, eps=eps)[0]
    keras = -downslope.dialects.keras.adam(np.zeros(1), slope, t=1, lr=1.0, eps=eps)[0]
    assert plain[0] == pytest.approx(1 / 2)
    assert keras[0] == pytest.approx(1 / (1 + 1 / np.sqrt(1 - 0.999)))
    assert round(1 / np.sqrt(1 - 0.999)) == 32


def test_muon_steps_as_far_as_adamw_at_the_learning_rates_said():
    """In the usual case, a matrix of which no direction is flat: 0.2 of a learning rate, as a root mean square."""
    generator = np.random.default_rng(0)
    slopes = generator.normal(size=(64, 64))
    matched = -downslope.muon(np.zeros_like(slopes), slopes, lr=3e-4, match_rms=True)[0]
    assert np.sqrt(np.mean(matched**2)) == pytest.approx(0.2 * 3e-4, rel=0.2)
    by_hand = 3e-4 * 0.2 * np.sqrt(64)
    plain = -downslope.muon(np.zeros_like(slopes), slopes, lr=by_hand, match_rms=False)[0]
    np.testing.assert_allclose(plain, matched, rtol=1e-6)
    assert 3e-4 * 0.2 * np.sqrt(1024) == pytest.approx(0.0019, abs=5e-5)
