"""Functions to descend: problems without data, of which theory says what every rule does on them.

Their rows are the noise of the steps, drawn anew for each from thousands that together have no mean; the loss that
rules are judged by is the one without noise. Seeds choose where a run starts, and its noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.columns import Columns
from downslope.lab.problems.model import Weights
from downslope.lab.problems.problem import Parts, Problem, hash_of

NOISES = 4000


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The loss `(w - x) . H (w - x) / 2` of a row x, whose gradient is that of `w . H w / 2` with the noise `-H x`.

    Attributes:
        name: What it is called.
        hessian: H, float32 of shape `(weights, weights)`; or its diagonal, `(weights,)`, where it has nothing else.
        start: The root mean square of a weight before training.
    """

    name: str
    hessian: NDArray[np.float32]
    start: float
    accurate: bool = False

    @property
    def size(self) -> int:
        """The number of weights."""
        return len(self.hessian)

    @property
    def width(self) -> int:
        """A row, its difference from the weights, and its gradient."""
        return 3 * len(self.hessian)

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """Normal weights."""
        drawn = np.random.default_rng((seed, 0)).standard_normal(self.size)
        return ((self.start * drawn).astype(np.float32),)

    def outputs(self, weights: Weights, x: jax.Array) -> jax.Array:
        """How far the weights are from each row."""
        away: jax.Array = weights[0] - x
        return away

    def losses(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        """Half the square of each distance, as the Hessian measures it."""
        bent = outputs * self.hessian if self.hessian.ndim == 1 else outputs @ self.hessian
        losses: jax.Array = 0.5 * (outputs * bent).sum(axis=1)
        return losses

    def hits(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        """Nothing."""
        return jnp.zeros(len(outputs))


@dataclass(frozen=True)
class Rosenbrock:
    """The valley `(1 - a)² + 100 (b - a²)²`, from where its author began, give or take a tenth."""

    name: str = "Rosenbrock's function"
    size: int = 2
    width: int = 8
    accurate: bool = False

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """Around (-1.2, 1)."""
        drawn = np.random.default_rng((seed, 0)).standard_normal(2)
        return ((np.array([-1.2, 1.0]) + 0.1 * drawn).astype(np.float32),)

    def outputs(self, weights: Weights, x: jax.Array) -> jax.Array:
        """The loss, once for each row."""
        a, b = weights[0]
        return jnp.full(len(x), (1 - a) ** 2 + 100 * (b - a**2) ** 2)

    def losses(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        """The loss."""
        return outputs

    def hits(self, outputs: jax.Array, y: jax.Array) -> jax.Array:
        """Nothing."""
        return jnp.zeros(len(outputs))


def rosenbrock() -> Problem:
    """The banana-shaped valley: curved, and 2,500 times as steep across as along."""
    return _descent(
        Rosenbrock(),
        np.zeros((1, 1), np.float32),
        name="rosenbrock",
        title="Rosenbrock's valley, two weights",
        about="The function (1 - a)² + 100 (b - a²)², started around (-1.2, 1)",
        batch_size=1,
        draws=50,
        epochs=20,
        shows="momentum gets far lower than gradient descent: in the end walls limit lr to 3.8/1002 and 2/1002, and "
        "down the floor, 2,500 times less steep, it goes 1/(1 - mu) times as fast (Rosenbrock 1960; Polyak 1964)",
    )


def noisy_quadratic() -> Problem:
    """A hundred weights of curvature 1, each with a gradient noise of its own of variance 1."""
    return _descent(
        Quadratic("Quadratic, 100 times the curvature 1", np.ones(100, np.float32), start=1.0),
        noise(100, 1.0),
        name="noisy-quadratic",
        title="A quadratic with gradient noise, 100 weights",
        about="The function |w|²/2 of 100 weights, whose gradients have noise of variance 1",
        batch_size=1,
        draws=50,
        epochs=20,
        shows="at lr 0.1 the loss settles at 2.63 for gradient descent and at 25.7 for momentum 0.9; tuned, the two "
        "cannot be told apart, and Adagrad, whose steps shrink, ends lower (Polyak 1987; Zhang et al. 2019)",
    )


def deep_quadratic() -> Problem:
    """Eigenvalues as the Hessians of deep networks have them: most below 1, a few from 30 to 60; turned at random."""
    rng = np.random.default_rng(0)
    curvatures = np.concatenate([rng.uniform(0, 1, 90), rng.uniform(30, 60, 10)])
    sharpest = curvatures.max()
    turned, _ = np.linalg.qr(rng.standard_normal((100, 100)))
    hessian = (turned * curvatures) @ turned.T
    return _descent(
        Quadratic("Quadratic, 90 curvatures below 1 and 10 from 30 to 60", hessian.astype(np.float32), start=1.0),
        noise(100, 0.01),
        name="deep-quadratic",
        title="A quadratic curved as deep networks are, 100 weights",
        about=f"A quadratic with 90 curvatures below 1 and 10 from 30 to {sharpest:.3g}, in turned axes, with gradient "
        "noise",
        batch_size=1,
        draws=50,
        epochs=20,
        shows=f"gradient descent holds below lr {2 / sharpest:.3g}, momentum 0.9 below {3.8 / sharpest:.3g}, Nesterov "
        f"below {3.8 / 2.8 / sharpest:.3g}: 2, 3.8 and 1.357 over the largest curvature; tuned, Nesterov ends lower "
        "than gradient descent (Polyak 1964; curvatures as in Schneider et al. 2019)",
    )


def noise(weights: int, size: float) -> NDArray[np.float32]:
    """Rows of noise, whose mean is exactly 0 and whose variance in each column is `size²`."""
    half = np.random.default_rng(1).standard_normal((NOISES // 2, weights))
    half *= size / np.sqrt(np.mean(half**2, axis=0))
    return np.concatenate([half, -half]).astype(np.float32)


def _descent(
    model: Quadratic | Rosenbrock,
    rows: NDArray[np.float32],
    *,
    name: str,
    title: str,
    about: str,
    shows: str,
    batch_size: int,
    draws: int,
    epochs: int,
) -> Problem:
    """A problem without data. Its first row is no noise at all: on it the loss is judged."""
    quiet, trains = np.zeros(1, np.int32), np.arange(1, len(rows) + 1, dtype=np.int32)
    values = np.concatenate([np.zeros_like(rows[:1]), rows])
    names = tuple(f"noise {k + 1}" for k in range(values.shape[1]))
    columns, nothing = Columns(values, names, tuple("ready" for _ in names)), np.zeros(len(values), np.int32)
    untested = np.empty(0, np.int32)
    return Problem(
        name=name,
        title=title,
        task=None,
        columns=columns,
        targets=nothing,
        test_rows=untested,
        hidden=(),
        outputs=1,
        batch_size=batch_size,
        epochs=epochs,
        data_hash=hash_of(columns, nothing, untested),
        classes=None,
        features=names,
        model=model,
        parts=Parts(trains, quiet, untested),
        draws=draws,
        about=about,
        shows=shows,
    )
