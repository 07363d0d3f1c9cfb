"""The schema of a formula: what its signature says.

The signature of a formula is its schema: `x` and `dx` (the weights and the gradient of the loss at them), then the
states with their initial values; keyword-only arguments are hyperparameters with their defaults, and `t`, the number
of this step from 1, where the formula asks for it.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from downslope.language.operations import FormulaError
from downslope.language.ranges import Range, check_number, is_number, usual_range
from downslope.language.spaces import COLUMN, PAIR_OF_COLUMNS, PAIR_OF_ROWS, ROW, Space

RESERVED = frozenset({"x", "dx", "t", "grad_scale", "average", "lookahead"})
"""Names with a fixed meaning: a state or hyperparameter cannot take them."""

ARGUMENTS = frozenset(
    {"self", "params", "rule", "nonfinite", "lookahead", "threads", "state_dtype", "rounding", "seed"}
    | {"learning_rate", "name", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"}
    | {"gradient_accumulation_steps", "use_ema", "ema_momentum", "ema_overwrite_frequency"}
    | {"stored_ahead", "dtype"}
)
"""What one optimizer or another, `compose` or `cost` takes besides hyperparameters and options: one of such a name is
never reached."""


@dataclass(frozen=True)
class Scalar:
    """The initial value of a scalar state: one number per parameter group instead of one per weight."""

    initial: float


def scalar(initial: float) -> Scalar:
    """Declare a scalar state: one number per parameter group, kept in double precision on the host.

    Example:
        A running product of momenta, as in NAdam (Dozat, 2016):

        >>> from downslope import rule, scalar
        >>> @rule
        ... def warm(x, dx, product=scalar(1.0), *, lr=0.1, mu=0.9):
        ...     product = product * mu
        ...     return x - lr * dx / (1 - product), product
    """
    return Scalar(_start("scalar", initial))


@dataclass(frozen=True)
class Narrow:
    """The initial value of a state that is not one per weight: one for each row or column, or for each pair of them."""

    initial: float
    space: Space


def rows(initial: float) -> Narrow:
    """Declare a state that is one for each row of a tensor, so that it takes next to no memory.

    It is what `mean(a, axis=1)` and other words make of a matrix. A tensor of more than two dimensions is the matrix of
    its first dimension and all others; a vector is one row.

    Example:
        One step size for each output of a layer, by the gradients it has had (rows are outputs in PyTorch):

        >>> from downslope import mean, rows, rule, sqrt
        >>> @rule
        ... def adagrad_by_rows(x, dx, cache=rows(0), *, lr=0.1, eps=1e-8):
        ...     cache = cache + mean(dx**2, axis=1)
        ...     return x - lr * dx / (sqrt(cache) + eps), cache
        >>> import numpy as np, downslope
        >>> W = np.ones((2, 1000))
        >>> optimizer = downslope.Optimizer({"W": W}, adagrad_by_rows)
        >>> optimizer.step({"W": W})
        >>> optimizer.state["cache"]["W"].shape
        (2, 1)
    """
    return Narrow(_start("rows", initial), ROW)


def columns(initial: float) -> Narrow:
    """Declare a state that is one for each column of a tensor: what `mean(a, axis=0)` makes of a matrix; see `rows`.

    Of a vector it is one for each weight, and of a kernel of a convolution one for each weight of an output's.
    """
    return Narrow(_start("columns", initial), COLUMN)


def _start(word: str, initial: Any) -> float:
    """The initial value of a state that is not one per weight."""
    if not is_number(initial) or math.isnan(initial):
        setting = "; a setting is taken in by the formula, as in d = maximum(d, d0)" if isinstance(initial, str) else ""
        raise FormulaError(f"{word}({initial!r}): give the number that the state is at first, as in {word}(0){setting}")
    return float(initial)


def rows_by_rows(initial: float) -> Narrow:
    """Declare a state that is one for each pair of rows of a tensor: a square matrix, as `a @ a.T` is.

    A tensor of more than two dimensions is the matrix of its first dimension and all others; a vector is one row. It is
    kept as a square matrix; for tensors of a shape for which the formula does nothing with it (behind a choice by
    `size`, say), it is kept as a single number.

    Example:
        Gradients are divided by the root of what outputs have had in common:

        >>> from downslope import eigenvectors, rows_by_rows, rule, sqrt, sum
        >>> @rule
        ... def whitened(x, dx, left=rows_by_rows(0), *, lr=0.1, eps=1e-8):
        ...     left = left + dx @ dx.T
        ...     q = eigenvectors(left)
        ...     of_each = sum(q * (left @ q), axis=0)
        ...     return x - lr * q @ ((q.T @ dx) / (sqrt(of_each.T) + eps)), left
        >>> import numpy as np, downslope
        >>> W = np.ones((2, 1000))
        >>> optimizer = downslope.Optimizer({"W": W}, whitened)
        >>> optimizer.step({"W": W})
        >>> optimizer.state["left"]["W"].shape
        (2, 2)
    """
    return Narrow(float(initial), PAIR_OF_ROWS)


def columns_by_columns(initial: float) -> Narrow:
    """Declare a state that is one for each pair of columns of a tensor, as `a.T @ a` is; see `rows_by_rows`.

    Of a vector it is one for each pair of weights, and of a kernel of a convolution for each pair of an output's.
    """
    return Narrow(float(initial), PAIR_OF_COLUMNS)


@dataclass(frozen=True, eq=False)
class Formula:
    """A function with the schema that its signature declares.

    Attributes:
        name: The name of the function.
        states: The initial value per weight of each state: a number, `"x"` for a copy of the initial weights, or the
            name of a hyperparameter.
        scalar_states: The initial value of each state that is one number per parameter group.
        most_dimensions: How many dimensions a tensor may have; None where those with more are matrices as well.
        least_dimensions: How many it must have; None for two where matrices are multiplied, and none elsewhere.
        spaces: Where each of the states lives that are not one per weight, but one per row or column, or pair of them.
        hyperparameters: The default of each hyperparameter, None where it has none and must be given.
        flags: The default of each boolean hyperparameter: a choice that is settled before compilation.
        ranges: The values each hyperparameter may take.
        uses_t: Whether the formula asks for the number of the step.
        intuition: The first sentence of the docstring.
        source: What the docstring says after "Source:".
        ahead: The formula of the look-ahead: how far from `x` the gradient is to be taken; None where it is at `x`.
    """

    name: str
    function: Callable[..., Any]
    states: Mapping[str, float | str]
    scalar_states: Mapping[str, float]
    hyperparameters: Mapping[str, float | None]
    flags: Mapping[str, bool]
    ranges: Mapping[str, Range]
    uses_t: bool
    intuition: str = ""
    source: str = ""
    ahead: Callable[..., Any] | None = None
    spaces: Mapping[str, Space] = field(default_factory=dict)
    most_dimensions: int | None = None
    least_dimensions: int | None = None

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        ranges: Mapping[str, tuple[float, float]],
        taken: Collection[str] = (),
        most_dimensions: int | None = None,
        least_dimensions: int | None = None,
    ) -> Self:
        """The formula that a function is.

        Args:
            function: What `rule` decorates; see there.
            ranges: The lowest and highest value of hyperparameters that are not of the usual kind.
            taken: The names of options: a hyperparameter that has one would never be reached.
            most_dimensions: How many dimensions a tensor may have.
            least_dimensions: How many it must have.

        Raises:
            FormulaError: The signature is not that of a formula.
        """
        if not inspect.isfunction(function):
            raise FormulaError(f"rule({function!r}): a formula is a Python function, written with def")
        for key, ends in ranges.items():
            if len(tuple(ends)) != 2 or not ends[0] <= ends[1]:
                raise FormulaError(f"ranges[{key!r}]={ends!r}: give the lowest and the highest value")
        if most_dimensions is not None and not (type(most_dimensions) is int and most_dimensions > 0):
            raise FormulaError(f"most_dimensions={most_dimensions!r}: give a whole number, at least 1, or leave it out")
        name = function.__name__
        parameters = list(inspect.signature(function).parameters.values())
        if [p.name for p in parameters[:2]] != ["x", "dx"]:
            raise FormulaError(
                f"{name}: the first two parameters of a formula are x and dx, the weights and their gradient"
            )
        declared = _Signature(name, taken)
        for parameter in parameters[2:]:
            declared.take(parameter)
        declared.check_starts()
        unknown = set(ranges) - set(declared.hyperparameters)
        if unknown:
            raise FormulaError(f"{name}: ranges names {sorted(unknown)}, which are not hyperparameters of the formula")
        doc = inspect.getdoc(function) or ""
        return cls(
            name=name,
            function=function,
            states=MappingProxyType(declared.states),
            scalar_states=MappingProxyType(declared.scalar_states),
            hyperparameters=MappingProxyType(declared.hyperparameters),
            flags=MappingProxyType(declared.flags),
            ranges=MappingProxyType(
                {key: Range(*ranges[key]) if key in ranges else usual_range(key) for key in declared.hyperparameters}
            ),
            uses_t=declared.uses_t,
            intuition=" ".join(doc.partition("\n\n")[0].split()),
            source=" ".join(doc.partition("Source:")[2].partition("\n\n")[0].split()),
            spaces=MappingProxyType(declared.spaces),
            most_dimensions=most_dimensions,
            least_dimensions=least_dimensions,
        )

    @functools.cached_property
    def signature_states(self) -> tuple[str, ...]:
        """The names of all states, in the order of the signature."""
        parameters = list(inspect.signature(self.function).parameters)
        return tuple(n for n in parameters[2:] if n in self.states or n in self.scalar_states)

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All hyperparameters and flags: those given, checked, and the defaults of the rest.

        Raises:
            TypeError: A name is unknown, a value is of the wrong kind, or a required hyperparameter is missing.
            ValueError: A value is out of range.
        """
        settings: dict[str, Any] = {**self.hyperparameters, **self.flags}
        for name, value in given.items():
            settings[name] = self.checked(name, value)
        missing = [name for name, value in settings.items() if value is None]
        if missing:
            raise TypeError(f"{self.name} has no default for {', '.join(missing)}; give {missing[0]}=...")
        return settings

    def checked(self, name: str, value: Any) -> Any:
        """The value for this hyperparameter or flag, or an error that says what would do."""
        if name in self.flags:
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name}={value!r}: {self.name} takes True or False here")
            return bool(value)
        if name not in self.hyperparameters:
            raise unknown(self.name, name, [*self.hyperparameters, *self.flags])
        return check_number(name, value, self.ranges[name])


