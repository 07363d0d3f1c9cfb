"""The losses and accuracies of many models at once, each on rows of its own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.data import Data, Rows, Scales, taken
from downslope.lab.engines.recorder import Losses
from downslope.lab.problems.model import Model, Weights

CACHE_BYTES = 2**20
"""What the lanes of a heat may touch in one step: the second-level cache of a present-day core, more or less. Few lanes
pay for the overhead of each operation, many for trips to memory; the optimum between is flat."""

LANES = (4, 64)  # with more, the last runs of a race find most lanes empty

ONE_CORE = {"xla_cpu_multi_thread_eigen": False}  # the other cores have heats of their own


class Evaluation(NamedTuple):
    """Mean loss and accuracy of every lane on some rows."""

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]


class Evaluator:
    """Evaluates as many models at a time as a heat has lanes; all heats of a problem share one.

    Args:
        data: The rows that models are evaluated on.
        model: The model whose weights differ from lane to lane.
        lanes: How many models; by default as many as fit the cache.
    """

    def __init__(self, data: Data, model: Model, lanes: int | None = None):
        self.data, self.model = data, model
        self.lanes = lanes or _usual_lanes(model, data.batch_size)
        self.lock = threading.Lock()
        self._untrained: dict[int, Losses] = {}

    @functools.cached_property
    def test_rows(self) -> Rows:
        """The test rows for all lanes, which most heats never touch."""
        return self.data.test_rows(self.lanes)

    @functools.cached_property
    def _evaluate(self) -> Callable[..., Any]:
        def evaluate(weights: Weights, scales: Scales, rows: Any, present: Any, x: Any, y: Any) -> Any:
            batch, goal = taken(rows, scales, x, y)
            outputs = self.model.outputs(weights, batch)
            loss = jnp.where(present, self.model.losses(outputs, goal), 0.0).sum()
            hits = jnp.where(present, self.model.hits(outputs, goal), 0.0).sum()
            return loss, hits

        return jax.jit(jax.vmap(evaluate, in_axes=(0, 0, 0, None, None, None)), compiler_options=ONE_CORE)

    def evaluate(self, weights: Weights, scales: Scales, rows: Rows) -> Evaluation:
        """Evaluate all lanes on rows of theirs; `weights` have the lane as their first axis."""
        found = [self._evaluate(weights, scales, *chunk, self.data.x, self.data.y) for chunk in rows.chunks]
        loss, hits = (np.sum([np.asarray(f[k], np.float64) for f in found], axis=0) for k in (0, 1))
        return Evaluation(loss / rows.total, hits / rows.total)

    def untrained(self, seeds: Sequence[int]) -> Mapping[int, Losses]:
        """The losses of the untrained models of these seeds, and of those asked for before."""
        with self.lock:
            new = [seed for seed in dict.fromkeys(seeds) if seed not in self._untrained]
            for first in range(0, len(new), self.lanes):
                group = new[first : first + self.lanes]
                filled = group + [group[0]] * (self.lanes - len(group))
                stacked = jax.tree.map(lambda *a: np.stack(a), *[self.model.initial(seed) for seed in filled])
                weights = jax.device_put(stacked, self.data.device)  # as in an epoch: else it would compile once more
                scales = self.data.scales(filled)
                train = self.evaluate(weights, scales, self.data.train_rows(filled))
                valid = self.evaluate(weights, scales, self.data.valid_rows(filled))
                for lane, seed in enumerate(group):
                    losses = (train.loss[lane], valid.loss[lane], valid.accuracy[lane])
                    self._untrained[seed] = Losses(*(float(value) for value in losses))
            return self._untrained

    def losses(self, seed: int, weights: Sequence[Weights]) -> list[float]:
        """The mean training loss of models of one seed."""
        found: list[float] = []
        scales, rows = self.data.scales([seed] * self.lanes), self.data.train_rows([seed] * self.lanes)
        for first in range(0, len(weights), self.lanes):
            group = weights[first : first + self.lanes]
            filled = [*group, *[group[0]] * (self.lanes - len(group))]
            stacked = jax.device_put(jax.tree.map(lambda *a: np.stack(a), *map(tuple, filled)), self.data.device)
            found += self.evaluate(stacked, scales, rows).loss[: len(group)].tolist()
        return found


def _usual_lanes(model: Model, batch_size: int) -> int:
    """As many lanes as fit the cache: weights, gradient and two states, the batch, and what backward needs of it."""
    numbers = 4 * model.size + batch_size * model.width
    return int(np.clip(CACHE_BYTES // (4 * numbers), *LANES))
