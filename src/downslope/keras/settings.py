"""What an optimizer is made with, checked and settled."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import keras
import numpy as np

from downslope.keras.precision import number
from downslope.language.options import NAMES, NUMBERS, OwnOptions, option_range
from downslope.language.program import Program
from downslope.language.ranges import Range, check_number, usual_range
from downslope.rule import Rule
from downslope.training.checks import LOOKAHEADS, one_of
from downslope.training.settings import Settings, wanted


class BaseOptions(TypedDict, total=False):
    """What Keras's base class takes besides a learning rate and a weight decay.

    Attributes:
        clipnorm: The largest norm of each variable's gradient.
        clipvalue: The largest absolute value in a gradient.
        global_clipnorm: The largest norm of all gradients together.
        use_ema: Keep a moving average of the weights.
        ema_momentum: Its decay.
        ema_overwrite_frequency: After how many steps the weights are overwritten by it, if at all.
        loss_scale_factor: What the loss is multiplied by before, and the gradients divided by after backpropagation.
        gradient_accumulation_steps: Over how many steps gradients are averaged before an update.
        name: The optimizer's name.
    """

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class RestOptions(BaseOptions, OwnOptions[float], total=False):
    """What an optimizer with a weight decay among its hyperparameters takes besides them."""


class KerasOptions(RestOptions, total=False):
    """What an optimizer takes besides hyperparameters.

    Attributes:
        weight_decay: `x - learning_rate * weight_decay * x` before the step.
    """

    weight_decay: float | None


class Arguments(KerasOptions, total=False):
    """What `Optimizer` takes by name besides the hyperparameters of its rule.

    Attributes:
        weight_decay: For a rule with a hyperparameter of this name, that hyperparameter; else Keras's weight decay.
        lookahead: For a rule that takes its gradient ahead of the weights: None keeps the point ahead in the model's
            variables, so that `fit` takes its gradient there, and has `fit` insist on the callback `AtWeights`, without
            which other callbacks would take that point for the weights. "stored" does not insist, for code that minds
            it with `at_weights`. "explicit" keeps the weights, and the gradient is to be taken inside `at_lookahead`.
    """

    lookahead: Literal["stored", "explicit"] | None


_KERAS = inspect.signature(keras.optimizers.Adam).parameters  # the base class itself says *args on TensorFlow

DEFAULTS = {name: _KERAS[name].default for name in ("weight_decay", *BaseOptions.__annotations__)}
"""What Keras's base class takes besides a learning rate, in its order, with its defaults."""

BASE = tuple(name for name in DEFAULTS if name != "name")
"""The options of Keras's base class."""

TAKEN = tuple(OwnOptions.__annotations__)
"""The options of downslope that Keras has nothing of its own for."""

ELSEWHERE = tuple(name for name in NAMES if name not in TAKEN)
"""The other ones."""


@dataclass(frozen=True)
class KerasSettings:
    """A rule with its hyperparameters and options, read.

    Attributes:
        settled: The rule with its options.
        chosen: Hyperparameters and flags but `lr`, by the names they have in Keras; a weight decay only if it is a part
            of the program.
        numbers: The program's hyperparameters but `lr`.
    """

    settled: Settings
    chosen: Mapping[str, Any]
    numbers: Mapping[str, float]

    @property
    def program(self) -> Program:
        """The rule with its options, read."""
        return self.settled.program

    @property
    def move(self) -> Program | None:
        """From the weights to the point ahead, if that is what the variables hold."""
        ahead = self.settled.ahead
        return ahead.to_point if ahead is not None and self.settled.stored_ahead else None

    @classmethod
    def make(
        cls,
        rule: Rule,
        chosen: Mapping[str, Any],
        names: Mapping[str, str],
        options: Mapping[str, Any],
        *,
        stored: bool,
    ) -> KerasSettings:
        """Settle a rule with these hyperparameters.

        Args:
            rule: What a step computes.
            chosen: See above; there may be some that this rule does not have.
            names: The rule's name of each that has another one.
            options: Those of `TAKEN`.
            stored: Keep the point ahead in the variables, if the rule has one.

        Raises:
            TypeError: A value is of the wrong kind, or missing.
            ValueError: A value is out of range.
            FormulaError: The rule cannot be compiled, or an option does not fit it.
        """
        own = {*rule.hyperparameters, *rule.flags}
        for name, value in chosen.items():
            _check(rule, name, names.get(name, name), value)
        given = {names.get(name, name): value for name, value in chosen.items() if value is not None}
        standing = {"lr": 0.0} if "lr" in own else {}
        complete = rule.complete({**{name: value for name, value in given.items() if name in own}, **standing})
        flags = {name: complete[name] for name in rule.flags}
        numbers = {name: complete[name] for name in rule.hyperparameters if name != "lr"}
        decay = "weight_decay" in given and "weight_decay" not in own
        if decay:
            numbers["weight_decay"] = check_number("weight_decay", given["weight_decay"], usual_range("weight_decay"))
        around = wanted(options)
        numbers |= {name: check_number(name, options[name], option_range(name)) for name in NUMBERS if name in around}
        around |= {"weight_decay", "decoupled"} if decay else set()
        made = cls(Settings.of(rule, flags, around, stored_ahead=stored), dict(chosen), numbers)
        if made.move is not None and "lr" in made.move.scalars:
            raise ValueError(
                f"the look-ahead of {rule.name} depends on lr, which callbacks may change between two steps, while "
                "stored points stay where they were; give lookahead='explicit'"
            )
        return made


