"""Optimizer state as safetensors files: tensors keyed by name, and a record of what they belong to.

A file is a plain safetensors file. Its metadata hold the format's version and a JSON record: rule, fingerprint of the
formula, hyperparameters, number of the step. Nothing in it is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import downslope
from downslope.trace import Program, in_order

FORMAT = "downslope-1"

Array = np.ndarray[Any, Any]


class CheckpointError(ValueError):
    """A file is damaged, is not downslope's, or belongs to another rule or other arrays."""


def fingerprint(program: Program) -> str:
    """A hash of what a program computes, the same for the same formula and options wherever it was traced."""
    roots = {**program.outputs, **program.scalar_outputs}
    number: dict[Any, int] = {}
    lines = []
    for e in in_order(roots.values()):
        number[e] = len(number)
        lines.append([e.op, *(number[arg] for arg in e.args), str(e.value)])
    outputs = {name: number[e] for name, e in roots.items()}
    text = json.dumps([lines, outputs, list(program.states.items()), list(program.scalar_states.items())])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def write(path: Path, tensors: Mapping[str, Array], record: Mapping[str, Any]) -> None:
    """Write a file that is either there whole or not at all, whenever the process ends.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors.numpy import save

    if path.is_dir() or not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot save to {path}: give a file name in a folder that exists")
    ordered = {key: np.ascontiguousarray(tensors[key]).reshape(tensors[key].shape) for key in sorted(tensors)}
    metadata = {
        "format": FORMAT,
        "version": downslope.__version__,
        "record": json.dumps(record),
        "checksum": _checksum(ordered, record),
    }
    content = save(ordered, metadata)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp's 0600 would surprise whoever shares the file
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    with contextlib.suppress(OSError):  # not every system can make the directory's entry durable
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a file that `write` wrote: its tensors and its record.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be read, is damaged, or is not downslope's.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} is a safetensors file, but not one that downslope wrote "
                    f"(format {metadata.get('format')!r}, expected {FORMAT!r})"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {error}") from error
    try:
        record = json.loads(metadata["record"])
        intact = isinstance(record, dict) and metadata["checksum"] == _checksum(tensors, record)
    except (KeyError, ValueError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(f"{path} is damaged: its contents do not match its checksum; use an older file")
    return tensors, record


def _checksum(tensors: Mapping[str, Array], record: Mapping[str, Any]) -> str:
    total = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    for key in sorted(tensors):
        array = tensors[key]
        total = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), total)
        total = zlib.crc32(array.reshape(-1).view(np.uint8).data if array.size else b"", total)
    return f"{total:08x}"


def check_same(record: Mapping[str, Any], here: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Make sure that a record agrees with this optimizer's own in these entries.

    Raises:
        CheckpointError: It does not.
    """
    for key in keys:
        if record.get(key) != here[key]:
            raise CheckpointError(
                f"the file's {key} is {record.get(key)!r}, this optimizer's {here[key]!r}; "
                "load it into an optimizer made with the same rule, formula and options"
            )


def check_tensors(tensors: Mapping[str, Array], mine: Mapping[str, Array]) -> None:
    """Make sure that a file has just the tensors that are needed, of the right dtypes and shapes.

    Raises:
        CheckpointError: It has not.
    """
    missing, unknown = sorted(mine.keys() - tensors.keys()), sorted(tensors.keys() - mine.keys())
    if missing or unknown:
        raise CheckpointError(f"the file's tensors do not match this optimizer's: missing {missing}, unknown {unknown}")
    for key, array in mine.items():
        saved = tensors[key]
        if saved.dtype != array.dtype or saved.shape != array.shape:
            raise CheckpointError(
                f"the file's {key!r} is {saved.dtype} of shape {saved.shape}, this optimizer's "
                f"{array.dtype} of shape {array.shape}"
            )


def check_groups(record: Mapping[str, Any], here: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The file's parameter groups, made sure to be those of this optimizer.

    Raises:
        CheckpointError: The groups differ, or the record is malformed.
    """
    groups = record.get("groups")
    if not isinstance(groups, list) or len(groups) != len(here["groups"]):
        raise CheckpointError(f"the file's groups are {groups!r:.200}; this optimizer has {len(here['groups'])}")
    for k, (saved, mine) in enumerate(zip(groups, here["groups"], strict=True)):
        if not isinstance(saved, dict) or saved.get("names") != mine["names"]:
            names = saved.get("names") if isinstance(saved, dict) else saved
            raise CheckpointError(f"the file's group {k} holds {names!r:.200}; this optimizer's holds {mine['names']}")
        for part in ("hyperparameters", "scalar_states"):
            if not isinstance(saved.get(part), dict) or saved[part].keys() != mine[part].keys():
                raise CheckpointError(f"the file's group {k} has {part} {saved.get(part)!r}; expected {mine[part]}")
            for name, value in saved[part].items():
                scheduled = value is None and part == "hyperparameters"
                if not scheduled and not _is_number(value):
                    raise CheckpointError(f"the file's {name} in group {k} is {value!r:.60}; expected a number")
    return groups


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def bound(record: Mapping[str, Any]) -> float | None:
    """The file's `max_norm`.

    Raises:
        CheckpointError: It is neither a number of at least 0 nor None.
    """
    value = record.get("max_norm")
    if value is not None and not (_is_number(value) and value >= 0):
        raise CheckpointError(f"the file's max_norm is {value!r:.60}; expected a number of at least 0")
    return None if value is None else float(value)


def counts(record: Mapping[str, Any]) -> tuple[int, int]:
    """The file's number of the step and of steps skipped.

    Raises:
        CheckpointError: They are not counts.
    """
    found = []
    for name in ("t", "skipped"):
        value = record.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
            raise CheckpointError(f"the file's {name} is {value!r:.60}; expected a whole number from 0 to 2**53")
        found.append(value)
    return found[0], found[1]


def flat(arrays: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Everything that is saved, by the key it is saved under."""
    return {f"{state}/{name}": array for state, by_name in arrays.items() for name, array in by_name.items()}
