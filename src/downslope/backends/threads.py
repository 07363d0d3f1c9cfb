"""A pool of Python threads for kernels that run without the interpreter's lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

_pools: dict[int, ThreadPoolExecutor] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a forked child has none of its parent's threads


def available() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(work: Callable[[int, int], None], total: int, piece: int, threads: int) -> None:
    """Call `work(begin, end)` for every piece of `range(total)`, on so many threads, this one among them.

    Returns, or raises, only after every call has ended: nothing touches the arrays afterwards.
    """
    begins = iter(range(0, total, piece))
    threads = min(threads, -(-total // piece))

    def worker() -> None:
        for begin in begins:  # advancing a range's iterator is one indivisible operation
            work(begin, min(begin + piece, total))

    if threads <= 1:
        worker()
        return
    pool = _pools.get(threads)
    if pool is None:
        pool = _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="downslope")
    others = [pool.submit(worker) for _ in itertools.repeat(None, threads - 1)]
    try:
        worker()
    finally:
        while True:
            try:
                wait(others)
                break
            except KeyboardInterrupt:  # the kernels end soon; leaving now would free what they write to
                continue
    for other in others:
        other.result()
