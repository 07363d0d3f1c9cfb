"""Saving a training by name, and going on from a file: the same steps for every front end.

A file is checked as a whole, against the training that is to go on from it, before anything is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from downslope.language.ranges import check_number
from downslope.training import checkpoint
from downslope.training.checkpoint import CheckpointError, Raw
from downslope.training.eight_bits import as_kept
from downslope.training.groups import Clock, Group
from downslope.training.protocol import Key, Kind, Loaded, Training
from downslope.training.record import (
    COMPUTED,
    ahead_scalars,
    bound,
    check_groups,
    check_same,
    clocks_in,
    count,
    described,
    record_of,
)


def save(training: Training, path: str | Path) -> None:
    """Save weights, states and settings by name; the file is either the old one or the new one, whole.

    Args:
        training: What to save.
        path: The file to write.

    Raises:
        TypeError: A tensor is of a dtype that files do not have.
        OSError: The file cannot be written.
    """
    tensors: dict[str, Raw] = {}
    for group in training.groups:
        points = ["lookahead"] if group.settings.stored_ahead else []
        for name in group.names:
            for what in (*training.kinds(name), *points):
                if (tensor := training.get(what, name)) is not None:
                    tensors[f"{what}/{name}"] = tensor
    checkpoint.write(Path(path), tensors, record_of(training))


def load(training: Training, path: str | Path) -> Loaded:
    """Go on from a file that `save` wrote, of this front end or another.

    Args:
        training: What is to go on.
        path: The file to read.

    Returns:
        What the training has taken over.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, not downslope's, or of another rule, other options or other arrays.
        ValueError: An array cannot be written.
        RuntimeError: An array cannot be written at the moment.

    In every case nothing has been changed.
    """
    tensors, record = checkpoint.read_raw(Path(path))
    loaded = _checked(training, tensors, record)
    training.put(loaded)
    return loaded


def _checked(training: Training, file: Mapping[str, Raw], record: Mapping[str, Any]) -> Loaded:
    """All that a file says, checked against the training."""
    shared, here = described(training.groups)
    check_same(record, shared, COMPUTED)
    if training.rounding is not None:
        check_same({"rounding": "nearest", **record}, {"rounding": "nearest", **training.rounding}, ["rounding"])
    saved = check_groups(record, shared, here)
    t, skipped, clocks = count(record, "t"), count(record, "skipped"), clocks_in(record, saved)
    if training.clocks is None and record.get("clocks"):
        raise CheckpointError(
            f"parameters in the file have counts of their own, {record['clocks']!r:.200}; this optimizer has one for "
            "all of its arrays and cannot go on from there"
        )
    max_norm = bound(record)
    groups = _groups(training, saved, max_norm)
    file = as_kept(training, file)
    begun = {
        name
        for group in groups
        for name in group.names
        if training.clocks is None or _has_begun(training, group, name, clocks[name], file)
    }
    tensors = _tensors(training, groups, begun, file)
    stored = any(group.settings.stored_ahead for group in groups)
    same = stored and record.get("lookahead") == ahead_scalars(groups, t)
    for group in groups:
        for name in group.names:
            key = "lookahead", name
            if not (same and group.settings.stored_ahead):
                tensors.pop(key, None)
            if group.settings.stored_ahead and key not in tensors:
                tensors[key] = _point(group, name, clocks[name], tensors) if name in begun else tensors["x", name]
    return Loaded(
        groups, tensors, {name: clocks[name] for name in clocks if name in begun}, t, skipped, max_norm, record
    )


def _has_begun(training: Training, group: Group, name: str, clock: Clock, file: Mapping[str, Raw]) -> bool:
    """Whether a parameter that steps for itself has done so, or has a state all the same."""
    states = training.kinds(name).keys() - {"x"}
    return clock != Clock(0, group.settings.program.scalar_states) or any(f"{state}/{name}" in file for state in states)


def _groups(training: Training, saved: Sequence[Mapping[str, Any]], max_norm: float | None) -> list[Group]:
    """The groups as they will be."""
    given = []
    for group, its in zip(training.groups, saved, strict=True):
        numbers = {name: value for name, value in its["hyperparameters"].items() if value is not None}
        try:
            given.append(
                {name: check_number(name, v, group.settings.program.ranges[name]) for name, v in numbers.items()}
            )
        except ValueError as error:
            raise CheckpointError(f"the file's {error}") from None
    found = []
    for group, its, adopted in zip(training.groups, saved, training.adopt(given, max_norm), strict=True):
        scalar_states = {name: float(value) for name, value in its["scalar_states"].items()}
        found.append(Group(group.settings, group.names, adopted, scalar_states))
    return found


def _tensors(
    training: Training, groups: Sequence[Group], begun: Collection[str], file: Mapping[str, Raw]
) -> dict[Key, Raw]:
    """The tensors of a file, made sure to be just those that are needed, of the right dtypes and shapes.

    Raises:
        CheckpointError: They are not.
    """
    ahead = any(key.startswith("lookahead/") for key in file)
    wanted: dict[Key, Kind] = {}
    for group in groups:
        for name in group.names:
            kinds = dict(training.kinds(name))
            wanted["x", name] = x = kinds.pop("x")
            if ahead and group.settings.rule.ahead is not None:
                wanted["lookahead", name] = x
            wanted |= {(state, name): kind for state, kind in kinds.items() if name in begun}
    keys = {f"{what}/{name}": (what, name) for what, name in wanted}
    missing, unknown = sorted(keys.keys() - file.keys()), sorted(file.keys() - keys.keys())
    if missing or unknown:
        raise CheckpointError(f"the file's tensors do not match this optimizer's: missing {missing}, unknown {unknown}")
    for key, (what, name) in keys.items():
        (dtype, shape), its = wanted[what, name], file[key]
        if (its.dtype, its.shape) != (dtype, shape):
            raise CheckpointError(
                f"the file's {key!r} is {its.dtype} of shape {its.shape}, this optimizer's {dtype} of shape {shape}"
            )
    return {own: file[key] for key, own in keys.items()}


def _point(group: Group, name: str, clock: Clock, tensors: Mapping[Key, Raw]) -> Raw:
    """The point ahead of the weights."""
    ahead, x = group.settings.ahead, tensors["x", name]
    assert ahead is not None
    body = np.float64 if x.dtype == "float64" else np.float32
    whats = [what for what in ("x", *group.settings.program.states) if (what, name) in tensors]  # others are in codes
    arrays = {what: tensors[what, name].numbers().astype(body, copy=False) for what in whats}
    scalars = dict(zip(ahead.scalars, group.ahead_scalars(clock), strict=True))
    return Raw.rounded(ahead.move(arrays.pop("x"), arrays, scalars, to_weights=False), x.dtype)
