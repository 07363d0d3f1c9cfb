"""The optimizers of `torch.optim` with its signatures, defaults, states and numbers, computed by downslope.

Changing `torch.optim.Adam` to `downslope.torch.Adam` is the whole migration; `state_dict`s go both ways. The formula in
a docstring is a step, with states of 0 before the first; `beta1` and `beta2` are the `betas`. The rules are those of
`downslope.dialects.torch`. What a class takes after its hyperparameters is what `torch.optim`'s takes, of `maximize`,
`foreach`, `fused`, `capturable` and `differentiable`, and the extras; see `downslope.torch.extras.ClassicOptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch

from downslope.dialects import torch as dialect
from downslope.rule import Rule
from downslope.torch.extras import EXTRAS, ClassicOptions, Extras, carried
from downslope.torch.launch import STORAGES
from downslope.torch.optimizer import Optimizer
from downslope.torch.own_rules import refuse_pairs
from downslope.torch.settings import Group, checked
from downslope.torch.state import complete_state
from downslope.training.arguments import takes

Number = float | torch.Tensor


class _Classic(Optimizer):
    """An optimizer whose groups choose among the rules of the dialect."""

    def __init_subclass__(cls, *, rule: Rule | None = None, family: tuple[Rule, ...] = (), more: str = ""):
        """Say which rule a class is, or among which its groups choose, and what else it takes; see `carried`."""
        if rule is not None:
            cls.rule = rule
        if family:
            cls._family = family
        if more:
            cls.__init__ = takes(*carried(more), *EXTRAS)(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, arguments: dict[str, Any]):
        """Begin with the arguments of a class: the parameters, what their groups have as defaults, and the extras."""
        given = {**arguments, **arguments["options"]}
        extras = {name: given.pop(name) for name in Extras.__annotations__}
        defaults = {name: v for name, v in given.items() if name not in ("self", "__class__", "more", "options")}
        self._begin(defaults.pop("params"), defaults, extras)
        self.rule = self._choose(self.defaults)

    def _choose(self, group: Group) -> Rule:
        if "rule" in group:
            raise TypeError(
                f"a parameter group has rule={group['rule']!r}, but {type(self).__name__} is by the one rule of its "
                "name, as in torch.optim; use downslope.torch.Optimizer, whose groups may have rules of their own"
            )
        return self._own_rule(group)

    def _own_rule(self, group: Group) -> Rule:
        """The rule of the dialect for a group."""
        assert self.rule is not None
        return self.rule

    def _named(self, group: Group) -> Mapping[str, tuple[str, ...]]:
        return {}

    def _beginning(self, group: Group) -> Group:
        return self.defaults

    def _unnamed(self, k: int, saved: Group, group: Group) -> Group:
        refuse_pairs(k, saved, self._choose(saved))  # which refuses the name of a rule
        return saved


class SGD(_Classic, family=(dialect.sgd, dialect.sgd_momentum), more="*, maximize, foreach, differentiable, fused"):
    """Gradient descent, with momentum if wanted: `torch.optim.SGD`.

        dx = dx + weight_decay * x
        buffer = momentum * buffer + (1 - dampening) * dx  if t > 1 and momentum else dx
        x = x - lr * (dx + momentum * buffer  if nesterov else buffer)

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        momentum: Factor of the buffer, at least 0.
        dampening: What the gradient loses on its way into the buffer.
        weight_decay: Coupled weight decay, at least 0.
        nesterov: Take the step of the buffer of the next step; needs a momentum and no dampening.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.SGD([x], lr=0.5, momentum=0.9)
        >>> optimizer.step(lambda: (1 * x).backward())
        >>> x.item()
        0.5
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Number = 0,
        nesterov: bool = False,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())

    def _own_rule(self, group: Group) -> Rule:
        checked("dampening", group["dampening"], dialect.sgd_momentum.ranges["dampening"])  # also where nothing uses it
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"nesterov=True with momentum={group['momentum']} and dampening={group['dampening']}: it needs a "
                "momentum above 0 and no dampening"
            )
        return dialect.sgd_momentum if group["momentum"] != 0 else dialect.sgd


