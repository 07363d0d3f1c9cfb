"""What an optimizer remembers of each parameter: how it begins, and what it must look like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from downslope.backends.cpu import COMPENSATION, HALVES
from downslope.targets.codes import CODED, SCALES, blocks
from downslope.torch import codes as coding
from downslope.torch.codes import coded
from downslope.torch.device import has_addresses, has_kernels
from downslope.torch.launch import Storage
from downslope.torch.settings import Group, GroupSettings
from downslope.torch.tensors import is_backed, is_dense, is_distributed, is_wrapper, local, readable_dtypes, same_order

Tensor = torch.Tensor


def complete_state(
    p: Tensor, own: dict[str, Any], settings: GroupSettings, storage: Storage
) -> tuple[dict[str, Any], list[str]]:
    """A parameter's state with everything in it that its program needs, in the order of its memory.

    Args:
        p: The tensor that is trained.
        own: What there is of its state; left as it is.
        settings: The settings of its group.
        storage: How to keep states.

    Returns:
        The state, new tensors in the place of those that are missing or do not fit, and the names of the arrays in it.

    Raises:
        ValueError: A state has another shape than the parameter, or cannot be kept as it is to be.
        TypeError: A state is not a floating-point tensor, or codes or scales are not of their dtypes.
    """
    program = settings.program
    kinds = coded(settings, storage)
    names = list(kept(p, settings, storage))
    new = coding.recoded(own, program.states, kinds)
    remembered = [name for name in settings.rule.states if name in program.states]
    if remembered and not any(new.get(name + end) is not None for name in remembered for end in ("", CODED)):
        new["step"] = 0.0  # as when SGD is given a momentum on the way: for the rule this is the beginning
    _refuse_exchanged(new, remembered, settings)
    counted_on = p.device if settings.capturable else torch.device("cpu")
    if not _is_clock(new.get("step"), torch.float32, counted_on):
        done = torch.tensor(float(new.pop("step", 0.0)), dtype=torch.float32, device=counted_on)
        new = {"step": done, **new}
    for name, start in program.scalar_states.items():
        if not _is_clock(new.get(name), torch.float64, counted_on):
            value = new.get(name)
            number = start if value is None else float(value)
            new[name] = torch.tensor(number, dtype=torch.float64, device=counted_on)
    for name, kind in kinds.items():
        new[name + CODED], new[name + SCALES] = _pair(p, name, kind, new, settings)
    for name in names:
        if name.endswith((CODED, SCALES)):
            continue
        value = new.get(name)
        if value is None:
            new[name] = _begun(p, name, settings, storage)
            continue
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            raise TypeError(f"the state {name} is {value!r:.60}; expected a floating-point tensor")
        shape = state_shape(p, name, settings)
        if value.shape != shape:
            wanted = ""
            if name in program.spaces:
                wanted = f" and needs {tuple(shape)}: it is {program.spaces[name]} in {program.name}"
            raise ValueError(
                f"the state {name} has shape {tuple(value.shape)}, its parameter {tuple(p.shape)}{wanted}; load the "
                "state of the same rule and a model of the same shape, or delete this parameter's entry of "
                "optimizer.state"
            )
        if has_addresses(value.device) and value.layout is torch.strided and not is_backed(local(value)):
            raise ValueError(f"the memory of the state {name}, of shape {tuple(value.shape)}, has been released")
        fits = value.dtype in readable_dtypes(p) and value.device == p.device and value.layout is torch.strided
        fits = fits and not value.is_conj() and not value.is_neg()
        narrow = shape != p.shape
        ordered = value.is_contiguous() if narrow else is_distributed(p) or same_order(value, p)
        if not fits or not ordered or not is_dense(local(value)):
            dtype = value.dtype if value.dtype in readable_dtypes(p) else p.dtype
            like = p.new_empty(shape, dtype=dtype) if narrow else torch.empty_like(p.detach(), dtype=dtype)
            new[name] = like.copy_(value.detach())
    return new, names


def _refuse_exchanged(own: Mapping[str, Any], remembered: Sequence[str], settings: GroupSettings) -> None:
    """Refuse a choice that was changed in training where another state would have to take the place of one.

    The new one would begin at its initial value, and the rule would take it for what it is after so many steps.

    Raises:
        ValueError: It was.
    """
    rule = settings.rule
    missing = [name for name in remembered if own.get(name) is None and own.get(name + CODED) is None]
    idle = [name for name in rule.states if name not in remembered and own.get(name) is not None]
    if missing and idle and (t := float(own.get("step", 0.0))) > 0:
        raise ValueError(
            f"{rule.name} needs the state {missing[0]}, and a parameter that has done {t:.0f} step(s) has {idle[0]} "
            f"instead: {' or '.join(rule.flags)} was changed in training. Set it back, or delete this parameter's "
            "entry of optimizer.state to begin anew"
        )


def _is_clock(value: Any, dtype: torch.dtype, device: torch.device) -> bool:
    return isinstance(value, Tensor) and value.dtype == dtype and value.dim() == 0 and value.device == device


def _pair(p: Tensor, name: str, kind: str, own: Mapping[str, Any], settings: GroupSettings) -> tuple[Tensor, Tensor]:
    """Codes and scales of a state: those that there are if they fit, in the order of their parameter's memory."""
    codes, scales = own.get(name + CODED), own.get(name + SCALES)
    if codes is None and scales is None:
        start = settings.program.initial(name, settings.numbers)
        assert start is not None
        return coding.begun(p, start, kind)
    pair = coding.checked_pair(name, codes, scales, kind, p.shape)
    for end, tensor in zip((CODED, SCALES), pair, strict=True):
        if has_addresses(tensor.device) and not is_backed(tensor):
            raise ValueError(f"the memory of the state {name}{end}, of shape {tuple(tensor.shape)}, has been released")
    return _ordered(pair[0], p.device), _ordered(pair[1], p.device)


