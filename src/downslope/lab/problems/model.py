"""A model: what is trained on the rows of a problem, as far as an engine has to know it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Weights = tuple[Any, ...]
"""The arrays that a rule updates. A vector belongs to the array before it, as biases to their weights."""


class Model(Protocol):
    """Weights that start by a seed, and the loss of every row; written for JAX, which trains many of it at once.

    What it is trained on, rows numbered from 0, is the problem's; so is which of them form a batch. Where nothing is
    learned from data, a row is the noise of one step, or stands for nothing.
    """

    @property
    def name(self) -> str:
        """What it is, for people: `"64-64-10 MLP, ReLU"`."""

    @property
    def size(self) -> int:
        """The number of weights, biases included."""

    @property
    def width(self) -> int:
        """How many numbers a row takes, forward and backward: by it as many runs are trained at once as fit a cache."""

    @property
    def accurate(self) -> bool:
        """Whether `hits` counts anything."""

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """The weights before training, the same for the same seed on every machine; seeds are integers from 0."""

    def outputs(self, weights: Weights, x: Any) -> Any:
        """What the model says about some rows; only `losses` and `hits` know its shape."""

    def losses(self, outputs: Any, y: Any) -> Any:
        """The loss of every row, shape `(rows,)`; the loss of a batch, and of a validation, is their mean."""

    def hits(self, outputs: Any, y: Any) -> Any:
        """How much of every row is right, from 0 to 1, shape `(rows,)`; all 0 where there is no right or wrong."""


NO_MATRIX = (
    "has no matrix between a first and a last layer, and a rule that multiplies matrices is for nothing else; give it "
    "more layers, or leave that rule out"
)


def inner_of(model: Model) -> tuple[int, ...]:
    """Of how many matrices between its first and last layer each of a model's weights is made; 0: it is none.

    A model says it by its attribute `inner`. Several in one stand one above another.

    Raises:
        ValueError: It does not, or has none.
    """
    found: tuple[int, ...] = getattr(model, "inner", ())
    if not any(found):
        raise ValueError(f"the {model.name} {NO_MATRIX}")
    return found


def mean_loss(model: Model, weights: Weights, x: Any, y: Any) -> Any:
    """The mean loss of a model over some rows."""
    return model.losses(model.outputs(weights, x), y).mean()
