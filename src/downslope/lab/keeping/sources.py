"""What code of the user's own is, as far as its text and what it was made with say: so that another is told apart."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PLAIN = (str, bytes, int, float, complex, bool, type(None))


def source_of(code: Any, version: str, argument: str) -> Mapping[str, str]:
    """What tells code of the user's own from other code: a version that he gave, or its source.

    The source is that of the file that the code is in, so that what it calls there counts too, and the plain values
    that it was made with. What it calls elsewhere is not seen: there a version is to be given.

    Args:
        code: A function, an object that can be called, or a `functools.partial` of one.
        version: What the user calls it; empty: its source says it.
        argument: As what it was given, for errors.

    Returns:
        One name and its value.

    Raises:
        ValueError: It has no source, or was made with more than plain values, and no version is given.

    Example:
        >>> source_of(abs, "2", "train")
        {'train': 'version 2'}
    """
    if version:
        return {argument: f"version {version}"}
    digest = hashlib.sha256()
    try:
        for part in _parts(code, ()):
            digest.update(f"{len(part)}:".encode())
            digest.update(part)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"folder: what the {argument} is cannot be told from its source ({error}); give version=..., another one "
            "whenever it changes"
        ) from None
    return {argument: f"source {digest.hexdigest()[:16]}"}


def _parts(value: Any, seen: tuple[int, ...]) -> list[bytes]:
    """What a value is, in pieces; refuses what has no text."""
    if isinstance(value, PLAIN):
        return [f"{type(value).__name__} {value!r}".encode()]
    if id(value) in seen:
        return [b"again"]
    seen = (*seen, id(value))
    if isinstance(value, (tuple, list)):
        return [type(value).__name__.encode(), *(part for item in value for part in _parts(item, seen)), b"end"]
    if isinstance(value, dict):
        return [b"dict", *(part for pair in value.items() for part in _parts(pair, seen)), b"end"]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [f"{value.dtype} {value.shape}".encode(), np.ascontiguousarray(value).tobytes()]
    if isinstance(value, functools.partial):
        return _parts([value.func, value.args, value.keywords], seen)
    if inspect.ismodule(value):
        return [value.__name__.encode()]
    if inspect.ismethod(value):
        return [*_parts(value.__func__, seen), *_parts(value.__self__, seen)]
    if inspect.isfunction(value):
        function = inspect.unwrap(value)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        made_with = _parts([function.__defaults__, function.__kwdefaults__, cells], seen)
        return [function.__qualname__.encode(), _text(function), *made_with]
    if inspect.isclass(value):
        return [value.__qualname__.encode(), _text(value)]
    if inspect.isbuiltin(value):
        return [f"{value.__module__}.{value.__qualname__}".encode()]
    if hasattr(value, "__dict__") and callable(value):
        return [*_parts(type(value), seen), *_parts(vars(value), seen)]
    raise TypeError(f"it was made with a {type(value).__name__}")


def _text(code: Any) -> bytes:
    """The text of the file that a function or a class is in; of a notebook or a prompt, its own."""
    file = getattr(getattr(code, "__code__", None), "co_filename", None) or inspect.getsourcefile(code)
    if file and Path(file).is_file():
        return Path(file).read_bytes()
    return inspect.getsource(code).encode()
