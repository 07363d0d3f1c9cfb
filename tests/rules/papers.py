"""The descendants as their papers print them.

Written from the papers, not from downslope, and in another shape: each is a generator that is sent the gradient at the
point it has yielded and that step's learning rate. It yields `(point, weights)`: where the next gradient is to be
taken, and the weights, which are the same except for the schedule-free rules.
"""

import math

import numpy as np


def moments(decays):
    """Exponential averages from zero, and the same with the weight of the zeros taken out, as functions."""
    averages = [0.0] * len(decays)
    steps = 0

    def update(*values):
        nonlocal averages, steps
        steps += 1
        averages = [b * a + (1 - b) * v for a, b, v in zip(averages, decays, values, strict=True)]
        return averages, [a / (1 - b**steps) for a, b in zip(averages, decays, strict=True)]

    return update


def adadelta(x, *, rho=0.95, eps=1e-6):
    rms = lambda mean: np.sqrt(mean + eps)  # noqa: E731
    squares, steps = np.zeros_like(x), np.zeros_like(x)
    while True:
        g, lr = yield x, x
        squares = squares * rho + g * g * (1 - rho)
        delta = -rms(steps) / rms(squares) * g
        steps = steps * rho + delta * delta * (1 - rho)
        x = x + lr * delta


def adamax(x, *, beta1=0.9, beta2=0.999):
    average, norm = moments([beta1]), np.zeros_like(x)
    while True:
        g, lr = yield x, x
        norm = np.where(beta2 * norm > np.abs(g), beta2 * norm, np.abs(g))
        _, (unbiased,) = average(g)
        x = x - lr * np.divide(unbiased, norm, out=np.zeros_like(x), where=norm > 0)


def nadam(x, *, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=0.004):
    mu = [beta1 * (1 - 0.96 ** (i * momentum_decay) / 2) for i in range(1, 1000)]  # mu[0] is that of step 1
    m, n = np.zeros_like(x), np.zeros_like(x)
    for t in range(1, 900):
        g, lr = yield x, x
        m = mu[t - 1] * m + (1 - mu[t - 1]) * g
        n = beta2 * n + (1 - beta2) * g**2
        ahead = mu[t] * m / (1 - math.prod(mu[: t + 1])) + (1 - mu[t - 1]) * g / (1 - math.prod(mu[:t]))
        x = x - lr * ahead / (np.sqrt(beta2 * n / (1 - beta2**t)) + eps)


def amsgrad(x, *, beta1=0.9, beta2=0.999, eps=1e-8):
    average, largest = moments([beta1, beta2]), np.zeros_like(x)
    while True:
        g, lr = yield x, x
        (m, v), _ = average(g, g * g)
        largest = np.maximum(largest, v)
        x = x - lr * m / (np.sqrt(largest) + eps)


def adamw(x, *, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, decay_with_lr=True):
    average = moments([beta1, beta2])
    while True:
        g, lr = yield x, x
        _, (m, v) = average(g, g * g)
        x = x * (1 - weight_decay * (lr if decay_with_lr else 1)) - lr * m / (np.sqrt(v) + eps)


def radam(x, *, beta1=0.9, beta2=0.999, eps=1e-8, shortest=4):
    average, t = moments([beta1, beta2]), 0
    rho_infinity = 2 / (1 - beta2) - 1
    while True:
        g, lr = yield x, x
        t += 1
        (_, v), (m, _) = average(g, g * g)
        rho = rho_infinity - 2 * t * beta2**t / (1 - beta2**t)
        if rho > shortest:
            top, bottom = (rho - 4) * (rho - 2) * rho_infinity, (rho_infinity - 4) * (rho_infinity - 2) * rho
            x = x - lr * m * math.sqrt(top / bottom) * math.sqrt(1 - beta2**t) / (np.sqrt(v) + eps)
        else:
            x = x - lr * m


def adabelief(x, *, beta1=0.9, beta2=0.999, eps=1e-16):
    average, s, t = moments([beta1]), np.zeros_like(x), 0
    while True:
        g, lr = yield x, x
        t += 1
        (m,), (unbiased,) = average(g)
        s = beta2 * s + (1 - beta2) * np.square(g - m) + eps
        x = x - lr * unbiased / (np.sqrt(s / (1 - beta2**t)) + eps)


def adan(x, *, beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8, weight_decay=0.0, proximal=True):
    b1, b2, b3 = 1 - beta1, 1 - beta2, 1 - beta3  # the paper's letters
    average, before = moments([1 - b1, 1 - b2, 1 - b3]), None
    while True:
        g, lr = yield x, x
        change = np.zeros_like(g) if before is None else g - before
        _, (m, v, n) = average(g, change, (g + (1 - b2) * change) ** 2)
        step = lr / (np.sqrt(n) + eps) * (m + (1 - b2) * v)
        x = (x - step) / (1 + weight_decay * lr) if proximal else x * (1 - weight_decay * lr) - step
        before = g


