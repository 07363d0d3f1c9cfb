"""The recipe of an optimizer as somebody has it in a program: an object of a framework, or its class and settings."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from downslope.dialects import DIALECTS
from downslope.recipes.recipe import Recipe
from downslope.recipes.spelled import read_recipe
from downslope.rule import Rule

HOW = ("params", "param_names", "foreach", "fused", "capturable", "differentiable", "initial_lr")
"""What stands in PyTorch's parameter groups and changes no number."""

OF_YOUR_OWN = "write its formula as a rule, with @downslope.rule, and give downslope.Recipe(my_rule, lr=...)"

UNUSED = ("maximize", "initial_accumulator_value", "decoupled_weight_decay")
"""What changes nothing where it is 0 or false, and then need not have a counterpart."""

KERAS_BASE = {
    "name": None,
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
"""What every optimizer of Keras has, and what it is where it is not used."""

_MODULES = {
    "torch": ("torch.optim", "downslope.torch"),
    "keras": ("keras", "downslope.keras"),
    "optax": ("optax", "downslope.optax"),
}


def recipe_of(optimizer: Any) -> Recipe:
    """The recipe of an optimizer.

    Args:
        optimizer: One of these: an optimizer of PyTorch or Keras, whose settings are read and whose weights are left
            alone; a class of theirs or a function of Optax with its settings, as in
            `functools.partial(optax.adam, learning_rate=1e-3)`, or without, for its defaults; a rule; or a recipe.

    Raises:
        TypeError: It is none of these, or a setting is of the wrong kind, such as a schedule.
        ValueError: Its settings have no counterpart in a recipe.

    Example:
        >>> import torch
        >>> recipe_of(torch.optim.AdamW([torch.zeros(1)], lr=3e-4))
        Recipe(dialects.torch.adam, lr=0.0003, weight_decay=0.01, decoupled_weight_decay=True)
    """
    if isinstance(optimizer, Recipe):
        return optimizer
    if isinstance(optimizer, Rule):
        return Recipe(optimizer)
    if type(optimizer).__module__.startswith("downslope.") and hasattr(optimizer, "rule"):
        raise TypeError(f"{optimizer!r} is downslope's own; give a downslope.Recipe of its rule and settings")
    if _is(optimizer, "torch.optim", "Optimizer"):
        return _of_torch(optimizer)
    if _is(optimizer, "keras", "Optimizer", "optimizers"):
        return _of_keras(optimizer)
    if _is(optimizer, "optax", "GradientTransformation"):
        raise TypeError(
            f"{optimizer!r} does not say what it computes; give its function and settings, as in "
            f"functools.partial(optax.adam, learning_rate=1e-3); {OF_YOUR_OWN}"
        )
    function, settings = _call(optimizer)
    module = getattr(function, "__module__", "") or ""
    for dialect, modules in _MODULES.items():
        if any(f"{module}.".startswith(f"{name}.") for name in modules):
            return _read(dialect, function.__name__, settings)
    raise TypeError(
        f"{optimizer!r} is no optimizer that downslope can read; give one of PyTorch or Keras, the class or function "
        "of one with its settings as functools.partial(optax.adam, learning_rate=1e-3), or a downslope.Recipe"
    )


def _read(dialect: str, name: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a class or function of a framework.

    Raises:
        ValueError: There is no rule for it, or as `read_recipe` does.
        TypeError: As there.
    """
    known = DIALECTS[dialect]
    if not known.named(name):
        raise ValueError(f"downslope has no rule for {name} of {known.framework}; {OF_YOUR_OWN}")
    return read_recipe(dialect, name, settings)


def _call(optimizer: Any) -> tuple[Any, dict[str, Any]]:
    """A class or function, and the settings that it is to be called with."""
    if not isinstance(optimizer, functools.partial):
        return optimizer, {}
    given = dict(optimizer.keywords)
    if optimizer.args:
        names = [name for name in inspect.signature(optimizer.func).parameters if name not in ("self", "params")]
        given = {**dict(zip(names, optimizer.args, strict=False)), **given}
    return optimizer.func, given


def _of_torch(optimizer: Any) -> Recipe:
    groups = [{k: v for k, v in group.items() if k not in HOW} for group in optimizer.param_groups]
    _refuse_differing(groups)
    settings = {name: _plain(value) for name, value in groups[0].items() if value or name not in UNUSED}
    return _read("torch", type(optimizer).__name__, settings)


def _refuse_differing(groups: Sequence[Mapping[str, Any]]) -> None:
    for group in groups[1:]:
        if differing := [name for name, value in group.items() if value != groups[0].get(name)]:
            name = differing[0]
            raise ValueError(
                f"its parameter groups differ in {name} ({groups[0].get(name)!r} and {group[name]!r}), and a recipe "
                "has one of each; give an optimizer with one group"
            )


def _of_keras(optimizer: Any) -> Recipe:
    config = dict(optimizer.get_config())
    rate = config.pop("learning_rate")
    if not isinstance(rate, (int, float)):
        raise TypeError("its learning rate is a schedule; give an optimizer with the schedule's highest value")
    base = {name: config.pop(name, unused) for name, unused in KERAS_BASE.items()}
    decay = base.pop("weight_decay")
    used = [name for name, value in base.items() if name != "name" and value != KERAS_BASE[name]]
    used = [name for name in used if name != "ema_momentum" or base["use_ema"]]
    if used:
        raise ValueError(f"{used[0]}={base[used[0]]!r} is no part of a recipe; give an optimizer without it")
    settings = {**config, "learning_rate": float(str(np.float32(rate)))}  # as it was written
    if decay is not None:
        settings["weight_decay"] = decay
    return _read("keras", type(optimizer).__name__, settings)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _is(value: Any, module: str, name: str, inside: str = "") -> bool:
    """Whether a value is of a class of a framework, which is loaded if it is."""
    there = sys.modules.get(module)
    return isinstance(value, getattr(getattr(there, inside, None) if inside else there, name, ()))
