"""Optax's optimizers with its signatures, defaults and numbers, computed by downslope.

Changing `optax.adam` to `downslope.optax.adam` is the whole migration, except for states saved before it. The formula
in a docstring is a step, with states of 0 before the first; the rules are those of `downslope.dialects.optax`. Every
hyperparameter may be a schedule, as the learning rate and weight decay may in Optax.

Some arguments mean the same everywhere: `learning_rate` is the learning rate or its schedule; `mu_dtype` (and the
`accumulator_dtype` of `sgd`) is the dtype in which that state is kept; `mask` says which parameters have weight decay,
as a tree of truth values like the parameters, perhaps with one for a whole branch, or as a function that makes one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from downslope.dialects import optax as dialect
from downslope.optax.computation import Computation, Number, Schedule
from downslope.optax.transformation import Transformation
from downslope.rule import Rule

Varying = Number | Schedule

_NAMES = {"lr": "learning_rate", "beta1": "b1", "beta2": "b2"}
"""Optax's name of each hyperparameter that has another one in the formulas."""


def sgd(
    learning_rate: Varying, momentum: Varying | None = None, nesterov: bool = False, accumulator_dtype: Any = None
) -> Transformation:
    """Gradient descent, with momentum if wanted: `optax.sgd`.

        trace = dx + momentum * trace
        x = x - learning_rate * (dx + momentum * trace  if nesterov else trace)

    Args:
        learning_rate: Learning rate.
        momentum: Factor of the trace, at least 0; None for none.
        nesterov: Take the step of the trace of the next step.
        accumulator_dtype: The dtype of the trace.

    Raises:
        ValueError: `nesterov` or `accumulator_dtype` is given without a momentum.

    Source: Sutskever, Martens, Dahl & Hinton, "On the importance of initialization and momentum in deep learning",
    2013, in the form of `optax.sgd`.

    Example:
        >>> import jax.numpy as jnp, downslope.optax
        >>> transformation = downslope.optax.sgd(0.5, momentum=0.9)
        >>> updates, state = transformation.update(jnp.ones(1), transformation.init(jnp.zeros(1)))
        >>> print(updates)
        [-0.5]
    """
    if momentum is not None:
        settings = {"momentum": momentum, "nesterov": nesterov}
        return _made(dialect.sgd_momentum, learning_rate, settings, dtypes={"trace": accumulator_dtype})
    if nesterov or accumulator_dtype is not None:
        raise ValueError(
            f"nesterov={nesterov!r}, accumulator_dtype={accumulator_dtype!r}: without a momentum there is nothing that "
            "they could change; give momentum=0.9, say, or leave them out"
        )
    return _made(dialect.sgd, learning_rate, {})


def adagrad(learning_rate: Varying, initial_accumulator_value: Varying = 0.1, eps: Varying = 1e-7) -> Transformation:
    """Adagrad: `optax.adagrad`.

        sum = dx**2 + (sum  if t > 1 else initial_accumulator_value)
        x = x - learning_rate * dx / sqrt(sum + eps)

    Args:
        learning_rate: Learning rate.
        initial_accumulator_value: What the sum of squares starts from.
        eps: Added inside the root.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    2011, in the form of `optax.adagrad`.
    """
    settings = {"initial_accumulator_value": initial_accumulator_value, "eps": eps}
    return _made(dialect.adagrad, learning_rate, settings)


