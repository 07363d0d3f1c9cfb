"""The page about walks: its table is that of the surfaces."""

import re
from pathlib import Path

from downslope import surfaces

PAGE = Path(__file__).parents[2] / "docs" / "walk.md"


def test_the_table_is_that_of_the_surfaces():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(each.name, each.teaches) for each in surfaces.SURFACES]
