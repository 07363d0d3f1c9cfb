"""Optimizer state as safetensors files: tensors keyed by name, and a record of what they belong to.

A file is a plain safetensors file, the same for all frameworks: `x/<name>` are the weights, `<state>/<name>` their
states, `lookahead/<name>` the points ahead where these were stored. Complex tensors are pairs of real numbers in a last
axis of two. The metadata hold the format's version, a checksum and a JSON record. Nothing in it is ever executed.

The record:
    rule, flags, options, formula, max_norm: What was computed; `formula` is its fingerprint.
    groups: Per parameter group `names`, `hyperparameters` (None for a schedule) and `scalar_states`. What differs from
        the record's rule, flags, options or formula stands here too, and under `complex` the names of complex weights.
    t, skipped: The number of steps done, and of those left out.
    clocks: By name, `t` and `scalar_states` of the parameters that have others than their group.
    lookahead: Per group the scalars that stored points ahead depend on; None where they are not known.
    rounding, seed: How weights are rounded, if not to the nearest, and the seed if at random.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from downslope import files
from downslope.version import __version__

FORMAT = "downslope-1"

Array = np.ndarray[Any, Any]

_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""What safetensors calls the dtypes that are saved."""

_NAMES = {code: name for name, code in _CODES.items()}
_WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

COMPUTED = ("rule", "flags", "options", "formula")
"""The entries of a record that say what is computed."""


class CheckpointError(ValueError):
    """A file is damaged, is not downslope's, or belongs to another rule or other arrays."""


