"""What experiments look like: the ways on their map, curves over the steps, the loss over the learning rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from downslope.claims.drawing import Axis, Line, Point, at, path_of, picture
from downslope.extras import require
from downslope.walks.paths import Path
from downslope.walks.pictures import LEVELS

if TYPE_CHECKING:
    from downslope.claims.experiments import Raced, Walked, Walks
    from downslope.claims.racing import Races

MOST = 160
"""Points of a curve: of more, some are taken together."""

MOST_LINES = 7
"""Lines of a picture: of more forms of a rule, the one that is soonest at the goal is drawn."""

CEILING = 2.0
"""Losses above so many times that before training are not drawn."""


def walk_picture(experiment: Walked, found: Walks) -> str:
    """What a walk's picture shows, as SVG."""
    paths = {name: found.path(name) for name in _drawn(found)}
    if experiment.shows == "way" and len(found.walk.start) > 1:
        return _map(experiment, found, paths)
    steps = found.walk.steps
    if experiment.shows == "way":
        low, high = _ends([*(end for end in found.walk.surface.ranges["x"]), found.walk.start[0]])
        lines = [Line(name, _thinned(range(steps + 1), path.points[:, 0])) for name, path in paths.items()]
        level = found.walk.minima[0][0] if found.walk.minima else None
        return picture(experiment.title, lines, Axis("steps", 0, steps), Axis("x", low, high), level=level)
    if experiment.shows == "loss":
        return _losses(experiment, found, paths)
    lines = [Line(name, _thinned(range(1, steps + 1), path.effective[:, 0], log=True)) for name, path in paths.items()]
    return picture(
        experiment.title, lines, Axis("steps", 1, steps, log=True), _log_axis("step per unit of slope", lines)
    )


def _drawn(found: Walks) -> Iterable[str]:
    """The paths that are drawn: of several forms of a rule, the soonest."""
    many = len(found.paths) > MOST_LINES
    return dict.fromkeys(name.partition(",")[0] if many else name for name in found.paths)


def _losses(experiment: Walked, found: Walks, paths: dict[str, Path]) -> str:
    steps, lowest = found.walk.steps, found.walk.lowest
    size = -(-steps // MOST)
    lines = []
    for name, path in paths.items():
        above = np.maximum(path.losses - lowest, 1e-300)
        groups = [above[k : k + size] for k in range(0, len(above), size)]
        lines.append(Line(name, [(k * size, float(group.mean())) for k, group in enumerate(groups)]))
    label = "loss above the lowest" + (f", mean of {size} steps" if size > 1 else "")
    axis = _log_axis(label, lines, least=1e-6 * float(found.walk.paths[0].losses[0] - lowest))
    return picture(experiment.title, lines, Axis("steps", 0, steps), axis)


def _map(experiment: Walked, found: Walks, paths: dict[str, Path]) -> str:
    surface = found.walk.surface
    ends = np.array([surface.ranges[name] for name in surface.variables])
    x, y = (Axis(name, *pair) for name, pair in zip(surface.variables, ends.tolist(), strict=True))
    lines = [Line(name, [(float(a), float(b)) for a, b in path.points[:400]]) for name, path in paths.items()]
    goals = "".join(
        f'<path d="M{a - 6:.1f},{b:.1f}h12M{a:.1f},{b - 6:.1f}v12" stroke="var(--ink)" stroke-width="1.5"/>'
        for a, b in (at(x, y, minimum) for minimum in found.walk.minima)  # type: ignore[arg-type]
    )
    return picture(experiment.title, lines, x, y, ground=_contours(surface, x, y) + goals)


def _contours(surface: Any, x: Axis, y: Axis) -> str:
    """The lines of equal loss, where most of the surface lies between them."""
    require("The contour lines of a map", "walk", ["contourpy"])
    from contourpy import contour_generator

    across, up = np.linspace(x.low, x.high, 121), np.linspace(y.low, y.high, 81)
    heights = surface(*np.meshgrid(across, up))
    known = np.sort(heights[np.isfinite(heights)])
    generator = contour_generator(across, up, heights)
    levels = np.unique(known[(np.array(LEVELS) * (known.size - 1)).astype(int)])
    ways = [
        path_of(at(x, y, (float(a), float(b))) for a, b in np.asarray(way)[:: 1 + len(way) // 80])
        for level in levels
        for way in generator.lines(float(level)) or ()
        if len(way) > 3
    ]
    return f'<path d="{"".join(ways)}" stroke="var(--line)"/>'


def race_picture(experiment: Raced, found: Races) -> str:
    """The final loss over the learning rate; for sizes of batches the loss over the epochs. As SVG."""
    if experiment.batches:
        lines = [Line(name, _course(result.verdict)) for name, result in found.results.items()]
        last = max(point[0] for line in lines for point in line.points)
        return picture(
            experiment.title,
            lines,
            Axis("epochs", 1, last, log=True),
            _log_axis("validation loss, median", lines),
        )
    lines = [
        Line(name, list(_canyon(result.tuning, found.races[name].tuning_seeds)))
        for name, result in found.results.items()
    ]
    first = statistics.median(run.valid_loss[0] for result in found.results.values() for run in result.verdict)
    rates = [point[0] for line in lines for point in line.points]
    across = Axis("learning rate", min(rates), max(rates), log=True)
    return picture(experiment.title, lines, across, _log_axis("final validation loss", lines, most=CEILING * first))


def _course(runs: Sequence[Any]) -> list[Point]:
    """The median loss after each epoch from the first."""
    medians = [statistics.median(losses) for losses in zip(*(run.valid_loss for run in runs), strict=True)]
    kept = sorted(
        {round(len(medians) ** (k / 40)) for k in range(41)} & set(range(1, len(medians))) | {len(medians) - 1}
    )
    return [(float(epoch), medians[epoch]) for epoch in kept]


def _canyon(runs: Sequence[Any], seeds: Iterable[int]) -> Iterable[Point]:
    """The median final loss at each learning rate, over the seeds that all of them had."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        if run.seed not in seeds:
            continue  # what the best ones were confirmed by
        by_rate.setdefault(run.lr, []).append(run.final_loss)
    for lr in sorted(by_rate):
        yield lr, statistics.median(by_rate[lr])


def _thinned(steps: Sequence[int], values: Any, *, log: bool = False) -> list[Point]:
    count = len(steps)
    if log:
        kept = sorted({round((count - 1) ** (k / MOST)) for k in range(MOST + 1)} | {0})
    else:
        kept = list(range(0, count, -(-count // MOST)))
    return [(float(steps[k]), float(values[k])) for k in kept]


def _log_axis(label: str, lines: Sequence[Line], *, least: float = 0.0, most: float = math.inf) -> Axis:
    values = [b for line in lines for _, b in line.points if 0 < b < math.inf]
    low, high = max(min(values), least), min(max(values), most)
    return Axis(label, low / 1.3, max(high, 2 * low) * 1.3, log=True)


def _ends(values: Iterable[float]) -> tuple[float, float]:
    known = list(values)
    more = 0.04 * (max(known) - min(known))
    return min(known) - more, max(known) + more
