"""Rules: update methods written as formulas.

The signature of a formula is its schema: `x` and `dx` (the weights and the gradient of the loss at them), then the
states with their initial values; keyword-only arguments are hyperparameters with their defaults, and `t`, the number
of this step from 1, where the formula asks for it.
"""

from __future__ import annotations

import importlib
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from downslope.expression import FormulaError

RESERVED = frozenset({"x", "dx", "t", "grad_scale", "average", "lookahead"})
"""Names with a fixed meaning: a state or hyperparameter cannot take them."""

OPTIONS = frozenset(
    {"cautious", "decoupled", "max_norm", "maximize", "nonfinite", "lookahead", "threads", "params", "rule"}
)
"""What every optimizer takes besides hyperparameters: a hyperparameter cannot have one of these names."""


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
    return Scalar(float(initial))


@dataclass(frozen=True)
class Range:
    """The values a hyperparameter may take: from `low` to `high`, the upper end included or not."""

    low: float
    high: float
    closed: bool = True

    def __contains__(self, value: float) -> bool:
        return self.low <= value and (value <= self.high if self.closed else value < self.high)

    def __str__(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return "a finite number"
        if self.high == math.inf:
            return f"a finite number of at least {self.low:g}"
        return f"a number from {self.low:g} to {'' if self.closed else 'below '}{self.high:g}"


_FRACTION = Range(0.0, 1.0, closed=False)
_POSITIVE = Range(0.0, math.inf)
_ANY = Range(-math.inf, math.inf)


def usual_range(name: str) -> Range:
    """The range that a hyperparameter of this name has throughout the literature."""
    if name in ("mu", "momentum", "rho", "decay_rate", "averaging") or name.startswith("beta"):
        return _FRACTION
    if name in ("lr", "eps", "weight_decay", "max_norm"):
        return _POSITIVE
    return _ANY


@dataclass(frozen=True, eq=False)
class Rule:
    """One parameter-update method, made from its formula by `rule`.

    Called with numbers or arrays a rule computes one step, in the precision of its arguments; this is the reference
    that everything derived from the formula is tested against.

    Attributes:
        name: The name of the function.
        states: The initial value per weight of each state: a number, `"x"` for a copy of the initial weights, or the
            name of a hyperparameter.
        scalar_states: The initial value of each state that is one number per parameter group.
        hyperparameters: The default of each hyperparameter, None where it has none and must be given.
        flags: The default of each boolean hyperparameter: a choice that is settled before compilation.
        ranges: The values each hyperparameter may take.
        uses_t: Whether the formula asks for the number of the step.
        intuition: The first sentence of the docstring.
        source: What the docstring says after "Source:".

    Example:
        >>> import downslope
        >>> float(downslope.sgd(3.0, dx=2.0, lr=0.1))
        2.8
        >>> downslope.adam.hyperparameters["beta2"]
        0.999
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
    _ahead: list[Callable[..., Any]] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        known = [name if value is None else f"{name}={value:g}" for name, value in self.hyperparameters.items()]
        return f"<rule {self.name}({', '.join([*known, *(f'{k}={v}' for k, v in self.flags.items())])})>"

    def __reduce__(self) -> Any:
        return _named, (self.function.__module__, self.function.__qualname__)

    def __deepcopy__(self, memory: Any) -> Rule:
        return self  # nothing in it changes

    def __call__(self, /, x: Any, dx: Any, *states: Any, **keywords: Any) -> Any:
        """Compute one step with numbers or arrays.

        Args:
            x: Weights.
            dx: Gradient of the loss at the weights (for a rule with a look-ahead: at the point ahead).
            *states: States, in signature order; those left out take their initial values.
            **keywords: Hyperparameters, states by name, and `t` if the formula asks for it.

        Returns:
            The new weights, followed by the new states if the rule has any.
        """
        names = [*self.states, *self.scalar_states]
        if len(states) > len(names):
            raise TypeError(f"{self.name} has {len(names)} state(s) ({', '.join(names)}), got {len(states)}")
        given = dict(zip(self.signature_states, states, strict=False))
        for name in self.signature_states:
            if name in keywords and name not in given:
                given[name] = keywords.pop(name)
        t = {"t": keywords.pop("t")} if self.uses_t and "t" in keywords else {}
        if self.uses_t and not t:
            raise TypeError(f"{self.name} needs t, the number of this step, counted from 1")
        settings = {**self.complete(keywords), **t}
        named = {"x": x, **settings}
        initial = {**self.scalar_states, **{k: named.get(str(v), v) for k, v in self.states.items()}}
        ordered = [given.get(name, initial[name]) for name in self.signature_states]
        return self.function(x, dx, *ordered, **settings)

    @property
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

    def lookahead(self, function: Callable[..., Any]) -> Rule:
        """Declare how far ahead of `x` the gradient is to be taken, as a formula of states and hyperparameters.

        Example:
            >>> from downslope import rule
            >>> @rule
            ... def nesterov(x, dx, v=0, *, lr=1e-2, mu=0.9):
            ...     v = mu * v - lr * dx
            ...     return x + v, v
            >>> @nesterov.lookahead
            ... def nesterov(v, *, mu):
            ...     return mu * v
        """
        known = {*self.states, *self.scalar_states, *self.hyperparameters, *self.flags}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name not in known:
                raise FormulaError(
                    f"the look-ahead of {self.name} asks for {name!r}; it may use {', '.join(sorted(known))}"
                )
        self._ahead[:] = [function]
        return self

    @property
    def ahead(self) -> Callable[..., Any] | None:
        """The formula of the look-ahead, if the rule has one."""
        return self._ahead[0] if self._ahead else None

    def cost(self, dtype: Any = np.float32, **flags_and_options: Any) -> Any:
        """What one step costs per weight: bytes read and written, and operations. See `downslope.trace.Cost`.

        Example:
            >>> import downslope
            >>> downslope.adam.cost().read, downslope.adam.cost().written
            (16, 12)
        """
        from downslope.options import compose

        return compose(self, **flags_and_options).cost(dtype)

    def latex(self, **flags_and_options: Any) -> str:
        r"""The formula in LaTeX, one aligned line per value, new states before the new weights.

        Example:
            >>> import downslope
            >>> print(downslope.momentum.latex())
            \begin{aligned}
            v_{t} &= \mu \, v_{t-1} - \mathrm{lr} \, dx_{t} \\
            x_{t} &= x_{t-1} + v_{t}
            \end{aligned}
        """
        from downslope.notation import latex
        from downslope.options import compose

        return latex(compose(self, **flags_and_options))

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def _named(module: str, name: str) -> Any:
    """The rule of this name, for a process that unpickles a reference to it."""
    return operator.attrgetter(name)(importlib.import_module(module))


def unknown(owner: str, name: str, valid: Sequence[str]) -> TypeError:
    """The error for a hyperparameter that does not exist, naming those that do."""
    import difflib

    close = difflib.get_close_matches(name, valid, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return TypeError(f"{owner} has no hyperparameter {name!r}; it has {', '.join(valid)}{hint}")


def check_number(name: str, value: Any, allowed: Range) -> float:
    """The value as a float, or an error that names the hyperparameter, shows the value and says what would do."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected {allowed}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond any float
        number = math.inf
    if not math.isfinite(number) or number not in allowed:
        raise ValueError(f"{name}={value!r} is out of range; expected {allowed}")
    return number


@overload
def rule(function: Callable[..., Any], /) -> Rule: ...


@overload
def rule(*, ranges: Mapping[str, tuple[float, float]]) -> Callable[[Callable[..., Any]], Rule]: ...


def rule(
    function: Callable[..., Any] | None = None, /, *, ranges: Mapping[str, tuple[float, float]] | None = None
) -> Any:
    """Make a rule from its formula.

    Args:
        function: The formula. Its first two parameters are `x` and `dx`; further positional parameters are states,
            whose defaults are their initial values (a number, `"x"` for a copy of the initial weights, the name of a
            hyperparameter, or `scalar(number)`); keyword-only parameters are hyperparameters with their defaults,
            where a boolean default makes a choice settled before compilation; a keyword-only `t` receives the number
            of the step. It returns the new weights and states, in signature order.
        ranges: The lowest and highest value of hyperparameters that are not of the usual kind. Without it `lr`,
            `eps` and the like are at least 0, and `mu`, `beta...`, `decay_rate` are from 0 to below 1.

    Raises:
        FormulaError: The signature is not that of a formula.

    Example:
        >>> from downslope import rule, sign
        >>> @rule
        ... def sign_descent(x, dx, *, lr=1e-3):
        ...     return x - lr * sign(dx)
        >>> float(sign_descent(1.0, -5.0, lr=0.5))
        1.5
    """
    if function is None:
        return lambda decorated: _rule(decorated, ranges or {})
    return _rule(function, ranges or {})


def _rule(function: Callable[..., Any], ranges: Mapping[str, tuple[float, float]]) -> Rule:
    if not inspect.isfunction(function):
        raise FormulaError(f"rule({function!r}): a formula is a Python function, written with def")
    for key, ends in ranges.items():
        if len(tuple(ends)) != 2 or not ends[0] <= ends[1]:
            raise FormulaError(f"ranges[{key!r}]={ends!r}: give the lowest and the highest value")
    name = function.__name__
    parameters = list(inspect.signature(function).parameters.values())
    if [p.name for p in parameters[:2]] != ["x", "dx"]:
        raise FormulaError(
            f"{name}: the first two parameters of a formula are x and dx, the weights and their gradient"
        )
    states: dict[str, float | str] = {}
    scalar_states: dict[str, float] = {}
    hyperparameters: dict[str, float | None] = {}
    flags: dict[str, bool] = {}
    uses_t = False
    for parameter in parameters[2:]:
        key, default = parameter.name, parameter.default
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise FormulaError(f"{name}: *{key} is not allowed; name every state and hyperparameter")
        if key == "t" and parameter.kind is parameter.KEYWORD_ONLY and default is parameter.empty:
            uses_t = True
        elif key in RESERVED or key.startswith("_"):
            raise FormulaError(
                f"{name}: {key!r} is reserved (t is keyword-only and has no default); choose another name"
            )
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if key in OPTIONS:
                raise FormulaError(f"{name}: {key!r} is an option of every optimizer; choose another name")
            if isinstance(default, bool):
                flags[key] = default
            else:
                hyperparameters[key] = None if default is parameter.empty else _default(name, key, default)
        elif isinstance(default, Scalar):
            scalar_states[key] = default.initial
        elif isinstance(default, str):
            states[key] = default
        elif default is parameter.empty:
            raise FormulaError(f"{name}: the state {key} needs an initial value, as in {key}=0")
        else:
            states[key] = _default(name, key, default)
    for key, start in states.items():
        if isinstance(start, str) and start not in ("x", *hyperparameters):
            raise FormulaError(
                f"{name}: the default {key}={start!r} is not a number, 'x' or the name of a hyperparameter"
            )
    unknown = set(ranges) - set(hyperparameters)
    if unknown:
        raise FormulaError(f"{name}: ranges names {sorted(unknown)}, which are not hyperparameters of the formula")
    doc = inspect.getdoc(function) or ""
    return Rule(
        name=name,
        function=function,
        states=states,
        scalar_states=scalar_states,
        hyperparameters=hyperparameters,
        flags=flags,
        ranges={key: Range(*ranges[key]) if key in ranges else usual_range(key) for key in hyperparameters},
        uses_t=uses_t,
        intuition=" ".join(doc.partition("\n\n")[0].split()),
        source=" ".join(doc.partition("Source:")[2].partition("\n\n")[0].split()),
    )


def _default(rule_name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise FormulaError(f"{rule_name}: the default {key}={value!r} is not a number")
    return float(value)
