"""How the learning rate changes in a run: a factor that follows from the share of the training that is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Factor = Callable[[float], float]
"""The factor of the learning rate, given how much of the training is done: 0 before the first step, below 1."""

RISE = 0.3  # the share of one-cycle in which it rises
START, END = 25.0, 25e4  # by how much one-cycle is lower at its start and at its end


def _one_cycle(done: float) -> float:
    first, last, share = (1 / START, 1.0, done / RISE) if done <= RISE else (1.0, 1 / END, (done - RISE) / (1 - RISE))
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, Factor] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2,
    "one-cycle": _one_cycle,
}
"""Linear and cosine fall from 1 to 0. One-cycle rises from 1/25 to 1 in the first 30 % and falls to 1/250,000, both as
a cosine does (Smith and Topin, 2018, with the numbers of PyTorch's `OneCycleLR`)."""


@dataclass(frozen=True)
class Schedule:
    """A schedule of the learning rate.

    Attributes:
        name: What it is called.
        factor: The factor, given the share of the training that is done.
    """

    name: str
    factor: Factor

    @classmethod
    def of(cls, given: str | Factor) -> Schedule:
        """A schedule by its name, or a function of the share that is done.

        Raises:
            ValueError: There is none of this name, or the function gives something else than factors.

        Example:
            >>> Schedule.of("cosine").table(4).round(3).tolist()
            [1.0, 0.854, 0.5, 0.146]
        """
        if isinstance(given, Schedule):
            return given
        if isinstance(given, str) and given in SCHEDULES:
            return cls(given, SCHEDULES[given])
        if not callable(given):
            raise ValueError(
                f"schedule={given!r}: choose {', '.join(SCHEDULES)}, or give a function of the share of the training "
                "that is done, from 0 to 1"
            )
        name = getattr(given, "__name__", type(given).__name__)
        made = cls(f"{name} (yours)" if name in SCHEDULES else name, given)
        made.table(8)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """One of ours is sent by its name: it is the same there."""
        if self.factor is SCHEDULES.get(self.name):
            return _named, (self.name,)
        return Schedule, (self.name, self.factor)

    @property
    def constant(self) -> bool:
        """Whether the learning rate stays as it is."""
        return self.name == "constant" and self.factor is SCHEDULES["constant"]

    def table(self, steps: int) -> NDArray[np.float64]:
        """The factor of every step of a training.

        Args:
            steps: How many there are.

        Raises:
            ValueError: The function raises an exception, or gives something else than finite numbers of at least 0, or
                nothing but 0.
        """
        found = [self._at(step / steps) for step in range(steps)]
        try:
            factors = np.array([float(value) for value in found])
        except (TypeError, ValueError):
            raise ValueError(f"schedule: {self.name}(0.0) gives {found[0]!r}; return a number") from None
        if not (np.isfinite(factors).all() and (factors >= 0).all() and factors.any()):
            place = int(np.argmin(np.where(np.isfinite(factors), factors, -np.inf)))
            raise ValueError(
                f"schedule: {self.name}({place / steps:g}) gives {factors[place]:g}; return a factor of the learning "
                "rate that is finite and at least 0, and not always 0"
            )
        return factors

    def _at(self, done: float) -> float:
        try:
            return self.factor(done)
        except Exception as error:
            raise ValueError(
                f"schedule: {self.name}({done:g}) raises {type(error).__name__}: {error}; it is called with the share "
                "of the training that is done, from 0 to less than 1"
            ) from error


CONSTANT = Schedule.of("constant")


def _named(name: str) -> Schedule:
    return Schedule.of(name)
