"""The descendants of Adam and Adagrad, each in the form that its authors published.

What frameworks compute under the same names differs in places; for PyTorch see `downslope.dialects.torch`.

The rules that square gradients (all but Adamax and Lion) stand still for good, but for their decay, once a square was
infinite: in single precision from a gradient of 1.8e19 on, in double from 1.3e154. AdaBelief squares `dx - m` instead,
Adan `dx` and what it has changed by. RAdam still moves while it goes by inertia alone, and LaProp and ADOPT by the
inertia they have.
"""

from downslope.language.formula import scalar
from downslope.language.operations import expm1, log, maximum, minimum, sign, sqrt, where
from downslope.rule import rule

__all__ = ["adadelta", "adamax", "nadam", "amsgrad", "yogi", "adamw", "radam", "laprop", "adabelief", "adan", "lion"]
__all__ += ["ademamix", "adopt", "grams"]
"""In the order of publication."""


@rule
def adadelta(x, dx, square=0, square_step=0, *, lr=1.0, rho=0.95, eps=1e-6):
    """The shoes measure his steps as they measure the slope, and the ratio of the two, times the slope, is his step.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, Algorithm 1.

    The paper has no learning rate: `lr=1` is its form.
    """
    square = rho * square + (1 - rho) * dx**2
    step = sqrt(square_step + eps) / sqrt(square + eps) * dx
    square_step = rho * square_step + (1 - rho) * step**2
    return x - lr * step, square, square_step


@rule
def adamax(x, dx, m=0, u=0, *, t, lr=2e-3, beta1=0.9, beta2=0.999):
    """Adam whose shoes remember only the steepest slope, while it fades, and not a mean of all of them.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, Algorithm 2.

    There is no epsilon, as in the paper: a weight that has never had a gradient stays where it is.
    """
    m = beta1 * m + (1 - beta1) * dx
    u = maximum(beta2 * u, abs(dx))
    alpha = lr / (1 - beta1**t)
    step = alpha * m / where(u > 0, u, 1)
    return x - step, m, u


@rule(ranges={"momentum_decay": (0.0, 1e308)})
def nadam(
    x,
    dx,
    m=0,
    n=0,
    product=scalar(1.0),
    *,
    t,
    lr=2e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    momentum_decay=4e-3,
):
    """Adam who is carried by the next step's inertia already, and leans on it more the longer he has walked.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016, Algorithm 2 of the workshop paper.

    `product` is that of all momenta so far. PyTorch leaves out the factor `beta2` in `n_hat` and averages the gradient
    with the constant `beta1`; the defaults are those that PyTorch and Keras took up.
    """
    mu = beta1 * (1 - 0.5 * 0.96 ** (momentum_decay * t))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** (momentum_decay * (t + 1)))
    product = product * mu
    m = mu * m + (1 - mu) * dx
    n = beta2 * n + (1 - beta2) * dx**2
    m_hat = mu_next * m / (1 - product * mu_next) + (1 - mu) * dx / (1 - product)
    n_hat = beta2 * n / (1 - beta2**t)
    return x - lr * m_hat / (sqrt(n_hat) + eps), m, n, product


@rule
def amsgrad(x, dx, m=0, v=0, v_hat=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, bias_correction=False):
    """Adam whose shoes never get softer: what once made him careful keeps him careful.

    Source: Reddi, Kale & Kumar, "On the convergence of Adam and beyond", 2018, Algorithm 2, with an epsilon; it has no
    bias correction. With `bias_correction` it is what PyTorch computes.
    """
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    v_hat = maximum(v_hat, v)
    first = m / (1 - beta1**t) if bias_correction else m
    second = v_hat / (1 - beta2**t) if bias_correction else v_hat
    return x - lr * first / (sqrt(second) + eps), m, v, v_hat


