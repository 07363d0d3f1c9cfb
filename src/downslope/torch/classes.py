"""The optimizers of `torch.optim` with its signatures, defaults, states and numbers, computed by downslope.

Changing `torch.optim.Adam` to `downslope.torch.Adam` is the whole migration; `state_dict`s go both ways. The formulas
are in `downslope.dialects.torch`. What every class takes besides (`cautious`, `max_norm`, `averaging`, `nonfinite`,
`state_dtype`, `rounding`, `seed`, `threads`) is described at `downslope.torch.Optimizer`.

`foreach` and `fused` choose among implementations that `torch.optim` has: downslope has one, which is fused. They are
kept in the parameter groups, so that a `state_dict` finds them when it goes back. `capturable` and `differentiable` are
refused: the step is compiled code that PyTorch's graphs cannot contain.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch

from downslope.dialects import torch as dialect
from downslope.rule import Rule
from downslope.torch.extras import Extras
from downslope.torch.launch import STORAGES
from downslope.torch.optimizer import Optimizer
from downslope.torch.settings import Group, GroupSettings, Shared, checked
from downslope.torch.state import complete_state

Number = float | torch.Tensor


class _Classic(Optimizer):
    """An optimizer whose groups choose among the rules of the dialect."""

    def __init__(self, arguments: dict[str, Any]):
        """Begin with the arguments of a class: the parameters, what their groups have as defaults, and the extras."""
        defaults = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        self._begin(defaults.pop("params"), defaults, defaults.pop("extras"))
        self.rule = self._choose(self.defaults)


class SGD(_Classic):
    """Gradient descent, with momentum if wanted: `torch.optim.SGD`.

        dx = dx + weight_decay * x
        buffer = momentum * buffer + (1 - dampening) * dx      (the first time: dx)
        x = x - lr * buffer                                    (nesterov: x - lr * (dx + momentum * buffer))

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        momentum: Factor of the buffer, at least 0.
        dampening: What the gradient loses on its way into the buffer.
        weight_decay: Coupled weight decay, at least 0.
        nesterov: Take the step of the buffer of the next step; needs a momentum and no dampening.
        maximize: Walk up.
        foreach: Carried for `torch.optim`; see the module.
        differentiable: Refused.
        fused: Carried for `torch.optim`.
        **extras: See `downslope.torch.Optimizer`.

    Source: Sutskever, Martens, Dahl & Hinton, "On the importance of initialization and momentum in deep learning",
    2013, in the form of `torch.optim.SGD`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.SGD([x], lr=0.5, momentum=0.9)
        >>> x.grad = torch.tensor([1.0])
        >>> optimizer.step()
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
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"nesterov=True with momentum={group['momentum']} and dampening={group['dampening']}: it needs a "
                "momentum above 0 and no dampening"
            )
        return dialect.sgd_momentum if group["momentum"] != 0 else dialect.sgd

    def _check_group(self, group: Group, options: Shared | None = None) -> GroupSettings:
        checked("dampening", group["dampening"], dialect.sgd_momentum.ranges["dampening"])  # also where nothing uses it
        return super()._check_group(group, options)


class Adagrad(_Classic):
    """A learning rate of its own for every weight, which only falls: `torch.optim.Adagrad`.

        dx = dx + weight_decay * x
        sum = sum + dx**2
        x = x - lr / (1 + (t - 1) * lr_decay) * dx / (sqrt(sum) + eps)

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        lr_decay: How fast the learning rate falls, at least 0.
        weight_decay: Coupled weight decay, at least 0.
        initial_accumulator_value: What `sum` starts from, at least 0.
        eps: Keeps the divisor from 0, at least 0.
        foreach: Carried for `torch.optim`; see the module.
        maximize: Walk up.
        differentiable: Refused.
        fused: Carried for `torch.optim`.
        **extras: See `downslope.torch.Optimizer`.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    2011, in the form of `torch.optim.Adagrad`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.Adagrad([x], lr=0.5)
        >>> x.grad = torch.tensor([3.0])
        >>> optimizer.step()
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
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        return dialect.adagrad

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own, and begin their sums.

        Raises:
            TypeError: A setting is of the wrong kind or missing.
            ValueError: A setting is out of range, or a parameter is there twice. Nothing has been changed.
        """
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


