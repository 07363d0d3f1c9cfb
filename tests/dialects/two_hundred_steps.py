"""Two hundred steps of a dialect's formula, to be held against those of the framework.

The learning rate changes on the way, which tells a rate inside a buffer from one outside, and every tenth gradient is a
hundred times larger. Both sides compute in double precision. Per step and weight each side makes fewer than 40
roundings of 1.1e-16 on numbers of the size of the weights and of the step, so that after t steps the two are at most
40 * t * 1.1e-16 * 2 = 9e-15 * t of the largest weight seen apart.
"""

import math

import numpy as np

from downslope.language.options import compose
from downslope.targets.arrays import interpret

STEPS = 200
BOUND = 9e-15
RATES = np.array([0.1 * (0.5 + 0.5 * math.cos(t / 20)) for t in range(STEPS)])


def start_and_gradients():
    """Weights, and one gradient per step."""
    generator = np.random.default_rng(0)
    start = generator.standard_normal((6, 7))
    sizes = np.where(np.arange(STEPS) % 10 == 9, 100, 1)[:, None, None]
    return start, generator.standard_normal((STEPS, *start.shape)) * sizes


def assert_path(seen, rule, given, *, decoupled=True, bound=BOUND):
    """Check that the weights seen after each step are those of the formula.

    Args:
        seen: The weights after each step of the framework.
        rule: The rule.
        given: Hyperparameters and flags other than the defaults, and perhaps `weight_decay`.
        decoupled: Whether a weight decay is decoupled.
        bound: How far apart one step may take the two, in units of the largest weight.
    """
    decay = {"weight_decay": True, "decoupled": decoupled} if "weight_decay" in given else {}
    program = compose(rule, **decay, **{name: value for name, value in given.items() if name in rule.flags})
    settings = {**rule.hyperparameters, **given}
    x, gradients = start_and_gradients()
    arrays = {"x": x, **{name: np.full_like(x, program.initial(name, settings)) for name in program.states}}
    scalars = dict(program.scalar_states)
    largest = np.abs(x).max()
    for t, (dx, theirs) in enumerate(zip(gradients, seen, strict=True), 1):
        new = interpret(program, {**arrays, "dx": dx}, {**settings, **scalars, "lr": RATES[t - 1], "t": t})
        arrays = {name: new[name] for name in arrays}
        scalars = {name: new[name] for name in scalars}
        largest = max(largest, np.abs(arrays["x"]).max())
        np.testing.assert_allclose(arrays["x"], theirs, rtol=0, atol=bound * t * largest)
