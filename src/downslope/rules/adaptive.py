"""Rules that give every weight a step size of its own.

The square of a gradient is infinite from 1.8e19 on in single precision, from 1.3e154 on in double, and so are the sum
or average of squares from then on: a weight that has met such a gradient stands still for good. Clip with `max_norm`
where gradients may be that large. PyTorch multiplies in another order, which goes further; see
`downslope.dialects.torch`.
"""

from downslope.language.operations import sqrt
from downslope.rule import rule

__all__ = ["adagrad", "rmsprop", "adam"]


@rule
def adagrad(x, dx, cache=0, *, lr=1e-2, eps=1e-8):
    """Shoes that remember every slope, for each weight its own: the same slope moves him less and less.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011.
    """
    cache = cache + dx**2
    return x - lr * dx / (sqrt(cache) + eps), cache


@rule
def rmsprop(x, dx, cache=0, *, lr=1e-3, decay_rate=0.99, eps=1e-8):
    """Adagrad's shoes learn to forget: they go by how steep it has been lately, and he has no inertia.

    Source: Tieleman & Hinton, "Lecture 6.5: rmsprop", Neural Networks for Machine Learning, 2012.
    """
    cache = decay_rate * cache + (1 - decay_rate) * dx**2
    return x - lr * dx / (sqrt(cache) + eps), cache


@rule
def adam(
    x,
    dx,
    m=0,
    v=0,
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    bias_correction=True,
):
    """Inertia for the direction, shoes that forget for the length: a step of its own for every weight.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, Algorithm 1; without `bias_correction`
    the simple form of the CS231n notes.
    """
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    m_hat = m / (1 - beta1**t) if bias_correction else m
    v_hat = v / (1 - beta2**t) if bias_correction else v
    return x - lr * m_hat / (sqrt(v_hat) + eps), m, v
