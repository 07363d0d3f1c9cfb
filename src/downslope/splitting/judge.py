"""What a parameter is, by its layer, its name and its shape, as the authors of Muon divide a network.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024: embeddings, the first and the
last layer, norms, gains and biases are for AdamW, the matrices in between for Muon.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from downslope.splitting.split import Entry

_EMBEDDING = re.compile(r"embed|^(wte|wpe|tok|stem|patch|pos)(_|$)|(^|_)(position|codebook|cls_token|mask_token)")
_HEAD = re.compile(r"^(\w+_)?(heads?|classifier|logits|score)$|^(embed_out|output_projection|unembed\w*|final_layer)$")
_NORM = re.compile(r"norm|^ln(_|\d|$)|(^|_)(bn|gn)\d*$")
APART = "unless the model keeps each in an array of its own; or name it in rest="
"""What can be done where no optimizer can be told of which matrices a parameter is made."""

_FUSED = ((re.compile(r"qkv|c_attn|query_key_value|in_proj_weight"), 3), (re.compile(r"gate_up|w12|(^|_)kv(_|$)"), 2))


@dataclass(frozen=True)
class Seen:
    """What was found of a parameter.

    Attributes:
        name: Its name; the parts of it are divided by dots or strokes.
        value: The parameter.
        shape: Its shape.
        layer: The type of the layer that has it; empty if nobody knows.
        kind: What that says it is: "embedding", "norm", "matrix", "recurrent", or nothing.
        tied: The names of others that are the same parameter.
        groups: Into how many parts its layer divides it (grouped convolutions).
        rows: Whether its first axis is one of channels, so that with all others it is a matrix.
        fused: Of how many matrices it is known to be made.
        turned: Whether these stand side by side rather than one above another.
        divisible: Whether an optimizer can be told of which matrices it is made, which PyTorch's can.
    """

    name: str
    value: Any
    shape: tuple[int, ...]
    layer: str = ""
    kind: str = ""
    tied: tuple[str, ...] = ()
    groups: int = 1
    rows: bool = True
    fused: int = 1
    turned: bool = False
    divisible: bool = True


def judged(found: Sequence[Seen], *, in_order: bool) -> list[Entry]:
    """What becomes of each.

    Args:
        found: All parameters.
        in_order: Whether they stand from the first layer to the last.
    """
    entries = [_judged(seen) for seen in found]
    if not in_order:
        return entries
    inner = [k for k, entry in enumerate(entries) if entry.matrix]
    has = {entry.why.partition(",")[0].partition(" by")[0] for entry in entries}
    first, last = "embedding" in has, "head" in has or any(seen.kind == "embedding" and seen.tied for seen in found)
    for k, known, what in ((0, first, "first layer"), (-1, last, "last layer")):
        if inner and not known:
            entries[inner[k]] = replace(entries[inner[k]], matrix=False, why=what, pieces=1)
            inner.pop(k)
    return entries


def _judged(seen: Seen) -> Entry:
    """What becomes of a parameter by what is known of it alone."""

    def entry(why: str, matrix: bool = False, pieces: int = 1, axis: int = 0) -> Entry:
        return Entry(seen.name, seen.value, seen.shape, why, matrix, pieces, axis)

    *path, own = re.split(r"[./]", seen.name.lower())
    if seen.kind == "embedding":
        return entry("embedding" + (f", tied to {', '.join(seen.tied)}" if seen.tied else ""))
    if seen.kind == "norm" or any(_NORM.search(word) for word in (*path[-1:], own)):
        return entry("norm")
    if len(seen.shape) < 2:
        return entry("bias" if own in ("bias", "b", "beta") else "vector" if seen.shape else "one number")
    if seen.kind == "recurrent":
        return entry("recurrent")
    if any(_HEAD.search(word) for word in (*path, own)):
        return entry("head by its name")
    if any(_EMBEDDING.search(word) for word in (*path[-2:], own)):
        return entry("embedding by its name")
    if len(seen.shape) > 2 and not (seen.kind == "matrix" and seen.rows):
        return entry(f"{len(seen.shape)} axes, of which nobody knows which make a matrix")
    rows = seen.shape[0] // seen.groups
    if min(rows, *seen.shape[1:2]) < 2 and (rows < 2 or len(seen.shape) == 2):
        return entry("each of its parts is one row" if seen.groups > 1 else "one row or column")
    if seen.groups > 1:
        return entry(f"{seen.layer}, {seen.groups} matrices one above another", matrix=True, pieces=seen.groups)
    return _fused(seen, entry, own, path)


def _fused(seen: Seen, entry: Callable[..., Entry], own: str, path: Sequence[str]) -> Entry:
    """A matrix, or several of them in one."""
    layer = seen.layer or "a matrix by its shape"
    count = next((n for word, n in _FUSED if any(word.search(part) for part in (*path[-1:], own))), seen.fused)
    axis = 1 if seen.turned else 0
    long, wide = seen.shape[axis], seen.shape[1 - axis]
    if count == 1 or len(seen.shape) > 2:
        return entry(layer, matrix=True)
    if long % count or (count == 3 and long != 3 * wide):
        unless = "unless pieces= says them" if seen.divisible else APART
        return entry(f"{layer}, fused of matrices of unknown sizes; taken whole {unless}", matrix=True)
    beside = "side by side" if seen.turned else "one above another"
    if not seen.divisible:
        return entry(f"{layer}, {count} matrices {beside}; taken whole {APART}", matrix=True)
    return entry(f"{layer}, {count} matrices {beside}", matrix=True, pieces=count, axis=axis)
