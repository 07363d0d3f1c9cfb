"""Networks of the user's own in JAX: weights and a function that applies them, or modules of Flax and Equinox."""

from __future__ import annotations

import inspect
import math
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.learner import (
    Loss,
    Sight,
    adds_up,
    check_classes,
    check_quantities,
    check_value,
    class_axis,
)
from downslope.lab.problems.model import Weights, mean_loss
from downslope.splitting.judge import Seen, judged
from downslope.splitting.split import NAMES_ONLY, Split


class Pair(NamedTuple):
    """A network as it begins: `apply(weights, x)` gives its outputs."""

    weights: Any
    apply: Callable[[Any, Any], Any]


def is_pair(model: Any) -> bool:
    """Whether something is a network of JAX.

    That is a pair of weights, or of a function that makes them, and a function that applies them; or a module of Flax
    or Equinox.
    """
    if isinstance(model, tuple) and len(model) == 2 and callable(model[1]):
        return callable(model[0]) or bool(jax.tree.leaves(model[0]))
    return _is(model, "flax.linen", "Module") or _is(model, "equinox", "Module")


class PairModels:
    """Networks of JAX.

    Args:
        loss: What is minimised.
        classes: How many classes the targets are of, for a cross-entropy by name.
        sample: Some rows, by which what takes them makes its weights.
    """

    framework = "JAX"

    def __init__(self, loss: Loss, classes: int | None, sample: NDArray[Any]):
        self.loss, self.classes, self.sample = loss, classes, sample

    def begun(self, model: Any, seed: int) -> Pair:
        """A network with its weights.

        Raises:
            ValueError: A weight is no array of floats, or is not to be trained.
        """
        if _is(model, "equinox", "Module"):
            eqx: Any = sys.modules["equinox"]
            weights, rest = eqx.partition(model, eqx.is_inexact_array)
            return Pair(_floats(weights), lambda held, x: jax.vmap(eqx.combine(held, rest))(x))
        init, apply = (model.init, model.apply) if _is(model, "flax.linen", "Module") else model
        if callable(init):
            key = jax.random.key(seed)
            init = init(key, jnp.asarray(self.sample)) if _takes_rows(init) else init(key)
        _refuse_collections(init)
        return Pair(_floats(init), apply)

    def learner(self, model: Pair, entrant: Entrant, lr: float, sight: Sight) -> _Trial:
        """A network that can be tried: it is evaluated, and its gradient taken."""
        return _Trial(PairNetwork(lambda _: model, self, 0, ""), model, sight)

    def arrays(self, model: Pair) -> Mapping[str, NDArray[Any]]:
        """All weights."""
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in _with_path(model.weights)}

    def places(self, model: Pair) -> frozenset[int]:
        """Nowhere: arrays of JAX are never changed."""
        return frozenset()

    def title(self, model: Any) -> str:
        """What a network is, for people."""
        return "network of JAX" if isinstance(model, tuple) else f"{type(model).__name__} of JAX"

    def written(self, model: Any) -> str:
        """The code that makes it, as far as it can be told."""
        return "init, apply" if isinstance(model, tuple) else f"{type(model).__name__}(...)"


