"""Rules that go by a whole tensor: by its norm, or by the matrix that it is.

What they call a tensor is one parameter: the weights of one layer, or its biases. A parameter of more than two
dimensions is the matrix of its first dimension and all others, as the kernels of convolutions in PyTorch are; in Keras
and JAX rows are inputs and columns outputs, in PyTorch it is the other way round.
"""

from typing import Any

from downslope.language.operations import maximum, sqrt, where
from downslope.language.whole import norm, size
from downslope.rule import rule

__all__ = ["lars", "lamb", "muon"]
"""In the order of publication."""


@rule
def lars(x, dx, v=0, *, lr=0.1, mu=0.9, trust=1e-3, weight_decay=0.0):
    """Every layer strides by a share of its own length, however steep its slope; momentum carries the strides.

    Source: You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017, Algorithm 1.

    A layer that is 0 as a whole, or has no gradient, moves as if the share were 1.
    """
    steepness = norm(dx) + weight_decay * norm(x)
    share = where((norm(x) > 0) & (steepness > 0), trust * norm(x) / steepness, 1)
    v = mu * v + lr * share * (dx + weight_decay * x)
    return x - v, v


@rule
def lamb(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0):
    """Adam says where each weight of a layer goes, and the layer's own length how far they go together.

    Source: You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020, Algorithm 2.

    A layer that is 0 as a whole, or is to stay where it is, moves as in Adam.
    """
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    step = (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay * x
    share = where((norm(x) > 0) & (norm(step) > 0), norm(x) / norm(step), 1)
    return x - lr * share * step, m, v


QUINTIC = ((3.4445, -4.7750, 2.0315),) * 5
"""Jordan's coefficients: five times the same polynomial, after which singular values are between 0.68 and 1.13."""

_POLAR = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)

POLAR_EXPRESS = (*((a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in _POLAR[:-1]), _POLAR[-1])
"""Those of the Polar Express: for each step the polynomial that is best after the ones before it."""


def orthogonal(u: Any, coefficients: Any, eps: float, reserve: float = 1.0) -> Any:
    """A matrix with the singular vectors of `u`, and singular values near 1, by products alone (Newton & Schulz).

    Args:
        u: The matrix.
        coefficients: Those of each step: `a x + b x**3 + c x**5` is what becomes of a singular value.
        eps: What is added to the norm.
        reserve: How much smaller than 1 the norm is made, against rounding.
    """

    def wide(u: Any) -> Any:
        s = u / (reserve * norm(u) + eps)
        for a, b, c in coefficients:
            squares = s @ s.T
            s = a * s + (b * squares + c * squares @ squares) @ s
        return s

    return where(size(u, axis=0) > size(u, axis=1), wide(u.T).T, wide(u))


@rule(ranges={"momentum": (0.0, 1.0)})
def muon(x, dx, m=0, *, lr=2e-2, momentum=0.95, eps=1e-7, nesterov=True, match_rms=False, polar_express=False):
    """Inertia for a whole matrix, and then the same stride in each of its directions, however small the slope there.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; with `match_rms` the size of
    step of Liu et al., "Muon is scalable for LLM training", 2025, which is that of AdamW, so that its learning rate and
    weight decay will do; with `polar_express` the coefficients of Amsel et al., "The Polar Express", 2025.

    It is for the matrices between a network's first and last layer. Embeddings, the last layer, norms and biases are
    trained by another rule, such as AdamW.
    """
    m = momentum * m + dx
    u = dx + momentum * m if nesterov else m
    o = orthogonal(u, POLAR_EXPRESS, eps, reserve=1.01) if polar_express else orthogonal(u, QUINTIC, eps)
    rows, columns = size(u, axis=0), size(u, axis=1)
    stride = 0.2 * sqrt(maximum(rows, columns)) if match_rms else sqrt(maximum(1, rows / columns))
    return x - lr * stride * o, m
