"""A rule at a learning rate as an optimizer of the framework that the parameters are of."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.protocol import Entrant
from downslope.language.options import CHOICES

KERAS, TORCH, JAX, NUMPY = "keras", "torch", "jax", "numpy"


def optimizer_for(
    params: Any, entrant: Entrant, lr: float, factors: NDArray[np.float64] | None = None, **more: Any
) -> Any:
    """An optimizer that runs a rule with its hyperparameters.

    Args:
        params: PyTorch's parameters, groups of them or a module: an optimizer of PyTorch. Keras's variables, or None:
            one of Keras, for `model.compile`. A tree of JAX arrays: a gradient transformation of Optax. NumPy arrays: a
            `downslope.Optimizer`.
        entrant: The rule and its hyperparameters.
        lr: The learning rate.
        factors: What it is multiplied by at each step, the last number from there on; None: nothing.
        **more: What an optimizer of that framework takes besides.

    Raises:
        TypeError: The parameters are of no framework that downslope has a front end for, or of several.
        ValueError: Keras cannot run the rule with its options.
    """
    params = _kept(params)
    framework = KERAS if params is None else framework_of(params)
    rule, given = entrant.settings.rule, {**arguments(entrant, lr), **more}
    if framework == TORCH:
        import downslope.torch

        optimizer = downslope.torch.Optimizer(params, rule, **given)
        if factors is not None:
            _follow(optimizer, factors)
        return optimizer
    if framework == JAX:
        import downslope.optax

        changing = {} if factors is None else {"lr": _traced(lr, factors)}
        return downslope.optax.optimizer(rule, **given | changing)
    if framework == KERAS:
        import downslope.keras

        changing = {} if factors is None else {"lr": _for_fit(lr, factors)}
        return downslope.keras.Optimizer(rule, **_for_keras(entrant, given | changing))
    from downslope.numpy.optimizer import Optimizer

    if factors is not None:
        given["lr"] = lambda t: lr * factor_at(factors, t - 1)
    return Optimizer(params, rule, **given)


def factor_at(factors: NDArray[np.float64], step: int) -> float:
    """The factor after so many steps."""
    return float(factors[min(step, len(factors) - 1)])


def _follow(optimizer: Any, factors: NDArray[np.float64]) -> None:
    """Have an optimizer of PyTorch change its learning rates after each of its steps."""
    from torch.optim.lr_scheduler import LambdaLR

    scheduler = LambdaLR(optimizer, lambda step: factor_at(factors, step))
    optimizer.register_step_post_hook(lambda *_: scheduler.step())


def _traced(lr: float, factors: NDArray[np.float64]) -> Any:
    """A schedule of Optax."""
    import jax.numpy as jnp

    rates = jnp.asarray(lr * factors)
    return lambda count: rates[jnp.minimum(count, len(factors) - 1)]


def _for_fit(lr: float, factors: NDArray[np.float64]) -> Any:
    """A schedule of Keras."""
    import keras

    class Rates(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            rates = keras.ops.convert_to_tensor((lr * factors).astype(np.float32))
            return keras.ops.take(rates, keras.ops.minimum(keras.ops.cast(step, "int32"), len(factors) - 1))

        def get_config(self) -> dict[str, Any]:
            return {"lr": lr, "factors": factors.tolist()}

    return Rates()


def weights_of(made: Sequence[Any], params: Any, state: Any) -> Any:
    """The weights of a tree that one of these transformations trains.

    Args:
        made: What was made for the run that trains it.
        params: The tree.
        state: The transformation's state.

    Raises:
        ValueError: There are several.
    """
    from downslope.optax import weights
    from downslope.optax.transformation import Transformation

    ours = [one for one in made if isinstance(one, Transformation)]
    if len(ours) > 1:
        raise ValueError(
            f"weights: the run has made {len(ours)} transformations; give the one that is meant to "
            "downslope.optax.weights(transformation, params, state)"
        )
    return weights(ours[0], params, state) if ours else params


def arguments(entrant: Entrant, lr: float) -> dict[str, Any]:
    """Everything that an optimizer of downslope is given besides the rule: numbers, flags, and options that are on."""
    settings = entrant.settings
    on = {name: True for name in CHOICES if name in settings.options}
    return {**entrant.numbers, **settings.choices, **on, "lr": lr}


def framework_of(params: Any) -> str:
    """The framework that all parameters are of."""
    found = {_framework(leaf) for leaf in _leaves(params)}
    if len(found) == 1 and (only := found.pop()):
        return only
    kinds = sorted({type(leaf).__name__ for leaf in _leaves(params)})
    raise TypeError(
        f"params: a downslope optimizer is for parameters of PyTorch, variables of Keras, JAX arrays or NumPy arrays, "
        f"found {', '.join(kinds) or 'nothing'}; give those of one framework, or nothing for an optimizer of Keras"
    )


def _kept(params: Any) -> Any:
    """The parameters, of a module its own, and what can be read once only as a list."""
    if _is(params, "torch.nn", "Module"):
        return list(params.parameters())
    if isinstance(params, list) and params and all(isinstance(one, dict) for one in params):
        return [{**one, "params": _kept(one["params"])} if "params" in one else one for one in params]
    return list(params) if hasattr(params, "__next__") else params


def _leaves(params: Any) -> Iterable[Any]:
    if _framework(params) is not None:
        yield params
    elif isinstance(params, Mapping):
        for key, value in params.items():
            if not ("params" in params and key != "params"):  # a group: what is beside are its hyperparameters
                yield from _leaves(value)
    elif isinstance(params, tuple) and len(params) == 2 and isinstance(params[0], str):
        yield params[1]  # one of PyTorch's named parameters
    elif isinstance(params, (list, tuple)):
        for one in params:
            yield from _leaves(one)
    elif (jax := sys.modules.get("jax")) is not None and (leaves := jax.tree.leaves(params)) != [params]:
        yield from leaves
    else:
        yield params


def _framework(leaf: Any) -> str | None:
    if _is(leaf, "torch", "Tensor"):
        return TORCH
    if _is(leaf, "keras", "Variable"):
        return KERAS
    if _is(leaf, "jax", "Array"):
        return JAX
    return NUMPY if _is(leaf, "numpy", "ndarray") else None


def _is(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a framework, which is loaded if it is."""
    return isinstance(value, getattr(sys.modules.get(module), name, ()))


def _for_keras(entrant: Entrant, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as Keras's optimizers have them, whose weight decay is decoupled."""
    kept = {name: value for name, value in given.items() if name != "decoupled"}
    options = entrant.settings.options
    lacking = {"maximize": "maximize", "cautious_decay": "cautious weight decay"}
    unfit = next((words for name, words in lacking.items() if name in options), "")
    if not unfit and "weight_decay" in options and "decoupled" not in options:
        unfit = "coupled weight decay"
    if unfit:
        raise ValueError(f"Keras's optimizers have no {unfit}; put it into the loss, and leave it out of the optimizer")
    return kept
