"""What a rule saves against what people do now: steps, on the same seeds.

On each seed it is counted after how many steps a run is as low for the first time as what people have now ended, which
is known where losses are looked at. Both runs are counted so, and the share of the steps is the geometric mean over the
seeds, with the test and the interval of every other comparison of a race. Any rule may be picked for what it saves:
each is held to a significance divided by their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from downslope.lab.engines.protocol import Run
from downslope.lab.races.comparison import Comparison
from downslope.lab.races.statistics import against_one, seeds_for
from downslope.lab.races.verdict import percent


def first_at(run: Run, target: float) -> float:
    """When a run is at a target for the first time; infinite if never."""
    return next((time for time, loss in zip(run.times, run.valid_loss, strict=True) if loss <= target), math.inf)


def effects(
    runs: Mapping[str, Sequence[Run]], now: Sequence[Run], *, overlap: float, margin: float
) -> dict[str, Comparison]:
    """How many steps every rule needs to get as low as what people have now, as a share of what that needs.

    Args:
        runs: The runs of the verdict of each rule, in the order of the seeds.
        now: Those of what people have now.
        overlap: As for `downslope.lab.races.statistics.compare`.
        margin: As there.
    """
    needed = {
        rule: [_steps(run, ended.final_loss) for run, ended in zip(those, now, strict=True)]
        for rule, those in runs.items()
    }
    own = [math.inf if run.diverged_at is not None else _steps(run, run.final_loss) for run in now]
    return against_one(needed, own, "now", claims=max(1, len(needed)), overlap=overlap, margin=margin)


def _steps(run: Run, target: float) -> float:
    """The first look after the start at which a run is at a target, whatever it was before."""
    if run.diverged_at is not None and math.isinf(target):
        return math.inf
    later = zip(run.times, run.valid_loss, strict=True)
    return next((time for time, loss in later if time > 0 and loss <= target), math.inf)


def sentence(found: Comparison, seeds: int, claims: int, unit: Literal["steps", "epochs"] = "steps") -> str:
    """What a rule saves, in one sentence.

    Args:
        found: What it needs, as a share.
        seeds: On how many seeds.
        claims: Among how many rules it may have been picked.
        unit: What is saved; epochs where rules have batches of different sizes.

    Example:
        >>> from downslope.lab.races.comparison import Interval
        >>> saved = Interval(0.62, 0.56, 0.69, 0.95)
        >>> sentence(Comparison("adam", "now", saved, 1.0, 0.002, 0.01, "first"), 10, 6)
        'adam saves 38 % of the steps against what you do now (31 to 44 %, 95 % interval).'
    """
    rule, ratio = found.first, found.ratio
    if found.outcome == "first":
        if ratio.estimate == 0:
            return f"{rule} gets on more seeds where what you do now ends than that does itself, which fails on some."
        saved = f"{percent(1 - ratio.high)} to {percent(1 - ratio.low)} %, {100 * ratio.level:.3g} % interval"
        return f"{rule} saves {percent(1 - ratio.estimate)} % of the {unit} against what you do now ({saved})."
    keep = "keep what you have"
    if found.outcome == "second":
        how = "does not get there on every seed" if math.isinf(ratio.estimate) else f"takes {_more(ratio.estimate)}"
        return f"Nothing saves {unit} against what you do now: {rule}, the lowest of the others, {how}; {keep}."
    if found.outcome == "alike":
        return f"{rule} takes practically as many {unit} as what you do now; {keep}."
    range_ = "" if math.isnan(ratio.low) else f" ({_less_or_more(ratio.low)} to {_less_or_more(ratio.high)})"
    needed = seeds_for(claims)
    few = f" on {seeds} seeds, which are too few: run at least {needed}" if seeds < needed else f"{range_}; {keep}"
    return f"Whether {rule} saves {unit} against what you do now cannot be told{few}."


def _more(ratio: float) -> str:
    return f"{percent(ratio - 1)} % more" if ratio < 2 else f"{ratio:.3g} times as many"


def _less_or_more(ratio: float) -> str:
    if math.isinf(ratio):
        return "any more"
    return f"{percent(1 - ratio)} % fewer" if ratio <= 1 else _more(ratio)
