r"""Generalised primal averaging: Nesterov's three sequences, with two numbers where he has one.

The paper keeps three sequences: `z` takes the steps, `x` is a fading average of all `z` so far and the point to
evaluate and save, and the gradient is taken between the two, at `y`:

    z' = z - lr * step
    x' = mu_x * x + (1 - mu_x) * z'
    y' = mu_y * x' + (1 - mu_y) * z'

Here, as in `schedule_free`, `z` is kept as its distance from the average, `d = z - x`, which starts from 0, so that `y`
lies ahead of `x` by a formula of `d` alone: a look-ahead. An ordinary loop takes its gradients at `y`, and
`optimizer.at_weights()` gives `x`.

Source: Defazio et al., "Smoothing DiLoCo with primal averaging for faster training of LLMs", 2025.
"""

from downslope.language.formula import scalar
from downslope.language.operations import maximum, sqrt, where
from downslope.rule import rule

__all__ = ["gpa_adamw"]


@rule(ranges={"mu_x": (0.0, 1.0), "mu_y": (0.0, 1.0)})
def gpa_adamw(
    x,
    dx,
    d=0,
    m=0,
    v=0,
    total=scalar(0.0),
    largest=scalar(0.0),
    *,
    t,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0,
    mu_x=0.9967,
    mu_y=0.7,
    schedule_free=False,
):
    """Adam roams; a friend goes to where he has lately been on average, and the slope is felt between the two.

    Source: Defazio et al., "Smoothing DiLoCo with primal averaging for faster training of LLMs", 2025, the AdamW form
    of generalised primal averaging; the defaults are those of the authors' code, but for its rate of 1.

    `x` are the weights to evaluate, `d` is how far ahead of them the steps are. With `schedule_free` no step is ever
    forgotten: each weighs in the average by the square of the largest rate so far, as in the authors' code. With
    `beta1=0` that is `schedule_free_adamw` with `weight_by_largest`, whose `beta1` is `mu_y`. The decay is decoupled
    and acts where the gradient is taken, `y`.
    """
    y = x + (1 - mu_y) * d
    m = beta1 * m + (1 - beta1) * dx
    v = beta2 * v + (1 - beta2) * dx**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    largest = maximum(largest, lr) if schedule_free else largest
    total = total + largest**2 if schedule_free else total
    c = largest**2 / where(total > 0, total, 1) if schedule_free else 1 - mu_x
    pull = where(weight_decay == 0, 0, weight_decay * y)
    u = d - lr * (m_hat / (sqrt(v_hat) + eps) + pull)
    return x + c * u, (1 - c) * u, m, v, total, largest


@gpa_adamw.lookahead
def gpa_adamw(d, *, mu_y):
    """How far ahead of `x` the gradient is taken: a part of the way to where the steps are."""
    return (1 - mu_y) * d
