"""The page about walks: its examples run, and its table is that of the surfaces."""

import doctest
import re
from pathlib import Path

from downslope import surfaces

PAGE = Path(__file__).parents[2] / "docs" / "walk.md"


def test_the_examples_run():
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=flags)
    assert found.attempted > 10
    assert found.failed == 0


def test_the_table_is_that_of_the_surfaces():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(each.name, each.teaches) for each in surfaces.SURFACES]
