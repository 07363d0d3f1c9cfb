"""What a rule asks of parameters: a shape that it can work on and, of whole tensors, that they can be made whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from downslope.language.program import Program
from downslope.targets.shapes import check_shapes
from downslope.torch.gradients import refuse_a_share
from downslope.torch.launch import Members, Storage, Together
from downslope.torch.pieces import WHOLE, Pieces
from downslope.torch.sharing import sharing_refused

REMEDY = (
    'put it into a group of its own, such as {"params": [...], "rule": downslope.adamw}; downslope.split(model) '
    "proposes such groups"
)
"""What to do with a parameter of a shape that a rule cannot work on."""


def check_whole(
    program: Program, params: Iterable[Any], storage: Storage, names: Iterable[Any] = (), pieces: Pieces = WHOLE
) -> None:
    """Refuse parameters that a rule cannot work on.

    Args:
        program: The rule with its options.
        params: Parameters, or pairs of a name and a parameter.
        storage: How weights and states are kept.
        names: What the parameters are called, if it is known.
        pieces: How they are divided into matrices.

    Raises:
        ValueError: One is a shard that cannot be made whole (as those of FSDP1), has no shape for the rule, or is to be
            kept in a way that only kernels know; or they are the share of a ZeroRedundancyOptimizer and the rule sums
            up all tensors.
    """
    if program.over_all:
        refuse_a_share(
            f"{program.name} sums up all tensors of a group, which needs",
            "Train with plain data parallelism (DistributedDataParallel and this optimizer), or with a rule that goes "
            "by one tensor at a time",
        )
    if program.over_tensors:
        _check_storage(program, storage)
    elif program.most_dimensions is None:
        return
    called = [*names]
    for k, entry in enumerate(params):
        name, p = entry if isinstance(entry, tuple) else (called[k] if k < len(called) else f"number {k}", entry)
        if not isinstance(p, torch.Tensor) or not (p.requires_grad or p.grad is not None):
            continue
        if program.over_tensors:
            _check_tensor(program, name, p, pieces)
        check_shapes(program, [(name, shape) for shape in pieces.check(name, tuple(p.shape))], REMEDY)


def _check_storage(program: Program, storage: Storage) -> None:
    if storage.rounding != "nearest":
        raise ValueError(
            f"rounding={storage.rounding!r} is for rules that treat each weight by itself; {program.name} goes by "
            "whole tensors, whose weights are rounded to the nearest; leave rounding out"
        )
    if storage.state_dtype is torch.uint8:
        raise ValueError(
            f"state_dtype={storage.state_dtype} is for rules that treat each weight by itself; {program.name} goes by "
            "whole tensors, whose states are kept as they are; leave state_dtype out, or give torch.bfloat16"
        )


def _check_tensor(program: Program, name: Any, p: torch.Tensor, pieces: Pieces) -> None:
    _refuse_a_part(name, p, f"{program.name} goes by whole tensors", "or take a rule that treats each weight by itself")
    if refused := sharing_refused(str(name), p, program, pieces != WHOLE):
        raise ValueError(refused)
    if p.is_complex() and program.of_matrices:
        raise ValueError(f"the parameter {name} is complex; {program.name} goes by rows and columns of real numbers")


def _refuse_a_part(name: Any, p: torch.Tensor, why: str, instead: str) -> None:
    """Refuse a parameter of the first FSDP, which looks like an ordinary one and is a part of one or of several.

    Raises:
        ValueError: It is one.
    """
    if getattr(p, "_fsdp_flattened", False):
        raise ValueError(
            f"the parameter {name} is in a FullyShardedDataParallel, which flattens parameters and gives each process "
            f"a part of them, and {why}. Shard the model by torch.distributed.fsdp.fully_shard, {instead}"
        )


def refuse_parts(params: Iterable[Any], names: Sequence[str], what: str) -> None:
    """Refuse parameters of the first FSDP where options need all gradients.

    Args:
        params: The parameters of a group.
        names: What they are called; empty if that is not known.
        what: The options.

    Raises:
        ValueError: One is of it.
    """
    for k, p in enumerate(params):
        _refuse_a_part(
            names[k] if names else f"number {k}",
            p,
            f"{what} go by all gradients",
            "or leave them out and call the model's clip_grad_norm_ before the step",
        )


def check_together(launches: Mapping[Together, Members]) -> None:
    """Refuse groups in several launches whose rule sums up all tensors of a group.

    Raises:
        ValueError: The tensors of one are on several devices.
    """
    devices: dict[int, torch.device] = {}
    for together, members in launches.items():
        for group in {*members.groups} if together.program.over_all else ():
            first = devices.setdefault(group, together.device)
            if first != together.device:
                raise ValueError(
                    f"the parameters of group {group} are on {first} and {together.device}; {together.program.name} "
                    "sums up all tensors of a group; make a group of those on each device"
                )


def refuse_one_by_one(programs: Iterable[Program]) -> None:
    """Refuse to update each parameter as soon as its gradient has arrived, by a rule that needs those of all.

    Raises:
        ValueError: One is such a rule.
    """
    for program in programs:
        if program.over_all:
            raise ValueError(
                f"{program.name} sums up all tensors of a group, and step_in_backward updates each as soon as its "
                "gradient has arrived; call step() after backward() instead"
            )
