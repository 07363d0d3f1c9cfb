"""Rules that remember of a matrix what its rows or columns have in common, which is next to nothing beside its weights.

Rows and columns are those of `downslope.rules.tensors`. A vector is one row: what is one for each row is a single
number there, and what is one for each column is one a weight.
"""

from typing import Any

from downslope.language.formula import columns, rows
from downslope.language.operations import maximum, minimum, sqrt
from downslope.language.parts import part
from downslope.language.whole import mean, norm, size
from downslope.rule import rule
from downslope.rules.tensors import QUINTIC, orthogonal

__all__ = ["adafactor", "adam_mini", "normuon"]
"""In the order of publication."""


@part
def rms(a: Any) -> Any:
    """The root mean square of a tensor."""
    return sqrt(mean(a**2))


@rule(ranges={"decay": (0.0, 1e308), "eps1": (0.0, 1e308), "eps2": (0.0, 1e308), "clip": (1e-308, 1e308)})
def adafactor(x, dx, r=rows(0), c=columns(0), *, t, lr=1e-2, decay=0.8, eps1=1e-30, eps2=1e-3, clip=1.0):
    """Each weight has Adam's shoes, but only its row and its column are remembered; strides are shares of a layer.

    Source: Shazeer & Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018, Algorithms 4 and 5,
    with their second moment that forgets more slowly as it grows older, clipped updates and relative steps.

    `lr` is the largest share of its own length by which a layer strides; from step 1 / lr**2 on the share falls as
    1 / sqrt(t). Of a vector every weight is remembered.
    """
    beta2 = 1 - t**-decay
    r = beta2 * r + (1 - beta2) * mean(dx**2 + eps1, axis=1)
    c = beta2 * c + (1 - beta2) * mean(dx**2 + eps1, axis=0)
    u = dx / (sqrt(r) / sqrt(mean(r))) / sqrt(c)  # of r / mean(r) or r * c, a dead row or column makes 0
    u_hat = u / maximum(1, rms(u) / clip)
    share = minimum(lr, 1 / sqrt(t))
    return x - maximum(eps2, rms(x)) * share * u_hat, r, c


@rule
def adam_mini(
    x,
    dx,
    m=0,
    v=rows(0),
    w=columns(0),
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    by_columns=False,
):
    """AdamW, whose shoes are one pair for each row: for all weights of one neuron, or of a whole vector.

    Source: Zhang et al., "Adam-mini: use fewer learning rates to gain more", 2024, Algorithm 1, with the rows of every
    matrix as its blocks, which is the paper's division of all but queries and keys.

    Rows are a layer's outputs in PyTorch; in Keras and JAX columns are, and `by_columns` is for them. Of a vector every
    weight has its own then. The queries and keys of each head are a block in the paper, here again each row.
    """
    m = beta1 * m + (1 - beta1) * dx
    if by_columns:
        w = beta2 * w + (1 - beta2) * mean(dx**2, axis=0)
    else:
        v = beta2 * v + (1 - beta2) * mean(dx**2, axis=1)
    m_hat = m / (1 - beta1**t)
    v_hat = (w if by_columns else v) / (1 - beta2**t)
    return x - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * x), m, v, w


@rule
def normuon(
    x,
    dx,
    m=0,
    v=rows(0),
    w=columns(0),
    *,
    lr=3e-4,
    beta1=0.95,
    beta2=0.95,
    eps=1e-8,
    weight_decay=0.0,
    by_columns=False,
):
    """Muon, after which each row is brought to the stride that rows have in the long run, as Adam does with weights.

    Source: Li et al., "NorMuon: making Muon more efficient and scalable", 2025, Algorithm 1; its momentum is plain.

    Its step is as long as AdamW's, 0.2 of `lr` a weight, so that AdamW's learning rate and weight decay will do. It is
    for the same matrices as Muon. Rows are a layer's outputs in PyTorch; in Keras and JAX columns are, and `by_columns`
    is for them.
    """
    m = beta1 * m + (1 - beta1) * dx
    o = orthogonal(m / (norm(m) + 1e-7), QUINTIC)
    if by_columns:
        w = beta2 * w + (1 - beta2) * mean(o**2, axis=0)
    else:
        v = beta2 * v + (1 - beta2) * mean(o**2, axis=1)
    even = o / (sqrt(w if by_columns else v) + eps)
    step = 0.2 * sqrt(size(x)) * even / maximum(norm(even), eps)  # where there has been no gradient yet, it is 0
    return x - lr * (step + weight_decay * x), m, v, w