def _ordered(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor itself if its elements are in order in the memory of this device, else one like it."""
    fits = tensor.device == device and tensor.is_contiguous()
    return tensor if fits else tensor.detach().to(device).contiguous()


def kept(p: Tensor, settings: GroupSettings, storage: Storage) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """The tensors that a parameter's state has besides its clocks, in the order of a launch: dtypes and shapes."""
    codes, shape = coded(settings, storage), tuple(p.shape)
    found: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name in settings.program.arrays[2:]:
        if name in codes:
            found[name + CODED] = getattr(torch, codes[name]), shape
        else:
            found[name] = state_dtype(p, name, settings, storage), tuple(state_shape(p, name, settings))
    if storage.rounding == "compensated":
        found[COMPENSATION] = p.dtype, shape
    return found | {name + SCALES: (torch.float32, (blocks(p.numel()),)) for name in codes}


def state_dtype(p: Tensor, name: str, settings: GroupSettings, storage: Storage) -> torch.dtype:
    """The dtype of a new state.

    A moving average of halves is kept in single precision, where it can move, and so is what is one for each row or
    column, which takes next to no memory.
    """
    if name == COMPENSATION:
        return p.dtype
    if name == "average" or name in settings.program.spaces:
        return {torch.bfloat16: torch.float32, torch.float16: torch.float32}.get(p.dtype, p.dtype)
    wanted = storage.state_dtype or p.dtype
    if wanted is torch.uint8:  # one that must be exact
        return p.dtype
    if p.is_complex():
        return {torch.float16: torch.complex32, torch.float32: torch.complex64}.get(wanted, p.dtype)
    return wanted


def state_shape(p: Tensor, name: str, settings: GroupSettings) -> torch.Size:
    """The shape of a state: that of its parameter or, if it is one for each row or column, of these."""
    return torch.Size(settings.pieces.held_shape(settings.program, name, tuple(p.shape)))


def _begun(p: Tensor, name: str, settings: GroupSettings, storage: Storage) -> Tensor:
    """A state at its initial value."""
    start = 0.0 if name == COMPENSATION else settings.program.initial(name, settings.numbers)
    if name in settings.program.spaces:
        assert start is not None
        return p.new_full(state_shape(p, name, settings), start, dtype=state_dtype(p, name, settings, storage))
    dtype = state_dtype(p, name, settings, storage)
    new = torch.empty_like(p.detach(), dtype=dtype, memory_format=torch.preserve_format)
    if start is None:
        return new.copy_(p.detach())
    return new.fill_(complex(start, start) if p.is_complex() else start)


def check_storage(storage: Storage, params: Iterable[Tensor]) -> None:
    """Make sure that parameters can be kept in this way.

    Raises:
        ValueError: They cannot.
    """
    for p in params:
        if storage.rounding != "nearest" and (p.dtype != torch.bfloat16 or not has_kernels(p.device)):
            raise ValueError(
                f"rounding={storage.rounding!r} is for bfloat16 parameters that kernels update; one on {p.device} has "
                f"dtype {p.dtype}; give it to another optimizer, without rounding, or convert it with .bfloat16()"
            )
        if storage.state_dtype is torch.uint8:
            coding.check_coded_parameter(p)
            if is_wrapper(p):
                raise ValueError(
                    f"state_dtype=torch.uint8 is not for parameters of type {type(p).__name__}, which have no memory "
                    "of their own; give them to another optimizer, without state_dtype"
                )
        elif storage.state_dtype is not None and storage.state_dtype != p.dtype:
            halves = (torch.float32, *(getattr(torch, name) for name in HALVES))
            if p.dtype not in (*halves, torch.complex64) or storage.state_dtype not in halves:
                raise ValueError(
                    f"state_dtype={storage.state_dtype} does not go with a parameter of dtype {p.dtype}; states may be "
                    "float32, bfloat16, float16 or, in eight bits, uint8 for parameters of the first three dtypes"
                )


def check_members(group: Group, storage: Storage) -> None:
    """Make sure that the parameters of a group are different ones, and can be kept in this way.

    Raises:
        ValueError: One stands there twice, or cannot be kept so.
    """
    entries = group["params"] if isinstance(group["params"], list) else [group["params"]]
    tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in entries]
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        raise ValueError("a parameter stands twice in one group; it would be updated twice in a step")
    if all(isinstance(tensor, Tensor) for tensor in tensors):
        check_storage(storage, [tensor for tensor in tensors if tensor.requires_grad])
