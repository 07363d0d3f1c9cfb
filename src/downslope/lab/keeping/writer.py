"""Writes runs into the folder of a race beside their training: a file for all that have finished meanwhile."""

from __future__ import annotations

import threading

from downslope.lab.keeping.folder import Folder
from downslope.lab.keeping.rows import Kept

EVERY = 0.5
"""The fewest seconds between two files: small runs, of which hundreds finish in that time, go into one."""

AGAIN = 5.0
"""After how many seconds what could not be written is tried again."""


class Writer:
    """Takes runs that are finished and writes them, in a thread of its own.

    Args:
        folder: Where they go.

    Attributes:
        failed: Why runs are waiting to be written, if the last attempt failed; empty otherwise.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self.failed = ""
        self._waiting: list[Kept] = []
        self._writing = threading.Lock()  # by one at a time
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._over = False

    @property
    def waiting(self) -> int:
        """How many runs are not written yet."""
        return len(self._waiting)

    def put(self, runs: list[Kept]) -> None:
        """Take runs that are finished."""
        with self._changed:
            self._waiting += runs
            self._over = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="keeper")
                self._thread.start()
            self._changed.notify()

    def flush(self) -> None:
        """Write what is waiting, or find out why it cannot be, and leave no thread behind."""
        with self._changed:
            self._over = True
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._write()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._over:
                    self._changed.wait()
                if self._over:
                    return
            self._write()
            with self._changed:
                self._changed.wait_for(lambda: self._over, AGAIN if self.failed else EVERY)
                if self._over:
                    return

    def _write(self) -> None:
        with self._writing:
            runs = list(self._waiting)
            if not runs:
                return
            try:
                self.folder.add(runs)
            except OSError as error:
                self.failed = error.strerror or str(error)
                return
            self.failed = ""
            with self._changed:
                del self._waiting[: len(runs)]
