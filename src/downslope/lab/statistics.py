"""How sure a race may be: intervals, paired tests, and the sentence they add up to.

A run that diverged has an infinite loss. It is a failure and counts as one: infinities are never dropped from a median
or a test, and where a mean would make no sense of them, ranks are used instead.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from downslope.lab.results import Comparison, Interval

LEVEL = 0.95
SIGNIFICANCE = 0.05
RESAMPLES = 9999
MOST_EXACT = 12  # up to as many differences, all 2**n patterns of signs are tried
PATTERNS = 19_999  # with more differences, as many are drawn at random


def interval(values: Sequence[float], statistic: Literal["median", "mean"] = "median", *, seed: int) -> Interval:
    """Estimate a median or a mean over runs, with its 95 % bootstrap interval.

    The interval is the bias-corrected and accelerated one (BCa; Efron, 1987) of `scipy.stats.bootstrap`. Where it is
    not defined, the percentiles of the same resamples take its place: with infinite values among the runs, whose
    acceleration would be inf - inf, and when leaving out any one run leaves the statistic as it was.

    Args:
        values: One number per run; `inf` for a run that diverged.
        statistic: What to estimate. The mean is infinite when one value is.
        seed: Seeds the resampling, so that a report can be made again to the last digit.

    Returns:
        The estimate; `low` and `high` are nan for fewer than three values, equal to the estimate when all values are
        equal, and `high` is infinite when enough runs diverged.

    Raises:
        ValueError: There is no value, or one is nan or `-inf`.

    Example:
        >>> interval([1.0, 1.0, 1.0], seed=0)
        Interval(estimate=1.0, low=1.0, high=1.0)
        >>> interval([0.5, float("inf")], seed=0)
        Interval(estimate=inf, low=nan, high=nan)
    """
    sample = _checked(values, "values")
    if np.isneginf(sample).any():
        raise ValueError("values: -inf is no result of a run; a run that diverged is +inf.")
    estimator: Any = {"median": np.median, "mean": np.mean}[statistic]
    estimate = float(estimator(sample))
    if len(sample) < 3:
        return Interval(estimate, math.nan, math.nan)
    if (sample == sample[0]).all():
        return Interval(estimate, estimate, estimate)
    if np.isfinite(sample).all():
        low, high = _bca(sample, estimator, seed)
        if not math.isnan(low + high):
            return Interval(estimate, low, high)
    low, high = _percentiles(sample, estimator, seed)
    return Interval(estimate, low, high)


def _bca(sample: NDArray[np.float64], estimator: Any, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # SciPy warns where the interval is degenerate and returns nan, which the caller handles.
        warnings.simplefilter("ignore")
        found = bootstrap(
            (sample,),
            estimator,
            confidence_level=LEVEL,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)


def _percentiles(sample: NDArray[np.float64], estimator: Any, seed: int) -> tuple[float, float]:
    resamples = np.random.default_rng(seed).choice(sample, size=(RESAMPLES, len(sample)))
    estimates = estimator(resamples, axis=1)
    # Interpolating between a finite estimate and an infinite one would give nan or inf: take one that occurred.
    tail = (1 - LEVEL) / 2
    low = np.quantile(estimates, tail, method="lower")
    high = np.quantile(estimates, 1 - tail, method="higher")
    return float(low), float(high)


def sign_flip_test(differences: Sequence[float], *, seed: int = 0) -> float:
    """Test whether paired differences are symmetric about zero; two-sided.

    If two rules were alike, each seed's difference could as well have had the other sign. The p-value is the share of
    all sign patterns whose mean is as far from zero as the observed one; with more than 12 differences, of
    20,000 patterns: the observed one and others drawn at random (`scipy.stats.permutation_test`).

    Where a difference is infinite, because one of the two runs diverged, a mean would be infinite whatever the other
    seeds say. Then the sum of signed ranks takes its place (Wilcoxon, 1945): the seed is lost by the largest rank there
    is, and by no more.

    Args:
        differences: One per seed; `inf` where the first rule diverged, `-inf` where the second did, 0 where both did.
        seed: Seeds the random patterns.

    Returns:
        The p-value, 1.0 for fewer than two differences.

    Raises:
        ValueError: There is no difference, or one is nan.

    Example:
        >>> sign_flip_test([0.3, 0.1, 0.2, 0.5, 0.4])  # all five have one sign: 2 of 32 patterns
        0.0625
    """
    sample = _checked(differences, "differences")
    if len(sample) < 2:
        return 1.0
    from scipy.stats import permutation_test

    exact = len(sample) <= MOST_EXACT
    found = permutation_test(
        (_weights(sample),),
        np.mean,
        permutation_type="samples",
        n_resamples=2 ** len(sample) if exact else PATTERNS,
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _weights(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    if np.isfinite(differences).all():
        largest = np.abs(differences).max()
        return differences / largest if largest > 0 else differences
    from scipy.stats import rankdata

    ranks: NDArray[np.float64] = np.asarray(rankdata(np.abs(differences)))
    return np.sign(differences) * ranks


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


def compare(losses: Mapping[str, Sequence[float]], *, seed: int = 0) -> tuple[Comparison, ...]:
    """Compare every two rules of a race, seed by seed.

    Args:
        losses: For each rule the final validation losses of its reporting runs, in the same order of seeds for all;
            `inf` for a run that diverged, and on every seed for a rule without a learning rate that works.
        seed: Seeds the resampling.

    Returns:
        One comparison per pair, in the order of `losses`; none for fewer than two rules or when there are no runs.

    Raises:
        ValueError: The rules have different numbers of runs, or a loss is nan or `-inf`.
    """
    runs = {rule: np.asarray(values, dtype=np.float64) for rule, values in losses.items()}
    if len({len(values) for values in runs.values()}) > 1:
        counts = ", ".join(f"{rule} {len(values)}" for rule, values in runs.items())
        raise ValueError(f"losses: every rule needs the same seeds, but the numbers of runs differ: {counts}.")
    for rule, values in runs.items():
        if np.isnan(values).any() or np.isneginf(values).any():
            raise ValueError(f"losses: {rule} has nan or -inf among {values.tolist()}; a run that diverged is +inf.")
    pairs = [pair for pair in itertools.combinations(runs, 2) if len(runs[pair[0]])]
    p_values = [sign_flip_test(_differences(runs[a], runs[b]).tolist(), seed=seed) for a, b in pairs]
    return tuple(
        _comparison(a, b, runs[a], runs[b], p, adjusted, seed)
        for (a, b), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    )


def _comparison(
    first: str, second: str, a: NDArray[np.float64], b: NDArray[np.float64], p: float, adjusted: float, seed: int
) -> Comparison:
    both = np.isfinite(a) & np.isfinite(b)
    nothing = Interval(math.nan, math.nan, math.nan)
    return Comparison(
        first=first,
        second=second,
        difference=interval((a[both] - b[both]).tolist(), "mean", seed=seed) if both.any() else nothing,
        win_probability=float(np.mean(a < b) + np.mean(a == b) / 2),
        p_value=p,
        p_adjusted=adjusted,
        decided=adjusted < SIGNIFICANCE,
    )


def _differences(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.subtract(a, b, out=np.zeros(len(a)), where=a != b)


def smallest_p(n_seeds: int, n_pairs: int) -> float:
    """The smallest adjusted p-value that so many seeds could give, if one rule won on all of them.

    If it is not below 0.05, no comparison of the race can be significant, however clear the outcome looks.

    Args:
        n_seeds: Reporting seeds per rule.
        n_pairs: Comparisons in the race.

    Returns:
        The smallest value that `sign_flip_test` followed by `holm` can reach, at most 1.

    Example:
        >>> smallest_p(5, 1), smallest_p(6, 1)
        (0.0625, 0.03125)
    """
    if n_seeds < 2:
        return 1.0
    flips = 2 / 2**n_seeds if n_seeds <= MOST_EXACT else 2 / (PATTERNS + 1)
    return min(1.0, max(1, n_pairs) * flips)


def seeds_needed(n_pairs: int) -> int:
    """The fewest reporting seeds with which a comparison among `n_pairs` can be significant at all.

    Example:
        >>> seeds_needed(1), seeds_needed(15)
        (6, 10)
    """
    return next(n for n in itertools.count(2) if smallest_p(n, n_pairs) < SIGNIFICANCE or n > MOST_EXACT)


def verdict(losses: Mapping[str, Sequence[float]], comparisons: Sequence[Comparison]) -> str:
    """Say in one sentence which rule a race recommends, and how sure that is.

    The best rule is the one with the lowest median loss among those that no decided comparison puts below another. It
    wins alone only if all its comparisons are decided; otherwise the sentence names the rules that the race could not
    tell from it.

    Args:
        losses: As for `compare`.
        comparisons: What `compare` made of them.

    Returns:
        One sentence in plain English.
    """
    losses = {rule: values for rule, values in losses.items() if len(values)}
    if not losses:
        return "No rule has been run on the reporting seeds, so there is no verdict."
    n_seeds = min(len(values) for values in losses.values())
    if all(math.isinf(value) for values in losses.values() for value in values):
        return "Every run diverged, so no rule can be recommended: try smaller learning rates, or check the data."
    beaten = {loser for comparison in comparisons if (loser := _loser(comparison, losses)) is not None}
    medians = {rule: float(np.median(values)) for rule, values in losses.items()}
    best = min([rule for rule in losses if rule not in beaten] or losses, key=lambda rule: medians[rule])
    failures = sum(math.isinf(value) for value in losses[best])
    result = f"median validation loss {medians[best]:.3g} over {n_seeds} {'seed' if n_seeds == 1 else 'seeds'}" + (
        f", of which {failures} diverged" if failures else ""
    )
    if len(losses) == 1:
        return f"Only {best} was raced, with a {result}; a verdict needs a second rule."
    if smallest_p(n_seeds, len(comparisons)) >= SIGNIFICANCE:
        return (
            f"{best} ended lowest ({result}), but {'one seed' if n_seeds == 1 else f'{n_seeds} seeds'} cannot prove "
            f"a difference between {len(losses)} rules: run at least {seeds_needed(len(comparisons))}."
        )
    undecided = {
        other
        for comparison in comparisons
        if best in (comparison.first, comparison.second)
        for other in (comparison.first, comparison.second)
        if other != best and _loser(comparison, losses) != other
    }
    if not undecided:
        others = len(losses) - 1
        rest = {1: "the other rule", 2: "both other rules"}.get(others, f"all {others} other rules")
        return f"{best} wins: {result}, significantly lower than {rest}."
    close = _listed(sorted(undecided, key=lambda rule: medians[rule]))
    return f"{best} ended lowest ({result}), but {close} cannot be told apart from it."


def _loser(comparison: Comparison, losses: Mapping[str, Sequence[float]]) -> str | None:
    if not comparison.decided or comparison.first not in losses or comparison.second not in losses:
        return None
    a, b = (np.asarray(losses[rule], dtype=np.float64) for rule in (comparison.first, comparison.second))
    return comparison.first if _weights(_differences(a, b)).mean() > 0 else comparison.second


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} other rules"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _checked(values: Sequence[float], name: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        raise ValueError(f"{name}: there is none; give at least one.")
    if np.isnan(sample).any():
        raise ValueError(f"{name}: {sample.tolist()} contains nan; a run that diverged is infinite, not missing.")
    return sample
