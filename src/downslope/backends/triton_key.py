"""The key by which Triton finds kernels that are compiled, kept for the next process.

Triton's own `triton_key` is a hash of all that it compiles with. Before the first kernel of every process it reads its
library for that, hundreds of megabytes, which takes longer than all else until a kernel is launched that is on disk.
The key is kept under a hash of where these files are, how large, and when they were last written.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from downslope.backends import source_cache

READ = ("runtime/cache.py", "compiler", "backends", "language", "_C")
"""The files and folders of Triton that its key is made of."""


@functools.cache
def hasten() -> None:
    """Have Triton take its key from there; where it makes it elsewhere than is known, it is left as it is."""
    import triton

    place: Any = importlib.import_module("triton.runtime.cache")
    made = getattr(place, "triton_key", None)
    if callable(made):
        folder = Path(triton.__file__).parent
        place.triton_key = functools.cache(lambda: key(folder, str(triton.__version__), made))


def key(folder: Path, version: str, made: Callable[[], str]) -> str:
    """The key, as it was kept, or as it is made now.

    Args:
        folder: Where Triton is installed.
        version: Its version, with which its keys begin.
        made: What makes the key.
    """
    name = f"triton_key_{state(folder, version)}"
    kept = (source_cache.kept(name) or b"").decode("ascii", "replace")
    if kept.startswith(version) and kept.isprintable():
        return kept
    found = made()
    source_cache.keep(name, found.encode())
    return found


def state(folder: Path, version: str) -> str:
    """A hash of the names, sizes and times of all files that the key is made of."""
    found = [file for part in READ for file in (folder / part, *sorted((folder / part).rglob("*.*")))]
    files = [file for file in found if "__pycache__" not in file.parts and file.is_file()]
    told = [(str(file), status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]]
    return hashlib.blake2b(repr((version, told)).encode(), digest_size=12).hexdigest()
