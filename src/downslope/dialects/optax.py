"""The rules as `optax` computes them, with its defaults and states.

Optax's `learning_rate`, `b1`, `b2` and `b3` are `lr`, `beta1`, `beta2` and `beta3`, as in every dialect. Every rule
must be given its learning rate, and a rule with momentum its `momentum`: in Optax the default is to have none.

Weight decay is in none of the formulas: in Optax it is a transformation of its own, here an option of every optimizer.
Optax's `adamw` is `adam` with `weight_decay=1e-4, decoupled=True`, `nadamw` and `adamaxw` are `nadam` and `adamax` with
the same, and `lion` has `weight_decay=1e-3, decoupled=True` unless told otherwise. The decay that `adadelta` can be
given in Optax is added to the gradient, as the option is without `decoupled`.

A square is taken before it is averaged, as in Optax: in single precision it is infinite for gradients from 1.8e19 on.
"""

from downslope.dialects.optax_tensors import adafactor, adan, lamb, lars, muon
from downslope.dialects.spelling import Dialect, Spelling
from downslope.language.operations import maximum, minimum, sign, sqrt, where
from downslope.rule import rule

_DECAY = (0.0, 1.0)
_NOT_NEGATIVE = (0.0, 1e308)
_ROOT = {"eps_root": _NOT_NEGATIVE}
_SCALE = {"decay": _DECAY, "initial_scale": _NOT_NEGATIVE}


@rule
def sgd(x, dx, *, lr):
    """Plain gradient descent.

    Source: `optax.sgd` without momentum.
    """
    return x - lr * dx


@rule(ranges={"momentum": _NOT_NEGATIVE})
def sgd_momentum(x, dx, trace=0, *, lr, momentum, nesterov=False):
    """Heavy ball with the learning rate outside the buffer.

    Source: `optax.sgd` with momentum.
    """
    trace = dx + momentum * trace
    step = dx + momentum * trace if nesterov else trace
    return x - lr * step, trace


@rule(ranges={"initial_accumulator_value": _NOT_NEGATIVE})
def adagrad(x, dx, sum_of_squares="initial_accumulator_value", *, lr, initial_accumulator_value=0.1, eps=1e-7):
    """Adagrad with epsilon inside the root, and a sum that does not start empty.

    Source: `optax.adagrad`.
    """
    sum_of_squares = dx**2 + sum_of_squares
    return x - lr * where(sum_of_squares > 0, dx / sqrt(sum_of_squares + eps), 0), sum_of_squares


@rule(ranges=_SCALE)
def rmsprop(
    x,
    dx,
    nu="initial_scale",
    mu=0,
    *,
    t,
    lr,
    decay=0.9,
    eps=1e-8,
    initial_scale=0,
    eps_in_sqrt=True,
    centered=False,
    bias_correction=False,
):
    """RMSprop with epsilon inside the root or outside; centered, the variance takes the place of the mean square.

    Source: `optax.rmsprop` without momentum.
    """
    nu = (1 - decay) * dx**2 + decay * nu
    if centered:
        mu = (1 - decay) * dx + decay * mu
    correction = 1 - decay**t if bias_correction else 1
    spread = nu / correction - (mu / correction) ** 2 if centered else nu / correction
    denominator = sqrt(spread + eps) if eps_in_sqrt else sqrt(spread) + eps
    return x - lr * (dx / denominator), nu, mu


@rule(ranges={**_SCALE, "momentum": _NOT_NEGATIVE})
def rmsprop_momentum(
    x,
    dx,
    nu="initial_scale",
    mu=0,
    trace=0,
    *,
    t,
    lr,
    decay=0.9,
    eps=1e-8,
    initial_scale=0,
    momentum,
    eps_in_sqrt=True,
    centered=False,
    nesterov=False,
    bias_correction=False,
):
    """RMSprop's step as the force on a heavy ball, with the learning rate inside the buffer.

    Source: `optax.rmsprop` with momentum.
    """
    nu = (1 - decay) * dx**2 + decay * nu
    if centered:
        mu = (1 - decay) * dx + decay * mu
    correction = 1 - decay**t if bias_correction else 1
    spread = nu / correction - (mu / correction) ** 2 if centered else nu / correction
    denominator = sqrt(spread + eps) if eps_in_sqrt else sqrt(spread) + eps
    force = lr * (dx / denominator)
    trace = force + momentum * trace
    step = force + momentum * trace if nesterov else trace
    return x - step, nu, mu, trace


