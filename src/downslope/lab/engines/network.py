"""The networks of the lab: multi-layer perceptrons with their loss, written for JAX."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from downslope.lab.problems.examples import Examples
from downslope.lab.problems.model import Model, Weights, mean_loss
from downslope.lab.problems.problem import Problem

ACTIVATIONS: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    # name: (function, gain: by how much it shrinks the mean square of what passes through it)
    "relu": (jax.nn.relu, 2.0),  # its slope at 0 is 0, as in every framework; that of a plain maximum is 1/2
    "tanh": (jnp.tanh, 1.0),
    "sigmoid": (jax.nn.sigmoid, 1.0),
}
NAMES = {"relu": "ReLU"}


@dataclass(frozen=True)
class Network:
    """A fully connected network and the loss it is trained on: a `Model`.

    Its weights are layer by layer an array of shape `(out, in)`, then biases of shape `(out,)`.

    Attributes:
        sizes: Features, sizes of the hidden layers, outputs.
        activation: The activation of the hidden layers, a key of `ACTIVATIONS`; the output layer has none.
        task: `"classification"`: softmax and cross-entropy; `"regression"`: mean squared error.

    Raises:
        ValueError: The activation or the task is unknown, or there are fewer than two sizes.

    Example:
        >>> network = Network((64, 64, 10), "relu", "classification")
        >>> network.size
        4810
        >>> [w.shape for w in network.initial(seed=0)]
        [(64, 64), (64,), (10, 64), (10,)]
    """

    sizes: tuple[int, ...]
    activation: str = "relu"
    task: Literal["classification", "regression"] = "classification"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: {self.sizes}; expected at least two positive numbers, features and outputs")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: {self.activation!r} is unknown; use one of {', '.join(ACTIVATIONS)}")
        if self.task not in ("classification", "regression"):
            raise ValueError(f"task: {self.task!r} is unknown; use 'classification' or 'regression'")

    @classmethod
    def of(cls, problem: Problem) -> Network:
        """The network that a problem asks for."""
        assert problem.task is not None  # else the problem brings its model
        sizes = (len(problem.features), *problem.hidden, problem.outputs)
        return cls(sizes, problem.activation, problem.task)

    @property
    def name(self) -> str:
        """Its sizes and its activation."""
        return f"{'-'.join(map(str, self.sizes))} MLP, {NAMES.get(self.activation, self.activation)}"

    @property
    def size(self) -> int:
        """The number of weights, biases included."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in self._layers())

    @property
    def inner(self) -> tuple[int, ...]:
        """Of each array, 1 if it is the matrix of a layer between the first and the last, else 0."""
        hidden = [(int(min(layer) > 1), 0) for layer in self._layers()[1:-1]]
        return (0, 0, *itertools.chain(*hidden), 0, 0)

    @property
    def width(self) -> int:
        """The features, and what backward needs of every unit."""
        return self.sizes[0] + 3 * sum(self.sizes[1:])

    @property
    def accurate(self) -> bool:
        """Whether it tells classes apart."""
        return self.task == "classification"

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """The weights before training: normal with variance gain / fan-in, biases zero.

        The gain is 2 in front of a ReLU (He et al., "Delving deep into rectifiers", 2015) and 1 elsewhere. The same
        seed gives the same weights on every machine.

        Args:
            seed: Any integer from 0.

        Returns:
            float32 arrays, layer by layer.
        """
        rng = np.random.default_rng((seed, 0))
        weights: list[NDArray[np.float32]] = []
        layers = self._layers()
        for index, (fan_in, fan_out) in enumerate(layers):
            gain = ACTIVATIONS[self.activation][1] if index < len(layers) - 1 else 1.0
            weights.append((rng.standard_normal((fan_out, fan_in)) * math.sqrt(gain / fan_in)).astype(np.float32))
            weights.append(np.zeros(fan_out, np.float32))
        return tuple(weights)

    def outputs(self, weights: Weights, x: Any) -> jax.Array:
        """What the network says about some rows: logits or predictions.

        Args:
            weights: The weights, layer by layer.
            x: Features, shape `(rows, features)`.

        Returns:
            Shape `(outputs, rows)`. Inside the network a row of data is a column: so no matrix product of the forward
            or backward pass has a transposed left factor, the one form that CPU libraries are slow at.
        """
        activation = ACTIVATIONS[self.activation][0]
        z: jax.Array = lax.dot_general(weights[0], x, (((1,), (1,)), ((), ()))) + weights[1][:, None]
        for weight, bias in zip(weights[2::2], weights[3::2], strict=True):
            z = _product(weight, activation(z)) + bias[:, None]
        return z

    def losses(self, outputs: jax.Array, y: Any) -> jax.Array:
        """The loss of every row.

        Args:
            outputs: As returned by `outputs`.
            y: Classes, integers of shape `(rows,)`, or targets, shape `(rows, outputs)`.

        Returns:
            Cross-entropy in nats or squared error (averaged over the outputs), shape `(rows,)`.
        """
        if self.task == "regression":
            return jnp.mean((outputs - y.T) ** 2, axis=0)
        z = outputs - lax.stop_gradient(outputs.max(axis=0))
        hit = y == jnp.arange(self.sizes[-1], dtype=y.dtype)[:, None]
        return jnp.log(jnp.exp(z).sum(axis=0)) - jnp.where(hit, z, 0.0).sum(axis=0)

    def loss(self, weights: Weights, x: Any, y: Any) -> jax.Array:
        """The mean loss over some rows; the arguments are those of `outputs` and `losses`."""
        loss: jax.Array = mean_loss(self, weights, x, y)
        return loss

    def hits(self, outputs: jax.Array, y: Any) -> jax.Array:
        """1 for every row whose largest output is that of its class, else 0; all 0 for regression."""
        if self.task == "regression":
            return jnp.zeros(outputs.shape[1], outputs.dtype)
        return jnp.asarray(outputs.argmax(axis=0) == y, outputs.dtype)

    def accuracy(self, weights: Weights, x: Any, y: Any) -> jax.Array:
        """The share of rows whose largest output is that of their class."""
        return self.hits(self.outputs(weights, x), y).mean()

    def _layers(self) -> Sequence[tuple[int, int]]:
        return list(zip(self.sizes[:-1], self.sizes[1:], strict=True))


def model_of(problem: Problem | Examples) -> Model:
    """What is trained on a problem: the model that it brings, or else the network that it asks for."""
    assert isinstance(problem, Problem)  # examples come with a model of the user's own
    return problem.model or Network.of(problem)


@jax.custom_vjp
def _product(weight: jax.Array, below: jax.Array) -> jax.Array:
    return weight @ below


def _product_forward(weight: jax.Array, below: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return weight @ below, (weight, below)


def _product_backward(saved: tuple[jax.Array, jax.Array], above: jax.Array) -> tuple[jax.Array, jax.Array]:
    weight, below = saved
    # Contracting `below` where it lies saves a transposed copy; the barrier does the opposite for `weight`, which is
    # small, because a product with a transposed left factor takes twice as long.
    transposed: jax.Array = lax.optimization_barrier(weight.T)  # type: ignore[no-untyped-call]
    return lax.dot_general(above, below, (((1,), (1,)), ((), ()))), transposed @ above


_product.defvjp(_product_forward, _product_backward)
