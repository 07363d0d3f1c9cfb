"""What changes from step to step of an optimizer besides states and settings."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from downslope.torch.launch import keep_while_recording, refuse_while_recording
from downslope.torch.layout import Layout
from downslope.torch.modules import Rhythm

Tensor = torch.Tensor


@dataclass
class Progress:
    """Where an optimizer is.

    It is only ever mutated: wrappers of an optimizer run its methods as their own, but cannot replace its attributes.

    Attributes:
        layouts: The layout of all parameters, under None, and of single ones that are updated by themselves.
        quick_step: The step where nothing is out of the ordinary; see `quick.quick_step`.
        away: The method inside which parameters hold something else, or which is at work.
        skipped: How many steps the host has left out.
        left_out: How many more a device has left out by itself, which only it knows, by device.
        rhythm: When `train()` was called.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    quick_step: Callable[[Any, Any], bool] | None = None
    layouts: dict[Tensor | None, Layout] = field(default_factory=dict)
    away: str = ""
    skipped: int = 0
    left_out: dict[torch.device, Tensor] = field(default_factory=dict)
    rhythm: Rhythm = field(default_factory=Rhythm)

    def all_skipped(self) -> int:
        """How many steps were left out; whoever asks waits for the devices."""
        return self.skipped + sum(int(count) for count in self.left_out.values())

    def begin_skipped(self, count: int) -> None:
        """Go on from so many steps that were left out."""
        self.skipped = count
        for there in self.left_out.values():
            there.zero_()

    def prepare(self, flag: Tensor | None) -> None:
        """Have a count of the steps that the device of a flag leaves out, before the first of them.

        Raises:
            RuntimeError: A graph is being recorded, in which there would be a new one at every run.
        """
        if flag is not None and flag.device not in self.left_out:
            refuse_while_recording([flag.device], capturable=True)
            with torch.inference_mode(False):
                self.left_out[flag.device] = torch.zeros((), dtype=torch.int64, device=flag.device)

    def note(self, flag: Tensor | None) -> None:
        """Count a step that a device leaves out if a number is not 0, there."""
        if flag is not None:
            count = self.left_out[flag.device]
            keep_while_recording(flag.device, count)
            count += flag.reshape(()) != 0

    def refuse(self, what: str) -> None:
        """Refuse to do something while parameters hold something else.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"{what}() inside {self.away}(): finish that first; nothing was changed")

    def refuse_elsewhere(self, what: str) -> None:
        """Refuse to do something while parameters hold what they do not in training; in a step they do.

        Raises:
            RuntimeError: They hold something else.
        """
        if self.away and self.away != "step":
            self.refuse(what)

    @contextlib.contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Do something that needs parameters to hold what they do in training, and nobody else to be at work.

        Args:
            what: The method that does it.

        Raises:
            RuntimeError: Parameters hold something else, or a step is in progress.
        """
        with self.lock:
            if self.away:
                self.refuse(what)
            yield

    @contextlib.contextmanager
    def moved(self, where: str, points: Mapping[Tensor, Tensor]) -> Iterator[None]:
        """Have other values in parameters for the length of a with block, then put back exactly what they held.

        Args:
            where: The method whose block this is.
            points: The values, by parameter.
        """
        with self.lock, torch.no_grad():
            if self.away:
                self.refuse(where)
            for p, values in points.items():
                if p.shape != values.shape:
                    raise ValueError(
                        f"a parameter of shape {tuple(p.shape)} cannot hold values of {tuple(values.shape)}"
                    )
            kept = {p: p.detach().clone() for p in points}
            self.away = where
        errors = []
        try:
            with torch.no_grad():
                for p, values in points.items():
                    p.copy_(values)
            yield
        finally:
            with self.lock, torch.no_grad():
                self.away = ""
                for p, values in kept.items():
                    try:
                        p.copy_(values)
                    except RuntimeError as error:  # resized meanwhile; the others are put back all the same
                        errors.append(error)
        if errors:
            raise errors[0]
