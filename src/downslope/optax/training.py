"""Parameters and a rule's state as a training that can be saved by name, and go on from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from downslope.optax.points import computation_of, is_masked, is_rule_state, rule_state, weights
from downslope.optax.transformation import RuleState, Transformation, Tree
from downslope.targets.shapes import held_shape
from downslope.training import saving
from downslope.training.checkpoint import Raw
from downslope.training.groups import Array
from downslope.training.protocol import Kind, Loaded
from downslope.training.settings import Schedule


def save(path: str | Path, params: Tree, state: Any, transformation: Transformation) -> None:
    """Save parameters and the state of a rule, by name, as a safetensors file.

    Tensors have keys such as `x/layer.W` or `mu/layer.W`: the names of entries of the parameters' tree, joined by dots.
    `x` are always the weights themselves; where the parameters hold the point ahead, that is saved too, as
    `lookahead/layer.W`. The file holds no code. It replaces an older one in one indivisible step. The optimizers for
    NumPy arrays and of other frameworks go on from it.

    What other transformations remember, in a chain or around this one, is not in the file, nor are schedules.

    Args:
        path: The file to write.
        params: The pytree of parameters that the state belongs to.
        state: The state, also of a chain or wrapper that the transformation is in.
        transformation: One of downslope's, as it was made: not what Optax has wrapped around it.

    Raises:
        TypeError: The transformation is not one of downslope's, or a hyperparameter is a traced value.
        ValueError: There is not just one state of it in `state`, or that is of other parameters; two parameters have
            one name; or some parameters only have weight decay, which is more than a file can say.
        OSError: The file cannot be written.

    Example:
        >>> import pathlib, tempfile, jax.numpy as jnp, numpy as np, downslope, downslope.optax
        >>> transformation = downslope.optax.optimizer(downslope.momentum, lr=0.1)
        >>> params = {"W": jnp.ones(3)}
        >>> updates, state = transformation.update({"W": jnp.ones(3)}, transformation.init(params))
        >>> path = pathlib.Path(tempfile.mkdtemp(), "training.safetensors")
        >>> downslope.optax.save(path, params, state, transformation)
        >>> in_numpy = downslope.Optimizer({"W": np.zeros(3, np.float32)}, downslope.momentum)
        >>> in_numpy.load(path)
        >>> print(in_numpy.params["W"], in_numpy.state["v"]["W"], in_numpy.groups[0]["lr"])
        [1. 1. 1.] [-0.1 -0.1 -0.1] 0.1
    """
    saving.save(TreeTraining(params, state, transformation), path)


def load(path: str | Path, params: Tree, state: Any, transformation: Transformation) -> tuple[Tree, Any]:
    """Go on from a file that `save` wrote, here or in another framework.

    The hyperparameters remain those of the transformation.

    Args:
        path: The file to read.
        params: Parameters of the same names, shapes and dtypes; what is loaded is put on their devices.
        state: A state of the transformation for these parameters, such as `init` makes.
        transformation: One of downslope's, as it was made: not what Optax has wrapped around it.

    Returns:
        The parameters and the state of the file. Of a chain or wrapper, the state of all else is as it was.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, not downslope's, or of another rule, other options or other parameters.
        TypeError: The transformation is not one of downslope's, or a hyperparameter is a traced value.
        ValueError: There is not just one state of it in `state`, or a name or mask cannot be saved; see `save`.
    """
    training = TreeTraining(params, state, transformation)
    saving.load(training, path)
    return training.params, training.whole


class TreeTraining:
    """Trees of parameters and states; see `training.protocol.Training`.

    Args:
        params: The parameters.
        state: The state, also of a chain or wrapper that the transformation is in.
        transformation: One of downslope's.

    Attributes:
        params: The parameters; those that were loaded after `put`.
        whole: The state as it was given; with what was loaded after `put`.
    """

    skipped = 0
    clocks = None
    rounding = None

    def __init__(self, params: Tree, state: Any, transformation: Any):
        computation = computation_of(transformation)
        self.params, self.whole = params, state
        self._mine = mine = rule_state(computation, state)
        self._held = {what: _leaves(tree, mine) for what, tree in {"x": params, **mine.states}.items()}
        names = list(self._held["x"])
        if computation.mask is not None:
            raise ValueError("a transformation with a mask computes two formulas, but a file is of one: use two, in "
                             "optax.multi_transform, and a file for each")  # fmt: skip
        if jnp.ndim(mine.count):
            raise ValueError(f"state has {jnp.shape(mine.count)} counts, as under vmap, but a file is of one training: "
                             "take one of them out, and save or load it alone")  # fmt: skip
        for what, by_name in self._held.items():
            for name, p in self._held["x"].items():
                if by_name[name].shape != held_shape(computation.program, what, p.shape):
                    raise ValueError(
                        f"'{what}/{name}' has shape {by_name[name].shape}, its parameter {p.shape}: state is of other "
                        "parameters"
                    )
        self.groups = [computation.group(names, {name: float(value) for name, value in mine.scalars.items()})]
        self.max_norm = None if computation.max_norm is None else float(computation.max_norm)
        self.t = int(mine.count)
        self._weights = self._held["x"]
        if computation.chosen.stored_ahead:
            self._weights = _leaves(weights(transformation, params, mine), mine)

    def kinds(self, name: str) -> dict[str, Kind]:  # noqa: D102
        return {what: (str(by_name[name].dtype), by_name[name].shape) for what, by_name in self._held.items()}

    def get(self, what: str, name: str) -> Raw:  # noqa: D102
        by_name = {**self._held, "x": self._weights, "lookahead": self._held["x"]}[what]
        return Raw.of(np.asarray(by_name[name]))

    def adopt(  # noqa: D102
        self, given: Sequence[Mapping[str, float]], max_norm: float | None
    ) -> list[Mapping[str, float | Schedule]]:
        return [group.hyperparameters for group in self.groups]

    def put(self, loaded: Loaded) -> None:  # noqa: D102
        mine, names = self._mine, self.groups[0].names
        (group,) = loaded.groups

        def new(tree: Tree, what: str) -> Tree:
            return _replaced(tree, mine, {name: loaded.tensors[what, name] for name in names})

        restored = RuleState(
            count=_like(mine.count, min(loaded.t, 2**31 - 1)),  # where steps stop counting, too
            scalars={name: _like(old, group.scalar_states[name]) for name, old in mine.scalars.items()},
            states={what: new(tree, what) for what, tree in mine.states.items()},
        )
        self.params = new(self.params, "lookahead" if group.settings.stored_ahead else "x")
        self.whole = jax.tree.map(lambda node: restored if node is mine else node, self.whole, is_leaf=is_rule_state)


def _leaves(tree: Tree, state: RuleState) -> dict[str, Any]:
    """The entries of a tree like the parameters that this state is about, as arrays, by name.

    Raises:
        ValueError: Two have the same name.
    """
    found: dict[str, Any] = {}
    for path, leaf in _here(tree, state):
        name = _name(path)
        if name in found:
            raise ValueError(f"two parameters are named {name!r}; rename one, as a file keeps them by name")
        found[name] = jnp.asarray(leaf)
    return found


def _name(path: Sequence[Any]) -> str:
    """The name of an entry: the steps to it, joined by dots."""
    return ".".join(_word(key) for key in path) or "0"


def _here(tree: Tree, state: RuleState) -> list[tuple[Any, Any]]:
    """The entries of a tree, without those that are masked out in the state."""
    if not state.states:
        return jax.tree.leaves_with_path(tree)
    pattern = next(iter(state.states.values()))
    kept = jax.tree.map(lambda mine, part: mine if is_masked(mine) else part, pattern, tree, is_leaf=is_masked)
    return jax.tree.leaves_with_path(kept)


def _word(key: Any) -> str:
    """One step of a path into a tree, as it is written in a name."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _replaced(tree: Tree, state: RuleState, tensors: Mapping[str, Raw]) -> Tree:
    """The tree with what the file has in the place of its entries."""
    new = {path: _like(leaf, _array(tensors[_name(path)])) for path, leaf in _here(tree, state)}
    return jax.tree.map_with_path(lambda path, leaf: new.get(path, leaf), tree)


def _like(old: Any, value: Any) -> jax.Array:
    """A value with the dtype, and on the devices, of the one in whose place it goes."""
    old = jnp.asarray(old)
    new: jax.Array = jax.device_put(jnp.asarray(value, old.dtype), old.sharding)
    return new


def _array(raw: Raw) -> Array:
    return raw.data.view(jnp.dtype(raw.dtype)).reshape(raw.shape)
