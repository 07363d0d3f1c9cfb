"""Options are formulas too: weight decay, clipping, caution, averaging and the look-ahead wrap any rule.

`compose` puts the chosen ones around a rule's formula. What comes out is one program like any other: all of it happens
in the same single pass over memory.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from downslope.language.expression import Expression
from downslope.language.formula import Formula, usual_range
from downslope.language.operations import FormulaError, where
from downslope.language.program import Program, in_order, share
from downslope.language.trace import array, number, trace


def scaled(dx: Any, *, grad_scale: Any) -> Any:
    """The gradient, scaled: 1 below the permitted norm, `max_norm / norm` above it.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013.
    """
    return grad_scale * dx


def coupled_decay(point: Any, dx: Any, *, weight_decay: Any) -> Any:
    """The gradient of the loss plus `weight_decay / 2 * sum(x**2)`, taken at the same point.

    Without a decay the point has no part in it: infinite weights, as masks have them, stay what they are.
    """
    return dx + where(weight_decay == 0, 0, weight_decay * point)


def decoupled_decay(x: Any, *, lr: Any, weight_decay: Any) -> Any:
    """The weights, shrunk before the step; without a decay they are as they were, infinite ones too.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.
    """
    decay = lr * weight_decay
    return x - where(decay == 0, 0, decay * x)


def cautious_step(x: Any, new: Any, dx: Any) -> Any:
    """The new weights where the step goes down the slope felt now; the old ones where it would climb or `dx` is 0.

    Only the mask is taken from the paper. Its authors also multiply the steps that remain by
    `size / (number that remain + 1)` of each tensor, which is not a matter of one weight alone: with them `lr` is
    effectively larger, by the share that is held back.

    Source: Liang et al., "Cautious optimizers: improving training with one line of code", 2024.
    """
    climbs = ((new >= x) & (dx >= 0)) | ((new <= x) & (dx <= 0))  # false of nan, so that nan comes through
    return where(climbs, x, new)


def exponential_average(average: Any, x: Any, *, averaging: Any) -> Any:
    """The exponential moving average of the weights: with `averaging=0` the weights themselves, infinite ones too.

    Source: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992, in its exponential form.
    """
    return where(averaging == 0, 0, averaging * average) + (1 - averaging) * x


@dataclass(frozen=True)
class Options:
    """Which options are around a rule: the one list of them.

    Attributes:
        weight_decay: Add the hyperparameter `weight_decay`, coupled unless `decoupled`.
        averaging: Add the state `average` and the hyperparameter `averaging`, its decay.
        decoupled: Shrink the weights themselves instead of adding to the gradient.
        cautious: Hold every weight still whose step would not go down the gradient that the rule is given (clipped,
            and with coupled decay if there is any); see `cautious_step`. `decoupled` decay is applied to all
            weights; a decay inside the rule's own formula is part of its step. The states move as without caution.
        max_norm: Scale the gradient by the scalar input `grad_scale`.
        maximize: Walk up instead of down.
    """

    weight_decay: bool = False
    averaging: bool = False
    decoupled: bool = False
    cautious: bool = False
    max_norm: bool = False
    maximize: bool = False

    def check(self, formula: Formula) -> None:
        """Refuse options that do not fit a formula, or each other."""
        for name in self.numbers:
            if name in {*formula.hyperparameters, *formula.flags}:
                raise FormulaError(
                    f"{formula.name} already has a hyperparameter {name}; the option cannot be added to it"
                )
        if self.decoupled and not self.weight_decay:
            raise FormulaError("decoupled=True says how to apply weight_decay; give weight_decay=... too")
        if self.decoupled and "lr" not in formula.hyperparameters:
            raise FormulaError(f"decoupled weight decay needs a rule with a hyperparameter lr; {formula.name} has none")

    @property
    def numbers(self) -> tuple[str, ...]:
        """The hyperparameters that the options add."""
        return tuple(name for name in NUMBERS if getattr(self, name))


PLAIN = Options()
"""No options at all."""

NUMBERS = ("weight_decay", "averaging")
"""The options that are hyperparameters: a number or a schedule, and possibly another one for each group."""

NAMES = tuple(field.name for field in dataclasses.fields(Options))
"""All of them."""

CHOICES = tuple(name for name in NAMES if name not in (*NUMBERS, "max_norm"))
"""The options that are a yes or no."""


def compose(formula: Formula, *, stored_ahead: bool = False, **flags_and_options: Any) -> Program:
    """Read a formula with options around it.

    Args:
        formula: The formula.
        stored_ahead: The array `x` holds the point where the gradient is taken instead of the weights; each
            hyperparameter of the look-ahead then also enters as `<name> next`, its value at the next step.
        **flags_and_options: Boolean hyperparameters of the formula that are not to have their defaults, and the options
            (see `Options`) that are to be around it.

    Raises:
        FormulaError: The formula cannot be compiled, or an option does not fit it.

    Example:
        >>> import downslope
        >>> compose(downslope.adam).arrays
        ('x', 'dx', 'm', 'v')
        >>> compose(downslope.adam, averaging=True).arrays
        ('x', 'dx', 'm', 'v', 'average')
    """
    options = Options(**{name: bool(flags_and_options.pop(name)) for name in NAMES if name in flags_and_options})
    options.check(formula)
    symbols = _Symbols(formula, options, flags_and_options)
    x, dx, now = array("x"), array("dx"), symbols.hyperparameters
    stored_ahead = stored_ahead and formula.ahead is not None
    if stored_ahead:
        point, x = x, x - symbols.ahead(symbols.states)
    else:
        point = x + symbols.ahead(symbols.states) if formula.ahead else x

    if options.max_norm:
        dx = scaled(dx, grad_scale=number("grad_scale"))
    if options.maximize:
        dx = -dx
    if options.weight_decay and not options.decoupled:
        dx = coupled_decay(point, dx, weight_decay=now["weight_decay"])
    if options.decoupled:
        x = decoupled_decay(x, lr=now["lr"], weight_decay=now["weight_decay"])
    reading = trace(formula, x, dx, symbols.states, symbols.settings)
    outputs = dict(reading.outputs)
    if options.cautious:
        reading.names.setdefault(outputs["x"], "candidate")
        outputs["x"] = cautious_step(x, outputs["x"], dx)
    if options.averaging:
        outputs["average"] = exponential_average(array("average"), outputs["x"], averaging=now["averaging"])
    if stored_ahead:
        outputs["x"] = outputs["x"] + symbols.ahead(outputs, following=True)

    _drop_idle(formula, outputs)
    lookahead = symbols.program({"x": point}, {}) if formula.ahead and not stored_ahead else None
    return symbols.program(outputs, reading.names, lookahead)


def stored_point(formula: Formula, *, to_weights: bool, **flags: Any) -> Program:
    """The program that moves from the weights to the point ahead, or back, with the states as they are."""
    symbols = _Symbols(formula, Options(), flags)
    x, offset = array("x"), symbols.ahead(symbols.states)
    return symbols.program({"x": x - offset if to_weights else x + offset}, {})


class _Symbols:
    """What a formula and the options around it are called with, and the programs made of that."""

    def __init__(self, formula: Formula, options: Options, flags: Mapping[str, Any]):
        self.formula = formula
        self.options = options
        self.flags = {**formula.flags, **{name: formula.checked(name, value) for name, value in flags.items()}}
        self.defaults = {**formula.hyperparameters, **dict.fromkeys(options.numbers)}
        self.hyperparameters = {name: number(name) for name in self.defaults}
        self.clock = {"t": number("t")} if formula.uses_t else {}
        self.states = {
            **{name: array(name) for name in formula.states},
            **{name: number(name) for name in formula.scalar_states},
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What a formula is given by keyword."""
        own = {name: self.hyperparameters[name] for name in self.formula.hyperparameters}
        return {**own, **self.flags, **self.clock}

    @functools.cached_property
    def asked(self) -> tuple[str, ...]:
        """What the look-ahead asks for."""
        assert self.formula.ahead is not None
        return tuple(inspect.signature(self.formula.ahead).parameters)

    def ahead(self, states: Mapping[str, Any], *, following: bool = False) -> Any:
        """How far ahead of the weights the gradient is taken, with these states, at this step or the following one."""
        assert self.formula.ahead is not None
        known: dict[str, Any] = {**states, **self.hyperparameters, **self.flags}
        if following:
            known |= {name: number(f"{name} next") for name in self.asked if name in self.formula.hyperparameters}
        return self.formula.ahead(**{name: known[name] for name in self.asked})

    def program(
        self, outputs: Mapping[str, Expression], names: Mapping[Expression, str], lookahead: Program | None = None
    ) -> Program:
        """The program with these outputs."""
        formula = self.formula
        roots, names = share(outputs, names)
        averaged: dict[str, float | str] = {"average": "x"} if self.options.averaging else {}
        return Program(
            name=formula.name,
            states={**{s: v for s, v in formula.states.items() if s in outputs}, **averaged},
            scalar_states={s: v for s, v in formula.scalar_states.items() if s in outputs},
            hyperparameters=self.defaults,
            ranges={name: formula.ranges.get(name, usual_range(name)) for name in self.defaults},
            outputs={name: e for name, e in roots.items() if name not in formula.scalar_states},
            scalar_outputs={name: e for name, e in roots.items() if name in formula.scalar_states},
            names=names,
            lookahead=lookahead,
        )


def _drop_idle(formula: Formula, outputs: dict[str, Any]) -> None:
    """Leave out the states that have no job with the flags chosen."""
    used = {str(e.value) for e in in_order(e for name, e in outputs.items() if e.value != name) if e.op == "input"}
    for name in (*formula.states, *formula.scalar_states):
        if outputs[name].value == name and name not in used:
            del outputs[name]
