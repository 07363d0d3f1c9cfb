"""Optimizer state as safetensors files: tensors keyed by name, and a record of what they belong to.

A file is a plain safetensors file, the same for all frameworks: `x/<name>` are the weights, `<state>/<name>` their
states, `lookahead/<name>` the points ahead where these were stored. A state that is kept in eight bits is two tensors,
`<state>.codes/<name>` and `<state>.scales/<name>`. Complex tensors are pairs of real numbers in a last
axis of two. The metadata hold the format's version, a checksum and a JSON record. Nothing in it is ever executed.

The record:
    rule, flags, options, formula, max_norm: What was computed; `formula` is its fingerprint.
    groups: Per parameter group `names`, `hyperparameters` (None for a schedule) and `scalar_states`. What differs from
        the record's rule, flags, options or formula stands here too, and under `complex` the names of complex weights,
        under `pieces` how each is divided into matrices that the rule takes one by one: `sizes`, a list or how many
        equal ones there are, along an `axis`; empty for a rule over whole tensors that takes parameters as they are.
    t, skipped: The number of steps done, and of those left out.
    clocks: By name, `t` and `scalar_states` of the parameters that have others than their group.
    lookahead: Per group the scalars that stored points ahead depend on; None where they are not known.
    rounding, seed: How weights are rounded, if not to the nearest, and the seed if anything is rounded at random.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from downslope import files
from downslope.language.options import NAMES
from downslope.version import __version__

FORMAT = "downslope-1"

Array = np.ndarray[Any, Any]

_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "uint8": "U8"}
"""What safetensors calls the dtypes that are saved."""

_NAMES = {code: name for name, code in _CODES.items()}
_WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


class CheckpointError(ValueError):
    """A file is damaged, is not downslope's, or belongs to another rule or other arrays."""


@dataclass(frozen=True)
class Raw:
    """A tensor as a file holds it, whatever library it comes from or goes to.

    Attributes:
        dtype: "float64", "float32", "float16" or "bfloat16", for codes "int8" or "uint8"; in a file of others, what
            safetensors calls it.
        shape: Its dimensions; empty for a scalar.
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

    def numbers(self) -> Array:
        """An array of these numbers: one that shares the bytes, or for bfloat16 one of float32."""
        if self.dtype != "bfloat16":
            return self.array()
        return (self.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(self.shape)

    @classmethod
    def rounded(cls, numbers: Array, dtype: str) -> Raw:
        """Numbers in this dtype, rounded to the nearest."""
        if dtype != "bfloat16":
            return cls.of(numbers.astype(dtype, copy=False))
        bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
        half = np.where(np.isnan(numbers), bits | 0x400000, bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return cls("bfloat16", numbers.shape, np.ascontiguousarray(half.astype(np.uint16)).reshape(-1).view(np.uint8))


def write(path: Path, tensors: Mapping[str, Array | Raw], record: Mapping[str, Any]) -> None:
    """Write a file that is either there whole or not at all, whenever the process ends.

    The tensors go from where they are to the file, without a copy of all of them in between.

    Raises:
        TypeError: A tensor is of a dtype that a file does not have.
        OSError: The file cannot be written, or there is something that is no file; see `files.write`.
    """
    raw = {key: tensor if isinstance(tensor, Raw) else Raw.of(tensor) for key, tensor in tensors.items()}
    for key, tensor in raw.items():
        if tensor.dtype not in _WIDTHS:
            raise TypeError(f"{key!r} is {tensor.dtype}; a file holds {', '.join(_WIDTHS)}")
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
    _name_all_options(record)
    return tensors, record


def _name_all_options(record: dict[str, Any]) -> None:
    """Have a record say of the options that there were not when its file was written that they are not used."""
    groups = record.get("groups")
    for part in (record, *(groups if isinstance(groups, list) else [])):
        if isinstance(part, dict) and isinstance(part.get("options"), dict):
            part["options"] = {**dict.fromkeys(NAMES, False), **part["options"]}


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
