"""The engine of a race over a training of the user's own, in any framework: an `Engine`.

Runs are trained one at a time, in this process. What a run does wrong is recorded as the cause of its failure, and the
next one begins. One that hangs is stopped at its next report, or where it is, as far as `Apart` can.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from downslope.lab.engines.apart import Apart, RunError, check_limit
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.own_run import OwnRun
from downslope.lab.engines.protocol import Description, Entry, Progress, Run, check_entries, priced
from downslope.lab.engines.schedule import CONSTANT, Schedule

HEARD = 0.25
"""The losses of a run that goes on are passed on after so many seconds, since some report thousands."""

Train = Callable[[OwnRun], object]
"""A training: it is handed a run, trains it and reports its losses."""


class OwnEngine:
    """Trains runs of several rules by calling a function: an `Engine`.

    Args:
        train: The function.
        entrants: The rules that runs may ask for, by what they are called in the race.
        steps: How many steps a run has; None: until `train` returns.
        limit: How many seconds a run has; None: as many as it takes.
        quiet: Whether what runs print is held back; the end of it is told with the cause of a failure.
        schedule: How the learning rate changes in a run; needs its steps.
        clock: Gives seconds.

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
    argument = "train"

    def __init__(
        self,
        train: Train,
        entrants: Mapping[str, Entrant],
        *,
        steps: int | None = None,
        limit: float | None = None,
        quiet: bool = True,
        schedule: Schedule = CONSTANT,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if not callable(train):
            raise ValueError(f"train={train!r} cannot be called; give a function that takes a run")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1):
            raise ValueError(f"steps={steps!r}: give the steps of a run, a whole number of at least 1")
        if steps is None and not schedule.constant:
            raise ValueError(f"schedule={schedule.name!r} needs the number of steps of a run; give steps too")
        check_limit(limit)
        self._schedule = schedule
        self._train, self._entrants, self.clock = train, entrants, clock
        self._steps, self._limit, self._quiet = steps, limit, quiet
        self.seconds = dict.fromkeys(entrants, 0.0)
        self.used = False
        self.asked: set[str] = set()
        self.error: BaseException | None = None
        self._listen: Callable[[Progress], None] | None = None
        self._heard: tuple[Entry | None, float] = (None, 0.0)  # of which run last, and when
        self._unheard: Exception | None = None

    @property
    def description(self) -> Description | None:
        """None: what the function trains is its own affair."""
        return None

    def split_number(self, seed: int) -> int | None:
        """None: how the data are split is the function's affair."""
        return None

    def together(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Each run by itself: they are trained one after the other."""
        return ([entry] for entry in entries)

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs one after the other, and report each.

        Args:
            entries: The runs.

        Raises:
            ValueError: An entry names a rule that the engine does not have, or its learning rate is not positive.
        """
        check_entries(entries, self._entrants)
        for entry in entries:
            start = self.clock()
            run = self.run(entry)
            seconds = self.clock() - start
            self.seconds[entry.rule] += seconds
            yield Progress(entry.rule, 1, 0, (run,), seconds, setting=priced(entry.setting))

    def run(self, entry: Entry) -> Run:
        """Train one run; what `train` raises becomes the cause of its failure, but for Ctrl-C."""
        entrant = self._entrants[entry.rule].at(entry.setting)
        own = OwnRun(
            entry,
            entrant,
            steps=self._steps,
            limit=self._limit,
            schedule=self._schedule,
            heard=functools.partial(self._hear, entry),
        )
        apart = Apart(entry.seed, limit=self._limit, quiet=self._quiet)
        try:
            apart.call(lambda: self._train(own))
            if own.late:
                own.fail(apart.too_long)
        except RunError as failed:
            self.error = self.error or failed.__cause__
            own.fail(str(failed))
        unheard, self._unheard = self._unheard, None
        if unheard is not None:
            raise unheard
        self.used = self.used or own.used
        self.asked |= own.asked
        return own.finished()

    def listen(self, to: Callable[[Progress], None]) -> None:
        """Have somebody told of losses that runs report while they go on, a few times per second.

        Args:
            to: Called while a run is trained; what it raises ends the training of runs.
        """
        self._listen = to

    def _hear(self, entry: Entry, step: int, loss: float) -> None:
        now = time.monotonic()
        last, at = self._heard
        if self._listen is None or (entry is last and now - at < HEARD):
            return
        self._heard = entry, now
        try:
            self._listen(Progress(entry.rule, 0, 0, (), heard=((entry, step, loss),)))
        except Exception as error:  # the listener's, not the run's
            self._unheard = error
            raise
