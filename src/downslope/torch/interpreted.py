"""Tensors that are updated without a kernel, their program computed operation by operation."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from downslope.backends.launch import Numbered
from downslope.backends.taking import ALL, SOME
from downslope.backends.triton_kernel import scale_column
from downslope.language.expression import Expression
from downslope.language.program import Program
from downslope.language.together import divided
from downslope.targets.arrays import interpret_body, interpret_scalars, with_sums
from downslope.targets.shapes import held_shape, matrix_shape
from downslope.torch.device import runs_behind
from downslope.torch.launch import Members, Storage, Together
from downslope.torch.sharing import Sharing
from downslope.torch.spans import overlap
from downslope.torch.tape import Processes, Shape, Tape, can_tape, tape_of

Tensor = torch.Tensor
Row = tuple[float, ...]
"""The number of a group, then the clocks of its tensors if a step goes by them."""

_STACKED = {"cpu": 2**17}
"""How many weights may stand in one stack, by the kind of device; larger tensors stay where they are."""
_STACKED_ELSEWHERE = 2**24
"""The same on devices where a call costs more beside its work: 64 MiB of single precision for each array."""


class Interpreted:
    """Tensors where no kernel goes: on other devices, or of rules that multiply matrices; a `Launch` too."""

    dense, counted = False, True

    def __init__(self, together: Together, members: Members, storage: Storage, first: int):
        """Note the tensors; the arguments are those of `Compiled`."""
        self.program, self.device, self.mesh = together.program, together.device, together.mesh
        self.which, self.held, self._groups = members.which, members.held, members.groups
        self._names, self._shared = ("x", *self.program.arrays[2:]), members.shared
        self._rest = divided(self.program).rest
        arrays = (tensor for tensors in self.held for tensor in tensors[: len(self._names)])
        self._apart = overlap(
            arrays
        )  # of a stack, whose tensors are read at once, only what the last writes would stay
        self._clocked = bool(self.program.scalar_states or self.program.over_all) or "t" in self.program.scalars
        self._settings: Sequence[Numbered] = ()
        self._pieces, self._scale = together.pieces, 1.0
        self._forget()
        self._gradients: Sequence[Any] = ()
        self._looked_at_there = runs_behind(self.device) and together.storages[1] != "float64"
        self.scaled_there = runs_behind(self.device) and scale_column(self.program) >= 0

    def settle(self, settings: Sequence[Numbered], scale: float) -> None:
        """Take over the settings of all groups."""
        self._settings, self._scale = settings, scale
        self._forget()

    def scale(self, factor: Any) -> None:
        """Set what gradients are multiplied by from now on."""
        if isinstance(factor, Tensor) or factor != self._scale:
            self._forget()
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
        present = [s for s, gradient in enumerate(gradients) if gradient is not None]
        rows = self._rows(present)
        alike: dict[tuple[Row, Shape, Sharing | None, torch.dtype], list[Mapping[str, Tensor]]] = {}
        for s in present:
            for piece in self._real(s):
                shared = self._shared[s]
                shape = tuple(piece["x"].shape) if shared is None else shared.shape
                alike.setdefault((rows[s], shape, shared, piece["x"].dtype), []).append(piece)
        for (row, shape, shared, _), pieces in alike.items():
            if 0 in shape:
                continue
            if can_tape(self._rest):
                self._update(row, shape, pieces, shared)
            else:
                self._one_by_one(row, pieces)
        count = len(self._names)
        if present:
            torch._foreach_add_([self.held[s][count] for s in present], 1)
        for s, row in rows.items():
            if self.program.over_all:  # if it has missed steps, its clock goes on as that of its group
                self.held[s][count].fill_(row[1] + 1)
            for name, clock in zip(self.program.scalar_states, self.held[s][count + 1 :], strict=True):
                clock.fill_(float(self._coefficients(row)[self._rest.scalar_outputs[name]]))
        if self._clocked:
            self._forget()
        return ALL if len(present) == len(gradients) else SOME

    def _row(self, s: int) -> Row:
        """What tells numbers of one slot from those of another: its group, and its clocks if they are asked for."""
        clocks = self.held[s][len(self._names) :] if self._clocked else ()
        return (self._groups[s], *(clock.item() for clock in clocks))

    def _rows(self, present: Sequence[int]) -> dict[int, Row]:
        """The rows of slots; those of a rule that sums up all tensors of a group have one, with the sums found.

        Step count and scalar states are then those of a slot of the group that has missed no step.
        """
        if not self.program.over_all:
            return {s: self._row(s) for s in present}
        rows: dict[int, Row] = {}
        for group in dict.fromkeys(self._groups[s] for s in present):
            begun = [s for s, own in enumerate(self._groups) if own == group and self.held[s]]
            row = max(map(self._row, begun), key=operator.itemgetter(1))
            own = [s for s in present if self._groups[s] == group]
            scalars = with_sums(self.program, functools.partial(self._working, own), self._scalars(row), torch)
            self._known[row] = interpret_scalars(self._rest, scalars)
            rows |= dict.fromkeys(own, row)
        return rows

    def _working(self, slots: Sequence[int]) -> Iterator[tuple[Program, Mapping[str, Tensor]]]:
        """Slots piece by piece in the precision of the step, for `with_sums`; not all of them are there at a time."""
        for s in slots:
            for piece in self._real(s):
                yield self.program, self._in_precision(piece)

    def _real(self, s: int) -> Iterator[Mapping[str, Tensor]]:
        """The tensors of a slot and its gradient, piece by piece, as real numbers that share their memory."""
        arrays = {"dx": self._gradients[s], **dict(zip(self._names, self.held[s], strict=False))}
        return self._pieces.over({n: torch.view_as_real(a) if a.is_complex() else a for n, a in arrays.items()})

    def _in_precision(self, piece: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors in the precision of the step, the gradient scaled."""
        arrays = {name: tensor.to(_body(piece["x"])) for name, tensor in piece.items()}
        if isinstance(self._scale, Tensor):
            arrays["dx"] = arrays["dx"] * self._scale
        return arrays

    def _scalars(self, row: Row) -> dict[str, Any]:
        """The numbers that a step is given."""
        program, clocks = self.program, dict(zip(("t", *self.program.scalar_states), row[1:], strict=False))
        by = 1.0 if isinstance(self._scale, Tensor) else self._scale
        scalars = {**self._settings[int(row[0])].numbers, "grad_scale": by}
        scalars |= {name: clock + (name == "t") for name, clock in clocks.items()}
        return scalars | {n: scalars[n.removesuffix(" next")] for n in program.scalars if n.endswith(" next")}

    def _coefficients(self, row: Row) -> Mapping[Expression, Any]:
        """What depends on no array."""
        if row not in self._known:
            self._known[row] = interpret_scalars(self._rest, self._scalars(row))
        return self._known[row]

    def _update(
        self, row: Row, shape: Shape, pieces: Sequence[Mapping[str, Tensor]], shared: Sharing | None = None
    ) -> None:
        """Update tensors of one shape and with the same numbers, stacked as far as they are small."""
        taken = self._taken(shape)
        tape = tape_of(self._rest, taken, shared is not None)
        if (row, tape) not in self._numbers:
            self._numbers[row, tape] = tape.numbers(self._coefficients(row))
        room = _STACKED.get(self.device.type, _STACKED_ELSEWHERE) if tape.stacked else 0
        together = 1 if self._apart else max(1, room // math.prod(taken))
        processes = None
        if shared is not None:
            local = tuple(pieces[0]["x"].shape)
            processes = Processes(shared, local, self._taken(local))
        shares = taken if processes is None else processes.held
        shapes = {name: taken if name in self.program.spaces else shares for name in pieces[0]}
        body = _body(pieces[0]["x"])
        for first in range(0, len(pieces), together):
            some = pieces[first : first + together]
            stacks = {n: self._stack(n, [piece[n] for piece in some], shapes[n], tape, body) for n in shapes}
            if isinstance(self._scale, Tensor):
                stacks["dx"] = stacks["dx"] * self._scale
            for name, new in tape.run(stacks, self._numbers[row, tape], processes).items():
                old = [piece[name] for piece in some]
                if not isinstance(new, Tensor):
                    new = torch.full_like(stacks[name], new)
                elif new.shape != stacks[name].shape:
                    new = new.expand(stacks[name].shape)
                if len(old) == 1:
                    old[0].copy_(new.reshape(old[0].shape))
                else:
                    torch._foreach_copy_(old, [*new.reshape(len(old), *old[0].shape).unbind()])

    def _one_by_one(self, row: Row, pieces: Sequence[Mapping[str, Tensor]]) -> None:
        """Update tensors by operations that no tape knows."""
        for piece in pieces:
            arrays = self._in_precision(piece)
            for name, new in interpret_body(self._rest, arrays, self._coefficients(row), torch).items():
                piece[name].copy_(new)

    def _taken(self, shape: Shape) -> Shape:
        """As what a tensor is taken."""
        return matrix_shape(self._rest, shape) or (1,)

    def _stack(self, name: str, tensors: Sequence[Tensor], shape: Shape, tape: Tape, body: torch.dtype) -> Tensor:
        """Tensors in the precision of the step, stacked if the tape wants them so."""
        given = [tensor.to(body) for tensor in tensors]
        if not tape.stacked:
            return given[0]
        shape = held_shape(self.program, name, shape)
        if len(given) == 1:
            return given[0].reshape(1, *shape)
        return torch.stack(given).reshape(len(given), *shape)

    def _forget(self) -> None:
        self._known: dict[Row, Mapping[Expression, Any]] = {}
        self._numbers: dict[tuple[Row, Tape], list[tuple[int, Any]]] = {}

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


def _body(tensor: Tensor) -> torch.dtype:
    """The precision in which a step is worked out."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
