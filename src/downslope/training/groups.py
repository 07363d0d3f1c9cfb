"""Parameter groups: what is trained alike, with its hyperparameters and scalar states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from downslope.language.formula import Range, check_number
from downslope.language.program import Program

Array = np.ndarray[Any, Any]
Schedule = Callable[[int], float]
"""A hyperparameter that changes: called with the number of the step, from 1, it returns the value for that step."""


@dataclass
class Group:
    """Some arrays and the hyperparameters they share.

    Attributes:
        names: The names of the arrays.
        hyperparameters: Numbers or schedules.
        scalar_states: The rule's scalar states for this group.
    """

    names: list[str]
    hyperparameters: dict[str, float | Schedule]
    scalar_states: dict[str, float] = field(default_factory=dict)
    _plan: tuple[Program, list[float], list[tuple[int, str]]] | None = field(default=None, repr=False)

    def with_settings(self, hyperparameters: Mapping[str, float | Schedule]) -> Group:
        """This group with other hyperparameters, already checked."""
        return Group(self.names, {**self.hyperparameters, **hyperparameters}, self.scalar_states)

    def value(self, name: str, t: int, allowed: Range) -> float:
        """The hyperparameter at step `t`."""
        setting = self.hyperparameters[name]
        return check_number(f"{name}(t={t})", setting(t), allowed) if callable(setting) else setting

    def scalars(self, program: Program, t: int, grad_scale: float) -> list[float]:
        """The program's scalar inputs at step `t`, in its order."""
        if self._plan is None or self._plan[0] is not program:
            self._plan = self._planned(program)
        _, values, moving = self._plan
        for index, name in moving:
            if name == "t":
                values[index] = float(t)
            elif name == "grad_scale":
                values[index] = grad_scale
            elif name in self.scalar_states:
                values[index] = self.scalar_states[name]
            elif name in self.hyperparameters:
                values[index] = self.value(name, t, program.ranges[name])
            else:
                known = name.removesuffix(" next")
                values[index] = self.value(known, t + 1, program.ranges[known])
        return values

    def _planned(self, program: Program) -> tuple[Program, list[float], list[tuple[int, str]]]:
        """The program's scalar inputs, and which of them move from step to step."""
        values, moving = [], []
        for index, name in enumerate(program.scalars):
            setting = self.hyperparameters.get(name, self.hyperparameters.get(name.removesuffix(" next")))
            if setting is None or callable(setting):
                moving.append((index, name))
                setting = 0.0
            values.append(float(setting))
        return program, values, moving

    @property
    def scheduled(self) -> bool:
        """Whether a hyperparameter is a schedule."""
        return any(callable(value) for value in self.hyperparameters.values())


POLICIES = ("keep", "raise", "skip")
"""What to do when a gradient holds nan or infinity."""


class NonFiniteGradientError(ValueError):
    """A gradient holds nan or infinity, and the optimizer was told to raise; nothing was changed."""