class Adagrad(_Classic, rule=dialect.adagrad, more="foreach, *, maximize, differentiable, fused"):
    """A learning rate of its own for every weight, which only falls: `torch.optim.Adagrad`.

        dx = dx + weight_decay * x
        sum = dx**2 + (sum  if t > 1 else initial_accumulator_value)
        x = x - lr / (1 + (t - 1) * lr_decay) * dx / (sqrt(sum) + eps)

    Args:
        params: Parameters, named parameters or groups of them.
        lr, lr_decay: Learning rate, and how fast it falls; each at least 0.
        weight_decay, eps: Coupled weight decay, and what keeps the divisor from 0; each at least 0.
        initial_accumulator_value: What `sum` starts from, at least 0.

    Source: Duchi et al., "Adaptive subgradient methods for online learning and stochastic optimization", 2011.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.Adagrad([x], lr=0.5)
        >>> optimizer.step(lambda: (3 * x).backward())
        >>> x.item()
        0.5
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own, and begin their sums; see `Optimizer.add_param_group`."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        settings = self._check_group(group)
        with torch.inference_mode(False), torch.no_grad():
            for p in group["params"]:
                if p.dtype in STORAGES and not p.is_meta and not p.is_inference():
                    self.state[p] = complete_state(p, {}, settings, self._storage)[0]

    def share_memory(self) -> None:
        """Move the sums to memory that processes share, before they are started, as in `torch.optim.Adagrad`."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"].share_memory_()


class RMSprop(
    _Classic,
    family=(dialect.rmsprop, dialect.rmsprop_momentum),
    more="capturable, foreach, maximize, differentiable",
):
    """Gradients divided by their recent size: `torch.optim.RMSprop`.

        dx = dx + weight_decay * x
        square_avg = alpha * square_avg + (1 - alpha) * dx**2
        grad_avg = alpha * grad_avg + (1 - alpha) * dx
        step = dx / (sqrt(square_avg - grad_avg**2  if centered else square_avg) + eps)
        buffer = momentum * buffer + step
        x = x - lr * buffer

    Args:
        params: Parameters, named parameters or groups of them.
        lr, weight_decay, eps: Learning rate, coupled weight decay, what keeps the divisor from 0; each at least 0.
        alpha: Decay of the mean square, 0 to 1.
        momentum: Factor of the buffer, at least 0.
        centered: Subtract the square of the mean gradient.

    Source: Tieleman & Hinton, "Lecture 6.5: RMSProp", 2012; centered: Graves, "Generating sequences with recurrent
    neural networks", 2013.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.RMSprop([x], lr=0.05)
        >>> optimizer.step(lambda: (3 * x).backward())
        >>> round(x.item(), 6)
        0.5
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())

    def _own_rule(self, group: Group) -> Rule:
        return dialect.rmsprop_momentum if group["momentum"] != 0 else dialect.rmsprop


class Adam(
    _Classic, rule=dialect.adam, more="*, foreach, maximize, capturable, differentiable, fused, decoupled_weight_decay"
):
    """Momentum divided by the recent size of gradients, both unbiased: `torch.optim.Adam`.

        dx = dx + weight_decay * x  if not decoupled_weight_decay else dx
        x = x - lr * weight_decay * x  if decoupled_weight_decay else x
        exp_avg = beta1 * exp_avg + (1 - beta1) * dx
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx**2
        largest = maximum(largest, exp_avg_sq)  if amsgrad else exp_avg_sq
        x = x - lr * exp_avg / (1 - beta1**t) / (sqrt(largest / (1 - beta2**t)) + eps)

    Args:
        params: Parameters, named parameters or groups of them.
        lr, eps: Learning rate, and what keeps the divisor from 0; each at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        weight_decay, decoupled_weight_decay: Weight decay, at least 0, and whether it is of the weights themselves.
        amsgrad: Divide by the largest second moment so far.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015; AMSGrad: Reddi, Kale & Kumar, "On the
    convergence of Adam and beyond", 2018.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.Adam([x], lr=0.25)
        >>> optimizer.step(lambda: (3 * x).backward())
        >>> round(x.item(), 6)
        0.75
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())


