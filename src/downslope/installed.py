"""Every target that is installed and computes steps: array libraries, and kernels for the processor and for a GPU."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from downslope.language.program import Program
from downslope.targets.arrays import interpret

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Target:
    """Something that computes a program.

    Attributes:
        name: For people.
        dtype: The precision of the body.
        step: `step(program, arrays, scalars)` gives the new weights and states.
        flush: Whether it may take denormal numbers for zero.
        coefficient_ulps: How far its coefficients may be off.
    """

    name: str
    dtype: Any
    step: Callable[[Program, Mapping[str, Array], Mapping[str, float]], Mapping[str, Array]]
    flush: bool = False
    coefficient_ulps: float = 0.5


def targets() -> Iterator[Target]:
    """Every target that is installed."""
    for dtype in (np.float32, np.float64):
        yield Target(f"numpy {dtype.__name__}", dtype, interpret)
        yield Target(f"cpu {dtype.__name__}", dtype, _compiled)
    if importlib.util.find_spec("jax"):
        yield Target("jax float32", np.float32, _jax, flush=True, coefficient_ulps=8)
    if importlib.util.find_spec("torch"):
        for dtype in (np.float32, np.float64):
            yield Target(f"torch {dtype.__name__}", dtype, _torch)
        yield from _gpus()


def _compiled(program: Program, arrays: Mapping[str, Array], scalars: Mapping[str, float]) -> Mapping[str, Array]:
    from downslope.backends.array_steps import ArrayStepper
    from downslope.backends.describe import of_arrays
    from downslope.backends.stepping import Stepper
    from downslope.backends.table import SlotTable
    from downslope.backends.taking import ALL
    from downslope.targets.passes import compiles

    copies = {name: arrays[name].copy() for name in program.arrays}
    compiled, states = not program.over_tensors or compiles(program), program.scalar_states
    narrow = program.narrow
    held = [array for name, array in copies.items() if name != "dx" and (compiled or name not in narrow)]
    table = SlotTable(
        of_arrays(),
        [held],
        [held[0].dtype.name] * (1 + len(held)),
        narrow=len(narrow) if compiled else 0,
        matrices=compiled and program.of_matrices,
        scalars=len(states),
    )
    apart = [[copies[name] for name in narrow]]
    stepper = Stepper(program, "nearest", table) if compiled else ArrayStepper(program, table, apart)
    stepper.group_rows([0], [[scalars.get("t", 1.0) - 1, *(scalars[name] for name in states)]])
    stepper.settle(0, [scalars[name] for name in program.scalars])
    assert stepper.step(copies["dx"], workers=1) == ALL
    return {name: copies[name] for name in program.outputs}


def _gpus() -> Iterator[Target]:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        from downslope.torch.device import has_kernels

        device = torch.device("cuda", torch.cuda.current_device())
        if has_kernels(device):
            for dtype in (np.float32, np.float64):
                yield Target(f"triton {dtype.__name__}", dtype, functools.partial(on_device, device), flush=True)


def on_device(
    device: Any, program: Program, arrays: Mapping[str, Array], scalars: Mapping[str, float]
) -> Mapping[str, Array]:
    """One step by the kernel that Triton makes for a device of PyTorch: the `step` of a `Target`.

    Args:
        device: A `torch.device`; the CPU only where Triton has been asked to interpret its kernels.
        program: What the step computes.
        arrays: As for `Target.step`.
        scalars: As for `Target.step`.
    """
    import torch

    from downslope.backends.stepping import Stepper
    from downslope.backends.table import SlotTable
    from downslope.backends.taking import ALL
    from downslope.torch.describe import describer
    from downslope.torch.device import DeviceMemory, described

    copies = {name: torch.from_numpy(arrays[name].copy()).to(device) for name in program.arrays}
    held = [tensor for name, tensor in copies.items() if name != "dx"]
    states = program.scalar_states
    storages = [arrays["x"].dtype.name] * len(copies)
    table = SlotTable(describer(device), [held], storages, scalars=len(states), device=described(device))
    stepper = Stepper(program, "nearest", table, DeviceMemory(device))
    stepper.group_rows([0], [[scalars.get("t", 1.0) - 1, *(scalars[name] for name in states)]])
    stepper.settle(0, [scalars[name] for name in program.scalars])
    assert stepper.step(copies["dx"], workers=1) == ALL
    return {name: copies[name].cpu().numpy() for name in program.outputs}


def _jax(program: Program, arrays: Mapping[str, Array], scalars: Mapping[str, float]) -> Mapping[str, Array]:
    moving = {name: v for name, v in scalars.items() if name in ("t", "lr") or name in program.scalar_states}
    fixed = tuple((name, value) for name, value in scalars.items() if name not in moving)
    return {name: np.asarray(array) for name, array in _jitted(program, fixed)(dict(arrays), moving).items()}


@functools.lru_cache(maxsize=1)  # all situations of one program come one after the other
def _jitted(program: Program, fixed: tuple[tuple[str, float], ...]) -> Callable[..., Mapping[str, Any]]:
    jax = importlib.import_module("jax")

    def step(traced: Mapping[str, Any], traced_scalars: Mapping[str, Any]) -> Mapping[str, Any]:
        new = interpret(program, traced, {**dict(fixed), **traced_scalars}, jax.numpy)
        return {name: new[name] for name in program.outputs}

    compiled: Callable[..., Mapping[str, Any]] = jax.jit(step)
    return compiled


def _torch(program: Program, arrays: Mapping[str, Array], scalars: Mapping[str, float]) -> Mapping[str, Array]:
    torch = importlib.import_module("torch")
    new = interpret(program, {name: torch.from_numpy(a.copy()) for name, a in arrays.items()}, scalars, torch)
    return {name: new[name].numpy() for name in program.outputs}
