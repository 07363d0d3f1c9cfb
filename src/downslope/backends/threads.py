"""A pool of Python threads for kernels that run without the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_pools: dict[int, ThreadPoolExecutor] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a forked child has none of its parent's threads


def available() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Shared:
    """Work that is shared out: the pieces still to be done, and how many of them other threads are at."""

    def __init__(self, work: Callable[[int, int], None], total: int, piece: int):
        self.work, self.total, self.piece = work, total, piece
        self.begins = iter(range(0, total, piece))
        self.closed = False
        self.active = 0
        self.errors: list[BaseException] = []
        self.changed = threading.Condition()

    def do(self, begin: int) -> None:
        self.work(begin, min(begin + self.piece, self.total))

    def help(self) -> None:
        """What a thread of the pool does."""
        while True:
            with self.changed:
                begin = None if self.closed else next(self.begins, None)
                if begin is None:
                    return
                self.active += 1
            try:
                self.do(begin)
            except BaseException as error:
                self.errors.append(error)
            finally:
                with self.changed:
                    self.active -= 1
                    self.changed.notify_all()

    def end(self) -> None:
        """Let no thread begin another piece, and wait for those under way."""
        with self.changed:
            self.closed = True
            while self.active:
                self.changed.wait()


def share_out(work: Callable[[int, int], None], total: int, piece: int, threads: int) -> None:
    """Call `work(begin, end)` for every piece of `range(total)`, on so many threads, this one among them.

    Returns, or raises, only after every call has ended, whatever signals arrive meanwhile: nothing touches the arrays
    afterwards.
    """
    shared = _Shared(work, total, piece)
    threads = min(threads, -(-total // piece))
    failure: BaseException | None = None
    try:
        if threads > 1:
            pool = _pools.get(threads)
            if pool is None:
                pool = _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="downslope")
            for _ in range(threads - 1):
                pool.submit(shared.help)
        for begin in shared.begins:  # advancing a range's iterator is one indivisible operation
            shared.do(begin)
    except BaseException as error:
        failure = error
    while True:
        try:
            shared.end()
            break
        except BaseException as error:  # a signal's: the pieces end soon, and leaving now would free what they write to
            failure = failure or error
    if failure is not None or shared.errors:
        raise failure or shared.errors[0]
