"""The walks of the network: what the picture of them shows, and its sentences.

The page fills in the points of the walks, as far as its slider goes.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable
from typing import Any

from downslope.lab.engines.protocol import Run
from downslope.lab.races.plane import Plane, Walks
from downslope.lab.races.results import Race
from downslope.lab.report.drawing import Picture, View, log_axis, looks, loss_range, within

ROOM = 1.08  # by how much the picture reaches beyond the walks
HALF = 0.5  # of a walk of which less is seen, the picture says so
TICKS = 6  # at most so many on the scale of colours
AWAY = 1.5  # a run that diverged may reach so many times as far as those that finished before it leaves the picture


def plane_picture(race: Race) -> Picture:
    """A view per seed: the runs of the verdict on the plane of that seed, each point in the colour of its true loss.

    The axes have the unit of the weights, and one unit is as long across as it is up.
    """
    if race.walks is None:
        return Picture("plane", {}, ())
    layout = {
        "margin": {"l": 56, "r": 12, "t": 18, "b": 52},
        "yaxis": {"scaleanchor": "x"},
        "coloraxis": _loss_scale(race),
        "annotations": [_start()],
    }
    styles = tuple(
        {
            "type": "scatter",
            "name": rule,
            "meta": {"rule": rule},
            "mode": "lines+markers",
            "line": {"color": look.colour, "width": 1.6, "dash": look.dash},
            "marker": {"coloraxis": "coloraxis", "line": {"color": look.colour}, "symbol": look.symbol, "opacity": 1},
            "hovertemplate": f"{html.escape(rule)} %{{text}}<extra></extra>",
        }
        for rule, look in looks(race).items()
    )
    views = tuple(
        View(str(plane.seed), f"seed {plane.seed}", (), note=about(race, plane), layout=_axes(race, plane))
        for plane in race.walks.planes
    )
    return Picture("plane", layout, views, styles)


def walked(race: Race) -> dict[str, Any] | None:
    """The points of all walks with their losses, which the page draws as far as its slider goes; None without walks."""
    if race.walks is None:
        return None
    planes = []
    for plane in race.walks.planes:
        runs = _runs(race, plane)
        walks = [
            {
                "rule": walk.rule,
                "x": walk.x,
                "y": walk.y,
                "losses": [runs[walk.rule].valid_loss[epoch] for epoch in race.walks.epochs[: len(walk.x)]],
                "lost": runs[walk.rule].diverged_at is not None,
            }
            for walk in plane.walks
            if walk.rule in runs
        ]
        planes.append({"seed": plane.seed, "walks": walks})
    return {"epochs": race.walks.epochs, "planes": planes}


def about(race: Race, plane: Plane) -> str:
    """How much of the walks of a seed is seen, and what became of each that is not there to its end."""
    shown = "all" if sum(plane.shown) > 0.9995 else _percent(sum(plane.shown))
    sentences = [f"Seed {plane.seed}: this plane shows {shown} of how far the weights moved."]
    lost = {rule: run.diverged_at for rule, run in _runs(race, plane).items() if run.diverged_at is not None}
    if lost:
        listed = ", ".join(f"{rule} in epoch {epoch}" for rule, epoch in lost.items())
        sentences.append(f"Diverged: {listed}; a cross marks the last point before.")
    if hardly := [f"{w.rule} ({_percent(w.shown)})" for w in plane.walks if w.shown is not None and w.shown < HALF]:
        sentences.append(f"Less than half is seen of {', '.join(hardly)}.")
    if still := [walk.rule for walk in plane.walks if walk.shown is None and walk.rule not in lost]:
        sentences.append(f"Did not move: {', '.join(still)}.")
    walked = {walk.rule for walk in plane.walks} & _runs(race, plane).keys()
    if missing := [result.rule for result in race.rules if result.rule not in walked]:
        sentences.append(f"Not run to an end on this seed: {', '.join(missing)}.")
    return " ".join(sentences)


def limits(race: Race, walks: Walks) -> str:
    """What was left out so that page and memory stay small; empty if nothing was."""
    sentences = []
    if len(walks.epochs) <= race.last:
        sentences.append(f"Of {race.last} epochs, {len(walks.epochs) - 1} are shown, more of them early.")
    if len(walks.planes) < len(race.verdict_seeds):
        sentences.append(f"Of {len(race.verdict_seeds)} reporting seeds, {len(walks.planes)} are shown.")
    if walks.error:
        off = f"distances in the picture are off by about {_percent(walks.error)}"
        sentences.append(f"Of so many weights only random sums were kept: {off}.")
    return " ".join(sentences)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.3g} %"


def _runs(race: Race, plane: Plane) -> dict[str, Run]:
    return {result.rule: run for result in race.rules for run in result.verdict if run.seed == plane.seed}


def _axes(race: Race, plane: Plane) -> dict[str, Any]:
    runs = _runs(race, plane)
    walks = [walk for walk in plane.walks if walk.rule in runs]
    lost = [walk for walk in walks if runs[walk.rule].diverged_at is not None]
    finished = [walk for walk in walks if walk not in lost]
    return {
        "xaxis": {
            # Without a standoff, which Plotly takes from where the ticks were before it made both axes of one scale.
            "title": {"text": f"first direction, {_percent(plane.shown[0])}", "standoff": None},
            "range": _edges([walk.x for walk in finished], [walk.x for walk in lost]),
        },
        "yaxis": {
            "title": {"text": f"second direction, {_percent(plane.shown[1])}"},
            "range": _edges([walk.y for walk in finished], [walk.y for walk in lost]),
        },
    }


def _edges(finished: Iterable[tuple[float, ...]], lost: Iterable[tuple[float, ...]]) -> list[float]:
    """The edges of an axis: around the start and all walks, but not around all of those that diverged."""
    kept = [0.0, *itertools.chain(*finished)]
    low, high = min(kept), max(kept)
    reach = AWAY * (high - low) or math.inf
    near = [*kept, *(within(value, -reach, reach) for value in itertools.chain(*lost))]
    low, high = min(near), max(near)
    room = (ROOM - 1) * (high - low) or 1.0
    return [float(f"{low - room:.4g}"), float(f"{high + room:.4g}")]


def _loss_scale(race: Race) -> dict[str, Any]:
    """Colours for losses, by their logarithm: the lower, the stronger."""
    low, top = loss_range(_losses(race), None)
    ticks = log_axis("", (low, top))
    apart = math.ceil(len(ticks["tickvals"]) / TICKS)
    return {
        "cmin": math.log10(low),
        "cmax": math.log10(top),
        "colorscale": [[0, "@ink"], [1, "@card"]],
        "colorbar": {
            "title": {"text": race.loss_name, "side": "top", "font": {"size": 12, "color": "@muted"}},
            "tickvals": [math.log10(tick) for tick in ticks["tickvals"][::apart]],
            "ticktext": ticks["ticktext"][::apart],
            "tickfont": {"size": 11, "color": "@muted"},
            "tickangle": 0,
            "orientation": "h",
            "thickness": 10,
            "lenmode": "pixels",
            "len": 250,
            "ypad": 2,
            "x": 1,
            "xanchor": "right",
            "y": 1,
            "yanchor": "bottom",
            "outlinecolor": "@line",
        },
    }


def _losses(race: Race) -> Iterable[float]:
    assert race.walks is not None
    for plane in race.walks.planes:
        for run in _runs(race, plane).values():
            yield from (run.valid_loss[epoch] for epoch in race.walks.epochs)


def _start() -> dict[str, Any]:
    at = {"x": 0, "y": 0, "ax": -14, "ay": 30, "arrowhead": 6, "arrowsize": 1.4, "arrowwidth": 1, "arrowcolor": "@ink"}
    return at | {"text": "start", "font": {"size": 12, "color": "@ink"}}
