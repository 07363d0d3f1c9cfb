"""The optimizer for Keras: a `keras.optimizers.Optimizer` for any rule, on whichever backend Keras runs."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack, overload

import keras
from keras import ops

from downslope.keras import training
from downslope.keras.precision import check_dtypes, of_precision, plain, precision, tensor
from downslope.keras.rule_names import find, name_of
from downslope.keras.settings import (
    BASE,
    DEFAULTS,
    ELSEWHERE,
    TAKEN,
    Arguments,
    KerasSettings,
    check_options,
    checked_rate,
    rate_of,
)
from downslope.keras.states import States
from downslope.language.options import CHOICES, NUMBERS
from downslope.language.ranges import check_number, usual_range
from downslope.language.together import divided
from downslope.rule import Rule
from downslope.targets.arrays import interpret_body, interpret_scalars, with_sums
from downslope.targets.shapes import check_shapes
from downslope.training.arguments import every_option, keywords, takes
from downslope.training.checks import check_rule

Schedule = Callable[..., Any]

REMEDY = (
    "give each part of the model its own rule with keras.optimizers.MultiOptimizer; downslope.split(model) proposes "
    "both parts"
)
"""What to do with a variable of a shape that the rule cannot work on."""


@keras.saving.register_keras_serializable(package="downslope")
class Optimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Trains a Keras model by any rule.

    A real `keras.optimizers.Optimizer`: `fit`, custom loops with `apply_gradients`, `apply` or `stateless_apply`,
    compiled or not, callbacks, schedules, loss scaling, saving work as ever. Clipping, moving averages of the weights,
    loss scaling and accumulation of gradients are those of Keras's base class, and so is weight decay (decoupled,
    `x - lr * weight_decay * x` before the step) unless the rule's own formula has one.

    Args:
        rule: The rule, one of downslope's, of a dialect, or your own.
        learning_rate: The rule's `lr`: a number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function
            without arguments. By default the rule's own default. It may also be given as `lr`.
        **settings: What Keras's base class takes, the options of every optimizer that Keras has nothing of its own for,
            such as `cautious`, and `lookahead` (`downslope.keras.settings.Arguments`); and the rule's other
            hyperparameters and choices. These are attributes too, and settled once the optimizer has its variables,
            because a compiled training step keeps the numbers it was made with.

    Raises:
        TypeError: Something is of the wrong kind, a name is unknown, or a hyperparameter is missing.
        ValueError: A value is out of range, or an option does not fit the rule.
        FormulaError: The rule is not a formula that can be compiled.

    Example:
        >>> import keras, numpy as np, downslope, downslope.keras
        >>> x = keras.Variable(np.array([3.0, -2.0], "float32"))
        >>> optimizer = downslope.keras.Optimizer(downslope.momentum, learning_rate=0.1, mu=0.5)
        >>> optimizer.apply([keras.ops.convert_to_tensor([1.0, 1.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [ 2.9 -2.1]
        >>> optimizer.mu
        0.5
    """

    _NAMES: ClassVar[Mapping[str, str]] = {}
    """The rule's name of each hyperparameter that has another one here."""

    @overload
    def __init__(
        self, rule: Rule, learning_rate: float | Schedule | None = None, **settings: Unpack[Arguments]
    ) -> None: ...

    @overload
    def __init__(self, rule: Rule, learning_rate: float | Schedule | None = None, **settings: Any) -> None: ...

    @takes(*keywords(DEFAULTS), *every_option(but=ELSEWHERE), *keywords({"lookahead": None}), rest="hyperparameters")
    def __init__(self, rule: Rule, learning_rate: float | Schedule | None = None, **settings: Any) -> None:
        check_rule(rule)
        own = {*rule.hyperparameters, *rule.flags}
        base, lookahead = {name: settings.pop(name) for name in DEFAULTS}, settings.pop("lookahead")
        options = {name: settings.pop(name) for name in TAKEN if name not in own}
        if "lr" in settings and learning_rate is not None:
            raise TypeError(f"lr={settings['lr']!r} is the same as learning_rate={learning_rate!r}; give one")
        learning_rate = settings.pop("lr", learning_rate)
        chosen: dict[str, Any] = {**rule.hyperparameters, **rule.flags}
        for name, value in {**settings, "weight_decay": base["weight_decay"]}.items():
            if name in own and (value is not None or name not in NUMBERS):
                chosen[name] = value
            elif name not in own and name in settings:
                rule.checked(name, None)  # raises, naming those that there are
        chosen.pop("lr", None)
        self._begin(rule, chosen, learning_rate, options, lookahead, base)

    def _begin(
        self,
        rule: Rule,
        chosen: Mapping[str, Any],
        learning_rate: float | Schedule | None,
        options: Mapping[str, Any],
        lookahead: str | None,
        base: dict[str, Any],
    ) -> None:
        """Settle everything.

        Args:
            rule: What a step computes.
            chosen: Its hyperparameters and flags but `lr`, by the names they have here.
            learning_rate: Its `lr`.
            options: Those of `TAKEN` that are not hyperparameters of the rule.
            lookahead: `"stored"` or `"explicit"`: where the point ahead is kept.
            base: The arguments of Keras's base class.
        """
        insisting, lookahead = lookahead is None, lookahead or "stored"
        check_options(rule, lookahead, base)
        rate = rate_of(rule, learning_rate)
        if base["weight_decay"] is not None and rule.ahead is not None and lookahead == "stored":
            chosen = {"weight_decay": base["weight_decay"], **chosen}  # Keras would apply it to the point ahead
        settings = KerasSettings.make(rule, chosen, self._NAMES, options, stored=lookahead == "stored")
        if "weight_decay" in settings.numbers:
            base["weight_decay"] = settings.numbers["weight_decay"]
        elif base["weight_decay"] is not None:
            base["weight_decay"] = check_number("weight_decay", base["weight_decay"], usual_range("weight_decay"))
        super().__init__(learning_rate=rate, **base)
        for name, value in options.items():
            setattr(self, name, bool(value) if name in CHOICES else value)
        self.lookahead = lookahead
        self._settings, self._states = settings, States(self, settings)
        self._compiled: Any = None
        self._stateless = False
        self._insisting, self._minded = insisting, False

    @property
    def _options(self) -> dict[str, Any]:
        """The options of `TAKEN` that are not hyperparameters of the rule."""
        return {name: self.__dict__[name] for name in TAKEN if name in self.__dict__}

    def _rule_for(self, chosen: Mapping[str, Any]) -> Rule:
        """The rule that these hyperparameters ask for."""
        return self.rule

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self._settings.settled.rule

    def __getattr__(self, name: str) -> Any:
        if "_settings" in self.__dict__ and name in self._settings.chosen:
            return self._settings.chosen[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        settings = self.__dict__.get("_settings")
        guarded = settings is not None and name in {*settings.chosen, *BASE, *TAKEN, "lookahead"}
        if settings is None or not guarded:
            super().__setattr__(name, value)
            return
        if self.built and not (name == "loss_scale_factor" and value is None):  # which a LossScaleOptimizer takes over
            raise AttributeError(
                f"{name}={value!r}: the hyperparameters of an optimizer that has its variables are settled, because a "
                "compiled training step keeps the numbers it was made with; make a new optimizer. (learning_rate can "
                "be changed at any time.)"
            )
        if name not in settings.chosen:
            if name not in BASE or (name == "weight_decay" and settings.move is not None):
                raise AttributeError(f"{name}={value!r}: make a new optimizer with it; it changes the formula")
            if name == "weight_decay" and value is not None:
                value = check_number(name, value, usual_range(name))
            base = {option: getattr(self, option) for option in BASE}
            check_options(self.rule, self.lookahead, {**base, name: value})
            super().__setattr__(name, value)
            return
        if name == "weight_decay" and value is None:
            raise ValueError("weight_decay=None: the weight decay is a part of the formula; give a number")
        chosen = {**settings.chosen, name: value}
        stored = self.lookahead == "stored"
        self._settings = KerasSettings.make(self._rule_for(chosen), chosen, self._NAMES, self._options, stored=stored)
        if name == "weight_decay":  # what Keras's base class reports
            super().__setattr__(name, self._settings.numbers[name])

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the next step; a number can be assigned at any time.

        So can a schedule or a function, but a training step that has been compiled on TensorFlow goes on with what it
        was compiled with: `compile` the model again after it.
        """
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if "lr" not in self.rule.hyperparameters:
            raise TypeError(f"learning_rate={value!r}: {self.rule.name} has no hyperparameter lr")
        if not callable(value) or isinstance(value, keras.Variable):
            value = checked_rate(self.rule, value)
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from weight decay; see `keras.optimizers.Optimizer`.

        Raises:
            TypeError: The weight decay is a part of the formula, which is the same for all variables.
            ValueError: The optimizer has its variables already, and its compiled step their weight decay.
        """
        if self.built:
            raise ValueError("exclude_from_weight_decay: the optimizer has its variables already; exclude them before")
        if "weight_decay" in self._settings.numbers:
            raise TypeError(
                f"the weight decay is a part of the formula of {self.rule.name}, which holds for all variables; choose "
                "a rule without one, such as downslope.adam, and Keras applies it to the variables you want"
            )
        super().exclude_from_weight_decay(var_list, var_names)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        # There is no public way to keep a base class from applying the decay that it also reports.
        if "weight_decay" not in self._settings.numbers:
            super()._apply_weight_decay(variables)

    def _interleaved(self, states: Sequence[str]) -> list[tuple[str, ...]]:
        """The order of the states' variables: sets of states, each set variable by variable."""
        return [tuple(states)]

    def build(self, variables: Sequence[Any]) -> None:
        """Make the states of these variables, the model's trainable ones.

        Raises:
            TypeError: A variable does not hold floating-point numbers.
            ValueError: The rule cannot work on a variable of this shape.
        """
        if self.built:
            return
        variables = list(variables)
        check_dtypes(variables)
        shapes = ((variable.path, tuple(variable.shape)) for variable in variables)
        check_shapes(self._settings.program, shapes, REMEDY)
        super().build(variables)
        order = self._interleaved(tuple(self._settings.program.states))
        self._states = states = States.begun(self, self._settings, order)
        if keras.backend.backend() == "torch":
            from downslope.keras.compiled import Compiled

            self._compiled = Compiled(states) if Compiled.fits(states) else None

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        # Keras's own optimizers do here, once in a step, what is not a matter of one variable; nothing public is.
        with contextlib.ExitStack() as around:
            if keras.backend.backend() == "torch":
                import torch

                around.enter_context(torch.no_grad())
                ready = self._compiled is not None and not self._stateless
                if ready and self._compiled.step(grads, trainable_variables, learning_rate):
                    return
            self._interpreted_step(grads, trainable_variables, learning_rate)

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        """The new values of the trainable and of the optimizer's variables; see `keras.optimizers.Optimizer`."""
        self._stateless = True  # compiled code would write into the tensors it is given
        try:
            return super().stateless_apply(optimizer_variables, grads, trainable_variables)
        finally:
            self._stateless = False

    def _interpreted_step(self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any) -> None:
        """One step, operation by operation; on TensorFlow and JAX this is what is compiled."""
        coefficients, scalars = self._coefficients(learning_rate, grads, trainable_variables)
        # Keras hands what it is given for a learning rate to `update_step`, variable by variable.
        super()._backend_update_step(grads, trainable_variables, coefficients)
        for name, value in scalars.items():
            self.assign(self._states.scalars[name], value)
        if self._states.ahead is not None:
            self.assign(self._states.ahead, ops.ones((), self._states.ahead.dtype))

    def _coefficients(
        self, learning_rate: Any, grads: Sequence[Any], variables: Sequence[Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the variables' bodies need of this step, and the new scalar states.

        The former are the coefficients, those of the move to the point ahead if there is one, and whether it has been
        made.
        """
        dtype = precision(self._trainable_variables)
        scalars: dict[str, Any] = {**self._settings.numbers, "lr": tensor(learning_rate, dtype)}
        scalars["t"] = ops.cast(self.iterations, dtype) + 1
        scalars |= {name: tensor(variable, dtype) for name, variable in self._states.scalars.items()}
        program, move = self._settings.program, self._settings.move
        following = [name for each in (program, move) if each for name in each.scalars if name.endswith(" next")]
        scalars |= {name: scalars[name.removesuffix(" next")] for name in following}
        ahead: tuple[Any, ...] = ()
        if move is not None:
            values = interpret_scalars(move, scalars, ops)
            ahead = (*(plain(values[e]) for e in move.coefficients), tensor(self._states.ahead, dtype))
        if program.over_all:
            pairs = self._over_replicas(zip(grads, variables, strict=True))
            scalars |= with_sums(
                program, lambda: ((program, self._arrays(g, v, ahead)) for g, v in pairs), scalars, ops
            )
        rest = divided(program).rest
        values = interpret_scalars(rest, scalars, ops)
        new = {name: values[e] for name, e in rest.scalar_outputs.items()}
        return (*(plain(values[e]) for e in rest.coefficients), *ahead), new

    def _over_replicas(self, pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Gradients and their variables, the gradients added up over all replicas, as a step will take them."""
        pairs = list(pairs)
        if keras.backend.backend() != "tensorflow" or self._distribution_strategy.num_replicas_in_sync == 1:
            return pairs
        found: list[tuple[Any, Any]] = self._all_reduce_sum_gradients(pairs)
        return found

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its states; in the place of the learning rate stand all coefficients of the step."""
        k = self._get_variable_index(variable)
        rest, dtype = divided(self._settings.program).rest, precision([variable])
        count = len(rest.coefficients)
        arrays = self._arrays(gradient, variable, learning_rate[count:])
        given = (of_precision(value, dtype) for value in learning_rate[:count])
        new = interpret_body(rest, arrays, dict(zip(rest.coefficients, given, strict=True)), ops)
        for name, variables in self._states.by_name.items():
            self.assign(variables[k], new[name])
        self.assign(variable, new["x"])

    def _arrays(self, gradient: Any, variable: Any, ahead: Sequence[Any]) -> dict[str, Any]:
        """A variable, its gradient and its states in working precision; the variable as the point ahead.

        Args:
            gradient: The gradient.
            variable: The variable.
            ahead: The coefficients of the move to the point ahead, and whether it has been made; empty if there is
                none to be made.
        """
        k, dtype = self._get_variable_index(variable), precision([variable])
        arrays = {"x": tensor(variable, dtype), "dx": tensor(gradient, dtype)}
        arrays |= {name: tensor(variables[k], dtype) for name, variables in self._states.by_name.items()}
        move = self._settings.move
        if move is not None:
            *given, made = (of_precision(value, dtype) for value in ahead)
            moved = interpret_body(move, arrays, dict(zip(move.coefficients, given, strict=True)), ops)["x"]
            arrays["x"] = ops.where(made > 0, arrays["x"], moved)
        return arrays

    def scale_loss(self, loss: Any) -> Any:
        """What backpropagation starts from; see `keras.optimizers.Optimizer`.

        Raises:
            RuntimeError: This is `fit` with a rule that looks ahead, and without the callback `AtWeights`. (On JAX,
                where an error in a training step costs the model its values, `fit` warns of it, and raises at its end.)
        """
        if self._unminded:  # loops of one's own have no reason to come here
            if keras.backend.backend() != "jax":
                raise RuntimeError(self._minding())
            warnings.warn(self._minding(), stacklevel=2)
        return super().scale_loss(loss)

    @property
    def _unminded(self) -> bool:
        return self._settings.move is not None and self._insisting and not self._minded

    def _minding(self) -> str:
        return (
            f"{self.rule.name} keeps the point ahead in the model's variables while it trains, where EarlyStopping, "
            "ModelCheckpoint, validation and others take it for the weights: give the callback, "
            "fit(..., callbacks=[downslope.keras.AtWeights()]). If your own code minds it with "
            "optimizer.at_weights(), as train_on_batch needs, make the optimizer with lookahead='stored'"
        )

    def finalize_variable_values(self, var_list: Any) -> None:
        """Give the model its final values, as `fit` does when it is done: the weights of a rule with a look-ahead.

        Raises:
            RuntimeError: That `fit` went without the callback `AtWeights`. The model has its weights.
        """
        if keras.backend.backend() == "jax" and self._iterations._value is None:
            return  # a step has failed, and Keras had taken the values away for it
        super().finalize_variable_values(var_list)
        unminded = self._unminded and self._states.are_ahead
        self._states.to_weights()
        if unminded and sys.exc_info()[0] is None:  # fit also comes here from an error
            raise RuntimeError(f"the model has its weights, but {self._minding()}")

    def save_own_variables(self, store: Any) -> None:
        """Write the optimizer's variables into a file that Keras saves.

        Raises:
            ValueError: The model's variables hold the points ahead of the weights, which it would save as weights.
        """
        if self._states.are_ahead:
            raise ValueError(
                f"the model's variables hold the points ahead of the weights, where {self.rule.name} takes its "
                "gradients: save inside `with optimizer.at_weights():`, or give fit the callback "
                "downslope.keras.AtWeights(), with which whatever it saves are the weights"
            )
        super().save_own_variables(store)

    @contextlib.contextmanager
    def at_weights(self) -> Iterator[None]:
        """Inside this block the variables hold the weights themselves, for evaluation and saving.

        It makes a difference only for a rule with a look-ahead, while the variables hold the point ahead: during
        training, that is; when `fit` is done, they hold the weights. Not for use inside compiled functions.

        Example:
            >>> import keras, downslope, downslope.keras
            >>> x = keras.Variable([1.0])
            >>> optimizer = downslope.keras.Optimizer(downslope.nesterov, lr=0.1, mu=0.5)
            >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
            >>> print(keras.ops.convert_to_numpy(x).round(4))
            [0.7]
            >>> with optimizer.at_weights():
            ...     print(keras.ops.convert_to_numpy(x).round(4))
            [0.8]
        """
        with self._states.away(self._states.weights()):
            yield

    @contextlib.contextmanager
    def at_lookahead(self) -> Iterator[None]:
        """Inside this block the variables hold the point where the gradient is to be taken (`lookahead="explicit"`)."""
        with self._states.away(self._states.explicit()):
            yield

    def save(self, path: str | Path, model: Any = None, names: Any = None) -> None:  # noqa: D102
        training.save(self._with_variables(model), path, names, self._NAMES)

    def load(self, path: str | Path, model: Any = None, names: Any = None) -> None:  # noqa: D102
        training.load(self._with_variables(model), path, names, self._NAMES)

    save.__doc__, load.__doc__ = training.save.__doc__, training.load.__doc__

    def _with_variables(self, model: Any) -> States:
        """The states; those of this model if there are none yet."""
        if not self.built and model is None:
            raise ValueError("the optimizer does not have its variables yet; give the model whose weights it trains")
        if not self.built:
            self.build(model.trainable_variables)
        return self._states

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same optimizer from; the rule is written as `module:name`."""
        config: dict[str, Any] = {**super().get_config(), **self._settings.chosen}
        if "lr" not in self.rule.hyperparameters:
            del config["learning_rate"]
        lookahead = None if self._insisting else self.lookahead
        return {**config, **self._options, "lookahead": lookahead, "rule": name_of(self.rule)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The optimizer of a configuration.

        Raises:
            ValueError: Its rule is not downslope's and neither imported nor among the custom objects.
        """
        config = dict(config)
        if isinstance(config.get("rule"), str):
            config["rule"] = find(config["rule"], custom_objects)
        return super().from_config(config, custom_objects)
