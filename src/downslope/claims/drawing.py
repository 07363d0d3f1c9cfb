"""Pictures of claims as SVG: lines between two axes, in the colours of the page's light or dark theme.

Rules are told apart by colour, dash and marker. Nothing in it needs a script, a font or a style of its own, so that it
stands in a page as it is; `standalone` makes a file of it.
"""

from __future__ import annotations

import html
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from downslope.claims.claim import number
from downslope.pages import theme
from downslope.rules import TEXTBOOK

WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 64, 22, 50, 44
INNER, TALL = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
MARKS = 6
"""How many markers a line has."""

DASHES = ("", "7 4", "2 3", "8 3 2 3", "12 4", "12 4 2 4", "4 2")
SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-5l5,5l-5,5l-5,-5z",
    "M0,-4.6l4.6,8h-9.2z",
    "M0,4.6l4.6,-8h-9.2z",
    "M-1.4,-4.6h2.8v3.2h3.2v2.8h-3.2v3.2h-2.8v-3.2h-3.2v-2.8h3.2z",
    "M-4.6,0l8,-4.6v9.2z",
)
_USUAL = {rule.name: place for place, rule in enumerate(TEXTBOOK)}

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of a picture: where it goes, and what it is called."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Axis:
    """An axis of a picture, from its low end to its high one."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies on it: 0 at its low end, 1 at its high one."""
        if self.log:
            return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        """Some round numbers on it."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last - first >= 1:
                return [10.0**k for k in range(first, last + 1, 1 + (last - first) // 6)]
            digits = (1, 2, 3, 5, 7)
            every = [digit * 10.0**k for k in range(first - 1, last + 1) for digit in digits]
            return [tick for tick in every if self.low <= tick <= self.high]
        size = (self.high - self.low) / 5
        power = 10 ** math.floor(math.log10(size))
        step = next(round_one * power for round_one in (1, 2, 5, 10) if round_one * power >= size)
        return [k * step for k in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def look(name: str, others: Iterable[str]) -> int:
    """Which colour, dash and marker a line has: that of its textbook's rule, if no line before it has the same."""
    taken: dict[str, int] = {}
    for each in others:
        usual = _USUAL.get(each.partition(",")[0].rpartition(".")[2], 0)
        order = [usual, *range(len(SHAPES) - 1, -1, -1)]
        taken[each] = next((place for place in order if place not in taken.values()), usual)
    return taken[name]


def picture(
    title: str, lines: Sequence[Line], x: Axis, y: Axis, *, ground: str = "", level: float | None = None
) -> str:
    """Lines between two axes.

    Args:
        title: What is seen.
        lines: The lines.
        x: The axis across.
        y: The axis up.
        ground: What lies under the lines, in the units of `at`.
        level: Where a dotted line goes across.
    """
    names = [line.name for line in lines]
    ways = "".join(_way(line, look(line.name, names), x, y) for line in lines)
    dotted = ""
    if level is not None:
        height = at(x, y, (x.low, level))[1]
        dotted = f'<path d="M0,{height:.1f}H{INNER}" stroke="var(--muted)" stroke-dasharray="2 4"/>'
    return (
        f'<svg class="drawn" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}" fill="none" '
        'font-family="system-ui, sans-serif" font-size="12" xmlns="http://www.w3.org/2000/svg">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="var(--card)"/>'
        f"{_legend(names)}{_axes(x, y, bool(ground))}"
        f'<svg x="{LEFT}" y="{TOP}" width="{INNER}" height="{TALL}" viewBox="0 0 {INNER} {TALL}">'
        f"{ground}{dotted}{ways}</svg></svg>"
    )


def standalone(svg: str) -> str:
    """A picture as a file, light or dark as whoever looks at it has it."""
    head, _, rest = svg.partition(">")
    return f"{head}><style>{theme()}</style>{rest}\n"


ELEMENTS = {"svg", "rect", "path", "g", "text"}
ATTRIBUTES = {
    *("class", "viewBox", "role", "aria-label", "fill", "font-family", "font-size", "width", "height", "rx", "x", "y"),
    *("d", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "transform", "text-anchor"),
}
_SPACE = "{http://www.w3.org/2000/svg}"