class RMSprop(_Classic):
    """Gradients divided by their recent size: `torch.optim.RMSprop`.

        dx = dx + weight_decay * x
        square_avg = alpha * square_avg + (1 - alpha) * dx**2
        x = x - lr * dx / (sqrt(square_avg) + eps)

    With `centered` the variance takes the place of the mean square, with `momentum` the step goes into a buffer first.

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        alpha: Decay of the mean square, 0 to 1.
        eps: Keeps the divisor from 0, at least 0.
        weight_decay: Coupled weight decay, at least 0.
        momentum: Factor of the buffer, at least 0.
        centered: Subtract the square of the mean gradient.
        capturable: Refused.
        foreach: Carried for `torch.optim`; see the module.
        maximize: Walk up.
        differentiable: Refused.
        **extras: See `downslope.torch.Optimizer`.

    Source: Tieleman & Hinton, "Lecture 6.5: RMSProp", 2012; centered: Graves, "Generating sequences with recurrent
    neural networks", 2013; in the form of `torch.optim.RMSprop`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.RMSprop([x], lr=0.05)
        >>> x.grad = torch.tensor([3.0])
        >>> optimizer.step()
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
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        return dialect.rmsprop_momentum if group["momentum"] != 0 else dialect.rmsprop


class Adam(_Classic):
    """Momentum divided by the recent size of gradients, both unbiased: `torch.optim.Adam`.

        dx = dx + weight_decay * x                             (decoupled: x = x * (1 - lr * weight_decay))
        exp_avg = beta1 * exp_avg + (1 - beta1) * dx
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * dx**2
        x = x - lr * exp_avg / (1 - beta1**t) / (sqrt(exp_avg_sq / (1 - beta2**t)) + eps)

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        eps: Keeps the divisor from 0, at least 0.
        weight_decay: Weight decay, at least 0, coupled unless `decoupled_weight_decay`.
        amsgrad: Divide by the largest second moment so far.
        foreach: Carried for `torch.optim`; see the module.
        maximize: Walk up.
        capturable: Refused.
        differentiable: Refused.
        fused: Carried for `torch.optim`.
        decoupled_weight_decay: Apply the weight decay to the weights themselves.
        **extras: See `downslope.torch.Optimizer`.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015; AMSGrad: Reddi, Kale & Kumar, "On the
    convergence of Adam and beyond", 2018; in the form of `torch.optim.Adam`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.Adam([x], lr=0.25)
        >>> x.grad = torch.tensor([3.0])
        >>> optimizer.step()
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
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        return dialect.adam


class AdamW(Adam):
    """Adam with decoupled weight decay: `torch.optim.AdamW`.

        x = x * (1 - lr * weight_decay), then a step of Adam without weight decay.

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        eps: Keeps the divisor from 0, at least 0.
        weight_decay: Decoupled weight decay, at least 0.
        amsgrad: Divide by the largest second moment so far.
        maximize: Walk up.
        foreach: Carried for `torch.optim`; see the module.
        capturable: Refused.
        differentiable: Refused.
        fused: Carried for `torch.optim`.
        **extras: See `downslope.torch.Optimizer`.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019, in the form of `torch.optim.AdamW`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.AdamW([x], lr=0.25, weight_decay=0.4)
        >>> x.grad = torch.tensor([3.0])
        >>> optimizer.step()
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
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ):
        _Classic.__init__(self, {**locals(), "decoupled_weight_decay": True})

    def _adapt(self, group: Group) -> None:
        group["decoupled_weight_decay"] = True  # saved as False by an Adam, or by nobody before AdamW was one


class NAdam(_Classic):
    """Adam with Nesterov's momentum, whose factor warms up: `torch.optim.NAdam`.

        mu = beta1 * (1 - 0.96**(t * momentum_decay) / 2), mu_next the same for t + 1, mu_product = mu_product * mu
        exp_avg and exp_avg_sq as in Adam, divisor = sqrt(exp_avg_sq / (1 - beta2**t)) + eps
        x = x - lr * (1 - mu) / (1 - mu_product) * dx / divisor
        x = x - lr * mu_next / (1 - mu_product * mu_next) * exp_avg / divisor

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        eps: Keeps the divisor from 0, at least 0.
        weight_decay: Weight decay, at least 0, coupled unless `decoupled_weight_decay`.
        momentum_decay: How fast the momentum warms up, at least 0.
        decoupled_weight_decay: Apply the weight decay to the weights themselves.
        foreach: Carried for `torch.optim`; see the module.
        maximize: Walk up.
        capturable: Refused.
        differentiable: Refused.
        **extras: See `downslope.torch.Optimizer`.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016, in the form of `torch.optim.NAdam`, which keeps
    `mu_product` in single precision; here it is kept in double.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.NAdam([x], lr=0.25)
        >>> x.grad = torch.tensor([3.0])
        >>> optimizer.step()
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
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        return dialect.nadam


