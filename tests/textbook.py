"""The update methods as the textbooks print them, in plain NumPy and double precision.

Written from the CS231n notes and the papers, not from downslope: each takes the weights, a function `gradient(x, t)`
and the number of steps, and returns the weights.
"""

import numpy as np


def sgd(x, gradient, steps, *, lr):
    for t in range(1, steps + 1):
        x = x - lr * gradient(x, t)
    return x


def momentum(x, gradient, steps, *, lr, mu=0.9):
    v = np.zeros_like(x)
    for t in range(1, steps + 1):
        v = mu * v - lr * gradient(x, t)
        x = x + v
    return x


def nesterov(x, gradient, steps, *, lr, mu=0.9):
    v = np.zeros_like(x)
    for t in range(1, steps + 1):
        ahead = x + mu * v
        v = mu * v - lr * gradient(ahead, t)
        x = x + v
    return x


def adagrad(x, gradient, steps, *, lr, eps=1e-8):
    total = np.zeros_like(x)
    for t in range(1, steps + 1):
        g = gradient(x, t)
        total = total + g * g
        x = x - lr * g / (np.sqrt(total) + eps)
    return x


def rmsprop(x, gradient, steps, *, lr, decay_rate=0.99, eps=1e-8):
    mean_square = np.zeros_like(x)
    for t in range(1, steps + 1):
        g = gradient(x, t)
        mean_square = decay_rate * mean_square + (1 - decay_rate) * g * g
        x = x - lr * g / (np.sqrt(mean_square) + eps)
    return x


def adam(x, gradient, steps, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, bias_correction=True):
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    for t in range(1, steps + 1):
        g = gradient(x, t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        unbiased_m = m / (1 - beta1**t) if bias_correction else m
        unbiased_v = v / (1 - beta2**t) if bias_correction else v
        x = x - lr * unbiased_m / (np.sqrt(unbiased_v) + eps)
    return x
