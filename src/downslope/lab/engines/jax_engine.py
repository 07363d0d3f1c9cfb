"""The engine of a race: trains hundreds of small networks side by side.

Runs of one rule are trained together in a heat; heats run in threads beside each other, one per processor, and begin
with different rules, so that while one compiles another trains.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

import jax
import numpy as np
from numpy.typing import NDArray

from downslope.backends.threads import available
from downslope.lab.engines.data import Data
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.evaluator import Evaluator
from downslope.lab.engines.heat import Heat, Trainer
from downslope.lab.engines.lookout import Lookout
from downslope.lab.engines.network import model_of
from downslope.lab.engines.parts import parts_of, who_trains_what
from downslope.lab.engines.protocol import (
    Description,
    Entry,
    Progress,
    Snapshot,
    Surroundings,
    batch_size_of,
    check_entries,
    priced,
)
from downslope.lab.engines.schedule import CONSTANT, Schedule
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.model import Model
from downslope.lab.problems.problem import Problem


class JaxEngine:
    """Trains runs of several rules on one problem: an `Engine`.

    Args:
        problem: Data, network and budget.
        entrants: The rules that runs may ask for, by what they are called in the race.
        lanes: Runs per heat; by default as many as fit the cache.
        threads: Heats at a time; by default one per processor that this process may use.
        split_seed: Which family of splits of the rows the seeds choose from.
        varied: Whether each seed has a split of its own; otherwise all have the first of the family.
        schedule: How the learning rate changes in a run.
        clock: Gives seconds.
        model: What is trained; None: what the problem asks for.

    Attributes:
        seconds: Per name of a rule, the wall-clock seconds its runs took so far, compilation included. While n heats
            run beside each other, each counts for an n-th.
        cautions: Of rules for matrices, what trains the rest, in sentences.

    Raises:
        ValueError: There is no thread, or a rule is for matrices and the model has none in between.

    Example:
        >>> import downslope
        >>> from downslope.lab.problems.builtin import PROBLEMS
        >>> engine = JaxEngine(PROBLEMS["parabola"](), {"sgd": Entrant.of("sgd", downslope.sgd, {})})
        >>> runs = [run for progress in engine.train([Entry("sgd", 0.1, seed=0)]) for run in progress.finished]
        >>> runs[0].valid_loss[0] > 5 * runs[0].final_loss
        True
    """

    def __init__(
        self,
        problem: Problem | Examples,
        entrants: Mapping[str, Entrant],
        *,
        lanes: int | None = None,
        threads: int | None = None,
        split_seed: int = 0,
        varied: bool = True,
        schedule: Schedule = CONSTANT,
        clock: Callable[[], float] = time.perf_counter,
        model: Model | None = None,
    ):
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads}: give at least 1")
        self.problem, self.clock = problem, clock
        self.threads = threads or available()
        self.seconds = dict.fromkeys(entrants, 0.0)
        self._data = Data(problem, split_seed, varied)
        evaluator = Evaluator(self._data, model or model_of(problem), lanes)
        self._evaluator = evaluator
        self.cautions: tuple[str, ...] = ()
        for name, entrant in entrants.items():
            try:
                parts = parts_of(entrant, evaluator.model)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if entrant.rest is not None:
                sizes = [array.size for array in evaluator.model.initial(0)]
                self.cautions += (who_trains_what(name, entrant, [not part.is_rest for part in parts], sizes),)
        self._entrants, self._schedule = entrants, schedule
        self._table = functools.lru_cache(schedule.table)
        self._lookout = Lookout(evaluator, entrants, self.rates)
        self._trainers: dict[Hashable, Trainer] = {}
        self._lock = threading.Lock()

    @property
    def description(self) -> Description:
        """The model, and what each run of it is."""
        model = self._evaluator.model
        return Description(
            network=model.name,
            weights=model.size,
            batch_size=self._data.batch_size,
            steps_per_epoch=self._data.steps,
            epochs=self.problem.epochs,
        )

    @property
    def lanes(self) -> int:
        """Runs per heat."""
        return self._evaluator.lanes

    def shorten(self, epochs: int) -> None:
        """Give runs that begin from now on so many epochs; no program is compiled again."""
        self.problem = self._data.problem = replace(self.problem, epochs=epochs)

    def split_number(self, seed: int) -> int:
        """Which split of the family the runs of a seed are trained and validated on."""
        return self._data.split_number(seed)

    def together(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Each run by itself: what a lane computes depends on no other."""
        return ([entry] for entry in entries)

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs, and report after every epoch of every heat.

        Runs finish in no particular order. When the caller stops iterating, or Ctrl-C lands while it waits, the heats
        stop after the epoch they are in; what was reported stays valid and the engine can be used again.

        Args:
            entries: The runs; those of one rule are started in this order.

        Raises:
            ValueError: An entry names a rule that the engine does not have, or its learning rate is not positive.
        """
        check_entries(entries, self._entrants)
        schedule = _Schedule(entries, min(self.threads, len(entries)), self._trainer)
        reports: queue.SimpleQueue[Progress | BaseException | None] = queue.SimpleQueue()
        workers: list[tuple[threading.Thread, threading.Event]] = []
        try:
            for i in range(min(self.threads, len(entries))):
                begun = threading.Event()
                arguments = (schedule, reports, begun)
                worker = threading.Thread(target=self._work, args=arguments, daemon=True, name=f"heat-{i}")
                workers.append((worker, begun))
                worker.start()
            busy = len(workers)
            while busy:
                report = reports.get()
                if isinstance(report, BaseException):
                    raise report
                if report is None:
                    busy -= 1
                else:
                    yield report
        finally:
            schedule.stop()
            # A heat that goes on while Python ends brings the process down, also one that Ctrl-C met while it started.
            for worker, begun in workers:
                if begun.wait(timeout=1.0):
                    worker.join()

    def _trainer(self, entry: Entry) -> Trainer:
        """The program of a run: one for all settings of a rule that differ in numbers of its formula only."""
        entrant = self._entrants[entry.rule].at(entry.setting)
        varied = tuple(name for name, _ in entry.setting if name in entrant.numbers)
        setting = priced(entry.setting)
        kind = (entry.rule, entrant.settings, varied, setting)
        with self._lock:
            if kind not in self._trainers:
                self._trainers[kind] = Trainer(
                    self._evaluator, entry.rule, entrant, self._schedule, varied=varied, setting=setting
                )
            return self._trainers[kind]

    def begin(self, entry: Entry) -> Snapshot:
        """A run before its first step, without training it."""
        weights, states, scalars, steps = self._trainer(entry).lane(entry)
        return Snapshot(entry, 0, weights, states, {name: float(value) for name, value in scalars.items()}, int(steps))

    def look_around(self, snapshot: Snapshot) -> Surroundings | None:
        """What there is around a run; None where its weights or those after its next step are not finite."""
        with jax.default_device(self._data.device):
            return self._lookout.around(snapshot)

    def seen_rows(self, seed: int) -> tuple[int, int]:
        """How many training rows of a seed `look_around` looks at, and how many there are."""
        return len(self._lookout.terrain.rows(seed)), len(self._data.split(seed).parts.train)

    def rates(self, entry: Entry) -> NDArray[np.float64]:
        """The learning rate of every step of a run, as the schedule has it."""
        _, steps = self._data.in_batches(batch_size_of(entry.setting))
        return entry.lr * self._table(self.problem.epochs * steps)

    def after_first_step(self, entry: Entry, rates: Sequence[float]) -> Sequence[float]:
        """The mean training loss after one step from the start of a run, if its first step had each of these rates."""
        with jax.default_device(self._data.device):
            return self._evaluator.losses(entry.seed, self._lookout.first_weights(self.begin(entry), rates))

    def _work(
        self,
        schedule: _Schedule,
        reports: queue.SimpleQueue[Progress | BaseException | None],
        begun: threading.Event,
    ) -> None:
        begun.set()
        try:
            with jax.default_device(self._data.device):
                while (trainer := schedule.next_trainer()) is not None:
                    start = self.clock()
                    for progress in Heat(trainer).train(functools.partial(schedule.take, trainer)):
                        seconds = self.clock() - start
                        start += seconds
                        self.seconds[trainer.name] += seconds / schedule.busy
                        reports.put(replace(progress, seconds=seconds))
                        if schedule.stopped:
                            break
            schedule.leave()
            reports.put(None)
        except BaseException as error:
            schedule.leave()
            reports.put(error)  # to be raised where the caller waits


class _Schedule:
    """Hands out runs to the heats; shared by all threads."""

    def __init__(self, entries: Sequence[Entry], busy: int, trainer_of: Callable[[Entry], Trainer]):
        self.lock = threading.Lock()
        self.busy = busy  # heats at work
        self.waiting: dict[Trainer, deque[Entry]] = {}
        for entry in entries:
            self.waiting.setdefault(trainer_of(entry), deque()).append(entry)
        self.untouched = deque(self.waiting)
        self.stopped = False

    def next_trainer(self) -> Trainer | None:
        """A program that no heat has begun, else the one with most runs waiting, else None."""
        with self.lock:
            if self.untouched:
                return self.untouched.popleft()
            found = max(self.waiting, key=lambda trainer: len(self.waiting[trainer]), default=None)
            return found if found is not None and self.waiting[found] else None

    def take(self, trainer: Trainer) -> Entry | None:
        with self.lock:
            return self.waiting[trainer].popleft() if self.waiting.get(trainer) else None

    def leave(self) -> None:
        with self.lock:
            self.busy = max(1, self.busy - 1)

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            self.waiting.clear()
            self.untouched.clear()
