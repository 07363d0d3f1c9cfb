"""What explains a race, in words: where a rule's learning rates stop working, and what training was like."""

from __future__ import annotations

import math
from collections.abc import Sequence

from downslope.lab.engines.protocol import DIVERGENCE_FACTOR, Surroundings
from downslope.lab.races.why import BEYOND, RuleWhy


def sentence(why: RuleWhy, tried: Sequence[float]) -> str:
    """Where a rule's learning rates stop working and why; where that is not known, that it is not.

    Args:
        why: What is known of the rule.
        tried: The learning rates that were tried, lowest first.
    """
    if why.cliff.cause == "length":
        return f"{_seen(why, tried)}{_by_length(why)}"
    if why.cliff.cause == "curvature":
        return f"{_seen(why, tried)}{_by_curvature(why)}"
    return f"{_seen(why, tried)}. Nothing is expected of it: {_nothing(why)}."


def _seen(why: RuleWhy, tried: Sequence[float]) -> str:
    """Where the cliff is that something is expected of."""
    cliff = why.cliff
    below, beyond = cliff.seen
    does = "diverges" if cliff.cause == "length" or cliff.diverges_from == cliff.fails_from else "learns nothing"
    if beyond is None:
        does = "does not diverge" if cliff.cause == "length" else "learns"
        return f"{why.rule} {does} at any learning rate tried, up to {_n(tried[-1])}".replace(
            "learns at any", "learns at every"
        )
    if below is None:
        return f"{why.rule} {does} at every learning rate tried, down to {_n(tried[0])}"
    return f"{why.rule} {does} from lr {_n(beyond)} on"


def _by_curvature(why: RuleWhy) -> str:
    cliff = why.cliff
    assert why.limit is not None
    assert cliff.expected is not None
    kind = "preconditioned curvature" if why.held else "curvature"
    _, beyond = cliff.seen
    if beyond is None and cliff.expected == math.inf:
        return f". {_expected(why)}."
    if beyond is None:
        return (
            f". By the {kind} at the start, {_n(why.curvature)}, it is expected to fail from {_n(cliff.expected)} on"
            + (", beyond all of these." if cliff.agrees else ": this is not explained.")
        )
    at_cliff = (
        f": there its limit {_n(why.limit)}/lr is {_n(why.limit / beyond)}, and the {kind} at the start is "
        f"{_n(why.curvature)}"
    )
    if not cliff.agrees:
        return f"{at_cliff}. {_expected(why)}: this is not explained.{_survived(why)}"
    return f"{at_cliff}. {_expected(why)}.{_survived(why)}"


def _expected(why: RuleWhy) -> str:
    assert why.limit is not None
    if why.comes_back == math.inf:
        return "The simplest network comes back from wherever it was let begin, up to 8 times the limit"
    if why.comes_back is None:
        return f"Expected from {_n(why.cliff.expected)} on"
    return (
        f"Expected from {_n(why.cliff.expected)} on, since the simplest network comes back from up to "
        f"{why.comes_back / why.limit:.2g} times the limit"
    )


def _survived(why: RuleWhy) -> str:
    """What the run at the highest learning rate that works did, if it began above its limit."""
    below, _ = why.cliff.seen
    if below is None or len(why.edge) < 2:
        return ""
    start, *later = (why.sharpness(one, below) for one in why.edge)
    settled = next((k for k, size in enumerate(later, 1) if size is not None and size < 1), None)
    if start is None or start <= 1 or settled is None:
        return ""
    after = why.edge[settled]
    curvature = after.preconditioned if why.held else after.curvature
    epochs = "the first epoch" if after.epoch == 1 else f"epoch {after.epoch}"
    return (
        f" At lr {_n(below)}, where it learns, it too begins above its limit, {_n(why.limit and why.limit / below)}; "
        f"after {epochs} the curvature is {_n(curvature)}."
    )


def _by_length(why: RuleWhy) -> str:
    cliff = why.cliff
    alone = (
        f"at the latest from lr {_n(cliff.expected)} on, where its first step alone lifts the mean loss of the first "
        f"epoch above {DIVERGENCE_FACTOR:g} times that of the untrained network"
    )
    if cliff.expected == math.inf:
        alone = f"not below {BEYOND:,g} times the highest of these: no first step up to there lifts the loss that far"
    end = "." if cliff.agrees else ": this is not explained."
    return f". Its steps are as long however faint the gradient; expected {alone}{end}"


def _nothing(why: RuleWhy) -> str:
    if why.reason:
        return why.reason
    if why.limit in (0.0, math.inf):
        return f"on a quadratic it is {'never' if not why.limit else 'always'} stable"
    return "its first step is neither in proportion to the gradient nor of a length of its own"


def on_limits(rules: Sequence[RuleWhy]) -> str:
    """How near the best runs came to the limits of their rules, after the first epoch."""
    found = []
    for why in rules:
        sizes = [why.sharpness(one, why.best_lr) for one in why.best if one.epoch and why.best_lr]
        known = [size for size in sizes if size is not None]
        if known:
            found.append((max(known), why.rule))
    if not found:
        return "No rule of this race has a limit that its best run could be held against."
    listed = ", ".join(f"{rule} {_n(size)}" for size, rule in sorted(found, reverse=True))
    return (
        "At their best learning rates, the highest that lr times the curvature came to after the start, over the "
        f"limit: {listed}."
    )


def on_noise(rules: Sequence[RuleWhy], batch_size: int) -> str:
    """What part of a batch's gradient is noise, at the start and at the end of the best runs."""
    runs = [run for run in _whole(rules) if len(run) > 1]
    ends = sorted(run[-1].noise_scale for run in runs if math.isfinite(run[-1].noise_scale))
    start = runs[0][0].noise_scale if runs else math.inf
    if not ends or not math.isfinite(start):
        return ""
    many = f"{_n(ends[0])} to {_n(ends[-1])}" if len(ends) > 1 else _n(ends[0])
    begins = f"The gradient noise scale is {_n(start)} rows at the start and {many} at the end of the best runs"
    sizes = {why.batch_size or batch_size for why in rules}
    if len(sizes) > 1:
        return f"{begins}, which had batches of {min(sizes)} to {max(sizes)}."
    (size,) = sizes
    shares = [f"{scale / (scale + size):.0%}" for scale in (start, ends[0], ends[-1])]
    late = f"{shares[1]} to {shares[2]}" if shares[1] != shares[2] else shares[1]
    return (
        f"{begins}: with batches of {size}, {shares[0]} of a gradient's square is noise at first and {late} at the end."
    )


def on_updates(rules: Sequence[RuleWhy]) -> str:
    """How far a step moves the weights of a layer, at the end of the best runs."""
    ratios = sorted(ratio for run in _whole(rules) for ratio in run[-1].update_ratios if math.isfinite(ratio))
    if not ratios:
        return ""
    return (
        f"At the end of the best runs a step moves the weights of a layer by {_n(ratios[0])} to {_n(ratios[-1])} of "
        "their length; 0.001 is a usual guide."
    )


def _whole(rules: Sequence[RuleWhy]) -> list[Sequence[Surroundings]]:
    """The best runs that have been seen to their ends: those that diverged have not."""
    last = max((why.best[-1].epoch for why in rules if why.best), default=0)
    return [why.best for why in rules if why.best and why.best[-1].epoch == last]


def _n(value: float | None) -> str:
    if value is None:
        return "nothing"
    return f"{value:,.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"
