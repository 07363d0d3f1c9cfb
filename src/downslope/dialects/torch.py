"""The rules as `torch.optim` computes them, with its names, defaults and states.

What an option of `torch.optim` switches on is a rule of its own here where it adds a state (`sgd_momentum`), else a
boolean hyperparameter. `maximize` is an option of every optimizer.

The order of operations is PyTorch's too, where it decides what is representable. A square is multiplied by its share
first, `(1 - beta2) * dx * dx`: in single precision Adam goes on after gradients of up to 5.8e20, where `dx**2` alone is
infinite from 1.8e19 on, and with it the average for good. A coupled weight decay of 0 is left out, so that infinite
weights, as masks have them, stay what they are: 0 times infinity is not 0.
"""

from typing import Any

from downslope.dialects.spelling import Dialect, Spelling
from downslope.language.formula import columns, rows, scalar
from downslope.language.operations import maximum, minimum, sqrt, where
from downslope.language.whole import mean, norm, size
from downslope.rule import rule
from downslope.rules.tensors import QUINTIC, orthogonal

_NOT_NEGATIVE = (0.0, 1e308)
_SQUARE_IN_FLOAT32 = (2.0**-63, 1e308)
_ANY_MOMENTUM = {"momentum": (0.0, 1e308)}


def _decayed(dx: Any, x: Any, weight_decay: Any) -> Any:
    """The gradient with coupled weight decay, which PyTorch leaves out where it is 0."""
    return dx + where(weight_decay == 0, 0, weight_decay * x)


@rule
def sgd(x, dx, *, lr=1e-3, weight_decay=0):
    """Plain gradient descent, with coupled weight decay.

    Source: `torch.optim.SGD` without momentum.
    """
    return x - lr * _decayed(dx, x, weight_decay)


@rule(ranges={**_ANY_MOMENTUM, "dampening": (-1e308, 1e308)})
def sgd_momentum(x, dx, momentum_buffer=0, *, t, lr=1e-3, momentum=0.9, dampening=0, weight_decay=0, nesterov=False):
    """Heavy ball with the learning rate outside the buffer, which the first gradient fills undampened.

    Source: `torch.optim.SGD` with momentum.
    """
    dx = _decayed(dx, x, weight_decay)
    momentum_buffer = where(t == 1, dx, momentum * momentum_buffer + (1 - dampening) * dx)
    step = dx + momentum * momentum_buffer if nesterov else momentum_buffer
    return x - lr * step, momentum_buffer


@rule(ranges={"lr_decay": (0.0, 1e308), "initial_accumulator_value": (0.0, 1e308)})
def adagrad(
    x,
    dx,
    sum="initial_accumulator_value",
    *,
    t,
    lr=1e-2,
    lr_decay=0,
    weight_decay=0,
    initial_accumulator_value=0,
    eps=1e-10,
):
    """Adagrad with a learning rate that may decay.

    Source: `torch.optim.Adagrad`.
    """
    dx = _decayed(dx, x, weight_decay)
    sum = sum + dx**2
    return x - lr / (1 + (t - 1) * lr_decay) * dx / (sqrt(sum) + eps), sum


@rule(ranges={"alpha": (0.0, 1.0)})
def rmsprop(x, dx, square_avg=0, grad_avg=0, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, centered=False):
    """RMSprop with epsilon outside the root; centered, the variance takes the place of the mean square.

    Source: `torch.optim.RMSprop` without momentum.
    """
    dx = _decayed(dx, x, weight_decay)
    square_avg = alpha * square_avg + (1 - alpha) * dx * dx
    if centered:
        grad_avg = grad_avg + (dx - grad_avg) * (1 - alpha)
    spread = square_avg - grad_avg**2 if centered else square_avg
    return x - lr * dx / (sqrt(spread) + eps), square_avg, grad_avg


@rule(ranges={**_ANY_MOMENTUM, "alpha": (0.0, 1.0)})
def rmsprop_momentum(
    x,
    dx,
    square_avg=0,
    grad_avg=0,
    momentum_buffer=0,
    *,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0,
    momentum=0.9,
    centered=False,
):
    """RMSprop's step as the force on a heavy ball, with the learning rate outside the buffer.

    Source: `torch.optim.RMSprop` with momentum.
    """
    dx = _decayed(dx, x, weight_decay)
    square_avg = alpha * square_avg + (1 - alpha) * dx * dx
    if centered:
        grad_avg = grad_avg + (dx - grad_avg) * (1 - alpha)
    spread = square_avg - grad_avg**2 if centered else square_avg
    momentum_buffer = momentum * momentum_buffer + dx / (sqrt(spread) + eps)
    return x - lr * momentum_buffer, square_avg, grad_avg, momentum_buffer


