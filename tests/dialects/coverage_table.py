"""The table of what is tested, as docs/dialects.md has it."""

import itertools
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"


def said_of(dialect, head):
    """The rules and options of which the page says that this dialect has them, and those it says it has not."""
    lines = [line.strip("|\n ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    start = next(i for i, cells in enumerate(lines) if cells[0] == head)
    column = lines[start].index(dialect)
    rows = {
        cells[0]: cells[column] for cells in itertools.takewhile(lambda cells: cells[-1] in "✓–", lines[start + 2 :])
    }
    assert set(rows.values()) == {"✓", "–"}
    return {name for name, cell in rows.items() if cell == "✓"}, {name for name, cell in rows.items() if cell == "–"}


def assert_all_are_tested(dialect, cases, head="rule and options"):
    """Check that the page says of a dialect what its test cases show; other values of a number stand in brackets."""
    there, missing = said_of(dialect, head)
    tested = {case.partition(" (")[0] for case in cases}
    assert there == tested
    assert not missing & tested