class PairNetwork:
    """A network of the user's own, as heats train it: a `Model`.

    Args:
        begun: Makes the network of a seed.
        models: What is known of all of them.
        seed: One that a run will have.
        name: What they are, for people.
    """

    def __init__(self, begun: Callable[[int], Pair], models: PairModels, seed: int, name: str):
        self._begun, self._models, self.name = begun, models, name
        self.loss = models.loss
        self._initial: dict[int, tuple[NDArray[np.float32], ...]] = {}
        self._lock = threading.Lock()
        self._seed, self._compared = seed, False
        first = begun(seed)
        self._apply = first.apply
        self._leaves, self._tree = jax.tree.flatten(first.weights)
        self.split = _split(first.weights)

    @property
    def accurate(self) -> bool:
        """Whether it tells classes apart by a cross-entropy by name."""
        return self.loss == "cross-entropy"

    @property
    def size(self) -> int:
        """The number of weights."""
        return sum(int(leaf.size) for leaf in self._leaves)

    @property
    def inner(self) -> tuple[int, ...]:
        """Of how many inner matrices each of the weights is made, as far as names and shapes tell; 0: it is none."""
        return tuple(entry.pieces if entry.matrix else 0 for entry in self.split)

    @property
    def width(self) -> int:
        """Twice what one row makes between the layers."""
        row = np.zeros((1, *self._models.sample.shape[1:]), self._models.sample.dtype)
        jaxpr: Any = jax.make_jaxpr(self.outputs)(tuple(self._leaves), row)
        between: int = sum(math.prod(out.aval.shape) for equation in jaxpr.eqns for out in equation.outvars)
        return 2 * between

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """The weights before training.

        Raises:
            ValueError: The network of another seed differs in more than its weights.
        """
        with self._lock:
            if seed not in self._initial:
                begun = self._begun(seed)
                if seed != self._seed and not self._compared:
                    self._refuse_other(begun)
                    self._compared = True
                leaves = jax.tree.leaves(begun.weights)
                self._initial[seed] = tuple(np.asarray(leaf, np.float32) for leaf in leaves)
            return self._initial[seed]

    def _refuse_other(self, begun: Pair) -> None:
        """Refuse a network that is not the first one with other weights: one program trains those of all seeds."""
        if begun.apply is self._apply:
            return
        weights, rows = jax.tree.map(jnp.asarray, begun.weights), jnp.asarray(self._models.sample)
        found, other = (jax.tree.leaves(apply(weights, rows)) for apply in (self._apply, begun.apply))
        if not all(np.allclose(a, b, rtol=1e-3, equal_nan=True) for a, b in zip(found, other, strict=True)):
            raise ValueError(
                "model: networks of two seeds give different outputs with the same weights, so apply holds something "
                "that depends on the seed; draw it by one key for all seeds, or put it among the weights"
            )

    def outputs(self, weights: Weights, x: Any) -> Any:
        """What the network says about some rows."""
        return self._apply(jax.tree.unflatten(self._tree, weights), x)

    def losses(self, outputs: Any, y: Any) -> Any:
        """The loss of every row."""
        loss = self.loss
        if not isinstance(loss, str):
            return jax.vmap(lambda one, goal: self._own(jax.tree.map(lambda a: a[None], one), goal[None]))(outputs, y)
        if loss == "mse":
            check_quantities(outputs.shape, y.shape)
            return jnp.mean((outputs - y.reshape(outputs.shape)).reshape(len(y), -1) ** 2, axis=1)
        axis = class_axis(outputs.shape, y.shape)
        check_classes(outputs.shape[axis], self._models.classes or 0)
        logs = jax.nn.log_softmax(jnp.moveaxis(outputs, axis, -1), axis=-1)
        taken = jnp.take_along_axis(logs, y[..., None].astype(jnp.int32), axis=-1)[..., 0]
        return -taken.reshape(len(y), -1).mean(axis=1)

    def _own(self, outputs: Any, y: Any) -> Any:
        assert callable(self.loss)
        found = jnp.asarray(self.loss(outputs, y))
        check_value(found.shape)
        return found.reshape(())

    def hits(self, outputs: Any, y: Any) -> Any:
        """The share of right answers of every row; 0 where the loss is no cross-entropy by name."""
        if not self.accurate:
            return jnp.zeros(len(y))
        right = outputs.argmax(axis=class_axis(outputs.shape, y.shape)) == y
        return right.reshape(len(y), -1).mean(axis=1, dtype=jnp.float32)


