"""The rules as `keras.optimizers` (Keras 3) computes them, with its defaults and states.

Keras's `learning_rate`, `beta_1`, `beta_2` and `epsilon` are `lr`, `beta1`, `beta2` and `eps`, as in every dialect; its
variable `momentum` is the state `momentums`, because a hyperparameter has that name. A rule with momentum must be given
its `momentum`: in Keras the default is to have none.

Weight decay is in none of the formulas. Keras applies it to every rule in the same way, `x - lr * weight_decay * x`,
right before the step and with the learning rate of that step. That is what every optimizer of downslope does when told
`weight_decay=..., decoupled=True`. Keras's `AdamW` is `adam` with `weight_decay=0.004, decoupled=True`, no more.

A square is taken before it is averaged, as in Keras: in single precision it is infinite for gradients from 1.8e19 on.
"""

from downslope.dialects.spelling import Dialect, Spelling
from downslope.language.formula import columns, rows, scalar
from downslope.language.operations import maximum, minimum, sign, sqrt, where
from downslope.language.whole import mean, norm, size
from downslope.rule import rule
from downslope.rules.tensors import QUINTIC, orthogonal

_CLOSED = (0.0, 1.0)
_NOT_NEGATIVE = (0.0, 1e308)


@rule
def sgd(x, dx, *, lr=1e-2):
    """Plain gradient descent.

    Source: `keras.optimizers.SGD` without momentum.
    """
    return x - lr * dx


@rule(ranges={"momentum": _CLOSED})
def sgd_momentum(x, dx, momentums=0, *, lr=1e-2, momentum, nesterov=False):
    """Heavy ball with the learning rate inside the velocity; Nesterov's form keeps the point ahead in the weights.

    Source: `keras.optimizers.SGD` with momentum.
    """
    momentums = momentum * momentums - lr * dx
    step = momentum * momentums - lr * dx if nesterov else momentums
    return x + step, momentums


@rule(ranges={"initial_accumulator_value": _NOT_NEGATIVE})
def adagrad(x, dx, accumulator="initial_accumulator_value", *, lr=1e-3, initial_accumulator_value=0.1, eps=1e-7):
    """Adagrad with epsilon inside the root, and an accumulator that does not start empty.

    Source: `keras.optimizers.Adagrad`.
    """
    accumulator = accumulator + dx**2
    return x - lr * dx / sqrt(accumulator + eps), accumulator


@rule(ranges={"rho": _CLOSED})
def rmsprop(x, dx, velocity=0, average_gradient=0, *, lr=1e-3, rho=0.9, eps=1e-7, centered=False):
    """RMSprop with epsilon inside the root; centered, the variance takes the place of the mean square.

    Source: `keras.optimizers.RMSprop` without momentum.
    """
    velocity = rho * velocity + (1 - rho) * dx**2
    if centered:
        average_gradient = rho * average_gradient + (1 - rho) * dx
    spread = velocity - average_gradient**2 if centered else velocity
    return x - lr * dx / sqrt(spread + eps), velocity, average_gradient


@rule(ranges={"rho": _CLOSED, "momentum": _NOT_NEGATIVE})
def rmsprop_momentum(
    x,
    dx,
    velocity=0,
    momentums=0,
    average_gradient=0,
    *,
    lr=1e-3,
    rho=0.9,
    momentum,
    eps=1e-7,
    centered=False,
):
    """RMSprop's step as the force on a heavy ball, with the learning rate inside the buffer.

    Source: `keras.optimizers.RMSprop` with momentum.
    """
    velocity = rho * velocity + (1 - rho) * dx**2
    if centered:
        average_gradient = rho * average_gradient + (1 - rho) * dx
    spread = velocity - average_gradient**2 if centered else velocity
    momentums = momentum * momentums + lr * dx / sqrt(spread + eps)
    return x - momentums, velocity, momentums, average_gradient


