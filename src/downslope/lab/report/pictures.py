"""The pictures of a race: what each of them shows, from which runs.

A picture has one or more views, of which the page shows one at a time.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.protocol import Run
from downslope.lab.races.look import COLOURS, Look
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.tries import best_after, on_the_grid
from downslope.lab.report.drawing import (
    Picture,
    View,
    band,
    curve,
    curve_layout,
    in_the_middle,
    level,
    line,
    log_axis,
    looks,
    loss_range,
    number,
    points_each,
    short,
    strip_title,
    trace,
    within,
)
from downslope.lab.report.why import expected_marks

ROW, LOW_ROW = 17, 13  # pixels for one rule in the strips above and below the canyon; low where there are many
CANYON = 400
STRIP_GAP = 26


def canyon(race: Race) -> Picture:
    """Learning rate across, final validation loss up: a ribbon per rule, with divergence above and safe ranges below.

    The ribbon reaches from the lowest to the highest loss over the tuning seeds, the line is their median. Losses
    beyond the top edge, and the cliffs towards learning rates that diverged, are drawn at that edge.
    """
    look = looks(race)
    race = _on_tuning_seeds(race)
    order = list(look)
    race = replace(race, rules=tuple(sorted(race.rules, key=lambda result: order.index(result.rule))))
    finals = [run.final_loss for result in race.rules for run in result.tuning]
    start = loss_before_training(race)
    low, top = loss_range(finals, start)
    diverging = [result for result in race.rules if any(run.diverged_at is not None for run in result.tuning)]
    safe = [result for result in race.rules if result.safe_range is not None]
    traces: list[dict[str, Any]] = []
    for result in race.rules:
        traces += _valley(result, look[result.rule], low, top)
    for result in diverging:
        traces.append(_crosses(result, look[result.rule]))
    for result in safe:
        traces += _safe_bar(result, look[result.rule], race.safe_factor)
    traces += expected_marks(race, look, top)
    rows = ([short(result.rule) for result in diverging], [short(result.rule) for result in safe])
    layout = _canyon_layout(*rows, (low, top), _decades(race), race.loss_name)
    if any(run.times[0] == 0 for result in race.rules for run in result.tuning):
        layout |= level(start, "before training", "middle", "above")  # over the valley
    if not any(math.isfinite(loss) for loss in finals):
        text = "every run diverged" if finals else "nothing has been run yet"
        layout["annotations"].append(in_the_middle(text))
    return Picture("canyon", layout, (View("all", "", tuple(traces)),))


def same_and_tuned(race: Race) -> Picture:
    """Validation loss over epochs on the tuning seeds: every rule at one learning rate, or each at its own best.

    Both kinds of view show the same runs' seeds on the same axes, so that only the learning rates differ.
    """
    race = _on_tuning_seeds(race)
    look = looks(race)
    losses = (loss for result in race.rules for run in result.tuning for loss in run.valid_loss)
    edges = loss_range(losses, loss_before_training(race))
    points = points_each(len(race.rules) * (len(race.learning_rates) + 1))
    views = [_own_view(race, look, edges, points)]
    views += [_shared_view(race, look, lr, edges, points) for lr in race.learning_rates]
    layout = curve_layout(race.unit, race.loss_name, edges) | {"height": 420}
    layout["xaxis"] |= {"range": [0, race.last * 1.01]}
    return Picture("pair", layout, tuple(views))


def after_tries(race: Race) -> Picture:
    """Tries across, the lowest loss up: the median over all ways to draw so many learning rates, and its quartiles."""
    look = looks(race)
    values = {result.rule: list(on_the_grid(race, result).values()) for result in race.rules if result.tuned}
    known = {rule: losses for rule, losses in values.items() if losses}
    if not known:
        return Picture("tries", {}, ())
    edges = loss_range((loss for losses in known.values() for loss in losses), loss_before_training(race))
    traces: list[dict[str, Any]] = []
    for rule, losses in known.items():
        tries = list(range(1, len(losses) + 1))
        low, middle, high = ([best_after(losses, k, share) for k in tries] for share in (0.25, 0.5, 0.75))
        traces += curve(rule, look[rule], tries, middle, low, high, edges[1])
    layout = curve_layout(
        "settings tried" if race.grid else "learning rates tried", f"lowest {race.loss_name}", edges
    ) | {"height": 420}
    layout["xaxis"] |= {"range": [0.8, max(map(len, known.values())) + 0.2]}
    return Picture("tries", layout, (View("all", "", tuple(traces)),))


def _on_tuning_seeds(race: Race) -> Race:
    """The race with those tuning runs only that every learning rate had: not the further ones of the best.

    Of a rule with a grid, those in the setting that was chosen.
    """
    seeds = set(race.tuning_seeds)
    rules = [replace(r, tuning=tuple(run for run in r.across if run.seed in seeds)) for r in race.rules]
    return replace(race, rules=tuple(rules))


def by_learning_rate(runs: Iterable[Run]) -> dict[float, list[Run]]:
    """Group runs by their learning rate, lowest first."""
    groups: dict[float, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.lr, []).append(run)
    return dict(sorted(groups.items()))


def _valley(result: RuleResult, look: Look, low: float, top: float) -> list[dict[str, Any]]:
    finals = {lr: [run.final_loss for run in runs] for lr, runs in by_learning_rate(result.tuning).items()}
    medians = {lr: float(np.median(losses)) for lr, losses in finals.items()}
    traces = []
    for lrs in _stretches(finals, lambda losses: math.isfinite(min(losses))):
        lows = [within(min(finals[lr]), low, top) for lr in lrs]
        highs = [within(max(finals[lr]), low, top) for lr in lrs]
        traces.append(band(result.rule, look, lrs, lows, highs))
    cliffs_x, cliffs_y = _cliffs(medians, low, top)
    if cliffs_x:
        cliff = {"color": look.colour, "width": 1.5, "dash": "dot"}
        traces.append(trace(result.rule, x=cliffs_x, y=cliffs_y, mode="lines", line=cliff, hoverinfo="skip"))
    middle = [within(median, low, top) if math.isfinite(median) else None for median in medians.values()]
    if any(value is not None for value in middle):
        notes = [f"{number(median)} ({len(finals[lr])} seeds)" for lr, median in medians.items()]
        traces.append(line(result.rule, look, list(medians), middle, notes, markers=None))
    return traces


def _cliffs(medians: dict[float, float], low: float, top: float) -> tuple[list[float | None], list[float | None]]:
    x: list[float | None] = []
    y: list[float | None] = []
    lrs = list(medians)
    for left, right in itertools.pairwise(lrs):
        if math.isfinite(medians[left]) != math.isfinite(medians[right]):
            x += [left, right, None]
            y += [within(medians[left], low, top), within(medians[right], low, top), None]
    return x, y


def _crosses(result: RuleResult, look: Look) -> dict[str, Any]:
    groups = by_learning_rate(result.tuning)
    failures = {lr: sum(run.diverged_at is not None for run in runs) for lr, runs in groups.items()}
    failed = [lr for lr, count in failures.items() if count]
    every = [failures[lr] == len(groups[lr]) for lr in failed]
    return trace(
        result.rule,
        x=failed,
        y=[short(result.rule)] * len(failed),
        yaxis="y2",
        mode="markers",
        marker={
            "symbol": ["x" if all_seeds else "x-thin" for all_seeds in every],
            "size": 8,
            "color": look.colour,
            "line": {"color": look.colour, "width": [0 if all_seeds else 1.6 for all_seeds in every]},
        },
        text=[f"{failures[lr]} of {len(groups[lr])} seeds diverged" for lr in failed],
        hovertemplate=f"{html.escape(result.rule)} at %{{x}}: %{{text}}<extra></extra>",
    )


def _safe_bar(result: RuleResult, look: Look, factor: float) -> list[dict[str, Any]]:
    assert result.safe_range is not None
    row = short(result.rule)
    low, high = result.safe_range
    bar = trace(
        result.rule,
        x=[low, high],
        y=[row, row],
        yaxis="y3",
        mode="lines+markers",
        line={"color": look.colour, "width": 4},
        marker={"symbol": "line-ns", "size": 9, "color": look.colour, "line": {"color": look.colour, "width": 2}},
        hovertemplate=f"{html.escape(result.rule)} stays within {factor:g} × its best from {number(low)} "
        f"to {number(high)}<extra></extra>",
    )
    if result.best_lr is None:
        return [bar]
    best = trace(
        result.rule,
        x=[result.best_lr],
        y=[row],
        yaxis="y3",
        mode="markers",
        marker={"symbol": look.symbol, "size": 13, "color": look.colour, "line": {"color": "@page", "width": 1.5}},
        hovertemplate=f"{html.escape(result.rule)} is best at {number(result.best_lr)}<extra></extra>",
    )
    return [bar, best]


def _canyon_layout(
    diverging: list[str], safe: list[str], losses: tuple[float, float], decades: tuple[float, float], loss_name: str
) -> dict[str, Any]:
    row = ROW if max(len(diverging), len(safe)) <= COLOURS else LOW_ROW
    above = len(diverging) * row + STRIP_GAP if diverging else 0
    below = len(safe) * row + STRIP_GAP if safe else 0
    inner = CANYON + above + below
    bottom, top = below / inner, (CANYON + below) / inner
    layout: dict[str, Any] = {
        "height": inner + 70,
        "xaxis": log_axis("learning rate", decades) | {"anchor": "y3" if safe else "y"},
        "yaxis": log_axis(f"final {loss_name}", losses) | {"domain": [bottom, top]},
        "annotations": [],
    }
    if diverging:
        domain = [top + (STRIP_GAP * 0.75) / inner, 1]
        layout["yaxis2"] = _strip(diverging, domain, row)
        layout["annotations"].append(strip_title("diverged", 1))
    if safe:
        layout["yaxis3"] = _strip(safe, [0, bottom - STRIP_GAP / inner], row)
        layout["annotations"].append(strip_title("safe range, and the best learning rate", bottom - STRIP_GAP / inner))
    return layout


def _strip(rows: list[str], domain: list[float], row: int) -> dict[str, Any]:
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": rows,
        "tickvals": rows,
        "range": [len(rows) - 0.4, -0.6],
        "domain": domain,
        "showgrid": False,
        "tickfont": {"size": min(11, row - 3)},
    }


def _own_view(race: Race, look: dict[str, Look], edges: tuple[float, float], points: int) -> View:
    traces: list[dict[str, Any]] = []
    settings, without = [], []
    for result in race.rules:
        runs = [run for run in result.tuning if result.best_lr is not None and math.isclose(run.lr, result.best_lr)]
        if runs:
            traces += _spread(result.rule, look[result.rule], runs, edges, points)
            settings.append(f"{result.rule} {number(result.best_lr)}")
        else:
            without.append(result.rule)
    note = f"Learning rates: {', '.join(settings)}." if settings else ""
    if without:
        note += f" No working learning rate was found for {', '.join(without)}."
    return View("own", "each rule at its own best learning rate", tuple(traces), note.strip())


def _shared_view(race: Race, look: dict[str, Look], lr: float, edges: tuple[float, float], points: int) -> View:
    traces: list[dict[str, Any]] = []
    failed = []
    for result in race.rules:
        runs = [run for run in result.tuning if math.isclose(run.lr, lr)]
        if runs:
            traces += _spread(result.rule, look[result.rule], runs, edges, points)
        if runs and all(run.diverged_at is not None for run in runs):
            failed.append(result.rule)
    note = f"Diverged at this learning rate: {', '.join(failed)}." if failed else ""
    return View(f"lr={lr!r}", number(lr), tuple(traces), note)


def _spread(
    rule: str, look: Look, runs: Sequence[Run], edges: tuple[float, float], points: int
) -> list[dict[str, Any]]:
    times, curves = beside_each_other(runs, lambda run: run.valid_loss, math.inf, points)
    middle = np.median(curves, axis=0).tolist()
    return curve(rule, look, times, middle, curves.min(axis=0).tolist(), curves.max(axis=0).tolist(), edges[1])


def beside_each_other(
    runs: Sequence[Run], read: Callable[[Run], tuple[float, ...] | None], lost: float, points: int
) -> tuple[list[int], NDArray[np.float64]]:
    """The times that all runs have which finished, or all that some has, and what each run was at there.

    Of many times some are taken, evenly, the first and the last among them.

    Args:
        runs: Runs of a rule.
        read: Their curve.
        lost: What it is at from where a run was lost.
        points: The most times.
    """
    whole = [set(run.times) for run in runs if run.diverged_at is None]
    times = sorted(set.intersection(*whole) if whole else set().union(*(run.times for run in runs)))
    if len(times) > points:
        times = [times[place] for place in np.linspace(0, len(times) - 1, points).round().astype(int)]
    rows = []
    for run in runs:
        values = np.array(read(run))
        # Where a run has no entry it is at what it was before; after its last it was lost.
        places = np.searchsorted(run.times, times, side="right") - 1
        rows.append(np.where(np.array(times) > run.times[-1], lost, values[np.maximum(places, 0)]))
    return times, np.array(rows)


def loss_before_training(race: Race) -> float | None:
    """The median of what runs were at first: before training, if they tell it."""
    first = [run.valid_loss[0] for result in race.rules for run in (*result.tuning, *result.verdict)]
    finite = [loss for loss in first if math.isfinite(loss)]
    return float(np.median(finite)) if finite else None


def _decades(race: Race) -> tuple[float, float]:
    tried = {run.lr for result in race.rules for run in result.tuning} | set(race.learning_rates)
    return (min(tried) / 1.4, max(tried) * 1.4) if tried else (1e-4, 10.0)


def _stretches(finals: dict[float, list[float]], holds: Callable[[list[float]], bool]) -> list[list[float]]:
    stretches: list[list[float]] = [[]]
    for lr, losses in finals.items():
        if holds(losses):
            stretches[-1].append(lr)
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]
