"""The page of the claims in the documentation, and the one that the command writes, in a browser."""

import importlib.util
import re
from pathlib import Path

import pytest
from test_claims import SMALL

from downslope.claims import CLAIMS, Walked, measuring, shelf
from downslope.claims.languages import NUMBER, PUT_TOGETHER, language
from downslope.claims.page import claims_page
from downslope.rules import RULES

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def written():
    """The script that writes the page."""
    found = importlib.util.spec_from_file_location("claims_page", DOCS / "_ext" / "claims_page.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_documentation_says_what_was_measured_of_these_entries(written):
    """After a change: `downslope claims --folder FOLDER`, then `python docs/_ext/claims_page.py FOLDER`."""
    kept = written.kept()
    assert list(kept) == [claim.name for claim in CLAIMS]
    for claim in CLAIMS:
        for part, one in zip(claim.parts, kept[claim.name].found, strict=True):
            assert part.holds.outcome(one.quantity) == one.outcome, part.when
    hashes = [[one["asked"] for one in told["found"]] for told in written.told()]
    assert hashes == [[shelf.asked(part) for part in claim.parts] for claim in CLAIMS]
    text = (DOCS / "claims.md").read_text()
    assert text == written.page(kept)
    for name in re.findall(r"\]\((claims/[^)]+)\)", text):
        assert (DOCS / name).read_text().startswith("<svg ")


def test_what_the_documentation_says_of_walks_is_found_again(written):
    """Of those that cost little: no learning rate is looked for in them."""
    kept, bench, again = written.kept(), measuring.Bench(), 0
    for claim in CLAIMS:
        for part, one in zip(claim.parts, kept[claim.name].found, strict=True):
            experiment = part.experiment
            if (
                isinstance(experiment, Walked)
                and "lr" in experiment.given
                and "noise" not in experiment.given
                and experiment.given.get("steps", 200) <= 200
            ):
                found = part.measure.of(bench.of(experiment))
                assert found.estimate == pytest.approx(one.quantity.estimate, rel=1e-6), part.when
                again += 1
    assert again >= 15


LATIN = {
    *(rule.name for rule in RULES),
    *("digits", "heavy-tail", "separable", "deep-quadratic", "keras", "torch", "mu"),
}
"""What is the same in both languages beside people, titles, and formulas."""


def test_what_was_measured_is_said_in_chinese(written):
    """Questions, numbers and titles are put together from parts: of none may a part be left in English."""
    say, kept = language("zh"), written.kept()
    for claim in CLAIMS:
        told = [claim.words, *(part.when for part in claim.parts)]
        told += [text for part in claim.parts for text in (part.measure.what, str(part.holds))]
        told += [one.quantity.said for one in kept[claim.name].found]
        told += [each.title for each in kept[claim.name].pictures if "(" not in each.title]
        for text in told:
            left = set(re.findall(r"\b[a-z][a-z-]+", say(text))) - LATIN
            assert not left, (text, say(text))
    for path in (DOCS / "claims").glob("*[0-9].svg"):
        drawn = say.picture(path.read_text(encoding="utf-8"))
        for text in re.findall(r"<text [^>]*>([^<]+)</text>", drawn):
            assert not set(re.findall(r"\b[a-z][a-z-]+", text)) - LATIN, (path, text)


def test_a_sentence_that_is_put_together_is_told_with_its_parts():
    say = language("zh")
    assert say("steps to the goal, adam over adam, uncorrected") == "到目标的步数，adam 与 adam（不校正）之比"
    assert say("adam, uncorrected 3.16, adam 0.1") == "adam（不校正）：3.16，adam：0.1"
    assert say("sgd 4 (1 of 10 never), momentum never") == "sgd：4（10 次中有 1 次从未到），momentum：从未到"
    assert say("where(x > 3, x - 1, 2): each at its best learning rate") == "where(x > 3, x - 1, 2)：各用各的最佳学习率"
    assert re.fullmatch(NUMBER, "2.04e−10")
    assert re.fullmatch(NUMBER, "1,077")
    assert not re.fullmatch(NUMBER, "row 3")
    with pytest.raises(ValueError, match="--language fr: there is no such language; choose from en, zh"):
        language("fr")


def test_every_sentence_has_the_same_places():
    say = language("zh")
    for form in PUT_TOGETHER:
        places = re.findall(r"{\w+}", form)
        assert sorted(re.findall(r"{\w+}", say(form, **{name[1:-1]: name for name in places}))) == sorted(places)


@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_can_be_read_everywhere(page, width):
    from axe_playwright_python.sync_playwright import Axe

    text = claims_page((SMALL,), (measuring.Bench().measure(SMALL),), "It was stopped.")
    page.set_viewport_size({"width": width, "height": 900})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.set_content(text)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator(".group").all_inner_texts() == ["Holds when …", "Does not hold when …"]
        assert not Axe().run(page).response["violations"]
    page.set_content(claims_page((SMALL,), (measuring.Bench().measure(SMALL),), say=language("zh")))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".group").all_inner_texts() == ["成立的情形 …", "不成立的情形 …"]
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
