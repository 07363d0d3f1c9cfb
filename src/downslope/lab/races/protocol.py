"""A fair race: every rule tuned with the same budget, then judged on seeds it was not tuned on."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from downslope.lab.engines.protocol import SEEDS_PER_RACE, Progress, Run
from downslope.lab.problems.baseline import NAMES, baseline
from downslope.lab.problems.columns import Columns, DataError
from downslope.lab.problems.problem import Problem, Split, load_problem
from downslope.lab.races.course import PER_DECADE, Course, Stage
from downslope.lab.races.results import Baseline, Interval, Race, RuleResult
from downslope.lab.races.statistics import MARGIN, against_baseline, compare, geometric_mean, interval
from downslope.lab.races.verdict import verdict
from downslope.rule import Rule
from downslope.rules import TEXTBOOK
from downslope.version import __version__

GRID = tuple(float(f"{10 ** (k / PER_DECADE):.3g}") for k in range(-5 * PER_DECADE, PER_DECADE + 1))
"""The learning rates every rule starts from: three per decade from 1e-5 to 10."""

SAFE_FACTOR = 1.5
"""A learning rate is safe while its mean validation loss stays within this factor of the best."""

CONFIRMING_SEEDS = 7
"""More tuning seeds for the learning rates that look best."""

FEW_ROWS = 50
"""With fewer validation rows a loss says little, and a race warns of it."""

FIRST_VERDICT_SEED = 1000
"""Reporting seeds count from here, tuning seeds from 0: no run is judged by luck it was chosen for."""

Splits = Literal["varied", "fixed"]


def race(
    problem: str | Problem = "digits",
    rules: Sequence[Rule] | None = None,
    *,
    learning_rates: Sequence[float] = GRID,
    tuning_seeds: int = 3,
    confirming_seeds: int = CONFIRMING_SEEDS,
    verdict_seeds: int = 10,
    seed: int = 0,
    split_seed: int = 0,
    splits: Splits = "varied",
    hyperparameters: Mapping[str, Mapping[str, float | bool]] | None = None,
    margin: float = MARGIN,
    target_loss: float | None = None,
    threads: int | None = None,
    watch: Callable[[Stage | Progress], None] | None = None,
) -> Race:
    """Race update rules on a network and data, each at its own best learning rate.

    Every rule is tuned over the same learning rates on the same tuning seeds; a best value of any rule on the edge of
    the grid widens the grid there by a decade for all, at most twice on each side. What a few seeds like may be luck,
    above all beside the cliff where training falls apart: so the four learning rates of each rule with the lowest mean
    final validation loss are run on more tuning seeds, and the lowest mean over all of these is the best (if none of
    the four holds for some rule, each rule gets four more). It is then run again on fresh reporting seeds, and only
    these runs decide.

    For each seed all rules start from the same weights, train and validate on the same rows, and see the same batches.
    Each seed, of tuning too, has a random split of its own, so that neither the learning rate nor the verdict hangs on
    one split; how the rows are scaled is learned from the training rows of that split. The test rows are the same for
    all races, and looked at once, at the end. A run that diverges has an infinite loss.

    Args:
        problem: The name of a built-in problem, or one from `downslope.lab.load_table`.
        rules: The rules, each with a hyperparameter `lr`; by default downslope's six.
        learning_rates: The grid to start from.
        tuning_seeds: Runs per learning rate.
        confirming_seeds: Further runs of the learning rates that look best.
        verdict_seeds: Runs of each rule's best learning rate. Proving a difference needs at least 6.
        seed: Which initial weights and orders of batches, in tuning and verdict; no two races with different ones have
            a run's in common. The same numbers give the same race, bit for bit.
        split_seed: Which random splits.
        splits: `"varied"`: each seed has its own split; `"fixed"`: all have one, and the verdict is about that one.
        hyperparameters: Per name of a rule, values other than its defaults.
        margin: The smallest difference in loss that matters, as a share: 0.01 is 1 %. Rules that differ by less are
            practically alike.
        target_loss: A validation loss to time the rules by; by default where the first rule ends.
        threads: Trainings at a time; by default one per processor.
        watch: Called with a `Stage` when a part of the race begins, and with the engine's progress after every epoch.

    Returns:
        All that was found. After Ctrl-C, what was found until then, marked as interrupted.

    Raises:
        ValueError: An argument does not allow a race; the message names it.

    Example:
        >>> import downslope, downslope.lab
        >>> result = downslope.lab.race(
        ...     "parabola", [downslope.sgd, downslope.adam], learning_rates=[0.01, 0.1], tuning_seeds=1, verdict_seeds=2
        ... )
        >>> [rule.rule for rule in result.rules]
        ['sgd', 'adam']
    """
    from downslope.lab.engines.engine import Engine

    start = time.perf_counter()
    chosen = load_problem(problem) if isinstance(problem, str) else problem
    if not isinstance(chosen, Problem):
        kind = type(chosen).__name__
        raise DataError(f"problem: a {kind} is no problem; make one with load_table(..., target=COLUMN)")
    entrants = list(rules) if rules is not None else _usual_rules()
    counts = {"tuning_seeds": tuning_seeds, "confirming_seeds": confirming_seeds, "verdict_seeds": verdict_seeds}
    rates = _checked(entrants, learning_rates, counts, target_loss)
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin < 1:
        raise ValueError(f"margin={margin!r}: give a share from 0 to less than 1, such as 0.01 for 1 %")
    _check_luck(seed, split_seed, splits)
    engine = Engine(
        chosen,
        entrants,
        hyperparameters=hyperparameters,
        threads=threads,
        split_seed=split_seed,
        varied=splits == "varied",
    )
    tuning, confirming, seeds = _seeds(seed, tuning_seeds, confirming_seeds, verdict_seeds)
    for one in (*tuning, *confirming, *seeds) if chosen.task == "regression" else ():
        chosen.split(split_seed, engine.split_number(one))  # refuses a split whose target is constant, before training
    course = Course(engine, chosen, rates, tuning, confirming, watch or (lambda _: None))
    course.allowed = {rule.name: rule.ranges["lr"] for rule in entrants}
    try:
        course.tune([rule.name for rule in entrants])
        course.judge(seeds)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    settings = {rule.name: dict((hyperparameters or {}).get(rule.name, {})) for rule in entrants}
    while True:
        try:
            seconds = time.perf_counter() - start
            return _result(course, entrants, settings, seed, seeds, margin, target_loss, interrupted, seconds)
        except KeyboardInterrupt:  # all that is left takes a second, and nobody wants to lose a race to it
            interrupted = True


def _check_luck(seed: int, split_seed: int, splits: str) -> None:
    for name, value in (("seed", seed), ("split_seed", split_seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name}={value!r}: give a whole number of at least 0")
    if splits not in get_args(Splits):
        raise ValueError(f"splits={splits!r}: give 'varied' for a split of its own per seed, or 'fixed' for one split")


def _seeds(seed: int, tuning: int, confirming: int, verdict: int) -> tuple[tuple[int, ...], ...]:
    """The seeds of a race: none is in two of its parts, nor in another race."""
    start = SEEDS_PER_RACE * int(seed)
    first = max(FIRST_VERDICT_SEED, tuning + confirming)
    if first + verdict > SEEDS_PER_RACE:
        raise ValueError(
            f"tuning_seeds={tuning}, confirming_seeds={confirming} and verdict_seeds={verdict} are more than "
            f"{SEEDS_PER_RACE:,} seeds; give fewer"
        )
    bounds = ((0, tuning), (tuning, tuning + confirming), (first, first + verdict))
    return tuple(tuple(range(start + low, start + high)) for low, high in bounds)


def _usual_rules() -> list[Rule]:
    return list(TEXTBOOK)


def _checked(
    rules: Sequence[Rule], rates: Iterable[float], counts: Mapping[str, int], target: float | None
) -> tuple[float, ...]:
    """The learning rates in ascending order, or an error that names the argument that is wrong."""
    if isinstance(rules, str) or not rules:
        raise ValueError(f"rules={rules!r}: give a list of rules, such as [downslope.sgd, downslope.adam]")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise ValueError(f"rules holds {rule!r}; give rules such as downslope.adam")
    try:
        ordered = tuple(sorted({float(rate) for rate in rates}))
    except (TypeError, ValueError):
        raise ValueError(f"learning_rates={rates!r}: give a list of numbers") from None
    if not ordered or not all(1e-30 <= rate <= 1e30 for rate in ordered):
        raise ValueError(f"learning_rates={list(ordered)}: give at least one, all from 1e-30 to 1e30")
    for rule in rules:
        for rate in ordered:
            if "lr" in rule.ranges and rate not in rule.ranges["lr"]:
                raise ValueError(
                    f"learning_rates: {rate:g} is out of range for {rule.name}; expected {rule.ranges['lr']}"
                )
    for name, count in counts.items():
        least = 0 if name == "confirming_seeds" else 1
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < least:
            raise ValueError(f"{name}={count!r}: give a whole number of at least {least}")
    if target is not None and not math.isfinite(target):
        raise ValueError(f"target_loss={target!r}: give a finite number")
    return ordered


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


def _result(
    course: Course,
    rules: Sequence[Rule],
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
    seeds: tuple[int, ...],
    margin: float,
    target_loss: float | None,
    interrupted: bool,
    seconds: float,
) -> Race:
    from downslope.lab.engines.ground import batch_order
    from downslope.lab.engines.network import Network

    problem, network = course.problem, Network.of(course.problem)
    numbers = [course.engine.split_number(one) for one in seeds]
    sizes = {name: len(rows) for name, rows in problem.split(course.engine.split_seed)._asdict().items()}
    steps, batch_size = batch_order(0, 1, sizes["train"], problem.batch_size).shape
    splits = len(set(numbers))
    overlap = sizes["valid"] / sizes["train"] if splits > 1 else 0.0
    by_constant = _baseline(problem, course.engine.split_seed, numbers, overlap)
    results = [_rule_result(course, rule, settings[rule.name], overlap) for rule in rules]
    target, note = _target(results[0], seeds, target_loss)
    finals = {
        result.rule: [run.final_loss for run in result.verdict] or [math.inf] * len(seeds)
        for result in results
        if len(result.verdict) == len(seeds) or (result.edge == "low" and result.best_lr is None)
    }
    comparisons = compare(finals, overlap=overlap, margin=margin)
    useful = against_baseline(finals, by_constant.losses, overlap=overlap, margin=margin)
    return Race(
        problem=problem.name,
        title=problem.title,
        task=problem.task,
        data_hash=problem.data_hash,
        sizes=sizes,
        network=f"{'-'.join(map(str, network.sizes))} MLP, {_ACTIVATIONS.get(network.activation, network.activation)}",
        weights=network.size,
        batch_size=batch_size,
        epochs=problem.epochs,
        steps_per_epoch=steps,
        learning_rates=course.rates,
        seed=int(seed),
        split_seed=int(course.engine.split_seed),
        tuning_seeds=course.tuning_seeds,
        confirming_seeds=course.confirming_seeds,
        verdict_seeds=seeds,
        splits=splits,
        overlap=overlap,
        margin=margin,
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
            raced=len(rules),
            splits=splits,
            baseline=useful,
            baseline_name=NAMES[problem.task],
        ),
        cautions=_cautions(sizes["valid"]),
        remarks=problem.remarks,
        interrupted=interrupted,
        seconds=seconds,
        environment=_environment(course.engine.threads),
    )


_ACTIVATIONS = {"relu": "ReLU"}


def _baseline(problem: Problem, split_seed: int, numbers: Sequence[int], overlap: float) -> Baseline:
    by_split = {}
    for number in set(numbers):
        train, valid, _ = problem.split(split_seed, number)
        y: Any = problem.targets
        if isinstance(y, Columns):
            y = y.scaling(train).of(y.values)
        nothing = np.empty((len(y), 0), np.float32)
        rows = (Split(nothing[part], y[part]) for part in (train, valid))
        by_split[number] = baseline(problem.task, *rows)
    found = [by_split[number] for number in numbers]
    losses = tuple(loss for loss, _ in found)
    accuracies = [accuracy for _, accuracy in found if accuracy is not None]
    return Baseline(losses, interval(losses, overlap=overlap), _mean(accuracies, overlap, "arithmetic"))


def _cautions(valid_rows: int) -> tuple[str, ...]:
    if valid_rows >= FEW_ROWS:
        return ()
    rows = "is one validation row" if valid_rows == 1 else f"are {valid_rows} validation rows"
    return (f"There {rows}, on which learning rates were chosen and rules judged: a few rows more could change both.",)


def _rule_result(course: Course, rule: Rule, settings: Mapping[str, Any], overlap: float) -> RuleResult:
    name = rule.name
    verdict_runs = course.of(name, "verdict")
    losses = course.losses(name)
    best = course.best.get(name)
    used: dict[str, Any] = {**rule.hyperparameters, **rule.flags, **settings}
    flags = {key: value for key, value in used.items() if key in rule.flags}
    return RuleResult(
        rule=name,
        formula=rule.latex(**flags),
        hyperparameters={key: value for key, value in used.items() if key != "lr"},
        tuning=course.of(name, "tuning"),
        verdict=verdict_runs,
        best_lr=best,
        safe_range=safe_range(losses, best),
        edge=course.edges.get(name),
        loss=_mean([run.final_loss for run in verdict_runs], overlap),
        finished_loss=geometric_mean([run.final_loss for run in verdict_runs]) if verdict_runs else None,
        best_loss=_mean([run.best_loss for run in verdict_runs], overlap),
        accuracy=_mean([run.valid_accuracy[-1] for run in verdict_runs if run.valid_accuracy], overlap, "arithmetic"),
        test_loss=_mean([run.test_loss for run in verdict_runs], overlap),
        test_accuracy=_mean([run.test_accuracy for run in verdict_runs], overlap, "arithmetic"),
        against_baseline=None,
        steps_to_target=None,
        seconds=course.engine.seconds[name],
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
