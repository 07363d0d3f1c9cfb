"""Options are formulas too: weight decay, clipping, caution, averaging and the look-ahead wrap any rule.

`compose` puts the chosen ones around a rule's formula. What comes out is one program like any other: all of it happens
in the same single pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from downslope.expression import FormulaError, where
from downslope.formula import Range, Rule, usual_range
from downslope.trace import Program, array, in_order, number, run, share


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


def compose(
    rule: Rule,
    *,
    max_norm: bool = False,
    maximize: bool = False,
    weight_decay: bool = False,
    decoupled: bool = False,
    cautious: bool = False,
    averaging: bool = False,
    stored_ahead: bool = False,
    **flags: Any,
) -> Program:
    """Read a rule with options around it.

    Args:
        rule: The rule.
        max_norm: Scale the gradient by the scalar input `grad_scale`.
        maximize: Walk up instead of down.
        weight_decay: Add the hyperparameter `weight_decay`, coupled unless `decoupled`.
        decoupled: Shrink the weights themselves instead of adding to the gradient.
        cautious: Hold every weight still whose step would not go down the gradient that the rule is given (clipped,
            and with coupled decay if there is any); see `cautious_step`. `decoupled` decay is applied to all
            weights; a decay inside the rule's own formula is part of its step. The states move as without caution.
        averaging: Add the state `average` and the hyperparameter `averaging`, its decay.
        stored_ahead: The array `x` holds the point where the gradient is taken instead of the weights; each
            hyperparameter of the look-ahead then also enters as `<name> next`, its value at the next step.
        **flags: Boolean hyperparameters of the rule.

    Raises:
        FormulaError: The formula cannot be compiled, or an option does not fit the rule.
    """
    settings = {**rule.flags, **{name: rule.checked(name, value) for name, value in flags.items()}}
    hyperparameters = dict(rule.hyperparameters)
    for name, wanted in (("weight_decay", weight_decay), ("averaging", averaging)):
        if wanted and name in {*rule.hyperparameters, *rule.flags}:
            raise FormulaError(f"{rule.name} already has a hyperparameter {name}; the option cannot be added to it")
        if wanted:
            hyperparameters[name] = None
    if decoupled and not weight_decay:
        raise FormulaError("decoupled=True says how to apply weight_decay; give weight_decay=... too")
    if decoupled and "lr" not in rule.hyperparameters:
        raise FormulaError(f"decoupled weight decay needs a rule with a hyperparameter lr; {rule.name} has none")

    now = {name: number(name) for name in hyperparameters}
    states = {name: array(name) for name in rule.states} | {name: number(name) for name in rule.scalar_states}
    clock = {"t": number("t")} if rule.uses_t else {}
    x, dx = array("x"), array("dx")
    ahead = _Ahead(rule)
    if stored_ahead and rule.ahead:
        point, x = x, x - ahead(states, now, settings, clock)
    else:
        point = x + ahead(states, now, settings, clock) if rule.ahead else x
    if max_norm:
        dx = scaled(dx, grad_scale=number("grad_scale"))
    if maximize:
        dx = -dx
    if weight_decay and not decoupled:
        dx = coupled_decay(point, dx, weight_decay=now["weight_decay"])
    if decoupled:
        x = decoupled_decay(x, lr=now["lr"], weight_decay=now["weight_decay"])
    given = {name: now[name] for name in rule.hyperparameters}
    reading = run(rule, x, dx, states, {**given, **settings, **clock})
    outputs = dict(reading.outputs)
    if cautious:
        reading.names.setdefault(outputs["x"], "candidate")
        outputs["x"] = cautious_step(x, outputs["x"], dx)
    if averaging:
        outputs["average"] = exponential_average(array("average"), outputs["x"], averaging=now["averaging"])
    if stored_ahead and rule.ahead:
        following = {name: number(f"{name} next") for name in ahead.hyperparameters}
        step = {"t": clock["t"] + 1} if clock else {}
        outputs["x"] = outputs["x"] + ahead(outputs, {**now, **following}, settings, step)

    used = {str(e.value) for e in in_order(e for name, e in outputs.items() if e.value != name) if e.op == "input"}
    for name in (*rule.states, *rule.scalar_states):
        if outputs[name].value == name and name not in used:
            del outputs[name]  # the flags chosen leave this state without a job
    lookahead = None
    if rule.ahead and not stored_ahead:
        lookahead = _program(rule, {"x": point}, {}, hyperparameters, averaging)
    return _program(rule, outputs, reading.names, hyperparameters, averaging, lookahead)


def stored_point(rule: Rule, *, to_weights: bool, **flags: Any) -> Program:
    """The program that moves from the weights to the point ahead, or back, with the states as they are."""
    settings = {**rule.flags, **flags}
    now = {name: number(name) for name in rule.hyperparameters}
    states = {name: array(name) for name in rule.states} | {name: number(name) for name in rule.scalar_states}
    offset = _Ahead(rule)(states, now, settings, {"t": number("t")} if rule.uses_t else {})
    x = array("x")
    return _program(rule, {"x": x - offset if to_weights else x + offset}, {}, dict(rule.hyperparameters), False)


class _Ahead:
    """A rule's look-ahead, called with whichever of the states and hyperparameters its author asked for."""

    def __init__(self, rule: Rule):
        import inspect

        self.function: Callable[..., Any] | None = rule.ahead
        self.asked = tuple(inspect.signature(self.function).parameters) if self.function else ()
        self.hyperparameters = tuple(name for name in self.asked if name in rule.hyperparameters)

    def __call__(self, *sources: Mapping[str, Any]) -> Any:
        assert self.function is not None
        known = {name: value for source in sources for name, value in source.items()}
        return self.function(**{name: known[name] for name in self.asked})


def _program(
    rule: Rule,
    outputs: dict[str, Any],
    names: dict[Any, str],
    hyperparameters: dict[str, float | None],
    averaging: bool,
    lookahead: Program | None = None,
) -> Program:
    roots, names = share(outputs, names)
    ranges: dict[str, Range] = {name: rule.ranges.get(name, usual_range(name)) for name in hyperparameters}
    return Program(
        name=rule.name,
        states={**{s: v for s, v in rule.states.items() if s in outputs}, **({"average": "x"} if averaging else {})},
        scalar_states={s: v for s, v in rule.scalar_states.items() if s in outputs},
        hyperparameters=hyperparameters,
        ranges=ranges,
        outputs={name: e for name, e in roots.items() if name not in rule.scalar_states},
        scalar_outputs={name: e for name, e in roots.items() if name in rule.scalar_states},
        names=names,
        lookahead=lookahead,
    )
