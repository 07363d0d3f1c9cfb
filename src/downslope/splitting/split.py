"""The proposal: what goes to a rule for matrices and what does not, to be read before it is used."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

NAMES_ONLY = "first and last layer are known by names only"
"""What could not be known of a tree of arrays."""


@dataclass(frozen=True)
class Entry:
    """A parameter, and what becomes of it.

    Attributes:
        name: Its name in the model.
        value: The parameter itself: a tensor, variable or array.
        shape: Its shape.
        why: Why it goes where it goes.
        matrix: Whether it is one of the inner matrices.
        pieces: Of how many matrices it is made, one beside another.
        axis: Along which axis they stand.
    """

    name: str
    value: Any = field(repr=False)
    shape: tuple[int, ...]
    why: str
    matrix: bool
    pieces: int = 1
    axis: int = 0


class Split:
    """The parameters of a model in two parts, as `downslope.split` proposes them.

    `print` shows every parameter with the reason. `len`, `in` and loops are about the entries.

    Args:
        entries: All parameters.
        unknown: What could not be known of the model, as a sentence; empty if all was.
        tree: The tree of arrays that the model is, if it is one.

    Attributes:
        entries, unknown, tree: As given.
    """

    def __init__(self, entries: Sequence[Entry], unknown: str = "", tree: Any = None):
        self.entries, self.unknown, self.tree = tuple(entries), unknown, tree

    @property
    def matrices(self) -> list[tuple[str, Any]]:
        """The inner matrices: names and parameters."""
        return [(entry.name, entry.value) for entry in self.entries if entry.matrix]

    @property
    def rest(self) -> list[tuple[str, Any]]:
        """Everything else: names and parameters."""
        return [(entry.name, entry.value) for entry in self.entries if not entry.matrix]

    def with_values(self, values: Mapping[str, Any]) -> Split:
        """The same for other parameters of the same names and shapes."""
        return Split([replace(entry, value=values[entry.name]) for entry in self.entries], self.unknown)

    def groups(self, matrices: Mapping[str, Any], rest: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: matrices, fused ones with the number of their pieces, and the rest.

        Args:
            matrices: The settings of the matrices, such as `{"rule": downslope.muon, "lr": 0.02}`.
            rest: Those of the rest.

        Raises:
            ValueError: One of the two parts is empty.
        """
        parts: dict[tuple[int, int, bool], list[tuple[str, Any]]] = {}
        for entry in self.entries:
            kind = (entry.pieces, entry.axis, False) if entry.matrix else (1, 0, True)
            parts.setdefault(kind, []).append((entry.name, entry.value))
        if {key[2] for key in parts} != {True, False}:
            lacking = "inner matrix" if not self.matrices else "parameter besides its matrices"
            raise ValueError(f"the model has no {lacking}, and needs one rule only; see print(split)")
        found = []
        for (pieces, axis, is_rest), named in sorted(parts.items(), key=lambda part: part[0][::-1]):
            fused = {"pieces": pieces, **({"axis": axis} if axis else {})} if pieces > 1 else {}
            found.append({"params": named, **(rest if is_rest else matrices), **fused})
        return found

    def labels(self, matrices: Any = "matrices", rest: Any = "rest") -> Any:
        """One thing for each of the matrices and another for each of the rest: by name, or a tree like that given.

        Such a tree is what `optax.partition` wants.
        """
        by_name = {entry.name: matrices if entry.matrix else rest for entry in self.entries}
        return by_name if self.tree is None else _labelled(self.tree, "", by_name)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Any:
        return iter(self.entries)

    def __repr__(self) -> str:
        whole = sum(math.prod(entry.shape) for entry in self.entries)
        lines = []
        for title, wanted in (("matrices", True), ("rest", False)):
            rows = [entry for entry in self.entries if entry.matrix is wanted]
            weights = sum(math.prod(entry.shape) for entry in rows)
            lines.append(f"{title}: {len(rows)} of {len(self)} parameters, {weights:,} of {whole:,} weights")
            lines += _table(rows)
        return "\n".join([*lines, *([f"note: {self.unknown}"] if self.unknown else [])])


def _table(rows: Iterable[Entry]) -> list[str]:
    """A line for each, and one for all that differ in a number in their name only."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for entry in rows:
        shape = " x ".join(map(str, entry.shape)) or "one number"
        key = re.sub(r"(?<![^./_])\d+(?![^./_])", "*", entry.name), shape, entry.why
        alike.setdefault(key, []).append(entry.name)
    cells = [
        (name if len(names) > 1 else names[0], f"{len(names)} of" if len(names) > 1 else "", shape, why)
        for (name, shape, why), names in alike.items()
    ]
    widths = [max((len(row[k]) for row in cells), default=0) for k in range(3)]
    return [
        f"  {name:<{widths[0]}}  {count:>{widths[1]}} {shape:<{widths[2]}}  {why}".rstrip()
        for name, count, shape, why in cells
    ]


def below(tree: Any, path: str) -> list[tuple[Any, Any, str]]:
    """What stands in a tree of dicts and lists: the key, the value and the name of each."""
    entries = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return [(key, value, f"{path}.{key}" if path else str(key)) for key, value in entries]


def _labelled(tree: Any, path: str, labels: Mapping[str, Any]) -> Any:
    """A tree with a label in the place of every array."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return labels[path]
    new = {key: _labelled(value, name, labels) for key, value, name in below(tree, path)}
    return new if isinstance(tree, Mapping) else type(tree)(new.values())


def corrected(entries: Sequence[Entry], matrices: Iterable[str], rest: Iterable[str]) -> list[Entry]:
    """The entries with what somebody knows better.

    Args:
        entries: The proposal.
        matrices: Patterns of names, as of files, of what is an inner matrix whatever was found.
        rest: Those of what is not.

    Raises:
        ValueError: A pattern fits no name, or one that cannot be a matrix.
    """
    found = {entry.name: entry for entry in entries}
    for what, patterns, wanted in (("matrices", matrices, True), ("rest", rest, False)):
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            fitting = fnmatch.filter(found, pattern)
            if not fitting:
                raise ValueError(f"{what}: {pattern!r} is the name of no parameter; there are {', '.join(found)}"[:500])
            for name in fitting:
                if wanted and len(found[name].shape) < 2:
                    raise ValueError(f"matrices: {name} is of shape {found[name].shape} and no matrix")
                found[name] = replace(found[name], matrix=wanted, why=f"{what}={pattern!r}")
    return list(found.values())
