"""Parameter groups: what is trained alike, with its hyperparameters and scalar states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from downslope.language.program import Program
from downslope.language.ranges import Range, check_number
from downslope.training.settings import Schedule, Settings

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Clock:
    """How far a parameter has come.

    Attributes:
        t: The number of steps done.
        scalar_states: The scalar states.
    """

    t: int
    scalar_states: Mapping[str, float]


@dataclass
class Group:
    """Some arrays that one rule trains, and the hyperparameters they share.

    Attributes:
        settings: The rule with its options.
        names: The names of the arrays.
        hyperparameters: Numbers or schedules.
        scalar_states: The rule's scalar states for this group.
        placed_by: The hyperparameters by which stored points ahead were placed, where these have been others.
        complex_names: Those of the names whose arrays are complex.
        pieces: How its arrays are divided into matrices that the rule takes one by one, where they are: `sizes` and
            the `axis` along which they stand.
    """

    settings: Settings
    names: list[str]
    hyperparameters: Mapping[str, float | Schedule]
    scalar_states: Mapping[str, float] = field(default_factory=dict)
    placed_by: Mapping[str, float] = field(default_factory=dict)
    complex_names: Sequence[str] = ()
    pieces: Mapping[str, Any] = field(default_factory=dict)
    _plan: tuple[Program, list[float], list[tuple[int, str]]] | None = field(default=None, repr=False)

    def with_hyperparameters(self, hyperparameters: Mapping[str, float | Schedule]) -> Group:
        """This group with other hyperparameters, already checked."""
        return Group(self.settings, self.names, {**self.hyperparameters, **hyperparameters}, self.scalar_states)

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

    def ahead_scalars(self, clock: Clock) -> list[float]:
        """What points ahead depend on besides weights and states after so many steps; nothing without a look-ahead."""
        ahead = self.settings.ahead
        if ahead is None:
            return []
        group = Group(self.settings, [], {**self.hyperparameters, **self.placed_by}, clock.scalar_states)
        return group.scalars(ahead.to_point, clock.t + 1, 1.0)

    @property
    def scheduled(self) -> bool:
        """Whether a hyperparameter is a schedule."""
        return any(callable(value) for value in self.hyperparameters.values())


POLICIES = ("keep", "raise", "skip")
"""What to do when a gradient holds nan or infinity."""


class NonFiniteGradientError(ValueError):
    """A gradient holds nan or infinity, and the optimizer was told to raise; nothing was changed."""