@rule
def adam(
    x,
    dx,
    exp_avg=0,
    exp_avg_sq=0,
    max_exp_avg_sq=0,
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0,
    amsgrad=False,
    decoupled_weight_decay=False,
):
    """Adam, with coupled weight decay or, as `torch.optim.AdamW`, decoupled.

    Source: `torch.optim.Adam` and `torch.optim.AdamW`; AMSGrad takes the maximum of the raw second moment.
    """
    if decoupled_weight_decay:
        x = x * (1 - lr * weight_decay)
    else:
        dx = _decayed(dx, x, weight_decay)
    exp_avg = exp_avg + (dx - exp_avg) * (1 - beta1)
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx * dx
    if amsgrad:
        max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq)
    second = max_exp_avg_sq if amsgrad else exp_avg_sq
    denominator = sqrt(second) / sqrt(1 - beta2**t) + eps
    return x - lr / (1 - beta1**t) * exp_avg / denominator, exp_avg, exp_avg_sq, max_exp_avg_sq


@rule
def adamax(x, dx, exp_avg=0, exp_inf=0, *, t, lr=2e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0):
    """Adam in the infinity norm, with epsilon added to the gradient's size.

    Source: `torch.optim.Adamax`.
    """
    dx = _decayed(dx, x, weight_decay)
    exp_avg = exp_avg + (dx - exp_avg) * (1 - beta1)
    exp_inf = maximum(beta2 * exp_inf, abs(dx) + eps)
    return x - lr / (1 - beta1**t) * exp_avg / exp_inf, exp_avg, exp_inf


@rule
def adadelta(x, dx, square_avg=0, acc_delta=0, *, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0):
    """Steps in the units of the weights: the ratio of two root mean squares.

    Source: `torch.optim.Adadelta`.
    """
    dx = _decayed(dx, x, weight_decay)
    square_avg = rho * square_avg + (1 - rho) * dx * dx
    delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * dx
    acc_delta = rho * acc_delta + (1 - rho) * delta * delta
    return x - lr * delta, square_avg, acc_delta


@rule(ranges={"momentum_decay": (0.0, 1e308)})
def nadam(
    x,
    dx,
    exp_avg=0,
    exp_avg_sq=0,
    mu_product=scalar(1.0),
    *,
    t,
    lr=2e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
):
    """Adam with Nesterov momentum whose coefficient warms up.

    Source: `torch.optim.NAdam`.
    """
    if decoupled_weight_decay:
        x = x * (1 - lr * weight_decay)
    else:
        dx = _decayed(dx, x, weight_decay)
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    mu_product = mu_product * mu
    exp_avg = exp_avg + (dx - exp_avg) * (1 - beta1)
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx * dx
    denominator = sqrt(exp_avg_sq / (1 - beta2**t)) + eps
    x = x - lr * (1 - mu) / (1 - mu_product) * dx / denominator
    x = x - lr * mu_next / (1 - mu_product * mu_next) * exp_avg / denominator
    return x, exp_avg, exp_avg_sq, mu_product


@rule
def radam(
    x,
    dx,
    exp_avg=0,
    exp_avg_sq=0,
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0,
    decoupled_weight_decay=False,
):
    """Adam that begins as momentum, until the variance of its second moment can be rectified.

    Source: `torch.optim.RAdam`.
    """
    if decoupled_weight_decay:
        x = x * (1 - lr * weight_decay)
    else:
        dx = _decayed(dx, x, weight_decay)
    exp_avg = exp_avg + (dx - exp_avg) * (1 - beta1)
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx * dx
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    rectification = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    m_hat = exp_avg / (1 - beta1**t)
    adapted = m_hat * sqrt(rectification) * sqrt(1 - beta2**t) / (sqrt(exp_avg_sq) + eps)
    return x - lr * where(length > 5, adapted, m_hat), exp_avg, exp_avg_sq


