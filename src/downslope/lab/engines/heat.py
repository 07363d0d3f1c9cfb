"""A heat: many runs of one rule in one compiled program, an epoch at a time.

The program has a fixed number of lanes, and every lane trains its own run: own weights, states, step number, seed and
learning rate. After each epoch a lane whose run is finished, or has diverged, takes the next run; so no time goes into
runs that are lost, and all runs of a rule, whenever they are asked for, share one compilation.

What a run does depends on its rule, learning rate and seed, not on its lane or on its neighbours.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from downslope.lab.engines.ground import ONE_CORE, Ground, Losses, Scales, taken
from downslope.lab.engines.network import Weights
from downslope.lab.engines.protocol import DIVERGENCE_FACTOR, Entry, Progress, Run
from downslope.language.program import Program
from downslope.targets.arrays import interpret
from downslope.training.settings import Settings

if TYPE_CHECKING:
    from downslope.rule import Rule


class Lanes(NamedTuple):
    """The runs of a heat, stacked: every array has the lane as its first axis."""

    weights: Weights
    states: dict[str, Weights]
    scalars: dict[str, Any]  # the scalar states
    t: Any  # steps taken


class Heat:
    """The lanes of one rule.

    Args:
        trainer: The rule's compiled epoch.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.ground = trainer.ground
        self.tapes: list[_Tape | None] = [None] * self.ground.lanes
        self.seeds = [0] * self.ground.lanes  # of the run that each lane has, or had last
        self.lr = np.zeros(self.ground.lanes, np.float32)
        self.rows, self.scales = self.ground.valid_rows(self.seeds), self.ground.scales(self.seeds)
        self.lanes: Lanes = jax.tree.map(lambda a: np.stack([a] * self.ground.lanes), trainer.lane(seed=0, lr=1.0))

    def train(self, take: Callable[[], Entry | None]) -> Iterator[Progress]:
        """Train what `take` hands out until it has nothing left and every lane is done, an epoch at a time."""
        while True:
            stillborn = self._fill(take)
            if stillborn:
                yield Progress(self.trainer.rule.name, 0, self.ground.problem.epochs * len(stillborn), stillborn)
            elif any(self.tapes):
                yield self._epoch()
            else:
                return

    def _fill(self, take: Callable[[], Entry | None]) -> tuple[Run, ...]:
        """Give every idle lane a run, as long as there are any; those that are lost before the first step."""
        idle = [lane for lane, tape in enumerate(self.tapes) if tape is None]
        entries = list(zip(idle, iter(take, None), strict=False))
        if entries:
            starts = self.ground.starts([entry.seed for _, entry in entries])
            self.lanes = jax.tree.map(np.array, self.lanes)
            for lane, entry in entries:
                self.tapes[lane] = _Tape(entry, [starts[entry.seed]])
                self.seeds[lane] = entry.seed
                self.lr[lane] = entry.lr
                fresh = self.trainer.lane(entry.seed, entry.lr)
                for array, value in zip(jax.tree.leaves(self.lanes), jax.tree.leaves(fresh), strict=True):
                    array[lane] = value
            self.rows, self.scales = self.ground.valid_rows(self.seeds), self.ground.scales(self.seeds)
        lost: list[tuple[int, _Tape]] = []
        for lane, tape in enumerate(self.tapes):
            if tape is not None and tape.epochs == 0 and not tape.sound:
                tape.diverged_at = 0
                self.tapes[lane] = None
                lost.append((lane, tape))
        return self._runs(lost)

    def _epoch(self) -> Progress:
        ground = self.ground
        nothing = np.zeros((ground.steps, ground.batch_size), np.int32)
        orders = [nothing if tape is None else ground.order(tape.entry.seed, tape.epochs + 1) for tape in self.tapes]
        self.lanes, train_loss = self.trainer.epoch(self.lanes, np.stack(orders, axis=1), self.lr, self.scales)
        valid = ground.evaluate(self.lanes.weights, self.scales, self.rows)
        train_loss = np.asarray(train_loss)
        # Losses alone may not show it: the maximum of a ReLU need not pass on what is not a number.
        finite = [np.isfinite(w).reshape(ground.lanes, -1).all(axis=1) for w in map(np.asarray, self.lanes.weights)]
        ended: list[tuple[int, _Tape]] = []
        epochs = 0
        for lane, tape in enumerate(self.tapes):
            if tape is not None:
                epochs += 1
                tape.add(Losses(float(train_loss[lane]), float(valid.loss[lane]), float(valid.accuracy[lane])))
                if tape.runaway or not all(array[lane] for array in finite):
                    tape.diverged_at = tape.epochs
                if tape.diverged_at is not None or tape.epochs == ground.problem.epochs:
                    ended.append((lane, tape))
                    self.tapes[lane] = None
        skipped = sum(ground.problem.epochs - tape.epochs for _, tape in ended)
        return Progress(self.trainer.rule.name, epochs, skipped, self._runs(ended))

    def _runs(self, ended: Sequence[tuple[int, _Tape]]) -> tuple[Run, ...]:
        ground = self.ground
        test = None
        if any(tape.entry.phase == "verdict" for _, tape in ended):
            test = ground.evaluate(self.lanes.weights, self.scales, ground.test)
        runs = []
        for lane, tape in ended:
            seen = None
            if test is not None and tape.entry.phase == "verdict":
                lost = tape.diverged_at is not None
                seen = (math.inf, 0.0) if lost else (float(test.loss[lane]), float(test.accuracy[lane]))
            runs.append(tape.run(ground.problem.epochs, ground.network.task == "classification", seen))
        return tuple(runs)