def yogi(x, *, beta1=0.9, beta2=0.999, eps=1e-3):
    average, v = moments([beta1]), np.zeros_like(x)
    while True:
        g, lr = yield x, x
        (m,), _ = average(g)
        square = g * g
        v = np.where(v > square, v - (1 - beta2) * square, np.where(v < square, v + (1 - beta2) * square, v))
        x = x - lr * m / (np.sqrt(v) + eps)


def laprop(x, *, beta1=0.9, beta2=0.999, eps=1e-15):
    squares, quotients = moments([beta2]), moments([beta1])
    while True:
        g, lr = yield x, x
        size = np.sqrt(squares(g * g)[1][0]) + eps
        x = x - lr * quotients(g / size)[1][0]


def ademamix(x, *, beta1=0.9, beta2=0.999, beta3=0.9999, eps=1e-8, alpha=5.0, warmup_steps=0):
    average, slow, t = moments([beta1, beta2]), np.zeros_like(x), 0
    while True:
        g, lr = yield x, x
        t += 1
        share, beta = 1.0, beta3
        if t < warmup_steps:
            share = t / warmup_steps
            a, b = math.log(beta1), math.log(beta3)
            beta = min(math.exp(a * b / ((1 - share) * b + share * a)), beta3)
        _, (m, v) = average(g, g * g)
        slow = beta * slow + (1 - beta) * g
        x = x - lr * (m + min(share * alpha, alpha) * slow) / (np.sqrt(v) + eps)


def adopt(x, *, beta1=0.9, beta2=0.9999, eps=1e-6):
    g, _ = yield x, x
    m, v, t = np.zeros_like(x), g**2, 0
    while True:
        g, lr = yield x, x
        t += 1
        m = beta1 * m + (1 - beta1) * np.clip(g / np.maximum(np.sqrt(v), eps), -(t**0.25), t**0.25)
        x = x - lr * m
        v = beta2 * v + (1 - beta2) * g**2


def grams(x, *, beta1=0.9, beta2=0.999, eps=1e-6):
    average = moments([beta1, beta2])
    while True:
        g, lr = yield x, x
        _, (m, v) = average(g, g * g)
        length = np.abs(m) / (np.sqrt(v) + eps)
        x = x - lr * np.where(g > 0, length, np.where(g < 0, -length, 0))


def lion(x, *, beta1=0.9, beta2=0.99, weight_decay=0.0):
    m = np.zeros_like(x)
    while True:
        g, lr = yield x, x
        c = m * beta1 + g * (1 - beta1)
        x = x - lr * ((c > 0) * 1.0 - (c < 0) * 1.0 + weight_decay * x)
        m = m * beta2 + g * (1 - beta2)


def schedule_free(x, scaled_gradient, beta, weight_decay, warmup_steps, weight_by_largest):
    """The three sequences of the paper, each kept; the weights are the paper's or those of the authors' code."""
    z, rates, t = x, [], 0
    while True:
        y = (1 - beta) * z + beta * x
        g, lr = yield y, x
        t += 1
        gamma = lr * min(1, t / warmup_steps) if warmup_steps else lr
        rates.append(gamma)
        weights = [max(rates[: k + 1]) ** 2 if weight_by_largest else rates[k] ** 2 for k in range(t)]
        z = z - gamma * scaled_gradient(g) - gamma * weight_decay * y
        c = weights[-1] / sum(weights) if sum(weights) else 0
        x = (1 - c) * x + c * z


def schedule_free_sgd(x, *, beta=0.9, weight_decay=0.0, warmup_steps=0, weight_by_largest=False):
    return schedule_free(x, lambda g: g, beta, weight_decay, warmup_steps, weight_by_largest)


def schedule_free_adamw(
    x, *, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, warmup_steps=0, weight_by_largest=False
):
    average = moments([beta2])
    scaled = lambda g: g / (np.sqrt(average(g * g)[1][0]) + eps)  # noqa: E731
    return schedule_free(x, scaled, beta1, weight_decay, warmup_steps, weight_by_largest)


def gpa_adamw(x, *, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, mu_x=0.9967, mu_y=0.7, schedule_free=False):
    average, z, largest, total = moments([beta1, beta2]), x, 0, 0
    while True:
        y = mu_y * x + (1 - mu_y) * z
        g, lr = yield y, x
        _, (m, v) = average(g, g * g)
        z = z - lr * m / (np.sqrt(v) + eps) - lr * weight_decay * y
        if schedule_free:
            largest = max(largest, lr)
            total += largest**2
            mu_x = 1 - largest**2 / total
        x = mu_x * x + (1 - mu_x) * z


def walk(paper, start, gradient, rates, **settings):
    """The points, and the weights, before each step and after the last, in the precision of the start."""
    sequence = paper(start, **settings)
    point, x = next(sequence)
    points, weights = [point], [x]
    for t, lr in enumerate(rates, start=1):
        point, x = sequence.send((gradient(points[-1], t), lr))
        points.append(point)
        weights.append(x)
    return points, weights
