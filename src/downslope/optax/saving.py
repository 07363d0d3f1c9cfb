"""Saving parameters and a rule's state by name, in the files that all front ends share, and going on from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from downslope.optax.computation import Computation
from downslope.optax.points import computation_of, is_masked, is_rule_state, rule_state, weights
from downslope.optax.transformation import RuleState, Transformation, Tree
from downslope.training import checkpoint
from downslope.training.checkpoint import CheckpointError, Raw
from downslope.training.groups import Array
from downslope.training.plan import Plan


def save(path: str | Path, params: Tree, state: Any, transformation: Transformation) -> None:
    """Save parameters and the state of a rule, by name, as a safetensors file.

    Tensors have keys such as `x/layer.W` or `mu/layer.W`: the names of entries of the parameters' tree, joined by dots.
    `x` are always the weights themselves; where the parameters hold the point ahead, that is saved too, as
    `lookahead/layer.W`. The file holds no code. It replaces an older one in one indivisible step. The optimizers for
    NumPy arrays and of other frameworks go on from it.

    What other transformations remember, in a chain or around this one, is not in the file, nor are schedules.

    Args:
        path: The file.
        params: The parameters.
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
    computation = computation_of(transformation)
    mine = rule_state(computation, state)
    held = dict(_leaves(params, mine))
    plan = _plan(computation, list(held), mine)
    points = {"x": params} if not plan.settings.stored_ahead else {}
    if plan.settings.stored_ahead:
        points = {"x": weights(transformation, params, mine), "lookahead": params}
    tensors = {
        f"{key}/{name}": np.asarray(leaf)
        for key, tree in {**points, **mine.states}.items()
        for name, leaf in _leaves(tree, mine)
    }
    for key, tensor in tensors.items():
        p = held[key.partition("/")[2]]
        if tensor.shape != p.shape:
            raise ValueError(f"{key!r} has shape {tensor.shape}, its parameter {p.shape}: state is of other parameters")
    t = int(mine.count)
    checkpoint.write(Path(path), tensors, {**plan.record(t), "t": t, "skipped": 0})


def load(path: str | Path, params: Tree, state: Any, transformation: Transformation) -> tuple[Tree, Any]:
    """Go on from a file that `save` wrote, here or in another framework.

    The hyperparameters remain those of the transformation.

    Args:
        path: The file.
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
    computation = computation_of(transformation)
    mine = rule_state(computation, state)
    held = dict(_leaves(params, mine))
    plan = _plan(computation, list(held), mine)
    raw, record = checkpoint.read_raw(Path(path))
    checkpoint.check_same(record, plan.record(0), checkpoint.COMPUTED)
    (saved,) = checkpoint.check_groups(record, plan.record(0))
    t, _ = checkpoint.counts(record)
    tensors = {key: _array(key, tensor) for key, tensor in raw.items()}
    ahead = {key: tensors.pop(key) for key in list(tensors) if key.startswith("lookahead/")}
    trees = {"x": params, **mine.states}
    checkpoint.check_tensors(
        tensors, {f"{key}/{name}": leaf for key, tree in trees.items() for name, leaf in _leaves(tree, mine)}
    )
    if ahead:
        checkpoint.check_tensors(ahead, {f"lookahead/{name}": leaf for name, leaf in held.items()})
    restored = RuleState(
        count=_like(mine.count, min(t, 2**31 - 1)),  # where steps stop counting, too
        scalars={name: _like(old, saved["scalar_states"][name]) for name, old in mine.scalars.items()},
        states={key: _replaced(tree, mine, key, tensors) for key, tree in mine.states.items()},
    )
    plan = _plan(computation, list(held), restored)
    points = {name: tensors[f"x/{name}"] for name in held}
    if plan.settings.stored_ahead:
        states = {key: {name: tensors[f"{key}/{name}"] for name in held} for key in mine.states}
        same = bool(ahead) and record.get("lookahead") == plan.lookahead_scalars(t)
        points = plan.points(t, points, states, to_weights=False) if not same else points
        points = {name: ahead[f"lookahead/{name}"] for name in held} if same else points
    new = _replaced(params, mine, "x", {f"x/{name}": point for name, point in points.items()})
    return new, jax.tree.map(lambda node: restored if node is mine else node, state, is_leaf=is_rule_state)


def _plan(computation: Computation, names: list[str], state: RuleState) -> Plan:
    """The plan for parameters of these names, with the scalar states as they are now."""
    if computation.mask is not None:
        raise ValueError("a transformation with a mask computes two formulas, but a file is of one: use two, in "
                         "optax.multi_transform, and a file for each")  # fmt: skip
    if jnp.ndim(state.count):
        raise ValueError(f"state has {jnp.shape(state.count)} counts, as under vmap, but a file is of one training: "
                         "take one of them out, and save or load it alone")  # fmt: skip
    plan = computation.plan_for(names)
    plan.groups[0].scalar_states = {name: float(value) for name, value in state.scalars.items()}
    return plan


def _leaves(tree: Tree, state: RuleState) -> Iterator[tuple[str, Any]]:
    """The entries of a tree like the parameters that this state is about, as arrays, with their names.

    Raises:
        ValueError: Two have the same name.
    """
    seen: dict[str, Any] = {}
    for path, leaf in _here(tree, state):
        name = ".".join(_word(key) for key in path) or "0"
        if name in seen:
            raise ValueError(f"two parameters are named {name!r}; rename one, as a file keeps them by name")
        seen[name] = jnp.asarray(leaf)
    yield from seen.items()


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


def _replaced(tree: Tree, state: RuleState, key: str, tensors: Mapping[str, Array]) -> Tree:
    """The tree with what the file has in the place of its entries."""
    new = {path: _like(leaf, tensors[f"{key}/{name}"]) for (name, leaf), (path, _) in zip(
        _leaves(tree, state), _here(tree, state), strict=True
    )}  # fmt: skip
    return jax.tree.map_with_path(lambda path, leaf: new.get(path, leaf), tree)


def _like(old: Any, value: Any) -> jax.Array:
    """A value with the dtype, and on the devices, of the one in whose place it goes."""
    old = jnp.asarray(old)
    new: jax.Array = jax.device_put(jnp.asarray(value, old.dtype), old.sharding)
    return new


def _array(key: str, raw: Raw) -> Array:
    if raw.dtype not in ("float64", "float32", "float16", "bfloat16"):
        raise CheckpointError(f"the file holds {key!r} as {raw.dtype}, which is not among the dtypes of downslope")
    return raw.data.view(jnp.dtype(raw.dtype)).reshape(raw.shape)