@dataclass
class _Tape:
    """What has been recorded of a run that is being trained."""

    entry: Entry
    curve: list[Losses]  # the first is that of the untrained network
    diverged_at: int | None = None

    @property
    def epochs(self) -> int:
        return len(self.curve) - 1

    @property
    def sound(self) -> bool:
        """Whether the untrained network has losses at all."""
        return math.isfinite(self.curve[0].train) and math.isfinite(self.curve[0].valid)

    @property
    def runaway(self) -> bool:
        start, now = self.curve[0], self.curve[-1]
        bounded = now.train <= DIVERGENCE_FACTOR * start.train and now.valid <= DIVERGENCE_FACTOR * start.valid
        return not bounded  # also where a loss is nan

    def add(self, losses: Losses) -> None:
        self.curve.append(losses)

    def run(self, epochs: int, has_accuracy: bool, test: tuple[float, float] | None) -> Run:
        curve = list(self.curve)
        if self.diverged_at is not None:
            curve[self.diverged_at :] = [Losses(math.inf, math.inf, 0.0)] * (epochs + 1 - self.diverged_at)
        return Run(
            rule=self.entry.rule,
            lr=self.entry.lr,
            seed=self.entry.seed,
            phase=self.entry.phase,
            train_loss=tuple(losses.train for losses in curve),
            valid_loss=tuple(losses.valid for losses in curve),
            valid_accuracy=tuple(losses.accuracy for losses in curve) if has_accuracy else None,
            diverged_at=self.diverged_at,
            test_loss=None if test is None else test[0],
            test_accuracy=None if test is None or not has_accuracy else test[1],
        )


