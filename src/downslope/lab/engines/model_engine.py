"""The engine of a race on a model of the user's own: an `Engine`.

Models are made by a factory, each anew, and trained one at a time in this process, on the splits and batches that a
race on a table has too. What a run does wrong is recorded as the cause of its failure, and the next one begins.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.apart import Apart, RunError, check_limit
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.factory import Make, look_at, refuse_other_shapes, try_out
from downslope.lab.engines.learner import TASKS, Learner, Loss, Stacking, check_loss
from downslope.lab.engines.model_rows import KEPT, ModelRows
from downslope.lab.engines.parts import who_trains_what
from downslope.lab.engines.protocol import (
    Description,
    Entry,
    Progress,
    Run,
    Setting,
    Snapshot,
    batch_size_of,
    check_entries,
    priced,
)
from downslope.lab.engines.recorder import Losses, Recorder
from downslope.lab.engines.schedule import CONSTANT, Schedule
from downslope.lab.problems.examples import Examples, examples_of
from downslope.lab.problems.model import NO_MATRIX
from downslope.lab.problems.problem import Problem

if TYPE_CHECKING:
    from downslope.lab.engines.jax_engine import JaxEngine


def examples_for(
    data: object,
    loss: Loss | None,
    *,
    target: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
) -> Problem | Examples:
    """What models learn from, as their loss wants it; the other arguments are those of `examples_of`.

    Raises:
        ValueError: The data or the loss do not allow a race, or do not fit each other.
    """
    check_loss(loss)
    named: Any = loss if isinstance(loss, str) else None
    return examples_of(
        data,
        target=target,
        task=TASKS.get(named),
        as_they_are=loss is not None and named is None,
        batch_size=batch_size,
        epochs=epochs,
    )


class ModelEngine:
    """Trains runs of several rules on models of the user's own: an `Engine`.

    Args:
        make: Makes a model for a seed.
        examples: What the models learn from.
        entrants: The rules that runs may ask for, by what they are called in the race.
        loss: What is minimised; None: as the targets say, cross-entropy for classes and the mean squared error else.
        seeds: Two that runs will have: the factory is tried on them.
        split_seed: Which family of splits of the rows the seeds choose from.
        varied: Whether each seed has a split of its own; otherwise all have the first of the family.
        limit: How many seconds a run has; None: as many as it takes.
        quiet: Whether what models print is held back; the end of it is told with the cause of a failure.
        schedule: How the learning rate changes in a run.
        clock: Gives seconds.

    Attributes:
        seconds: Per name of a rule, the wall-clock seconds its runs took so far.
        loss: What is minimised.
        cautions: What was found out about the factory that is to be borne in mind, in sentences.
        error: The first that a run raised.

    Raises:
        ValueError: No race can be made of the factory, or loss or limit are none.

    Example:
        >>> import downslope, torch
        >>> from downslope.lab.problems.builtin import load_problem
        >>> entrants = {"sgd": Entrant.of("sgd", downslope.sgd, {})}
        >>> engine = ModelEngine(lambda seed: torch.nn.Linear(64, 10), load_problem("digits"), entrants)
        >>> (run,) = [run for progress in engine.train([Entry("sgd", 0.1, 0)]) for run in progress.finished]
        >>> run.valid_loss[0] > 5 * run.final_loss
        True
    """

    threads = 1
    argument = "model"
    used = True

    def __init__(
        self,
        make: Make,
        examples: Problem | Examples,
        entrants: Mapping[str, Entrant],
        *,
        loss: Loss | None = None,
        seeds: tuple[int, int] = (0, 1),
        split_seed: int = 0,
        varied: bool = True,
        limit: float | None = None,
        quiet: bool = True,
        schedule: Schedule = CONSTANT,
        clock: Callable[[], float] = time.perf_counter,
    ):
        check_loss(loss)
        check_limit(limit)
        usual: Loss = "cross-entropy" if examples.task == "classification" else "mse"
        self.loss = usual if loss is None else loss
        self.examples, self._make, self._entrants, self.clock = examples, make, entrants, clock
        self._split_seed, self._limit, self._quiet = split_seed, limit, quiet
        self._settled: dict[tuple[str, Setting], Entrant] = {}
        self.seconds = dict.fromkeys(entrants, 0.0)
        self.error: BaseException | None = None
        self._rows = ModelRows(examples, split_seed, varied, seeds[0])
        self._table = functools.lru_cache(KEPT)(schedule.table)
        self._schedule = schedule
        classes = examples.outputs if isinstance(examples, Problem) else examples.classes
        sample = self._rows.sight(seeds[0]).x[:2]
        made = look_at(make, self.loss, classes, sample, seeds, quiet=quiet)
        self.cautions, self._models, self._network = made.cautions, made.models, made.network
        self._shapes = made.shapes
        rows = self._rows.parts(seeds[0]).train
        name, entrant = next(iter(entrants.items()))
        entry = Entry(name, entrant.default_lr or entrant.lr or 1e-3, seeds[0])
        first = try_out(
            lambda: self._learner(entry, entrant), rows[: self._rows.batch_size], self.loss, quiet=quiet, seed=seeds[0]
        )
        self._weights = sum(array.size for array in first.weights())
        for one, its in entrants.items():
            if its.rest is not None:
                split = first.split()
                if not split.matrices:
                    raise ValueError(f"{one}: the {self._network} {NO_MATRIX}; print(downslope.split(model)) says why")
                inner, sizes = [part.matrix for part in split], [math.prod(part.shape) for part in split]
                self.cautions += (who_trains_what(one, its, inner, sizes, split.unknown),)
        self.stacking = self._whether_to_stack(entry, seeds)

    @property
    def description(self) -> Description:
        """The model, and what each run of it is."""
        return Description(self._network, self._weights, self._rows.batch_size, self._rows.steps, self.examples.epochs)

    def shorten(self, epochs: int) -> None:
        """Give runs that begin from now on so many epochs."""
        self.examples = replace(self.examples, epochs=epochs)

    def in_heats(self, seeds: Sequence[int], threads: int | None = None) -> JaxEngine | None:
        """An engine that trains the same runs side by side in compiled programs; None where the framework has none.

        Args:
            seeds: Those that runs will have: models are made for them now, while nothing else goes on.
            threads: Heats at a time; by default one per processor.
        """
        if self._models.framework != "JAX":
            return None
        from downslope.lab.engines.jax_engine import JaxEngine
        from downslope.lab.engines.pair_network import PairModels, PairNetwork

        assert isinstance(self._models, PairModels)

        def begun(seed: int) -> Any:
            return Apart(seed, quiet=self._quiet).call(lambda: self._begun(seed))

        network = PairNetwork(begun, self._models, seeds[0], self._network)
        try:
            for seed in seeds:
                network.initial(seed)
        except RunError as error:
            raise ValueError(f"model: {error}") from error.__cause__
        return JaxEngine(
            self.examples,
            self._entrants,
            threads=threads,
            split_seed=self._split_seed,
            varied=self._rows.varied,
            schedule=self._schedule,
            clock=self.clock,
            model=network,
        )

    def split_number(self, seed: int) -> int:
        """Which split of the family the runs of a seed are trained and validated on."""
        return self._rows.split_number(seed)

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs one after the other, and report after every epoch.

        Args:
            entries: The runs.

        Raises:
            ValueError: An entry names a rule that the engine does not have, or its learning rate is not positive.
        """
        check_entries(entries, self._entrants)
        for group in self.together(entries):
            if len(group) >= self.stacking.fewest:
                yield from self._stacked(group)
            else:
                for entry in group:
                    yield from self._run(entry)

    def together(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Runs of one rule in one setting that are stacked, as many as may be; each by itself where none are."""
        lanes = self.stacking.lanes
        if lanes == 1:
            yield from ([entry] for entry in entries)
            return
        alike: dict[tuple[str, Setting], list[Entry]] = {}
        for entry in entries:
            alike.setdefault((entry.rule, entry.setting), []).append(entry)
        for those in alike.values():
            yield from (those[first : first + lanes] for first in range(0, len(those), lanes))

    def run(self, entry: Entry) -> Run:
        """Train one run to its end."""
        return next(run for progress in self._run(entry) for run in progress.finished)

    def _run(self, entry: Entry) -> Iterator[Progress]:
        apart = Apart(entry.seed, limit=self._limit, quiet=self._quiet)
        recorder = Recorder(entry, [])
        learner: Learner | None = None
        test: tuple[float, float] | None = None
        start, over = self.clock(), False
        while not over:
            snapshots: list[Snapshot] = []
            trained = 0
            try:
                if learner is None:
                    learner = apart.call(lambda: self._learner(entry, self._entrant(entry)))
                    recorder.add(apart.call(functools.partial(self._begin, learner, entry.seed)))
                    if not recorder.starts_finite:
                        recorder.diverged_at = 0
                    snapshots += self._seen(entry, 0, learner)
                if recorder.diverged_at is None:
                    trained = 1
                    epoch = recorder.epochs + 1
                    recorder.add(apart.call(functools.partial(self._epoch, learner, entry, epoch)))
                    weights = learner.weights()
                    snapshots += self._seen(entry, epoch, learner)
                    if recorder.has_run_away or not all(np.isfinite(array).all() for array in weights):
                        recorder.diverged_at = epoch
                over = recorder.diverged_at is not None or recorder.epochs == self.examples.epochs
                if over and entry.phase == "verdict":
                    test = (math.inf, 0.0)
                    if recorder.diverged_at is None:
                        rows = self._rows.parts(entry.seed).test
                        test = apart.call(functools.partial(learner.evaluate, rows))
            except RunError as error:
                self.error = self.error or error.__cause__
                recorder.fail(str(error))
                test, over = ((math.inf, 0.0) if entry.phase == "verdict" else None), True
            seconds = self.clock() - start
            start += seconds
            self.seconds[entry.rule] += seconds
            finished: tuple[Run, ...] = ()
            skipped = 0
            if over:
                finished = (recorder.run(self.examples.epochs, self.loss == "cross-entropy", test),)
                skipped = self.examples.epochs - max(recorder.epochs, trained)
            heard, kind = () if over else recorder.news(), priced(entry.setting)
            seen = tuple(snapshots)
            yield Progress(entry.rule, trained, skipped, finished, seconds, seen, heard=heard, setting=kind)

    def _whether_to_stack(self, entry: Entry, seeds: tuple[int, int]) -> Stacking:
        """Whether runs are stacked, found out on one of them."""
        if self._models.framework == "JAX":
            return Stacking(1, "runs were stacked in compiled programs")
        if self._models.framework != "PyTorch":
            return Stacking(1, "runs were trained one at a time, those of a rule by one compiled model")
        if self._limit is not None:
            return Stacking(1, "runs were trained one at a time, since each has a limit of seconds")
        from downslope.lab.engines.torch_learner import TorchModels
        from downslope.lab.engines.torch_stack import stacking

        models, entrant = self._models, self._entrants[entry.rule]
        assert isinstance(models, TorchModels)
        batches = self._rows.batches(entry.seed, 1)

        def begun(which: int) -> Any:
            one = replace(entry, seed=seeds[which])
            return Apart(one.seed, quiet=self._quiet).call(lambda: self._learner(one, entrant))

        apart = Apart(entry.seed, quiet=self._quiet)
        try:
            return apart.call(lambda: stacking(models, begun, entrant, entry.lr, batches))
        except RunError as error:  # in a race it is the cause of the failure of a run
            return Stacking(1, f"runs were trained one at a time, since a trial run failed: {error}")

    def _stacked(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs of one rule together; where one raises something, each by itself, so that it has its cause."""
        from downslope.lab.engines.stacked_runs import StackedRuns
        from downslope.lab.engines.torch_learner import TorchModels

        rule, setting = entries[0].rule, entries[0].setting
        models, entrant = self._models, self._entrant(entries[0])
        assert isinstance(models, TorchModels)
        together = StackedRuns(
            models,
            self._rows,
            entrant,
            entries,
            epochs=self.examples.epochs,
            factors=functools.partial(self._factors, batch_size_of(setting)),
            quiet=self._quiet,
        )

        def begin(entry: Entry) -> Any:
            return self._learner(entry, entrant)

        try:
            for progress in together.train(begin, self.clock):
                self.seconds[rule] += progress.seconds
                yield progress
        except RunError:
            for one in together.alive:
                yield from self._run(one.entry)

    def _entrant(self, entry: Entry) -> Entrant:
        """The rule of a run in its setting: one for all of its runs, which may share what is compiled for it."""
        at = entry.rule, entry.setting
        if at not in self._settled:
            self._settled[at] = self._entrants[entry.rule].at(entry.setting)
        return self._settled[at]

    def _learner(self, entry: Entry, entrant: Entrant) -> Learner:
        return self._models.learner(self._begun(entry.seed), entrant, entry.lr, self._rows.sight(entry.seed))

    def _begun(self, seed: int) -> Any:
        """A model with its weights, which are as many as those of the others."""
        model = self._models.begun(self._make(seed), seed)
        refuse_other_shapes(self._make, self._shapes, self._models.arrays(model), seed)
        return model

    def _begin(self, learner: Learner, seed: int) -> Losses:
        parts = self._rows.parts(seed)
        return Losses(learner.evaluate(parts.train)[0], *learner.evaluate(parts.valid))

    def _epoch(self, learner: Learner, entry: Entry, epoch: int) -> Losses:
        size = batch_size_of(entry.setting)
        loss = learner.epoch(self._rows.batches(entry.seed, epoch, size), self._factors(size, epoch))
        return Losses(loss, *learner.evaluate(self._rows.parts(entry.seed).valid))

    def _factors(self, batch_size: int | None, epoch: int) -> NDArray[np.float64] | None:
        """What the learning rate is multiplied by at each step of an epoch; None: nothing."""
        if self._schedule.constant:
            return None
        steps = self._rows.steps_with(batch_size)
        return self._table(self.examples.epochs * steps)[(epoch - 1) * steps : epoch * steps]

    def _seen(self, entry: Entry, epoch: int, learner: Learner) -> list[Snapshot]:
        """A snapshot of a run, if somebody wants it; what its rule remembers stays with the framework's optimizer."""
        if not entry.observed:
            return []
        steps = self._rows.steps_with(batch_size_of(entry.setting))
        return [Snapshot(entry, epoch, learner.weights(), {}, {}, epoch * steps)]
