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

from downslope.lab.engines.protocol import Run
from downslope.lab.problems.baseline import NAMES, baseline_on
from downslope.lab.problems.problem import Problem
from downslope.lab.races.comparison import Interval
from downslope.lab.races.results import Baseline, Race, RuleResult
from downslope.lab.races.statistics import against_baseline, compare, geometric_mean, interval
from downslope.lab.races.tuning import Tuning
from downslope.lab.races.verdict import verdict
from downslope.lab.races.why import Why
from downslope.targets.latex import latex
from downslope.version import __version__

SAFE_FACTOR = 1.5
"""A learning rate is safe while its mean validation loss stays within this factor of the best."""

FEW_ROWS = 50
"""With fewer validation rows a loss says little, and a race warns of it."""


def outcome(problem: Problem, tuning: Tuning, *, interrupted: bool, seconds: float, why: Why | None = None) -> Race:
    """What the finished runs of a race say about its rules.

    Args:
        problem: What the rules were raced on.
        tuning: The runs, and the learning rates that were found to be the best.
        interrupted: Whether the race was stopped before its end.
        seconds: How long it took.
        why: What explains it.
    """
    plan, engine = tuning.plan, tuning.engine
    training, seeds = engine.description, plan.verdict_seeds
    numbers = [engine.split_number(seed) for seed in seeds]
    sizes = {name: len(rows) for name, rows in problem.split(plan.split_seed)._asdict().items()}
    splits = len(set(numbers))
    overlap = sizes["valid"] / sizes["train"] if splits > 1 else 0.0
    by_constant = _baseline(problem, plan.split_seed, numbers, overlap)
    results = [_rule_result(tuning, name, overlap) for name in plan.entrants]
    target, note = _target(results[0], seeds, plan.target_loss)
    finals = {
        result.rule: [run.final_loss for run in result.verdict] or [math.inf] * len(seeds)
        for result in results
        if len(result.verdict) == len(seeds) or (result.edge == "low" and result.best_lr is None)
    }
    comparisons = compare(finals, overlap=overlap, margin=plan.margin)
    useful = against_baseline(finals, by_constant.losses, overlap=overlap, margin=plan.margin)
    steps = training.steps_per_epoch
    return Race(
        problem=problem.name,
        title=problem.title,
        task=problem.task,
        data_hash=problem.data_hash,
        sizes=sizes,
        network=training.network,
        weights=training.weights,
        batch_size=training.batch_size,
        epochs=training.epochs,
        steps_per_epoch=steps,
        learning_rates=plan.learning_rates,
        seed=plan.seed,
        split_seed=plan.split_seed,
        tuning_seeds=plan.tuning_seeds,
        confirming_seeds=plan.confirming_seeds,
        verdict_seeds=seeds,
        splits=splits,
        overlap=overlap,
        margin=plan.margin,
        target_loss=target,
        target_note=note,
        safe_factor=SAFE_FACTOR,
        rules=tuple(
            replace(r, steps_to_target=steps_to(target, r.verdict, steps), against_baseline=useful.get(r.rule))
            for r in results
        ),
        baseline=by_constant,
        comparisons=comparisons,
        verdict=verdict(
            finals,
            comparisons,
            raced=len(results),
            splits=splits,
            baseline=useful,
            baseline_name=NAMES[problem.task],
        ),
        cautions=_cautions(sizes["valid"]),
        remarks=problem.remarks,
        interrupted=interrupted,
        seconds=seconds,
        environment=_environment(engine.threads),
        walks=tuning.trails.walks([run for result in results for run in result.verdict]),
        why=why,
    )


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


def _baseline(problem: Problem, split_seed: int, numbers: Sequence[int], overlap: float) -> Baseline:
    by_split = {}
    for number in set(numbers):
        train, valid, _ = problem.split(split_seed, number)
        by_split[number] = baseline_on(problem, train, valid)
    found = [by_split[number] for number in numbers]
    losses = tuple(loss for loss, _ in found)
    accuracies = [accuracy for _, accuracy in found if accuracy is not None]
    return Baseline(losses, interval(losses, overlap=overlap), _mean(accuracies, overlap, "arithmetic"))


def _cautions(valid_rows: int) -> tuple[str, ...]:
    if valid_rows >= FEW_ROWS:
        return ()
    rows = "is one validation row" if valid_rows == 1 else f"are {valid_rows} validation rows"
    return (f"There {rows}, on which learning rates were chosen and rules judged: a few rows more could change both.",)


def _rule_result(tuning: Tuning, name: str, overlap: float) -> RuleResult:
    entrant = tuning.plan.entrants[name]
    verdict_runs = tuning.of(name, "verdict")
    best = tuning.best.get(name)
    return RuleResult(
        rule=name,
        formula=latex(entrant.settings.program),
        hyperparameters={**entrant.numbers, **entrant.settings.choices},
        tuning=tuning.of(name, "tuning"),
        verdict=verdict_runs,
        best_lr=best,
        safe_range=safe_range(tuning.losses(name), best),
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
    )


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
    if math.isinf(target):
        return None, f"{first.rule}, the first rule, did not finish, so there is no loss to time the others by"
    return target, f"where {first.rule}, the first rule, ends (upper median over the reporting seeds)"


def steps_to(target: float | None, runs: Sequence[Run], steps_per_epoch: int) -> float | None:
    """The median over runs of the steps after which the validation loss is at the target for the first time.

    Validation is looked at after every epoch. A run that never gets there counts as infinite.
    """
    if target is None or not runs:
        return None
    firsts = [
        next((epoch * steps_per_epoch for epoch, loss in enumerate(run.valid_loss) if loss <= target), math.inf)
        for run in runs
    ]
    return float(statistics.median_low(firsts))  # of an even number the lower: half of the runs got there by then


def _environment(threads: int) -> dict[str, Any]:
    packages = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"downslope": __version__, "python": sys.version.split()[0]}
        | {name: importlib.metadata.version(name) for name in packages},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "trainings at a time": threads,
        },
    }
