"""The weights themselves, where parameters hold a point ahead of them, and the average of the weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from downslope.optax.computation import Computation
from downslope.optax.transformation import RuleState, Transformation, Tree


def weights(transformation: Transformation, params: Tree, state: Any) -> Tree:
    """The weights themselves, for evaluation: they differ from `params` where these hold a look-ahead's point.

    Args:
        transformation: One of downslope's, as it was made: not what Optax has wrapped around it.
        params: The pytree that is trained.
        state: The state, also of a chain or wrapper that the transformation is in.

    Raises:
        TypeError: The transformation is not one of downslope's.
        ValueError: The parameters have to be moved, and there is not just one state of the transformation in `state`.

    Example:
        >>> import jax.numpy as jnp, optax, downslope, downslope.optax
        >>> transformation = downslope.optax.optimizer(downslope.nesterov, lr=0.1, mu=0.5)
        >>> x = jnp.array([1.0])
        >>> state = transformation.init(x)
        >>> updates, state = transformation.update(jnp.array([2.0]), state)
        >>> x = optax.apply_updates(x, updates)
        >>> print(x, downslope.optax.weights(transformation, x, state))
        [0.7] [0.8]
    """
    computation = computation_of(transformation)
    return _moved(computation, params, state, to_weights=True) if computation.chosen.stored_ahead else params


def point_ahead(transformation: Transformation, params: Tree, state: Any) -> Tree:
    """The point at which the gradient is to be taken, for `lookahead="explicit"`; else the parameters, which hold it.

    Args:
        transformation: One of downslope's, as it was made: not what Optax has wrapped around it.
        params: The pytree that is trained.
        state: The state, also of a chain or wrapper that the transformation is in.

    Raises:
        TypeError: The transformation is not one of downslope's.
        ValueError: The parameters have to be moved, and there is not just one state of the transformation in `state`.
    """
    computation = computation_of(transformation)
    explicit = computation.chosen.rule.ahead is not None and not computation.chosen.stored_ahead
    return _moved(computation, params, state, to_weights=False) if explicit else params


def average(state: Any) -> Tree:
    """The moving average of the weights that a transformation made with `averaging=...` keeps.

    Args:
        state: The state, also of a chain or wrapper that the transformation is in.

    Raises:
        ValueError: There is not just one average in `state`.

    Example:
        >>> import jax.numpy as jnp, downslope, downslope.optax
        >>> transformation = downslope.optax.optimizer(downslope.sgd, lr=1.0, averaging=0.75)
        >>> x = jnp.array([8.0])
        >>> _, state = transformation.update(jnp.array([4.0]), transformation.init(x), x)
        >>> print(downslope.optax.average(state))
        [7.]
    """
    found = [one for one in _rule_states(state) if "average" in one.states]
    if len(found) != 1:
        raise ValueError(
            f"there are {len(found)} averages of weights in this state; expected one, of a transformation made with "
            "averaging=0.999, say. Of several, pass the state that holds the one"
        )
    return found[0].states["average"]


def computation_of(transformation: Any) -> Computation:
    """What a transformation computes.

    Raises:
        TypeError: It is not one of downslope's.
    """
    if not isinstance(transformation, Transformation):
        raise TypeError(
            f"transformation={transformation!r:.200} is not one that downslope.optax made; of a chain or a wrapper, "
            "such as that of optax.inject_hyperparams, pass what is inside, made with the same hyperparameters"
        )
    return transformation.computation


def rule_state(computation: Computation, state: Any) -> RuleState:
    """The state that belongs to what a transformation computes.

    Raises:
        ValueError: There is none, or more than one.
    """
    program = computation.program
    wanted = program.states.keys(), program.scalar_states.keys()
    found = [one for one in _rule_states(state) if (one.states.keys(), one.scalars.keys()) == wanted]
    if len(found) != 1:
        raise ValueError(
            f"there are {len(found)} states of {computation.chosen.rule.name} with these options in "
            f"state={state!r:.200}; expected one. Of several, pass the state that holds the one"
        )
    return found[0]


def is_rule_state(node: Any) -> bool:
    """Whether this is the state of a rule, wherever it stands in the states of others."""
    return isinstance(node, RuleState)


def is_masked(node: Any) -> bool:
    """Whether a parameter has been left out here by `optax.masked` or `optax.multi_transform`."""
    return isinstance(node, optax.MaskedNode)


def _rule_states(state: Any) -> list[RuleState]:
    return [node for node in jax.tree.leaves(state, is_leaf=is_rule_state) if is_rule_state(node)]


def _moved(computation: Computation, params: Tree, state: Any, *, to_weights: bool) -> Tree:
    """The parameters, moved between the weights and the point ahead."""
    mine = rule_state(computation, state)
    ahead = computation.chosen.ahead
    assert ahead is not None
    scalars = computation.scalars(ahead.to_point, mine.count, mine.scalars)

    def moved(*arrays: Any) -> Any:
        *states, x = arrays
        if any(map(is_masked, states)):
            return x
        dtype = jnp.result_type(x)
        working = jnp.promote_types(dtype, jnp.float32)
        given = {name: jnp.asarray(array, working) for name, array in zip(mine.states, states, strict=True)}
        return ahead.move(jnp.asarray(x, working), given, scalars, to_weights=to_weights, xp=jnp).astype(dtype)

    return jax.tree.map(moved, *mine.states.values(), params, is_leaf=is_masked)
