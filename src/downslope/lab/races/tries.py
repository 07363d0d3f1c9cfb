"""How good the best learning rate is after a few tries: read off the grid that is trained anyway.

Somebody who may try k learning rates draws them from the grid, no one twice, and keeps the one with the lowest loss.
Over all ways to draw, that has a distribution, which is counted and not simulated: of n values, sorted, the lowest of k
is at most the i-th in all but C(n - i, k) of the C(n, k) ways. Its median and quartiles are told, since a mean is
infinite as soon as all k may have diverged.

Source: Dodge et al., "Show your work: improved reporting of experimental results", 2019, who draw with replacement and
tell means; Sivaprasad et al., "Optimizer benchmarking needs to account for hyperparameter tuning", 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from downslope.lab.engines.protocol import Run
from downslope.lab.races.grid import Point
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.statistics import geometric_mean


def best_after(values: Sequence[float], tries: int, share: float = 0.5) -> float:
    """What the lowest of so many values, drawn without repetition, is at most in a share of all ways to draw them.

    Args:
        values: The loss of each learning rate, infinite where it does not work.
        tries: How many are drawn.
        share: The share, 0.5 for the median.

    Raises:
        ValueError: There are fewer values than tries, or none is drawn, or the share is not above 0 and at most 1.

    Example:
        >>> [best_after([0.1, 0.2, 0.4, math.inf], tries) for tries in (1, 2, 3, 4)]
        [0.2, 0.1, 0.1, 0.1]
    """
    n = len(values)
    if not 1 <= tries <= n:
        raise ValueError(f"tries={tries}: give 1 to {n}, the number of values")
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: give a share above 0, at most 1")
    ways = math.comb(n, tries)
    return next(
        value for place, value in enumerate(sorted(values), 1) if ways - math.comb(n - place, tries) >= share * ways
    )


def tried(race: Race, result: RuleResult) -> list[Run]:
    """The tuning runs of a rule on the grid: not those at a default beside it, which only this rule has."""
    if any(run.setting for run in result.tuning):
        return [run for run in result.tuning if run.setting]
    others = {run.lr for other in race.rules if other.tuned and other is not result for run in other.tuning}
    shared = others.union(race.learning_rates)
    return [run for run in result.tuning if run.lr != result.default_lr or run.lr in shared]


def on_the_grid(race: Race, result: RuleResult) -> dict[Point, float]:
    """The loss wherever a rule was tried on the grid: its geometric mean over the tuning seeds.

    Infinite where any run was lost; none of what was not run on all of the seeds.
    """
    found: dict[Point, list[float]] = {}
    for run in tried(race, result):
        if run.seed in race.tuning_seeds:
            found.setdefault(Point(run.lr, run.setting), []).append(run.final_loss)
    whole = {at: losses for at, losses in sorted(found.items()) if len(losses) == len(race.tuning_seeds)}
    return {at: math.inf if math.inf in losses else geometric_mean(losses) for at, losses in whole.items()}


FEW = (1, 2, 3, 5, 10)
"""How many tries are told in numbers, and how many there are in all."""


def few_tries(race: Race) -> tuple[list[int], dict[str, list[float]]]:
    """After how many tries something is told, and the losses on the grid of every rule that was tuned."""
    values = {result.rule: list(on_the_grid(race, result).values()) for result in race.rules if result.tuned}
    most = max(map(len, values.values()), default=0)
    return sorted({k for k in (*FEW, most) if 1 <= k <= most}), values
