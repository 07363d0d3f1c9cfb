"""Rules: what a user holds of a formula, to compute with, to read, and to hand to an optimizer."""

from __future__ import annotations

import functools
import importlib
import inspect
import operator
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from downslope.language.expression import Expression, apply
from downslope.language.formula import Formula
from downslope.language.lines import choices, parse_lines
from downslope.language.operations import FormulaError, namespace
from downslope.language.options import FIXED, compose
from downslope.language.program import Program, in_order
from downslope.targets.compute import compute
from downslope.targets.cost import Cost, cost
from downslope.targets.evaluate import evaluate
from downslope.targets.latex import latex
from downslope.targets.shapes import settled
from downslope.targets.stability import Stability, stability


@dataclass(frozen=True, eq=False)
class Rule(Formula):
    """One parameter-update method, made from its formula by `rule`.

    Called with numbers or arrays a rule computes one step, in the precision of its arguments; this is the reference
    that everything derived from the formula is tested against.

    What its signature says is in the attributes of `downslope.language.formula.Formula`.

    Example:
        >>> import downslope
        >>> float(downslope.sgd(3.0, dx=2.0, lr=0.1))
        2.8
        >>> downslope.adam.hyperparameters["beta2"]
        0.999
    """

    def __repr__(self) -> str:
        known = [name if value is None else f"{name}={value:g}" for name, value in self.hyperparameters.items()]
        return f"<rule {self.name}({', '.join([*known, *(f'{k}={v}' for k, v in self.flags.items())])})>"

    def __reduce__(self) -> Any:
        place = self.function.__module__, self.function.__qualname__
        try:
            found = _named(*place)
        except (ImportError, AttributeError):
            found = None
        if found is not self:
            raise pickle.PicklingError(
                f"{self!r} is not what is found at {'.'.join(place)}: give it, and its look-ahead, that name there"
            )
        return _named, place

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
        initial |= {k: self._square(k, x) for k, space in self.spaces.items() if space.is_square and k not in given}
        ordered = [given.get(name, initial[name]) for name in self.signature_states]
        return self.function(x, dx, *ordered, **settings)

    def _square(self, state: str, x: Any) -> Any:
        """The initial value of a state that is a square matrix."""
        shape = tuple(getattr(x, "shape", ()))
        if len(shape) != 2:
            raise ValueError(
                f"{self.name} called with arrays takes matrices, and x has shape {shape}; reshape x, dx and the states "
                "to two dimensions, a vector of n weights to (1, n)"
            )
        side = shape[self.spaces[state].first == "columns"]
        return namespace([x]).full((side, side), self.states[state], dtype=x.dtype)

    def lookahead(self, function: Callable[..., Any]) -> Rule:
        """This rule with a look-ahead: how far from `x` the gradient is taken, by states and hyperparameters.

        The rule itself stays as it is: as a decorator, give the function the rule's name, which then stands for the
        rule with the look-ahead.

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
        return replace(self, ahead=function)

    def cost(self, dtype: Any = np.float32, **flags_and_options: Any) -> Cost:
        """What one step costs per weight: bytes read and written, and operations; of a square matrix, if it matters.

        Example:
            >>> import downslope
            >>> downslope.adam.cost().read, downslope.adam.cost().written
            (16, 12)
        """
        program = _read(self, flags_and_options)
        return cost(settled(program, (1024, 1024)) if program.of_matrices else program, dtype)

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
        return latex(_read(self, flags_and_options))

    def stability(self, **settings: Any) -> Stability:
        """How large `lr` times the curvature may be, read off the formula as a linear recurrence on a quadratic.

        Rules that divide by what they remember of past gradients are looked at with that held still: their limit is one
        on the preconditioned curvature. What cannot be read off is None, and `reason` says why.

        Args:
            **settings: Hyperparameters and flags that are not to have their defaults. A learning rate that has none is
                taken as 1: the limit is one of its product with the curvature.

        Raises:
            TypeError: A name is unknown, or a hyperparameter that has no default is missing.
            ValueError: A value is out of range.

        Example:
            >>> import downslope
            >>> print(downslope.momentum.stability(mu=0.9))
            stable while lr * curvature is below 3.8; fastest at 0.002633, where a step leaves 0.949 of the error
            >>> round(downslope.adam.stability().limit, 3), downslope.adam.stability().held
            (38.0, ('v',))
        """
        free = {"lr": 1.0} if self.hyperparameters.get("lr", 0.0) is None else {}
        numbers = self.complete({**free, **settings})
        flags = {name: numbers.pop(name) for name in self.flags}
        return stability(_read(self, flags), numbers)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def _read(of: Rule, flags: Mapping[str, Any]) -> Program:
    """What a rule computes with these flags and options."""
    if all(isinstance(value, bool) for value in flags.values()):
        return _program(of, tuple(flags.items()))
    return compose(of, **flags)


@functools.lru_cache(maxsize=256)
def _program(of: Rule, flags: tuple[tuple[str, bool], ...]) -> Program:
    """The same, read once: its facts are asked for one after the other, and limits at many settings."""
    return compose(of, **dict(flags))


def _named(module: str, name: str) -> Any:
    """The rule of this name, for a process that unpickles a reference to it."""
    return operator.attrgetter(name)(importlib.import_module(module))


@overload
def rule(function: Callable[..., Any], /) -> Rule: ...


@overload
def rule(
    *,
    ranges: Mapping[str, tuple[float, float]] = ...,
    most_dimensions: int | None = ...,
    least_dimensions: int | None = ...,
) -> Callable[[Callable[..., Any]], Rule]: ...


def rule(
    function: Callable[..., Any] | None = None,
    /,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    most_dimensions: int | None = None,
    least_dimensions: int | None = None,
) -> Any:
    """Make a rule from its formula.

    Args:
        function: The formula. Its first two parameters are `x` and `dx`; further positional parameters are states,
            whose defaults are their initial values (a number, `"x"` for a copy of the initial weights, the name of a
            hyperparameter, or `scalar(number)`, `rows(number)`, `columns(number)`, `rows_by_rows(number)`,
            `columns_by_columns(number)`); keyword-only parameters are hyperparameters with their defaults, where a
            boolean default makes a choice settled before compilation; a keyword-only `t` receives the number of the
            step. It returns the new weights and states, in signature order.
        ranges: The lowest and highest value of hyperparameters that are not of the usual kind. Without it `lr`,
            `eps` and the like are at least 0, and `mu`, `beta...`, `decay_rate` are from 0 to below 1.
        most_dimensions: How many dimensions a tensor may have; those with more are refused by name. By default a rule
            that goes by rows and columns takes them as the matrix of their first dimension and all others.
        least_dimensions: How many it must have. By default a rule that multiplies matrices takes tensors of at least
            two, and others any; with 1 it takes vectors, as matrices of one row, and with 0 single numbers too.

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
        return lambda decorated: Rule.of(decorated, ranges or {}, FIXED, most_dimensions, least_dimensions)
    return Rule.of(function, ranges or {}, FIXED, most_dimensions, least_dimensions)