@rule(ranges=_ROOT)
def adam(x, dx, mu=0, nu=0, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_root=0):
    """Adam as published, with room for another epsilon inside the root.

    Source: `optax.adam`; with decoupled weight decay `optax.adamw`.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = (1 - beta2) * dx**2 + beta2 * nu
    mu_hat = mu / (1 - beta1**t)
    nu_hat = nu / (1 - beta2**t)
    return x - lr * (mu_hat / (sqrt(nu_hat + eps_root) + eps)), mu, nu


@rule(ranges=_ROOT)
def nadam(x, dx, mu=0, nu=0, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_root=0):
    """Adam that looks ahead: its momentum is the next step's, with a coefficient that stays the same.

    Source: `optax.nadam`, which is `optax.adam(nesterov=True)`; with decoupled weight decay `optax.nadamw`.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = (1 - beta2) * dx**2 + beta2 * nu
    mu_hat = beta1 * mu / (1 - beta1 ** (t + 1)) + (1 - beta1) * dx / (1 - beta1**t)
    nu_hat = nu / (1 - beta2**t)
    return x - lr * (mu_hat / (sqrt(nu_hat + eps_root) + eps)), mu, nu


@rule(ranges=_ROOT)
def amsgrad(
    x,
    dx,
    mu=0,
    nu=0,
    nu_max=0,
    *,
    t,
    lr,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    eps_root=0,
    bias_correction_mu=True,
    bias_correction_nu=True,
):
    """Adam whose steps never grow back: the maximum of the second moment so far, after its bias correction.

    Source: `optax.amsgrad`.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = (1 - beta2) * dx**2 + beta2 * nu
    mu_hat = mu / (1 - beta1**t) if bias_correction_mu else mu
    nu_hat = nu / (1 - beta2**t) if bias_correction_nu else nu
    nu_max = maximum(nu_max, nu_hat)
    return x - lr * (mu_hat / (sqrt(nu_max + eps_root) + eps)), mu, nu, nu_max


@rule
def adamax(x, dx, mu=0, nu=0, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Adam in the infinity norm, with epsilon added to the gradient's size.

    Source: `optax.adamax`; with decoupled weight decay `optax.adamaxw`.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = maximum(abs(dx) + eps, beta2 * nu)
    mu_hat = mu / (1 - beta1**t)
    return x - lr * (mu_hat / nu), mu, nu


@rule(ranges={"rho": _DECAY})
def adadelta(x, dx, e_g=0, e_x=0, *, lr, rho=0.9, eps=1e-6):
    """Steps in the units of the weights: the ratio of two root mean squares.

    Source: `optax.adadelta`.
    """
    e_g = (1 - rho) * dx**2 + rho * e_g
    delta = sqrt(e_x + eps) / sqrt(e_g + eps) * dx
    e_x = (1 - rho) * delta**2 + rho * e_x
    return x - lr * delta, e_g, e_x


@rule(ranges={**_ROOT, "threshold": _NOT_NEGATIVE})
def radam(
    x,
    dx,
    mu=0,
    nu=0,
    *,
    t,
    lr,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    eps_root=0,
    threshold=5.0,
    nesterov=False,
):
    """Adam that begins as momentum, until the variance of its second moment can be rectified.

    Source: `optax.radam`.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = (1 - beta2) * dx**2 + beta2 * nu
    if nesterov:
        mu_hat = beta1 * mu / (1 - beta1 ** (t + 1)) + (1 - beta1) * dx / (1 - beta1**t)
    else:
        mu_hat = mu / (1 - beta1**t)
    nu_hat = nu / (1 - beta2**t)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    rectification = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    adapted = sqrt(rectification) * mu_hat / (sqrt(nu_hat + eps_root) + eps)
    return x - lr * where(length >= threshold, adapted, mu_hat), mu, nu


@rule
def lion(x, dx, mu=0, *, lr, beta1=0.9, beta2=0.99):
    """Steps of one size in every weight: the sign of a momentum that counts the newest gradient more.

    Source: `optax.lion`, whose weight decay is an option here.
    """
    direction = sign((1 - beta1) * dx + beta1 * mu)
    mu = (1 - beta2) * dx + beta2 * mu
    return x - lr * direction, mu


