"""Updating every parameter as soon as its gradient has arrived."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import torch
from torch._compile import _disable_dynamo

from downslope.torch.tensors import is_distributed

Tensor = torch.Tensor


def step_in_backward(
    optimizer: torch.optim.Optimizer, surveys: bool, update: Callable[[int, Tensor], None]
) -> contextlib.ExitStack:
    """Update every parameter as soon as its gradient has arrived during `backward()`, and free the gradient.

    The gradients of a model then never exist all at once. There is no need to call `step` any more; schedulers
    work as before. It cannot be had together with what needs all gradients before the first update (`max_norm`,
    `nonfinite`, a gradient scaler, `DistributedDataParallel`), with step hooks, or with gradients accumulated over
    several `backward()`. Parameters that are added or thawed later need another call.

    Returns:
        A stack whose `close` goes back to the ordinary loop; it also works as a context manager.

    Raises:
        ValueError: The optimizer was made with `max_norm` or `nonfinite`, has step hooks or a rule that sums up all
            tensors of a group, or gradients are averaged over processes after they arrive.

    Example:
        >>> import torch, downslope.torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = downslope.torch.Adam(model.parameters())
        >>> handle = optimizer.step_in_backward()
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> model.weight.grad is None
        True
        >>> optimizer.state[model.weight]["step"].item()
        1.0
    """
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    several = several and torch.distributed.get_world_size() > 1
    params = [(k, p) for k, group in enumerate(optimizer.param_groups) for p in group["params"]]
    if several and not all(is_distributed(p) for _, p in params):
        raise ValueError(
            "a parameter's gradient arrives before it has been averaged over processes; step_in_backward goes "
            "together with FSDP2 (fully_shard), not with DistributedDataParallel"
        )
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise ValueError("step hooks are for whole steps, which there are none of in step_in_backward; remove them")
    if surveys:
        raise ValueError(
            "max_norm and nonfinite need all gradients before the first update, which step_in_backward does not "
            "wait for; make the optimizer without them"
        )
    handles = contextlib.ExitStack()
    for k, p in params:
        if p.requires_grad:
            hook = p.register_post_accumulate_grad_hook(functools.partial(_arrived, optimizer, update, k))
            handles.callback(hook.remove)
    return handles


@_disable_dynamo  # backward() of a compiled training step runs hooks under the tracer's eyes
def _arrived(optimizer: torch.optim.Optimizer, update: Callable[[int, Tensor], None], k: int, p: Tensor) -> None:
    """Update one parameter of group `k`, whose gradient has just arrived."""
    if not optimizer.__dict__.keys().isdisjoint(("grad_scale", "found_inf")):
        raise RuntimeError("a gradient scaler needs all gradients before the first update; not in step_in_backward")
    update(k, p)
    optimizer._opt_called = True  # type: ignore[attr-defined] # what learning rate schedulers look at
    p.grad = None