def read_rule(text: str, name: str = "own") -> Rule:
    """Read a rule from text: a few lines as they stand in a rule's function. The text is never run.

    The new weights are what `x` is in the end, or what the last line returns. A name that is used before a line sets it
    is a state, 0 at first. A line such as `mu = 0.5` makes a hyperparameter with this default; the usual ones need no
    such line. Above a line that sets it anew, `s = 1` is what the state `s` begins with.
    A line `lookahead = mu*v` says how far from `x` the gradient is taken. A line `correction = True` makes a choice,
    which a formula asks for as Python does: `m / (1 - beta1**t) if correction else m`.

    Args:
        text: At most 500 characters; `;` ends a line too.
        name: What the rule is called.

    Raises:
        GrammarError: The text is no rule; the message points at the place.
        FormulaError: The name is not one that a function could have.

    Example:
        >>> heavy_ball = read_rule("v = mu*v - lr*dx; x += v")
        >>> heavy_ball.states, heavy_ball.hyperparameters["mu"]
        (mappingproxy({'v': 0.0}), 0.9)
        >>> tuple(map(float, heavy_ball(1.0, 2.0, lr=0.1)))
        (0.8, -0.2)
    """
    if not name.isidentifier():
        raise FormulaError(f"name={name!r} is not the name of a function; give one such as 'own'")
    read = parse_lines(text)
    forms = {tuple(each.values()): parse_lines(text, **each) for each in choices(read.flags)}

    def chosen(known: Mapping[str, Any]) -> tuple[bool, ...]:
        return tuple(bool(known[flag]) for flag in read.flags)

    def computed(e: Expression, args: list[Any]) -> Any:
        symbols = any(isinstance(arg, Expression) for arg in args)
        return apply(e.op, *args) if symbols else compute(e.op, args, namespace(args))

    def values(roots: Sequence[Expression], known: Mapping[str, Any]) -> list[Any]:
        found = evaluate(roots, lambda e: e.value if e.op == "constant" else known[str(e.value)], computed)
        return [found[e] for e in roots]

    def own(*given: Any, **numbers: Any) -> Any:
        known = dict(zip(("x", "dx", *read.states), given, strict=True)) | numbers
        new = values([*forms[chosen(known)].outputs.values()], known)
        return tuple(new) if read.states else new[0]

    arrays = [inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD) for key in ("x", "dx")]
    states = [arrays[0].replace(name=key, default=value) for key, value in read.states.items()]
    clock = {"t": inspect.Parameter.empty} if any(form.uses_t for form in forms.values()) else {}
    numbers = {**clock, **read.hyperparameters, **read.flags}
    settings = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in numbers.items()]
    own.__name__ = own.__qualname__ = name
    own.__signature__ = inspect.Signature([*arrays, *states, *settings])  # type: ignore[attr-defined]
    made = rule(own)
    aheads = {choice: form.lookahead for choice, form in forms.items() if form.lookahead is not None}
    if not aheads:
        return made

    def lookahead(**known: Any) -> Any:
        return values([aheads[chosen(known)]], known)[0]

    asked = dict.fromkeys([*(str(e.value) for e in in_order(aheads.values()) if e.op == "input"), *read.flags])
    lookahead.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in asked]
    )
    return made.lookahead(lookahead)
