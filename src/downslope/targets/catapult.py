"""How far above its limit a rule may start on the simplest network and still come back.

On a quadratic the errors of a rule grow for good once its learning rate times the curvature is above its limit. The
curvature of a network is not constant: while the outputs swing, the weights shrink, and with them the curvature, until
it is below the limit and the swinging dies out; the weights have been thrown to a flatter place. The simplest network
that does so is `f = u . v` with the loss `f**2 / 2`, whose curvature, at the start where `f` is small, is
`|u|**2 + |v|**2`. Gradient descent comes back from up to twice its limit; for other rules there is no formula, but it
is a walk of four numbers, by the rule's own formula: a rule that is linear stays in the plane of the first `u` and `v`.

Source: Lewkowycz et al., "The large learning rate phase of deep learning: the catapult mechanism", 2020, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from downslope.language.program import Program
from downslope.targets.arrays import interpret
from downslope.targets.stability import stability

STARTS = np.geomspace(1e-6, 1e-2, 9)
"""Cosines of the angle between `u` and `v` at the start: the outputs of wide networks, relative to their weights."""

FINENESS = 32
TIMES = 2 ** (np.arange(0.5, 3 * FINENESS) / FINENESS)
"""The products of learning rate and curvature that are tried, over the limit."""

STEPS = 1000
LOST = 1e3
"""A walk is lost when the output is so many times what it may be with weights as large as at the start."""


def catapult(program: Program, settings: Mapping[str, float]) -> float | None:
    """The product of the learning rate and the curvature at the start from which on a rule does not come back.

    Near it some starts come back and others do not; it is where half of them are lost.

    Args:
        program: What a step computes.
        settings: The values of its hyperparameters.

    Returns:
        The product, to 1 per cent; infinite where nothing is lost up to eight times the limit; None for a rule that has
        no limit, or whose limit is one of the preconditioned curvature.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> round(catapult(compose(downslope.sgd), {"lr": 0.1}), 9)
        4.0
    """
    found = stability(program, settings)
    if found.limit is None or found.held or not 0 < found.limit < math.inf:
        return None
    products = found.limit * TIMES[:, None]
    size = np.sqrt(products / settings["lr"] / 2)  # of u and of v
    x = size * np.stack([np.ones_like(STARTS), np.zeros_like(STARTS), STARTS, np.sqrt(1 - STARTS**2)])[:, None]
    starts = {name: program.initial(name, settings) for name in program.states}
    states = {name: x.copy() if value is None else np.full_like(x, value) for name, value in starts.items()}
    scalars: dict[str, Any] = dict(program.scalar_states)
    lost = np.zeros(x.shape[1:], bool)
    with np.errstate(all="ignore"):
        for t in range(1, STEPS + 1):
            known = {**settings, **scalars, "t": float(t)}
            at = interpret(program.lookahead, {"x": x, **states}, known)["x"] if program.lookahead else x
            dx = (at[:2] * at[2:]).sum(axis=0) * at[[2, 3, 0, 1]]
            new = interpret(program, {"x": x, "dx": dx, **states}, known)
            lost |= ~(np.abs((new["x"][:2] * new["x"][2:]).sum(axis=0)) <= LOST * size**2)
            x = np.where(lost, 0.0, new["x"])
            states = {name: np.where(lost, 0.0, new[name]) for name in states}
            scalars = {name: new[name] for name in scalars}
    half = np.flatnonzero(lost.mean(axis=1) >= 0.5)
    return float(products[half[0], 0] * 2 ** (-0.5 / FINENESS)) if half.size else math.inf
