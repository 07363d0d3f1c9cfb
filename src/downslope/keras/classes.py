"""The optimizers of `keras.optimizers` with its signatures, defaults, states and numbers, computed by downslope.

Changing `keras.optimizers.Adam` to `downslope.keras.Adam` is the whole migration; states go both ways with
`set_weights`. The formula in a docstring is a step, with states of 0 before the first; the rules are those of
`downslope.dialects.keras`. What all of them take after their hyperparameters (from `weight_decay` to `name`, in Keras's
order, and options such as `cautious`) is described at `downslope.keras.settings.KerasOptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, ClassVar, Unpack

import keras

from downslope.dialects import keras as dialect
from downslope.keras.optimizer import Optimizer
from downslope.keras.settings import DEFAULTS, ELSEWHERE, TAKEN, KerasOptions, RestOptions
from downslope.rule import Rule
from downslope.training.arguments import every_option, takes

Rate = float | Callable[..., Any]

_takes = takes(
    *(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default) for name, default in DEFAULTS.items()),
    *every_option(but=ELSEWHERE),
)
_registered = keras.saving.register_keras_serializable(package="downslope")


class _Classic(Optimizer):
    """An optimizer with Keras's names, whose rule may depend on its hyperparameters."""

    _NAMES: ClassVar[Mapping[str, str]] = {"beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps"}
    _RULE: ClassVar[Rule]
    _ORDER: ClassVar[Sequence[tuple[str, ...]]] = ()
    """Keras's order of the states' variables, where it is not that of the formula; see `Optimizer._interleaved`."""

    def __init__(self, arguments: dict[str, Any]):
        """Begin with the arguments of a class: those of Keras's base class, and the hyperparameters of its own."""
        given = {**arguments, **arguments["options"]}
        given = {name: value for name, value in given.items() if name not in ("self", "__class__", "more", "options")}
        base, options = ({name: given.pop(name) for name in names} for names in (DEFAULTS, TAKEN))
        rate = given.pop("learning_rate")
        self._begin(self._rule_for(given), given, rate, options, "stored", base)

    def _rule_for(self, chosen: Mapping[str, Any]) -> Rule:
        return self._RULE

    def _interleaved(self, states: Sequence[str]) -> list[tuple[str, ...]]:
        sets = [tuple(name for name in names if name in states) for names in self._ORDER or [tuple(states)]]
        return [names for names in sets if names]

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same optimizer from."""
        config = super().get_config()
        del config["rule"], config["lookahead"]
        return config


@_registered
class SGD(_Classic):
    """Gradient descent, with momentum if wanted: `keras.optimizers.SGD`.

        v = momentum * v - learning_rate * dx
        x = x + (momentum * v - learning_rate * dx  if nesterov else v)

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        momentum: How much of the velocity stays, 0 to 1; 0 for none at all.
        nesterov: Keep the point ahead in the weights, as Nesterov's momentum in Keras's form does.

    Source: Sutskever, Martens, Dahl & Hinton, "On the importance of initialization and momentum in deep learning",
    2013, in the form of `keras.optimizers.SGD`.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.SGD(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.8]
    """

    _RULE = dialect.sgd

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())

    def _rule_for(self, chosen: Mapping[str, Any]) -> Rule:
        momentum = dialect.sgd_momentum.checked("momentum", chosen["momentum"])
        dialect.sgd_momentum.checked("nesterov", chosen["nesterov"])
        return dialect.sgd_momentum if momentum else dialect.sgd


@_registered
class RMSprop(_Classic):
    """Gradients divided by their recent size: `keras.optimizers.RMSprop`.

        v = rho * v + (1 - rho) * dx**2
        mean = rho * mean + (1 - rho) * dx
        step = learning_rate * dx / sqrt(v - (mean**2  if centered else 0) + epsilon)
        velocity = momentum * velocity + step
        x = x - velocity

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        rho: Decay of the mean squared gradient, 0 to 1.
        momentum: How much of the steps so far stays, at least 0; 0 for none at all.
        epsilon: Keeps the divisor from 0, at least 0.
        centered: Subtract the square of the mean gradient from v.

    Source: Tieleman & Hinton, "Lecture 6.5: rmsprop", 2012, in the form of `keras.optimizers.RMSprop`.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.RMSprop(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.6838]
    """

    _RULE = dialect.rmsprop
    _ORDER = (("velocity",), ("momentums",), ("average_gradient",))

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())

    def _rule_for(self, chosen: Mapping[str, Any]) -> Rule:
        momentum = dialect.rmsprop_momentum.checked("momentum", chosen["momentum"])
        return dialect.rmsprop_momentum if momentum else dialect.rmsprop


@_registered
class Adam(_Classic):
    """A mean gradient divided by its recent size: `keras.optimizers.Adam`.

        m = beta_1 * m + (1 - beta_1) * dx;  v = beta_2 * v + (1 - beta_2) * dx**2
        largest = maximum(largest, v)  if amsgrad else v
        alpha = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)
        x = x - alpha * m / (sqrt(largest) + epsilon)

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        beta_1: Decay of the mean gradient, 0 to below 1.
        beta_2: Decay of the mean squared gradient, 0 to below 1.
        epsilon: Keeps the divisor from 0, at least 0.
        amsgrad: Divide by the largest v so far.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, in the form that precedes Section 2.1.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.Adam(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.9]
    """

    _RULE = dialect.adam
    _ORDER = (("momentums", "velocity"), ("velocity_hat",))

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())


@_registered
class AdamW(_Classic):
    """Adam with decoupled weight decay: `keras.optimizers.AdamW`.

        x = x - learning_rate * weight_decay * x
        m = beta_1 * m + (1 - beta_1) * dx;  v = beta_2 * v + (1 - beta_2) * dx**2
        largest = maximum(largest, v)  if amsgrad else v
        alpha = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)
        x = x - alpha * m / (sqrt(largest) + epsilon)

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        weight_decay: The decay, at least 0.
        beta_1: Decay of the mean gradient, 0 to below 1.
        beta_2: Decay of the mean squared gradient, 0 to below 1.
        epsilon: Keeps the divisor from 0, at least 0.
        amsgrad: Divide by the largest v so far.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019, in the form of `keras.optimizers.AdamW`.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.AdamW(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.8996]
    """

    _RULE = dialect.adam
    _ORDER = (("momentums", "velocity"), ("velocity_hat",))

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *more: Any,
        **options: Unpack[RestOptions],
    ):
        if weight_decay is None:
            raise ValueError("weight_decay=None: AdamW has a weight decay; give a number, or take Adam")
        super().__init__(locals())


@_registered
class Adadelta(_Classic):
    """Steps in the units of the weights: `keras.optimizers.Adadelta`.

        square = rho * square + (1 - rho) * dx**2
        step = sqrt(square_step + epsilon) / sqrt(square + epsilon) * dx
        square_step = rho * square_step + (1 - rho) * step**2
        x = x - learning_rate * step

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        rho: Decay of both mean squares, 0 to 1.
        epsilon: Keeps the divisor from 0, at least 0.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, in the form of `keras.optimizers.Adadelta`.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.Adadelta(learning_rate=100.0)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.8586]
    """

    _RULE = dialect.adadelta

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())


@_registered
class Adagrad(_Classic):
    """A learning rate of its own for every weight, which only falls: `keras.optimizers.Adagrad`.

        accumulator = dx**2 + (accumulator  if t > 1 else initial_accumulator_value)
        x = x - learning_rate * dx / sqrt(accumulator + epsilon)

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        initial_accumulator_value: What the accumulator starts from, at least 0.
        epsilon: Keeps the divisor from 0, at least 0.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    2011, in the form of `keras.optimizers.Adagrad`.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.Adagrad(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.9012]
    """

    _RULE = dialect.adagrad

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())


@_registered
class Adamax(_Classic):
    """Adam in the infinity norm: `keras.optimizers.Adamax`.

        m = beta_1 * m + (1 - beta_1) * dx
        u = maximum(beta_2 * u, abs(dx))
        x = x - learning_rate / (1 - beta_1**t) * m / (u + epsilon)

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        beta_1: Decay of the mean gradient, 0 to below 1.
        beta_2: Decay of the largest gradient, 0 to below 1.
        epsilon: Keeps the divisor from 0, at least 0.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, Section 7.1, in the form of
    `keras.optimizers.Adamax`.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.Adamax(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.9]
    """

    _RULE = dialect.adamax

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())


@_registered
class Nadam(_Classic):
    """Adam with Nesterov's momentum: `keras.optimizers.Nadam`.

        u = beta_1 * (1 - 0.5 * 0.96**t)
        u_next = beta_1 * (1 - 0.5 * 0.96 ** (t + 1))
        product = u * (product  if t > 1 else 1)
        m = beta_1 * m + (1 - beta_1) * dx;  v = beta_2 * v + (1 - beta_2) * dx**2
        m_hat = u_next * m / (1 - product * u_next) + (1 - u) * dx / (1 - product)
        x = x - learning_rate * m_hat / (sqrt(v / (1 - beta_2**t)) + epsilon)

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        beta_1: Decay of the mean gradient, 0 to below 1.
        beta_2: Decay of the mean squared gradient, 0 to below 1.
        epsilon: Keeps the divisor from 0, at least 0.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016, in the form of `keras.optimizers.Nadam`.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.Nadam(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.8937]
    """

    _RULE = dialect.nadam

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())


@_registered
class Lion(_Classic):
    """Steps of one size, in the direction of a mean gradient: `keras.optimizers.Lion`.

        x = x - learning_rate * sign(beta_1 * m + (1 - beta_1) * dx)
        m = beta_2 * m + (1 - beta_2) * dx

    Args:
        learning_rate: A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function without arguments.
        beta_1: How much the mean counts in the direction, 0 to below 1.
        beta_2: Decay of the mean gradient, 0 to below 1.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023.

    Example:
        >>> import keras, downslope.keras
        >>> x = keras.Variable([1.0])
        >>> optimizer = downslope.keras.Lion(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor([2.0])], [x])
        >>> print(keras.ops.convert_to_numpy(x).round(4))
        [0.9]
    """

    _RULE = dialect.lion

    @_takes
    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        *more: Any,
        **options: Unpack[KerasOptions],
    ):
        super().__init__(locals())
