"""Estimates with their intervals, how two rules compare, and which one wins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Interval:
    """A point estimate and its confidence interval; all but the estimate is nan when too few runs allow none."""

    estimate: float
    low: float
    high: float
    level: float  # the confidence that the interval reaches, such as 0.96875


Outcome = Literal["first", "second", "alike", "undecided"]
"""Which of two rules is lower, by more than the margin; `"alike"` if they are shown to differ by less."""


@dataclass(frozen=True)
class Comparison:
    """Two rules on the same reporting seeds: a paired comparison of their final validation losses."""

    first: str
    second: str
    ratio: Interval  # geometric mean of the losses of `first` / `second`; 0 or infinite if more runs of one were lost
    win_probability: float  # share of the seeds on which `first` ends lower; ties count half
    p_value: float  # sign-flip test against all ratios within the margin, two-sided
    p_adjusted: float  # after correction for all pairs of the race
    outcome: Outcome  # what table, matrix and sentence go by

    @property
    def decided(self) -> bool:
        """Whether one rule is lower than the other."""
        return self.outcome in ("first", "second")

    def turned(self) -> Comparison:
        """The same comparison with the second rule first."""
        swapped: dict[Outcome, Outcome] = {"first": "second", "second": "first"}
        estimate, low, high = (
            math.inf if ratio == 0 else 1 / ratio for ratio in (self.ratio.estimate, self.ratio.high, self.ratio.low)
        )
        return replace(
            self,
            first=self.second,
            second=self.first,
            ratio=Interval(estimate, low, high, self.ratio.level),
            win_probability=1 - self.win_probability,
            outcome=swapped.get(self.outcome, self.outcome),
        )


def winner(
    comparisons: Sequence[Comparison], raced: int, baseline: Mapping[str, Comparison] | None = None
) -> str | None:
    """The rule that wins: decided to be lower than every other rule of the race, and than the baseline.

    Args:
        comparisons: What `compare` made of the rules that were judged.
        raced: How many rules entered the race.
        baseline: What `against_baseline` made of them, if there is a baseline.

    Returns:
        Its name; None if no rule wins, as where some of the others were not judged.
    """
    for rule in dict.fromkeys(name for one in comparisons for name in (one.first, one.second)):
        beaten = [one for one in against_others(rule, comparisons) if one.outcome == "first"]
        if len(beaten) == raced - 1 and (baseline is None or baseline[rule].outcome == "first"):
            return rule
    return None


def against_others(rule: str, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of a rule with others, turned so that it comes first."""
    return [one if one.first == rule else one.turned() for one in comparisons if rule in (one.first, one.second)]