class AdamW(Adam, more="*, maximize, foreach, capturable, differentiable, fused"):
    """Adam with decoupled weight decay: `torch.optim.AdamW`.

        x = x - lr * weight_decay * x
        exp_avg = beta1 * exp_avg + (1 - beta1) * dx
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx**2
        largest = maximum(largest, exp_avg_sq)  if amsgrad else exp_avg_sq
        x = x - lr * exp_avg / (1 - beta1**t) / (sqrt(largest / (1 - beta2**t)) + eps)

    Args:
        params: Parameters, named parameters or groups of them.
        lr, eps: Learning rate, and what keeps the divisor from 0; each at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        weight_decay: Decoupled weight decay, at least 0.
        amsgrad: Divide by the largest second moment so far.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.AdamW([x], lr=0.25, weight_decay=0.4)
        >>> optimizer.step(lambda: (3 * x).backward())
        >>> round(x.item(), 6)
        0.65
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        _Classic.__init__(self, {**locals(), "decoupled_weight_decay": True})

    def _adapt(self, group: Group) -> None:
        group["decoupled_weight_decay"] = True  # saved as False by an Adam, or by nobody before AdamW was one


class NAdam(_Classic, rule=dialect.nadam, more="*, foreach, maximize, capturable, differentiable"):
    """Adam with Nesterov's momentum, whose factor warms up: `torch.optim.NAdam`.

        dx = dx + weight_decay * x  if not decoupled_weight_decay else dx
        x = x - lr * weight_decay * x  if decoupled_weight_decay else x
        exp_avg = beta1 * exp_avg + (1 - beta1) * dx
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx**2
        mu = beta1 * (1 - 0.96 ** (t * momentum_decay) / 2)
        mu_next = beta1 * (1 - 0.96 ** ((t + 1) * momentum_decay) / 2)
        mu_product = mu * (mu_product  if t > 1 else 1)
        m_hat = mu_next * exp_avg / (1 - mu_product * mu_next) + (1 - mu) * dx / (1 - mu_product)
        x = x - lr * m_hat / (sqrt(exp_avg_sq / (1 - beta2**t)) + eps)

    Args:
        params: Parameters, named parameters or groups of them.
        lr, eps: Learning rate, and what keeps the divisor from 0; each at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        weight_decay, decoupled_weight_decay: Weight decay, at least 0, and whether it is of the weights themselves.
        momentum_decay: How fast the momentum warms up, at least 0.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016, in the form of `torch.optim.NAdam`, which keeps
    `mu_product` in single precision; here it is kept in double.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.NAdam([x], lr=0.25)
        >>> optimizer.step(lambda: (3 * x).backward())
        >>> x.item() < 0.75
        True
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())


class Adamax(_Classic, rule=dialect.adamax, more="foreach, *, maximize, differentiable, capturable"):
    """Momentum divided by the largest recent gradient: `torch.optim.Adamax`.

        dx = dx + weight_decay * x
        exp_avg = beta1 * exp_avg + (1 - beta1) * dx
        exp_inf = maximum(beta2 * exp_inf, abs(dx) + eps)
        x = x - lr / (1 - beta1**t) * exp_avg / exp_inf

    Args:
        params: Parameters, named parameters or groups of them.
        lr, weight_decay, eps: Learning rate, coupled weight decay, what keeps the divisor from 0; each at least 0.
        betas: Decay of the moment and of the maximum, each from 0 to below 1.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.Adamax([x], lr=0.25)
        >>> optimizer.step(lambda: (3 * x).backward())
        >>> round(x.item(), 6)
        0.75
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())


class Adadelta(_Classic, rule=dialect.adadelta, more="foreach, *, capturable, maximize, differentiable"):
    """Steps in the units of the weights: `torch.optim.Adadelta`.

        dx = dx + weight_decay * x
        square_avg = rho * square_avg + (1 - rho) * dx**2
        delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * dx
        acc_delta = rho * acc_delta + (1 - rho) * delta**2
        x = x - lr * delta

    Args:
        params: Parameters, named parameters or groups of them.
        lr, weight_decay: Factor of the step, and coupled weight decay; each at least 0.
        rho: Decay of both mean squares, from 0 to 1.
        eps: Keeps the divisor from 0 and lets the first step happen, at least 0.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.Adadelta([x])
        >>> optimizer.step(lambda: (3 * x).backward())
        >>> round(1 - x.item(), 5)
        0.00316
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())


class RAdam(_Classic, rule=dialect.radam, more="*, foreach, maximize, capturable, differentiable"):
    """Adam that begins as momentum, until the size of gradients is known well enough: `torch.optim.RAdam`.

        dx = dx + weight_decay * x  if not decoupled_weight_decay else dx
        x = x - lr * weight_decay * x  if decoupled_weight_decay else x
        exp_avg = beta1 * exp_avg + (1 - beta1) * dx
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx**2
        m_hat = exp_avg / (1 - beta1**t)
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        share = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        x = x - lr * (m_hat * sqrt(share * (1 - beta2**t)) / (sqrt(exp_avg_sq) + eps)  if length > 5 else m_hat)

    Args:
        params: Parameters, named parameters or groups of them.
        lr, eps: Learning rate, and what keeps the divisor from 0; each at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        weight_decay, decoupled_weight_decay: Weight decay, at least 0, and whether it is of the weights themselves.

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", 2020.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.ones(1, requires_grad=True)
        >>> optimizer = downslope.torch.RAdam([x], lr=0.25)
        >>> optimizer.step(lambda: (2 * x).backward())  # as momentum: the gradient itself
        >>> round(x.item(), 6)
        0.5
    """

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *more: Any,
        **options: Unpack[ClassicOptions],
    ):
        super().__init__(locals())