@rule
def yogi(x, dx, m=0, v=0, *, lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-3):
    """Adam whose shoes soften no faster than the slopes he now feels can soften them, however hard they once got.

    Source: Zaheer et al., "Adaptive methods for nonconvex optimization", 2018, Algorithm 2.

    Where Adam takes a share of `v` off, Yogi takes off the same share of `dx**2`. There is no bias correction, as in
    the paper; Optax has one, and starts both averages from 1e-6.
    """
    m = beta1 * m + (1 - beta1) * dx
    v = v - (1 - beta2) * sign(v - dx**2) * dx**2
    return x - lr * m / (sqrt(v) + eps), m, v


@rule
def adamw(
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
    weight_decay=1e-2,
    decay_with_lr=True,
):
    """Adam on a rubber band that draws him back to the origin, whatever his shoes say.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019, Algorithm 2.

    The paper multiplies both the learning rate and the decay by a schedule, but not the decay by the learning rate:
    for that give `decay_with_lr=False`, a decay some 1,000 times smaller, and the same schedule for both. By default
    the decay is `lr * weight_decay`, as all frameworks have it.
    """
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    decay = lr * weight_decay if decay_with_lr else weight_decay
    return x - lr * m_hat / (sqrt(v_hat) + eps) - where(decay == 0, 0, decay * x), m, v


@rule(ranges={"shortest": (4.0, 1e308)})
def radam(
    x,
    dx,
    m=0,
    v=0,
    weight=scalar(0.0),
    age=scalar(0.0),
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    shortest=4,
):
    """Adam who mistrusts new shoes: until they are walked in he goes by inertia alone, then heeds them by degrees.

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", 2020, Algorithm 2; the epsilon is
    that of the authors' code.

    `rho` is how many gradients the average `v` is worth: twice their mean age, less one. The paper's closed form,
    `rho_max - 2 * t * beta2**t / (1 - beta2**t)`, is the same number as a difference of two that are 400 times larger
    at first, of which single precision leaves little. The paper adapts once `rho` is above 4; the authors' code and
    PyTorch wait for 5, one step longer (`shortest=5`).
    """
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    m_hat = m / (1 - beta1**t)
    weight = beta2 * weight + 1
    age = beta2 * age + weight
    rho = 2 * age / weight - 1
    rho_max = 2 / (1 - beta2) - 1
    r = sqrt(maximum((rho - 4) * (rho - 2) * rho_max / ((rho_max - 4) * (rho_max - 2) * rho), 0))
    scale = sqrt(1 - beta2**t) / (sqrt(v) + eps)
    return x - lr * where(rho > shortest, r * m_hat * scale, m_hat), m, v, weight, age


@rule
def laprop(x, dx, m=0, v=0, *, t, lr=4e-4, beta1=0.9, beta2=0.999, eps=1e-15):
    """The shoes come first: every slope is brought to one size before inertia takes it up, and never measured again.

    Source: Ziyin, Wang & Ueda, "LaProp: separating momentum and adaptivity in Adam", 2020, Algorithm 1; the defaults
    and the epsilon are those of the authors' code.

    The authors' code averages `lr` times each quotient, so that a step of a larger rate goes on counting for more: the
    same as long as the rate is constant.
    """
    v = beta2 * v + (1 - beta2) * dx**2
    v_hat = v / (1 - beta2**t)
    m = beta1 * m + (1 - beta1) * dx / (sqrt(v_hat) + eps)
    m_hat = m / (1 - beta1**t)
    return x - lr * m_hat, m, v


@rule
def adabelief(x, dx, m=0, s=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-16):
    """Adam whose shoes hold him back when the slope surprises him: where it is as he believed, he strides out.

    Source: Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", 2020,
    Algorithm 2; the default epsilon is that of the authors' code.

    The epsilon is added to `s` at every step, and so piles up to `eps / (1 - beta2)`.
    """
    m = beta1 * m + (1 - beta1) * dx
    s = beta2 * s + (1 - beta2) * (dx - m) ** 2 + eps
    m_hat = m / (1 - beta1**t)
    s_hat = s / (1 - beta2**t)
    return x - lr * m_hat / (sqrt(s_hat) + eps), m, s


