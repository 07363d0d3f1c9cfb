"""downslope in Optax: any rule as a gradient transformation, and Optax's own optimizers with its numbers.

Example:
    >>> import jax.numpy as jnp, optax
    >>> import downslope, downslope.optax
    >>> transformation = downslope.optax.optimizer(downslope.radam, lr=0.1)  # or downslope.optax.adam(0.1)
    >>> params = {"W": jnp.ones(3)}
    >>> state = transformation.init(params)
    >>> updates, state = transformation.update({"W": jnp.ones(3)}, state, params)
    >>> optax.apply_updates(params, updates)["W"]
    Array([0.9, 0.9, 0.9], dtype=float32)
"""

try:
    import jax
    import optax
except ImportError as error:
    raise ImportError('downslope.optax needs JAX and Optax: pip install "downslope[jax]"') from error

from downslope.optax.classic import (
    adabelief,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamaxw,
    adamw,
    amsgrad,
    lion,
    nadam,
    nadamw,
    radam,
    rmsprop,
    sgd,
)
from downslope.optax.points import average, point_ahead, weights
from downslope.optax.training import load, save
from downslope.optax.transformation import RuleState, Transformation, factory, optimizer

__all__ = [
    "RuleState",
    "Transformation",
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "amsgrad",
    "average",
    "factory",
    "lion",
    "load",
    "nadam",
    "nadamw",
    "optimizer",
    "point_ahead",
    "radam",
    "rmsprop",
    "save",
    "sgd",
    "weights",
]

del jax, optax
