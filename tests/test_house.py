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
    "pages": {"pages"},
    "splitting": {"splitting"},
    "walks": {"language", "targets", "rule", "rules", "recipes", "walks", "pages", "files", "extras", "version"},
    "play": {"language", "targets", "rule", "dialects", "recipes", "walks", "pages", "play", "version"},
    "claims": {"walks", "lab", "rule", "rules", "recipes", "claims", "pages", "files", "extras", "version"}
    | {"language", "printable", "sealed"}
    | {f"lab.{name}" for name in ("engines", "problems", "races", "report")},
    "lab.problems": {"lab.problems", "files", "extras", "printable"},
    "lab.engines": {"lab.problems", "lab.engines", "language", "targets", "rule", "rules", "training", "backends"}
    | {"splitting", "numpy", "torch", "keras", "optax"},
    "lab.races": {"lab.problems", "lab.engines", "lab.races", "targets", "rule", "rules", "dialects", "recipes"}
    | {"version"},
    "lab.keeping": {"lab.engines", "lab.races", "lab.keeping", "language", "backends", "files", "sealed", "version"},
    "lab.subjects": {"lab.problems", "lab.engines", "lab.races", "lab.keeping", "lab.subjects"},
    "lab.workers": {"backends", "lab.engines", "lab.races", "lab.keeping", "lab.subjects", "lab.workers", "extras"},
    "lab.report": {"lab.problems", "lab.engines", "lab.races", "lab.report", "dialects", "recipes", "pages", "files"}
    | {"version"},
    "lab.exports": {"lab.engines", "lab.races", "lab.exports", "extras"},
    "files": set(),
    "sealed": set(),
    "printable": set(),
    "extras": set(),
    "version": set(),
}
"""What rooms may take something from, besides what is not ours."""


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
    _, *inside = name.split(".")
    return ".".join(inside[: 2 if inside[:1] == ["lab"] else 1])


@pytest.mark.parametrize("lower", BELOW)
def test_a_room_imports_what_is_below_it_only(lower):
    taken = {
        (name, other)
        for name in MODULES
        if room(name) == lower
        for other in imports(name, everything=True)
        if room(other) not in BELOW[lower]
    }
    assert not taken


def test_a_race_knows_of_its_engine_what_the_protocol_says():
    taken = {
        other
        for name in MODULES
        if room(name) == "lab.races"
        for other in imports(name, everything=True)
        if room(other) == "lab.engines"
    }
    assert taken == {"downslope.lab.engines.protocol", "downslope.lab.engines.entrant"}


def test_no_circle():
    graph = {name: {n for n in imports(name, everything=False) if n != name} for name in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("top", ["lab", "cli", "recipes", "language", "targets"])
def test_no_circle_either_through_imports_inside_functions_or_for_types(top):
    inside = {name for name in MODULES if room(name).partition(".")[0] == top}
    graph = {name: {n for n in imports(name, everything=True) if n != name and n in inside} for name in inside}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_nothing_imports_the_command_line():
    taken = {name for name in MODULES for other in imports(name, everything=True) if room(other) == "cli"}
    assert all(room(name) in ("cli", "__main__") for name in taken)
