"""A heat: many runs of one rule in one compiled program, an epoch at a time.

The program has a fixed number of lanes, and every lane trains its own run: own weights, states, step number, seed and
learning rate. After each epoch a lane whose run is finished, or has diverged, takes the next run; so no time goes into
runs that are lost, and all runs of a rule, whenever they are asked for, share one compilation.

Shared luck: the initial weights, the split of the rows and the order of batches follow from the seed alone
(`Network.initial`, `Luck`, `batch_order`). What a run does depends on its rule, learning rate and seed, not on its lane
or on its neighbours.

All rows are in memory once, not scaled by any split. A lane knows its rows by their numbers, and scales a batch when it
takes it: so as many splits as there are lanes cost hardly more than one.
"""

from __future__ import annotations

import functools
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

from downslope.interpret import interpret
from downslope.lab.columns import Columns, Scaling
from downslope.lab.network import Network, Weights
from downslope.lab.results import Phase, Run
from downslope.trace import Program, trace

if TYPE_CHECKING:
    from downslope.formula import Rule
    from downslope.lab.problems import Parts, Problem

DIVERGENCE_FACTOR = 1000.0
"""A run has diverged when a loss is this many times that of the untrained network. No run observed ever came back from
there in the epochs of a race, but one may take all of them to overflow 32-bit floats."""

CACHE_BYTES = 2**20
"""What the lanes of a heat may touch in one step: the second-level cache of a present-day core, more or less. Few lanes
pay for the overhead of each operation, many for trips to memory; the optimum between is flat."""

LANES = (4, 64)  # with more, the last runs of a race find most lanes empty

CACHED_ORDER_BYTES = 64 * 2**20
CACHED_SPLIT_BYTES = 64 * 2**20

MOST_EVALUATED = 2048
"""Rows of a lane that are evaluated at a time."""

SEEDS_PER_RACE = 1_000_000
"""Race number n has the seeds from n million on; the last six digits of a seed are the number of its split."""

ONE_CORE = {"xla_cpu_multi_thread_eigen": False}  # the other cores have heats of their own


@dataclass(frozen=True)
class Entry:
    """A run that is to be trained."""

    rule: str
    lr: float
    seed: int
    phase: Phase = "tuning"


@dataclass(frozen=True)
class Progress:
    """One epoch of one heat: what the engine reports while it trains.

    Attributes:
        rule: The rule of the heat.
        epochs: How many runs were trained for an epoch.
        skipped: How many epochs will not be trained because their runs diverged.
        finished: The runs that ended with this epoch.
    """

    rule: str
    epochs: int
    skipped: int
    finished: tuple[Run, ...]


class Lanes(NamedTuple):
    """The runs of a heat, stacked: every array has the lane as its first axis."""

    weights: Weights
    states: dict[str, Weights]
    scalars: dict[str, Any]  # the scalar states
    t: Any  # steps taken


def batch_order(seed: int, epoch: int, rows: int, batch_size: int) -> NDArray[np.int32]:
    """Which rows form the batches of an epoch: a shuffle of all rows, cut into full batches.

    What is left over after the last full batch sits out this epoch, so that all steps are alike; with fewer rows than
    one batch, all of them form the only batch.

    Args:
        seed: The seed of the run.
        epoch: The epoch, from 1.
        rows: The number of training rows.
        batch_size: Rows per step.

    Returns:
        Row numbers, shape `(steps, rows per step)`.

    Example:
        >>> batch_order(seed=0, epoch=1, rows=7, batch_size=3).shape
        (2, 3)
    """
    batch_size = min(batch_size, rows)
    steps = rows // batch_size
    order = np.random.default_rng((seed, epoch)).permutation(rows)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


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


class Losses(NamedTuple):
    """One entry of the curves of a run."""

    train: float
    valid: float
    accuracy: float


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


class Evaluation(NamedTuple):
    """Mean loss and accuracy of every lane on some rows."""

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]


