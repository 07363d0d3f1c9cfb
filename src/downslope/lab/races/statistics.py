"""How sure a race may be: one statistic, its test and its interval.

The statistic is the mean over reporting seeds of the logarithm of the final validation loss, shown as the geometric
mean. Two rules differ by the mean of their differences in it, shown as a ratio. Order, test, interval, table and
sentence all rest on that one mean, so that none can contradict another.

A run that diverged counts as an infinite loss, formally: as a number H larger than all others. A sum is then a pair,
how many times H and how much besides, and the first decides. So a rule that diverges on more seeds stands behind, no
seed is left out, and where both rules diverge the difference is zero.

Test and interval are one thing (Hartigan, 1969): if independent differences are symmetric about their centre, the means
of their 2ⁿ - 1 non-empty subsets cut the line into 2ⁿ parts that hold the centre with equal probability. Counting
subset means on one side of a value is the sign-flip test of that value, exact for light and heavy tails.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from downslope.lab.races.comparison import Comparison, Interval, Outcome

SIGNIFICANCE = 0.05
MARGIN = 0.01
"""Rules whose losses differ by less than this share are alike for all practical purposes."""

FLOOR = 1e-12
"""A lower loss counts as this: 32-bit training cannot tell it from zero, whose logarithm would outweigh all else."""

MOST_EXACT = 14
"""Up to as many seeds all subsets are looked at; beyond, as many as these have, drawn at random."""


def interval(
    values: Sequence[float],
    mean: Literal["geometric", "arithmetic"] = "geometric",
    *,
    overlap: float = 0.0,
    significance: float = SIGNIFICANCE,
) -> Interval:
    """A mean over runs, with the interval that inverts the sign-flip test of it.

    The interval reaches from the k-th lowest to the k-th highest mean of a subset of the runs and has exactly the level
    1 - 2k/2ⁿ, if runs (for the geometric mean their logarithms) are symmetric about their centre.

    Args:
        values: One number per run; `inf` for a run that diverged.
        mean: Of losses the geometric mean, of accuracies the arithmetic one.
        overlap: Validation rows per training row if every run has a random split of its own, 0 if all have the same.
            Such runs share data; the interval is wider by √(1 + n·overlap) (Nadeau and Bengio, 2003).
        significance: The level is the lowest that is at least 1 minus this.

    Returns:
        The estimate, infinite if a run diverged, with interval and level; no interval for fewer than 6 runs.

    Raises:
        ValueError: There is no value, or one is nan or negative.

    Example:
        >>> interval([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
        Interval(estimate=1.0, low=1.0, high=1.0, level=0.96875)
        >>> interval([0.5, float("inf")])
        Interval(estimate=inf, low=nan, high=nan, level=nan)
    """
    sample = _checked(values, "values")
    if mean == "arithmetic":
        return _Means(np.stack([np.zeros(len(sample)), sample], axis=1), overlap).interval(significance)
    return _exp(_Means(_amounts(sample), overlap).interval(significance))


def geometric_mean(losses: Sequence[float]) -> float:
    """The geometric mean of the losses of those runs that finished; infinite if none did.

    Example:
        >>> geometric_mean([0.5, 2.0, float("inf")])
        1.0
    """
    return math.exp(standing(losses)[1])


def standing(losses: Sequence[float]) -> tuple[int, float]:
    """What rules are put in order by: how many runs diverged, then the mean logarithm of the others.

    Example:
        >>> standing([1.0, float("inf")])
        (1, 0.0)
    """
    amounts = _amounts(np.asarray(losses, dtype=np.float64))
    lost = int(amounts[:, 0].sum())
    return lost, float(amounts[:, 1].sum() / (len(losses) - lost)) if lost < len(losses) else math.inf


class _Means:
    """The means of the subsets of some amounts, each a row of (times infinity, finite part)."""

    def __init__(self, amounts: NDArray[np.float64], overlap: float):
        averaging = _subsets(len(amounts))
        centre = amounts.mean(axis=0)
        means = averaging @ amounts
        moved = centre + math.sqrt(1 + len(amounts) * overlap) * (means - centre)
        self.values = _limits(moved)
        self.estimate = float(_limits(centre))
        self.patterns = len(averaging) + 1
        self.rounding = 1e-12 * (1 + float(np.abs(amounts[:, 1]).max()))

    def p_at_most(self, value: float) -> float:
        """How probable so low amounts are, if their centre is at this value or above; one-sided."""
        return float(np.count_nonzero(self.values >= value - self.rounding) + 1) / self.patterns

    def p_at_least(self, value: float) -> float:
        """How probable so high amounts are, if their centre is at this value or below; one-sided."""
        return float(np.count_nonzero(self.values <= value + self.rounding) + 1) / self.patterns

    def interval(self, significance: float) -> Interval:
        place = int(significance * self.patterns / 2)
        if place < 1:
            return Interval(self.estimate, math.nan, math.nan, math.nan)
        ends = np.partition(self.values, [place - 1, len(self.values) - place])
        low, high = ends[place - 1], ends[-place]
        return Interval(self.estimate, float(low), float(high), 1 - 2 * place / self.patterns)


@functools.lru_cache(maxsize=4)
def _subsets(n: int) -> NDArray[np.float64]:
    """Non-empty subsets of n things, as rows of weights that average over one."""
    if n <= MOST_EXACT:
        members = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    else:
        members = np.random.default_rng(0).integers(0, 2, size=(2**MOST_EXACT - 1, n))
        members[~members.any(axis=1)] = 1
    weights: NDArray[np.float64] = members / members.sum(axis=1, keepdims=True)
    return weights


def _amounts(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    lost = np.isinf(losses)
    finite = np.log(np.maximum(np.where(lost, 1.0, losses), FLOOR))
    return np.stack([lost, finite], axis=1)


def _limits(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    times, finite = amounts[..., 0], amounts[..., 1]
    limits: NDArray[np.float64] = np.where(np.abs(times) < 1e-9, finite, np.copysign(np.inf, times))
    return limits


def _exp(found: Interval) -> Interval:
    with np.errstate(over="ignore"):
        estimate, low, high = (float(np.exp(value)) for value in (found.estimate, found.low, found.high))
    return Interval(estimate, low, high, found.level)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values for being many, by Holm's step-down method (1979).

    The smallest of k is multiplied by k, the next by k - 1, and so on; none may come out below the one before it. An
    adjusted value below 0.05 then means: with at most 5 % probability is *any* such decision of this race wrong.

    Args:
        p_values: One per comparison, between 0 and 1.

    Returns:
        The adjusted values in the order of the arguments.

    Raises:
        ValueError: A value is not between 0 and 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p_values: {p!r} is not between 0 and 1.")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(order)
    so_far = 0.0
    for place, index in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * p_values[index]))
        adjusted[index] = so_far
    return tuple(adjusted)


def compare(
    losses: Mapping[str, Sequence[float]], *, overlap: float = 0.0, margin: float = MARGIN
) -> tuple[Comparison, ...]:
    """Compare every two rules of a race, seed by seed.

    A rule is lower than another if it is so by more than the margin; the p-value is two-sided against all ratios within
    it. That the leader is lower than *every* other rule is one claim, whose p-value is the largest of theirs: it needs
    no correction for the number of rules (Gutmann and Maymin, 1987; Hung and Fithian, 2019). All other pairs are
    adjusted by Holm's method. Intervals have the level at which their pair was decided or left undecided: one excludes
    the margin exactly where its pair is decided.

    Args:
        losses: For each rule the final validation losses of its reporting runs, in the same order of seeds for all;
            `inf` for a run that diverged, and on every seed for a rule without a learning rate that works.
        overlap: Validation rows per training row if every seed has a random split of its own, 0 for one fixed split;
            see `interval`.
        margin: The smallest difference that matters, as a share of the loss.

    Returns:
        One comparison per pair, in the order of `losses`; none for fewer than two rules or when there are no runs.

    Raises:
        ValueError: The rules have different numbers of runs, a loss is nan or negative, or the margin or overlap is out
            of range.

    Example:
        >>> (found,) = compare({"a": [0.5, 0.6, 0.4, 0.5, 0.6, 0.4], "b": [1.0, 1.2, 0.8, 1.0, 1.2, 0.8]})
        >>> found.outcome, round(found.ratio.estimate, 3), found.p_value
        ('first', 0.5, 0.03125)
    """
    runs = _runs(losses, overlap, margin)
    pairs = [pair for pair in itertools.combinations(runs, 2) if len(runs[pair[0]])]
    if not pairs:
        return ()
    means = [_Means(_amounts(runs[a]) - _amounts(runs[b]), overlap) for a, b in pairs]
    p_values = [_p_value(one, margin) for one in means]
    by_holm = holm(p_values)
    leader = min(runs, key=lambda rule: standing(runs[rule].tolist()))
    claim = max(p for p, pair in zip(p_values, pairs, strict=True) if leader in pair)
    left = SIGNIFICANCE / max(1, sum(p > SIGNIFICANCE for p in by_holm))
    found = []
    for pair, one, p, adjusted in zip(pairs, means, p_values, by_holm, strict=True):
        claimed = leader in pair and claim <= SIGNIFICANCE
        found.append(
            _comparison(
                pair,
                (runs[pair[0]], runs[pair[1]]),
                (p, min(adjusted, claim) if leader in pair else adjusted),
                one,
                SIGNIFICANCE if claimed else left,
                margin,
            )
        )
    return tuple(found)


def seeds_needed(rules: int) -> int:
    """The fewest reporting seeds with which every pair among so many rules can be decided.

    With fewer, even an outcome without exception has a p-value above 0.05 after correction for all pairs. That the
    best is lower than all others takes no more seeds than with two rules.

    Example:
        >>> seeds_needed(2), seeds_needed(6), seeds_needed(12)
        (6, 10, 12)
    """
    return seeds_for(math.comb(rules, 2))


def seeds_for(claims: int) -> int:
    """The fewest reporting seeds with which each of so many claims can be decided.

    Example:
        >>> seeds_for(1), seeds_for(6)
        (6, 8)
    """
    return next(n for n in itertools.count(2) if claims * 2 / 2**n <= SIGNIFICANCE or n > MOST_EXACT)


def against_one(
    values: Mapping[str, Sequence[float]],
    one: Sequence[float],
    name: str = "baseline",
    *,
    claims: int = 1,
    overlap: float = 0.0,
    margin: float = MARGIN,
) -> dict[str, Comparison]:
    """Compare every rule of a race with one thing, such as predicting the same for every row.

    With one claim, each comparison stands for itself, without correction: a winner has to pass that with the baseline
    in addition to all others. With as many claims as rules, any of them may be picked for what was found (Bonferroni).

    Args:
        values: For each rule its losses, as for `compare`, or other positive numbers of which less is better.
        one: Those of the one thing, on the same seeds.
        name: What it is called.
        claims: Among how many comparisons a wrong decision is to be as improbable as it is for one.
        overlap: As for `compare`.
        margin: As for `compare`.

    Returns:
        For every rule with runs its comparison with the one thing.

    Raises:
        ValueError: As for `compare`.
    """
    runs = _runs({**values, "": one}, overlap, margin)
    constant = runs.pop("")
    found = {}
    for rule, sample in runs.items():
        if len(sample):
            means = _Means(_amounts(sample) - _amounts(constant), overlap)
            p = _p_value(means, margin)
            ps = (p, min(1.0, claims * p))
            found[rule] = _comparison((rule, name), (sample, constant), ps, means, SIGNIFICANCE / claims, margin)
    return found


def _runs(losses: Mapping[str, Sequence[float]], overlap: float, margin: float) -> dict[str, NDArray[np.float64]]:
    if not 0 <= margin < 1:
        raise ValueError(f"margin={margin!r}: give a share from 0 to less than 1, such as 0.01 for 1 %.")
    if not 0 <= overlap < math.inf:
        raise ValueError(f"overlap={overlap!r}: give validation rows per training row, 0 for one fixed split.")
    runs = {rule: _checked(values, rule) if len(values) else np.empty(0) for rule, values in losses.items()}
    if len({len(values) for values in runs.values()}) > 1:
        counts = ", ".join(f"{rule or 'baseline'} {len(values)}" for rule, values in runs.items())
        raise ValueError(f"losses: every rule needs the same seeds, but the numbers of runs differ: {counts}.")
    return runs


def _p_value(means: _Means, margin: float) -> float:
    edge = -math.log1p(-margin)
    return min(1.0, 2 * min(means.p_at_most(-edge), means.p_at_least(edge)))


def _comparison(
    pair: tuple[str, str],
    runs: tuple[NDArray[np.float64], NDArray[np.float64]],
    p_values: tuple[float, float],
    means: _Means,
    significance: float,
    margin: float,
) -> Comparison:
    a, b = runs
    logs = means.interval(significance)
    edge = -math.log1p(-margin)
    outcome: Outcome = "undecided"
    if p_values[1] <= SIGNIFICANCE:
        outcome = "first" if means.estimate < 0 else "second"
    elif -edge <= logs.low <= logs.high <= edge:
        outcome = "alike"
    return Comparison(
        first=pair[0],
        second=pair[1],
        ratio=_exp(logs),
        win_probability=float(np.mean(a < b) + np.mean(a == b) / 2),
        p_value=p_values[0],
        p_adjusted=p_values[1],
        outcome=outcome,
    )


def _checked(values: Sequence[float], name: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        raise ValueError(f"{name}: there is none; give at least one.")
    if np.isnan(sample).any() or (sample < 0).any():
        raise ValueError(
            f"{name}: {sample.tolist()} contains nan or a negative number; a run that diverged is infinite."
        )
    return sample
