"""Tensors that are updated without a kernel, their program computed operation by operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from downslope.backends.launch import Numbered
from downslope.backends.table import ALL, SOME
from downslope.backends.triton_kernel import scale_column
from downslope.targets.arrays import interpret
from downslope.torch.device import runs_behind
from downslope.torch.launch import Members, Storage, Together


class Interpreted:
    """Tensors where no kernel goes: on other devices, or of rules that multiply matrices; a `Launch` too."""

    dense, counted = False, True

    def __init__(self, together: Together, members: Members, storage: Storage, first: int):
        """Note the tensors; the arguments are those of `Compiled`."""
        self.program, self.device, self.mesh = together.program, together.device, together.mesh
        self.which, self.held, self._groups = members.which, members.held, members.groups
        self._settings: Sequence[Numbered] = ()
        self._pieces, self._scale = together.pieces, 1.0
        self._gradients: Sequence[Any] = ()
        self._looked_at_there = runs_behind(self.device) and together.storages[1] != "float64"
        self.scaled_there = runs_behind(self.device) and scale_column(self.program) >= 0

    def settle(self, settings: Sequence[Numbered], scale: float) -> None:
        """Take over the settings of all groups."""
        self._settings, self._scale = settings, scale

    def scale(self, factor: Any) -> None:
        """Set what gradients are multiplied by from now on."""
        self._scale = factor

    def leave_out(self, flag: Any) -> None:
        """The host counts, and knows whether it leaves a step out."""
        assert flag is None

    def take(self, gradients: Sequence[Any]) -> int:
        """Remember the gradients; 1 + the number of a slot that has no states yet."""
        for s, (gradient, tensors) in enumerate(zip(gradients, self.held, strict=True)):
            if gradient is None:
                continue
            if not tensors or gradient.layout is not torch.strided or gradient.shape != tensors[0].shape:
                return s + 1
            if gradient.device != self.device:
                return s + 1
        self._gradients = gradients
        return ALL

    def quick_step(self) -> Callable[..., int] | None:
        """There is none: operation by operation nothing is quick."""
        return None

    @torch.no_grad()
    def step(self, gradients: Sequence[Any], workers: int) -> int:
        """Update all weights and states."""
        code = self.take(gradients)
        if code != ALL:
            return code
        program, by = self.program, self._scale if isinstance(self._scale, torch.Tensor) else None
        names = ("x", *program.states)
        for group, gradient, tensors in zip(self._groups, self._gradients, self.held, strict=True):
            if gradient is None:
                continue
            clocks = dict(zip(("t", *program.scalar_states), tensors[len(names) :], strict=True))
            scalars = {**self._settings[group].numbers, "grad_scale": self._scale if by is None else 1.0}
            scalars |= {name: clock.item() + (name == "t") for name, clock in clocks.items()}
            scalars |= {name: scalars[name.removesuffix(" next")] for name in program.scalars if name.endswith(" next")}
            arrays = dict(zip(names, tensors, strict=False))
            real = {
                name: torch.view_as_real(a) if a.is_complex() else a for name, a in (*arrays.items(), ("dx", gradient))
            }
            body = torch.float64 if real["x"].dtype == torch.float64 else torch.float32
            for piece in self._pieces.over(real):
                arrays = {name: array.to(body) for name, array in piece.items()}
                if by is not None:
                    arrays["dx"] = arrays["dx"] * by
                new = interpret(program, arrays, scalars, torch)
                for name in names:
                    if name in new:
                        piece[name].copy_(new[name])
            clocks["t"] += 1
            for name in program.scalar_states:
                clocks[name].fill_(float(new[name]))
        return ALL if all(gradient is not None for gradient in gradients) else SOME

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of all gradients, a scale of 1, and how many of their elements are not finite."""
        present = [gradient for gradient in self._gradients if gradient is not None]
        norms = [torch.linalg.vector_norm(g, dtype=torch.float64 if not g.is_complex() else None) for g in present]
        bad = sum(int((~torch.isfinite(g)).sum()) for g in present)
        return math.hypot(*(float(norm) for norm in norms)), 1.0, bad

    def within(self, limit: float) -> Any:
        """That is worked out of `squares`."""
        return None

    def squares(self) -> Any:
        """The sum of squares of the gradients just taken, as a tensor; None where to ask for it is not to wait."""
        if not self._looked_at_there:
            return None
        found = torch.zeros((), dtype=torch.float64, device=self.device)
        for gradient in self._gradients:
            if gradient is not None:
                real = torch.view_as_real(gradient) if gradient.is_complex() else gradient
                found += torch.linalg.vector_norm(real, dtype=torch.float64).square()
        return found
