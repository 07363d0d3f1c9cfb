"""The engine of a race over a training of the user's own, in any framework: an `Engine`.

Runs are trained one at a time, in this process. What a run does wrong is recorded as the cause of its failure, and the
next one begins.

How a run that hangs is stopped: at its next report; and, in the main thread where the system has `SIGALRM`, by an
exception that is raised in it, which ends sleeping, waiting and loops of Python. What stays inside compiled code is
stopped when that returns, and where there is no such signal a run that never reports is not stopped at all: within one
process there is no way to.
"""

from __future__ import annotations

import contextlib
import io
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from downslope.lab.engines.own_run import OwnRun, told
from downslope.lab.engines.protocol import Description, Entrant, Entry, Progress, Run

Train = Callable[[OwnRun], object]
"""A training: it is handed a run, trains it and reports its losses."""

TAIL = 200
"""How many characters of what a failed run printed last are told with its cause."""


class OwnEngine:
    """Trains runs of several rules by calling a function: an `Engine`.

    Args:
        train: The function.
        entrants: The rules that runs may ask for, by what they are called in the race.
        steps: How many steps a run has; None: until `train` returns.
        limit: How many seconds a run has; None: as many as it takes.
        quiet: Whether what runs print is held back; the end of it is told with the cause of a failure.

    Attributes:
        seconds: Per name of a rule, the wall-clock seconds its runs took so far.
        used: Whether any run asked for what it is to train with.
        error: The first that a run raised.

    Raises:
        ValueError: `train` cannot be called, or steps or limit are not positive.

    Example:
        >>> import downslope, numpy as np
        >>> def train(run):
        ...     x = np.random.default_rng(run.seed).normal(size=3).astype(np.float32)
        ...     optimizer = run.optimizer(x)
        ...     step = 0
        ...     while run.report(step, x @ x):
        ...         optimizer.step(2 * x)
        ...         step += 1
        >>> engine = OwnEngine(train, {"sgd": Entrant.of("sgd", downslope.sgd, {})}, steps=10)
        >>> (progress,) = engine.train([Entry("sgd", 0.1, seed=0)])
        >>> (run,) = progress.finished
        >>> run.steps[-1], run.valid_loss[0] > 50 * run.final_loss
        (10, True)
    """

    threads = 1

    def __init__(
        self,
        train: Train,
        entrants: Mapping[str, Entrant],
        *,
        steps: int | None = None,
        limit: float | None = None,
        quiet: bool = True,
    ):
        if not callable(train):
            raise ValueError(f"train={train!r} cannot be called; give a function that takes a run")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1):
            raise ValueError(f"steps={steps!r}: give the steps of a run, a whole number of at least 1")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
            raise ValueError(f"limit={limit!r}: give the most seconds that a run may take, more than 0")
        self._train, self._entrants = train, entrants
        self._steps, self._limit, self._quiet = steps, limit, quiet
        self.seconds = dict.fromkeys(entrants, 0.0)
        self.used = False
        self.error: Exception | SystemExit | None = None

    @property
    def description(self) -> Description | None:
        """None: what the function trains is its own affair."""
        return None

    def split_number(self, seed: int) -> int | None:
        """None: how the data are split is the function's affair."""
        return None

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs one after the other, and report each.

        Args:
            entries: The runs.

        Raises:
            ValueError: An entry names a rule that the engine does not have.
        """
        for entry in entries:
            if entry.rule not in self._entrants:
                raise ValueError(f"entries: rule {entry.rule!r} is not among {', '.join(self._entrants)}")
        for entry in entries:
            start = time.perf_counter()
            run = self.run(entry)
            seconds = time.perf_counter() - start
            self.seconds[entry.rule] += seconds
            yield Progress(entry.rule, 1, 0, (run,), seconds)

    def run(self, entry: Entry) -> Run:
        """Train one run; what `train` raises becomes the cause of its failure, but for Ctrl-C."""
        own = OwnRun(entry, self._entrants[entry.rule], steps=self._steps, limit=self._limit)
        printed = io.StringIO()
        with contextlib.ExitStack() as around:
            if self._quiet:
                around.enter_context(contextlib.redirect_stdout(printed))
                around.enter_context(contextlib.redirect_stderr(printed))
            around.enter_context(_generators_set_by(entry.seed))
            try:
                with _alarm(self._limit):
                    self._train(own)
                if own.late:
                    own.fail(self._too_long())
            except _TimeUp:
                own.fail(self._too_long())
            except (Exception, SystemExit) as error:
                self.error = self.error or error
                own.fail(f"{told(error)}{_tail(printed)}")
        self.used = self.used or own.used
        return own.finished()

    def _too_long(self) -> str:
        return f"took longer than its limit of {self._limit:g} seconds"


def _tail(printed: io.StringIO) -> str:
    last = " ".join(printed.getvalue().split())[-TAIL:]
    return f" (it printed last: {last})" if last else ""


class _TimeUp(BaseException):
    """Raised in a run whose time is up; no `except Exception` is to take it for an error of its own."""


@contextlib.contextmanager
def _alarm(limit: float | None) -> Iterator[None]:
    """Raise `_TimeUp` in here once the seconds are over, where the system can."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if limit is None or not able:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # it may ring just now
            signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _generators_set_by(seed: int) -> Iterator[None]:
    """The generators of Python, NumPy and the loaded frameworks as this seed makes them; then as they were before.

    Keras's and TensorFlow's are not set back, as there is no way to ask for their states.
    """
    mine, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - what others draw from
    torch: Any = sys.modules.get("torch")
    with contextlib.ExitStack() as around:
        if torch is not None:
            around.enter_context(torch.random.fork_rng(range(torch.cuda.device_count())))
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if torch is not None:
            torch.manual_seed(seed)
        if (keras := sys.modules.get("keras")) is not None:
            keras.utils.set_random_seed(seed)
        try:
            yield
        finally:
            random.setstate(mine)
            np.random.set_state(numpys)  # noqa: NPY002
