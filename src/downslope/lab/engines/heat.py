"""A heat: many runs of one rule in one compiled program, an epoch at a time.

The program has a fixed number of lanes, and every lane trains its own run: own weights, states, step number, seed,
learning rate, and what else a grid varies that is a number of the formula. After each epoch a lane whose run is
finished, or has diverged, takes the next run; so no time goes into runs that are lost, and all runs of a rule, whenever
they are asked for, share one compilation.

What a run does depends on its rule, learning rate, setting and seed, not on its lane or on its neighbours.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from downslope.lab.engines.data import Scales, taken
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.evaluator import ONE_CORE, Evaluator
from downslope.lab.engines.parts import parts_of, step_together
from downslope.lab.engines.protocol import Entry, Progress, Run, Setting, Snapshot, batch_size_of
from downslope.lab.engines.recorder import Losses, Recorder
from downslope.lab.engines.schedule import CONSTANT, Schedule
from downslope.lab.problems.model import Weights, mean_loss


class Lanes(NamedTuple):
    """The runs of a heat, stacked: every array has the lane as its first axis."""

    weights: Weights
    states: dict[str, tuple[Any, ...]]  # for each of the weights; None where its rule has no state of that name
    scalars: dict[str, Any]  # the scalar states
    t: Any  # steps taken


class Heat:
    """The lanes of one rule.

    Args:
        trainer: The rule's compiled epoch.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.evaluator = trainer.evaluator
        self.data = trainer.evaluator.data
        self.epochs = self.data.problem.epochs  # of a run
        lanes = self.evaluator.lanes
        self.recorders: list[Recorder | None] = [None] * lanes
        self.seeds = [0] * lanes  # of the run that each lane has, or had last
        self.lr = np.zeros(lanes)
        self.numbers = {name: np.zeros(lanes, np.float32) for name in trainer.varied}
        self.factors = trainer.schedule.table(self.epochs * trainer.steps)
        self.rows, self.scales = self.data.valid_rows(self.seeds), self.data.scales(self.seeds)
        self.snapshots: list[Snapshot] = []  # that have not been reported yet
        self.lanes: Lanes = jax.tree.map(lambda a: np.stack([a] * lanes), trainer.lane(Entry(trainer.name, 1.0, 0)))

    def train(self, take: Callable[[], Entry | None]) -> Iterator[Progress]:
        """Train what `take` hands out until it has nothing left and every lane is done, an epoch at a time."""
        while True:
            lost = self._fill(take)
            if lost:
                yield self._told(0, self.epochs * len(lost), lost)
            elif any(self.recorders):
                yield self._epoch()
            else:
                return

    def _told(self, epochs: int, skipped: int, finished: tuple[Run, ...]) -> Progress:
        """What is reported, with the snapshots that have not been."""
        snapshots, self.snapshots = tuple(self.snapshots), []
        setting = self.trainer.setting
        return Progress(self.trainer.name, epochs, skipped, finished, snapshots=snapshots, setting=setting)

    def _observe(self, lane: int, recorder: Recorder) -> None:
        """Take a snapshot of a lane's run, if somebody wants it."""
        if recorder.entry.observed:
            weights, states, scalars, t = jax.tree.map(lambda array: np.asarray(array)[lane].copy(), self.lanes)
            numbers = {name: float(value) for name, value in scalars.items()}
            self.snapshots.append(Snapshot(recorder.entry, recorder.epochs, weights, states, numbers, int(t)))

    def _fill(self, take: Callable[[], Entry | None]) -> tuple[Run, ...]:
        """Give every idle lane a run, as long as there are any; those that are lost before the first step."""
        idle = [lane for lane, recorder in enumerate(self.recorders) if recorder is None]
        entries = list(zip(idle, iter(take, None), strict=False))
        if entries:
            untrained = self.evaluator.untrained([entry.seed for _, entry in entries])
            self.lanes = jax.tree.map(np.array, self.lanes)
            for lane, entry in entries:
                begun = self.recorders[lane] = Recorder(entry, [untrained[entry.seed]])
                self.seeds[lane] = entry.seed
                self.lr[lane] = entry.lr
                for name, values in self.numbers.items():
                    values[lane] = dict(entry.setting)[name]
                fresh = self.trainer.lane(entry)
                for array, value in zip(jax.tree.leaves(self.lanes), jax.tree.leaves(fresh), strict=True):
                    array[lane] = value
                self._observe(lane, begun)
            self.rows, self.scales = self.data.valid_rows(self.seeds), self.data.scales(self.seeds)
        lost: list[tuple[int, Recorder]] = []
        for lane, recorder in enumerate(self.recorders):
            if recorder is not None and recorder.epochs == 0 and not recorder.starts_finite:
                recorder.diverged_at = 0
                self.recorders[lane] = None
                lost.append((lane, recorder))
        return self._runs(lost)

    def _epoch(self) -> Progress:
        evaluator, steps, size = self.evaluator, self.trainer.steps, self.trainer.batch_size
        nothing = np.zeros((steps, size), np.int32)
        orders = [
            nothing if one is None else self.data.order(one.entry.seed, one.epochs + 1, size) for one in self.recorders
        ]
        done = [0 if one is None else one.epochs * steps for one in self.recorders]
        rates = np.stack([self.factors[first : first + steps] for first in done], axis=1) * self.lr
        order, lr = np.stack(orders, axis=1), rates.astype(np.float32)
        self.lanes, train_loss = self.trainer.epoch(self.lanes, order, lr, self.numbers, self.scales)
        valid = evaluator.evaluate(self.lanes.weights, self.scales, self.rows)
        train_loss = np.asarray(train_loss)
        # Losses alone may not show it: the maximum of a ReLU need not pass on what is not a number.
        finite = [np.isfinite(w).reshape(evaluator.lanes, -1).all(axis=1) for w in map(np.asarray, self.lanes.weights)]
        ended: list[tuple[int, Recorder]] = []
        epochs = 0
        for lane, recorder in enumerate(self.recorders):
            if recorder is not None:
                epochs += 1
                recorder.add(Losses(float(train_loss[lane]), float(valid.loss[lane]), float(valid.accuracy[lane])))
                self._observe(lane, recorder)
                if recorder.has_run_away or not all(array[lane] for array in finite):
                    recorder.diverged_at = recorder.epochs
                if recorder.diverged_at is not None or recorder.epochs == self.epochs:
                    ended.append((lane, recorder))
                    self.recorders[lane] = None
        skipped = sum(self.epochs - recorder.epochs for _, recorder in ended)
        heard = tuple(one for recorder in self.recorders if recorder is not None for one in recorder.news())
        return replace(self._told(epochs, skipped, self._runs(ended)), heard=heard)

    def _runs(self, ended: Sequence[tuple[int, Recorder]]) -> tuple[Run, ...]:
        test = None
        if len(self.data.problem.test_rows) and any(recorder.entry.phase == "verdict" for _, recorder in ended):
            test = self.evaluator.evaluate(self.lanes.weights, self.scales, self.evaluator.test_rows)
        runs = []
        for lane, recorder in ended:
            seen = None
            if test is not None and recorder.entry.phase == "verdict":
                lost = recorder.diverged_at is not None
                seen = (math.inf, 0.0) if lost else (float(test.loss[lane]), float(test.accuracy[lane]))
            runs.append(recorder.run(self.epochs, self.evaluator.model.accurate, seen))
        return tuple(runs)


