"""Who imports whom: arrows go down only, and in no circle."""

import ast
import graphlib
from pathlib import Path

import pytest

import downslope

HOUSE = Path(downslope.__file__).parent
MODULES = {
    ".".join(("downslope", *path.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in HOUSE.rglob("*.py")
}

BELOW = {
    "language": {"language"},
    "targets": {"language", "targets"},
    "rule": {"language", "targets"},
    "rules": {"language", "rule", "rules"},
    "dialects": {"language", "rule", "rules", "dialects"},
    "training": {"language", "targets", "rule", "training", "files", "version"},
    "files": set(),
    "printable": set(),
    "extras": set(),
    "version": set(),
}
"""What the rooms on the ground floor may take something from."""


def imports(name, *, everything):
    """The modules of ours that a module imports; of its own accord, or also inside functions and for types only."""
    tree = ast.parse(MODULES[name].read_text())
    nodes = list(ast.walk(tree)) if everything else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES and inner != "downslope.rule" else node.module


def room(name):
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("lower", BELOW)
def test_the_ground_floor_imports_what_is_below_it_only(lower):
    taken = {
        (name, other)
        for name in MODULES
        if room(name) == lower
        for other in imports(name, everything=True)
        if room(other) not in BELOW[lower]
    }
    assert not taken


def test_no_circle():
    graph = {name: {n for n in imports(name, everything=False) if n != name} for name in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())
