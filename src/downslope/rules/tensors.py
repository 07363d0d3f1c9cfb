"""Rules that go by a whole tensor: by its norm, or by the matrix that it is.

What they call a tensor is one parameter: the weights of one layer, or its biases. A parameter of more than two
dimensions is the matrix of its first dimension and all others, as the kernels of convolutions in PyTorch are; in Keras
and JAX rows are inputs and columns outputs, in PyTorch it is the other way round.
"""

from typing import Any

from downslope.language.operations import maximum, sqrt, where
from downslope.language.parts import part
from downslope.language.whole import mean, norm, size, sum
from downslope.rule import rule

__all__ = ["lars", "lamb", "adamp", "stable_adamw", "mars", "cautious_adamw", "muon"]
"""In the order of publication."""


@rule
def lars(x, dx, v=0, *, lr=0.1, mu=0.9, trust=1e-3, weight_decay=0.0):
    """Every layer strides by a share of its own length, however steep its slope; momentum carries the strides.

    Source: You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017, Algorithm 1.

    A layer that is 0 as a whole, or has no gradient, moves as if the share were 1.
    """
    steepness = norm(dx) + weight_decay * norm(x)
    share = where((norm(x) == 0) | (steepness == 0), 1, trust * norm(x) / steepness)  # nan comes through
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
    share = where((norm(x) == 0) | (norm(step) == 0), 1, norm(x) / norm(step))  # nan comes through
    return x - lr * share * step, m, v


def _adam(dx: Any, m: Any, v: Any, t: Any, beta1: Any, beta2: Any) -> Any:
    """The two moments of Adam, and what they are when it is made up for that both began at 0."""
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    return m, v, m / (1 - beta1**t), v / (1 - beta2**t)


@rule(ranges={"delta": (0.0, 1.0)})
def adamp(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, delta=0.1, weight_decay=0.0):
    """Adam, who leaves out of his step what only makes a layer longer, where its length does not matter.

    Source: Heo et al., "AdamP: slowing down the slowdown for momentum optimizers on scale-invariant weights", 2021,
    Algorithm 2.

    A layer's length does not matter where its gradient is at a right angle to the layer, to within `delta` over the
    root of how many weights it has, as before a normalization. The authors' code also looks at single rows.
    """
    m, v, m_hat, v_hat = _adam(dx, m, v, t, beta1, beta2)
    step = m_hat / (sqrt(v_hat) + eps)
    across = abs(sum(x * dx)) < delta / sqrt(size(x)) * (norm(x) * norm(dx))
    along = where(across, sum(x * step) / norm(x) / norm(x), 0)
    return x - lr * (step - along * x + weight_decay * x), m, v


@rule
def stable_adamw(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0):
    """AdamW, who goes slower the more the slopes of a layer surprise him.

    Source: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023,
    Algorithm 2.

    The surprise is how large gradients are beside what the second moment expects, as a root mean square over the layer,
    which is what Adafactor clips by. It makes neither step nor decay larger.
    """
    m, v, m_hat, v_hat = _adam(dx, m, v, t, beta1, beta2)
    surprise = sqrt(mean((dx / maximum(sqrt(v_hat), eps)) ** 2))
    rate = lr / maximum(1, surprise)
    return x - rate * (m_hat / (sqrt(v_hat) + eps) + weight_decay * x), m, v


@rule(ranges={"gamma": (0.0, 1e308)})
def mars(x, dx, m=0, v=0, g=0, *, t, lr=3e-3, beta1=0.95, beta2=0.99, eps=1e-8, gamma=0.025, weight_decay=0.0):
    """AdamW on a slope from which part of the noise is taken, by how it has changed since the last step.

    Source: Yuan et al., "MARS: unleashing the power of variance reduction for training large models", 2024, Algorithm
    2, with the gradient of the batch before in place of that of this batch at the weights before ("MARS-approx").

    `g` is the gradient of the step before. The corrected gradient of a layer is no longer than 1.
    """
    changed = where(t == 1, 0, dx - g)
    corrected = dx + gamma * beta1 / (1 - beta1) * changed
    c = corrected / maximum(1, norm(corrected))
    m, v, m_hat, v_hat = _adam(c, m, v, t, beta1, beta2)
    return x - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * x), m, v, dx


@rule
def cautious_adamw(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """AdamW who moves only the weights that his inertia takes downhill, and those the farther the fewer they are.

    Source: Liang et al., "Cautious optimizers: improving training with one line of code", 2024, Algorithm 2, with the
    bound of the authors' code: what moves goes at most a thousand times as far.

    The option `cautious` of every optimizer leaves the same weights where they are, and does not make up for it.
    """
    m, v, m_hat, v_hat = _adam(dx, m, v, t, beta1, beta2)
    downhill = where(m * dx > 0, 1, 0)
    step = m_hat / (sqrt(v_hat) + eps) * downhill / maximum(mean(downhill), 1e-3)
    return x - lr * (step + weight_decay * x), m, v


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


@part
def orthogonal(u: Any, coefficients: Any) -> Any:
    """A matrix with the singular vectors of `u`, and singular values near 1, by products alone (Newton & Schulz).

    Args:
        u: The matrix, with singular values of at most 1: divided by its norm, for example.
        coefficients: Those of each step: `a x + b x**3 + c x**5` is what becomes of a singular value.
    """

    def wide(s: Any) -> Any:
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
    if polar_express:
        o = orthogonal(u / (1.01 * norm(u) + eps), POLAR_EXPRESS)
    else:
        o = orthogonal(u / (norm(u) + eps), QUINTIC)
    rows, columns = size(u, axis=0), size(u, axis=1)
    stride = 0.2 * sqrt(maximum(rows, columns)) if match_rms else sqrt(maximum(1, rows / columns))
    return x - lr * stride * o, m