class Rows(NamedTuple):
    """Which rows every lane is evaluated on, in chunks of equal length; what is not present is padding."""

    total: int
    chunks: list[tuple[NDArray[np.int32], NDArray[np.bool_]]]  # row numbers `(lanes, rows)`, present `(rows,)`


class Scales(NamedTuple):
    """What each lane does to the rows it takes, as `Scaling` says; None where nothing is to be done."""

    x: tuple[Any, ...] | None  # shift, factor and, where values are missing, fill: each of shape `(lanes, features)`
    y: tuple[Any, ...] | None


class Luck(NamedTuple):
    """What a seed decides besides weights and batches."""

    parts: Parts
    x: Scaling | None
    y: Scaling | None


class Ground:
    """What all heats of a problem stand on: data, seeds and evaluation."""

    def __init__(self, problem: Problem, lanes: int | None, split_seed: int, varied: bool):
        self.problem = problem
        self.split_seed, self.varied = split_seed, varied
        self.network = Network.of(problem)
        self.device = jax.devices("cpu")[0]  # networks this small leave a GPU idle
        self.lock = threading.Lock()
        y = problem.targets.values if isinstance(problem.targets, Columns) else problem.targets
        self.x, self.y = (jax.device_put(a, self.device) for a in (problem.columns.values, y))
        self.gaps = bool(np.isnan(problem.columns.values).any())
        self._lucks = functools.lru_cache(max(4, CACHED_SPLIT_BYTES // (4 * len(y))))(self._luck)
        first = self.luck(0).parts
        rows = len(first.train)
        self.batch_size = min(problem.batch_size, rows)
        self.steps = rows // self.batch_size
        self.lanes = lanes or _usual_lanes(self.network, self.batch_size)
        pieces = -(-len(first.valid) // MOST_EVALUATED)
        self.piece = -(-len(first.valid) // pieces)
        kept = max(8, CACHED_ORDER_BYTES // (4 * rows))
        self.order = functools.lru_cache(kept)(self._order)
        self._known: dict[int, Losses] = {}

    def luck(self, seed: int) -> Luck:
        """The split of a seed, and what its training rows say about scaling."""
        return self._lucks(seed % SEEDS_PER_RACE if self.varied else 0)

    def _luck(self, number: int) -> Luck:
        problem = self.problem
        parts = problem.split(self.split_seed, number)
        targets = problem.targets if isinstance(problem.targets, Columns) else None
        x, y = (
            None if columns is None or set(columns.kinds) <= {"ready"} else columns.scaling(parts.train)
            for columns in (problem.columns, targets)
        )
        return Luck(parts, x, y)

    def _order(self, seed: int, epoch: int) -> NDArray[np.int32]:
        train = self.luck(seed).parts.train
        return train[batch_order(seed, epoch, len(train), self.batch_size)]

    def scales(self, seeds: Sequence[int]) -> Scales:
        """What is done to the rows of lanes with these seeds."""
        lucks = [self.luck(seed) for seed in seeds]
        return Scales(_stacked([luck.x for luck in lucks], self.gaps), _stacked([luck.y for luck in lucks], False))

    def valid_rows(self, seeds: Sequence[int]) -> Rows:
        """The validation rows of lanes with these seeds."""
        return self._rows([self.luck(seed).parts.valid for seed in seeds])

    @functools.cached_property
    def test(self) -> Rows:
        """The test rows, which are the same for all seeds, and which most heats never touch."""
        return self._rows([self.problem.test_rows] * self.lanes)

    def _rows(self, lanes: Sequence[NDArray[np.int32]]) -> Rows:
        """The rows of each lane, cut into pieces of equal length, so that one program evaluates them all."""
        total = len(lanes[0])
        numbers = np.stack(lanes)
        numbers = np.pad(numbers, ((0, 0), (0, -total % self.piece)))
        starts = range(0, total, self.piece)
        return Rows(
            total,
            [(numbers[:, s : s + self.piece], np.arange(s, s + self.piece) < total) for s in starts],
        )

    @functools.cached_property
    def _evaluate(self) -> Callable[..., Any]:
        def evaluate(weights: Weights, scales: Scales, rows: Any, present: Any, x: Any, y: Any) -> Any:
            batch, goal = taken(rows, scales, x, y)
            outputs = self.network.outputs(weights, batch)
            loss = jnp.where(present, self.network.losses(outputs, goal), 0.0).sum()
            hits = jnp.where(present, self.network.hits(outputs, goal), 0.0).sum()
            return loss, hits

        return jax.jit(jax.vmap(evaluate, in_axes=(0, 0, 0, None, None, None)), compiler_options=ONE_CORE)

    def evaluate(self, weights: Weights, scales: Scales, rows: Rows) -> Evaluation:
        """Evaluate all lanes on rows of theirs; `weights` have the lane as their first axis."""
        found = [self._evaluate(weights, scales, *chunk, self.x, self.y) for chunk in rows.chunks]
        loss, hits = (np.sum([np.asarray(f[k], np.float64) for f in found], axis=0) for k in (0, 1))
        return Evaluation(loss / rows.total, hits / rows.total)

    def starts(self, seeds: Sequence[int]) -> Mapping[int, Losses]:
        """The losses of the untrained networks of these seeds."""
        with self.lock:
            new = [seed for seed in dict.fromkeys(seeds) if seed not in self._known]
            for first in range(0, len(new), self.lanes):
                group = new[first : first + self.lanes]
                filled = group + [group[0]] * (self.lanes - len(group))
                stacked = jax.tree.map(lambda *a: np.stack(a), *[self.network.initial(seed) for seed in filled])
                weights = jax.device_put(stacked, self.device)  # as in an epoch: else it would compile once more
                scales = self.scales(filled)
                train = self.evaluate(weights, scales, self._rows([self.luck(seed).parts.train for seed in filled]))
                valid = self.evaluate(weights, scales, self.valid_rows(filled))
                for lane, seed in enumerate(group):
                    losses = (train.loss[lane], valid.loss[lane], valid.accuracy[lane])
                    self._known[seed] = Losses(*(float(value) for value in losses))
            return self._known


def taken(rows: Any, scales: Scales, x: Any, y: Any) -> tuple[Any, Any]:
    """Some rows of all, scaled as the lane does it."""

    def take(values: Any, scale: tuple[Any, ...] | None) -> Any:
        found = values.at[rows].get(mode="promise_in_bounds")
        if scale is None:
            return found
        shift, factor, *fill = scale
        scaled = (found - shift) * factor
        return jnp.where(jnp.isnan(found), fill[0], scaled) if fill else scaled

    return take(x, scales.x), take(y, scales.y)


def _stacked(scalings: Sequence[Scaling | None], gaps: bool) -> tuple[NDArray[np.float32], ...] | None:
    known = [one for one in scalings if one is not None]
    if not known:
        return None
    names = ("shift", "factor", "fill")[: 3 if gaps else 2]
    return tuple(np.stack([getattr(one, name) for one in known]).astype(np.float32) for name in names)


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
    program = trace(rule, **{name: value for name, value in checked.items() if name in rule.flags})
    scalars = {**program.hyperparameters, **{k: v for k, v in checked.items() if k not in rule.flags}}
    del scalars["lr"]
    if missing := [name for name, value in scalars.items() if value is None]:
        raise ValueError(f"{rule.name} needs a value for {missing}; give hyperparameters={{{rule.name!r}: ...}}")
    return program, {name: float(value) for name, value in scalars.items() if value is not None}


def _usual_lanes(network: Network, batch_size: int) -> int:
    """As many lanes as fit the cache: weights, gradient and two states, the batch, and what backward needs of it."""
    numbers = 4 * network.size + batch_size * (network.sizes[0] + 3 * sum(network.sizes[1:]))
    return int(np.clip(CACHE_BYTES // (4 * numbers), *LANES))