class Trainer:
    """A rule on a problem: the program that trains all lanes for an epoch, compiled when it is first needed."""

    def __init__(self, ground: Ground, rule: Rule, settings: Mapping[str, float | bool]):
        self.ground = ground
        self.rule = rule
        self.program, self.scalars = _settle(rule, settings)
        self.lock = threading.Lock()
        self._compiled: Any = None

    def lane(self, seed: int, lr: float) -> Lanes:
        """A single lane before the first step."""
        weights = self.ground.network.initial(seed)
        settings = {**self.scalars, "lr": lr}  # from which a state may start too
        starts = {name: self.program.initial(name, settings) for name in self.program.states}
        states = {
            name: tuple(w.copy() if start is None else np.full_like(w, start) for w in weights)
            for name, start in starts.items()
        }
        scalars = {name: np.float32(start) for name, start in self.program.scalar_states.items()}
        return Lanes(weights, states, scalars, np.float32(0))

    def epoch(
        self, lanes: Lanes, order: NDArray[np.int32], lr: NDArray[np.float32], scales: Scales
    ) -> tuple[Lanes, Any]:
        """Train all lanes for an epoch.

        Args:
            lanes: The lanes; their buffers are used up.
            order: Row numbers, shape `(steps, lanes, batch)`.
            lr: The learning rate of each lane.
            scales: What each lane does to its rows.

        Returns:
            The lanes, and the mean over the epoch's batches of each lane's loss, taken where the gradient is.
        """
        args = (lanes, order, lr, scales, self.ground.x, self.ground.y)
        with self.lock:
            if self._compiled is None:
                program = jax.jit(self._epoch, donate_argnums=0, compiler_options=ONE_CORE)
                self._compiled = program.lower(*args).compile()
        lanes, losses = self._compiled(*args)
        return lanes, losses

    def _epoch(self, lanes: Lanes, order: Any, lr: Any, scales: Scales, x: Any, y: Any) -> tuple[Lanes, Any]:
        def step(lanes: Lanes, rows: Any) -> tuple[Lanes, Any]:
            return jax.vmap(self._step, in_axes=(0, 0, 0, 0, None, None))(lanes, rows, lr, scales, x, y)

        lanes, losses = lax.scan(step, lanes, order)
        return lanes, losses.mean(axis=0)

    def _step(self, lane: Lanes, rows: Any, lr: Any, scales: Scales, x: Any, y: Any) -> tuple[Lanes, Any]:
        t = lane.t + 1
        scalars = {**self.scalars, "lr": lr, "t": t, **lane.scalars}
        states = [{name: arrays[k] for name, arrays in lane.states.items()} for k in range(len(lane.weights))]
        point = lane.weights
        if self.program.lookahead is not None:
            ahead = [{"x": w, **s} for w, s in zip(point, states, strict=True)]
            point = tuple(interpret(self.program.lookahead, arrays, scalars, jnp)["x"] for arrays in ahead)
        batch = taken(rows, scales, x, y)
        loss, gradient = jax.value_and_grad(self.ground.network.loss)(point, *batch)
        new = [
            interpret(self.program, {"x": w, "dx": dx, **s}, scalars, jnp)
            for w, dx, s in zip(lane.weights, gradient, states, strict=True)
        ]
        return Lanes(
            weights=tuple(result["x"] for result in new),
            states={name: tuple(result[name] for result in new) for name in lane.states},
            scalars={name: jnp.asarray(new[0][name], jnp.float32) for name in lane.scalars},
            t=t,
        ), loss


def _settle(rule: Rule, settings: Mapping[str, float | bool]) -> tuple[Program, dict[str, float]]:
    """The program of a rule and the values of its hyperparameters other than the learning rate."""
    if "lr" not in rule.hyperparameters:
        raise ValueError(f"{rule.name} has no hyperparameter named lr; a race compares learning rates")
    if "lr" in settings:
        raise ValueError(f"hyperparameters of {rule.name}: lr is what the race tunes; give learning_rates instead")
    try:
        checked = {name: rule.checked(name, value) for name, value in settings.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"hyperparameters of {rule.name}: {error}") from None
    program = Settings.of(rule, {name: value for name, value in checked.items() if name in rule.flags}).program
    scalars = {**program.hyperparameters, **{k: v for k, v in checked.items() if k not in rule.flags}}
    del scalars["lr"]
    if missing := [name for name, value in scalars.items() if value is None]:
        raise ValueError(f"{rule.name} needs a value for {missing}; give hyperparameters={{{rule.name!r}: ...}}")
    return program, {name: float(value) for name, value in scalars.items() if value is not None}
