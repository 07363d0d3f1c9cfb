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
    shares = _Shares()
    for e in in_order(program.outputs.values(), program.coefficients):
        args = tuple(new.get(arg, arg) for arg in e.args)
        if not e.args:
            new[e] = e
            if e.op == "input" and e.from_arrays and e.value not in program.spaces:
                shares.all.add(e)
        elif e.op == "called":
            new[e] = args[0]
        elif e.op in OPERATIONS:
            new[e] = shares.element_by_element(e, args)
        else:
            new[e] = _of_whole(e, tuple(map(shares.gathered, args)))
    outputs = {name: new.get(e, e) for name, e in program.outputs.items()}
    outputs = {name: e if name in program.spaces else shares.kept(e) for name, e in outputs.items()}
    return replace(program, outputs=outputs, names={})


class _Shares:
    """What of a program is worked out in shares, and what there is of it as a whole.

    Attributes:
        all: The expressions that are shares.
        whole: The whole of some of them.
    """

    def __init__(self) -> None:
        self.all: set[Expression] = set()
        self.whole: dict[Expression, Expression] = {}
        self._kept: dict[Expression, Expression] = {}

    def element_by_element(self, e: Expression, args: tuple[Expression, ...]) -> Expression:
        """An operation on these: of shares, if one of them is one."""
        shared = any(arg in self.all for arg in args)
        args = tuple(map(self.kept, args)) if shared else args
        space = join(*(arg.space for arg in args))
        new = Expression(e.op, args, e.value, space if space.of_tensor else TENSOR)  # a number that a shape has settled
        if shared:
            self.all.add(new)
        return new

    def kept(self, e: Expression) -> Expression:
        """The share of something; itself where it is one, or is the same for the whole tensor."""
        if e in self.all or not e.from_arrays or e.space == TENSOR:
            return e
        if e not in self._kept:
            share = self._kept[e] = Expression(SHARE, (e,))
            self.whole[share] = e
            self.all.add(share)
        return self._kept[e]

    def gathered(self, e: Expression) -> Expression:
        """The whole of something: made of what is there as a whole, element by element, or else gathered."""
        if e not in self.all:
            return e
        if e not in self.whole:
            known = self._is_known(e)
            args = tuple(map(self.gathered, e.args)) if known else (e,)
            self.whole[e] = Expression(e.op if known else WHOLE, args, e.value, e.space)
        return self.whole[e]

    def _is_known(self, e: Expression) -> bool:
        """Whether the whole of everything that a share is made of is there."""
        found = dict.fromkeys(self.whole, True)
        for each in in_order([e], self.whole):
            elements = each.op in OPERATIONS and all(found[arg] for arg in each.args)
            found[each] = each not in self.all or elements
        return found[e]


def _of_whole(e: Expression, args: tuple[Expression, ...]) -> Expression:
    """A sum, a product or a transposed matrix of these."""
    first = args[0].space
    if e.op == "product":
        space = product(first, args[1].space)
    elif e.op == "transpose":
        space = first.transposed
    else:
        space = first.without(None if e.value is None else int(float(e.value)))
    return Expression(e.op, args, e.value, space)


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
    if program.over_all:
        why = f"{program.name} sums up all tensors of a group, of which each process would take its own shares for all"
    elif not can_share(program):
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