@rule
def adam(
    x,
    dx,
    momentums=0,
    velocity=0,
    velocity_hat=0,
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-7,
    amsgrad=False,
):
    """Adam with the bias correction in the learning rate: in the early steps epsilon weighs more than its value.

    Source: `keras.optimizers.Adam`; AMSGrad takes the maximum of the raw second moment.
    """
    alpha = lr * sqrt(1 - beta2**t) / (1 - beta1**t)
    momentums = momentums + (dx - momentums) * (1 - beta1)
    velocity = velocity + (dx**2 - velocity) * (1 - beta2)
    if amsgrad:
        velocity_hat = maximum(velocity_hat, velocity)
    second = velocity_hat if amsgrad else velocity
    return x - momentums * alpha / (sqrt(second) + eps), momentums, velocity, velocity_hat


@rule
def nadam(x, dx, momentums=0, velocity=0, u_product=scalar(1.0), *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-7):
    """Adam with Nesterov momentum whose coefficient warms up within about a hundred steps.

    Source: `keras.optimizers.Nadam`.
    """
    u = beta1 * (1 - 0.5 * 0.96**t)
    u_next = beta1 * (1 - 0.5 * 0.96 ** (t + 1))
    u_product = u_product * u
    momentums = momentums + (dx - momentums) * (1 - beta1)
    velocity = velocity + (dx**2 - velocity) * (1 - beta2)
    m_hat = u_next * momentums / (1 - u_product * u_next) + (1 - u) * dx / (1 - u_product)
    v_hat = velocity / (1 - beta2**t)
    return x - lr * m_hat / (sqrt(v_hat) + eps), momentums, velocity, u_product


@rule
def adamax(x, dx, momentums=0, norm=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-7):
    """Adam in the infinity norm, with epsilon added to the norm.

    Source: `keras.optimizers.Adamax`.
    """
    momentums = momentums + (dx - momentums) * (1 - beta1)
    norm = maximum(beta2 * norm, abs(dx))
    return x - lr * momentums / ((1 - beta1**t) * (norm + eps)), momentums, norm


@rule(ranges={"rho": _CLOSED})
def adadelta(x, dx, accumulated_grad=0, accumulated_delta_var=0, *, lr=1e-3, rho=0.95, eps=1e-7):
    """Steps in the units of the weights: the ratio of two root mean squares.

    Source: `keras.optimizers.Adadelta`.
    """
    accumulated_grad = rho * accumulated_grad + (1 - rho) * dx**2
    delta = sqrt(accumulated_delta_var + eps) * dx / sqrt(accumulated_grad + eps)
    accumulated_delta_var = rho * accumulated_delta_var + (1 - rho) * delta**2
    return x - lr * delta, accumulated_grad, accumulated_delta_var


@rule
def lion(x, dx, momentums=0, *, lr=1e-3, beta1=0.9, beta2=0.99):
    """Steps of one size in every weight: the sign of a momentum that counts the newest gradient more.

    Source: `keras.optimizers.Lion`.
    """
    direction = sign(beta1 * momentums + (1 - beta1) * dx)
    momentums = beta2 * momentums + (1 - beta2) * dx
    return x - lr * direction, momentums


@rule
def lamb(x, dx, momentum=0, velocity=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-7):
    """Adam says where each weight of a layer goes, and the layer's own length how far they go together.

    Source: `keras.optimizers.Lamb`, whose weight decay stands outside: the layer's share is of Adam's step alone.
    """
    momentum = momentum + (dx - momentum) * (1 - beta1)
    velocity = velocity + (dx**2 - velocity) * (1 - beta2)
    step = momentum / (1 - beta1**t) / (sqrt(velocity / (1 - beta2**t)) + eps)
    share = where((norm(x) > 0) & (norm(step) > 0), norm(x) / norm(step), 1)
    return x - share * lr * step, momentum, velocity


