"""Writing files: whole or not at all, and never in place of something that is no file."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link that leads back to itself",
}
_STREAM = re.compile(r"/dev/(stdout|stderr)|(?:/dev|/proc/self)/fd/(\d+)")


def descriptor(path: str | Path) -> int | None:
    """The number of the open stream that a path such as `/dev/stdout` or `/dev/fd/3` stands for; None for others.

    Example:
        >>> descriptor("/dev/stdout"), descriptor("report.html")
        (1, None)
    """
    found = _STREAM.fullmatch(str(path))
    if found is None or os.name == "nt":
        return None
    return {"stdout": 1, "stderr": 2}[found[1]] if found[1] else int(found[2])


def check(path: str | Path) -> Path:
    """The file that `write` would make or replace, which is where links lead to.

    What writers that were killed have left beside it is removed.

    Args:
        path: Where to write.

    Raises:
        FileNotFoundError: There is no such folder.
        FileExistsError: There is something that is no regular file: a directory, a device, a pipe, a socket.
        PermissionError: The file or its folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    _permissions(path, target)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write to {path}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write to {path}: nothing can be written in the folder {target.parent}")
    for draft in target.parent.glob(f"{glob.escape(_draft(target, '').stem)}*.part"):
        with contextlib.suppress(OSError):
            _remove_if_left(draft)
    return target


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder, and nothing that is being written."""
    for draft in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            _remove_if_left(draft)


def _permissions(path: str | Path, target: Path) -> os.stat_result | None:
    """What is there now; None if nothing is."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise FileExistsError(f"cannot write to {path}: it is {kind}; give the name of a file")
    if not os.access(target, os.W_OK):
        raise PermissionError(f"cannot write to {path}: the file is read-only")
    return found


def write(
    path: str | Path,
    content: str | bytes | memoryview | Iterable[bytes | memoryview],
    *,
    mode: int = 0o666,
    durable: bool = True,
) -> None:
    """Write a file so that at any moment, whenever the process ends, either the old or the whole new one is there.

    A link is written through, and a file that is replaced keeps its permissions. To `/dev/stdout` and other open
    streams the content is written as it is.

    Args:
        path: Where to write; a regular file, or nothing yet, in a folder that exists.
        content: Text, written as UTF-8; or bytes, in one piece or in several.
        mode: The permissions of a new file, of which the umask takes some away.
        durable: Wait until it is on the disk, so that it also survives a failure of power.

    Raises:
        OSError: The file cannot be written, or there is something that is no file (see `check`). The old one, if any,
            is left as it was.
        UnicodeEncodeError: The text is not Unicode; likewise.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
        >>> write(file, "first")
        >>> write(file, [b"sec", b"ond"])
        >>> file.read_text()
        'second'
    """
    content = content.encode() if isinstance(content, str) else content
    pieces = [content] if isinstance(content, (bytes, memoryview)) else content
    stream = descriptor(path)
    if stream is not None:
        with os.fdopen(os.dup(stream), "wb") as file:
            file.writelines(pieces)
        return
    target = check(path)
    before = _permissions(path, target)
    draft, handle = _begin(target, mode if before is None else 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(pieces)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            if before is not None:
                with contextlib.suppress(OSError):  # only root can give a file to somebody else
                    os.chown(draft, before.st_uid, before.st_gid)
                os.chmod(draft, stat.S_IMODE(before.st_mode))  # noqa: PTH101
            _permissions(path, target)
            if fcntl is not None:
                os.replace(draft, target)  # noqa: PTH105 - while it is locked, so that nobody takes it for left behind
        if fcntl is None:
            os.replace(draft, target)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    if durable:
        _keep_entry(target.parent)


def _keep_entry(path: Path) -> None:
    """Have a folder's entries on the disk."""
    with contextlib.suppress(OSError):  # not every system can do it
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _draft(target: Path, token: str) -> Path:
    """Where a file is written before it takes its name, which may be too long for more letters."""
    return target.with_name(f".{target.name[:60]}.{token}.part")


def _begin(target: Path, mode: int) -> tuple[Path, int]:
    """A new draft, open for writing and locked as long as it is."""
    while True:
        draft = _draft(target, secrets.token_hex(8))
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        if fcntl is None:
            return draft, handle
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if os.path.samestat(draft.lstat(), os.fstat(handle)):
                return draft, handle
        except FileNotFoundError:  # another process took it for left behind before it was locked
            pass
        os.close(handle)


def _remove_if_left(draft: Path) -> None:
    """Remove a draft that no process is writing."""
    if fcntl is None:
        draft.unlink()
        return
    handle = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()
    finally:
        os.close(handle)
