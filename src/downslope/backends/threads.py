"""Threads that share the work of a launch, which is done by compiled code without the interpreter's lock.

A launch is one call of C, from waking the first thread to the end of the last. Python runs signal handlers only between
its own instructions, so that none comes in between, however many signals do: what a handler raises is raised before the
launch has begun, or when all of it is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, starmap
from queue import SimpleQueue

_mathematics = ctypes.PyDLL("ucrtbase" if os.name == "nt" else None)
_environment = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_read_environment = _environment(("fegetenv", _mathematics))
_set_environment = _environment(("fesetenv", _mathematics))
_ENVIRONMENT_BYTES = 128
"""Room for what C calls a floating-point environment: how a thread rounds, whether it flushes denormal numbers. The
systems we know need 32 at most."""


def available() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Lock:
    """A lock of C: a signal does not end the wait for it, as it does for Python's own."""

    _allocate = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThread_allocate_lock", ctypes.pythonapi))
    _free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyThread_free_lock", ctypes.pythonapi))
    _try = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", ctypes.pythonapi))
    _release = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyThread_release_lock", ctypes.pythonapi))
    wait = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", ctypes.pythonapi))
    """Take the lock at this address; the interpreter's own is given up meanwhile."""

    def __init__(self) -> None:
        self.at = self._allocate()
        if not self.at:
            raise MemoryError("the system gives no more locks")

    def __del__(self) -> None:
        if self.at:
            self._free(self.at)

    def take(self) -> bool:
        """Take it if it is free."""
        return bool(self._try(self.at, 0))

    def release(self) -> None:
        """Give it back."""
        self._release(self.at)


class _Helpers:
    """Threads that wait for launches to help with; the end of the process does not wait for them."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with none: a forked child has none of its parent's threads."""
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._count = 0

    def gather(self, count: int) -> int:
        """See that there are so many, or as many as the system gives; how many there are."""
        with contextlib.suppress(RuntimeError):  # no more threads, or the process is about to end
            while self._count < count and not sys.is_finalizing():
                threading.Thread(target=_serve, args=(self.calls,), name="downslope", daemon=True).start()
                self._count += 1
        return min(count, self._count)


def _serve(calls: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        calls.get()()  # it has no name here, which would keep it alive until the next


_helpers = _Helpers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.begin)


def _help(lock: _Lock, environment: int, calls: Iterator[object], errors: list[BaseException]) -> None:
    """What a thread does for a launch, unless that has ended already."""
    if not lock.take():
        return
    try:
        _set_environment(environment)
        deque(calls, maxlen=0)
    except BaseException as error:
        errors.append(error)
    finally:
        lock.release()


def share_out(
    work: Callable[..., object],
    pieces: Sequence[tuple[float, ...]],
    threads: int,
    last: Sequence[tuple[float, ...]] = (),
) -> None:
    """Call `work(*piece)` for every piece, on so many threads, this one among them.

    Returns, or raises, only after every call has ended: nothing touches the arrays afterwards. All threads round as
    this one does, and flush denormal numbers if it does.

    Args:
        work: A compiled function, not one of Python's, in which signal handlers would run.
        pieces: The arguments of each call.
        threads: How many threads share the work.
        last: The arguments of calls that this thread makes when all others have ended.
    """
    share_rounds(work, [((), pieces)], threads, last)


def share_rounds(
    work: Callable[..., object],
    rounds: Sequence[tuple[Sequence[tuple[float, ...]], Sequence[tuple[float, ...]]]],
    threads: int,
    last: Sequence[tuple[float, ...]] = (),
) -> None:
    """Do the same in several rounds, each of which begins when the one before has ended.

    Args:
        work: As for `share_out`.
        rounds: The arguments of the calls that this thread makes when a round begins, and of those that are shared.
        threads: How many threads share the work.
        last: The arguments of calls that this thread makes at the end.
    """
    environment = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
    at = ctypes.addressof(environment)
    _read_environment(at)
    errors: list[BaseException] = []
    parts: list[Iterable[object]] = []
    kept = []  # a lock must be there as long as somebody may wait for it
    for alone, pieces in rounds:
        calls = starmap(work, pieces)  # advancing it is indivisible
        locks = [_Lock() for _ in range(_helpers.gather(min(threads, len(pieces)) - 1))]
        helped = [partial(_help, lock, at, calls, errors) for lock in locks]
        waits = [(lock.at, 1) for lock in locks]  # until those that came have gone; no other comes
        parts += [starmap(work, alone), map(_helpers.calls.put, helped), calls, starmap(_Lock.wait, waits)]
        kept.append(locks)
    launch = chain(*parts, starmap(work, last))
    while True:
        try:
            deque(launch, maxlen=0)
            break
        except BaseException as error:  # of work that failed; or of a signal, and then nothing is left to be done
            errors.append(error)
    if errors:
        raise errors.pop(0)