class _Trial:
    """A network that is tried before a race: a `Learner` that learns nothing."""

    def __init__(self, network: PairNetwork, model: Pair, sight: Sight):
        self.network, self.sight = network, sight
        self._weights = tuple(jnp.asarray(leaf) for leaf in jax.tree.leaves(model.weights))
        if not self._weights:
            raise ValueError("the network has no weight to train")

    def epoch(self, batches: NDArray[np.int32], factors: NDArray[np.float64] | None = None) -> float:
        """The gradient, compiled as it is in training, at any learning rate."""
        x, y = (jnp.asarray(array[batches[0]]) for array in self.sight)
        loss, gradient = jax.jit(jax.value_and_grad(partial(mean_loss, self.network)))(self._weights, x, y)
        if not any(bool(jnp.any(one != 0)) for one in gradient):
            raise ValueError("loss: its gradient is 0 everywhere; does it depend on what is trained?")
        return float(loss)

    def evaluate(self, rows: NDArray[np.int32]) -> tuple[float, float]:
        """Mean loss and accuracy; see `Learner`."""
        x, y = (jnp.asarray(array[rows]) for array in self.sight)
        outputs = self.network.outputs(self._weights, x)
        mean = float(self.network.losses(outputs, y).mean())
        if callable(loss := self.network.loss):
            whole = jnp.asarray(loss(outputs, y))
            check_value(whole.shape)
            _check_mean(float(whole.reshape(())), mean, len(rows))
        return mean, float(self.network.hits(outputs, y).mean())

    def outputs(self, rows: NDArray[np.int32]) -> Any:
        """What the network says; see `Learner`."""
        found = self.network.outputs(self._weights, jnp.asarray(self.sight.x[rows]))
        return np.asarray(found) if isinstance(found, jax.Array) else found

    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """A copy of the weights; see `Learner`."""
        return tuple(np.array(one) for one in self._weights)

    def split(self) -> Split:
        """Which weights are inner matrices; see `Learner`."""
        return self.network.split


def _check_mean(whole: float, mean: float, rows: int) -> None:
    """Refuse a loss that cannot be taken row by row.

    Raises:
        ValueError: It is not the mean over the rows.
    """
    if not adds_up(whole, mean):
        raise ValueError(
            f"loss: it gives {whole:g} for {rows} rows together, and {mean:g} as the mean over these rows one by one; "
            "give a loss that is a mean over rows, such as the mean squared error instead of its root"
        )


def _refuse_collections(weights: Any) -> None:
    """Refuse what Flax keeps beside its parameters, such as the statistics of batch norm: here all would be trained.

    Raises:
        ValueError: There is something beside them.
    """
    others = [str(name) for name in weights if name != "params"] if isinstance(weights, Mapping) else []
    if others and "params" in weights:
        raise ValueError(
            f"the network has {', '.join(others)} beside params, as Flax's batch norm has, and all would be trained as "
            "weights; take layers that keep nothing, such as GroupNorm or LayerNorm, or put weights into params"
        )


def _floats(weights: Any) -> Any:
    for path, leaf in _with_path(weights):
        if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating):
            raise ValueError(
                f"the weight {jax.tree_util.keystr(path)} is {jnp.asarray(leaf).dtype}; give floats, and let apply "
                "hold the rest"
            )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), weights)


def _split(weights: Any) -> Split:
    """Which of the weights are inner matrices, in their order."""
    named = [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in _with_path(weights)]
    return Split(judged([Seen(name, leaf, leaf.shape) for name, leaf in named], in_order=False), NAMES_ONLY)


def _with_path(weights: Any) -> list[tuple[Any, Any]]:
    return list(jax.tree_util.tree_flatten_with_path(weights)[0])


def _takes_rows(init: Callable[..., Any]) -> bool:
    """Whether a function that makes weights needs some rows beside the key, as Flax's does."""
    parameters = inspect.signature(init).parameters.values()
    needed = [one for one in parameters if one.default is one.empty and one.kind <= one.POSITIONAL_OR_KEYWORD]
    return len(needed) > 1 or any(one.kind is one.VAR_POSITIONAL for one in parameters)


def _is(value: Any, module: str, name: str) -> bool:
    return isinstance(value, getattr(sys.modules.get(module), name, ()))