class Adamax(_Classic):
    """Momentum divided by the largest recent gradient: `torch.optim.Adamax`.

        dx = dx + weight_decay * x
        exp_avg = beta1 * exp_avg + (1 - beta1) * dx
        exp_inf = max(beta2 * exp_inf, abs(dx) + eps)
        x = x - lr / (1 - beta1**t) * exp_avg / exp_inf

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        betas: Decay of the moment and of the maximum, each from 0 to below 1.
        eps: Keeps the divisor from 0, at least 0.
        weight_decay: Coupled weight decay, at least 0.
        foreach: Carried for `torch.optim`; see the module.
        maximize: Walk up.
        differentiable: Refused.
        capturable: Refused.
        **extras: See `downslope.torch.Optimizer`.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, in the form of `torch.optim.Adamax`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.Adamax([x], lr=0.25)
        >>> x.grad = torch.tensor([3.0])
        >>> optimizer.step()
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
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        return dialect.adamax


class Adadelta(_Classic):
    """Steps in the units of the weights: `torch.optim.Adadelta`.

        dx = dx + weight_decay * x
        square_avg = rho * square_avg + (1 - rho) * dx**2
        delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * dx
        acc_delta = rho * acc_delta + (1 - rho) * delta**2
        x = x - lr * delta

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Factor of the step, at least 0.
        rho: Decay of both mean squares, from 0 to 1.
        eps: Keeps the divisor from 0 and lets the first step happen, at least 0.
        weight_decay: Coupled weight decay, at least 0.
        foreach: Carried for `torch.optim`; see the module.
        capturable: Refused.
        maximize: Walk up.
        differentiable: Refused.
        **extras: See `downslope.torch.Optimizer`.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, in the form of `torch.optim.Adadelta`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.Adadelta([x])
        >>> x.grad = torch.tensor([3.0])
        >>> optimizer.step()
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
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        return dialect.adadelta


class RAdam(_Classic):
    """Adam that begins as momentum, until the size of gradients is known well enough: `torch.optim.RAdam`.

    Args:
        params: Parameters, named parameters or groups of them.
        lr: Learning rate, at least 0.
        betas: Decay of the two moments, each from 0 to below 1.
        eps: Keeps the divisor from 0, at least 0.
        weight_decay: Weight decay, at least 0, coupled unless `decoupled_weight_decay`.
        decoupled_weight_decay: Apply the weight decay to the weights themselves.
        foreach: Carried for `torch.optim`; see the module.
        maximize: Walk up.
        capturable: Refused.
        differentiable: Refused.
        **extras: See `downslope.torch.Optimizer`.

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", 2020, in the form of
    `torch.optim.RAdam`; the formula is `downslope.dialects.torch.radam`.

    Example:
        >>> import torch, downslope.torch
        >>> x = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = downslope.torch.RAdam([x], lr=0.25)
        >>> x.grad = torch.tensor([2.0])
        >>> optimizer.step()  # as momentum: the gradient itself
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
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ):
        super().__init__(locals())

    def _choose(self, group: Group) -> Rule:
        return dialect.radam