class Shaped(Protocol):
    """Anything with a dtype and a shape."""

    @property
    def dtype(self) -> Any:
        """The dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""


@dataclass(frozen=True)
class Raw:
    """A tensor as a file holds it, whatever library it comes from or goes to.

    Attributes:
        dtype: "float64", "float32", "float16" or "bfloat16"; in a file of others, what safetensors calls it.
        shape: The shape.
        data: The bytes, elements in C order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Array

    @classmethod
    def of(cls, array: Array) -> Raw:
        """The bytes of an array; they share its memory if it is contiguous."""
        return cls(str(array.dtype), array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def array(self) -> Array:
        """An array that shares these bytes; not of bfloat16, which NumPy does not have."""
        return self.data.view(self.dtype).reshape(self.shape)


def write(path: Path, tensors: Mapping[str, Array | Raw], record: Mapping[str, Any]) -> None:
    """Write a file that is either there whole or not at all, whenever the process ends.

    The tensors go from where they are to the file, without a copy of all of them in between.

    Raises:
        OSError: The file cannot be written, or there is something that is no file; see `files.write`.
    """
    raw = {key: tensor if isinstance(tensor, Raw) else Raw.of(tensor) for key, tensor in tensors.items()}
    raw = {key: raw[key] for key in sorted(raw, key=lambda key: (-_WIDTHS[raw[key].dtype], key))}  # all then aligned
    metadata = {
        "format": FORMAT,
        "version": __version__,
        "record": json.dumps(record),
        "checksum": _checksum(raw, record),
    }
    files.write(path, (_header(raw, metadata), *(tensor.data.data for tensor in raw.values())))


def _header(tensors: Mapping[str, Raw], metadata: Mapping[str, str]) -> bytes:
    """What stands before the tensors in a safetensors file: the length of a text, and in it where each of them is."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for key, raw in tensors.items():
        entries[key] = {"dtype": _CODES[raw.dtype], "shape": raw.shape, "data_offsets": [at, at + raw.data.size]}
        at += raw.data.size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a file that `write` wrote: its tensors as arrays, and its record.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be read, is damaged, is not downslope's, or holds what NumPy does not know.
    """
    tensors, record = read_raw(path)
    for key, raw in tensors.items():
        if raw.dtype not in ("float64", "float32", "float16"):
            raise CheckpointError(f"{path} holds {key!r} as {raw.dtype}, which NumPy does not have; convert it first")
    return {key: raw.array() for key, raw in tensors.items()}, record


def read_raw(path: Path) -> tuple[dict[str, Raw], dict[str, Any]]:
    """Read a file that `write` wrote: its tensors as they are, and its record.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be read, is damaged, or is not downslope's.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header and all offsets
            metadata = file.metadata() or {}
        content = np.fromfile(path, np.uint8)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one that downslope wrote "
            f"(format {metadata.get('format')!r}, expected {FORMAT!r})"
        )
    try:
        tensors = _tensors(content)
        record = json.loads(metadata["record"])
        intact = isinstance(record, dict) and metadata["checksum"] == _checksum(tensors, record)
    except (KeyError, ValueError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(f"{path} is damaged: its contents do not match its checksum; use an older file")
    return tensors, record


def _tensors(content: Array) -> dict[str, Raw]:
    """The tensors in a safetensors file, as pieces of its contents."""
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    found = {}
    for key, entry in json.loads(content[8:start].tobytes()).items():
        if key != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = _NAMES.get(entry["dtype"], entry["dtype"])
            found[key] = Raw(dtype, tuple(entry["shape"]), content[start + begin : start + end])
    return found


def _checksum(tensors: Mapping[str, Raw], record: Mapping[str, Any]) -> str:
    total = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    for key in sorted(tensors):
        raw = tensors[key]
        total = zlib.crc32(f"{key} {raw.dtype} {raw.shape}".encode(), total)
        total = zlib.crc32(raw.data.data if raw.data.size else b"", total)
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


def check_tensors(tensors: Mapping[str, Shaped], mine: Mapping[str, Shaped]) -> None:
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
    """The file's parameter groups, made sure to be those of this optimizer, in whatever order their names are.

    Args:
        record: The file's record.
        here: This optimizer's.

    Raises:
        CheckpointError: The groups differ, or the record is malformed.
    """
    groups = record.get("groups")
    if not isinstance(groups, list) or len(groups) != len(here["groups"]):
        raise CheckpointError(f"the file's groups are {groups!r:.200}; this optimizer has {len(here['groups'])}")
    for k, (saved, mine) in enumerate(zip(groups, here["groups"], strict=True)):
        _check_names(k, saved.get("names") if isinstance(saved, dict) else saved, mine["names"])
        for key in (*COMPUTED, "complex"):
            theirs, ours = saved.get(key, record.get(key)), mine.get(key, here.get(key))
            if theirs != ours:
                raise CheckpointError(f"the {key} of the file's group {k} is {theirs!r:.200}, here {ours!r:.200}")
        for part in ("hyperparameters", "scalar_states"):
            _numbers(saved, part, mine[part], f"group {k}")
    return groups


def _check_names(k: int, saved: Any, mine: Sequence[str]) -> None:
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise CheckpointError(f"the file's group {k} holds {saved!r:.200}; expected names")
    if sorted(saved) != sorted(mine):
        missing, unknown = [n for n in mine if n not in saved], [n for n in saved if n not in mine]
        raise CheckpointError(
            f"the file's group {k} holds {saved!r:.200}; this optimizer's holds {mine!r:.200}; "
            f"missing in the file: {missing!r:.200}, unknown here: {unknown!r:.200}"
        )


def _numbers(saved: Mapping[str, Any], part: str, names: Collection[str], where: str) -> dict[str, Any]:
    """A part of a record that gives numbers by name, made sure to have just these names."""
    numbers = saved.get(part)
    if not isinstance(numbers, dict) or numbers.keys() != set(names):
        raise CheckpointError(f"the file's {where} has {part} {numbers!r:.200}; expected {list(names)}")
    for name, value in numbers.items():
        scheduled = value is None and part == "hyperparameters"
        if not scheduled and not _is_number(value):
            raise CheckpointError(f"the file's {name} in {where} is {value!r:.60}; expected a number")
    return numbers


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
    """The file's number of the step and of steps skipped, for an optimizer that counts for all arrays together.

    Raises:
        CheckpointError: They are not counts, or there are parameters with another number of steps than the rest.
    """
    if record.get("clocks"):
        raise CheckpointError(
            f"parameters in the file have counts of their own, {record['clocks']!r:.200}; this optimizer has one for "
            "all of its arrays and cannot go on from there"
        )
    return count(record, "t"), count(record, "skipped")


def count(record: Mapping[str, Any], name: str, where: str = "") -> int:
    """A count in a record.

    Raises:
        CheckpointError: It is not a count.
    """
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise CheckpointError(f"the file's {name}{where} is {value!r:.60}; expected a whole number from 0 to 2**53")
    return value


@dataclass(frozen=True)
class Clock:
    """How far a parameter has come.

    Attributes:
        t: The number of steps done.
        scalar_states: The scalar states.
    """

    t: int
    scalar_states: Mapping[str, float]


def clocks(record: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Clock]:
    """How far every parameter in the file has come, by name.

    Args:
        record: The file's record.
        groups: Its groups, checked.

    Raises:
        CheckpointError: The record is malformed.
    """
    own, t = record.get("clocks", {}), count(record, "t")
    names = [name for group in groups for name in group["names"]]
    if not isinstance(own, dict) or not own.keys() <= set(names):
        raise CheckpointError(f"the file's clocks are {own!r:.200}; expected some of {names!r:.200}")
    found = {}
    for group in groups:
        for name in group["names"]:
            clock = own.get(name, {"t": t, "scalar_states": group["scalar_states"]})
            if not isinstance(clock, dict):
                raise CheckpointError(f"the file's clock of {name} is {clock!r:.60}; expected t and scalar_states")
            scalars = _numbers(clock, "scalar_states", group["scalar_states"], f"clock of {name}")
            floats = {state: float(value) for state, value in scalars.items()}
            found[name] = Clock(count(clock, "t", f" of {name}"), floats)
    return found


def flat(arrays: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Everything that is saved, by the key it is saved under."""
    return {f"{state}/{name}": array for state, by_name in arrays.items() for name, array in by_name.items()}
