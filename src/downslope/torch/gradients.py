"""One look at all gradients before a step: their norm, and whether they are finite."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from downslope.backends.launch import Launch
from downslope.torch.state import local


def norm_and_nonfinite(launches: Sequence[Launch], workers: int) -> tuple[float, int]:
    """The Euclidean norm of all gradients that the launches have just taken, and how many elements are not finite.

    Gradients that are shared out over processes count as a whole: every process must call this, and gets the same.

    Args:
        launches: Those of a step.
        workers: How many threads may share the work.
    """
    norms, bad = [], 0
    for launch in launches:
        norm, scale, nonfinite = launch.survey(workers)
        norms.append(norm / scale)
        bad += nonfinite
    if any(launch.mesh for launch in launches):
        norms, bad = _over_processes(launches, norms, bad)
    return math.hypot(*norms), bad


def factor_on_device(launches: Sequence[Launch], limit: float, scale: float) -> torch.Tensor | None:
    """What to multiply gradients with so that their norm is within a limit, as a number that stays on their device.

    Args:
        launches: Those of a step, which have just taken the gradients.
        limit: The largest norm that is left as it is.
        scale: What gradients are multiplied by in any case.

    Returns:
        A tensor for which nobody has waited; None where gradients are on several devices or shared out over processes,
        or where a launch has to be asked for the norm itself.
    """
    if any(launch.mesh for launch in launches):
        return None
    found = [launch.squares() for launch in launches]
    if not found or any(each is None for each in found) or len({each.device for each in found}) > 1:
        return None
    norm = (found[0] if len(found) == 1 else torch.stack(found).sum()).sqrt()
    return torch.where(norm * scale <= limit, scale, limit / norm)


def describe_nonfinite(groups: Sequence[dict[str, Any]]) -> str:
    """Which gradients hold nan or infinity, and how many elements of them."""
    found = []
    for k, group in enumerate(groups):
        names = group.get("param_names") or [f"parameter {i} of group {k}" for i in range(len(group["params"]))]
        for name, p in zip(names, group["params"], strict=True):
            if p.grad is not None:
                gradient = local(p.grad).detach()
                gradient = gradient if gradient.layout is torch.strided else gradient.to_dense()
                count = int((~torch.isfinite(gradient)).sum())
                found += [f"the gradient of {name} ({count} of {p.numel()})"] if count else []
    return ", ".join(found) or "a gradient of another process"


def _over_processes(launches: Sequence[Launch], norms: list[float], bad: int) -> tuple[list[float], int]:
    """Norms and counts over all processes that hold parts of the same tensors."""
    import torch.distributed as dist

    found = []
    for launch, norm in zip(launches, norms, strict=True):
        largest = torch.tensor([norm], dtype=torch.float64, device=launch.device)  # or NCCL would refuse
        for group in launch.mesh:
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        unit = largest.item() if 0 < largest.item() < math.inf else 1.0  # or squares would overflow or vanish
        sums = torch.tensor([(norm / unit) ** 2, float(bad)], dtype=torch.float64, device=launch.device)
        for group in launch.mesh:
            dist.all_reduce(sums, group=group)
        found.append(math.sqrt(sums[0].item()) * unit)
        bad = max(bad, math.ceil(sums[1].item()))
    return found, bad


def refuse_a_share(max_norm: float | None, nonfinite: str) -> None:
    """Refuse what needs all gradients where a ZeroRedundancyOptimizer makes an optimizer of its process's share.

    Args:
        max_norm: The option.
        nonfinite: The option.

    Raises:
        ValueError: One is making an optimizer.
    """
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    frame = sys._getframe() if module is not None else None
    while frame is not None:
        if module is not None and isinstance(frame.f_locals.get("self"), module.ZeroRedundancyOptimizer):
            raise ValueError(
                f"max_norm={max_norm} and nonfinite={nonfinite!r} need all gradients, but inside a "
                "ZeroRedundancyOptimizer every process has those of its own share only. Leave them out, and call "
                "torch.nn.utils.clip_grad_norm_ before the step; or shard with FSDP2 (fully_shard), where max_norm is "
                "the norm over all processes"
            )
        frame = frame.f_back
