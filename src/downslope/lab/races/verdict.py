"""What a race found, in words: the verdict in one sentence, and the difference between two rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from downslope.lab.races.comparison import Comparison, Interval, against_others, winner
from downslope.lab.races.statistics import geometric_mean, seeds_needed, standing


def verdict(
    losses: Mapping[str, Sequence[float]],
    comparisons: Sequence[Comparison],
    *,
    raced: int | None = None,
    splits: int = 1,
    baseline: Mapping[str, Comparison] | None = None,
    baseline_name: str = "predicting the mean",
    lost: Mapping[str, str] | None = None,
) -> str:
    """Say in one sentence which rule a race recommends, and how sure that is.

    The best rule is the one with the lowest mean. Where it is not the `winner`, the sentence says what is in the way.

    Args:
        losses: As for `compare`, of the rules that were judged.
        comparisons: What `compare` made of them.
        raced: How many rules entered the race; more than were judged if it was interrupted.
        splits: How many different splits of the data the reporting seeds have; 0 if that is not known.
        baseline: What `against_baseline` made of the losses, if there is one.
        baseline_name: What the baseline does, for people.
        lost: How runs of each rule were lost, in a word; None: they diverged.

    Returns:
        One sentence in plain English.
    """
    losses = {rule: values for rule, values in losses.items() if len(values)}
    if not losses:
        return "No rule has been run on the reporting seeds, so there is no verdict."
    best = min(losses, key=lambda rule: standing(losses[rule]))
    ways = {(lost or {}).get(rule, "diverged") for rule in losses}
    every = ways.pop() if len(ways) == 1 else "diverged or failed"  # where every run was lost
    how = (lost or {}).get(best, "diverged")
    result, no_use = _result(losses[best], splits, how), _no_use(best, baseline, baseline_name)
    if (raced or 0) > len(losses):
        among = f"of the {len(losses)} of {raced} rules judged before the race was stopped"
        if all(math.isinf(value) for value in losses[best]):
            return f"There is no winner: {among}, every run {every}."
        return f"There is no winner: {among}, {best} ended lowest ({result})."
    if all(math.isinf(value) for value in losses[best]):
        remedy = "try smaller learning rates, or check the data" if every == "diverged" else "see why they did"
        return f"Every run {every}, so no rule can be recommended: {remedy}."
    if len(losses) == 1:
        return f"Only {best} was raced, with a {result}; a verdict needs a second rule{no_use}."
    n_seeds = len(losses[best])
    if n_seeds < seeds_needed(2):
        return (
            f"{best} ended lowest ({result}), but {'one seed' if n_seeds == 1 else f'{n_seeds} seeds'} cannot prove "
            f"a difference: run at least {seeds_needed(2)}."
        )
    mine = sorted(against_others(best, comparisons), key=lambda one: standing(losses[one.second]))
    undecided = [one.second for one in mine if one.outcome == "undecided"]
    alike = [one.second for one in mine if one.outcome == "alike"]
    if winner(comparisons, len(losses), baseline) == best:
        rest = {1: "the other rule", 2: "both other rules"}.get(len(mine), f"all {len(mine)} other rules")
        return f"{best} wins: {result}, significantly lower than {rest}{_by_how_much(mine)}."
    if not undecided and not alike:
        return f"No rule wins: {best} ended lowest ({result}){no_use}."
    close = [f"{_listed(undecided)} cannot be told apart from it"] if undecided else []
    close += [f"{_listed(alike)} {'is' if len(alike) == 1 else 'are'} practically as low"] if alike else []
    few = undecided and n_seeds < (needed := seeds_needed(len(losses)))
    more = f"; {n_seeds} seeds are too few to tell {len(losses)} rules apart: run at least {needed}" if few else ""
    return f"{best} ended lowest ({result}), but {' and '.join(close)}{no_use}{more}."


def _result(losses: Sequence[float], splits: int, how: str) -> str:
    lost = standing(losses)[0]
    seeds = "one seed" if len(losses) == 1 else f"{len(losses)} seeds"
    own = ", each with its own split of the data"
    where = seeds + {0: "", 1: " on one split of the data"}.get(splits, own)
    failures = f", of which {lost} {how}" if lost else ""
    return f"mean {'loss' if not splits else 'validation loss'} {geometric_mean(losses):.3g} over {where}{failures}"


def _no_use(rule: str, baseline: Mapping[str, Comparison] | None, name: str) -> str:
    if baseline is None or baseline[rule].outcome == "first":
        return ""
    return f", and it is not shown to do better than {name}"


def _by_how_much(comparisons: Sequence[Comparison]) -> str:
    nearest = comparisons[0]
    if not 0 < nearest.ratio.estimate < math.inf:
        return ""
    beside = "" if len(comparisons) == 1 else f" than {nearest.second}, the next"
    return f": {_lower(nearest.ratio)} lower{beside}{_ends(nearest.ratio, with_level=True)}"


def difference(comparison: Comparison) -> str:
    """A comparison in words, the lower rule first, with its interval.

    Example:
        >>> difference(Comparison("sgd", "adam", Interval(1.25, 1.05, 1.6, 0.95), 0.9, 0.01, 0.01, "second"))
        'adam 20 % lower than sgd (4.8 to 38 %)'
    """
    one = comparison if comparison.ratio.estimate <= 1 else comparison.turned()
    if one.ratio.estimate == 0:
        open_ended = _ends(one.ratio) if one.ratio.high > 0 else ""
        return f"{one.first} lower than {one.second}, which came to its end less often{open_ended}"
    if _lower(one.ratio) == "0 %":
        return f"{one.first} as low as {one.second}{_ends(one.ratio)}"
    return f"{one.first} {_lower(one.ratio)} lower than {one.second}{_ends(one.ratio)}"


def _lower(ratio: Interval) -> str:
    return f"{percent(1 - ratio.estimate)} %"


def _ends(ratio: Interval, *, with_level: bool = False) -> str:
    if math.isnan(ratio.low):
        return ""
    if ratio.high <= 1:
        level = f"{100 * ratio.level:.3g} % interval: " if with_level else ""
        return f" ({level}{percent(1 - ratio.high)} to {percent(1 - ratio.low)} %)"
    low = f"{percent(1 - ratio.low)} % lower" if ratio.low <= 1 else f"{percent(ratio.low - 1)} % higher"
    if math.isinf(ratio.high):
        return f" ({low} to any higher)"
    high = f"{percent(ratio.high - 1)} % higher" if ratio.high <= 2 else f"{ratio.high:.3g} times as high"
    return f" ({low} to {high})"


def percent(share: float) -> str:
    """A share for people, in percent: two digits, and as many as it takes below ten."""
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}" if percent >= 5e-3 else "0"


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} other rules"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
