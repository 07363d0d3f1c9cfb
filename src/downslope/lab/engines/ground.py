"""What all heats of a race stand on: the rows, what a seed decides about them, and the evaluation on them.

Shared luck: the initial weights, the split of the rows and the order of batches follow from the seed alone
(`Network.initial`, `Luck`, `batch_order`).

All rows are in memory once, not scaled by any split. A lane knows its rows by their numbers, and scales a batch when it
takes it: so as many splits as there are lanes cost hardly more than one.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.network import Network, Weights
from downslope.lab.engines.protocol import SEEDS_PER_RACE
from downslope.lab.problems.columns import Columns, Scaling

if TYPE_CHECKING:
    from downslope.lab.problems.problem import Parts, Problem

CACHE_BYTES = 2**20
"""What the lanes of a heat may touch in one step: the second-level cache of a present-day core, more or less. Few lanes
pay for the overhead of each operation, many for trips to memory; the optimum between is flat."""

LANES = (4, 64)  # with more, the last runs of a race find most lanes empty

CACHED_ORDER_BYTES = 64 * 2**20
CACHED_SPLIT_BYTES = 64 * 2**20

MOST_EVALUATED = 2048
"""Rows of a lane that are evaluated at a time."""

ONE_CORE = {"xla_cpu_multi_thread_eigen": False}  # the other cores have heats of their own


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


class Losses(NamedTuple):
    """One entry of the curves of a run."""

    train: float
    valid: float
    accuracy: float


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


def _usual_lanes(network: Network, batch_size: int) -> int:
    """As many lanes as fit the cache: weights, gradient and two states, the batch, and what backward needs of it."""
    numbers = 4 * network.size + batch_size * (network.sizes[0] + 3 * sum(network.sizes[1:]))
    return int(np.clip(CACHE_BYTES // (4 * numbers), *LANES))
