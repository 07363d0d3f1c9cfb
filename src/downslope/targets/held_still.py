"""What a program is like while it divides by what does not change: some states are held still, the others move.

Rules that divide by what they remember of past gradients are not linear in these. With such states held still, as they
nearly are while the gradient is small against them, what remains is a sum of multiples of the weights, the other states
and the gradient, or else there is none.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from downslope.language.derivative import gradient, slopes
from downslope.language.expression import Expression
from downslope.language.program import Program, in_order
from downslope.language.rewrites import rewritten
from downslope.language.trace import array
from downslope.targets.compute import compute
from downslope.targets.evaluate import evaluate

Array = np.ndarray[Any, Any]

MOST_HELD = 4
"""How many states are held still at most."""


class NotLinear(Exception):  # noqa: N818 - it is no fault
    """Why a program is no linear recurrence."""


def response(program: Program) -> tuple[Expression, tuple[str, ...]] | None:
    """How far a step moves a weight for each unit of its gradient, with what it divides by held still.

    Args:
        program: What a step computes.

    Returns:
        An expression of the program's inputs, and of the new value of each state that is held still as the input
        `<name> still`; and the names of these states. None where the step is no multiple of the gradient.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> from downslope.targets.formula import text
        >>> e, held = response(compose(downslope.rmsprop))
        >>> print(text(e), held)
        lr / (sqrt(cache still) + eps) ('cache',)
    """
    try:
        held, _ = linear(program)
    except NotLinear:
        return None
    (slope,) = gradient(-_still(program, held)["x"], ["dx"])
    return slope, held


def effective(program: Program, before: Mapping[str, Any], after: Mapping[str, Any]) -> Array | None:
    """How far a step moves each weight for each unit of its gradient: the value of `response`.

    Args:
        program: What a step computes.
        before: What goes into the step, by name: weights, gradient, states, and all numbers.
        after: The new states.

    Returns:
        As many values as there are weights, not finite where nothing is divided by; None where the step is no multiple
        of the gradient.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> before = {"lr": 0.1, "eps": 0.0, "dx": np.array([2.0, 5.0])}
        >>> effective(compose(downslope.rmsprop), before, {"cache": np.array([4.0, 25.0])})
        array([0.05, 0.02])
    """
    found = response(program)
    if found is None:
        return None
    e, held = found
    leaves = {**before, **{f"{name} still": after[name] for name in held}}
    value = values_of([e], {name: np.asarray(leaf)[()] for name, leaf in leaves.items()})[e]
    return np.array(np.broadcast_to(value, np.shape(before["dx"])))


@functools.lru_cache(maxsize=256)
def linear(program: Program) -> tuple[tuple[str, ...], dict[str, Expression]]:
    """The states that are held still, as few as will do, and the new values of what moves, linear in what moves."""
    if program.over_tensors:
        raise NotLinear("it goes by norms, means or products of whole tensors, and not by each weight alone")
    for count in range(min(len(program.states), MOST_HELD) + 1):
        for held in itertools.combinations(program.states, count):
            outputs = _needed(_holding(program, held))
            moving = {"x", "dx", *program.states} - {*held}
            if mentions(outputs.values(), ["dx"]) and all(_is_linear(e, moving) for e in outputs.values()):
                return held, outputs
    if any(part.op == "sign" for part in in_order([program.outputs["x"]])):
        raise NotLinear("it goes by the sign of something, and its steps do not shrink with the gradient")
    raise NotLinear("its step is no multiple of the gradient and of what it remembers")


def _is_linear(e: Expression, moving: Collection[str]) -> bool:
    """Whether an expression is a sum of multiples of these inputs, and perhaps of something constant."""
    jumps = [part for part in in_order([e]) if part.op == "sign" or part.is_condition]
    return not mentions(jumps, moving) and not any(mentions([slope], moving) for slope in slopes(e, sorted(moving)))


def mentions(roots: Iterable[Expression], names: Collection[str]) -> bool:
    """Whether any of these inputs is among what the roots are made of."""
    return any(part.op == "input" and part.value in names for part in in_order(roots))


def _needed(outputs: Mapping[str, Expression]) -> dict[str, Expression]:
    """The new weights, and the new states that they depend on, directly or through others."""
    found = ["x"]
    for name in found:
        inputs = {str(part.value) for part in in_order([outputs[name]]) if part.op == "input"}
        found += [other for other in outputs if other in inputs and other not in found]
    return {name: outputs[name] for name in found}


def _still(program: Program, held: Collection[str]) -> dict[str, Expression]:
    """The new values of the others; the new value of a state that is held still is an input `<name> still` in them."""
    after = {program.outputs[name]: array(f"{name} still") for name in held if program.outputs[name].op != "input"}
    new = rewritten(program.outputs.values(), lambda e, args: after.get(e))
    return {name: new[e] for name, e in program.outputs.items() if name not in held}


def _holding(program: Program, held: Collection[str]) -> dict[str, Expression]:
    """The new values with some states held still: every factor made of them alone is a symbol, `factor 0` and so on."""
    outputs = _still(program, held)
    stills = {*held, *(f"{name} still" for name in held)}
    alone = {e for e in in_order(outputs.values()) if _made_of(e, stills)}
    factors: dict[Expression, Expression] = {}

    def instead(e: Expression, args: tuple[Expression, ...]) -> Expression | None:
        if e in alone:
            return None
        pairs = zip(e.args, args, strict=True)
        return e.of(tuple(_factor(arg, factors) if arg in alone else new for arg, new in pairs))

    new = rewritten(outputs.values(), instead)
    return {name: _factor(e, factors) if e in alone else new[e] for name, e in outputs.items()}


def _made_of(e: Expression, stills: Collection[Any]) -> bool:
    """Whether an expression depends on what is held still, and else on parameters only; the learning rate is none."""
    inputs = [part for part in in_order([e]) if part.op == "input"]
    others = [part for part in inputs if part.value not in stills]
    return len(others) < len(inputs) and not any(part.from_arrays or part.value == "lr" for part in others)


def _factor(e: Expression, factors: dict[Expression, Expression]) -> Expression:
    """The symbol of a factor; a condition is settled as where what is held still is 1."""
    if e not in factors:
        symbol = Expression("input", value=f"factor {len(factors)}")
        factors[e] = symbol > 0 if e.is_condition else symbol
    return factors[e]


def values_of(roots: Iterable[Expression], leaves: Mapping[str, Any]) -> dict[Expression, Any]:
    """The values of expressions in double precision, given those of their inputs by name."""

    def leaf(e: Expression) -> Any:
        return np.float64(e.number if e.op == "constant" else leaves[str(e.value)])

    with np.errstate(all="ignore"):
        return evaluate(roots, leaf, lambda e, args: compute(e.op, args))
