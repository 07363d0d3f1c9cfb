"""What the training loss looks like around the weights of a run: how it is curved, and how much batches disagree.

The largest eigenvalue of the Hessian is found by Lanczos iterations (ARPACK's, with restarts) on Hessian-vector
products, each of which is the derivative of the gradient in one direction; the Hessian itself is never made.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from downslope.lab.engines.data import Data, Scales, taken
from downslope.lab.engines.evaluator import ONE_CORE
from downslope.lab.problems.model import Model, Weights, mean_loss

MOST_ROWS = 4096
"""Training rows that the loss is looked at on; where there are more, these many of them."""

LANCZOS_VECTORS = 8
"""Vectors kept between restarts. The largest eigenvalues of networks lie far apart, and need few."""

TOLERANCE = 1e-2
"""Of an eigenvalue, relative: what is found is mostly nearer by far. Other batches alone change it by some per cent."""

QUICKLY: dict[str, Any] = {**ONE_CORE, "xla_backend_optimization_level": 0}
"""How programs are compiled: products of matrices are the library's anyway, and all else takes longer to compile."""

Vector = NDArray[np.float32]


class Terrain:
    """The training loss of the splits that seeds have.

    Args:
        data: The rows.
        model: The model whose loss it is.
    """

    def __init__(self, data: Data, model: Model):
        self.data, self.model, self.loss = data, model, partial(mean_loss, model)
        self._unflatten = ravel_pytree(model.initial(0))[1]
        self._directed = _Program(self._gradient_and_product)
        self._gradient = _Program(self._batch_gradient)
        self._squares = _Program(self._mean_square)

    def rows(self, seed: int) -> NDArray[np.int32]:
        """The numbers of the training rows of a seed that are looked at."""
        train = self.data.split(seed).parts.train
        if len(train) <= MOST_ROWS:
            return train
        return np.random.default_rng((seed, 0)).choice(train, MOST_ROWS, replace=False)

    def gradient(self, seed: int, weights: Weights, rows: NDArray[np.int32]) -> tuple[Vector, ...]:
        """The gradient of the mean loss over a batch, array by array."""
        return tuple(np.asarray(g) for g in self._gradient(tuple(weights), *self._taking(seed, rows)))

    def curvature(self, seed: int, weights: Weights, root: Sequence[NDArray[Any]] | None = None) -> float:
        """The largest eigenvalue of the Hessian H of the mean training loss, or of P^(1/2) H P^(1/2).

        Args:
            seed: Whose training rows.
            weights: Where.
            root: The root of the diagonal P, array by array; by default P is the identity.

        Returns:
            The eigenvalue; nan where it is not finite, or not found within ARPACK's usual number of restarts.

        Source: Pearlmutter, "Fast exact multiplication by the Hessian", 1994; Lehoucq, Sorensen & Yang, "ARPACK users'
        guide", 1998.
        """
        from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

        taking = self._taking(seed, self.rows(seed))
        point = _flat(weights)
        scale = np.ones_like(point) if root is None else _flat(root)

        def scaled(vector: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            """The gradient, and the product of the Hessian with a vector."""
            found = self._directed(point, scale * vector.ravel().astype(np.float32), *taking)
            gradient, product = (np.asarray(scale * np.asarray(one), np.float64) for one in found)
            if not np.isfinite(product).all():
                raise FloatingPointError
            return gradient, product

        def product(vector: NDArray[Any]) -> NDArray[np.float64]:
            return scaled(vector)[1]

        operator = LinearOperator((len(point), len(point)), matvec=product, dtype=np.float64)
        vectors = min(LANCZOS_VECTORS, len(point))
        try:
            chance = np.random.default_rng(0).standard_normal(len(point))
            gradient, curved = scaled(chance)
            if not curved.any():
                return 0.0
            # Along the steepest directions, and a little along all: from an eigenvector there is no way to another.
            parts = ((gradient, 1.0), (curved, 1.0), (chance, 0.01))
            begin = np.sum([share * part / (np.linalg.norm(part) or 1.0) for part, share in parts], axis=0)
            (found,) = eigsh(operator, 1, which="LA", v0=begin, ncv=vectors, tol=TOLERANCE, return_eigenvectors=False)
        except (ArpackError, FloatingPointError):
            return math.nan
        return float(found)

    def noise_scale(self, seed: int, weights: Weights) -> float:
        """The simple noise scale: the trace of the covariance of the rows' gradients over the square of their mean.

        Of the square of a gradient over so many rows one half is noise. Infinite where the gradient of all rows does
        not stand out from the noise of those that are looked at.

        Source: McCandlish et al., "An empirical model of large-batch training", 2018, equation 2.9.
        """
        rows = self.rows(seed)
        taking = self._taking(seed, rows)
        point = _flat(weights)
        mean = np.asarray(self._directed(point, np.zeros_like(point), *taking)[0], np.float64)
        square = float(mean @ mean)
        covariance = (float(self._squares(tuple(weights), *taking)) - square) * len(rows) / max(len(rows) - 1, 1)
        covariance = max(covariance, 0.0)  # a little below 0 by rounding
        train = len(self.data.split(seed).parts.train)
        square -= covariance * (1 / len(rows) - 1 / train)  # the noise of looking at some of the rows only
        return covariance / square if square > 0 else math.inf

    def _taking(self, seed: int, rows: NDArray[np.int32]) -> tuple[Any, ...]:
        """What `taken` needs to take rows as a seed does."""
        shared = self.data.scales([seed])
        scales = Scales(*(None if one is None else tuple(values[0] for values in one) for one in shared))
        return rows, scales, self.data.x, self.data.y

    def _gradient_and_product(self, point: Any, direction: Any, *taking: Any) -> Any:
        """The gradient, flat, and the product of the Hessian with a direction."""
        batch = taken(*taking)

        def gradient(flat: Any) -> Any:
            return ravel_pytree(jax.grad(self.loss)(self._unflatten(flat), *batch))[0]

        return jax.jvp(gradient, (point,), (direction,))

    def _batch_gradient(self, weights: Weights, *taking: Any) -> Any:
        return jax.grad(self.loss)(weights, *taken(*taking))

    def _mean_square(self, weights: Weights, *taking: Any) -> Any:
        """The mean over rows of the square of their gradient's length."""

        def square(row: Any, goal: Any) -> Any:
            gradient = jax.grad(self.loss)(weights, row[None], goal[None])
            return sum(jnp.vdot(g, g) for g in gradient)

        return jax.vmap(square)(*taken(*taking)).mean()


class _Program:
    """A function that is compiled when it is first called, once, whichever thread it is that calls."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.lock = function, threading.Lock()
        self._compiled: Any = None

    def __call__(self, *args: Any) -> Any:
        with self.lock:
            if self._compiled is None:
                self._compiled = jax.jit(self.function).lower(*args).compile(compiler_options=QUICKLY)
        return self._compiled(*args)


def _flat(arrays: Sequence[Any]) -> Vector:
    return np.concatenate([np.asarray(a, np.float32).ravel() for a in arrays])
