"""States that are kept in eight bits: under which names, how they begin, and the way there and back.

The state `exp_avg`, say, is then a tensor `exp_avg.codes` of its parameter's shape, whose dtype, int8 or uint8, says
which code it is, and a tensor `exp_avg.scales` with one number for each block: see `downslope.targets.codes`. There is
no `exp_avg`, so that whoever looks for one does not take codes for numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from downslope.backends.coded import codes_of
from downslope.targets.codes import CODED, SCALES, blocks, decode, encode
from downslope.torch.device import has_kernels
from downslope.torch.launch import Storage
from downslope.torch.settings import GroupSettings
from downslope.training.eight_bits import none_codable

Tensor = torch.Tensor


def coded(settings: GroupSettings, storage: Storage) -> Mapping[str, str]:
    """The states that are kept as codes, and as which: "int8" or "uint8"."""
    if storage.state_dtype is not torch.uint8:
        return {}
    ahead = settings.chosen.ahead
    return codes_of(settings.program, None if ahead is None else ahead.to_point)


def check_codable(settings: GroupSettings, storage: Storage) -> None:
    """Make sure that there is something to keep in eight bits, if that is asked for.

    Raises:
        ValueError: A rule has states, but its formula needs all of them exactly.
    """
    states = settings.program.states
    if storage.state_dtype is torch.uint8 and states and not coded(settings, storage):
        raise ValueError(f"state_dtype=torch.uint8: {none_codable(settings.rule.name, states)}")


def check_coded_parameter(p: Tensor) -> None:
    """Make sure that the states of a parameter can be kept in eight bits.

    Raises:
        ValueError: They cannot.
    """
    if hasattr(p, "_local_tensor"):
        raise ValueError(
            "state_dtype=torch.uint8 is not for parameters that are shared out over processes (a DTensor): their "
            "blocks would begin anew with every shard, and mean something else on another number of processes; "
            "use state_dtype=torch.bfloat16"
        )
    if p.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not has_kernels(p.device):
        raise ValueError(
            f"state_dtype=torch.uint8 is for parameters of float32, bfloat16 or float16 that kernels update; one has "
            f"dtype {p.dtype} on {p.device}; give it to another optimizer, without state_dtype"
        )
    if not p.is_contiguous():
        raise ValueError(
            f"state_dtype=torch.uint8 is for parameters whose elements are in order in memory; one of shape "
            f"{tuple(p.shape)} has strides {p.stride()}; make it so with p.data = p.data.contiguous()"
        )


def recoded(own: Mapping[str, Any], states: Iterable[str], codes: Mapping[str, str]) -> dict[str, Any]:
    """A parameter's state with those states as codes that are to be, and the others as numbers.

    Args:
        own: What there is.
        states: The names of the states.
        codes: Those to be kept as codes, and as which.

    Raises:
        TypeError: Codes or scales are not of their dtypes, or a state is not a floating-point tensor.
        ValueError: They are not of their shapes or values, or a state is negative that cannot be.
    """
    new = dict(own)
    for name in states:
        if name in codes and new.get(name) is not None and new.get(name + CODED) is None:
            new[name + CODED], new[name + SCALES] = encoded(name, new.pop(name), codes[name])
        elif name not in codes and new.get(name) is None and new.get(name + CODED) is not None:
            new[name] = decoded(*checked_pair(name, new.pop(name + CODED), new.pop(name + SCALES, None)))
    return new


def checked_pair(
    name: str, codes: Any, scales: Any, kind: str | None = None, shape: Any = None
) -> tuple[Tensor, Tensor]:
    """Codes and scales, made sure to belong together, and to a parameter of this shape.

    Raises:
        TypeError: They are not of their dtypes.
        ValueError: They are not of their shapes or values.
    """
    wanted = (torch.int8, torch.uint8) if kind is None else (getattr(torch, kind),)
    if not isinstance(codes, Tensor) or codes.dtype not in wanted:
        given = codes.dtype if isinstance(codes, Tensor) else f"{codes!r:.60}"
        raise TypeError(f"the state {name}{CODED} is {given}; expected a tensor of {' or '.join(map(str, wanted))}")
    if shape is not None and codes.shape != shape:
        raise ValueError(f"the state {name}{CODED} has shape {tuple(codes.shape)}, its parameter {tuple(shape)}")
    if not isinstance(scales, Tensor) or scales.dtype != torch.float32:
        given = scales.dtype if isinstance(scales, Tensor) else f"{scales!r:.60}"
        raise TypeError(f"the state {name}{SCALES} is {given}; expected a tensor of torch.float32")
    if scales.shape != (blocks(codes.numel()),):
        raise ValueError(
            f"the state {name}{SCALES} has shape {tuple(scales.shape)}; expected ({blocks(codes.numel())},), one for "
            f"each block of codes of shape {tuple(codes.shape)}"
        )
    return codes, scales


def encoded(name: str, values: Any, kind: str) -> tuple[Tensor, Tensor]:
    """Codes and scales of numbers, each the nearest.

    Raises:
        TypeError: They are not a floating-point tensor.
        ValueError: One is negative, and the code has no sign.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(f"the state {name} is {values!r:.60}; expected a floating-point tensor")
    numbers = values.detach().to("cpu", torch.float32).contiguous()
    if kind == "uint8" and bool((numbers < 0).any()):
        raise ValueError(
            f"the state {name} is {numbers.min().item():g} somewhere, which its formula shows it never is; load the "
            "state of a training with the same rule"
        )
    codes, scales = encode(numbers.numpy().reshape(-1), kind)
    return torch.from_numpy(codes).reshape(values.shape), torch.from_numpy(scales)


def decoded(codes: Tensor, scales: Tensor) -> Tensor:
    """The numbers that codes stand for, in single precision."""
    flat = codes.detach().cpu().contiguous().reshape(-1)
    return torch.from_numpy(decode(flat.numpy(), scales.detach().cpu().contiguous().numpy())).reshape(codes.shape)


def begun(p: Tensor, start: float, kind: str) -> tuple[Tensor, Tensor]:
    """Codes and scales of a state at its initial value."""
    codes, scales = encoded("", torch.tensor([start], device="cpu"), kind)
    return (
        torch.full_like(p.detach(), codes.item(), dtype=codes.dtype, memory_format=torch.contiguous_format),
        torch.full((blocks(p.numel()),), scales.item(), dtype=torch.float32, device=p.device),
    )