def _check(rule: Rule, name: str, ours: str, value: Any) -> None:
    """Check one hyperparameter or flag under the name it has in Keras."""
    if ours in rule.flags and not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r}: give True or False")
    if ours in rule.hyperparameters and (value is not None or rule.hyperparameters[ours] is not None):
        check_number(name, value, rule.ranges[ours])


def check_options(rule: Rule, lookahead: Any, base: Mapping[str, Any]) -> None:
    """Make sure that options fit a rule and each other.

    Args:
        rule: What a step computes.
        lookahead: `"stored"` or `"explicit"`: where the point ahead is kept.
        base: The arguments of Keras's base class.

    Raises:
        TypeError: A value is of the wrong kind, or the rule has no use for it.
        ValueError: A value is unknown, or two do not go together.
    """
    one_of("lookahead", lookahead, LOOKAHEADS)
    for name in ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"):
        value = base[name]  # of which Keras leaves those that make no sense out of account
        if value is not None and not check_number(name, value, Range(0.0, math.inf)) > 0:
            raise ValueError(f"{name}={value!r} is out of range; give a number above 0, or None")
    clips = [name for name in ("clipnorm", "clipvalue", "global_clipnorm") if base[name] is not None]
    if len(clips) > 1:
        given = ", ".join(f"{name}={base[name]!r}" for name in clips)
        raise ValueError(f"{given}: only one of clipnorm, clipvalue and global_clipnorm can be set; leave the rest out")
    if not isinstance(base["use_ema"], (bool, np.bool_)):
        raise TypeError(f"use_ema={base['use_ema']!r}: give True or False")
    check_number("ema_momentum", base["ema_momentum"], Range(0.0, 1.0))
    often = base["ema_overwrite_frequency"]
    if often is not None and (isinstance(often, bool) or not isinstance(often, (int, np.integer)) or often < 0):
        raise ValueError(f"ema_overwrite_frequency={often!r}: give a whole number of steps of at least 1, or None")
    steps = base["gradient_accumulation_steps"]
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 2):
        raise ValueError(f"gradient_accumulation_steps={steps!r}: give a whole number of at least 2, or None")
    decay = base["weight_decay"]
    if decay is not None:
        check_number("weight_decay", decay, usual_range("weight_decay"))
    if decay is not None and not {"lr", "weight_decay"} & {*rule.hyperparameters}:
        raise TypeError(f"weight_decay={decay!r}: {rule.name} has no lr to multiply it with")
    if base["use_ema"] and rule.ahead is not None and lookahead == "stored":
        raise ValueError(
            f"use_ema=True would average the points ahead that {rule.name} keeps in the variables, not the weights; "
            "leave it out, or give lookahead='explicit'"
        )


def rate_of(rule: Rule, learning_rate: Any) -> Any:
    """What Keras's base class takes as the learning rate of this rule.

    Raises:
        TypeError: The rule has no learning rate, or no default for it, or it is of the wrong kind.
        ValueError: It is out of range.
    """
    if "lr" not in rule.hyperparameters:
        if learning_rate is not None:
            raise TypeError(f"learning_rate={learning_rate!r}: {rule.name} has no hyperparameter lr")
        return 0.0
    if learning_rate is None:
        learning_rate = rule.hyperparameters["lr"]
        if learning_rate is None:
            raise TypeError(f"{rule.name} has no default for lr; give learning_rate=...")
    return learning_rate if callable(learning_rate) else checked_rate(rule, learning_rate)


def checked_rate(rule: Rule, value: Any) -> Any:
    """A learning rate that is a number, perhaps in a tensor or variable; a symbolic tensor stays as it is.

    Raises:
        TypeError: It is something else, or more than one number.
        ValueError: It is out of range.
    """
    if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
        if tuple(value.shape) != ():
            raise TypeError(f"learning_rate is a tensor of shape {tuple(value.shape)}; expected one number")
        try:
            value = number(value)
        except (TypeError, AttributeError, NotImplementedError):  # inside a compiled function nobody knows it yet
            return value
    return check_number("learning_rate", value, rule.ranges["lr"])
