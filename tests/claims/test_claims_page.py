"""The page of the claims in the documentation, and the one that the command writes, in a browser."""

import importlib.util
import re
from pathlib import Path

import pytest
from test_claims import SMALL

from downslope.claims import CLAIMS, Walked, measuring, shelf
from downslope.claims.page import claims_page

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
