"""The picture and the section about the time to the target: one mark for each seed, and those that missed it."""

from __future__ import annotations

import html
import math
from typing import Any

from downslope.lab.races.effects import first_at
from downslope.lab.races.look import Look
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.report.curves import pace
from downslope.lab.report.drawing import Picture, View, looks, number, short, trace
from downslope.lab.report.markup import plot, section, segments

ROW = 40  # pixels for a rule
SPREAD = 0.6  # of its row, over which its seeds are spread
BEYOND = 1.07
"""So many times as far as the last mark those are drawn that missed the target."""


def time_to_target(race: Race) -> Picture:
    """Steps or seconds across, a row for each rule: a mark for each reporting seed, and a tick at their median.

    A seed that never reached the target has a cross beyond all others.
    """
    judged = [result for result in race.ranked if result.verdict]
    if race.target_loss is None or not judged:
        return Picture("target", {}, ())
    steps = {one.rule: {run.seed: _steps(race, one, run.seed) for run in one.verdict} for one in judged}
    paces = {one.rule: pace(race, one) for one in judged}
    views = [_view(race, judged, steps, "step", dict.fromkeys(paces, 1.0))]
    if all(paces.values()):
        views.append(_view(race, judged, steps, "second", paces))
    layout: dict[str, Any] = {
        "height": ROW * len(judged) + 90,
        "yaxis": {
            "tickvals": list(range(len(judged))),
            "ticktext": [short(one.rule) for one in judged],
            "range": [len(judged) - 0.5, -0.5],
            "showgrid": False,
        },
        "hovermode": "closest",
    }
    return Picture("target", layout, tuple(views))


def _steps(race: Race, result: RuleResult, seed: int) -> float:
    """The steps after which the run of a seed is at the target for the first time; infinite if never."""
    assert race.target_loss is not None
    run = next(run for run in result.verdict if run.seed == seed)
    return first_at(run, race.target_loss) * race.steps_of(result.setting)


def _view(
    race: Race, judged: list[RuleResult], steps: dict[str, dict[int, float]], unit: str, paces: dict[str, float]
) -> View:
    look = looks(race)
    times = {rule: {seed: at * paces[rule] for seed, at in its.items()} for rule, its in steps.items()}
    reached = [at for its in times.values() for at in its.values() if math.isfinite(at)]
    last = max(reached, default=1.0) or 1.0
    traces: list[dict[str, Any]] = []
    for row, result in enumerate(judged):
        tick = None if result.steps_to_target is None else result.steps_to_target * paces[result.rule]
        traces += _marks(result.rule, look[result.rule], row, times[result.rule], unit, BEYOND * last, tick)
    missed = sum(len(its) for its in times.values()) > len(reached)
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": f"{unit}s to the target"},
            "range": [-0.02 * last, (1.12 if missed else 1.04) * last],
        }
    }
    if missed:
        text = {"text": "missed", "x": BEYOND * last, "y": 1, "yref": "paper", "yanchor": "bottom"}
        layout["annotations"] = [{**text, "showarrow": False, "font": {"size": 12, "color": "@muted"}}]
    return View(f"{unit}s", f"{unit}s", tuple(traces), layout=layout)


def _marks(
    rule: str, look: Look, row: int, times: dict[int, float], unit: str, beyond: float, tick: float | None
) -> list[dict[str, Any]]:
    """The seeds of a rule, each at a height of its own in its row, and their median."""
    seeds = sorted(times)
    heights = {seed: row + SPREAD * ((place + 0.5) / len(seeds) - 0.5) for place, seed in enumerate(seeds)}
    name = html.escape(rule)
    traces = []
    for those, marker in (
        ([seed for seed in seeds if math.isfinite(times[seed])], {"symbol": look.symbol, "size": 8}),
        ([seed for seed in seeds if math.isinf(times[seed])], {"symbol": "x", "size": 8}),
    ):
        if those:
            said = [
                f"{name}, seed {seed}: {f'{number(times[seed])} {unit}s' if math.isfinite(times[seed]) else 'missed'}"
                for seed in those
            ]
            traces.append(
                trace(
                    rule,
                    x=[min(times[seed], beyond) for seed in those],
                    y=[heights[seed] for seed in those],
                    mode="markers",
                    marker={**marker, "color": look.colour, "opacity": 0.75},
                    text=said,
                    hovertemplate="%{text}<extra></extra>",
                )
            )
    if tick is not None and math.isfinite(tick):
        traces.append(
            trace(
                rule,
                x=[tick],
                y=[float(row)],
                mode="markers",
                marker={"symbol": "line-ns", "size": 30, "line": {"color": look.colour, "width": 2.5}},
                hovertemplate=f"{name}, median: {number(tick)} {unit}s<extra></extra>",
            )
        )
    return traces


def target_section(race: Race, picture: Picture) -> str:
    """What the page says of the time to the target; nothing where there is none."""
    if not picture.views or race.target_loss is None:
        return ""
    choices = [(view.key, view.label.capitalize()) for view in picture.views]
    controls = f'<div class="controls">{segments("target", choices, True)}</div>\n' if len(choices) > 1 else ""
    return section(
        "target",
        "Time to the target",
        f"How long a run takes until its {html.escape(race.loss_name)} is at most {number(race.target_loss)} for the "
        f"first time: {html.escape(race.target_note.rstrip('.'))}. One mark for each reporting seed, a line at "
        "the median of the rule; a cross at the right edge is a seed that never got there.",
        controls
        + plot("target", "Steps to the target, one mark for each seed of every rule")
        + '<p class="printed small" id="printed-target"></p>',
    )
