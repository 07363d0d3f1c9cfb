"""Linear models on made-up data, each to show one thing that is known of update rules."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.columns import Columns
from downslope.lab.problems.model import Weights
from downslope.lab.problems.problem import Problem, assemble

POINTS = 250
POSITIVE = 0.7
"""The share of the larger class: the accuracy of who says that every new point is of it."""


@dataclass(frozen=True)
class Signs:
    """Least squares for labels -1 and 1, told by the sign of `w . x`, from weights that are all 0."""

    features: int
    accurate: bool = True

    @property
    def name(self) -> str:
        """How many features it has."""
        return f"linear model of {self.features:,} features, by sign"

    @property
    def size(self) -> int:
        """One weight for each feature."""
        return self.features

    @property
    def width(self) -> int:
        """The features."""
        return self.features

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """Zeros, whatever the seed."""
        return (np.zeros(self.features, np.float32),)

    def outputs(self, weights: Weights, x: jax.Array) -> jax.Array:
        """The products with the rows."""
        products: jax.Array = x @ weights[0]
        return products

    def losses(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        """Squared errors."""
        losses: jax.Array = (outputs - y[:, 0]) ** 2
        return losses

    def hits(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        """1 where the sign is right."""
        return jnp.asarray(outputs * y[:, 0] > 0, outputs.dtype)


def separable() -> Problem:
    """Points that one feature tells apart; two more are the same for all, and one or five are the point's own."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.where(np.arange(POINTS) < POSITIVE * POINTS, 1.0, -1.0))
    x = np.zeros((POINTS, 3 + 5 * POINTS))
    x[:, 0], x[:, 1:3] = y, 1
    for row, label in enumerate(y):
        own = 3 + 5 * row
        x[row, own : own + (1 if label > 0 else 5)] = 1
    names = ("label", "one", "one more", *(f"point {row + 1}, {k + 1}" for row in range(POINTS) for k in range(5)))
    return assemble(
        name="separable",
        title=f"{POINTS} separable points with {len(names):,} features",
        task="regression",
        x=Columns(x, names, tuple("ready" for _ in names)),
        y=Columns(y[:, None], ("label",), ("ready",)),
        classes=None,
        hidden=(),
        batch_size=150,
        epochs=80,
        model=Signs(len(names)),
        shows="all rules fit the training points, but gradient descent and momentum tell every new point right, while "
        "Adagrad, RMSprop and Adam take all for the larger class, tuned alike (Wilson et al. 2017)",
    )


CLASSES, FEWEST, FEATURES, NOISE = 100, 5, 64, 1.0


def heavy_tail(power: float = 1.0) -> Problem:
    """Points around the centres of a hundred classes, the k-th with a share of 1/k.

    Args:
        power: Of k, in the share: with 0 all classes are as frequent.
    """
    rng = np.random.default_rng(0)
    shares = np.arange(1, CLASSES + 1) ** -power
    total = FEWEST * CLASSES * np.sum(1 / np.arange(1, CLASSES + 1))
    counts = np.maximum(np.round(total * shares / shares.sum()), FEWEST).astype(int)
    y = np.repeat(np.arange(CLASSES), counts)
    centres = rng.standard_normal((CLASSES, FEATURES))
    x = centres[y] + NOISE * rng.standard_normal((len(y), FEATURES))
    names = tuple(f"x{k + 1}" for k in range(FEATURES))
    return assemble(
        name="heavy-tail",
        title=f"{CLASSES} classes, the k-th with a share of 1/k" if power == 1 else f"{CLASSES} classes",
        task="classification",
        x=Columns(x, names, tuple("ready" for _ in names)),
        y=y,
        classes=tuple(str(k + 1) for k in range(CLASSES)),
        hidden=(),
        batch_size=1550,  # nearly all training rows
        epochs=10,
        shows="on full batches Adam ends lower than gradient descent and momentum, which learn rare classes late; with "
        "all classes as frequent it ends higher (Kunstner et al. 2024)",
    )