def is_drawing(svg: str) -> bool:
    """Whether a text can be a picture from here: one SVG with shapes and words alone, that loads and runs nothing.

    Example:
        >>> is_drawing(picture("a", [], Axis("x", 0, 1), Axis("y", 0, 1)))
        True
        >>> is_drawing('<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>')
        False
    """
    if not svg.startswith("<svg ") or re.search(r"<[!?]|url\(", svg):
        return False
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError:
        return False
    return all(
        str(each.tag).removeprefix(_SPACE) in ELEMENTS and ATTRIBUTES.issuperset(each.attrib) for each in root.iter()
    )


def at(x: Axis, y: Axis, point: Point) -> Point:
    """Where a point lies within the axes, in pixels."""
    return x.place(point[0]) * INNER, (1 - y.place(point[1])) * TALL


def path_of(places: Iterable[Point]) -> str:
    """The data of a path through some places."""
    return "M" + "L".join(f"{_held(a):.1f},{_held(b):.1f}" for a, b in places)


def marker(place: Point, shape: int) -> str:
    """The marker of a line at a place."""
    a, b = place
    return (
        f'<path d="{SHAPES[shape]}" transform="translate({_held(a):.1f} {_held(b):.1f})" fill="var(--c{shape})" '
        'stroke="var(--card)"/>'
    )


def _held(pixel: float) -> float:
    return min(max(pixel, -2000.0), 2000.0)


def _way(line: Line, shape: int, x: Axis, y: Axis) -> str:
    places = [at(x, y, point) for point in line.points if all(map(math.isfinite, point))]
    if not places:
        return ""
    dash = f' stroke-dasharray="{DASHES[shape]}"' if DASHES[shape] else ""
    count = min(MARKS, len(places))
    seen = {round(k * (len(places) - 1) / max(1, count - 1)) for k in range(count)}
    marks = "".join(marker(places[k], shape) for k in sorted(seen))
    stroke = f'stroke="var(--c{shape})" stroke-width="1.8"{dash} stroke-linejoin="round"'
    return f'<path d="{path_of(places)}" {stroke}/>{marks}'


def _legend(names: Sequence[str]) -> str:
    found, a, b = [], float(LEFT), 16.0
    for name in names:
        shape, wide = look(name, names), 36 + 7.4 * len(name)
        if a > LEFT and a + wide > WIDTH:
            a, b = float(LEFT), b + 18
        dash = f' stroke-dasharray="{DASHES[shape]}"' if DASHES[shape] else ""
        found.append(
            f'<path d="M{a:.0f},{b:.0f}h26" stroke="var(--c{shape})" stroke-width="1.8"{dash}/>'
            f"{marker((a + 13, b), shape)}"
            f'<text x="{a + 31:.0f}" y="{b + 4:.0f}" fill="var(--ink)">{html.escape(name)}</text>'
        )
        a += wide + 12
    return "".join(found)


def _axes(x: Axis, y: Axis, is_map: bool) -> str:
    found = []
    for tick in y.ticks:
        height = TOP + (1 - y.place(tick)) * TALL
        if not is_map:
            found.append(f'<path d="M{LEFT},{height:.1f}h{INNER}" stroke="var(--grid)"/>')
        found.append(_text(_tick(tick), LEFT - 6, height + 4, "end", "muted"))
    found += [_text(_tick(tick), LEFT + x.place(tick) * INNER, TOP + TALL + 16, "middle", "muted") for tick in x.ticks]
    turned = f"translate(14 {TOP + TALL / 2:.0f}) rotate(-90)"
    found.append(_text(x.label, LEFT + INNER / 2, HEIGHT - 8, "middle", "ink"))
    found.append(f'<g transform="{turned}">{_text(y.label, 0, 0, "middle", "ink")}</g>')
    return "".join(found)


def _text(words: str, a: float, b: float, anchor: str, colour: str) -> str:
    place = f'x="{a:.1f}" y="{b:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="var(--{colour})">{html.escape(words)}</text>'


def _tick(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.0e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{power}" if mantissa == "1" else f"{mantissa}·10{power}"
    return number(round(value, 10) + 0.0)
