"""How the tensors of a device are looked at."""

from __future__ import annotations

import functools

import torch

from downslope.backends.describe import Describer
from downslope.backends.tensors import at_sight, of_tensors

_DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int8,
    torch.uint8,
    torch.complex64,
    torch.complex128,
)


@functools.cache
def describer(device: torch.device) -> Describer:
    """For tensors on a device, and for the counts of steps, which are on the CPU."""
    asked = of_tensors(torch.Tensor)
    with torch.inference_mode(False), torch.no_grad(), torch._C._DisableTorchDispatch():  # or a mode would make others
        usual = _usual(torch.device("cpu")) + (_usual(device) if device.type != "cpu" else [])
        return at_sight(asked, usual, _unusual())


def _usual(device: torch.device) -> list[torch.Tensor]:
    """Ordinary tensors, in all the ways of standing in memory."""
    found = [torch.zeros(6, dtype=dtype, device=device) for dtype in _DTYPES]
    base = torch.zeros(4, 3, 2, device=device)
    found += [base, base.mT, base[1:, ::2], base.expand(2, 4, 3, 2), base[0, 0, 0], base[:0], base[None, None]]
    moved = torch.zeros(2, device=device)
    moved.data = base[1].mT
    resized = torch.zeros(2, device=device).resize_(5, 7)
    set_ = torch.zeros(2, device=device)
    set_.set_(base.untyped_storage(), 3, (2, 3), (6, 2))
    parameter = torch.nn.Parameter(base.clone())
    parameter.grad = base.clone()
    parameter.data = parameter.data.double()[1:]
    leaf = torch.zeros(2, device=device, requires_grad=True)
    leaf.grad = torch.ones(2, device=device)
    leaf.grad = torch.zeros(2, device=device)
    return [*found, moved, resized, set_, parameter, parameter.grad, leaf]


def _unusual() -> list[torch.Tensor]:
    """Tensors that are not what their memory shows, have none, or whose shape is kept elsewhere."""
    base = torch.zeros(6, device="cpu")
    cut = torch.zeros(3, device="cpu")
    cut.untyped_storage().resize_(0)
    imaginary = torch.zeros(3, dtype=torch.complex64, device="cpu")
    with torch.inference_mode():
        inferred = torch.zeros(3, device="cpu")
    found = [
        base.reshape(1, 1, 1, 1, 1, -1),
        cut,
        imaginary.conj(),
        imaginary.conj().imag,
        inferred,
        torch.zeros(3, dtype=torch.int64, device="cpu"),
        torch._efficientzerotensor(3, device="cpu"),
        torch.nn.Buffer(base.clone()),
        base.as_subclass(_Subclass),
    ]
    return [*found, *([torch._lazy_clone(base)] if hasattr(torch, "_lazy_clone") else [])]


class _Subclass(torch.Tensor):
    """A class of its own."""
