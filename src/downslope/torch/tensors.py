"""Tensors of PyTorch: who holds them, and how their elements lie in memory."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import torch

Tensor = torch.Tensor


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; all of it, unless it is a distributed one."""
    return getattr(tensor, "_local_tensor", tensor)


def all_local(tensors: Sequence[Any]) -> list[Any]:
    """`local` of each, whatever it is."""
    return [*map(getattr, tensors, itertools.repeat("_local_tensor"), tensors)]


def is_distributed(tensor: Tensor) -> bool:
    """Whether the tensor is shared out over processes."""
    return hasattr(tensor, "_local_tensor")


def is_wrapper(tensor: Tensor) -> bool:
    """Whether the tensor has no memory of its own, only a Python class that says what operations on it do.

    Quantised and scaled parameters are such. Fake tensors, which have no values either, are not meant.
    """
    kind = type(tensor)
    if kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__ or tensor.numel() == 0:
        return False
    fake = sys.modules.get("torch._subclasses.fake_tensor")
    if fake is not None and isinstance(tensor, fake.FakeTensor):
        return False
    try:
        return tensor.data_ptr() == 0
    except RuntimeError:
        return True


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, in whatever order."""
    meta = tensor.detach()
    return torch.empty_like(meta, device="meta").stride() == meta.stride() or tensor.numel() < 2


def is_backed(tensor: Tensor) -> bool:
    """Whether the memory of the tensor reaches as far as its elements."""
    if tensor.numel() == 0:
        return True
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
    return tensor.untyped_storage().nbytes() >= needed


def same_order(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape have their elements in the same order in memory."""
    pairs = zip(tensor.shape, tensor.stride(), other.stride(), strict=True)
    return all(mine == yours for size, mine, yours in pairs if size > 1)


def readable_dtypes(x: Tensor) -> tuple[torch.dtype, ...]:
    """The dtypes that gradients and states of these weights may have."""
    if x.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return (torch.float32, torch.bfloat16, torch.float16)
    if x.dtype in (torch.complex64, torch.complex32):
        return (torch.complex64, torch.complex32)
    return (x.dtype,)