class Trainer:
    """A rule on a problem: the program that trains all lanes for an epoch, compiled when it is first needed.

    Args:
        evaluator: The model, its data and the number of lanes.
        name: What the rule is called in this race.
        entrant: Its formula and its hyperparameters other than the learning rate.
        schedule: How the learning rate changes in a run.
        varied: Those of its hyperparameters that every lane has a value of its own of, in single precision.
        setting: What all runs have of a grid besides: see `priced`.

    Attributes:
        batch_size: Rows per step.
        steps: Steps per epoch.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        name: str,
        entrant: Entrant,
        schedule: Schedule = CONSTANT,
        *,
        varied: Sequence[str] = (),
        setting: Setting = (),
    ):
        self.evaluator, self.name, self.schedule, self.varied = evaluator, name, schedule, varied
        self.setting = setting
        self.parts = parts_of(entrant, evaluator.model)
        self.batch_size, self.steps = evaluator.data.in_batches(batch_size_of(setting))
        self.lock = threading.Lock()
        self._compiled: Any = None

    def lane(self, entry: Entry) -> Lanes:
        """A single lane before the first step."""
        weights = self.evaluator.model.initial(entry.seed)
        parts = self.parts[: len(weights)]
        varied = {name: value for name, value in entry.setting if name in self.varied}
        begun = [part.begin(w, part.numbers(entry.lr, varied)) for part, w in zip(parts, weights, strict=True)]
        names = dict.fromkeys(name for states in begun for name in states)
        scalars = {name: np.float32(start) for part in parts for name, start in part.program.scalar_states.items()}
        states = {name: tuple(one.get(name) for one in begun) for name in names}
        return Lanes(weights, states, scalars, np.float32(0))

    def epoch(
        self,
        lanes: Lanes,
        order: NDArray[np.int32],
        lr: NDArray[np.float32],
        numbers: dict[str, NDArray[np.float32]],
        scales: Scales,
    ) -> tuple[Lanes, Any]:
        """Train all lanes for an epoch.

        Args:
            lanes: The lanes; their buffers are used up.
            order: Row numbers, shape `(steps, lanes, batch)`.
            lr: The learning rate of each lane at each step, shape `(steps, lanes)`.
            numbers: Each lane's value of those hyperparameters that are varied, shape `(lanes,)`.
            scales: What each lane does to its rows.

        Returns:
            The lanes, and the mean over the epoch's batches of each lane's loss, taken where the gradient is.
        """
        args = (lanes, order, lr, numbers, scales, self.evaluator.data.x, self.evaluator.data.y)
        with self.lock:
            if self._compiled is None:
                program = jax.jit(self._epoch, donate_argnums=0, compiler_options=ONE_CORE)
                self._compiled = program.lower(*args).compile()
        lanes, losses = self._compiled(*args)
        return lanes, losses

    def _epoch(
        self, lanes: Lanes, order: Any, lr: Any, numbers: dict[str, Any], scales: Scales, x: Any, y: Any
    ) -> tuple[Lanes, Any]:
        def step(lanes: Lanes, now: tuple[Any, Any]) -> tuple[Lanes, Any]:
            return jax.vmap(self._step, in_axes=(0, 0, 0, 0, 0, None, None))(lanes, *now, numbers, scales, x, y)

        lanes, losses = lax.scan(step, lanes, (order, lr))
        return lanes, losses.mean(axis=0)

    def _step(
        self, lane: Lanes, rows: Any, lr: Any, numbers: dict[str, Any], scales: Scales, x: Any, y: Any
    ) -> tuple[Lanes, Any]:
        t = lane.t + 1
        scalars = {"t": t, **lane.scalars}
        here = [
            {"x": w, **{name: arrays[k] for name, arrays in lane.states.items() if arrays[k] is not None}}
            for k, w in enumerate(lane.weights)
        ]
        of = [(part, {**part.numbers(lr, numbers), **scalars}) for part in self.parts]
        point = tuple(part.ahead(arrays, its) for (part, its), arrays in zip(of, here, strict=True))
        batch = taken(rows, scales, x, y)
        loss, gradient = jax.value_and_grad(partial(mean_loss, self.evaluator.model))(point, *batch)
        new = step_together(of, [{**arrays, "dx": dx} for arrays, dx in zip(here, gradient, strict=True)])
        return Lanes(
            weights=tuple(result["x"] for result in new),
            states={name: tuple(result.get(name) for result in new) for name in lane.states},
            scalars={
                name: jnp.asarray(next(result[name] for result in new if name in result), jnp.float32)
                for name in lane.scalars
            },
            t=t,
        ), loss
