"""The rules over whole tensors, and Adan, as `optax` computes them; they belong to `downslope.dialects.optax`."""

from downslope.language.formula import columns, rows
from downslope.language.operations import maximum, sqrt, where
from downslope.language.whole import mean, norm, size
from downslope.rule import rule
from downslope.rules.tensors import QUINTIC, orthogonal

_NOT_NEGATIVE = (0.0, 1e308)


@rule(ranges={"eps_root": _NOT_NEGATIVE})
def adan(x, dx, m=0, v=0, n=0, g=0, *, t, lr, beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8, eps_root=1e-8):
    """Adam who also feels how the slope has changed since the last step, and leans that way, though only a little.

    Source: `optax.adan`, which counts the change of the gradient by `1 - b2`: with the betas of the authors' code,
    which are 1 minus the paper's, this is 0.08 where the paper has 0.92.
    """
    change = where(t == 1, 0, dx - g)
    m = (1 - beta1) * dx + beta1 * m
    v = (1 - beta2) * change + beta2 * v
    n = (1 - beta3) * (dx + (1 - beta2) * change) ** 2 + beta3 * n
    u = m / (1 - beta1**t) + (1 - beta2) * (v / (1 - beta2**t))
    return x - lr * (u / (sqrt(n / (1 - beta3**t) + eps_root) + eps)), m, v, n, dx


@rule(ranges={"momentum": _NOT_NEGATIVE, "trust_coefficient": _NOT_NEGATIVE})
def lars(x, dx, trace=0, *, lr, weight_decay=0.0, trust_coefficient=1e-3, eps=0.0, momentum=0.9, nesterov=False):
    """Every layer strides by a share of its own length; the share is of the slope and the decay taken together.

    Source: `optax.lars`, where the paper adds the two lengths, which are longer than that of the sum.
    """
    step = dx + weight_decay * x
    share = where((norm(x) == 0) | (norm(step) == 0), 1, trust_coefficient * norm(x) / (norm(step) + eps))
    step = -lr * (step * share)
    trace = step + momentum * trace
    return x + (step + momentum * trace if nesterov else trace), trace


@rule(ranges={"eps_root": _NOT_NEGATIVE})
def lamb(x, dx, mu=0, nu=0, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0):
    """Adam says where each weight of a layer goes, and the layer's own length how far they go together.

    Source: `optax.lamb`.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = (1 - beta2) * dx**2 + beta2 * nu
    step = (mu / (1 - beta1**t)) / (sqrt(nu / (1 - beta2**t) + eps_root) + eps) + weight_decay * x
    share = where((norm(x) == 0) | (norm(step) == 0), 1, norm(x) / norm(step))
    return x - lr * (step * share), mu, nu


@rule(ranges={"consistent_rms": _NOT_NEGATIVE})
def muon(x, dx, mu=0, *, t, lr, beta=0.95, eps=1e-8, consistent_rms=0.0, nesterov=True):
    """Inertia as a corrected mean, and then the same stride in each direction of the matrix.

    Source: `optax.contrib.muon` for a matrix; what is none, Optax trains by AdamW. Rows are inputs and columns
    outputs here, where the author has them the other way round. `consistent_rms` of 0 is its `None`.
    """
    mu = (1 - beta) * dx + beta * mu
    u = mu / (1 - beta ** (t + 1)) if nesterov else mu / (1 - beta**t)
    if nesterov:
        u = beta * u + (1 - beta) * (dx / (1 - beta**t))
    o = orthogonal(u / (norm(u) + eps), QUINTIC)
    rows, columns = size(x, axis=0), size(x, axis=1)
    fixed = sqrt(maximum(rows, columns)) * consistent_rms
    stride = where(consistent_rms == 0, sqrt(maximum(1, columns / rows)), fixed)
    return x - lr * (stride * o), mu


@rule(
    ranges={"decay_rate": _NOT_NEGATIVE, "clipping_threshold": (1e-308, 1e308), "weight_decay_rate": _NOT_NEGATIVE},
    most_dimensions=2,
)
def adafactor(
    x,
    dx,
    v_row=rows(0),
    v_col=columns(0),
    *,
    t,
    lr,
    decay_rate=0.8,
    clipping_threshold=1.0,
    weight_decay_rate=0.0,
    eps=1e-30,
    multiply_by_parameter_scale=True,
):
    """Shoes by rows and columns, and strides that are shares of a layer, as long as the learning rate says.

    Source: `optax.adafactor` without momentum, for vectors and for what it factors: by default matrices of at least 128
    by 128, with `min_dim_size_to_factor=1` every matrix. The learning rate is the whole share, which does not fall with
    the steps, and the weights fade by `weight_decay_rate`, whatever the learning rate is.

    A tensor of more than two dimensions is refused, of which Optax takes the two longest.
    """
    decay = 1 - t**-decay_rate
    v_row = decay * v_row + (1 - decay) * mean(dx**2 + eps, axis=1)
    v_col = decay * v_col + (1 - decay) * mean(dx**2 + eps, axis=0)
    u = dx * (v_row / mean(v_row)) ** -0.5 * v_col**-0.5
    u = u / maximum(1, sqrt(mean(u**2)) / clipping_threshold)
    stride = maximum(sqrt(mean(x**2)), 1e-3) if multiply_by_parameter_scale else 1
    return x - (lr * u * stride + weight_decay_rate * x), v_row, v_col
