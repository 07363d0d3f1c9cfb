"""A pool of Python threads for kernels that run without the interpreter's lock."""

from __future__ import annotations

import ctypes
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
    """Work that is shared out: the pieces still to be begun, those under way, and those that have ended."""

    def __init__(self, work: Callable[[int, int, int], object], total: int, piece: int):
        self.work, self.total, self.piece = work, total, piece
        self.begins = iter(range(0, total, piece))
        self.marks = (ctypes.c_int64 * -(-total // piece))()
        self.active = 0
        self.errors: list[BaseException] = []
        self.changed = threading.Condition()

    def do(self, begin: int) -> None:
        at = ctypes.addressof(self.marks) + 8 * (begin // self.piece)
        self.work(begin, min(begin + self.piece, self.total), at)

    def help(self) -> None:
        """What a thread of the pool does."""
        while True:
            with self.changed:
                begin = None if self.errors else next(self.begins, None)
                if begin is None:
                    return
                self.active += 1
            try:
                self.do(begin)
            except BaseException as error:
                self.errors.append(error)
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    def end(self) -> None:
        """Wait for the pieces under way."""
        with self.changed:
            while self.active:
                self.changed.wait()

    def sweep(self) -> None:
        """Do the pieces that have not been done because a thread was cut off before them."""
        for k, mark in enumerate(self.marks):
            if not mark and not self.errors:
                self.do(k * self.piece)


def share_out(work: Callable[[int, int, int], object], total: int, piece: int, threads: int, done: int = 0) -> None:
    """Call `work(begin, end, mark)` for every piece of `range(total)`, on so many threads, this one among them.

    Returns, or raises, only after every call has ended: nothing touches the arrays afterwards. A signal that arrives
    meanwhile is raised when all the work is done, which is a matter of milliseconds. Its handler may cut this thread
    off right before or right after a piece; which, only the work itself can tell.

    Args:
        work: Does the weights from `begin` to before `end` and, as the last thing, writes 1 to the 64-bit integer at
            the address `mark`. If it does not write it, a piece may be done twice.
        total: How many weights there are.
        piece: How many a call does.
        threads: How many threads share the work.
        done: The address of a 64-bit integer that becomes 1 when all the work is done, or 0.
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
    except BaseException as error:
        failure = error
    attempts = 0
    while attempts < 4:
        try:
            attempts += 1  # advancing a range's iterator is one indivisible operation
            for begin in shared.begins:
                shared.do(begin)
            shared.end()
            if failure is not None:
                shared.sweep()
            if done and not shared.errors:
                ctypes.c_int64.from_address(done).value = 1
            break
        except BaseException as error:
            failure = failure or error
    if failure is not None or shared.errors:
        raise failure or shared.errors[0]