class _Signature:
    """What the parameters of a formula after `x` and `dx` declare; see `Formula`.

    Args:
        name: The name of the function.
        taken: The names of options.
    """

    def __init__(self, name: str, taken: Collection[str]):
        self.name, self.taken, self.uses_t = name, taken, False
        self.states: dict[str, float | str] = {}
        self.scalar_states: dict[str, float] = {}
        self.spaces: dict[str, Space] = {}
        self.hyperparameters: dict[str, float | None] = {}
        self.flags: dict[str, bool] = {}

    def take(self, parameter: inspect.Parameter) -> None:
        """Take in one more parameter.

        Raises:
            FormulaError: No formula has such a one.
        """
        key, default, by_name = parameter.name, parameter.default, parameter.kind is parameter.KEYWORD_ONLY
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise FormulaError(f"{self.name}: *{key} is not allowed; name every state and hyperparameter")
        if key == "t" and by_name and default is parameter.empty:
            self.uses_t = True
        elif key in RESERVED or key.startswith("_"):
            raise FormulaError(
                f"{self.name}: {key!r} is reserved (t is keyword-only and has no default); choose another name"
            )
        elif by_name:
            self._take_number(key, default)
        else:
            self._take_state(key, default)

    def _take_number(self, key: str, default: Any) -> None:
        if isinstance(default, (Scalar, Narrow)):
            raise FormulaError(f"{self.name}: {key} is a state, and what stands after the * is a number; put it before")
        if key in ARGUMENTS or key in self.taken:
            raise FormulaError(f"{self.name}: {key!r} is an argument of optimizers; choose another name")
        if isinstance(default, bool):
            self.flags[key] = default
        else:
            self.hyperparameters[key] = None if default is inspect.Parameter.empty else self._number(key, default)

    def _take_state(self, key: str, default: Any) -> None:
        if default is inspect.Parameter.empty:
            raise FormulaError(f"{self.name}: the state {key} needs an initial value, as in {key}=0")
        if isinstance(default, Scalar):
            self.scalar_states[key] = default.initial
        elif isinstance(default, Narrow):
            self.states[key], self.spaces[key] = default.initial, default.space
        else:
            self.states[key] = default if isinstance(default, str) else self._number(key, default)

    def _number(self, key: str, value: Any) -> float:
        if not is_number(value):
            raise FormulaError(f"{self.name}: the default {key}={value!r} is not a number")
        return float(value)

    def check_starts(self) -> None:
        """Make sure that states begin with what there is.

        Raises:
            FormulaError: One begins with a name that is neither `x` nor that of a hyperparameter.
        """
        for key, start in self.states.items():
            if isinstance(start, str) and start not in ("x", *self.hyperparameters):
                raise FormulaError(
                    f"{self.name}: the default {key}={start!r} is not a number, 'x' or the name of a hyperparameter"
                )


def unknown(owner: str, name: str, valid: Sequence[str]) -> TypeError:
    """The error for a hyperparameter that does not exist, naming those that do."""
    import difflib  # an import of downslope need not wait for what only an error takes

    close = difflib.get_close_matches(name, valid, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return TypeError(f"{owner} has no hyperparameter {name!r}; it has {', '.join(valid)}{hint}")
