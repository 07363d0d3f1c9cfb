"""Where generated code lives: content-hashed files in a directory that only the user can write.

A file is imported like any module, and a person can open and read what runs. The machine code made of it is kept beside
it for the next process.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
import threading
import warnings
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import platformdirs

from downslope import files


@functools.cache
def directory() -> Path:
    """The directory of generated code: `DOWNSLOPE_CACHE_DIR`, else the user's cache directory.

    Compiled code in it is trusted, so it must belong to the user and be writable by nobody else. Where that cannot be
    had, a private temporary directory takes its place until the process ends, with a warning.
    """
    wanted = os.environ.get("DOWNSLOPE_CACHE_DIR")
    path = Path(wanted) if wanted else Path(platformdirs.user_cache_dir("downslope", appauthor=False)) / "kernels"
    problem = _problem(path)
    return _instead_of(path, problem) if problem else path


def _problem(path: Path) -> str:
    """Why this directory, which is made if it is not there, cannot be used; nothing if it can."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _unsafe(path)
    except OSError as error:
        return str(error)


def _instead_of(path: Path, problem: str) -> Path:
    warnings.warn(
        f"kernels cannot be kept in {path}: {problem}; they are compiled anew in every process. "
        "Set DOWNSLOPE_CACHE_DIR to a directory that only you can write",
        RuntimeWarning,
        stacklevel=2,
    )
    return _private()


@functools.cache
def _private() -> Path:
    path = Path(tempfile.mkdtemp(prefix="downslope-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _unsafe(path: Path) -> str:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a directory"
    if hasattr(os, "getuid"):
        if status.st_uid != os.getuid():
            return "it belongs to another user"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "others can write to it"
    if not os.access(path, os.W_OK | os.X_OK):
        return "it is not writable"
    return ""


def load(stem: str, source: str) -> ModuleType:
    """Import generated source as a module, from a file named by the stem and the hash of the source."""
    with _lock:  # a module must be whole before another thread sees it
        return _load(stem, source)


_lock = threading.RLock()


def _load(stem: str, source: str) -> ModuleType:
    digest = hashlib.blake2b(source.encode(), digest_size=12).hexdigest()
    name = f"_downslope_{stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    path = _write(f"{name}.py", source.encode())
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, path, source))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Loader(SourceFileLoader):
    """Runs the very text that was generated, and leaves no byte code: in a folder of its own others might write it."""

    def __init__(self, name: str, path: Path, source: str):
        super().__init__(name, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """What is run."""
        code: CodeType = self.source_to_code(self._source, self.path)
        return code


def kept(name: str) -> bytes | None:
    """What has been kept under this name, or None."""
    path = directory() / name
    try:
        return path.read_bytes() if path.is_file() and not path.is_symlink() else None
    except OSError:  # it is made anew
        return None


def keep(name: str, content: bytes) -> None:
    """Keep something for the next process."""
    _write(name, content)


def _write(name: str, content: bytes) -> Path:
    """Have a file with this content, at once and whole; where it is.

    A directory that was removed is made again. Where nothing can be written, the private one takes its place.
    """
    folder = directory()
    try:
        return _put(folder / name, content)
    except OSError:
        problem = _problem(folder)
    if not problem:
        try:
            return _put(folder / name, content)
        except OSError as error:
            problem = error.strerror or str(error)
    folder = _instead_of(folder, problem)
    folder.mkdir(mode=0o700, exist_ok=True)
    return _put(folder / name, content)


def _put(path: Path, content: bytes) -> Path:
    if path.is_symlink():
        path.unlink()  # nothing outside of this directory is written
    if not path.is_file() or path.read_bytes() != content:
        files.write(path, content, mode=0o600, durable=False)
    return path
