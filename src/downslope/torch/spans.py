"""The stretches of memory that tensors lie in, and which of them overlap."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence

import torch

from downslope.torch.device import has_addresses
from downslope.torch.tensors import is_wrapper

Span = tuple[int, int]
"""The address of the first byte, and that after the last."""


def span(tensor: torch.Tensor) -> Span:
    """Where a tensor lies, with the gaps in it; (0, 0) if it is nowhere that is known."""
    known = tensor.layout is torch.strided and has_addresses(tensor.device) and not is_wrapper(tensor)
    if not known or tensor.numel() == 0:
        return (0, 0)
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def overlaps(one: Span, spans: Sequence[Span]) -> bool:
    """Whether a span overlaps one of these, which are in ascending order."""
    at = bisect.bisect_left(spans, (one[1], 0))
    return any(begin < one[1] and one[0] < end for begin, end in spans[max(at - 2, 0) : at])


def overlap(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether two of these tensors may share memory: the stretches that they lie in do."""
    spans = sorted(map(span, tensors))
    return any(end > begin for (_, end), (begin, _) in itertools.pairwise(spans))
