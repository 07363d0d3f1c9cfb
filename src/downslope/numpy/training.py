"""The optimizer for NumPy arrays as a training that can be saved by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from downslope.numpy.parameters import check_writable
from downslope.training.checkpoint import Raw
from downslope.training.groups import Array, Clock, Group
from downslope.training.protocol import Kind, Loaded
from downslope.training.record import seed_of
from downslope.training.settings import Schedule


def points(
    groups: Sequence[Group],
    t: int,
    x: Mapping[str, Array],
    states: Mapping[str, Mapping[str, Array]],
    *,
    to_weights: bool,
) -> dict[str, Array]:
    """The points ahead of the weights for the step after `t`, or the weights from these points.

    Args:
        groups: The groups, of a rule with a look-ahead.
        t: The number of steps done.
        x: The weights, or the points ahead.
        states: The states, by their own name and that of the weights.
        to_weights: Which way to go.
    """
    found: dict[str, Array] = {}
    for group in groups:
        ahead = group.settings.ahead
        assert ahead is not None
        values = group.ahead_scalars(Clock(t, group.scalar_states))
        scalars = dict(zip(ahead.scalars, values, strict=True))
        for name in group.names:
            own = {state: by_name[name] for state, by_name in states.items()}
            found[name] = ahead.move(x[name], own, scalars, to_weights=to_weights)
    return found


@dataclass
class ArrayTraining:
    """Arrays and their states, with what an optimizer knows of them; see `training.protocol.Training`.

    Attributes:
        params: The arrays, by name; they hold the points ahead where the settings of their group say so.
        state: The states, by their own name and that of the weights; of those in eight bits the codes and the scales.
        seed: The seed of their random numbers; None where there are none.
    """

    params: Mapping[str, Array]
    state: Mapping[str, Mapping[str, Array]]
    groups: Sequence[Group]
    max_norm: float | None
    t: int
    skipped: int
    seed: int | None
    clocks = None

    @property
    def rounding(self) -> dict[str, Any] | None:  # noqa: D102
        return None if self.seed is None else {"seed": self.seed}

    def kinds(self, name: str) -> dict[str, Kind]:  # noqa: D102
        own = {"x": self.params[name], **{what: by_name[name] for what, by_name in self.state.items()}}
        return {what: (str(array.dtype), array.shape) for what, array in own.items()}

    def get(self, what: str, name: str) -> Raw:  # noqa: D102
        stored = self.groups[0].settings.stored_ahead
        held = self.params if what == "lookahead" else self._weights if stored and what == "x" else None
        return Raw.of((held or {"x": self.params, **self.state}[what])[name])

    @functools.cached_property
    def _weights(self) -> dict[str, Array]:
        return points(self.groups, self.t, self.params, self.state, to_weights=True)

    def adopt(  # noqa: D102
        self, given: Sequence[Mapping[str, float]], max_norm: float | None
    ) -> list[dict[str, float | Schedule]]:
        adopted = []
        for group, numbers in zip(self.groups, given, strict=True):
            schedules = {name: value for name, value in group.hyperparameters.items() if callable(value)}
            adopted.append({**group.hyperparameters, **numbers, **schedules})
        return adopted

    def put(self, loaded: Loaded) -> None:  # noqa: D102
        if self.seed is not None and "seed" in loaded.record:
            seed_of(loaded.record)
        for name, array in self.params.items():
            check_writable(f"the parameter {name!r}", array)
            for state, by_name in self.state.items():
                check_writable(f"the state {state} of {name!r}", by_name[name])
        tensors = loaded.tensors
        for name, array in self.params.items():
            array[...] = tensors.get(("lookahead", name), tensors["x", name]).array()
            for state, by_name in self.state.items():
                by_name[name][...] = tensors[state, name].array()
