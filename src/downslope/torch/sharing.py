"""Matrices that are shared out over processes, and made whole where a rule over whole tensors has to see all of them.

Each process works on its share, element by element. What is summed up, multiplied or transposed is gathered from all
processes, each of which then does the same with it and keeps its share of what comes out. So Muon gathers one matrix a
parameter, and many processes end with the very bits of one.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from downslope.language.expression import Expression
from downslope.language.operations import OPERATIONS, TENSOR_WORDS
from downslope.language.program import Program, in_order
from downslope.language.spaces import TENSOR, join, product

Tensor = torch.Tensor

WHOLE, SHARE = "whole", "share"
"""What is gathered, and what is kept of it: operations between those of a formula, which only this file writes."""


def with_shares(program: Program) -> Program:
    """The program in which arrays are shares, and which says where they become whole.

    Args:
        program: One over whole tensors, for tensors of one shape. States of rows or columns are whole in each process.
    """
    new: dict[Expression, Expression] = {}
    shares: set[Expression] = set()  # which of the new ones
    whole: dict[Expression, Expression] = {}
    shared: dict[Expression, Expression] = {}

    def is_known(e: Expression) -> bool:
        """Whether all is there of which the whole can be made, element by element."""
        found: dict[Expression, bool] = {}
        for each in in_order([e], whole):
            elements = each.op in OPERATIONS and all(arg in whole or found[arg] for arg in each.args)
            found[each] = each not in shares or elements
        return e in whole or found[e]

    def gathered(e: Expression) -> Expression:
        if e not in shares:
            return e
        if e not in whole:
            known = is_known(e)
            args = tuple(map(gathered, e.args)) if known else (e,)
            whole[e] = Expression(e.op if known else WHOLE, args, e.value, e.space)
        return whole[e]

    def kept(e: Expression) -> Expression:
        if e in shares or not e.from_arrays or e.space == TENSOR:
            return e
        share = shared.setdefault(e, Expression(SHARE, (e,)))
        whole[share] = e
        shares.add(share)
        return share

    for e in in_order(program.outputs.values(), program.coefficients):
        args = tuple(new.get(arg, arg) for arg in e.args)
        if not e.args:
            new[e] = e
            if e.op == "input" and e.from_arrays and e.value not in program.spaces:
                shares.add(e)
        elif e.op == "called":
            new[e] = args[0]
        elif e.op in OPERATIONS:
            one = any(arg in shares for arg in args)
            args = tuple(map(kept, args)) if one else args
            space = join(*(arg.space for arg in args))
            new[e] = Expression(e.op, args, e.value, space if space.of_tensor else TENSOR)  # a number of this shape's
            if one:
                shares.add(new[e])
        else:
            of = tuple(map(gathered, args))
            space = (
                product(of[0].space, of[1].space)
                if e.op == "product"
                else of[0].space.transposed
                if e.op == "transpose"
                else of[0].space.without(None if e.value is None else int(float(e.value)))
            )
            new[e] = Expression(e.op, of, e.value, space)
    outputs = {name: new.get(e, e) for name, e in program.outputs.items()}
    outputs = {name: e if name in program.spaces else kept(e) for name, e in outputs.items()}
    return replace(program, outputs=outputs, names={})


def can_share(program: Program) -> bool:
    """Whether it is known what to do with shares in all operations of a program."""
    known = (*TENSOR_WORDS, "transpose", "product", "called", "input")
    return all(e.op in known for e in program.over_tensors)


@dataclass(frozen=True)
class Sharing:
    """How tensors of one shape are shared out over processes.

    Attributes:
        mesh: The processes.
        placements: Along which dimension they are divided, for each dimension of the mesh.
        shape: The shape of a whole tensor.
    """

    mesh: Any
    placements: tuple[Any, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, p: Tensor) -> Sharing | None:
        """How a parameter is; None if each process has all of it."""
        placements = getattr(p, "placements", ())
        if not any(placement.is_shard() for placement in placements):
            return None
        found: Any = p
        return cls(found.device_mesh, tuple(placements), tuple(p.shape))

    @functools.cached_property
    def _stacked(self) -> tuple[Any, ...]:
        """The placements of a stack, which has one dimension more."""
        from torch.distributed.tensor import Shard

        return tuple(Shard(p.dim + 1) if p.is_shard() else p for p in self.placements)

    def whole(self, shares: Tensor, local: tuple[int, ...]) -> Tensor:
        """A stack of whole tensors, from this process's shares of them and those of the others.

        Args:
            shares: A stack of shares.
            local: The shape of one.
        """
        from torch.distributed.tensor import DTensor

        shape = torch.Size((len(shares), *self.shape))
        stride = tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
        given = shares.reshape(len(shares), *local).contiguous()
        gathered: Tensor = DTensor.from_local(
            given, self.mesh, self._stacked, run_check=False, shape=shape, stride=stride
        ).full_tensor()
        return gathered.to(shares.device)  # where shares are kept on the host, a mesh of GPUs gathers on these

    def share(self, stack: Tensor) -> Tensor:
        """This process's shares of a stack of whole tensors."""
        from torch.distributed.tensor import DTensor, Replicate

        given = stack.reshape(len(stack), *self.shape).contiguous()
        everywhere = DTensor.from_local(given, self.mesh, [Replicate()] * self.mesh.ndim, run_check=False)
        found: Tensor = everywhere.redistribute(placements=self._stacked).to_local()
        return found.to(stack.device)


def sharing_refused(name: str, p: Any, program: Program, pieces: bool) -> str:
    """Why a parameter that is shared out over processes cannot be trained by a rule over whole tensors; or nothing."""
    placements = getattr(p, "placements", ())
    if all(placement.is_replicate() for placement in placements):
        return ""
    from torch.distributed.tensor import Replicate, Shard

    why = ""
    if not can_share(program):
        why = f"{program.name} factorises matrices, which is not done with shares"
    elif pieces:
        why = "it is divided into pieces, which may begin in one share and end in another"
    elif p.is_complex():
        why = "it is complex"
    elif any(type(placement) not in (Replicate, Shard) for placement in placements):
        why = f"it is placed as {tuple(placements)}; rules over whole tensors know Shard and Replicate"
    if not why:
        return ""
    return (
        f"the parameter {name} is shared out over processes (a DTensor), and {why}. Keep it whole, or put it into a "
        "group of a rule that treats each weight by itself, such as downslope.adamw"
    )
