"""Runs of one rule in one setting on models of the user's own in PyTorch, trained as one stack."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.apart import Apart
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.model_rows import ModelRows
from downslope.lab.engines.protocol import Entry, Progress, Snapshot, batch_size_of, priced
from downslope.lab.engines.recorder import Losses, Recorder
from downslope.lab.engines.torch_learner import TorchLearner, TorchModels
from downslope.lab.engines.torch_stack import TorchStack


class StackedRuns:
    """Some runs of one rule in one setting.

    Args:
        models: What is known of their modules.
        rows: What they see.
        entrant: The rule in this setting.
        entries: The runs.
        epochs: The epochs of a run.
        factors: What learning rates are multiplied by at each step of an epoch; None: nothing.
        quiet: Whether what models print is held back.

    Attributes:
        alive: Those that have not ended.
    """

    def __init__(
        self,
        models: TorchModels,
        rows: ModelRows,
        entrant: Entrant,
        entries: Sequence[Entry],
        *,
        epochs: int,
        factors: Callable[[int], NDArray[np.float64] | None],
        quiet: bool,
    ):
        self.models, self.rows, self.entrant, self.entries = models, rows, entrant, entries
        self.epochs, self.factors = epochs, factors
        self.batch_size = batch_size_of(entries[0].setting)
        self.alive = [Recorder(entry, []) for entry in entries]
        self._aparts = [Apart(entry.seed, quiet=quiet) for entry in entries]

    def train(self, begin: Callable[[Entry], TorchLearner], clock: Callable[[], float]) -> Iterator[Progress]:
        """Train them, and report after every epoch.

        Args:
            begin: Makes a run before its first step.
            clock: Gives seconds.

        Raises:
            RunError: Something was raised, by whichever run.
        """
        start = clock()
        apart = self._aparts[0]
        begun = [
            one.call(functools.partial(begin, entry)) for one, entry in zip(self._aparts, self.entries, strict=True)
        ]
        rates = [entry.lr for entry in self.entries]
        stack = apart.call(lambda: TorchStack(self.models, begun, self.entrant, rates))
        apart.call(lambda: self._begin(stack))
        trained = 0
        while True:
            over = [one.diverged_at is not None or one.epochs == self.epochs for one in self.alive]
            ended = [one for one, its in zip(self.alive, over, strict=True) if its]
            tested = apart.call(lambda: self._tested(stack)) if ended else None
            runs = tuple(self._run(one, tested, lane) for lane, one in enumerate(self.alive) if over[lane])
            snapshots = self._seen(stack)
            seconds = clock() - start
            start += seconds
            kept = [lane for lane, its in enumerate(over) if not its]
            self.alive = [self.alive[lane] for lane in kept]
            skipped = sum(self.epochs - one.epochs for one in ended)
            heard = tuple(found for one in self.alive for found in one.news())
            rule, kind = self.entries[0].rule, priced(self.entries[0].setting)
            yield Progress(rule, trained, skipped, runs, seconds, snapshots, heard=heard, setting=kind)
            if not self.alive:
                return
            if len(kept) < len(over):
                stack.keep(kept)
            apart.call(functools.partial(self._epoch, stack))
            trained = len(self.alive)

    def _of(self, part: int) -> NDArray[np.int32]:
        """The rows of one part of the data for each run, shape `(runs, rows)`."""
        return np.stack([self.rows.parts(one.entry.seed)[part] for one in self.alive])

    def _begin(self, stack: TorchStack) -> None:
        """Record the losses before the first step."""
        train, _ = stack.evaluate(self._of(0))
        for one, *found in zip(self.alive, train, *stack.evaluate(self._of(1)), strict=True):
            one.add(Losses(*map(float, found)))
            one.diverged_at = None if one.starts_finite else 0

    def _epoch(self, stack: TorchStack) -> None:
        """Train for an epoch, and record it."""
        epoch = self.alive[0].epochs + 1
        batches = np.stack([self.rows.batches(one.entry.seed, epoch, self.batch_size) for one in self.alive])
        losses = stack.epoch(batches, self.factors(epoch))
        finite = stack.finite()
        valid = stack.evaluate(self._of(1))
        for one, holds, *found in zip(self.alive, finite, losses, *valid, strict=True):
            one.add(Losses(*map(float, found)))
            if one.has_run_away or not holds:
                one.diverged_at = epoch

    def _seen(self, stack: TorchStack) -> tuple[Snapshot, ...]:
        """Snapshots of those runs that somebody wants to see."""
        steps = self.rows.steps_with(self.batch_size)
        return tuple(
            Snapshot(one.entry, one.epochs, stack.weights_of(lane), {}, {}, one.epochs * steps)
            for lane, one in enumerate(self.alive)
            if one.entry.observed
        )

    def _tested(self, stack: TorchStack) -> Any:
        """Loss and accuracy of each run on its test rows; None where none of them is to be looked at."""
        judged = any(one.entry.phase == "verdict" and one.diverged_at is None for one in self.alive)
        return np.stack(stack.evaluate(self._of(2)), axis=1) if judged and self.alive[0].epochs == self.epochs else None

    def _run(self, one: Recorder, tested: Any, lane: int) -> Any:
        """A run as it ended."""
        test = None
        if one.entry.phase == "verdict":
            lost = one.diverged_at is not None or tested is None
            test = (math.inf, 0.0) if lost else (float(tested[lane, 0]), float(tested[lane, 1]))
        return one.run(self.epochs, self.models.loss == "cross-entropy", test)
