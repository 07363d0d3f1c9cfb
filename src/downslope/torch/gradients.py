"""One look at all gradients before a step: their norm, and whether they are finite."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from downslope.backends.launch import Launch
from downslope.torch.tensors import local


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


def squares_on_device(launches: Sequence[Launch]) -> torch.Tensor | None:
    """The sum of squares of all gradients, as a number that stays on their device; finite if, and only if, all are.

    Gradients that are shared out over processes count as a whole: every process must call this, and gets the same.

    Args:
        launches: Those of a step, which have just taken the gradients.

    Returns:
        A tensor for which nobody has waited; None where gradients are on several devices, or where a launch has to be
        asked for the norm itself. Devices, dtypes and programs decide, so that all processes do the same.
    """
    found: dict[tuple[Any, ...], list[torch.Tensor]] = {}
    for launch in launches:
        squares = launch.squares()
        if squares is None:
            return None
        found.setdefault(launch.mesh, []).append(squares)
    if len({squares.device for each in found.values() for squares in each}) != 1:
        return None
    sums = []
    for mesh, each in found.items():
        total = each[0] if len(each) == 1 else torch.stack(each).sum()
        for group in mesh:
            torch.distributed.all_reduce(total, group=group)
        sums.append(total)
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()


def factor_within(squares: torch.Tensor, limit: float, scale: float | torch.Tensor) -> torch.Tensor:
    """What to multiply gradients with so that their norm is within a limit, where their device knows it.

    Args:
        squares: The sum of their squares.
        limit: The largest norm that is left as it is.
        scale: What gradients are multiplied by in any case.
    """
    if isinstance(scale, torch.Tensor):
        scale = scale.to(squares.device)  # a gradient scaler's is where the loss is
    norm = squares.sqrt()
    return torch.where(norm * scale <= limit, scale, limit / norm)


def describe_nonfinite(groups: Sequence[dict[str, Any]]) -> str:
    """Which gradients hold nan or infinity, and how many elements of them."""
    found = []
    for k, group in enumerate(groups):
        names = _names(group) or [f"parameter {i} of group {k}" for i in range(len(group["params"]))]
        for name, p in zip(names, group["params"], strict=True):
            if p.grad is not None:
                gradient = local(p.grad).detach()
                gradient = gradient if gradient.layout is torch.strided else gradient.to_dense()
                count = int((~torch.isfinite(gradient)).sum())
                found += [f"the gradient of {name} ({count} of {p.numel()})"] if count else []
    return ", ".join(found) or "a gradient of another process"


def called(groups: Iterable[Mapping[str, Any]], first: int = 0) -> list[str]:
    """What parameters are called in messages: by their names or, without any, by their numbers from `first` on."""
    found: list[str] = []
    for group in groups:
        begin = first + len(found)
        found += _names(group) or map(str, range(begin, begin + len(group["params"])))
    return found


def _names(group: Mapping[str, Any]) -> Sequence[str]:
    """The names of a group's parameters, if they are known; not of one that is updated by itself."""
    names = group.get("param_names") or ()
    return names if len(names) == len(group["params"]) else ()


def check_agreed(
    gathered: Mapping[tuple[Any, ...], Sequence[int]], params: Sequence[torch.Tensor], names: Sequence[str]
) -> None:
    """Make sure that all processes have gradients of the same tensors, of those that are made whole in a step.

    One without would take another tensor's share for that of this one, or keep the others waiting. Every process must
    call this, whatever gradients it has, and those that share out a tensor raise together.

    Args:
        gathered: The numbers of these parameters, by the process groups that share them out.
        params: All parameters.
        names: What they are called.

    Raises:
        ValueError: Some have one that others do not have.
    """
    wrong = ""
    for mesh, which in gathered.items():
        own = [float(params[i].grad is not None) for i in which]
        counts, processes = _over(mesh, params[which[0]].device, own, torch.distributed.ReduceOp.SUM), 1
        for group in mesh:
            processes *= group.size()
        for i, count in zip(which, counts, strict=True):
            if not wrong and count not in (0, processes):
                wrong = f"parameter {names[i]} has a gradient on {count:.0f} of the {processes} processes that share it"
    if wrong:
        raise ValueError(
            f"{wrong}, and its rule needs one on each of them or on none; nothing was changed. Give it one of zeros "
            "where it has none, or set it to None everywhere"
        )


def _over_processes(launches: Sequence[Launch], norms: list[float], bad: int) -> tuple[list[float], int]:
    """Norms and counts over all processes that hold parts of the same tensors."""
    import torch.distributed as dist

    found = []
    for launch, norm in zip(launches, norms, strict=True):
        largest = _over(launch.mesh, launch.device, [norm], dist.ReduceOp.MAX)[0]
        unit = largest if 0 < largest < math.inf else 1.0  # or squares would overflow or vanish
        squares, many = _over(launch.mesh, launch.device, [(norm / unit) ** 2, float(bad)], dist.ReduceOp.SUM)
        found.append(math.sqrt(squares) * unit)
        bad = max(bad, math.ceil(many))
    return found, bad


def _over(mesh: Sequence[Any], device: torch.device, numbers: list[float], how: Any) -> list[float]:
    """Numbers taken together over the processes that share out tensors on a device."""
    for group in mesh:
        sent = torch.tensor(numbers, dtype=torch.float64, device=_reached(group, device))
        torch.distributed.all_reduce(sent, how, group=group)
        numbers = sent.tolist()
    return numbers


def _reached(group: Any, device: torch.device) -> torch.device:
    """This device, or if a process group takes no tensors of such a one, its own: NCCL's shards may be on the host."""
    kinds = [each.type for each in group._device_types]
    return device if device.type in kinds else torch.device(kinds[0])


def refuse_a_share(what: str, instead: str) -> None:
    """Refuse what needs all gradients where a ZeroRedundancyOptimizer makes an optimizer of its process's share.

    Args:
        what: That which does, with its verb.
        instead: What to do, as the end of a message.

    Raises:
        ValueError: One is making an optimizer.
    """
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    frame = sys._getframe() if module is not None else None
    while frame is not None:
        if module is not None and isinstance(frame.f_locals.get("self"), module.ZeroRedundancyOptimizer):
            raise ValueError(
                f"{what} all gradients, but inside a ZeroRedundancyOptimizer every process has those of its own share "
                f"only. {instead}"
            )
        frame = frame.f_back
