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
from downslope.lab.engines.factory import Make, look_at, try_out
from downslope.lab.engines.learner import TASKS, Learner, Loss, Sight, Stacking, check_loss
from downslope.lab.engines.order import batch_order
from downslope.lab.engines.protocol import SEEDS_PER_RACE, Description, Entrant, Entry, Progress, Run, Snapshot
from downslope.lab.engines.recorder import Losses, Recorder
from downslope.lab.problems.examples import Examples, examples_of
from downslope.lab.problems.problem import Parts, Problem

if TYPE_CHECKING:
    from downslope.lab.engines.jax_engine import JaxEngine
    from downslope.lab.engines.torch_stack import TorchStack

KEPT = 16
"""So many splits of the rows are kept."""


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
        clock: Callable[[], float] = time.perf_counter,
    ):
        check_loss(loss)
        check_limit(limit)
        usual: Loss = "cross-entropy" if examples.task == "classification" else "mse"
        self.loss = usual if loss is None else loss
        self.examples, self._make, self._entrants, self.clock = examples, make, entrants, clock
        self._split_seed, self._varied, self._limit, self._quiet = split_seed, varied, limit, quiet
        self.seconds = dict.fromkeys(entrants, 0.0)
        self.error: BaseException | None = None
        self._split = functools.lru_cache(KEPT)(lambda number: examples.split(split_seed, number))
        self._sight = functools.lru_cache(KEPT)(lambda number: Sight(*examples.prepared(self._split(number))))
        classes = examples.outputs if isinstance(examples, Problem) else examples.classes
        sample = self._sight(self.split_number(seeds[0])).x[:2]
        made = look_at(make, self.loss, classes, sample, seeds, quiet=quiet)
        self.cautions, self._models, self._network = made.cautions, made.models, made.network
        rows = self._parts(seeds[0]).train
        self._batch_size = min(examples.batch_size, len(rows))
        self._steps = len(rows) // self._batch_size
        name, entrant = next(iter(entrants.items()))
        entry = Entry(name, entrant.default_lr or entrant.lr or 1e-3, seeds[0])
        first = try_out(
            lambda: self._learner(entry, entrant), rows[: self._batch_size], self.loss, quiet=quiet, seed=seeds[0]
        )
        self._weights = sum(array.size for array in first.weights())
        self.stacking = self._whether_to_stack(entry, seeds)

    @property
    def description(self) -> Description:
        """The model, and what each run of it is."""
        return Description(self._network, self._weights, self._batch_size, self._steps, self.examples.epochs)

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
            varied=self._varied,
            clock=self.clock,
            model=network,
        )

    def split_number(self, seed: int) -> int:
        """Which split of the family the runs of a seed are trained and validated on."""
        return seed % SEEDS_PER_RACE if self._varied else 0

    def train(self, entries: Sequence[Entry]) -> Iterator[Progress]:
        """Train runs one after the other, and report after every epoch.

        Args:
            entries: The runs.

        Raises:
            ValueError: An entry names a rule that the engine does not have, or its learning rate is not positive.
        """
        for entry in entries:
            if entry.rule not in self._entrants:
                raise ValueError(f"entries: rule {entry.rule!r} is not among {', '.join(self._entrants)}")
            if not (entry.lr > 0 and math.isfinite(entry.lr)):
                raise ValueError(f"entries: learning rate {entry.lr!r} of {entry.rule}; expected a positive number")
        for group in self._groups(entries):
            if len(group) >= self.stacking.fewest:
                yield from self._stacked(group)
            else:
                for entry in group:
                    yield from self._run(entry)

    def _groups(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Runs of one rule that are trained together, as many as may be."""
        lanes = self.stacking.lanes
        if lanes == 1:
            yield from ([entry] for entry in entries)
            return
        by_rule: dict[str, list[Entry]] = {}
        for entry in entries:
            by_rule.setdefault(entry.rule, []).append(entry)
        for those in by_rule.values():
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
                    learner = apart.call(lambda: self._learner(entry, self._entrants[entry.rule]))
                    recorder.add(apart.call(functools.partial(self._begin, learner, entry.seed)))
                    if not recorder.starts_finite:
                        recorder.diverged_at = 0
                    snapshots += self._seen(entry, 0, learner)
                if recorder.diverged_at is None:
                    trained = 1
                    epoch = recorder.epochs + 1
                    recorder.add(apart.call(functools.partial(self._epoch, learner, entry.seed, epoch)))
                    weights = learner.weights()
                    snapshots += self._seen(entry, epoch, learner)
                    if recorder.has_run_away or not all(np.isfinite(array).all() for array in weights):
                        recorder.diverged_at = epoch
                over = recorder.diverged_at is not None or recorder.epochs == self.examples.epochs
                if over and entry.phase == "verdict":
                    test = (math.inf, 0.0)
                    if recorder.diverged_at is None:
                        rows = self._parts(entry.seed).test
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
            yield Progress(entry.rule, trained, skipped, finished, seconds, tuple(snapshots))

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
        rows = self._parts(entry.seed).train
        batches = rows[batch_order(entry.seed, 1, len(rows), self._batch_size)]

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
        from downslope.lab.engines.torch_learner import TorchModels
        from downslope.lab.engines.torch_stack import TorchStack

        models, entrant = self._models, self._entrants[entries[0].rule]
        assert isinstance(models, TorchModels)
        aparts = [Apart(entry.seed, quiet=self._quiet) for entry in entries]
        start = self.clock()
        alive = [Recorder(entry, []) for entry in entries]
        try:
            learners: Any = [
                apart.call(functools.partial(self._learner, entry, entrant))
                for apart, entry in zip(aparts, entries, strict=True)
            ]
            rates = [entry.lr for entry in entries]
            stack = aparts[0].call(lambda: TorchStack(models, learners, entrant, rates))
            train, valid = (
                aparts[0].call(functools.partial(stack.evaluate, self._rows(entries, part))) for part in (0, 1)
            )
            begun = (train[0], *valid)
            for recorder, losses in zip(alive, zip(*begun, strict=True), strict=True):
                recorder.add(Losses(*map(float, losses)))
                recorder.diverged_at = None if recorder.starts_finite else 0
            snapshots = self._seen_in(stack, alive)
            trained = 0
            while True:
                over = [one.diverged_at is not None or one.epochs == self.examples.epochs for one in alive]
                ended = [one for one, its in zip(alive, over, strict=True) if its]
                finished = self._finished(aparts[0], stack, alive) if any(over) else ()
                seconds = self.clock() - start
                start += seconds
                self.seconds[entries[0].rule] += seconds
                skipped = sum(self.examples.epochs - max(one.epochs, 0) for one in ended)
                done = tuple(run for run, its in zip(finished, over, strict=False) if its)
                kept = [lane for lane, its in enumerate(over) if not its]
                alive = [alive[lane] for lane in kept]
                yield Progress(entries[0].rule, trained, skipped, done, seconds, tuple(snapshots))
                if not alive:
                    return
                if len(kept) < len(over):
                    stack.keep(kept)
                aparts[0].call(functools.partial(self._stacked_epoch, stack, alive))
                snapshots, trained = self._seen_in(stack, alive), len(alive)
        except RunError:
            for one in alive:
                yield from self._run(one.entry)

    def _rows(self, entries: Sequence[Entry], part: int) -> NDArray[np.int32]:
        """The rows of one part of the data for each run, shape `(runs, rows)`."""
        return np.stack([self._parts(entry.seed)[part] for entry in entries])

    def _stacked_epoch(self, stack: TorchStack, alive: Sequence[Recorder]) -> None:
        """Train runs for an epoch, and record it."""
        entries = [one.entry for one in alive]
        epoch = alive[0].epochs + 1
        train = self._rows(entries, 0)
        orders = [batch_order(entry.seed, epoch, train.shape[1], self._batch_size) for entry in entries]
        losses = stack.epoch(np.stack([rows[order] for rows, order in zip(train, orders, strict=True)]))
        finite = stack.finite()
        valid = stack.evaluate(self._rows(entries, 1))
        for one, holds, *found in zip(alive, finite, losses, *valid, strict=True):
            one.add(Losses(*map(float, found)))
            if one.has_run_away or not holds:
                one.diverged_at = epoch

    def _seen_in(self, stack: TorchStack, alive: Sequence[Recorder]) -> list[Snapshot]:
        """Snapshots of those runs that somebody wants to see."""
        return [
            Snapshot(one.entry, one.epochs, stack.weights_of(lane), {}, {}, one.epochs * self._steps)
            for lane, one in enumerate(alive)
            if one.entry.observed
        ]

    def _finished(self, apart: Apart, stack: TorchStack, alive: Sequence[Recorder]) -> list[Run]:
        """The runs of a stack as if all had ended; the test rows are looked at for the verdict."""
        entries = [one.entry for one in alive]
        tested: Any = None
        if any(one.entry.phase == "verdict" and one.diverged_at is None for one in alive) and (
            alive[0].epochs == self.examples.epochs
        ):
            tested = np.stack(apart.call(lambda: stack.evaluate(self._rows(entries, 2))), axis=1)
        runs = []
        for lane, one in enumerate(alive):
            test = None
            if one.entry.phase == "verdict":
                lost = one.diverged_at is not None or tested is None
                test = (math.inf, 0.0) if lost else (float(tested[lane, 0]), float(tested[lane, 1]))
            runs.append(one.run(self.examples.epochs, self.loss == "cross-entropy", test))
        return runs

    def _learner(self, entry: Entry, entrant: Entrant) -> Learner:
        sight = self._sight(self.split_number(entry.seed))
        return self._models.learner(self._begun(entry.seed), entrant, entry.lr, sight)

    def _begun(self, seed: int) -> Any:
        """A model with its weights."""
        return self._models.begun(self._make(seed), seed)

    def _begin(self, learner: Learner, seed: int) -> Losses:
        parts = self._parts(seed)
        return Losses(learner.evaluate(parts.train)[0], *learner.evaluate(parts.valid))

    def _epoch(self, learner: Learner, seed: int, epoch: int) -> Losses:
        parts = self._parts(seed)
        batches = parts.train[batch_order(seed, epoch, len(parts.train), self._batch_size)]
        return Losses(learner.epoch(batches), *learner.evaluate(parts.valid))

    def _seen(self, entry: Entry, epoch: int, learner: Learner) -> list[Snapshot]:
        """A snapshot of a run, if somebody wants it; what its rule remembers stays with the framework's optimizer."""
        if not entry.observed:
            return []
        return [Snapshot(entry, epoch, learner.weights(), {}, {}, epoch * self._steps)]

    def _parts(self, seed: int) -> Parts:
        return self._split(self.split_number(seed))
