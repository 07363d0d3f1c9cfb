"""A rule at a learning rate as an optimizer of the framework that the parameters are of."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.entrant import REST_RATIO, Entrant
from downslope.lab.problems.model import NO_MATRIX
from downslope.language.options import CHOICES
from downslope.rule import Rule
from downslope.splitting.models import split
from downslope.splitting.split import Split

KERAS, TORCH, JAX, NUMPY = "keras", "torch", "jax", "numpy"


def optimizer_for(
    params: Any, entrant: Entrant, lr: float, factors: NDArray[np.float64] | None = None, **more: Any
) -> Any:
    """An optimizer that runs a rule with its hyperparameters.

    Args:
        params: PyTorch's parameters, groups of them or a module: an optimizer of PyTorch. Keras's variables, a model of
            it, or None: one of Keras, for `model.compile`. A tree of JAX arrays: a gradient transformation of Optax.
            NumPy arrays: a `downslope.Optimizer`. Or what `downslope.split` made of a module, model or tree.
        entrant: The rule and its hyperparameters.
        lr: The learning rate.
        factors: What it is multiplied by at each step, the last number from there on; None: nothing.
        **more: What an optimizer of that framework takes besides.

    Raises:
        TypeError: The parameters are of no framework that downslope has a front end for, or of several; or the rule is
            for matrices, and which are inner ones cannot be told from them.
        ValueError: Keras cannot run the rule with its options; or the rule is for matrices, and there are none.
    """
    if entrant.rest is not None:
        return _beside(_split(params, entrant), entrant, lr, factors, more)
    params = _kept(params)
    framework = KERAS if params is None else framework_of(params)
    rule, given = entrant.settings.rule, {**arguments(entrant, lr), **more}
    if framework == TORCH:
        return _of_torch(params, rule, given, factors)
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


def groups_in_parts(split: Split, entrant: Entrant, lr: float) -> list[dict[str, Any]]:
    """PyTorch's groups of parameters for a rule for matrices and what trains the rest beside it.

    Raises:
        ValueError: There are no matrices, or nothing else.
    """
    _refuse_without(split)
    beside = entrant.rest_at(lr)
    assert beside is not None
    settings = [
        {"rule": one.settings.rule} | {k: v for k, v in arguments(one, its).items() if k not in _around(one)}
        for one, its in ((entrant, lr), beside)
    ]
    return split.groups(*settings)


def optimizer_of_parts(
    groups: list[dict[str, Any]], entrant: Entrant, factors: NDArray[np.float64] | None = None, **more: Any
) -> Any:
    """An optimizer of PyTorch for groups as `groups_in_parts` makes them."""
    return _of_torch(groups, None, {**_around(entrant), **more}, factors)


def _of_torch(params: Any, rule: Rule | None, given: Mapping[str, Any], factors: NDArray[np.float64] | None) -> Any:
    import downslope.torch

    optimizer = downslope.torch.Optimizer(params, rule, **given)
    if factors is not None:
        _follow(optimizer, factors)
    return optimizer


def _beside(
    split: Split, entrant: Entrant, lr: float, factors: NDArray[np.float64] | None, more: Mapping[str, Any]
) -> Any:
    """An optimizer that runs a rule for matrices on those between first and last layer, and another on the rest."""
    framework = framework_of([value for _, value in (*split.matrices, *split.rest)])
    if framework == TORCH:
        return optimizer_of_parts(groups_in_parts(split, entrant, lr), entrant, factors, **more)
    beside = entrant.rest_at(lr)
    assert beside is not None
    _refuse_without(split)
    if framework == JAX:
        import optax

        matrices, rest = (
            optimizer_for(split.tree, replace(one, rest=None), its, factors, **more)
            for one, its in ((entrant, lr), beside)
        )
        return optax.partition({"matrices": matrices, "rest": rest}, split.labels())
    if framework == KERAS:
        import keras

        first, second = (
            optimizer_for(None, replace(one, rest=None), its, factors, **more) for one, its in ((entrant, lr), beside)
        )
        return keras.optimizers.MultiOptimizer(_Choice({id(one) for _, one in split.matrices}, first, second))
    raise TypeError(
        f"{entrant.settings.rule.name} is for matrices, and an optimizer for NumPy arrays has one rule; make two of "
        "run.rule and downslope.adamw, for what downslope.split(...) says"
    )


class _Choice:
    """Which of two optimizers of Keras a variable has, as its `MultiOptimizer` asks; it wraps what is a dict."""

    def __init__(self, matrices: Collection[int], first: Any, second: Any):
        self._matrices, self._both = matrices, (first, second)

    def values(self) -> tuple[Any, Any]:
        """Both of them, that for matrices first."""
        return self._both

    def __call__(self, variable: Any) -> Any:
        return self._both[id(variable) not in self._matrices]


def _split(params: Any, entrant: Entrant) -> Split:
    """Which parameters are inner matrices.

    Raises:
        TypeError: Only the model could tell.
    """
    if isinstance(params, Split):
        return params
    model = _is(params, "torch.nn", "Module") or _is(params, "keras", "Model")
    if model or (isinstance(params, (Mapping, list, tuple)) and params and framework_of(params) in (JAX, NUMPY)):
        return split(params)
    raise TypeError(
        f"{entrant.settings.rule.name} is for the matrices between the first layer and the last, and which these are "
        "only the model tells: give the optimizer the model itself, or downslope.split(model) with your corrections"
    )


def _refuse_without(split: Split) -> None:
    """Refuse parameters of which none, or all, are inner matrices."""
    if not split.matrices:
        raise ValueError(f"the model {NO_MATRIX}; print(downslope.split(model)) says why of each parameter")
    if not split.rest:
        raise ValueError("the model has inner matrices only, and what is to train the rest has nothing to train")


def _around(entrant: Entrant) -> dict[str, bool]:
    """The options around a rule that are a choice, and on."""
    return {name: True for name in CHOICES if name in entrant.settings.options}


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
    settings, on = entrant.settings, _around(entrant)
    numbers = {name: value for name, value in entrant.numbers.items() if name != REST_RATIO}
    return {**numbers, **settings.choices, **on, "lr": lr}


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
    if isinstance(params, Split):
        return [entry.value for entry in params] if params.tree is None else params.tree
    if _is(params, "keras", "Model"):  # on its backend of PyTorch it is one of its modules too
        return None
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