@rule(ranges=_ROOT)
def adabelief(x, dx, mu=0, nu=0, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False):
    """Long steps where the gradient is as expected, short ones where it surprises.

    Source: `optax.adabelief`.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = (1 - beta2) * (dx - mu) ** 2 + beta2 * nu + eps_root
    if nesterov:
        mu_hat = beta1 * mu / (1 - beta1 ** (t + 1)) + (1 - beta1) * dx / (1 - beta1**t)
    else:
        mu_hat = mu / (1 - beta1**t)
    nu_hat = nu / (1 - beta2**t)
    return x - lr * (mu_hat / (sqrt(nu_hat) + eps)), mu, nu


@rule
def yogi(x, dx, mu=1e-6, nu=1e-6, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-3):
    """Adam whose second moment changes by a share of the squared gradient, up or down.

    Source: `optax.yogi`, which starts both moments from 1e-6 and corrects them as if they had started from 0.
    """
    mu = (1 - beta1) * dx + beta1 * mu
    nu = nu - (1 - beta2) * sign(nu - dx**2) * dx**2
    mu_hat = mu / (1 - beta1**t)
    nu_hat = nu / (1 - beta2**t)
    return x - lr * (mu_hat / (sqrt(nu_hat) + eps)), mu, nu


@rule(ranges={**_ROOT, "alpha": _NOT_NEGATIVE})
def ademamix(x, dx, m1=0, m2=0, nu=0, *, t, lr, beta1=0.9, beta2=0.999, beta3=0.9999, alpha=5, eps=1e-8, eps_root=0):
    """Adam with a second average of the gradient, long and uncorrected.

    Source: `optax.contrib.ademamix`, where the paper's warm-up is that of a schedule for `alpha` and `b3`.
    """
    m1 = (1 - beta1) * dx + beta1 * m1
    m2 = (1 - beta3) * dx + beta3 * m2
    nu = (1 - beta2) * dx**2 + beta2 * nu
    m1_hat = m1 / (1 - beta1**t)
    nu_hat = nu / (1 - beta2**t)
    return x - lr * ((m1_hat + alpha * m2) / (sqrt(nu_hat + eps_root) + eps)), m1, m2, nu


@rule
def adopt(x, dx, mu=0, nu=0, *, t, lr, beta1=0.9, beta2=0.9999, eps=1e-6, nesterov=False, use_clipping=True):
    """Adam whose gradients are divided by the second moment of those before them; the first only fills it.

    Source: `optax.contrib.adopt`, with the default of `clip_value_fn`.
    """
    bound = (t - 1) ** 0.25
    force = dx / maximum(sqrt(nu), eps)
    if use_clipping:
        force = minimum(maximum(force, -bound), bound)
    share1 = where(t == 1, 0, 1 - beta1)
    share2 = where(t == 1, 1, 1 - beta2)
    mu = share1 * force + (1 - share1) * mu
    nu = share2 * dx**2 + (1 - share2) * nu
    step = share1 * force + (1 - share1) * mu if nesterov else mu
    return x - lr * step, mu, nu


DIALECT = Dialect(
    framework="Optax",
    imports="import optax",
    spellings=(
        Spelling("optax.sgd", sgd),
        Spelling("optax.sgd", sgd_momentum),
        Spelling("optax.adagrad", adagrad),
        Spelling("optax.rmsprop", rmsprop),
        Spelling("optax.rmsprop", rmsprop_momentum),
        Spelling("optax.adam", adam),
        Spelling("optax.adamw", adam, {"weight_decay": 1e-4}, decay="decoupled"),
        Spelling("optax.nadam", nadam),
        Spelling("optax.nadamw", nadam, {"weight_decay": 1e-4}, decay="decoupled"),
        Spelling("optax.amsgrad", amsgrad),
        Spelling("optax.adamax", adamax),
        Spelling("optax.adamaxw", adamax, {"weight_decay": 1e-4}, decay="decoupled"),
        Spelling("optax.adadelta", adadelta, decay="coupled"),
        Spelling("optax.radam", radam),
        Spelling("optax.lion", lion, {"weight_decay": 1e-3}, decay="decoupled"),
        Spelling("optax.adabelief", adabelief),
        Spelling("optax.yogi", yogi),
        Spelling("optax.contrib.ademamix", ademamix, decay="decoupled"),
        Spelling("optax.contrib.adopt", adopt),
        Spelling("optax.adan", adan, decay="decoupled"),
        Spelling("optax.lars", lars),
        Spelling("optax.lamb", lamb),
        Spelling("optax.contrib.muon", muon, decay="decoupled"),
        Spelling("optax.adafactor", adafactor),
    ),
    arguments={"lr": "learning_rate", "beta1": "b1", "beta2": "b2", "beta3": "b3"},
    coupled="optax.chain(optax.add_decayed_weights({decay}), {call})",
    uphill="optax.chain(optax.scale(-1.0), {call})",
)
"""How Optax writes these rules."""
