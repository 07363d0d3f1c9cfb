"""Rules that find out how far it is to go, and need no learning rate: their `lr` is a factor of what they find.

They compare how far all weights of a group have come with how steep the way was. The guess of the distance never falls.
"""

from downslope.language.formula import scalar
from downslope.language.operations import maximum, sqrt, where
from downslope.language.whole import sum
from downslope.rule import rule

__all__ = ["d_adapt_adam", "prodigy"]
"""In the order of publication."""


@rule(ranges={"d0": (1e-26, 1e308)})
def d_adapt_adam(
    x,
    dx,
    m=0,
    v=0,
    s=0,
    r=scalar(0.0),
    d=scalar(0.0),
    *,
    lr=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    d0=1e-6,
):
    """Adam, who begins with tiny steps and takes longer ones as soon as slopes show that home is farther away.

    Source: Defazio & Mishchenko, "Learning-rate-free learning by D-adaptation", 2023, Algorithm 5, with decoupled
    decay.

    `d` is the guess of the distance, which begins with `d0`, `s` a fading sum of the slopes, and `r` how far they have
    led in common. At first `m` and `s` are as small as `d`: beside weights in float16 keep the states in float32, or
    they vanish. From a `d0` of 1e-26, `s` is a normal number of float32 for slopes down to `eps`, where it is
    `0.0005 * d0 * 1e-8`; from a much smaller one the guess might never grow.
    """
    d, fading = maximum(d, d0), sqrt(beta2)
    m = beta1 * m + (1 - beta1) * d * lr * dx
    v = beta2 * v + (1 - beta2) * dx**2
    steep = sqrt(v) + eps
    r = fading * r + (1 - fading) * d * lr * sum(dx * s / steep, over="all")
    s = fading * s + (1 - fading) * d * lr * dx
    length = (1 - fading) * sum(abs(s), over="all")
    guess = where(length > 0, r / length, 0)
    return x - m / steep - d * lr * weight_decay * x, m, v, s, r, maximum(d, guess)


@rule(ranges={"d0": (1e-8, 1e308)})
def prodigy(
    x,
    dx,
    m=0,
    v=0,
    s=0,
    x0="x",
    r=scalar(0.0),
    d=scalar(0.0),
    *,
    lr=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    d0=1e-6,
):
    """Adam with a guess of the way home, by how far he has come from the door in the direction of the slopes.

    Source: Mishchenko & Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", 2023, Algorithm 4, with
    decoupled decay.

    `d` is the guess of the distance, which begins with `d0`, `x0` where the weights began, and `s` a fading sum of the
    slopes. At first `v` and `s` are as small as the square of `d`: beside weights in float16 keep the states in
    float32, or they vanish. From a `d0` of 4e-10, `v` is a normal number of float32 for slopes down to `eps`, where it
    is `0.001 * d0**2 * 1e-16`. But while no weight has moved the guess does not grow, and the first steps grow to
    about `6 * d0`: they move a weight of 1 in float32 if `d0` is at least 1e-8, which is the least that is taken;
    larger weights need a `d0` that is larger by as much.
    """
    d, fading = maximum(d, d0), sqrt(beta2)
    m = beta1 * m + (1 - beta1) * d * dx
    v = beta2 * v + (1 - beta2) * d**2 * dx**2
    r = fading * r + (1 - fading) * lr * d**2 * sum(dx * (x0 - x), over="all")
    s = fading * s + (1 - fading) * lr * d**2 * dx
    length = sum(abs(s), over="all")
    guess = where(length > 0, r / length, 0)
    return x - lr * d * (m / (sqrt(v) + d * eps) + weight_decay * x), m, v, s, x0, r, maximum(d, guess)
