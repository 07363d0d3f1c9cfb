"""Why learning rates stop working where they do: what is expected of every rule, and what was seen."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from downslope.lab.engines.protocol import Surroundings
from downslope.lab.races.look import Look
from downslope.lab.races.results import Race
from downslope.lab.races.why import RuleWhy
from downslope.lab.report.drawing import (
    Picture,
    View,
    curve_layout,
    level,
    line,
    log_axis,
    looks,
    number,
    short,
    trace,
)
from downslope.lab.report.markup import plot, section, segments
from downslope.lab.report.tables import rule_name

ROW = 34  # pixels for a rule in the picture of the cliffs

HIGHEST = 30.0
"""Times the limit at which all is drawn that is higher: at the start, what is divided by is still next to nothing."""


def why_pictures(race: Race) -> tuple[Picture, ...]:
    """The pictures that belong to the sentences; none if nobody asked why, or the race was stopped before."""
    if race.why is None or not race.why.rules:
        return ()
    look = looks(race)
    rules = _shown(race, look)
    return _cliffs(race, rules, look), _limits(race, rules, look), _steps(race, rules, look)


def why_section(race: Race, look: dict[str, Look], pictures: Mapping[str, Picture]) -> str:
    """The section with the sentences, each above its picture; empty if nobody asked why."""
    why = race.why
    if why is None:
        return ""
    title = "Why"
    if not why.rules:
        return section("why", title, html.escape(why.on_limits), "")
    sentences = "".join(
        f"<li>{rule_name(one.rule, look[one.rule])}{html.escape(one.sentence.removeprefix(one.rule))}</li>\n"
        for one in _shown(race, look)
    )
    rows = f"{why.seen_rows:,} of the {why.train_rows:,}" if why.seen_rows < why.train_rows else "the"
    lead = (
        "Where every rule’s learning rates were to stop working, by its formula and the network before training, and "
        "where they did. The thick line lies between the last learning rate of the grid that works and the first that "
        f"does not; the open mark is what was expected. Curvature: the largest eigenvalue of the second derivatives of "
        f"the training loss, on {rows} training rows."
    )
    content = (
        plot("cliffs", "The learning rate at which each rule fails, seen and expected")
        + f'<ul class="why small">{sentences}</ul>\n'
        + "<h3>Against the limit</h3>\n"
        + _controls("limits", pictures)
        + plot("limits", "Learning rate times curvature over the limit of each rule, over epochs")
        + '<p class="printed small" id="printed-limits"></p><p class="small note" id="note-limits"></p>\n'
        + "<h3>Gradients and steps</h3>\n"
        + _controls("steps", pictures)
        + plot("steps", "Gradient noise scale, and length of a step over that of the weights, over epochs")
        + '<p class="printed small" id="printed-steps"></p><p class="small note" id="note-steps"></p>'
    )
    return section("why", title, lead, content)


def expected_marks(race: Race, look: dict[str, Look], top: float) -> list[dict[str, Any]]:
    """A triangle for each rule at the top edge of the canyon, at the learning rate that it is expected to fail from."""
    if race.why is None:
        return []
    return [
        trace(
            one.rule,
            x=[one.cliff.expected],
            y=[top],
            mode="markers",
            marker={"symbol": "triangle-down", "size": 11, "color": look[one.rule].colour},
            cliponaxis=False,
            hovertemplate=f"{html.escape(one.rule)} is expected to fail from %{{x}} on<extra></extra>",
        )
        for one in _shown(race, look)
        if one.cliff.expected is not None and one.cliff.expected <= _highest(race)
    ]


def _shown(race: Race, look: Mapping[str, Look]) -> list[RuleWhy]:
    """What is known of the rules that the page shows."""
    return [one for one in race.why.rules if one.rule in look] if race.why else []


def _highest(race: Race) -> float:
    return max((run.lr for result in race.rules for run in result.tuning), default=0.0)


def _controls(name: str, pictures: Mapping[str, Picture]) -> str:
    choices = [(view.key, view.label[0].upper() + view.label[1:]) for view in pictures[name].views]
    return f'<div class="controls">{segments(name, choices, True)}</div>\n'


def _cliffs(race: Race, rules: Iterable[RuleWhy], look: dict[str, Look]) -> Picture:
    """One row for each rule: between which learning rates it stops working, and where that was expected."""
    known = [one for one in rules if one.cliff.seen != (None, None)]
    traces: list[dict[str, Any]] = []
    for one in known:
        traces += _cliff(one, look[one.rule], race)
    rows = [short(one.rule) for one in known]
    places = [lr for each in traces for lr in each["x"] if lr]
    edges = (min(places) / 1.6, max(places) * 1.6) if places else (1e-3, 10.0)
    layout = {
        "height": 90 + ROW * len(known),
        "xaxis": log_axis("learning rate", edges),
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": rows,
            "tickvals": rows,
            "range": [len(rows) - 0.4, -0.6],
        },
    }
    return Picture("cliffs", layout, (View("all", "", tuple(traces)),))


def _cliff(one: RuleWhy, look: Look, race: Race) -> list[dict[str, Any]]:
    row, name = short(one.rule), html.escape(one.rule)
    below, beyond = one.cliff.seen
    ends = [lr for lr in (below, beyond) if lr is not None]
    does = "diverges" if one.cliff.cause == "length" else "fails"
    seen = f"{does} between {number(below)} and {number(beyond)}" if len(ends) > 1 else f"{does} nowhere on the grid"
    if below is None:
        seen = f"{does} everywhere on the grid"
    traces = [
        trace(
            one.rule,
            x=ends,
            y=[row] * len(ends),
            mode="lines+markers",
            line={"color": look.colour, "width": 7},
            marker={
                "symbol": ["circle" if lr == below else "x" for lr in ends],
                "size": 11,
                "color": look.colour,
                "line": {"color": "@page", "width": 1},
            },
            hovertemplate=f"{name} {seen}<extra></extra>",
        )
    ]
    if one.cliff.expected is not None and math.isfinite(one.cliff.expected):
        by = "the curvature at the start" if one.cliff.cause == "curvature" else "the length of its first step"
        traces.append(
            trace(
                one.rule,
                x=[one.cliff.expected],
                y=[row],
                mode="markers",
                marker={
                    "symbol": "diamond-open",
                    "size": 15,
                    "color": "@ink",
                    "line": {"color": "@ink", "width": 2},
                },
                hovertemplate=f"{name}: expected from {number(one.cliff.expected)} on, by {by}<extra></extra>",
            )
        )
    return traces


def _limits(race: Race, rules: Iterable[RuleWhy], look: dict[str, Look]) -> Picture:
    """The learning rate times the curvature over the limit, along the best runs and at the cliffs."""
    assert race.why is not None
    best = [(one, one.best_lr, one.best) for one in rules]
    edge = [(one, one.cliff.learns_at, one.edge) for one in rules]
    views = (
        _limit_view("best", "at the best learning rate", best, look, race.why.on_limits),
        _limit_view("edge", "at the highest that it learns at", edge, look, _learns_at(rules)),
    )
    sizes = [value for view in views for each in view.traces for value in each["y"] if value]
    edges = (min([*sizes, 0.5]) / 1.5, max([*sizes, 2.0]) * 1.5)
    layout = curve_layout("epoch", "lr × curvature over the limit", edges) | {"height": 420}
    layout["xaxis"] |= {"range": [-0.01 * race.last, race.last * 1.01]}
    return Picture("limits", layout | level(1.0, "limit: above it errors grow", "middle", "above"), views)


def _learns_at(rules: Iterable[RuleWhy]) -> str:
    rates = [f"{one.rule} {number(one.cliff.learns_at)}" for one in rules if one.cliff.learns_at is not None]
    return f"Learning rates: {', '.join(rates)}." if rates else ""


def _limit_view(
    key: str,
    label: str,
    runs: Iterable[tuple[RuleWhy, float | None, tuple[Surroundings, ...]]],
    look: dict[str, Look],
    note: str,
) -> View:
    traces = []
    for one, lr, around in runs:
        sizes = {at.epoch: None if lr is None else one.sharpness(at, lr) for at in around}
        if any(sizes.values()):
            notes = [f"{number(size)} of its limit, {number(one.limit)}" for size in sizes.values()]
            drawn = [None if size is None else min(size, HIGHEST) for size in sizes.values()]
            traces.append(line(one.rule, look[one.rule], list(sizes), drawn, notes, markers=None))
    return View(key, label, tuple(traces), note)


def _steps(race: Race, rules: Iterable[RuleWhy], look: dict[str, Look]) -> Picture:
    """Gradient noise scale and update-to-weight ratios along the best runs."""
    assert race.why is not None
    layers = max((len(at.update_ratios) for one in rules for at in one.best), default=0)
    views = [_step_view("noise", "gradient noise scale", "rows", race, rules, look, lambda at: at.noise_scale)]
    for layer in range(layers):
        ratio = _ratio(layer)
        views.append(
            _step_view(f"layer{layer}", f"step over weights, layer {layer + 1}", "ratio", race, rules, look, ratio)
        )
    layout = curve_layout("epoch", "", None) | {"height": 420}
    layout["xaxis"] |= {"range": [-0.01 * race.last, race.last * 1.01]}
    return Picture("steps", layout, tuple(views))


def _ratio(layer: int) -> Callable[[Surroundings], float]:
    return lambda at: at.update_ratios[layer]


def _step_view(
    key: str,
    label: str,
    unit: str,
    race: Race,
    rules: Iterable[RuleWhy],
    look: dict[str, Look],
    read: Callable[[Surroundings], float],
) -> View:
    assert race.why is not None
    traces = []
    for one in rules:
        values = {at.epoch: read(at) for at in one.best if 0 < read(at) < math.inf}
        if values:
            notes = [number(value) for value in values.values()]
            traces.append(line(one.rule, look[one.rule], list(values), list(values.values()), notes, markers=None))
    usual = (race.batch_size, "rows of a batch") if key == "noise" else (1e-3, "a usual guide")
    every = [value for each in traces for value in each["y"]] + [usual[0]]
    layout = curve_layout(
        "epoch", f"{label}, {unit}" if unit == "rows" else label, (min(every) / 1.5, max(every) * 1.5)
    )
    note = race.why.on_noise if key == "noise" else race.why.on_updates
    return View(key, label, tuple(traces), note, layout | level(usual[0], usual[1], "middle", "below"))
