"""Tensors that are updated in one launch, whatever groups and step counts they have, and the launch by a kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from downslope.backends.launch import Launch, Numbered
from downslope.backends.stepping import Stepper
from downslope.backends.table import SlotTable
from downslope.backends.taking import OTHER_CLOCKS
from downslope.backends.triton_kernel import scale_column
from downslope.language.program import Program
from downslope.targets.codes import CODES
from downslope.torch.describe import describer
from downslope.torch.device import UNKNOWN, UNPREPARED, UNREPEATABLE, DeviceMemory, described, memory_of
from downslope.torch.pieces import WHOLE, Pieces

STORAGES = {
    torch.float64: ("float64", False),
    torch.float32: ("float32", False),
    torch.bfloat16: ("bfloat16", False),
    torch.float16: ("float16", False),
    torch.complex128: ("float64", True),
    torch.complex64: ("float32", True),
    torch.complex32: ("float16", True),
}
"""What each dtype is stored as, and whether it is complex."""

CODED = {torch.int8: "int8", torch.uint8: "uint8"}
"""The dtypes of states that are kept as codes, and what they are stored as."""


@dataclass(frozen=True)
class Storage:
    """How an optimizer keeps what it keeps.

    Attributes:
        state_dtype: The dtype of states; None for that of their weights, uint8 for codes where eight bits do.
        rounding: How new weights are rounded.
        seed: The seed of stochastic rounding, and of that to codes.
    """

    state_dtype: torch.dtype | None = None
    rounding: str = "nearest"
    seed: int = 0


class Kind(Protocol):
    """A class of launches, which are all made alike: `Compiled`, `interpreted.Interpreted`."""

    @property
    def dense(self) -> bool:
        """Whether weights must be dense tensors."""

    def __call__(self, together: Together, members: Members, storage: Storage, first: int) -> Launch:
        """Lay out tensors; the arguments are those of `Compiled`."""


@dataclass(frozen=True)
class Together:
    """What tensors of one launch have in common.

    Attributes:
        kind: The class of the launch that updates them.
        device: Where they are.
        program: What is computed.
        storages: What weights, gradients and states are stored as.
        pairs: Whether they are complex.
        mesh: The process groups over which they are shared out.
        counted: Whether the host counts their steps, rather than the device, as when a graph records them.
        pieces: How they are divided into matrices, for a program over whole tensors.
    """

    kind: Kind
    device: torch.device
    program: Program
    storages: tuple[str, ...]
    pairs: bool
    mesh: tuple[Any, ...]
    counted: bool
    pieces: Pieces = WHOLE


@dataclass(frozen=True)
class Members:
    """The tensors of a launch, slot by slot.

    Attributes:
        which: The number of each slot's tensor among those that are laid out.
        groups: The number of its group.
        held: Its tensors; see `backends.launch.Launch`.
        shared: How its tensor is shared out over processes, if a rule over whole tensors has to know; or None.
    """

    which: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    held: list[list[Any]] = field(default_factory=list)
    shared: list[Any] = field(default_factory=list)


class Compiled:
    """Tensors that a compiled kernel updates, with their table: a `backends.launch.Launch`."""

    dense = True

    def __init__(self, together: Together, members: Members, storage: Storage, first: int):
        """Lay out the table.

        Args:
            together: What the tensors have in common.
            members: The tensors.
            storage: How states are kept.
            first: The number of the first tensor that is laid out among all of the optimizer's.
        """
        program, storages = together.program, together.storages
        self.program, self.mesh, self.which, self.held = program, together.mesh, members.which, members.held
        self.device, self._groups = together.device, members.groups
        self._names = [name.removesuffix(" next") for name in program.scalars]  # at the next step they are as now
        scales = ["float32" for stored in storages if stored in CODES]
        kept = [*storages, *([storages[0]] if storage.rounding == "compensated" else []), *scales]
        self._table = SlotTable(
            describer(together.device),
            members.held,
            kept,
            pairs=together.pairs,
            scales=len(scales),
            narrow=len(program.narrow),
            matrices=program.of_matrices,
            scalars=len(program.scalar_states),
            own_clocks=True,
            numbers=[first + i for i in members.which],
            seed=storage.seed,
            device=described(together.device),
            counted=together.counted,
        )
        self._memory = memory_of(together.device)
        self.counted, self.scaled_there = together.counted, self._memory is not None and scale_column(program) >= 0
        self._stepper = _stepper(program, storage.rounding, self._table, self._memory)
        self._regroup()

    def _regroup(self) -> None:
        """Give slots of one group with equal clocks one row, reading the clocks afresh.

        Where the device counts, nobody else knows which are equal.
        """
        counts = 1 + len(self.program.scalar_states)
        if not self._table.counted:
            self._row_groups = self._groups
            self._stepper.group_rows(range(len(self.held)), [[0.0] * counts] * len(self.held))
            return
        rows: dict[tuple[float, ...], int] = {}
        numbers = []
        for group, tensors in zip(self._groups, self.held, strict=True):
            clock = [clock.item() for clock in tensors[-counts:]] or [0.0] * counts
            numbers.append(rows.setdefault((group, *clock), len(rows)))
        self._row_groups = [int(key[0]) for key in rows]
        self._stepper.group_rows(numbers, [key[1:] for key in rows])

    def settle(self, settings: Sequence[Numbered], scale: float) -> None:
        """Take over the settings of all groups."""
        self._settings, self._scale = settings, scale
        for row, group in enumerate(self._row_groups):
            numbers = settings[group].numbers
            # Clocks and `grad_scale` are no settings; the stepper has them from elsewhere.
            self._stepper.settle(row, [numbers.get(name, 0.0) for name in self._names])
        self._stepper.scale(scale)
        if not self._table.counted:
            self._stepper.follow([*self._followed()])

    def _followed(self) -> Iterator[tuple[slice, int, torch.Tensor]]:
        """The hyperparameters that are read where the device has them: rows of their group, column, tensor."""
        for group, rows in itertools.groupby(range(len(self._groups)), self._groups.__getitem__):
            first, *more = rows
            for column, name in enumerate(self._names):
                if name in self._settings[group].tensors:
                    yield slice(first, first + 1 + len(more)), column, self._settings[group].tensors[name]

    def scale(self, factor: Any) -> None:
        """Set what gradients are multiplied by from now on."""
        if isinstance(factor, torch.Tensor):
            self._scale = math.nan
            self._stepper.scale(factor)
        elif factor != self._scale:
            self._scale = factor
            self._stepper.scale(factor)

    def leave_out(self, flag: Any) -> None:
        """Leave the next step out if a number on the device is not 0."""
        if flag is not None:
            self._stepper.leave_out(flag)

    def take(self, gradients: Sequence[Any]) -> int:
        """Look whether all tensors are as they should be; see `backends.taking.take`."""
        return self._mended(self._table.take(*gradients))

    def step(self, gradients: Sequence[Any], workers: int) -> int:
        """Update all weights and states, unless something is not as it should be; see `backends.taking.take`."""
        return self._mended(self._stepper.step(*gradients, workers=workers))

    def quick_step(self) -> Callable[..., int] | None:
        """A function that does `step` on one thread, given the gradients one by one; None for large launches."""
        return self._stepper.quick_step()

    def _mended(self, code: int) -> int:
        if code == OTHER_CLOCKS:
            self._regroup()
            self.settle(self._settings, self._scale)
        return code

    def survey(self, workers: int) -> tuple[float, float, int]:
        """The norm of all gradients whose addresses have just been taken: see `backends.survey`.

        Raises:
            RuntimeError: A graph is being recorded, which the host cannot wait for.
        """
        if self._memory is not None and self._memory.recording():
            raise RuntimeError(UNKNOWN)
        return self._stepper.survey(workers)

    def squares(self) -> Any:
        """The sum of squares of the gradients just taken, on their device: see `stepping.Place`."""
        return self._stepper.squares()

    def within(self, limit: float) -> Any:
        """What keeps their norm within a limit, on their device: see `stepping.Place`."""
        return self._stepper.within(limit)


def refuse_while_recording(devices: Iterable[torch.device], capturable: bool) -> None:
    """Refuse to prepare memory of devices while a graph is recorded there.

    Args:
        devices: The devices.
        capturable: Whether it could be recorded if it were prepared.

    Raises:
        RuntimeError: One is.
    """
    for device in devices:
        memory = memory_of(device)
        if memory is not None and memory.recording():
            raise RuntimeError(UNPREPARED if capturable else UNREPEATABLE)


def keep_while_recording(device: torch.device, *things: Any) -> None:
    """Never let go of what a graph refers to, if one is being recorded."""
    memory = memory_of(device)
    if memory is not None and memory.recording():
        memory.keep(*things)


class NoKernelError(RuntimeError):
    """A device does not take a kernel."""


def _stepper(program: Program, rounding: str, table: SlotTable, memory: DeviceMemory | None) -> Stepper:
    """What updates the tensors of a table, compiled.

    Raises:
        NoKernelError: It cannot be compiled for the device, or be launched there.
    """
    if memory is None:
        return Stepper(program, rounding, table)
    try:
        return Stepper(program, rounding, table, memory)
    except (torch.OutOfMemoryError, ValueError):
        raise
    except Exception as error:  # of Triton, its compiler, the driver
        where = "; Triton keeps what it compiles in TRITON_CACHE_DIR" if isinstance(error, OSError) else ""
        raise NoKernelError(f"{type(error).__name__}: {error!s:.300}{where}") from error
