"""What every downslope optimizer for PyTorch takes besides the hyperparameters of its rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Literal

import torch
from torch.optim import optimizer as torch_optimizer

from downslope.backends.cpu import ROUNDINGS
from downslope.language.options import NAMES, NUMBERS, OccasionalOptions, OwnOptions, UsualOptions
from downslope.language.ranges import Range, check_number
from downslope.rule import Rule
from downslope.torch.launch import Storage
from downslope.training.arguments import every_option, keywords
from downslope.training.checks import LOOKAHEADS, check_seed, check_threads, one_of
from downslope.training.groups import POLICIES
from downslope.training.settings import wanted


class Extras(OccasionalOptions[float | torch.Tensor], OwnOptions[float | torch.Tensor], total=False):
    """What all of them take, `torch.optim`'s included.

    Attributes:
        averaging: See `downslope.Options`, and so for `cautious` and `max_norm`. The average of parameters in half
            precision is kept in single precision; see `Optimizer.at_average`.
        nonfinite: What to do when a gradient holds nan or infinity: "keep" lets it through, "raise" raises, "skip"
            leaves everything as it is and counts the step in `skipped`.
        state_dtype: The dtype of the states, `torch.bfloat16` for instance; by default that of their parameters. With
            `torch.uint8` every state of which the rule's formula shows that eight bits do is kept as codes, with a
            scale for each block of 256 weights; see `downslope.torch.codes`.
        rounding: How new bfloat16 weights are rounded: "nearest"; "compensated" keeps what is lost in a second
            bfloat16 tensor and adds it before the next step (Kahan, 1965); "stochastic" rounds up or down at random, so
            that the mean is right, by `seed`, number of the step and place.
        seed: The seed of stochastic rounding, and of that of states in eight bits.
        threads: How many threads may share a launch; by default as many as there are processors.
    """

    nonfinite: Literal["keep", "raise", "skip"]
    state_dtype: torch.dtype | None
    rounding: Literal["nearest", "compensated", "stochastic"]
    seed: int
    threads: int | None


class ClassicOptions(Extras, total=False):
    """What optimizers of `torch.optim` take besides their hyperparameters, each of them some, and all the extras.

    Attributes:
        maximize: Walk up.
        foreach: Which implementation of `torch.optim`'s to run; downslope has one, which is fused. It is kept in the
            parameter groups, so that a `state_dict` finds it when it goes back.
        fused: The same.
        capturable: Let `torch.cuda.graph` record steps: the count of steps, and hyperparameters given as tensors on the
            GPU, are then read there. For parameters on a GPU only.
        differentiable: Refused: the step is compiled code that PyTorch's graphs cannot contain.
    """

    maximize: bool
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool


class Arguments(UsualOptions[float | torch.Tensor], Extras, total=False):
    """What `Optimizer` takes by name besides the hyperparameters of its rule.

    Attributes:
        lookahead: For a rule that takes its gradient ahead of the weights: "stored" keeps the point ahead in the
            parameters, so that the ordinary loop takes its gradient there, and `at_weights` moves to the weights
            themselves; "explicit" keeps the weights, and the gradient is to be taken inside `at_lookahead`.
        capturable: See `ClassicOptions`.
    """

    lookahead: Literal["stored", "explicit"]
    capturable: bool


STORING = {"nonfinite": "keep", "state_dtype": None, "rounding": "nearest", "seed": 0, "threads": None}
"""What they have, beside options, where nothing is given."""

EXTRAS = (*every_option(but=UsualOptions.__annotations__), *keywords(STORING))
"""The extras, as parameters."""


def carried(order: str) -> list[Parameter]:
    """What a class of `torch.optim` takes besides its hyperparameters.

    Args:
        order: The names as its signature has them, and a star before those that are given by name only.
    """
    by_place, _, by_name = order.partition("*")
    return [
        Parameter(name, kind, default=None if name in ("foreach", "fused") else False)
        for names, kind in ((by_place, Parameter.POSITIONAL_OR_KEYWORD), (by_name, Parameter.KEYWORD_ONLY))
        for name in names.replace(",", " ").split()
    ]


@dataclass(frozen=True)
class Chosen:
    """The options as chosen, each checked.

    Attributes:
        options: The names of those that are wanted, but for `max_norm`.
        numbers: Those that are hyperparameters.
        storage: What `state_dtype`, `rounding` and `seed` come to.
    """

    options: frozenset[str]
    numbers: Mapping[str, Any]
    max_norm: float | None
    nonfinite: str
    storage: Storage
    threads: int | None

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> Chosen:
        """Check what was chosen: all the extras, and options.

        Raises:
            TypeError: A value is of the wrong kind.
            ValueError: A value is not one of those there are, or out of range.
        """
        chosen = wanted({name: value for name, value in given.items() if name in NAMES})
        max_norm = given["max_norm"]
        return cls(
            options=frozenset(chosen - {"max_norm"}),
            numbers={name: given[name] for name in NUMBERS if name in chosen},
            max_norm=None if max_norm is None else check_number("max_norm", max_norm, Range(0.0, math.inf)),
            nonfinite=one_of("nonfinite", given["nonfinite"], POLICIES),
            storage=_storage(given["state_dtype"], one_of("rounding", given["rounding"], ROUNDINGS), given["seed"]),
            threads=check_threads(given["threads"]),
        )


def sort_out(rule: Rule | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """What `Optimizer` takes: what stands in its groups, options and extras, and whether points ahead are stored.

    Args:
        rule: Its rule, if there is one for all groups; a hyperparameter of the name of an option is the rule's.
        given: Everything by name, with the defaults of what is not given.

    Raises:
        TypeError: A name is unknown, or a value is of the wrong kind.
        ValueError: `lookahead` is not one of those there are.
    """
    settings = dict(given)
    lookahead, maximize, capturable = (settings.pop(name) for name in ("lookahead", "maximize", "capturable"))
    wanted({"maximize": maximize})  # raises if it is neither True nor False
    defaults = {} if rule is None else {**rule.hyperparameters, **rule.flags}
    extras = {name: settings.pop(name) for name in (*NAMES, *STORING) if name in settings and name not in defaults}
    settings = {name: value for name, value in settings.items() if value is not None or name not in NUMBERS}
    for name in settings:
        if rule is None:
            raise TypeError(
                f"{name}={settings[name]!r} is no option of every optimizer, and there is no rule for all groups to "
                "take it; give it in the groups"
            )
        if name not in defaults:
            rule.checked(name, None)  # raises, naming those that there are
    found = defaults | settings
    groups = {name: torch_optimizer.required if value is None else value for name, value in found.items()}
    groups |= {"maximize": maximize, **({"capturable": capturable} if capturable else {})}
    return groups, extras, one_of("lookahead", lookahead, LOOKAHEADS) == "stored"


def _storage(dtype: Any, rounding: str, seed: Any) -> Storage:
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"state_dtype={dtype!r}: give a torch.dtype, such as torch.bfloat16")
    return Storage(dtype, rounding, check_seed(seed))