@rule(ranges={"momentum": _CLOSED, "rms_rate": (0.0, 1e308)})
def muon(x, dx, momentums=0, *, lr=1e-3, momentum=0.95, rms_rate=0.2, nesterov=True):
    """Inertia as a sum, and then the same stride in each direction of the matrix, of the size of AdamW's steps.

    Source: `keras.optimizers.Muon` for a matrix, of version 3.13 or later: up to 3.12 the stride was
    `sqrt(max(1, columns / rows))`, and a learning rate meant another one.

    What is no matrix, or an embedding, Keras trains by Adam. Its `rms_rate=None`, a stride of 1, is not here.
    """
    momentums = momentums + (dx + momentums * (momentum - 1))
    u = dx + momentum * momentums if nesterov else momentums
    o = orthogonal(u / (norm(u) + 1e-7), QUINTIC)
    return x - lr * o * sqrt(maximum(size(x, axis=0), size(x, axis=1))) * rms_rate, momentums


@rule(
    ranges={
        "beta_2_decay": (-1e308, 0.0),
        "epsilon_1": _NOT_NEGATIVE,
        "epsilon_2": _NOT_NEGATIVE,
        "clip_threshold": (1e-308, 1e308),
    },
    most_dimensions=2,
)
def adafactor(
    x,
    dx,
    r=rows(0),
    c=columns(0),
    *,
    t,
    lr=1e-3,
    beta_2_decay=-0.8,
    epsilon_1=1e-30,
    epsilon_2=1e-3,
    clip_threshold=1.0,
):
    """Shoes by rows and columns, and strides that are shares of a layer.

    Source: `keras.optimizers.Adafactor`, whose steps are relative whatever `relative_step` says.

    Keras also keeps the product of rows and columns, which takes as much memory as Adam's; nothing depends on it. A
    tensor of more than two dimensions is refused, of which Keras takes the last two.
    """
    beta2 = 1 - t**beta_2_decay
    r = beta2 * r + (1 - beta2) * mean(dx**2 + epsilon_1, axis=1)
    c = beta2 * c + (1 - beta2) * mean(dx**2 + epsilon_1, axis=0)
    u = dx / sqrt(r / mean(r) * c)
    u = u / maximum(1, sqrt(mean(u**2)) / clip_threshold)
    return x - maximum(epsilon_2, sqrt(mean(x**2))) * minimum(lr, 1 / sqrt(t)) * u, r, c


DIALECT = Dialect(
    framework="Keras",
    imports="import keras",
    spellings=(
        Spelling("keras.optimizers.SGD", sgd, decay="decoupled"),
        Spelling("keras.optimizers.SGD", sgd_momentum, {"momentum": 0.0}, decay="decoupled"),
        Spelling("keras.optimizers.Adagrad", adagrad, decay="decoupled"),
        Spelling("keras.optimizers.RMSprop", rmsprop, decay="decoupled"),
        Spelling("keras.optimizers.RMSprop", rmsprop_momentum, {"momentum": 0.0}, decay="decoupled"),
        Spelling("keras.optimizers.Adam", adam, decay="decoupled"),
        Spelling("keras.optimizers.AdamW", adam, {"weight_decay": 0.004}, decay="decoupled"),
        Spelling("keras.optimizers.Nadam", nadam, decay="decoupled"),
        Spelling("keras.optimizers.Adamax", adamax, decay="decoupled"),
        Spelling("keras.optimizers.Adadelta", adadelta, decay="decoupled"),
        Spelling("keras.optimizers.Lion", lion, decay="decoupled"),
        Spelling("keras.optimizers.Lamb", lamb, decay="decoupled"),
        Spelling("keras.optimizers.Muon", muon, {"weight_decay": 0.004}, decay="decoupled"),
        Spelling("keras.optimizers.Adafactor", adafactor, decay="decoupled"),
    ),
    arguments={"lr": "learning_rate", "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"},
)
"""How Keras writes these rules."""
