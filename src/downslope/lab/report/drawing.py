"""What the pictures of a race are drawn with: the look of every rule, lines, bands and axes, as Plotly's dictionaries.

Colours are names such as `@c3` or `@c3/0.15` that the page replaces by those of its light or dark theme, and every
trace says which rule it belongs to, so that a reader can take a rule out of all pictures at once.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from downslope.lab.races.look import COLOURS, Look
from downslope.lab.races.results import Race

FEW = 5  # rules in full at first, where there are more than colours
CEILING = 3.0  # losses above so many times the one before training are drawn at the top edge

MOST_POINTS = 400
"""Of a curve: no screen shows more."""

ALL_POINTS = 50_000
"""Of all curves of a picture, as far as `FEWEST_POINTS` allows."""

FEWEST_POINTS = 50


@dataclass(frozen=True)
class View:
    """One state of a picture: its traces, and a sentence about them."""

    key: str
    label: str
    traces: tuple[dict[str, Any], ...]
    note: str = ""
    layout: dict[str, Any] | None = None  # what differs from the picture's layout


@dataclass(frozen=True)
class Picture:
    """A layout, and the views that share it; the first is shown first.

    A view without traces takes `styles`, which say how traces look, and the page fills in the points from the race.
    """

    name: str
    layout: dict[str, Any]
    views: tuple[View, ...]
    styles: tuple[dict[str, Any], ...] = ()


def looks(race: Race) -> dict[str, Look]:
    """Give every rule of a race its colour, dash and marker, by its place in the race.

    Where there are more rules than colours, by its place in the result: no two of the lowest share their colour.
    """
    order = race.rules if len(race.rules) <= COLOURS else race.ranked
    return {result.rule: Look.at(place) for place, result in enumerate(order)}


def in_full(race: Race) -> tuple[str, ...]:
    """The rules that pictures show in full at first: all, or the lowest few where all would hide each other."""
    rules = tuple(looks(race))
    return rules if len(rules) <= COLOURS else rules[:FEW]


def number(value: float | None) -> str:
    """Write a number for people: three significant digits, powers of ten for the very small and very large.

    Example:
        >>> number(0.00123456), number(2.5e-7), number(float("inf")), number(None)
        ('0.00123', '2.5 × 10⁻⁷', '∞', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")
    mantissa, exponent = f"{value:.2e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    digits = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    return f"10{power}" if digits == "1" else f"{digits} × 10{power}"


def points_each(curves: int) -> int:
    """The most points of each of so many curves in a picture.

    Example:
        >>> points_each(5), points_each(340), points_each(10_000)
        (400, 147, 50)
    """
    return max(FEWEST_POINTS, min(MOST_POINTS, ALL_POINTS // max(1, curves)))


def curve(
    rule: str,
    look: Look,
    x: Sequence[float],
    middle: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    top: float,
) -> list[dict[str, Any]]:
    """A line within a band; a cross marks where the line ends because the rule diverged.

    Args:
        rule: The rule that all of it belongs to.
        look: How the rule is drawn.
        x: Epochs or steps.
        middle: The line, infinite from where it diverged.
        lower: The lower edge of the band; the band ends where it is infinite.
        upper: The upper edge, drawn no higher than `top`.
        top: The upper edge of the axis.
    """
    floor = float(np.finfo(np.float32).tiny)
    finite = [index for index, value in enumerate(lower) if math.isfinite(value)]
    traces = []
    if finite and list(lower) != list(upper):
        lows = [max(lower[index], floor) for index in finite]
        highs = [min(max(upper[index], floor), top) for index in finite]
        traces.append(band(rule, look, [x[index] for index in finite], lows, highs))
    values = [value if math.isfinite(value) else None for value in middle]
    traces.append(line(rule, look, x, values, [number(value) for value in middle], markers=7))
    known = [index for index, value in enumerate(values) if value is not None]
    if known and len(known) < len(values):
        end = {"x": [x[known[-1]]], "y": [values[known[-1]]], "mode": "markers"}
        marker = {"symbol": "x", "size": 10, "color": look.colour}
        hover = f"{html.escape(rule)} diverged after this<extra></extra>"
        traces.append(trace(rule, **end, marker=marker, hovertemplate=hover))
    return traces


def band(rule: str, look: Look, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict[str, Any]:
    """The area between two edges over the same `x`."""
    return trace(
        rule,
        x=[*x, *reversed(x)],
        y=[*low, *reversed(high)],
        mode="lines",
        line={"width": 0, "color": look.colour},
        fill="toself",
        fillcolor=f"{look.colour}/0.14",
        hoverinfo="skip",
    )


def line(
    rule: str,
    look: Look,
    x: Sequence[float],
    y: Sequence[float | None],
    notes: Sequence[str],
    *,
    markers: int | None,
) -> dict[str, Any]:
    """A line with markers; at most `markers` of them if given, and `notes` to read when pointing at it."""
    return trace(
        rule,
        x=x,
        y=y,
        mode="lines+markers",
        line={"color": look.colour, "width": 2.2, "dash": look.dash},
        marker={"symbol": look.symbol, "size": 8, "color": look.colour, "maxdisplayed": markers or 0},
        text=notes,
        hovertemplate=f"{html.escape(rule)}: %{{text}}<extra></extra>",
    )


def trace(rule: str, **fields: Any) -> dict[str, Any]:
    """One trace of Plotly's `scatter` kind that belongs to a rule."""
    return {"type": "scatter", "name": rule, "meta": {"rule": rule}, "showlegend": False, **_rounded(fields)}


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    # Four digits are more than a screen has pixels, and halve the page's data.
    for axis in ("x", "y"):
        fields[axis] = [float(f"{value:.4g}") if isinstance(value, float) else value for value in fields[axis]]
    return fields


def curve_layout(across: str, up: str, losses: tuple[float, float] | None) -> dict[str, Any]:
    """A layout for curves of training; `losses` are the edges of a logarithmic axis, None makes it a plain one."""
    plain = {"title": {"text": up}, "rangemode": "tozero"}
    return {
        "xaxis": {"title": {"text": across}},
        "yaxis": plain if losses is None else log_axis(up, losses),
        "hovermode": "x unified",
    }


def log_axis(title: str, edges: tuple[float, float]) -> dict[str, Any]:
    """A logarithmic axis between two positive edges."""
    low, high = (math.log10(edge) for edge in edges)
    digits = (1, 2, 5) if high - low < 2.5 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1, 1 + int(high - low) // 10)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    return {
        "type": "log",
        "range": [low, high],
        "title": {"text": title},
        "tickvals": ticks,
        "ticktext": [number(tick) for tick in ticks],
    }


def level(
    value: float | None, text: str, place: Literal["start", "middle"], side: Literal["above", "below"]
) -> dict[str, Any]:
    """A dotted horizontal line across the picture, as part of a layout; empty if there is none to draw.

    Args:
        value: Where it is.
        text: Its label.
        place: Where along the line the label is.
        side: On which side of it: where the picture's curves are not.
    """
    if value is None or not 0 < value < math.inf:
        return {}
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    label = {"text": text, "font": {"size": 11, "color": "@muted"}, "textposition": place}
    label |= {"yanchor": "bottom" if side == "above" else "top"}
    return {
        "shapes": [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": value, "y1": value, "line": line}
            | {"label": label, "layer": "above"}
        ]
    }


def strip_title(text: str, y: float) -> dict[str, Any]:
    """A small heading over a strip of rows."""
    at = {"x": 0, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return at | {"text": text, "showarrow": False, "font": {"size": 11, "color": "@muted"}}


def in_the_middle(text: str) -> dict[str, Any]:
    """A remark where nothing could be drawn."""
    at = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
    return at | {"text": text, "showarrow": False, "font": {"size": 16, "color": "@muted"}}


def loss_range(losses: Iterable[float], start: float | None) -> tuple[float, float]:
    """The edges of an axis for losses: all that are positive, up to `CEILING` times the one before training."""
    positive = [loss for loss in losses if 0 < loss < math.inf]
    if start is not None and start > 0:
        positive.append(start)
    if not positive:
        return 0.1, 10.0
    low, top = min(positive), max(positive)
    if start is not None and start > 0:
        top = min(top, CEILING * start)
    return low * 0.85, max(top * 1.15, low * 1.5)


def within(value: float, low: float, top: float) -> float:
    """The value, moved to the nearer edge if it lies outside."""
    return min(max(value, low), top)


def short(name: str, most: int = 18) -> str:
    """A name short enough for the side of a picture, with nothing in it that Plotly would take for markup."""
    return html.escape(name if len(name) <= most else f"{name[: most - 1]}…")
