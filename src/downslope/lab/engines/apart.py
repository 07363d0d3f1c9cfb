"""Code of the user's own, called so that it disturbs nobody and nobody disturbs it.

What it prints or logs on the terminal is held back, the generators of Python, NumPy and the loaded frameworks are its
own, its time is limited, and what it raises becomes a sentence, but for Ctrl-C.

How code that hangs is stopped: in the main thread where the system has `SIGALRM`, by an exception raised in it, which
ends sleeping, waiting and loops of Python. What stays inside compiled code is stopped when that returns, and where
there is no such signal it is not stopped at all: within one process there is no way to.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

TAIL = 200
"""How many characters of what failed code printed last are told with its cause."""


class RunError(Exception):
    """What code of the user's own did wrong, in one line; `__cause__` is what it raised, if it did."""


class Apart:
    """One run of code of the user's own, called at once or piece by piece.

    Args:
        seed: What the generators are set by at first. From one piece to the next they go on.
        limit: How many seconds all pieces may take; None: as many as they take.
        quiet: Whether what they print is held back; the end of it is told with the cause of a failure.

    Example:
        >>> run = Apart(seed=0)
        >>> first = run.call(lambda: (print("held back"), random.random()))
        >>> first == Apart(seed=0).call(lambda: (None, random.random()))
        True
    """

    def __init__(self, seed: int, *, limit: float | None = None, quiet: bool = True):
        self.seed, self.limit, self.quiet = seed, limit, quiet
        self._begun = time.monotonic()
        self._states: _States | None = None
        self._printed = io.StringIO()

    @property
    def too_long(self) -> str:
        """The cause of the failure of code whose time is up."""
        return f"took longer than its limit of {self.limit:g} seconds"

    def call(self, code: Callable[[], T]) -> T:
        """What a piece of code returns.

        Raises:
            RunError: It raised something, or the time is up.
        """
        left = None if self.limit is None else self.limit - (time.monotonic() - self._begun)
        if left is not None and left <= 0:
            raise RunError(self.too_long)
        with contextlib.ExitStack() as around:
            if self.quiet:
                around.enter_context(_logging_to(self._printed))
                around.enter_context(contextlib.redirect_stdout(self._printed))
                around.enter_context(contextlib.redirect_stderr(self._printed))
            around.enter_context(self._generators())
            try:
                with _alarm(left):
                    return code()
            except _TimeUp:
                raise RunError(self.too_long) from None
            except (Exception, SystemExit) as error:
                raise RunError(f"{told(error)}{self._tail()}") from error

    @contextlib.contextmanager
    def _generators(self) -> Iterator[None]:
        before = _States()
        if self._states is None:
            _set_by(self.seed)
        else:
            self._states.put()
        try:
            yield
        finally:
            self._states = _States()
            before.put()

    def _tail(self) -> str:
        last = " ".join(self._printed.getvalue().split())[-TAIL:]
        return f" (it printed last: {last})" if last else ""


@contextlib.contextmanager
def _logging_to(stream: io.StringIO) -> Iterator[None]:
    """Have logs go to a stream that would go to standard output or standard error; those into files still do.

    Handlers that the code makes meanwhile go to standard error once it is over.
    """
    before = {one: one.stream for one in _handlers() if one.stream in (sys.stdout, sys.stderr)}
    for handler in before:
        _send(handler, stream)
    try:
        yield
    finally:
        for handler in {*_handlers(), *before}:  # one may have been taken off its logger
            if handler.stream is stream:
                _send(handler, before.get(handler, sys.stderr))


def _handlers() -> set[logging.StreamHandler[Any]]:
    """The handlers of all loggers that write to streams."""
    known = [logging.root, *list(logging.root.manager.loggerDict.values())]
    handlers = {handler for one in known if isinstance(one, logging.Logger) for handler in one.handlers}
    return {handler for handler in handlers if isinstance(handler, logging.StreamHandler)}


def _send(handler: logging.StreamHandler[Any], stream: Any) -> None:
    """Have a handler write to a stream, unless it is one that looks for its stream itself whenever it writes."""
    with contextlib.suppress(AttributeError):
        handler.setStream(stream)


def told(error: BaseException) -> str:
    """What an error says, in one line that is not too long."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def check_limit(limit: Any) -> None:
    """Refuse what is no limit of seconds.

    Raises:
        ValueError: It is none.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
        raise ValueError(f"limit={limit!r}: give the most seconds that a run may take, more than 0")


class _TimeUp(BaseException):
    """Raised in code whose time is up; no `except Exception` is to take it for an error of its own."""


@contextlib.contextmanager
def _alarm(limit: float | None) -> Iterator[None]:
    """Raise `_TimeUp` in here once the seconds are over, where the system can; and again, should it be swallowed."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if limit is None or not able:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit, limit)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # it may ring just now
            signal.signal(signal.SIGALRM, before)


class _States:
    """Where the generators of Python, NumPy and PyTorch are, its devices' too.

    Keras's and TensorFlow's are not among them, as there is no way to ask for their states.
    """

    def __init__(self) -> None:
        self._python, self._numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what others draw from
        torch: Any = sys.modules.get("torch")
        self._torch = None if torch is None else torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None

    def put(self) -> None:
        """Put them there again."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch: Any = sys.modules.get("torch")
        if self._torch is not None:
            torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)


def _set_by(seed: int) -> None:
    """Set the generators of Python, NumPy and the loaded frameworks."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    if (torch := sys.modules.get("torch")) is not None:  # for devices that are not there it takes 200 times as long
        seeded = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
        seeded(seed)
    if (keras := sys.modules.get("keras")) is not None:
        keras.utils.set_random_seed(seed)
