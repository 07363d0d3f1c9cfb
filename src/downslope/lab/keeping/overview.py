"""What a folder shows of a race that is under way, and what two folders have in common."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from downslope.lab.engines.protocol import Run
from downslope.lab.keeping.identity import but_for_rounding
from downslope.lab.keeping.rows import Kept
from downslope.lab.races.grid import Point, lowest


@dataclass(frozen=True)
class SoFar:
    """What is finished of a rule.

    Attributes:
        rule: What it is called.
        tuning: Its runs of tuning.
        verdict: Its runs on fresh seeds.
        lost: Those of both that diverged or failed.
        seconds: What they took.
        best: The learning rate, and the setting of a grid, with the lowest mean loss, of those that were run on most
            tuning seeds; None if all diverge.
        loss: That mean.
    """

    rule: str
    tuning: int
    verdict: int
    lost: int
    seconds: float
    best: Point | None
    loss: float


def so_far(kept: Iterable[Kept]) -> list[SoFar]:
    """What is finished of every rule, in the order of their names.

    Args:
        kept: The runs of a folder.
    """
    by_rule: dict[str, list[Kept]] = {}
    for one in kept:
        by_rule.setdefault(one.run.rule, []).append(one)
    return [_of_rule(rule, by_rule[rule]) for rule in sorted(by_rule)]


def _of_rule(rule: str, kept: list[Kept]) -> SoFar:
    runs = [one.run for one in kept]
    losses: dict[Point, list[float]] = {}
    for run in runs:
        if run.phase == "tuning":
            losses.setdefault(Point(run.lr, run.setting), []).append(run.final_loss)
    most = max(map(len, losses.values()), default=0)
    means = {at: statistics.fmean(found) for at, found in sorted(losses.items()) if len(found) == most}
    best = lowest(means) if means else None
    loss = math.inf if best is None else means[best]
    return SoFar(
        rule=rule,
        tuning=sum(run.phase == "tuning" for run in runs),
        verdict=sum(run.phase == "verdict" for run in runs),
        lost=sum(run.diverged_at is not None for run in runs),
        seconds=sum(one.seconds for one in kept),
        best=None if math.isinf(loss) else best,
        loss=loss,
    )


@dataclass(frozen=True)
class Shared:
    """What two folders have in common.

    Attributes:
        runs: How many runs are decided alike, but for what only rounding depends on.
        equal: How many of these have the same losses, bit for bit.
        apart: By how much the final losses of the others differ at most, as a share; infinite where only one diverged.
        first: Runs that only the first folder has.
        second: Runs that only the second one has.
    """

    runs: int
    equal: int
    apart: float
    first: int
    second: int


def shared(first: Mapping[str, Kept], second: Mapping[str, Kept]) -> Shared:
    """Compare the runs of two folders.

    Args:
        first: The runs of one, by all that decides them.
        second: Those of the other.
    """
    here, there = ({but_for_rounding(key): kept.run for key, kept in runs.items()} for runs in (first, second))
    common = here.keys() & there.keys()
    pairs = [(here[key], there[key]) for key in common]
    differing = [(one, other) for one, other in pairs if _curves(one) != _curves(other)]
    apart = max((_apart(one.final_loss, other.final_loss) for one, other in differing), default=0.0)
    return Shared(len(common), len(common) - len(differing), apart, len(here) - len(common), len(there) - len(common))


def _curves(run: Run) -> tuple[object, ...]:
    return run.times, run.train_loss, run.valid_loss, run.valid_accuracy, run.test_loss, run.test_accuracy


def _apart(one: float, other: float) -> float:
    if one == other:
        return 0.0
    low, high = sorted((abs(one), abs(other)))
    return math.inf if math.isinf(high) or low == 0 else high / low - 1
