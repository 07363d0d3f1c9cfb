"""The film of a walk: one HTML page that needs no network and computes every path by the rules' own formulas."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import numpy as np

from downslope.pages import asset, data_in_page, document, policy, theme
from downslope.pages.mathml import mathml
from downslope.recipes.recipe import Recipe, literal
from downslope.targets.javascript import LIBRARY, javascript
from downslope.targets.stability import Stability, limits
from downslope.version import __version__
from downslope.walks.emitted import height, response_code, second, tall
from downslope.walks.paths import Path, Walk
from downslope.walks.surface import Surface
from downslope.walks.walking import CLOSE, HALF_WAY, RATES, noises

SCRIPTS = ("walking.js", "drawing.js", "map.js", "ground.js", "curves.js", "table.js", "transport.js", "film.js")
STYLES = ("ground.css", "stage.css", "table.css", "film.css")
STARRED = "; with *, of the surface as scaled along each axis by what the rule divides by"
NUMBER = 'type="number" step="any" autocomplete="off"'


def film(walk: Walk) -> str:
    """The film of a walk as a self-contained HTML page.

    The page holds the surface, its gradient and the rules as JavaScript made from the same formulas, and nothing that
    has been computed: moving the start or a learning rate in it makes another walk.
    """
    surface, data = walk.surface, _data(walk)
    parts = [asset("downslope.walks", name) for name in SCRIPTS]
    script = "\n".join(["'use strict';", LIBRARY, _codes(walk), *parts])
    styles = [theme(), *(asset("downslope.walks", name) for name in STYLES)]
    style = "\n".join([*styles, f":root {{ --shape: {_shape(surface):.4f}; }}"])
    texts = {
        "surface": title_of(surface),
        "teaches": f"{surface.teaches}{_noisy(walk)}",
        "steps": str(walk.steps),
        "steps_written": f"{walk.steps:,}",
        "above": " above the lowest point" if walk.minima else "",
        "goal": _goal(walk),
        "rates": str(len(RATES)),
        "first_rate": literal(RATES[0]),
        "last_rate": f"{RATES[-1]:,.0f}",
        "starred": STARRED if any(rule["held"] for rule in data["rules"]) else "",
        "unlimited": _unlimited(data["rules"]),
        "version": __version__,
    }
    body = Template(asset("downslope.walks", "film.html")).substitute(
        {name: html.escape(text) for name, text in texts.items()},
        start="".join(f'<label>{name} <input id="at-{name}" {NUMBER}></label>' for name in surface.variables),
        axes="".join(f'<th scope="col">step along {name}</th>' for name in surface.variables),
        now_count=str(3 + len(surface.variables)),
        formula=mathml(surface.latex()),
        script=script,
        data=data_in_page(data),
    )
    title = f"{', '.join(path.name for path in walk.paths)} on {title_of(surface)}"
    return document(title, body.rstrip(), style=style, policy=policy(style, script))


def title_of(surface: Surface) -> str:
    """What a surface is called on pages and pictures.

    Example:
        >>> from downslope import surfaces
        >>> title_of(surfaces.rotated_valley)
        'Rotated valley'
    """
    return (
        surface.name[:1].upper() + surface.name[1:].replace("_", " ") if surface.name.isidentifier() else surface.name
    )


def _codes(walk: Walk) -> str:
    """The surface and the rules in JavaScript, and what a step of each moves per unit of its gradient."""
    for path in walk.paths:
        if path.recipe.program.over_tensors:
            raise ValueError(
                f"{path.name} goes by whole tensors, and a film, which walks in the browser, treats each weight "
                "by itself; write an animation or a picture of this walk, such as walk.gif or walk.svg"
            )
    programs = [path.recipe.program for path in walk.paths]
    rules, responses = (",\n".join(map(write, programs)) for write in (javascript, response_code))
    numbers = json.dumps(dict(walk.surface.parameters))
    return (
        f"const HEIGHT = ({height(walk.surface)})({numbers});\n"
        f"const SECOND = ({second(walk.surface)})({numbers});\n"
        f"const RULES = [\n{rules},\n];\n"
        f"const RESPONSES = [\n{responses},\n];"
    )


def _data(walk: Walk) -> dict[str, Any]:
    surface = walk.surface
    drawn = noises(walk.noise, walk.seed, walk.steps, len(walk.start)).astype("<f4")
    shared = walk.lr if isinstance(walk.lr, float) else 0.01
    return {
        "surface": {
            "name": surface.name,
            "variables": list(surface.variables),
            "ranges": [list(surface.ranges[name]) for name in surface.variables],
            "tall": tall(surface),
            "minima": [list(minimum) for minimum in walk.minima],
            "lowest": walk.lowest,
            "bottomless": not walk.minima,
        },
        "rules": [_rule(path, shared) for path in walk.paths],
        "start": list(walk.start),
        "steps": walk.steps,
        "noise": base64.b64encode(drawn.tobytes()).decode() if walk.noise else None,
        "rates": {"kind": walk.lr if isinstance(walk.lr, str) else "same", "shared": shared},
        "grid": list(RATES),
        "goal": _left_at_goal(walk),
        "python": {
            "surface": json.dumps(surface.name),
            "rules": [_in_python(path.given) for path in walk.paths],
            "rest": [f"{name}={literal(value)}" for name, value in _asked(walk).items()],
        },
    }


def _rule(path: Path, shared: float) -> dict[str, Any]:
    """A rule, and its limit: one for all learning rates, or one for each that it may be given."""
    program, numbers = path.recipe.program, path.given.numbers
    rates = sorted({*RATES, shared, numbers.get("lr", 0.0)} - {0.0})
    ends = limits(program, numbers, [rates[0], rates[-1]])
    first, last = ([found.limit or 0.0, found.gain or 0.0] for found in ends)
    found: dict[float | None, Stability] = {} if ends[0].reason else {None: ends[0]}
    if not np.allclose(first, last, rtol=1e-9, atol=0):
        found = dict(zip(rates, limits(program, numbers, rates), strict=True))
    return {
        "name": path.name,
        "numbers": dict(numbers),
        "held": bool(ends[0].held),
        "limits": [[lr, each.limit if each.limit != math.inf else None, each.gain] for lr, each in found.items()],
        "reason": ends[0].reason,
    }


def _asked(walk: Walk) -> dict[str, float]:
    """What is said in a call of `downslope.walk` besides what the page changes."""
    noise = {"noise": walk.noise, "seed": walk.seed} if walk.noise else {}
    return noise if _left_at_goal(walk)["part"] else {**noise, "goal": walk.goal}


def _in_python(recipe: Recipe) -> str:
    """How a rule is written in a call of `downslope.walk`."""
    if recipe.dialect is not None and recipe == Recipe(recipe.rule):
        return json.dumps(recipe.rule.name if recipe.dialect == "note" else recipe.label)
    return f"downslope.{recipe!r}".replace("(rules.", "(downslope.rules.").replace("(dialects.", "(downslope.dialects.")


def _left_at_goal(walk: Walk) -> dict[str, float | None]:
    """The goal, as a part of the start's height that is left where it is of the usual kind: it moves with the start."""
    part = CLOSE if walk.minima else HALF_WAY
    usual = walk.lowest + part * (float(walk.surface(*walk.start)) - walk.lowest)
    return {"part": part if walk.goal == usual else None, "loss": walk.goal}


def _goal(walk: Walk) -> str:
    if _left_at_goal(walk)["part"] is None:
        return "The goal (dotted) is the loss that was asked for; a rule is there once it stays below."
    if not walk.minima:
        return "There is no lowest point; the goal (dotted) is half-way down to the lowest of the map."
    return (
        "The goal (dotted) leaves a thousandth of the start's height above the lowest point; a rule is there once it "
        "stays below."
    )


def _unlimited(rules: Sequence[Mapping[str, Any]]) -> str:
    """Why no limit is shown for some."""
    names: dict[str, list[str]] = {}
    for rule in rules:
        names.setdefault(rule["reason"], []).append(rule["name"])
    return "".join(f" No limit can be read off {', '.join(who)}: {why}." for why, who in names.items() if why)


def _noisy(walk: Walk) -> str:
    deviation = literal(walk.noise)
    return f" Noise of standard deviation {deviation} is on every gradient, the same for all." if walk.noise else ""


def _shape(surface: Surface) -> float:
    """The width of the map over its height: true to scale, unless that would be too flat."""
    if len(surface.variables) == 1:
        return 1.6
    (left, right), (bottom, top) = surface.ranges.values()
    return min(1.8, max(1.0, (right - left) / (top - bottom)))
