"""An engine whose runs other processes train, of this machine or of others: any executor does.

Runs are sent in tasks. A task that is lost with its process is sent again, alone, so that it is known which one it was
if it happens again; one that three processes did not survive is recorded as failed, and the race goes on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from downslope.lab.engines.protocol import Description, Engine, Entry, Progress, Run, Snapshot, priced
from downslope.lab.workers.order import Answer, Order, packed, work
from downslope.lab.workers.pool import end, new_pool, size_of, without_main

KILLED = 3
"""So many processes may die of a task."""


class WorkersError(RuntimeError):
    """Runs cannot be trained where they were sent; what is finished is kept."""


@dataclass(eq=False)
class _Task:
    entries: list[Entry]
    groups: list[list[Entry]]  # of them, that may be trained apart
    killed: int = 0  # processes


class SpreadEngine:
    """Has the runs of a race trained by an executor: an `Engine` around the one that knows them.

    Args:
        engine: What would train them here.
        order: What a worker has to know of the race.
        workers: How many processes of this machine, or an executor.

    Attributes:
        here: Says of a run that is observed whether all of it is to be seen: such a run is trained in this process, and
            is the same.

    Raises:
        ValueError: It is neither, or what is raced on cannot be sent.
    """

    def __init__(self, engine: Engine, order: Order, workers: int | Executor):
        if (
            isinstance(workers, bool)
            or not isinstance(workers, (int, Executor))
            or (isinstance(workers, int) and workers < 1)
        ):
            raise ValueError(f"workers={workers!r}: give a number of processes, or a concurrent.futures.Executor")
        self.engine, self._content = engine, packed(order)
        self.threads = size_of(workers)
        self.seconds = dict.fromkeys(engine.seconds, 0.0)
        self.here: Callable[[Entry], bool] = lambda entry: False
        self._workers = workers
        self._pool: Executor | None = None if isinstance(workers, int) else workers
        self._accurate = False

    @property
    def description(self) -> Description | None:
        """The network, and what each run of it is."""
        return self.engine.description

    def split_number(self, seed: int) -> int | None:
        """Which split of the family the runs of a seed are trained and validated on."""
        return self.engine.split_number(seed)

    def together(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """The runs in groups, of which each is trained as one."""
        return self.engine.together(entries)

    def close(self) -> None:
        """End the processes that were begun for it."""
        if isinstance(self._workers, int) and isinstance(self._pool, ProcessPoolExecutor):
            end(self._pool)
            self._pool = None

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Have runs trained, and report each as it comes back.

        Raises:
            WorkersError: A worker cannot train them, or nobody is there who could.
        """
        here: list[Entry] = []
        sent: list[Entry] = []
        for group in self.engine.together(entries):
            (here if any(entry.observed and self.here(entry) for entry in group) else sent).extend(group)
        yield from self._spread(sent)
        for progress in self.engine.train(here) if here else ():
            self.seconds[progress.rule] += progress.seconds
            yield progress

    def _spread(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Have runs trained elsewhere."""
        waiting = deque(self._tasks(entries))
        suspects: deque[_Task] = deque()  # sent one at a time
        running: dict[Future[Answer], _Task] = {}
        most = 2 * self.threads if isinstance(self._workers, int) else len(entries)
        try:
            while waiting or suspects or running:
                while waiting and not suspects and len(running) < most:
                    task = waiting.popleft()
                    running[self._send(task)] = task
                if suspects and not running:
                    task = suspects.popleft()
                    running[self._send(task)] = task
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                lost = [future for future in done if _is_killed(future)]
                for future in done.difference(lost):
                    del running[future]
                    yield from self._told(self._answer(future))
                if lost:
                    broken = any(isinstance(future.exception(), BrokenProcessPool) for future in lost)
                    sure = len(running) == 1 or not broken
                    tasks = [running.pop(future) for future in (list(running) if broken else lost)]
                    self._renew()
                    for task in tasks:
                        yield from self._again(task, suspects, sure=sure)
        finally:
            for future in running:
                future.cancel()

    def _tasks(self, entries: Sequence[Entry]) -> list[_Task]:
        """The runs in tasks: of one rule each, as many as fill the lanes of a worker; in the order of the runs."""
        tasks: list[_Task] = []
        lanes = int(getattr(self.engine, "lanes", 1))
        by_rule: dict[str, list[list[Entry]]] = {}
        for group in self.engine.together(entries):
            by_rule.setdefault(group[0].rule, []).append(list(group))
        for groups in by_rule.values():
            size = max(1, min(lanes, math.ceil(len(groups) / self.threads)))
            for first in range(0, len(groups), size):
                some = groups[first : first + size]
                tasks.append(_Task([entry for group in some for entry in group], some))
        order = {entry: place for place, entry in enumerate(entries)}
        return sorted(tasks, key=lambda task: order[task.entries[0]])

    def _send(self, task: _Task) -> Future[Answer]:
        for _ in range(KILLED):
            try:
                with without_main():
                    if self._pool is None:
                        assert isinstance(self._workers, int)
                        self._pool = new_pool(self._workers)
                    return self._pool.submit(work, self._content, task.entries)
            except BrokenProcessPool:
                self._renew()
            except Exception as error:  # an executor may raise anything
                raise WorkersError(f"workers: nothing can be sent to {self._pool!r} ({error})") from None
        raise WorkersError("workers: processes end as soon as they begin; run one to see why")

    def _renew(self) -> None:
        """Begin anew where a process that died took the others along."""
        if isinstance(self._workers, int):
            self.close()

    def _again(self, task: _Task, suspects: deque[_Task], *, sure: bool) -> Iterator[Progress]:
        """What becomes of a task whose process died, perhaps of another one."""
        task.killed += sure
        if sure and len(task.groups) > 1:
            suspects.extend(_Task(list(group), [group]) for group in task.groups)
        elif task.killed >= KILLED:
            yield from self._told(Answer(tuple(self._failed(e, f"killed {KILLED} workers") for e in task.entries)))
        else:
            suspects.append(task)

    def _answer(self, future: Future[Answer]) -> Answer:
        try:
            answer = future.result()
        except CancelledError:
            raise WorkersError(
                "workers: the executor gave up the runs that it was sent; is its scheduler still there?"
            ) from None
        except Exception as error:
            raise WorkersError(
                f"workers: the executor failed ({type(error).__name__}: {error}); is the scheduler there?"
            ) from None
        if answer.error:
            raise WorkersError(f"workers: {answer.error}")
        return answer

    def _told(self, answer: Answer) -> Iterator[Progress]:
        """Report the runs of a task."""
        training, seconds = self.engine.description, answer.seconds / max(1, len(answer.runs))
        epochs = 1 if training is None else training.epochs
        of_run: dict[Entry, list[Snapshot]] = {}
        for snapshot in answer.snapshots:
            of_run.setdefault(replace(snapshot.entry, observed=False), []).append(snapshot)
        for run in answer.runs:
            self._accurate |= run.valid_accuracy is not None
            self.seconds[run.rule] += seconds / self.threads
            seen = of_run.get(run.entry, [])
            yield Progress(run.rule, epochs, 0, (run,), seconds, tuple(seen), setting=priced(run.setting))

    def _failed(self, entry: Entry, cause: str) -> Run:
        """A run that failed before its first loss."""
        training = self.engine.description
        count = 1 if training is None else training.epochs + 1
        return Run(
            entry.rule,
            entry.lr,
            entry.seed,
            entry.phase,
            train_loss=() if training is None else (math.inf,) * count,
            valid_loss=(math.inf,) * count,
            valid_accuracy=(0.0,) * count if self._accurate else None,
            diverged_at=0,
            test_loss=math.inf if training is not None and entry.phase == "verdict" else None,
            test_accuracy=0.0 if self._accurate and entry.phase == "verdict" else None,
            steps=(0,) if training is None else None,
            cause=cause,
            setting=entry.setting,
        )


def _is_killed(future: Future[Answer]) -> bool:
    """Whether the process of a task died."""
    if future.cancelled():
        return False
    error = future.exception()
    return isinstance(error, BrokenProcessPool) or type(error).__name__ in ("KilledWorker", "TerminatedWorkerError")
