"""The rules as `tf.compat.v1.train` (TensorFlow 1) computes them, with its defaults and slots.

TensorFlow's `learning_rate`, `epsilon` and `use_nesterov` are `lr`, `eps` and `nesterov`, as in every dialect; its slot
`momentum` is the state `mom`, because a hyperparameter has that name. The formulas are those for dense gradients.

TensorFlow takes a Python number in single precision even where the weights are in double: its 0.999 is 0.99900001287.
Here every number is what it says. None of these optimizers has weight decay.

A square is taken before it is averaged, as in TensorFlow: in single precision it is infinite for gradients from 1.8e19
on.
"""

from downslope.dialects.spelling import Dialect, Spelling
from downslope.language.operations import sqrt
from downslope.rule import rule

_DECAY = (0.0, 1.0)
_ANY_MOMENTUM = (0.0, 1e308)
_POSITIVE = (1e-300, 1e308)


@rule
def sgd(x, dx, *, lr):
    """Plain gradient descent.

    Source: `tf.compat.v1.train.GradientDescentOptimizer`.
    """
    return x - lr * dx


@rule(ranges={"momentum": _ANY_MOMENTUM})
def sgd_momentum(x, dx, mom=0, *, lr, momentum, nesterov=False):
    """Heavy ball with the learning rate outside the buffer.

    Source: `tf.compat.v1.train.MomentumOptimizer`.
    """
    mom = momentum * mom + dx
    step = lr * dx + momentum * lr * mom if nesterov else lr * mom
    return x - step, mom


@rule(ranges={"initial_accumulator_value": _POSITIVE})
def adagrad(x, dx, accumulator="initial_accumulator_value", *, lr, initial_accumulator_value=0.1):
    """Adagrad without epsilon: that the accumulator starts above zero keeps the root from being zero.

    Source: `tf.compat.v1.train.AdagradOptimizer`.
    """
    accumulator = accumulator + dx**2
    return x - lr * dx / sqrt(accumulator), accumulator


@rule(ranges={"decay": _DECAY})
def rmsprop(x, dx, rms=1, mg=0, *, lr, decay=0.9, eps=1e-10, centered=False):
    """RMSprop whose mean square starts at one, so that it begins with careful steps where gradients are small.

    Source: `tf.compat.v1.train.RMSPropOptimizer` without momentum.
    """
    rms = rms + (dx**2 - rms) * (1 - decay)
    if centered:
        mg = mg + (dx - mg) * (1 - decay)
    spread = rms - mg**2 if centered else rms
    return x - lr * dx / sqrt(spread + eps), rms, mg


@rule(ranges={"decay": _DECAY, "momentum": _ANY_MOMENTUM})
def rmsprop_momentum(x, dx, rms=1, mg=0, mom=0, *, lr, decay=0.9, momentum, eps=1e-10, centered=False):
    """RMSprop's step as the force on a heavy ball, with the learning rate inside the buffer.

    Source: `tf.compat.v1.train.RMSPropOptimizer` with momentum.
    """
    rms = rms + (dx**2 - rms) * (1 - decay)
    if centered:
        mg = mg + (dx - mg) * (1 - decay)
    spread = rms - mg**2 if centered else rms
    mom = momentum * mom + lr * dx / sqrt(spread + eps)
    return x - mom, rms, mg, mom


@rule
def adam(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    """Adam with the bias correction in the learning rate: in the early steps epsilon weighs more than its value.

    Source: `tf.compat.v1.train.AdamOptimizer`.
    """
    alpha = lr * sqrt(1 - beta2**t) / (1 - beta1**t)
    m = m + (dx - m) * (1 - beta1)
    v = v + (dx**2 - v) * (1 - beta2)
    return x - m * alpha / (sqrt(v) + eps), m, v


@rule(ranges={"rho": _DECAY})
def adadelta(x, dx, accum=0, accum_update=0, *, lr=1e-3, rho=0.95, eps=1e-8):
    """Steps in the units of the weights: the ratio of two root mean squares.

    Source: `tf.compat.v1.train.AdadeltaOptimizer`.
    """
    accum = rho * accum + (1 - rho) * dx**2
    update = sqrt(accum_update + eps) / sqrt(accum + eps) * dx
    accum_update = rho * accum_update + (1 - rho) * update**2
    return x - lr * update, accum, accum_update


DIALECT = Dialect(
    framework="TensorFlow 1",
    imports="import tensorflow as tf",
    spellings=(
        Spelling("tf.compat.v1.train.GradientDescentOptimizer", sgd),
        Spelling("tf.compat.v1.train.MomentumOptimizer", sgd_momentum),
        Spelling("tf.compat.v1.train.AdagradOptimizer", adagrad),
        Spelling("tf.compat.v1.train.RMSPropOptimizer", rmsprop),
        Spelling("tf.compat.v1.train.RMSPropOptimizer", rmsprop_momentum, {"momentum": 0.0}),
        Spelling("tf.compat.v1.train.AdamOptimizer", adam),
        Spelling("tf.compat.v1.train.AdadeltaOptimizer", adadelta),
    ),
    arguments={"lr": "learning_rate", "eps": "epsilon", "nesterov": "use_nesterov"},
)
"""How TensorFlow 1 writes these rules."""
