"""The playground as a self-contained HTML page, assembled from package data and JavaScript made from formulas."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from string import Template
from typing import Any

from downslope.pages import asset, data_in_page, document, policy, theme
from downslope.play.rules import every_rule, rules_code, sentence
from downslope.rule import Rule
from downslope.targets.dense import dense, without_blanks
from downslope.targets.javascript import LIBRARY
from downslope.targets.typed import reader
from downslope.version import __version__
from downslope.walks.emitted import height, second, tall
from downslope.walks.surface import Surface
from downslope.walks.surfaces import SURFACES, valley
from downslope.walks.walking import CLOSE, HALF_WAY, RATES, lowest_places, walk

LANGUAGES = ("en", "zh")
SHARED = ("walking.js", "drawing.js", "map.js", "ground.js", "curves.js", "table.js", "transport.js")
STYLES = ("ground.css", "stage.css", "table.css")
"""What the film of a walk is made of, too."""

SCRIPTS = (
    "rules.js",
    "decay.js",
    "words.js",
    "state.js",
    "weather.js",
    "stability.js",
    "chance.js",
    "walkers.js",
    "canyon.js",
    "formulas.js",
    "forces.js",
    "closely.js",
    "settings.js",
    "gif.js",
    "share.js",
    "own.js",
    "formula.js",
    "net.js",
    "training.js",
    "network.js",
    "lessons.js",
    "frames.js",
    "play.js",
)
"""In the order in which they need each other; what is mounted into the page stands before the frames."""

LARGEST = 400_000
"""How many bytes the page may have, with every rule, every dialect and both languages."""

OWN_STYLES = ("page.css", "own.css", "formula.css", "lessons.css", "network.css")


def page(own: Mapping[str, Rule] | None = None, link: str = "") -> str:
    """The playground.

    Args:
        own: Rules besides downslope's, by the names that they are to have.
        link: The state in which it opens, as in its link: `surface=valley&rules=sgd,adam`.

    Example:
        >>> from downslope.play.page import page
        >>> page()[:15]
        '<!doctype html>'
    """
    rules = {**every_rule(), **(own or {})}
    words = {language: _words(language, rules) for language in LANGUAGES}
    parts = [asset("downslope.walks", name) for name in SHARED] + [asset("downslope.play", name) for name in SCRIPTS]
    codes = [f"const READER = {reader()};", dense(f"{rules_code(rules)}\nconst SURFACES = {_surfaces()};")]
    script = without_blanks("\n".join(["'use strict';", LIBRARY, *codes, *parts]))
    styles = [theme(), *(asset("downslope.walks", name) for name in STYLES)]
    styles += [asset("downslope.play", name) for name in OWN_STYLES]
    style = re.sub(r"\s*([{};,])\s*|(?<=:)\s+", r"\1", "\n".join(styles))
    data = {
        "words": words,
        "rates": list(RATES),
        "close": CLOSE,
        "half": HALF_WAY,
        "own": list(own or {}),
        "link": link,
        "version": __version__,
    }
    body = Template(asset("downslope.play", "page.html")).substitute(
        script=script,
        data=data_in_page(data),
        version=__version__,
        picture=_picture(),
        **{f"noscript_{language}": html.escape(known["noscript"]) for language, known in words.items()},
    )
    said = re.sub(r'(data-say="([^"]+)"[^>]*>)(?=<)', lambda found: found[1] + html.escape(words["en"][found[2]]), body)
    return document("downslope playground", said.rstrip(), style=style, policy=policy(style, script))


def _picture() -> str:
    """What is seen where no script runs: the textbook's rules in the valley, as an SVG."""
    walked = walk(valley, steps=60)
    (left, right), (bottom, top) = valley.ranges.values()

    def placed(x: float, y: float) -> tuple[float, float]:
        return round(640 * (x - left) / (right - left), 1), round(400 * (top - y) / (top - bottom), 1)

    middle = "{} {}".format(*placed(0, 0))
    levels = [0.3 * 3**k for k in range(6)]
    rings = [
        (640 * (10 * level) ** 0.5 / (right - left), 400 * (level / 5) ** 0.5 / (top - bottom)) for level in levels
    ]
    shapes = [
        f'<ellipse rx="{rx:.0f}" ry="{ry:.0f}" transform="translate({middle})" stroke="var(--contour)"/>'
        for rx, ry in rings
    ]
    for k, path in enumerate(walked.paths):
        places = " ".join("{},{}".format(*placed(*point)) for point in path.points.tolist())
        shapes.append(f'<polyline points="{places}" stroke="var(--c{k})" stroke-width="2"/>')
    return f'<svg viewBox="0 0 640 400" fill="none" aria-hidden="true">{"".join(shapes)}</svg>'


def _words(language: str, rules: Mapping[str, Rule]) -> dict[str, str]:
    """Every sentence of the page in a language; in English what rules and surfaces say is their own."""
    known: dict[str, str] = json.loads(asset("downslope.play", f"words/{language}.json"))
    if language == "en":
        known |= {f"rule.{name}": sentence(rule) for name, rule in rules.items()}
        known |= {f"surface.{surface.name}.teaches": surface.teaches for surface in SURFACES}
    return known


def _surfaces() -> str:
    return "{\n" + ",\n".join(f"{json.dumps(each.name)}: {_surface(each)}" for each in SURFACES) + "\n}"


def _surface(surface: Surface) -> str:
    minima, lowest = lowest_places(surface)
    told: dict[str, Any] = {
        "name": surface.name,
        "variables": list(surface.variables),
        "parameters": dict(surface.parameters),
        "ranges": [list(surface.ranges[name]) for name in surface.variables],
        "start": list(surface.start),
        "tall": tall(surface),
        "minima": [list(minimum) for minimum in minima],
        "lowest": lowest,
        "bottomless": not minima,
        "source": surface.source,
    }
    return f"{{ {data_in_page(told)[1:-1]}, height: {height(surface)}, second: {second(surface)} }}"