@rule(ranges={"momentum": (0.0, 1.0)})
def muon(
    x,
    dx,
    momentum_buffer=0,
    *,
    lr=1e-3,
    weight_decay=0.1,
    momentum=0.95,
    eps=1e-7,
    nesterov=True,
    match_rms_adamw=False,
):
    """Inertia as a mean, and then the same stride in each direction of the matrix; weights fade on top.

    Source: `torch.optim.Muon`, whose `adjust_lr_fn` is `"match_rms_adamw"` here by a flag.

    It multiplies matrices in bfloat16 and so keeps two or three digits of a step; here they have those of the weights.
    Its norm is at least `eps`, where the author's has `eps` added. The weights fade by `lr * weight_decay`, however
    long the strides of this matrix are.
    """
    momentum_buffer = momentum_buffer + (dx - momentum_buffer) * (1 - momentum)
    u = dx + (momentum_buffer - dx) * momentum if nesterov else momentum_buffer
    o = orthogonal(u / maximum(norm(u), eps), QUINTIC)
    rows, columns = size(x, axis=0), size(x, axis=1)
    stride = 0.2 * sqrt(maximum(rows, columns)) if match_rms_adamw else sqrt(maximum(1, rows / columns))
    return x * (1 - lr * weight_decay) - lr * stride * o, momentum_buffer


@rule(
    ranges={"beta2_decay": (-1e308, 0.0), "eps1": _SQUARE_IN_FLOAT32, "eps2": _NOT_NEGATIVE, "d": (1.0, 1e308)},
    most_dimensions=2,
)
def adafactor(
    x,
    dx,
    row_var=rows(0),
    col_var=columns(0),
    *,
    t,
    lr=1e-2,
    beta2_decay=-0.8,
    eps1=2.0**-23,
    eps2=1e-3,
    d=1.0,
    weight_decay=0.0,
):
    """Shoes by rows and columns, which have a least size in place of something added; weights fade on top.

    Source: `torch.optim.Adafactor`, where `eps1` is `None`: what it is for float32 is the default here.

    Its square is the least second moment. That of the paper's 1e-30 is 0 in float32, by which PyTorch divides where a
    row or a column has no gradient, as that of a word that no batch has had yet: such an `eps1` is refused.
    A tensor of more than two dimensions is refused, of which PyTorch takes the last two. A matrix of one row is a
    vector here: to PyTorch it differs from one only where the mean of its squared gradients is below `eps1`.
    """
    share = t**beta2_decay
    row_var = row_var + (mean(dx**2, axis=1) - row_var) * share
    col_var = col_var + (mean(dx**2, axis=0) - col_var) * share
    factored = row_var * col_var / maximum(mean(row_var), eps1)
    variance = where(size(x, axis=0) == 1, col_var, factored)
    step = dx / sqrt(maximum(variance, eps1 * eps1))
    surprise = maximum(1, norm(step) / (sqrt(size(x)) * d))
    stride = maximum(eps2, norm(x) / sqrt(size(x))) * minimum(lr, 1 / sqrt(t))
    return x * (1 - lr * weight_decay) - stride / surprise * step, row_var, col_var


def _muon(word: str = "", **fixed: bool) -> Spelling:
    words = {"adjust_lr_fn": word} if word else {}
    return Spelling("torch.optim.Muon", muon, fixed=fixed, words=words, lacks=frozenset({"maximize"}))


DIALECT = Dialect(
    framework="PyTorch",
    imports="import torch",
    spellings=(
        Spelling("torch.optim.SGD", sgd),
        Spelling("torch.optim.SGD", sgd_momentum, {"momentum": 0.0}),
        Spelling("torch.optim.Adagrad", adagrad),
        Spelling("torch.optim.RMSprop", rmsprop),
        Spelling("torch.optim.RMSprop", rmsprop_momentum, {"momentum": 0.0}),
        Spelling("torch.optim.Adam", adam),
        Spelling("torch.optim.AdamW", adam, {"weight_decay": 1e-2}, {"decoupled_weight_decay": True}),
        Spelling("torch.optim.Adamax", adamax),
        Spelling("torch.optim.Adadelta", adadelta),
        Spelling("torch.optim.NAdam", nadam),
        Spelling("torch.optim.RAdam", radam),
        _muon(match_rms_adamw=False),
        _muon("original", match_rms_adamw=False),
        _muon("match_rms_adamw", match_rms_adamw=True),
        Spelling("torch.optim.Adafactor", adafactor),
    ),
    pairs={"betas": ("beta1", "beta2"), "eps": ("eps1", "eps2")},
    options=frozenset({"maximize"}),
    first="model.parameters()",
)
"""How PyTorch writes these rules."""
