"""The picture of the runs of the verdict: losses and accuracies over steps, and over seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.protocol import Run
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.statistics import geometric_mean
from downslope.lab.report.drawing import MOST_POINTS, Picture, View, curve, curve_layout, level, looks, loss_range
from downslope.lab.report.pictures import beside_each_other, loss_before_training


def training_curves(race: Race) -> Picture:
    """The reporting runs over steps and seconds: their mean, and a band that holds the middle half of the seeds.

    Means are those of the verdict: geometric ones of losses, over the runs that finished; so a line ends at the number
    in the table. If none finished, it goes on to where the last one diverged.
    """
    look = looks(race)
    start = loss_before_training(race)
    kinds: list[tuple[str, str, Callable[[Run], tuple[float, ...] | None]]] = [
        ("valid", race.loss_name, lambda run: run.valid_loss),
        ("train", "training loss" if race.sizes else "loss of the steps", lambda run: run.train_loss),
        ("accuracy", "validation accuracy", lambda run: run.valid_accuracy),
    ]
    views = []
    steps_of = {result.rule: race.steps_of(result.setting) for result in race.rules}
    for key, label, read in kinds:
        runs = {result.rule: [run for run in result.verdict if read(run)] for result in race.rules}
        if not any(runs.values()):
            continue
        traces: list[dict[str, Any]] = []
        every = [value for those in runs.values() for run in those for value in read(run) or ()]
        edges = (0.0, 1.0) if key == "accuracy" else loss_range(every, start)
        for rule, those in runs.items():
            if those:
                lost = 0.0 if key == "accuracy" else math.inf
                times, values = beside_each_other(those, read, lost, MOST_POINTS)
                steps = [time * steps_of[rule] for time in times]
                middle, lower, upper = _mean_and_middle_half(values, "arithmetic" if key == "accuracy" else "geometric")
                traces += curve(rule, look[rule], steps, middle, lower, upper, edges[1])
        target = race.target_loss if key == "valid" else None
        layout = curve_layout("step", label, None if key == "accuracy" else edges)
        views.append(View(key, label, tuple(traces), layout=layout | level(target, "target", "start", "below")))
    paces = {result.rule: pace(race, result) for result in race.rules}
    if views and views[0].key == "valid" and all(paces[one["meta"]["rule"]] for one in views[0].traces):
        views.insert(1, _over_seconds(views[0], race, paces))
    layout = curve_layout("step", "", None) | {"height": 420}
    layout["xaxis"] |= {"range": [0, race.last * max(steps_of.values()) * 1.01]}
    return Picture("curves", layout, tuple(views))


def pace(race: Race, result: RuleResult) -> float:
    """The seconds of a step of a rule: the mean over all steps of all of its runs; 0 if it has none.

    Where runs are trained side by side, it is the share that each has of the time.
    """
    runs = (*result.tuning, *result.verdict)
    ends = [run.times[-1] if run.diverged_at is None else run.diverged_at for run in runs]
    steps = sum(end * race.steps_of(run.setting) for end, run in zip(ends, runs, strict=True))
    return result.seconds / max(1, steps)


def _over_seconds(view: View, race: Race, paces: dict[str, float]) -> View:
    """The same curves, every step as long as it is."""
    traces = [{**one, "x": [step * paces[one["meta"]["rule"]] for step in one["x"]]} for one in view.traces]
    last = max((x for one in traces for x in one["x"]), default=1.0)
    layout = curve_layout("seconds of training", race.loss_name, None)
    layout = {**(view.layout or {}), "xaxis": layout["xaxis"] | {"range": [0, last * 1.01]}}
    return View("seconds", f"{race.loss_name} over seconds", tuple(traces), layout=layout)


def _mean_and_middle_half(
    values: NDArray[np.float64], mean: Literal["geometric", "arithmetic"]
) -> tuple[list[float], list[float], list[float]]:
    middle = values.mean(axis=0) if mean == "arithmetic" else _geometric_means(values)
    # Without interpolation, which between a finite and an infinite loss has no answer.
    lower = np.quantile(values, 0.25, axis=0, method="lower")
    upper = np.quantile(values, 0.75, axis=0, method="higher")
    return middle.tolist(), lower.tolist(), upper.tolist()


def _geometric_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means over the first axis of those rows that end finite or, if there are none, of what is still finite."""
    finished = values[np.isfinite(values[:, -1])]
    return np.array([geometric_mean(column) for column in (finished if len(finished) else values).T])
