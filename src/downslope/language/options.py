"""Options are formulas too: weight decay, clipping, caution, averaging and the look-ahead wrap any rule.

An option stands here and nowhere else: its formula, its row in `BEFORE` or `AFTER`, and its name in `Options`. Every
optimizer then takes it. `compose` puts the chosen ones around a rule's formula. What comes out is one program like any
other: all of it happens in the same single pass over memory.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypedDict, TypeVar

from downslope.language.expression import Expression
from downslope.language.formula import Formula
from downslope.language.operations import FormulaError, where
from downslope.language.program import Program, in_order, share
from downslope.language.ranges import Range, usual_range
from downslope.language.spaces import WEIGHT
from downslope.language.trace import array, number, trace

Number = TypeVar("Number")


class UsualOptions(TypedDict, Generic[Number], total=False):
    """The options that the optimizers of most frameworks have themselves, under these names or others, and their kin.

    Attributes:
        weight_decay: Adds `weight_decay * x` to the gradient, which then is that of the loss plus
            `weight_decay / 2 * sum(x**2)`. A rule with a hyperparameter of this name takes it for that.
        decoupled: Applies the weight decay to the weights instead, `x - lr * weight_decay * x`, before the step
            (Loshchilov & Hutter, 2019).
        cautious_decay: Applies it to the weights, but only where the step goes towards 0 anyway, or nowhere (Chen et
            al., 2025); of a rule with a look-ahead this is the step of the weights.
        maximize: Walks up the gradient instead of down.
    """

    weight_decay: Number | None
    decoupled: bool
    cautious_decay: bool
    maximize: bool


class OccasionalOptions(TypedDict, Generic[Number], total=False):
    """The options that only some frameworks have, Keras as `use_ema` and `global_clipnorm`.

    Attributes:
        averaging: The decay of a moving average of the weights, `averaging * average + (1 - averaging) * x`, which
            starts from the initial weights (Polyak & Juditsky, 1992).
        max_norm: Scales all gradients by `max_norm / norm` when their common Euclidean norm is larger (Pascanu et al.,
            2013), which takes one more read of the gradients.
    """

    averaging: Number | None
    max_norm: float | None


class OwnOptions(TypedDict, Generic[Number], total=False):
    """The options that no framework has. A new one is to stand here.

    Attributes:
        cautious: Holds every weight still whose step would not go down the gradient that the rule is given (clipped,
            and with coupled decay if there is any; Liang et al., 2024, without their rescaling). Decoupled decay is
            applied to all weights; a decay inside the rule's own formula is part of its step. The states move as
            without caution.
    """

    cautious: bool


class Options(UsualOptions[Number], OccasionalOptions[Number], OwnOptions[Number], total=False):
    """What every optimizer takes besides the hyperparameters of its rule.

    A number is None where it is not wanted, and in a step in which it is 0 it does nothing; it may be a schedule, and
    another one for each parameter group, as hyperparameters may. `max_norm`, and what is True or False, hold for the
    whole optimizer.

    Attributes:
        weight_decay: See `UsualOptions`, and so for `decoupled`, `cautious_decay` and `maximize`.
        averaging: See `OccasionalOptions`, and so for `max_norm`.
        cautious: See `OwnOptions`.

    Example:
        >>> import numpy as np, downslope
        >>> options: downslope.Options[float] = {"weight_decay": 0.01, "decoupled": True, "max_norm": 1.0}
        >>> optimizer = downslope.Optimizer(np.ones(3), downslope.adam, lr=1e-3, **options)
    """


def scaled(dx: Any, *, grad_scale: Any) -> Any:
    """The gradient, scaled: 1 below the permitted norm, `max_norm / norm` above it.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013.
    """
    return grad_scale * dx


def uphill(dx: Any) -> Any:
    """The gradient of minus the loss, so that the rule walks up."""
    return -dx


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


def cautious_decay(x: Any, new: Any, *, lr: Any, weight_decay: Any) -> Any:
    """The new weights, decayed where the step has brought them towards 0, or not moved them: it is not held up.

    Source: Chen et al., "Cautious weight decay", 2025.
    """
    inward = ((new <= x) & (x >= 0)) | ((new >= x) & (x <= 0))  # false of nan, so that nan comes through
    decay = lr * weight_decay
    return new - where(inward, where(decay == 0, 0, decay * x), 0)


def exponential_average(new: Any, average: Any = "x", *, averaging: Any) -> Any:
    """The exponential moving average of the weights: with `averaging=0` the weights themselves, infinite ones too.

    Source: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992, in its exponential form.
    """
    return where(averaging == 0, 0, averaging * average) + (1 - averaging) * new


@dataclass(frozen=True)
class Pass:
    """A formula that stands around a rule, and when it does.

    As for a rule, its signature is its schema. It reads, by name, what there is by then: `dx`, the gradient; `x`, the
    weights; `point`, where the gradient was taken; `new`, the weights that the rule has come to; a state of its own,
    whose default is its initial value. What it takes by keyword only are numbers: hyperparameters, those that are
    options among them, or `grad_scale`.

    Attributes:
        gives: What it computes: one of these.
        formula: How.
        option: The option with which it is there.
        unless: The options with any of which it is not.
        allowed: The values that the option may take if it is a number; None for what is usual for one of this name.
    """

    gives: str
    formula: Callable[..., Any]
    option: str
    unless: tuple[str, ...] = ()
    allowed: Range | None = None

    @functools.cached_property
    def numbers(self) -> tuple[str, ...]:
        """What it takes by keyword only."""
        parameters = inspect.signature(self.formula).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    @functools.cached_property
    def states(self) -> dict[str, str]:
        """The initial value of its state, if it has one."""
        parameters = inspect.signature(self.formula).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def over(self, values: Mapping[str, Any]) -> Any:
        """What it computes from these values."""
        return self.formula(**{name: values[name] for name in inspect.signature(self.formula).parameters})


BEFORE = (
    Pass("dx", scaled, "max_norm"),
    Pass("dx", uphill, "maximize"),
    Pass("dx", coupled_decay, "weight_decay", unless=("decoupled", "cautious_decay")),
    Pass("x", decoupled_decay, "decoupled", unless=("cautious_decay",)),
)
"""What happens to the gradient and the weights before the rule is given them, in this order."""

AFTER = (
    Pass("new", cautious_step, "cautious"),
    Pass("new", cautious_decay, "cautious_decay"),
    Pass("average", exponential_average, "averaging"),
)
"""What happens to the weights that it has come to, in this order."""

NAMES = tuple(Options.__annotations__)
"""The names of all options."""

NUMBERS = tuple(name for name in NAMES if any(name in each.numbers for each in (*BEFORE, *AFTER)))
"""The options that are hyperparameters: a number or a schedule, and possibly another one for each group."""

CHOICES = tuple(name for name in NAMES if name not in (*NUMBERS, "max_norm"))
"""The options that are a yes or no."""

FIXED = (*CHOICES, "max_norm")
"""The options that hold for a whole optimizer; a rule cannot have a hyperparameter of such a name."""

DEFAULTS = MappingProxyType({name: False if name in CHOICES else None for name in NAMES})
"""What is given for an option that is not wanted."""


def present(options: Collection[str], passes: Iterable[Pass] = (*BEFORE, *AFTER)) -> list[Pass]:
    """The passes that these options ask for."""
    return [each for each in passes if each.option in options and not any(name in options for name in each.unless)]


def option_range(name: str) -> Range:
    """The values that an option may take if it is a number."""
    return next((each.allowed for each in (*BEFORE, *AFTER) if each.option == name and each.allowed), usual_range(name))


def check_options(formula: Formula, options: Collection[str]) -> None:
    """Refuse options that do not fit a formula, or each other.

    Raises:
        FormulaError: They do not fit.
    """
    for name in NUMBERS:
        if name in options and name in {*formula.hyperparameters, *formula.flags}:
            raise FormulaError(f"{formula.name} already has a hyperparameter {name}; the option cannot be added to it")
    for each in present(options):
        for name in each.numbers:
            if name in NUMBERS and name not in options:
                raise FormulaError(f"{each.option}=True says how to apply {name}; give {name}=... too")
            if name not in (*NUMBERS, *formula.hyperparameters, "grad_scale"):
                raise FormulaError(f"{each.option} needs a rule with a hyperparameter {name}; {formula.name} has none")
        for name in each.states:
            if name in (*formula.states, *formula.scalar_states):
                raise FormulaError(f"{formula.name} already has a state {name}; {each.option} cannot add its own")


def compose(formula: Formula, /, *, stored_ahead: bool = False, **flags_and_options: Any) -> Program:
    """Read a formula with options around it.

    Args:
        formula: A rule, or any other formula of a step.
        stored_ahead: The array `x` holds the point where the gradient is taken instead of the weights; each
            hyperparameter of the look-ahead then also enters as `<name> next`, its value at the next step.
        **flags_and_options: Boolean hyperparameters of the formula that are not to have their defaults, and True for
            the options (see `Options`) that are to be around it.

    Raises:
        FormulaError: The formula cannot be compiled, or an option does not fit it.

    Example:
        >>> import downslope
        >>> compose(downslope.adam).arrays
        ('x', 'dx', 'm', 'v')
        >>> compose(downslope.adam, averaging=True).arrays
        ('x', 'dx', 'm', 'v', 'average')
    """
    options = {name for name in NAMES if name in flags_and_options and flags_and_options.pop(name)}
    check_options(formula, options)
    symbols = _Symbols(formula, options, flags_and_options)
    stored_ahead = stored_ahead and formula.ahead is not None
    values = symbols.values(stored_ahead=stored_ahead)
    for each in present(options, BEFORE):
        values[each.gives] = each.over(values)
    reading = trace(formula, values["x"], values["dx"], symbols.states, symbols.settings)
    outputs = dict(reading.outputs)
    values["new"] = outputs["x"]
    for each in present(options, AFTER):
        if each.gives == "new":
            reading.names.setdefault(values["new"], "candidate")
        values[each.gives] = each.over(values)
    outputs |= {"x": values["new"], **{name: values[name] for name in symbols.added}}
    if stored_ahead:
        outputs["x"] = outputs["x"] + symbols.ahead(outputs, following=True)

    _drop_idle(formula, outputs)
    lookahead = symbols.program({"x": values["point"]}, {}) if formula.ahead and not stored_ahead else None
    return symbols.program(outputs, reading.names, lookahead)


def stored_point(formula: Formula, /, *, to_weights: bool, **flags: Any) -> Program:
    """The program that moves from the weights to the point ahead, or back, with the states as they are."""
    symbols = _Symbols(formula, (), flags)
    x, offset = array("x"), symbols.ahead(symbols.states)
    return symbols.program({"x": x - offset if to_weights else x + offset}, {})


class _Symbols:
    """What a formula and the options around it are called with, and the programs made of that."""

    def __init__(self, formula: Formula, options: Collection[str], flags: Mapping[str, Any]):
        self.formula = formula
        self.added = {name: start for each in present(options) for name, start in each.states.items()}
        self.flags = {**formula.flags, **{name: formula.checked(name, value) for name, value in flags.items()}}
        self.defaults = {**formula.hyperparameters, **{name: None for name in NUMBERS if name in options}}
        self.ranges = {name: formula.ranges.get(name, option_range(name)) for name in self.defaults}
        self.hyperparameters = {name: number(name) for name in self.defaults}
        self.clock = {"t": number("t")} if formula.uses_t else {}
        self.states = {
            **{name: array(name, formula.spaces.get(name, WEIGHT)) for name in formula.states},
            **{name: number(name) for name in formula.scalar_states},
        }

    def values(self, *, stored_ahead: bool) -> dict[str, Any]:
        """What there is before the first pass; `x` are the weights, also where the array holds the point ahead."""
        x = array("x")
        offset = self.ahead(self.states) if self.formula.ahead else None
        weights, point = (x - offset, x) if stored_ahead else (x, x if offset is None else x + offset)
        added = {name: array(name) for name in self.added}
        scalars = {**self.hyperparameters, "grad_scale": number("grad_scale")}
        return {"x": weights, "dx": array("dx"), "point": point, **added, **scalars}

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
        offset = self.formula.ahead(**{name: known[name] for name in self.asked})
        if not following and isinstance(offset, Expression) and any(e.over_all for e in in_order([offset])):
            raise FormulaError(
                f"the look-ahead of {self.formula.name} sums up all tensors, but each goes to its point ahead by "
                "itself; keep the sum in a scalar state, and have the look-ahead ask for that"
            )
        return offset

    def program(
        self, outputs: Mapping[str, Expression], names: Mapping[Expression, str], lookahead: Program | None = None
    ) -> Program:
        """The program with these outputs."""
        formula = self.formula
        roots, names = share(outputs, names)
        return Program(
            name=formula.name,
            states={**{s: v for s, v in formula.states.items() if s in outputs}, **self.added},
            scalar_states={s: v for s, v in formula.scalar_states.items() if s in outputs},
            hyperparameters=self.defaults,
            ranges=self.ranges,
            outputs={name: e for name, e in roots.items() if name not in formula.scalar_states},
            scalar_outputs={name: e for name, e in roots.items() if name in formula.scalar_states},
            names=names,
            lookahead=lookahead,
            spaces=formula.spaces,
            most_dimensions=formula.most_dimensions,
            least_dimensions=formula.least_dimensions,
        )


def _drop_idle(formula: Formula, outputs: dict[str, Any]) -> None:
    """Leave out the states that have no job with the flags chosen."""
    used = {str(e.value) for e in in_order(e for name, e in outputs.items() if e.value != name) if e.op == "input"}
    for name in (*formula.states, *formula.scalar_states):
        if outputs[name].value == name and name not in used:
            del outputs[name]
