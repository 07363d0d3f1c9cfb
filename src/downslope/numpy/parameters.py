"""What the optimizer for NumPy arrays is given to train: named arrays, in groups or not, and gradients like them."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from downslope.training.groups import Array


@dataclass(frozen=True)
class Layout:
    """How the caller lays out parameters, and so gradients: one array, a sequence, a mapping, or groups of these."""

    kind: str  # "array", "sequence", "mapping", "groups"
    names: tuple[str, ...] = ()
    groups: tuple[Layout, ...] = ()

    @functools.cached_property
    def _pick(self) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
        """Gives the values of a dict in the order of the names."""
        if len(self.names) == 1:
            return lambda gradients: [gradients[self.names[0]]]
        return operator.itemgetter(*self.names) if self.names else lambda _: []

    def flatten(self, gradients: Any) -> Sequence[Any]:
        """The gradients in the order of the parameters.

        Raises:
            TypeError: The container is of another kind than that of the parameters.
            ValueError: Names are missing or unknown, or the number of gradients is wrong.
        """
        names = self.names
        if self.kind == "mapping":
            if type(gradients) is dict and len(gradients) == len(names):
                try:
                    return self._pick(gradients)
                except KeyError:
                    pass
            if not isinstance(gradients, Mapping):
                raise TypeError(f"gradients is a {type(gradients).__name__}; expected a dict like params, by name")
            missing = [name for name in names if name not in gradients]
            extra = [name for name in gradients if name not in names]
            if missing or extra:
                raise ValueError(f"gradients does not match params: missing {missing}, unknown {extra}")
            return [gradients[name] for name in names]
        if self.kind == "array":
            if isinstance(gradients, (list, tuple, Mapping)):
                raise TypeError(f"gradients is a {type(gradients).__name__}; params is one array, so give one array")
            return [gradients]
        if not isinstance(gradients, (list, tuple)):
            raise TypeError(f"gradients is a {type(gradients).__name__}; expected a list like params")
        expected = len(self.groups) if self.kind == "groups" else len(names)
        if len(gradients) != expected:
            what = "group(s)" if self.kind == "groups" else "array(s)"
            raise ValueError(f"gradients has {len(gradients)} {what}; params has {expected}")
        if self.kind == "sequence":
            return list(gradients)
        return [g for layout, part in zip(self.groups, gradients, strict=True) for g in layout.flatten(part)]


def lay_out(params: Any) -> tuple[Layout, dict[str, Array], list[dict[str, Any]], list[list[str]]]:
    """Take parameters apart.

    Returns:
        Their layout, all arrays by name, each group's own settings, and each group's names.

    Raises:
        TypeError: Something is not an array, or a name not a string.
        ValueError: There is nothing to train, or a name occurs twice.
    """
    arrays: dict[str, Array] = {}
    is_groups = isinstance(params, (list, tuple)) and any(isinstance(entry, Mapping) for entry in params)
    if not is_groups:
        layout = _lay_out_one(params, arrays)
        settings: list[dict[str, Any]] = [{}]
        names = [list(layout.names)]
    else:
        settings, names, layouts = [], [], []
        for k, entry in enumerate(params):
            if not isinstance(entry, Mapping) or "params" not in entry:
                raise TypeError(f"params[{k}] must be a dict with the key 'params', as in {{'params': W, 'lr': 0.1}}")
            if "rule" in entry:
                raise TypeError(
                    f"a group has rule={entry['rule']!r}, but for arrays of NumPy all groups have one rule; make an "
                    "optimizer for each rule, and step them one after another"
                )
            layouts.append(_lay_out_one(entry["params"], arrays))
            names.append(list(layouts[-1].names))
            settings.append({name: value for name, value in entry.items() if name != "params"})
        layout = Layout("groups", groups=tuple(layouts))
    if not arrays:
        raise ValueError("params holds no array; there is nothing to train")
    return layout, arrays, settings, names


def _lay_out_one(params: Any, arrays: dict[str, Array]) -> Layout:
    if isinstance(params, Mapping) and "params" in params and not isinstance(params["params"], np.ndarray):
        raise TypeError("params is a single group; put it into a list: [{'params': ..., ...}]")
    if isinstance(params, Mapping):
        kind, entries = "mapping", list(params.items())
    elif isinstance(params, (list, tuple)):
        kind, entries = "sequence", [(str(len(arrays) + k), array) for k, array in enumerate(params)]
    else:
        kind, entries = "array", [(str(len(arrays)), params)]
    for name, value in entries:
        if not isinstance(name, str) or not name:
            raise TypeError(f"the parameter name {name!r} is not a non-empty string")
        if name in arrays:
            raise ValueError(f"two parameters are named {name!r}; names must differ across all groups")
        arrays[name] = value
    return Layout(kind, tuple(name for name, _ in entries))


DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def check_weights(arrays: Mapping[str, Any]) -> np.dtype[Any]:
    """Make sure that every array can be updated in place, and return their common dtype.

    Raises:
        TypeError: Something is not a NumPy array of float32 or float64, or the dtypes differ.
        ValueError: An array is read-only, not contiguous, not aligned, or shares memory with another.
    """
    dtypes: dict[np.dtype[Any], str] = {}
    for name, array in arrays.items():
        if type(array) is not np.ndarray and not isinstance(array, np.memmap):
            raise TypeError(f"the parameter {name!r} is a {type(array).__name__}; expected a numpy.ndarray")
        if array.dtype not in DTYPES:
            raise TypeError(f"the parameter {name!r} has dtype {array.dtype}; expected float32 or float64")
        check_writable(f"the parameter {name!r}", array)
        dtypes.setdefault(np.dtype(array.dtype.type), name)
    if len(dtypes) > 1:
        both = ", ".join(f"{name!r} is {dtype}" for dtype, name in dtypes.items())
        raise TypeError(f"the parameters have different dtypes ({both}); convert them to one, or use two optimizers")
    check_separate(arrays)
    return next(iter(dtypes))


def check_writable(what: str, array: Array) -> None:
    """Make sure that compiled code can write to the array."""
    if not array.flags.writeable:
        raise ValueError(f"{what} is read-only and cannot be updated in place; pass a copy")
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise ValueError(
            f"{what} is a view with strides {array.strides} for shape {array.shape}, not contiguous "
            "and aligned memory; keep it as an array of its own, made with numpy.ascontiguousarray"
        )


def check_separate(arrays: Mapping[str, Array]) -> None:
    """Make sure that no two arrays share memory."""
    spans = []
    for name, array in arrays.items():
        if array.size:
            spans.append((*byte_bounds(array), name))
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise ValueError(
                f"the parameters {first!r} and {second!r} share memory; each weight may be given only once"
            )


def check_gradients(
    weights: Mapping[str, Array], gradients: Sequence[Any], held: Collection[Array], dtype: np.dtype[Any]
) -> list[Array]:
    """The gradients as arrays that a kernel can read: copied if not contiguous, or if they share memory with others.

    Args:
        weights: The weights, by name.
        gradients: A gradient for each.
        held: All arrays that a step writes to.
        dtype: The dtype of the weights.

    Raises:
        TypeError: A gradient is missing, not an array, masked, or of another dtype than its weights.
        ValueError: Its shape is not that of its weights.
    """
    ready = []
    for (name, array), gradient in zip(weights.items(), gradients, strict=True):
        if isinstance(gradient, np.ma.MaskedArray):
            raise TypeError(f"the gradient of {name!r} is a masked array, whose mask would be ignored; fill it first")
        if not isinstance(gradient, (np.ndarray, np.generic)) and not hasattr(gradient, "__array__"):
            raise TypeError(f"the gradient of {name!r} is {gradient!r:.60}; expected an array of dtype {array.dtype}")
        values = np.asarray(gradient)
        if values.dtype != dtype:
            raise TypeError(
                f"the gradient of {name!r} has dtype {values.dtype}, its weights {dtype}; "
                f"convert it with .astype(numpy.{dtype})"
            )
        if values.shape != array.shape:
            raise ValueError(f"the gradient of {name!r} has shape {values.shape}, its weights {array.shape}")
        readable = values.flags.c_contiguous and values.flags.aligned and values.dtype is dtype
        shared = any(np.may_share_memory(values, other) for other in held)
        if not readable or shared:
            copy = np.empty(values.shape, dtype)
            copy[...] = values
            values = copy
        ready.append(values)
    return ready


def describe_nonfinite(names: Sequence[str], gradients: Sequence[Any], t: int) -> str:
    """Which gradients of step `t` hold nan or infinity, and what can be done about it."""
    counts = {n: np.size(g) - int(np.count_nonzero(np.isfinite(g))) for n, g in zip(names, gradients, strict=True)}
    sizes = {name: np.size(g) for name, g in zip(names, gradients, strict=True)}
    found = ", ".join(f"{name!r} ({count} of {sizes[name]})" for name, count in counts.items() if count)
    return (
        f"nan or infinity in the gradient of {found} at step {t}; nothing was changed. "
        "A lower learning rate or max_norm=... may help; nonfinite='skip' leaves such steps out"
    )
