"""Gradients in single precision whose squares are not: which of them a framework survives is a matter of its formulas.

A weight of each gradient is enough, as no weight knows of another. The steps after the first show what it has left
behind in the states. Frameworks take hyperparameters in single precision and work out `1 - beta2` in it, which is 4e-5
off; the bound is a few times that, where what is looked for is a number or none. No square is denormal: TensorFlow and
XLA take such numbers for zero.
"""

import numpy as np

import downslope

GRADIENTS = np.float32([1e19, -1e20, 5e20, -1e25, 1e-25, -1e-16, 1.0])
START = np.float32([1.0, 2.0, -3.0, 4.0, 0.0, 0.0, 0.5])  # beside 1.0 the smallest steps could not be seen
STEPS = [GRADIENTS, GRADIENTS, np.full_like(GRADIENTS, 0.5), -GRADIENTS / 4]


def assert_extreme_path(seen, rule, given, *, decoupled=True, largest=np.inf):
    """Check that the weights seen after each step are those of the kernel, infinite and nan where they are.

    Args:
        seen: The weights after each step of the framework.
        rule: The rule.
        given: Hyperparameters and flags other than the defaults, and perhaps `weight_decay`.
        decoupled: Whether a weight decay that the rule does not have itself is decoupled.
        largest: The largest gradient whose weight is looked at.
    """
    x = START.copy()
    own = "weight_decay" not in given or "weight_decay" in rule.hyperparameters
    decay = {} if own else {"decoupled": decoupled}
    optimizer = downslope.Optimizer(x, rule, **{"lr": 0.1, **given, **decay}, threads=1)
    for gradient, theirs in zip(STEPS, seen, strict=True):
        optimizer.step(gradient.copy())
        near = np.isclose(x, theirs, rtol=2e-4, atol=1e-6 * np.abs(START), equal_nan=True)
        assert near[np.abs(GRADIENTS) <= largest].all(), (x, theirs)
