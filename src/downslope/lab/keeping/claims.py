"""Who trains which run, where several processes share the folder of a race and nothing else.

A claim is a file that only one can make, and that is touched as long as its owner lives. Runs are the same whoever
trains them: so a claim only saves time, and where two train the same run after all, nothing is wrong. A claim that
nobody has touched for long is that of a process that died, and is ignored. Time is that of the file system, which all
see alike, not of any machine's clock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from downslope.lab.keeping.identity import name_of

BEAT = 2.0
"""The seconds between two touches."""

STALE = 20.0
"""A claim that was not touched for so many seconds is nobody's."""

CLAIMS = "claims"


class Claims:
    """The claims in the folder of a race.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path):
        self._place = folder / CLAIMS
        self._clock = self._place / f".{secrets.token_hex(8)}.clock"
        self._mine: set[Path] = set()
        self._lock = threading.Lock()

    def take(self, key: str) -> bool:
        """Claim a run; False if another process trains it.

        Raises:
            OSError: No file can be made in the folder.
        """
        path = self._path(key)
        self._place.mkdir(parents=True, exist_ok=True)
        with self._lock:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                if not self._is_stale(path):
                    return False
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
            self._mine.add(path)
        return True

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back, when their runs are in the folder or nobody is to wait for them."""
        with self._lock:
            for path in map(self._path, keys):
                self._mine.discard(path)
                with contextlib.suppress(OSError):
                    path.unlink()

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """While claims of this process hold: touch them."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                with self._lock:
                    for path in self._mine:
                        with contextlib.suppress(OSError):
                            os.utime(path)

        thread = threading.Thread(target=beat, daemon=True, name="claims")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with contextlib.suppress(OSError):
                self._clock.unlink()

    def _path(self, key: str) -> Path:
        return self._place / name_of(key)

    def _is_stale(self, path: Path) -> bool:
        """Whether nobody has touched a claim for long, by the clock of the file system."""
        try:
            self._clock.touch()
            return self._clock.stat().st_mtime - path.stat().st_mtime > STALE
        except FileNotFoundError:  # given back meanwhile: the run is in the folder, or may be claimed the next time
            return False
