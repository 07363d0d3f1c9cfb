"""What a front end must offer to be saved and loaded by name: the contract of `saving`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from downslope.training.checkpoint import Raw
from downslope.training.groups import Clock, Group
from downslope.training.settings import Schedule

Kind = tuple[str, tuple[int, ...]]
"""The dtype and the shape of a tensor, as a file says them."""

Key = tuple[str, str]
"""What a tensor is, "x", "lookahead" or a state, and the name of its parameter."""


@dataclass(frozen=True)
class Loaded:
    """A training as a file tells it, checked against the one that goes on from there.

    Attributes:
        groups: Its groups, with the hyperparameters that were adopted and the file's scalar states.
        tensors: By what they are and whose: "x" are the weights, "lookahead" the points ahead of them in groups whose
            settings say that arrays hold these in training, the rest are states; none of a parameter that has none.
        clocks: How far each parameter has come; none of one that has not begun.
        t: The number of steps done.
        skipped: The number of steps left out.
        max_norm: The largest permitted norm of all gradients together, or None.
        record: All that the file says besides.
    """

    groups: Sequence[Group]
    tensors: Mapping[Key, Raw]
    clocks: Mapping[str, Clock]
    t: int
    skipped: int
    max_norm: float | None
    record: Mapping[str, Any]


class Training(Protocol):
    """A front end with its parameters, at one moment between two steps."""

    @property
    def groups(self) -> Sequence[Group]:
        """What is trained alike: names, settings, hyperparameters, and the scalar states of those furthest on."""

    @property
    def t(self) -> int:
        """The number of steps done; where parameters count for themselves, the largest."""

    @property
    def skipped(self) -> int:
        """The number of steps left out."""

    @property
    def max_norm(self) -> float | None:
        """The largest permitted norm of all gradients together, or None."""

    @property
    def clocks(self) -> Mapping[str, Clock] | None:
        """How far each parameter has come; None where all of them always step together.

        Where parameters step for themselves, one that has not begun has no states yet.
        """

    @property
    def rounding(self) -> Mapping[str, Any] | None:
        """What a record says of how weights are rounded, nothing if to the nearest; None where there is no choice."""

    def kinds(self, name: str) -> Mapping[str, Kind]:
        """The dtypes and shapes of the weights of a parameter, under "x", and of each state that it has or will have.

        Args:
            name: Its name, one of those in `groups`.
        """

    def get(self, what: str, name: str) -> Raw | None:
        """A tensor to be saved.

        Args:
            what: "x" for the weights; "lookahead" for the points ahead of them, asked only of groups whose settings say
                that arrays hold these in training; or the name of a state.
            name: The name of the parameter.

        Returns:
            The tensor, which may share memory with the training; None for a state that has not begun.
        """

    def adopt(
        self, given: Sequence[Mapping[str, float]], max_norm: float | None
    ) -> Sequence[Mapping[str, float | Schedule]]:
        """The hyperparameters to go on with; nothing is changed yet.

        Args:
            given: Those in a file, group by group, each in its range; without those that followed a schedule there.
            max_norm: The file's.

        Returns:
            All hyperparameters of each group, as they will be.

        Raises:
            CheckpointError: The training cannot go on with what is given.
        """

    def put(self, loaded: Loaded) -> None:
        """Take over weights and states: all of them, or none if something is raised.

        Args:
            loaded: What to take over; every tensor is of the kind that `kinds` says.

        Raises:
            CheckpointError: The training cannot hold something in it.
            ValueError: An array cannot be written.
            RuntimeError: An array cannot be written at the moment.
        """
