"""Two rules that sum up all tensors of a group, tensors of every kind of shape, and how NumPy trains them."""

import numpy as np

import downslope
from downslope import maximum, mean, minimum, norm, rule, scalar, sqrt, sum

SHAPES = {"wide": (3, 5), "tall": (6, 2), "bias": (4,), "gain": (), "kernel": (2, 3, 2, 2), "empty": (0, 3)}
STEPS = 20


@rule
def clipped(x, dx, *, lr=0.05, cap=1.5):
    return x - lr * dx * minimum(1, cap / norm(dx, over="all"))


@rule
def spread(x, dx, v=0, d=scalar(1e-3), *, t, lr=0.1, beta=0.9):
    """Two rounds of sums, a scalar state that goes by them, and a norm of each tensor."""
    v = beta * v + (1 - beta) * dx
    middle = mean(v, over="all")
    d = maximum(d, sum((v - middle) ** 2, over="all") / t)
    return x - lr * sqrt(d) * v / (1 + norm(v)), v, d


def weights(dtype=np.float32):
    rng = np.random.default_rng(1)
    return {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def gradients(step, dtype=np.float32):
    rng = np.random.default_rng([2, step])
    return {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def trained(of, dtype=np.float64, steps=STEPS, **settings):
    """What an optimizer for NumPy makes of them, and itself."""
    arrays = weights(dtype)
    optimizer = downslope.Optimizer(arrays, of, **settings)
    for step in range(steps):
        optimizer.step(gradients(step, dtype))
    return arrays, optimizer
