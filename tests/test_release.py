"""A release has one number, wherever it is said."""

import re
from pathlib import Path

import downslope

ROOT = Path(__file__).parent.parent


def test_the_number_is_the_same_everywhere():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changed = re.search(
        r"^## (\S+) \((unreleased|\d{4}-\d{2}-\d{2})\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert cited[1] == changed[1] == downslope.__version__
