"""What a race will be, before it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from downslope.lab.engines.own_engine import Train
from downslope.lab.engines.protocol import Progress
from downslope.lab.problems.problem import Problem
from downslope.lab.races.budget import Budget, Foreseen
from downslope.lab.races.stage import Stage
from downslope.lab.racing import race
from downslope.lab.watching import seen
from downslope.rule import Rule


def foresee(
    problem: str | Problem | Train = "digits",
    rules: Sequence[Rule] | Mapping[str, Rule] | None = None,
    *,
    budget: float | str | Budget | None = None,
    **arguments: Any,
) -> Foreseen:
    """How many runs a race has, how long it takes, what it leaves on disk, and what it can prove.

    It trains no more than it takes to know what runs cost: a few epochs of each rule on a table; of a training of your
    own one run of each rule, and two more.

    Args:
        problem: As for `downslope.lab.race`.
        rules: As there.
        budget: As there; without one, what is foreseen is the race that has all the time.
        **arguments: The others, as there.

    Raises:
        TypeError: `race` has no such argument.
        ValueError: As there.
        KeyboardInterrupt: It was stopped before that was known.

    Example:
        >>> import downslope, downslope.lab
        >>> foreseen = downslope.lab.foresee("parabola", [downslope.sgd], learning_rates=[0.1], tuning_seeds=2)
        >>> foreseen.runs  # 2 in tuning, 7 to confirm, 10 for the verdict
        19
    """
    theirs, progress = arguments.get("watch"), arguments.get("progress")
    shown = theirs is None and seen() if progress is None else progress

    def watch(event: Stage | Progress) -> None:
        if theirs is not None:
            theirs(event)
        if isinstance(event, Stage) and event.foreseen is not None:
            raise _Known(event.foreseen)

    more = {**arguments, "watch": watch, "progress": shown}
    try:
        race(problem, rules, budget=Budget(math.inf) if budget is None else budget, **more)
    except _Known as known:
        return known.foreseen
    raise KeyboardInterrupt  # which a race answers by ending with what it has: here with nothing


class _Known(BaseException):
    """Ends a race before its first part; nothing that training is wrapped in is to take it for an error."""

    def __init__(self, foreseen: Foreseen):
        self.foreseen = foreseen
