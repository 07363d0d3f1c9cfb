"""What a race found, told from its finished runs."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.protocol import BATCH_SIZE, Run, Setting, how_lost
from downslope.lab.races.comparison import Comparison, Interval
from downslope.lab.races.effects import effects, first_at
from downslope.lab.races.effects import sentence as effect
from downslope.lab.races.raced import Raced
from downslope.lab.races.results import Baseline, Race, RuleResult
from downslope.lab.races.settings import at_the_end, lacking, tuned_over
from downslope.lab.races.statistics import against_one, compare, geometric_mean, interval, standing
from downslope.lab.races.tuning import Tuning
from downslope.lab.races.verdict import verdict
from downslope.lab.races.why import Why
from downslope.targets.latex import latex
from downslope.version import __version__

SAFE_FACTOR = 1.5
"""A learning rate is safe while its mean validation loss stays within this factor of the best."""

FEW_ROWS = 50
"""With fewer validation rows a loss says little, and a race warns of it."""

CAUSES = 3
"""So many of the causes for which runs failed are told in the sentence about them."""


def outcome(raced: Raced, tuning: Tuning, *, interrupted: bool, seconds: float, why: Why | None = None) -> Race:
    """What the finished runs of a race say about its rules.

    Args:
        raced: What the rules were raced on.
        tuning: The runs, and the learning rates that were found to be the best.
        interrupted: Whether the race was stopped before its end.
        seconds: How long it took.
        why: What explains it.
    """
    plan, engine = tuning.plan, tuning.engine
    training, seeds, overlap = engine.description, plan.verdict_seeds, raced.overlap
    by_constant = _baseline(raced)
    results = [_rule_result(tuning, name, overlap) for name in plan.entrants]
    first = next((result for result in results if not result.tuned), results[0])
    target, note = _target(first, seeds, plan.target_loss)
    finals = {
        result.rule: [run.final_loss for run in result.verdict] or [math.inf] * len(seeds)
        for result in results
        if len(result.verdict) == len(seeds) or (result.edge == "low" and result.best_lr is None)
    }
    comparisons = compare(finals, overlap=overlap, margin=plan.margin)
    useful = None
    if by_constant is not None:
        useful = against_one(finals, by_constant.losses, overlap=overlap, margin=plan.margin)
    judged = verdict(
        finals,
        comparisons,
        raced=len(results),
        splits=raced.splits,
        baseline=useful,
        baseline_name=raced.constant_name,
        lost={result.rule: how_lost(result.verdict or result.tuning) for result in results},
    )
    saved = _against_now(results, finals, overlap, plan.margin)
    tuned = [result.rule for result in results if result.tuned]
    if saved and len(finals) == len(results):
        lowest = min(tuned, key=lambda rule: standing(finals[rule]))
        unit: Literal["steps", "epochs"] = "epochs" if training is not None and BATCH_SIZE in plan.grid else "steps"
        judged = f"{effect(saved[lowest], len(seeds), len(tuned), unit)} {judged}"
    if plan.grid and (tries := tuning.tries):
        judged = f"{judged} {tuned_over(plan.grid, tries)}"
    race = Race(
        problem=raced.name,
        title=raced.title,
        about=raced.about,
        shows=raced.shows,
        task=raced.task,
        data_hash=raced.data_hash,
        sizes=raced.sizes,
        network=training.network if training else "",
        weights=training.weights if training else None,
        batch_size=training.batch_size if training else None,
        epochs=training.epochs if training else None,
        steps_per_epoch=training.steps_per_epoch if training else None,
        learning_rates=plan.learning_rates,
        seed=plan.seed,
        split_seed=plan.split_seed,
        tuning_seeds=plan.tuning_seeds,
        confirming_seeds=plan.confirming_seeds,
        verdict_seeds=seeds,
        splits=raced.splits,
        overlap=overlap,
        margin=plan.margin,
        target_loss=target,
        target_note=note,
        safe_factor=SAFE_FACTOR,
        rules=tuple(
            replace(
                result,
                against_baseline=(useful or {}).get(result.rule),
                against_now=saved.get(result.rule),
            )
            for result in results
        ),
        baseline=by_constant,
        comparisons=comparisons,
        verdict=judged,
        cautions=(
            *_few_rows(raced.sizes),
            *lacking(plan.grid, plan.settings),
            *at_the_end(plan.grid, tuning.best, plan.entrants),
            *_failures(tuning.runs),
            *_unequal(results),
            *tuning.cautions,
            *([] if tuning.allowance is None else tuning.allowance.dropped),
        ),
        remarks=raced.remarks,
        interrupted=interrupted or (tuning.allowance is not None and tuning.allowance.over),
        seconds=seconds,
        environment=_environment(engine.threads, own=bool(raced.about)),
        walks=None if tuning.trails is None else tuning.trails.walks([run for r in results for run in r.verdict]),
        why=why,
        schedule=plan.schedule,
        grid=dict(plan.grid),
        budget=None if tuning.allowance is None else tuning.allowance.spent(),
    )
    timed = [
        replace(result, steps_to_target=steps_to(target, result.verdict, race.steps_of(result.setting)))
        for result in race.rules
    ]
    return replace(race, rules=tuple(timed))


def safe_range(
    losses: Mapping[float, float], best: float | None, factor: float = SAFE_FACTOR
) -> tuple[float, float] | None:
    """The unbroken range of learning rates around the best that stay within a factor of its loss.

    Example:
        >>> safe_range({0.001: 0.9, 0.01: 0.25, 0.1: 0.2, 1.0: 0.21, 10.0: float("inf")}, 0.1)
        (0.01, 1.0)
    """
    if best is None:
        return None
    rates = sorted(losses)
    low = high = rates.index(best)
    bound = factor * losses[best]
    while low > 0 and losses[rates[low - 1]] <= bound:
        low -= 1
    while high < len(rates) - 1 and losses[rates[high + 1]] <= bound:
        high += 1
    return rates[low], rates[high]


def _baseline(raced: Raced) -> Baseline | None:
    if not raced.constant:
        return None
    losses = tuple(loss for loss, _ in raced.constant)
    accuracies = [accuracy for _, accuracy in raced.constant if accuracy is not None]
    return Baseline(losses, interval(losses, overlap=raced.overlap), _mean(accuracies, raced.overlap, "arithmetic"))


def _few_rows(sizes: Mapping[str, int]) -> tuple[str, ...]:
    valid_rows = sizes.get("valid", FEW_ROWS)
    if valid_rows >= FEW_ROWS:
        return ()
    rows = "is one validation row" if valid_rows == 1 else f"are {valid_rows} validation rows"
    return (f"There {rows}, on which learning rates were chosen and rules judged: a few rows more could change both.",)


def _failures(runs: Sequence[Run]) -> tuple[str, ...]:
    """That runs failed otherwise than by diverging, and why: the commonest causes, each with its first run."""
    failed = [run for run in runs if run.cause]
    if not failed:
        return ()
    causes: dict[str, list[Run]] = {}
    for run in failed:
        causes.setdefault(run.cause, []).append(run)
    common = sorted(causes.items(), key=lambda item: -len(item[1]))[:CAUSES]
    listed = "; ".join(
        f"{cause} ({len(those)}, such as {those[0].rule} at {those[0].lr:g} on seed {those[0].seed})"
        for cause, those in common
    )
    more = f"; and {len(causes) - CAUSES} other causes" if len(causes) > CAUSES else ""
    some = "One run failed" if len(failed) == 1 else f"{len(failed):,} of {len(runs):,} runs failed"
    counts = "counts" if len(failed) == 1 else "count"
    return (f"{some} otherwise than by diverging, and {counts} as if diverged: {listed}{more}.",)


def _unequal(results: Sequence[RuleResult]) -> tuple[str, ...]:
    """That runs of the verdict ended after different numbers of steps."""
    ends = {run.times[-1] for result in results for run in result.verdict if run.steps and run.diverged_at is None}
    if len(ends) < 2:
        return ()
    return (
        f"Runs of the verdict ended after {min(ends):,} to {max(ends):,} steps: they had not the same budget, unless "
        "stopping early is part of the training.",
    )


def _rule_result(tuning: Tuning, name: str, overlap: float) -> RuleResult:
    at = tuning.best.get(name)
    best, setting = (None, ()) if at is None else at
    entrant = tuning.plan.entrants[name].at(setting)
    verdict_runs = tuning.of(name, "verdict")
    default = entrant.default_lr
    at_default = [
        run.final_loss
        for run in tuning.of(name, "tuning")
        if run.lr == default and run.seed in tuning.plan.tuning_seeds and not run.setting
    ]
    known = tuning.plan.defaults and len(at_default) == len(tuning.plan.tuning_seeds)
    return RuleResult(
        rule=name,
        title=entrant.title,
        formula=latex(entrant.settings.program),
        hyperparameters={**entrant.numbers, **entrant.settings.choices, **_around(entrant, setting)},
        tuning=tuning.of(name, "tuning"),
        verdict=verdict_runs,
        best_lr=best,
        safe_range=safe_range(tuning.losses(name), best) if entrant.lr is None else None,
        edge=tuning.edges.get(name),
        loss=_mean([run.final_loss for run in verdict_runs], overlap),
        finished_loss=geometric_mean([run.final_loss for run in verdict_runs]) if verdict_runs else None,
        best_loss=_mean([run.best_loss for run in verdict_runs], overlap),
        accuracy=_mean([run.valid_accuracy[-1] for run in verdict_runs if run.valid_accuracy], overlap, "arithmetic"),
        test_loss=_mean([run.test_loss for run in verdict_runs], overlap),
        test_accuracy=_mean([run.test_accuracy for run in verdict_runs], overlap, "arithmetic"),
        against_baseline=None,
        steps_to_target=None,
        seconds=tuning.engine.seconds[name],
        tuned=entrant.lr is None,
        default_lr=default if known else None,
        default_loss=_over_all(at_default) if known else None,
        setting=setting,
    )


def _around(entrant: Entrant, setting: Setting) -> dict[str, bool]:
    """What a grid put around a rule that is a yes or no, where it is a yes."""
    return {name: True for name, value in setting if value is True and name in entrant.settings.options}


def _against_now(
    results: Sequence[RuleResult], finals: Mapping[str, Sequence[float]], overlap: float, margin: float
) -> dict[str, Comparison]:
    """What every rule that was judged saves against what people have now, if that was judged too."""
    now = next((result for result in results if not result.tuned and result.rule in finals), None)
    if now is None:
        return {}
    runs = {result.rule: result.verdict for result in results if result.tuned and result.rule in finals}
    return effects({r: those for r, those in runs.items() if those}, now.verdict, overlap=overlap, margin=margin)


def _over_all(losses: Sequence[float]) -> float:
    """The geometric mean, infinite if one is."""
    return math.inf if math.inf in losses else geometric_mean(losses)


def _mean(
    values: Sequence[float | None], overlap: float, mean: Literal["geometric", "arithmetic"] = "geometric"
) -> Interval | None:
    known = [value for value in values if value is not None]
    return interval(known, mean, overlap=overlap) if known else None


def _target(first: RuleResult, seeds: Sequence[int], given: float | None) -> tuple[float | None, str]:
    if given is not None:
        return given, "given by the user"
    finals = [run.final_loss for run in first.verdict]
    target = statistics.median_high(finals) if len(finals) == len(seeds) else math.inf
    which = f"{first.rule}, the first rule," if first.tuned else "what you do now"
    if math.isinf(target):
        return None, f"{which} did not finish, so there is no loss to time the others by"
    return target, f"where {which} ends (upper median over the reporting seeds)"


def steps_to(target: float | None, runs: Sequence[Run], steps_per_epoch: int) -> float | None:
    """The median over runs of the steps after which the validation loss is at the target for the first time.

    Validation is looked at after every epoch, or where a training of one's own reports. A run that never gets there
    counts as infinite.
    """
    if target is None or not runs:
        return None
    firsts = [first_at(run, target) * steps_per_epoch for run in runs]
    return float(statistics.median_low(firsts))  # of an even number the lower: half of the runs got there by then


def _environment(threads: int, *, own: bool) -> dict[str, Any]:
    packages = ["jax", "jaxlib", "numpy", "scipy", "scikit-learn"]
    versions = {name: importlib.metadata.version(name) for name in packages}
    if own:  # what it may have trained with
        for name in ("torch", "keras", "tensorflow", "optax", "flax"):
            if (version := getattr(sys.modules.get(name), "__version__", None)) is not None:
                versions[name] = version
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"downslope": __version__, "python": sys.version.split()[0], **versions},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "trainings at a time": threads,
        },
    }
