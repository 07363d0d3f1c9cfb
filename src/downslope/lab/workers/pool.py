"""Processes of this machine that train runs: begun anew, and with nothing of the process that asks for them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

PARENT_SECONDS = 1.0
"""How often a worker looks whether who asked for it is still there."""


def new_pool(workers: int) -> ProcessPoolExecutor:
    """So many processes, which end with this one. They are never forked: JAX would hang in them.

    Args:
        workers: How many.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(os.getpid(),))


def size_of(executor: Executor | int) -> int:
    """How many runs an executor, or so many processes, train at a time, as far as it says."""
    if isinstance(executor, int):
        return executor
    client = getattr(executor, "_client", None)  # of Dask
    known = getattr(executor, "_max_workers", None) or getattr(executor, "max_workers", None)
    count = known if client is None else len(client.ncores())
    return max(1, int(count or 1))


def end(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool, whatever they are doing."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=5.0)
        if process.is_alive():
            process.kill()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Around what begins a process: it does not run the user's script again, which may have no guard against that."""
    main: Any = sys.modules["__main__"]
    hidden = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


def _begin(parent: int) -> None:
    """Set up a worker: Ctrl-C is for who asked for it, and without that one it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    if os.name != "nt":
        threading.Thread(target=watch, daemon=True, name="parent").start()
