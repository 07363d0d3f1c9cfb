r"""Schedule-free rules: averaging in place of a schedule of the learning rate.

The paper keeps three sequences: `z` takes the steps, `x` is the average of all `z` so far and the point to evaluate
and save, and the gradient is taken at `y = (1 - beta) * z + beta * x`:

    z' = z - gamma * dx
    x' = (1 - c) * x + c * z'                c = weight / (sum of all weights so far)

The weight of a step is `gamma**2`, the square of its rate, in the paper. In the authors' code, the package
`schedulefree`, it is the square of the largest rate so far: `weight_by_largest=True`. The two are the same as long as
the rate never falls, as with a warm-up and then a constant. Under a rate that falls, the paper's average leans on the
early, long steps, and the authors' code counts all steps after the peak alike.

Here `z` is kept as its distance from the average, `d = z - x`, which starts from 0:

    u  = d - gamma * dx                      that is z' - x
    x' = x + c * u
    d' = (1 - c) * u                         that is z' - x'
    y' = x' + (1 - beta) * d'

So `y` lies ahead of `x` by a formula of `d` alone, and is a look-ahead like Nesterov's: an ordinary loop takes its
gradients at `y`, and `optimizer.at_weights()` gives `x`. Nothing large cancels, as `d` has the size of the steps: over
2,000 float32 steps on noisy quadratics the error is no larger than with the paper's `x` and `z` in float32.

Source: Defazio et al., "The road less scheduled", 2024.
"""

from downslope.language.formula import scalar
from downslope.language.operations import maximum, minimum, sqrt, where
from downslope.rule import rule

__all__ = ["schedule_free_sgd", "schedule_free_adamw"]

_WARMUP = {"warmup_steps": (0.0, 1e308)}


@rule(ranges=_WARMUP)
def schedule_free_sgd(
    x,
    dx,
    d=0,
    total=scalar(0.0),
    largest=scalar(0.0),
    *,
    t,
    lr=1.0,
    beta=0.9,
    warmup_steps=0,
    weight_by_largest=False,
):
    """He roams while a sober friend keeps to the middle of where he has been: it is the friend who arrives.

    Source: Defazio et al., "The road less scheduled", 2024, equations 3 to 5, with the warmup and weighting of
    Algorithm 1.

    `x` are the weights to evaluate, `d` is how far ahead of them the steps are, `total` the sum of squared rates. With
    `weight_by_largest` each step weighs by the square of the largest rate so far, `largest`, as in the authors' code,
    and not of its own rate, as in the paper. The option `weight_decay` acts where the gradient is taken, as in the
    authors' code.
    """
    gamma = lr * minimum(1, t / maximum(warmup_steps, 1))
    largest = maximum(largest, gamma) if weight_by_largest else largest
    weight = largest**2 if weight_by_largest else gamma**2
    total = total + weight
    c = weight / where(total > 0, total, 1)
    u = d - gamma * dx
    return x + c * u, (1 - c) * u, total, largest


@schedule_free_sgd.lookahead
def schedule_free_sgd(d, *, beta):
    """How far ahead of `x` the gradient is taken: a part of the way to where the steps are."""
    return (1 - beta) * d


@rule(ranges=_WARMUP)
def schedule_free_adamw(
    x,
    dx,
    d=0,
    v=0,
    total=scalar(0.0),
    largest=scalar(0.0),
    *,
    t,
    lr=2.5e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0,
    warmup_steps=0,
    weight_by_largest=False,
):
    """Adam's shoes on the one who roams, while his sober friend keeps to the middle of where he has been.

    Source: Defazio et al., "The road less scheduled", 2024, Algorithm 1.

    `x` are the weights to evaluate, `d` is how far ahead of them the steps are, `total` the sum of squared rates. With
    `weight_by_largest` each step weighs by the square of the largest rate so far, `largest`, as in the authors' code,
    and not of its own rate, as in the paper. The decay is decoupled and acts where the gradient is taken, `y`. In
    single precision the square of a gradient is infinite from 1.8e19 on: but for the decay, the steps of that weight
    then stand still for good.
    """
    y = x + (1 - beta1) * d
    v = beta2 * v + (1 - beta2) * dx**2
    v_hat = v / (1 - beta2**t)
    gamma = lr * minimum(1, t / maximum(warmup_steps, 1))
    largest = maximum(largest, gamma) if weight_by_largest else largest
    weight = largest**2 if weight_by_largest else gamma**2
    total = total + weight
    c = weight / where(total > 0, total, 1)
    pull = where(weight_decay == 0, 0, weight_decay * y)
    u = d - gamma * (dx / (sqrt(v_hat) + eps) + pull)
    return x + c * u, (1 - c) * u, v, total, largest


@schedule_free_adamw.lookahead
def schedule_free_adamw(d, *, beta1):
    """How far ahead of `x` the gradient is taken: a part of the way to where the steps are."""
    return (1 - beta1) * d
