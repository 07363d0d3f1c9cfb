"""What rules are raced on, as a race sees it: the two words that every file of this room is about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from downslope.lab.engines.protocol import Engine, Progress, Run
from downslope.lab.engines.schedule import SCHEDULES, Schedule
from downslope.lab.keeping.identity import Identity
from downslope.lab.races.plan import Plan
from downslope.lab.races.raced import Raced
from downslope.lab.races.reasons import Explanation

SAMPLES = 997
"""At so many shares of a training a schedule of the user's own is told from another."""

Clock = Callable[[], float]
"""Gives seconds, from wherever it counts them."""


@dataclass(frozen=True)
class Course:
    """What rules are raced on, ready for the first run.

    Attributes:
        engine: What trains the runs.
        raced: What is told of it beside the runs, given the plan as it is in the end.
        shorten: Gives the runs fewer epochs; None where a run is as long as it is.
        measured: Whether runs are trained side by side, so that a few epochs of many of them say what they cost;
            otherwise the first run of each rule does.
        check: What the first runs say about code of the user's own, given these and another seed, in sentences; it
            makes two runs. None where no such code is called in them, or it cannot be another each time.
        cautions: What was found out that is to be borne in mind, in sentences.
        explanation: What explains the race; None where nobody asked, or nothing can.
        identity: What decides all of its runs alike; it is only asked where they are kept.
        decided: What was found out by measuring, that another time may be found out otherwise.
        decide: Takes what was found out before in its place.
        listen: Takes whom to tell of losses while a run is trained, where the engine reports run by run.
    """

    engine: Engine
    raced: Callable[[Plan], Raced]
    shorten: Callable[[int], None] | None = None
    measured: bool = False
    check: Callable[[Sequence[Run], int], Sequence[str]] | None = None
    cautions: Sequence[str] = ()
    explanation: Explanation | None = None
    identity: Callable[[], Identity] = field(kw_only=True)
    decided: Mapping[str, Any] = field(default_factory=dict)
    decide: Callable[[Mapping[str, Any]], None] = lambda _: None
    listen: Callable[[Callable[[Progress], None]], None] = lambda _: None


def training_of(plan: Plan, schedule: Schedule) -> dict[str, Any]:
    """What a plan and a schedule decide of all runs alike, by name."""
    factors = "" if schedule.name in SCHEDULES else f", {_hash(schedule.table(SAMPLES).tobytes())}"
    return {"split seed": plan.split_seed, "splits": plan.splits, "schedule": f"{schedule.name}{factors}"}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


class Subject(Protocol):
    """What rules are raced on, as it was given to a race."""

    @property
    def defaults(self) -> bool:
        """Whether every rule is run at its default learning rate too, first of all."""

    def course(self, plan: Plan, clock: Clock, seeds: Sequence[int]) -> Course:
        """All that is needed to race on it.

        Args:
            plan: Rules, learning rates and seeds.
            clock: What its engine measures by.
            seeds: Those that runs may have: where there is time, more than those of the plan.

        Raises:
            ValueError: No race can be made of it.
        """