def rmsprop(
    learning_rate: Varying,
    decay: Varying = 0.9,
    eps: Varying = 1e-8,
    initial_scale: Varying = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Varying | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> Transformation:
    """RMSprop: `optax.rmsprop`.

        nu = (1 - decay) * dx**2 + decay * (nu  if t > 1 else initial_scale);  mu = (1 - decay) * dx + decay * mu
        correction = 1 - decay**t  if bias_correction else 1
        spread = nu / correction - ((mu / correction) ** 2  if centered else 0)
        step = learning_rate * dx / (sqrt(spread + eps)  if eps_in_sqrt else sqrt(spread) + eps)
        trace = step + momentum * trace
        x = x - (step + momentum * trace  if nesterov else trace)

    Args:
        learning_rate: Learning rate.
        decay: What is kept of the mean square.
        eps: Keeps the denominator from 0.
        initial_scale: What the mean square starts from.
        eps_in_sqrt: Whether `eps` is added inside the root or outside.
        centered: Take the variance in the place of the mean square.
        momentum: Factor of the trace, at least 0; None for none.
        nesterov: Take the step of the trace of the next step.
        bias_correction: Divide the averages by `1 - decay**t`.

    Raises:
        ValueError: `nesterov` is given without a momentum.

    Source: Tieleman & Hinton, "Lecture 6.5: rmsprop", 2012; centered: Graves, "Generating sequences with recurrent
    neural networks", 2013; in the form of `optax.rmsprop`.
    """
    settings = {
        "decay": decay,
        "eps": eps,
        "initial_scale": initial_scale,
        "eps_in_sqrt": eps_in_sqrt,
        "centered": centered,
        "bias_correction": bias_correction,
    }
    if momentum is not None:
        return _made(dialect.rmsprop_momentum, learning_rate, {**settings, "momentum": momentum, "nesterov": nesterov})
    if nesterov:
        raise ValueError("nesterov=True: without a momentum there is nothing that it could change; give momentum=0.9")
    return _made(dialect.rmsprop, learning_rate, settings)


def adam(
    learning_rate: Varying,
    b1: Varying = 0.9,
    b2: Varying = 0.999,
    eps: Varying = 1e-8,
    eps_root: Varying = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> Transformation:
    """Adam: `optax.adam`; with `nesterov` that is `optax.nadam`.

        mu = (1 - b1) * dx + b1 * mu;  nu = (1 - b2) * dx**2 + b2 * nu
        mu_hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * dx / (1 - b1**t)  if nesterov else mu / (1 - b1**t)
        x = x - learning_rate * mu_hat / (sqrt(nu / (1 - b2**t) + eps_root) + eps)

    Args:
        learning_rate: Learning rate.
        b1: What is kept of the first moment.
        b2: What is kept of the second moment.
        eps: Added to the root.
        eps_root: Added inside the root.
        mu_dtype: The dtype of the first moment.
        nesterov: Take the first moment of the next step.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015; Dozat, "Incorporating Nesterov momentum
    into Adam", 2016; in the form of `optax.adam`.
    """
    settings = {**_betas(b1, b2), "eps": eps, "eps_root": eps_root}
    return _made(_adam(nesterov), learning_rate, settings, dtypes={"mu": mu_dtype})


nadam = functools.partial(adam, nesterov=True)


def adamw(
    learning_rate: Varying,
    b1: Varying = 0.9,
    b2: Varying = 0.999,
    eps: Varying = 1e-8,
    eps_root: Varying = 0.0,
    mu_dtype: Any = None,
    weight_decay: Varying = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
) -> Transformation:
    """Adam with decoupled weight decay: `optax.adamw`; with `nesterov` that is `optax.nadamw`.

        x = x - learning_rate * weight_decay * x
        mu = (1 - b1) * dx + b1 * mu;  nu = (1 - b2) * dx**2 + b2 * nu
        mu_hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * dx / (1 - b1**t)  if nesterov else mu / (1 - b1**t)
        x = x - learning_rate * mu_hat / (sqrt(nu / (1 - b2**t) + eps_root) + eps)

    Args:
        learning_rate: Learning rate.
        b1: What is kept of the first moment.
        b2: What is kept of the second moment.
        eps: Added to the root.
        eps_root: Added inside the root.
        mu_dtype: The dtype of the first moment.
        weight_decay: Decoupled weight decay.
        mask: Which parameters have it.
        nesterov: Take the first moment of the next step.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019, in the form of `optax.adamw`.
    """
    settings = {**_betas(b1, b2), "eps": eps, "eps_root": eps_root, "weight_decay": weight_decay}
    return _made(_adam(nesterov), learning_rate, settings, decoupled=True, mask=mask, dtypes={"mu": mu_dtype})


nadamw = functools.partial(adamw, nesterov=True)


def amsgrad(
    learning_rate: Varying,
    b1: Varying = 0.9,
    b2: Varying = 0.999,
    eps: Varying = 1e-8,
    eps_root: Varying = 0.0,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Transformation:
    """Adam whose steps never grow back: `optax.amsgrad`.

        mu = (1 - b1) * dx + b1 * mu;  nu = (1 - b2) * dx**2 + b2 * nu
        mu_hat = mu / (1 - b1**t  if bias_correction_mu else 1)
        nu_max = maximum(nu_max, nu / (1 - b2**t  if bias_correction_nu else 1))
        x = x - learning_rate * mu_hat / (sqrt(nu_max + eps_root) + eps)

    Args:
        learning_rate: Learning rate.
        b1: What is kept of the first moment.
        b2: What is kept of the second moment.
        eps: Added to the root.
        eps_root: Added inside the root.
        mu_dtype: The dtype of the first moment.
        bias_correction_mu: Divide the first moment by `1 - b1**t`.
        bias_correction_nu: Divide the second moment by `1 - b2**t`.

    Source: Reddi, Kale & Kumar, "On the convergence of Adam and beyond", 2018, in the form of `optax.amsgrad`.
    """
    settings = {
        **_betas(b1, b2),
        "eps": eps,
        "eps_root": eps_root,
        "bias_correction_mu": bias_correction_mu,
        "bias_correction_nu": bias_correction_nu,
    }
    return _made(dialect.amsgrad, learning_rate, settings, dtypes={"mu": mu_dtype})


def adamax(learning_rate: Varying, b1: Varying = 0.9, b2: Varying = 0.999, eps: Varying = 1e-8) -> Transformation:
    """Adam in the infinity norm: `optax.adamax`.

        mu = (1 - b1) * dx + b1 * mu;  nu = maximum(abs(dx) + eps, b2 * nu)
        x = x - learning_rate * mu / (1 - b1**t) / nu

    Args:
        learning_rate: Learning rate.
        b1: What is kept of the first moment.
        b2: How the largest gradient fades.
        eps: Added to the gradient's size.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, in the form of `optax.adamax`.
    """
    return _made(dialect.adamax, learning_rate, {**_betas(b1, b2), "eps": eps})


def adamaxw(
    learning_rate: Varying,
    b1: Varying = 0.9,
    b2: Varying = 0.999,
    eps: Varying = 1e-8,
    weight_decay: Varying = 1e-4,
    mask: Any = None,
) -> Transformation:
    """Adamax with decoupled weight decay: `optax.adamaxw`.

        x = x - learning_rate * weight_decay * x
        mu = (1 - b1) * dx + b1 * mu;  nu = maximum(abs(dx) + eps, b2 * nu)
        x = x - learning_rate * mu / (1 - b1**t) / nu

    Args:
        learning_rate: Learning rate.
        b1: What is kept of the first moment.
        b2: How the largest gradient fades.
        eps: Added to the gradient's size.
        weight_decay: Decoupled weight decay.
        mask: Which parameters have it.

    Source: Kingma & Ba, 2015, and Loshchilov & Hutter, 2019, in the form of `optax.adamaxw`.
    """
    settings = {**_betas(b1, b2), "eps": eps, "weight_decay": weight_decay}
    return _made(dialect.adamax, learning_rate, settings, decoupled=True, mask=mask)


def adadelta(
    learning_rate: Varying | None = None,
    rho: Varying = 0.9,
    eps: Varying = 1e-6,
    weight_decay: Varying = 0.0,
    weight_decay_mask: Any = None,
) -> Transformation:
    """Steps in the units of the weights: `optax.adadelta`.

        dx = dx + weight_decay * x
        e_g = (1 - rho) * dx**2 + rho * e_g
        delta = sqrt(e_x + eps) / sqrt(e_g + eps) * dx
        e_x = (1 - rho) * delta**2 + rho * e_x
        x = x - learning_rate * delta

    Args:
        learning_rate: Learning rate; must be given, as without one Optax's updates point uphill.
        rho: What is kept of the mean squares.
        eps: Added inside the roots.
        weight_decay: Coupled weight decay.
        weight_decay_mask: Which parameters have it.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, in the form of `optax.adadelta`.
    """
    if learning_rate is None:
        raise TypeError("adadelta needs a learning_rate (1.0 in the paper); without one Optax's updates point uphill")
    settings: dict[str, Any] = {"rho": rho, "eps": eps}
    if not isinstance(weight_decay, (int, float)) or weight_decay != 0:
        settings["weight_decay"] = weight_decay
    return _made(dialect.adadelta, learning_rate, settings, mask=weight_decay_mask)


def radam(
    learning_rate: Varying,
    b1: Varying = 0.9,
    b2: Varying = 0.999,
    eps: Varying = 1e-8,
    eps_root: Varying = 0.0,
    threshold: Varying = 5.0,
    *,
    nesterov: bool = False,
) -> Transformation:
    """Adam that begins as momentum, until its second moment can be trusted: `optax.radam`.

        mu = (1 - b1) * dx + b1 * mu;  nu = (1 - b2) * dx**2 + b2 * nu
        mu_hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * dx / (1 - b1**t)  if nesterov else mu / (1 - b1**t)
        longest = 2 / (1 - b2) - 1;  length = longest - 2 * t * b2**t / (1 - b2**t)
        share = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        size = sqrt(nu / (1 - b2**t) + eps_root) + eps
        x = x - learning_rate * mu_hat * (sqrt(share) / size  if length >= threshold else 1)

    Args:
        learning_rate: Learning rate.
        b1: What is kept of the first moment.
        b2: What is kept of the second moment.
        eps: Added to the root.
        eps_root: Added inside the root.
        threshold: How many gradients the second moment must be worth.
        nesterov: Take the first moment of the next step.

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", 2020, in the form of `optax.radam`.
    """
    settings = {**_betas(b1, b2), "eps": eps, "eps_root": eps_root, "threshold": threshold, "nesterov": nesterov}
    return _made(dialect.radam, learning_rate, settings)


def lion(
    learning_rate: Varying,
    b1: Varying = 0.9,
    b2: Varying = 0.99,
    mu_dtype: Any = None,
    weight_decay: Varying = 1e-3,
    mask: Any = None,
) -> Transformation:
    """Steps of one size in every weight: `optax.lion`.

        x = x - learning_rate * (weight_decay * x + sign((1 - b1) * dx + b1 * mu))
        mu = (1 - b2) * dx + b2 * mu

    Args:
        learning_rate: Learning rate.
        b1: How much the moment counts in the step.
        b2: What is kept of the moment.
        mu_dtype: The dtype of the moment.
        weight_decay: Decoupled weight decay.
        mask: Which parameters have it.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023, in the form of `optax.lion`.
    """
    settings = {**_betas(b1, b2), "weight_decay": weight_decay}
    return _made(dialect.lion, learning_rate, settings, decoupled=True, mask=mask, dtypes={"mu": mu_dtype})


def adabelief(
    learning_rate: Varying,
    b1: Varying = 0.9,
    b2: Varying = 0.999,
    eps: Varying = 1e-16,
    eps_root: Varying = 1e-16,
    *,
    nesterov: bool = False,
) -> Transformation:
    """Long steps where the gradient is as expected, short ones where it surprises: `optax.adabelief`.

        mu = (1 - b1) * dx + b1 * mu;  nu = (1 - b2) * (dx - mu) ** 2 + b2 * nu + eps_root
        mu_hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * dx / (1 - b1**t)  if nesterov else mu / (1 - b1**t)
        x = x - learning_rate * mu_hat / (sqrt(nu / (1 - b2**t)) + eps)

    Args:
        learning_rate: Learning rate.
        b1: What is kept of the first moment.
        b2: What is kept of the variance around it.
        eps: Added to the root.
        eps_root: Added to the variance at every step.
        nesterov: Take the first moment of the next step.

    Source: Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", 2020, in the
    form of `optax.adabelief`.
    """
    settings = {**_betas(b1, b2), "eps": eps, "eps_root": eps_root, "nesterov": nesterov}
    return _made(dialect.adabelief, learning_rate, settings)


def _adam(nesterov: bool) -> Rule:
    return dialect.nadam if nesterov else dialect.adam


def _betas(b1: Varying, b2: Varying) -> dict[str, Any]:
    return {"beta1": b1, "beta2": b2}


def _made(
    rule: Rule,
    learning_rate: Any,
    settings: Mapping[str, Any],
    *,
    decoupled: bool = False,
    mask: Any = None,
    dtypes: Mapping[str, Any] = MappingProxyType({}),
) -> Transformation:
    """The transformation of a rule of the dialect, whose hyperparameters Optax calls by other names."""
    kept = {state: _floating(state, dtype) for state, dtype in dtypes.items() if dtype is not None}
    given = {"lr": learning_rate, **settings, "decoupled": decoupled}
    return Transformation.of(Computation.make(rule, given, mask=mask, dtypes=kept, names=_NAMES))


def _floating(state: str, dtype: Any) -> Any:
    """A dtype that a state can be kept in."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{dtype!r} as the dtype of {state}: give one of real floating point numbers, such as bfloat16")
    return jax.dtypes.canonicalize_dtype(dtype)
