"""What pages that walk by themselves are given of surfaces and rules, as JavaScript made from their formulas."""

from __future__ import annotations

import json

import numpy as np

from downslope.language.program import Program, in_order
from downslope.targets.held_still import response
from downslope.targets.javascript import function
from downslope.targets.stability import recurrence
from downslope.walks.surface import Surface


def height(surface: Surface) -> str:
    """A function of the surface's parameters, in an object, that gives a function of a point and an array.

    That one fills the array with the loss and its derivatives, and returns it.
    """
    return _at_a_point(surface, surface.program)


def second(surface: Surface) -> str:
    """The same for the second derivatives."""
    return _at_a_point(surface, surface.second)


def _at_a_point(surface: Surface, program: Program) -> str:
    of_numbers = function("", [*surface.variables, *surface.parameters], list(program.outputs.values()))
    place = [f"point[{k}]" for k in range(len(surface.variables))]
    known = [f"shape.{name}" for name in surface.parameters]
    return f"(shape) => ((of) => (point, out) => of({', '.join([*place, *known])}, out))({of_numbers})"


def response_code(program: Program) -> str:
    """How far a step moves a weight per unit of its gradient: a function, and the names of what it takes.

    `null` where a step is no multiple of the gradient.
    """
    found = response(program)
    if found is None:
        return "null"
    inputs = [str(part.value) for part in in_order([found[0]]) if part.op == "input"]
    names = json.dumps(inputs).replace("<", "\\u003c")
    return f"{{ inputs: {names}, value: {function('', inputs, found[0])} }}"


def recurrence_code(program: Program) -> str:
    """What a program is on a quadratic: the coefficients of a linear recurrence, as a function of its numbers.

    An object with `held`, the states that are held still; `size`, how many values move; `inputs`, the names of what
    `fill` takes before the array that it fills: for each value that moves, how its new one depends on the old ones and
    on the gradient, a row of `size + 1` numbers, and at last how the place of the gradient depends on them. Or with a
    `reason` why it is no such recurrence.
    """
    try:
        held, size, roots = recurrence(program)
    except ValueError as why:
        return f"{{ reason: {json.dumps(str(why))} }}"
    inputs = list(dict.fromkeys(str(part.value) for part in in_order(roots) if part.op == "input"))
    told = f"held: {json.dumps(held)}, size: {size}, inputs: {json.dumps(inputs)}"
    return f"{{ {told}, fill: {function('', inputs, roots)} }}"


def tall(surface: Surface) -> list[float]:
    """The heights between which a surface of one variable is drawn."""
    if len(surface.variables) > 1:
        return [0.0, 0.0]
    values = surface(np.linspace(*surface.ranges["x"], 401))
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return [low - 0.1 * (high - low), high + 0.05 * (high - low)]