@rule
def adan(
    x,
    dx,
    m=0,
    v=0,
    n=0,
    g=0,
    *,
    t,
    lr=1e-3,
    beta1=0.98,
    beta2=0.92,
    beta3=0.99,
    eps=1e-8,
    weight_decay=0,
    proximal=True,
):
    """Adam who also feels how the slope has changed since his last step, and leans that way before he gets there.

    Source: Xie et al., "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", 2022,
    Algorithm 1, with the bias correction of the authors' code.

    `g` is the gradient of the step before. Each beta is what the paper calls 1 minus its beta, as in the authors'
    code. Without `proximal` the weights are shrunk before the step, as AdamW does, instead of after it.
    """
    change = where(t == 1, 0, dx - g)
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * change
    n = beta3 * n + (1 - beta3) * (dx + beta2 * change) ** 2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    n_hat = n / (1 - beta3**t)
    step = lr * (m_hat + beta2 * v_hat) / (sqrt(n_hat) + eps)
    x = (x - step) / (1 + lr * weight_decay) if proximal else (1 - lr * weight_decay) * x - step
    return x, m, v, n, dx


@rule
def lion(x, dx, m=0, *, lr=1e-4, beta1=0.9, beta2=0.99):
    """Every stride is the same length: slope and inertia together only say, forward or back.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023, Algorithm 2.

    The paper's decay is the option `weight_decay` with `decoupled=True`. As every weight moves by all of `lr`, that is
    3 to 10 times smaller than for Adam.
    """
    direction = sign(beta1 * m + (1 - beta1) * dx)
    m = beta2 * m + (1 - beta2) * dx
    return x - lr * direction, m


@rule(ranges={"alpha": (0.0, 1e308), "warmup_steps": (0.0, 1e308)})
def ademamix(
    x,
    dx,
    m1=0,
    m2=0,
    v=0,
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    beta3=0.9999,
    eps=1e-8,
    alpha=5,
    warmup_steps=0,
):
    """Adam with two inertias: one of the last few steps, one so long that it still heeds what he felt far up the slope.

    Source: Pagliardini, Ablin & Grangier, "The AdEMAMix optimizer: better, faster, older", 2024, Algorithm 1.

    Over the first `warmup_steps` steps the weight of the long inertia grows from 0 to `alpha`, and its half-life from
    that of `beta1` to that of `beta3`; 0 is no warm-up. The long inertia has no bias correction. `alpha=5` is Optax's
    default. The paper's decay is the option `weight_decay` with `decoupled=True`.
    """
    share = minimum(1, t / maximum(warmup_steps, 1))
    life = (1 - share) / log(beta1) + share / log(beta3)
    fresh = where(share < 1, -expm1(1 / life), 1 - beta3)
    m1 = beta1 * m1 + (1 - beta1) * dx
    m2 = (1 - fresh) * m2 + fresh * dx
    v = beta2 * v + (1 - beta2) * dx**2
    m1_hat = m1 / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return x - lr * (m1_hat + share * alpha * m2) / (sqrt(v_hat) + eps), m1, m2, v


@rule
def adopt(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.9999, eps=1e-6):
    """Adam whose shoes were made before he felt this slope: only slopes behind him say how long his stride may be.

    Source: Taniguchi et al., "ADOPT: modified Adam can converge with any beta2 with the optimal rate", 2024,
    Algorithm 2 with the clipping of the authors' code.

    The first gradient only fills `v`: no weight moves, as the bound of what is averaged is then 0.
    """
    bound = (t - 1) ** 0.25
    fresh = where(t == 1, 1, 1 - beta2)
    force = dx / maximum(sqrt(v), eps)
    m = beta1 * m + (1 - beta1) * maximum(-bound, minimum(force, bound))
    v = (1 - fresh) * v + fresh * dx**2
    return x - lr * m, m, v


@rule
def grams(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-6):
    """Adam says how long his stride is, but not which way: that only the slope under his feet decides.

    Source: Cao, Li & Song, "Grams: gradient descent with adaptive momentum scaling", 2024, Algorithm 1; the defaults
    are those of the authors' code, whose epsilon is added to the raw root.

    The paper's decay is the option `weight_decay` with `decoupled=True`.
    """
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return x - lr * sign(dx) * abs(m_hat / (sqrt(v_hat) + eps)), m, v
