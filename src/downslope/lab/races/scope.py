"""What a verdict holds for, and whether rules had another order when a quarter of the training was done.

The second is read off the tuning runs, which are trained anyway: at a quarter as at the end, each rule is taken at that
learning rate of the grid at which it is lowest then, as if it had been tuned for so many steps. No test says anything
of it. Under a schedule a quarter of a run is not what a shorter run would be, and nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from downslope.lab.engines.entrant import REST_RATIO
from downslope.lab.engines.protocol import BATCH_SIZE, Run
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.statistics import geometric_mean
from downslope.lab.races.tries import on_the_grid, tried
from downslope.rules import adamw

SHARE = 0.25
"""How much of a run the shorter one is."""


def trained(race: Race, only: RuleResult | None = None) -> int | None:
    """The steps of the longest run of the verdict, perhaps of one rule only; None if none came to its end."""
    ended = [
        run.times[-1] * race.steps_of(run.setting)
        for result in race.rules
        if only in (None, result)
        for run in result.verdict
        if run.diverged_at is None
    ]
    return max(ended, default=None)


def holds_for(race: Race) -> str:
    """Steps, batches, width, schedule and weight decay that the verdict is about, in one sentence; else empty.

    What a training of one's own does beside the rules is not known, and said to be its own.
    """
    steps = trained(race)
    if steps is None:
        return ""
    where, batches = f"{steps:,} step{'s' if steps != 1 else ''}", f"batches of {race.batch_size}"
    if BATCH_SIZE in race.grid:
        sizes = {result.rule: result.batch_size or race.batch_size for result in race.rules if result.verdict}
        listed = ", ".join(f"{size} in {rule}" for rule, size in sizes.items())
        if race.epochs is not None:
            where = f"{race.epochs} epochs"
        batches = f"batches of {listed if len(set(sizes.values())) > 1 else next(iter(sizes.values()))}"
    if race.batch_size is not None and not race.sizes:
        where += f" of {race.weights:,} weights on this function"
    elif race.batch_size is not None:
        where += f" with {batches}, on a {race.network}, of {race.weights:,} weights"
    elif BATCH_SIZE in race.grid:
        where += f" with {batches}"
    schedule, decay = "" if race.schedule == "constant" else f"the schedule {race.schedule}", _decay(race)
    if race.batch_size is not None:
        return f"This holds for {where}, {schedule or 'a constant learning rate'} and {decay or 'no weight decay'}."
    *parts, last = (part for part in (where, schedule, decay) if part)
    known = f"{', '.join(parts)} and {last}" if parts else last
    own = [*([] if schedule else ["schedule"]), *([] if decay else ["weight decay"])]
    own += [] if BATCH_SIZE in race.grid else ["batches"]
    if not own:
        return f"This holds for {known}; the model is that of the training."
    return f"This holds for {known}; {', '.join(own)} and model are those of the training."


def _decay(race: Race) -> str:
    """The weight decay of the rules, and of AdamW beside one for matrices; empty where none has any."""
    decays: dict[str, float] = {}
    for result in race.rules:
        decays[result.rule] = own = result.hyperparameters.get("weight_decay", 0.0)
        rest = float(dict(result.setting).get("weight_decay", adamw.hyperparameters["weight_decay"]) or 0.0)
        if REST_RATIO in result.hyperparameters and rest != own:
            decays[f"the {adamw.name} of {result.rule}"] = rest
    if not any(decays.values()):
        return ""
    if len(set(decays.values())) == 1:
        return f"weight decay {next(iter(decays.values())):g}"
    return "weight decay " + ", ".join(f"{decay:g} in {rule}" for rule, decay in decays.items() if decay)


def earlier(race: Race) -> str:
    """Whether the order of the rules was the same at a quarter of the training, in one sentence; empty if not known."""
    if race.schedule != "constant":
        return ""
    found: dict[str, tuple[float, float]] = {}
    for result in race.rules:
        grid = on_the_grid(race, result) if result.tuned else {}
        seen = [run for run in tried(race, result) if run.seed in race.tuning_seeds]
        runs = {at: [run for run in seen if (run.lr, run.setting) == at] for at in grid}
        early = [_early(those) for those in runs.values()]
        if grid and None not in early:
            found[result.rule] = min(loss for loss in early if loss is not None), min(grid.values())
    known = {rule: both for rule, both in found.items() if math.isfinite(max(both))}
    if len(known) < 2:
        return ""
    orders = [sorted(known, key=lambda rule: known[rule][place]) for place in (0, 1)]
    told = [", ".join(f"{rule} {known[rule][place]:.3g}" for rule in orders[place]) for place in (0, 1)]
    if orders[0] == orders[1]:
        how = "the order was the same"
    elif orders[0][0] == orders[1][0]:
        how = f"{orders[0][0]} was lowest too, and others have changed places since"
    else:
        how = f"another rule was lowest, {orders[0][0]}: shorter trainings are another question"
    return (
        f"At a quarter of the steps, each rule at what was then its best learning rate on the tuning seeds, {how} "
        f"({told[0]}; at the end {told[1]})."
    )


def _early(runs: Sequence[Run]) -> float | None:
    """The geometric mean of the losses at a quarter; infinite if a run was lost by then, None if nobody looked."""
    losses = []
    for run in runs:
        until = SHARE * max(one.times[-1] for one in runs)
        seen = [loss for time, loss in zip(run.times, run.valid_loss, strict=True) if 0 < time <= until]
        if not seen and run.diverged_at is None:
            return None
        losses.append(seen[-1] if seen else math.inf)
    return math.inf if math.inf in losses else geometric_mean(losses)
