"""Devices whose tensors a kernel can update, and their memory."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from downslope.backends.describe import CPU
from downslope.backends.triton import LEAST, interpreted
from downslope.torch.settings import outside

AHEAD = 4
"""How many steps the host may be ahead of the device before it waits: each has a page of its own."""

SENDS = 2
"""How often a recorded step may send a page: before a look at all gradients, and before the update."""

GPU = 10 if torch.version.hip else 2
"""The number of these devices in descriptions: PyTorch calls AMD's "cuda" too, but DLPack has a number for each."""


def described(device: torch.device) -> int:
    """A device as a description says it; see `backends.describe`."""
    return CPU if device.type == "cpu" else GPU | (device.index or 0) << 32


def has_addresses(device: torch.device) -> bool:
    """Whether tensors of a device have addresses in memory that kernels could be given."""
    return device.type in ("cpu", "cuda")


def runs_behind(device: torch.device) -> bool:
    """Whether a device does what it is given to do later, so that to ask it for a number is to wait."""
    return device.type == "cuda"


def memory_of(device: torch.device) -> DeviceMemory | None:
    """The memory of a device; None for that of the host."""
    return None if device.type == "cpu" else DeviceMemory(device)


UNREPEATABLE = (
    "a step cannot be part of a CUDA graph, which would repeat the step of this count for ever: the count and what "
    "depends on it are worked out on the host; make the optimizer with capturable=True, or call step() outside of "
    "torch.cuda.graph"
)
UNPREPARED = (
    "a CUDA graph cannot record a step that has memory to prepare; take a step with the same parameters and settings "
    "before torch.cuda.graph, and one between two graphs"
)
UNKNOWN = (
    "a CUDA graph cannot record a step in which the host looks at the gradients: with nonfinite='raise', or with "
    "max_norm or nonfinite='skip' where they are float64 or on several devices. Leave it out, or call step() outside "
    "of torch.cuda.graph"
)


class DeviceMemory:
    """The memory of a device: a `backends.sending.Memory`."""

    def __init__(self, device: torch.device):
        self._device = device

    def hold(self, words: np.ndarray[Any, Any]) -> torch.Tensor:
        """A tensor with these integers of 64 bits."""
        with torch.inference_mode(False):  # what a first step makes in that mode could not be written to outside of it
            return torch.from_numpy(words.astype(np.int64)).to(self._device)

    def address(self, words: torch.Tensor) -> int:
        """Where such a tensor is."""
        return words.data_ptr()

    def page(self, count: int, *, repeated: bool = False) -> Page:
        """So many words, all of them 0; how they are sent can be recorded if it may be `repeated`."""
        with torch.inference_mode(False):
            return Page(self, self._device, count, SENDS if repeated else 0)

    def recording(self) -> bool:
        """Whether a graph records what the device is given."""
        return self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def keep(self, *things: Any) -> None:
        """Never let go of these."""
        _recorded.append(things)

    def floats(self, words: torch.Tensor, dtype: str, count: int) -> torch.Tensor:
        """The beginning of a tensor of words as so many numbers of this dtype."""
        with torch.inference_mode(False):
            numbers: torch.Tensor = words.view(getattr(torch, dtype))[:count]
        return numbers

    def here(self) -> AbstractContextManager[Any]:
        """Inside this block kernels are launched, and pages sent, on this device."""
        return contextlib.nullcontext() if self._device.type == "cpu" else torch.cuda.device(self._device)


_recorded: list[Any] = []
"""What graphs refer to."""


class Page:
    """Words of the host and their copy on a device: a `backends.sending.Page`.

    What is sent is put into pinned memory first, from which a device takes it when its turn comes: into one of several
    pieces in turn, each of which is written to again when an event says that it has been taken. A graph takes what it
    sends whenever it is run, so it gets a piece of its own, and nobody writes to it again. No memory can be pinned
    while a graph is recorded; so pieces are laid aside before.
    """

    def __init__(self, memory: DeviceMemory, device: torch.device, count: int, aside: int = 0):
        """Allocate.

        Args:
            memory: The device's.
            device: The device.
            count: How many words there are.
            aside: How often they may be sent while a graph is recorded.
        """
        self.words = np.zeros(count, np.int64)
        self.copy = torch.zeros(count, dtype=torch.int64, device=device)
        self._memory, self._device, self._turn, self._wanted = memory, device, 0, aside
        self._text, self._aside = torch.from_numpy(self.words), [self._piece() for _ in range(aside)]
        if device.type != "cpu":
            self._pieces = [self._piece() for _ in range(AHEAD)]
            self._texts = [piece.numpy() for piece in self._pieces]
            event: Any = torch.cuda.Event
            self._taken = [event() for _ in range(AHEAD)]

    def _piece(self) -> torch.Tensor:
        pinned = self._device.type != "cpu"
        return torch.empty(len(self.words), dtype=torch.int64, device="cpu", pin_memory=pinned)

    def send(self) -> None:
        """Bring the copy up to date, now or whenever the graph is run that is being recorded.

        Raises:
            RuntimeError: It cannot be recorded.
        """
        if self._memory.recording():
            if not self._aside:
                raise RuntimeError(UNPREPARED if self._wanted else UNREPEATABLE)
            piece = self._aside.pop()
            piece.numpy()[:] = self.words
            self.copy.copy_(piece, non_blocking=True)
            self._memory.keep(piece, self.copy)
            return
        if len(self._aside) < self._wanted:
            with torch.inference_mode(False):
                self._aside += [self._piece() for _ in range(self._wanted - len(self._aside))]
        if self._device.type == "cpu":
            self.copy.copy_(self._text)
            return
        self._turn = k = (self._turn + 1) % AHEAD
        self._taken[k].synchronize()  # returns at once where nothing has been recorded
        self._texts[k][:] = self.words
        self.copy.copy_(self._pieces[k], non_blocking=True)
        self._taken[k].record()


@functools.cache
def _without() -> str:
    """Why there are no kernels for any GPU; nothing if there are."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    import triton

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < LEAST:
        return f"Triton {triton.__version__} is too old; version {'.'.join(map(str, LEAST))} or later is needed"
    return ""


_refused: dict[torch.device, str] = {}


def has_kernels(device: torch.device) -> bool:
    """Whether kernels update the tensors of a device; where a GPU has none, a warning says why, once."""
    if device.type == "cpu":
        return True
    if device.type != "cuda" or device in _refused:
        return False
    problem = _without()
    if not problem and interpreted():
        problem = "Triton has been asked to interpret kernels (TRITON_INTERPRET), and cannot reach its memory then"
    if problem:
        refuse(device, problem)
    return device not in _refused


def refuse(device: torch.device, problem: str) -> None:
    """Have no kernels for a device from now on, and say so."""
    _refused[device] = problem
    warnings.warn(
        f"there are no kernels for parameters on {device}: {problem}. Their formula is computed operation by "
        "operation, which takes several times as long",
        RuntimeWarning,
        stacklevel=outside(),
    )
