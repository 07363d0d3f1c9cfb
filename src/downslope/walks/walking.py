"""Letting rules walk: every path is a function of its settings, worked out as a whole in double precision.

Step by step, by the formula of the rule and that of the surface.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from downslope.language.ranges import Range, check_number
from downslope.recipes.families import find, first_form
from downslope.recipes.recipe import Recipe, written
from downslope.rule import Rule
from downslope.rules import TEXTBOOK
from downslope.targets.arrays import interpret
from downslope.targets.held_still import effective
from downslope.targets.shapes import held_shape
from downslope.walks.paths import Array, Path, Walk, arrivals
from downslope.walks.surface import Surface
from downslope.walks.surfaces import surface_of

RATES = tuple(float(f"{10 ** (k / 10):.2g}") for k in range(-60, 31))
"""The learning rates among which a rule's best on a surface is looked for: ten in each power of ten, 1e-6 to 1000."""

CLOSE = 1e-3
"""The part of the way down that is left at the goal, unless another one is given."""

HALF_WAY = 0.5
"""The same on a surface without a lowest place, of which that of its ranges is taken."""

USUAL_STEPS = 200
MOST_STEPS = 100_000

_ABOVE_ZERO = Range(5e-324, math.inf)
_SIZE = Range(0.0, math.inf)


def walk(
    surface: Surface | str | Callable[..., Any] = "valley",
    rules: Iterable[Rule | Recipe | str] = TEXTBOOK,
    *,
    start: Sequence[float] | float | None = None,
    steps: int | None = None,
    lr: float | Literal["best", "own"] = "best",
    noise: float = 0.0,
    seed: int = 0,
    goal: float | None = None,
    **hyperparameters: float | bool,
) -> Walk:
    """Let rules walk on a surface, all from one start.

    Args:
        surface: A surface, the name of a built-in one, a formula as text, or a function of `x` and `y`.
        rules: Rules, names such as `"adam"` and `"keras.adam"`, or recipes where one is to have other settings.
        start: Where they begin; the default is the surface's own start.
        steps: How many steps they take; by default until all have arrived and a little more, but no more than 200.
        lr: A learning rate for all; "best" for each rule's best here, which is looked for; or "own" for that of its
            recipe. The best is the one, of 91 from 1e-6 to 1000, that is soonest at the goal to stay there; where none
            gets there, the one whose highest loss in the last tenth of the steps is lowest. One with which the rule
            leaves the ranges of the surface does not count: from far outside some return straight to the goal, by luck.
        noise: The standard deviation of what is added to each slope, as mini-batches do: the same for all rules.
        seed: That of the noise.
        goal: The loss to be reached; the default is a thousandth of the way from the lowest loss to that at the start,
            or half of the way on a surface that goes on downwards outside of its ranges.
        **hyperparameters: Settings for all rules that have them, such as `mu=0.95`.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, the surface is finite nowhere, or the start is no place on it.
        GrammarError: The text is no formula.
        FormulaError: The function is no formula.

    Example:
        >>> import downslope
        >>> walked = downslope.walk("x**2/10 + 5*y**2", [downslope.sgd, downslope.momentum], start=(-9, 1.5), lr=0.1)
        >>> walked
        <walk on x**2/10 + 5*y**2: sgd, momentum; 188 steps>
        >>> walked["momentum"].points.shape, walked["momentum"].states["v"].shape
        ((189, 2), (189, 2))
    """
    place = surface_of(surface)
    recipes = _recipes(rules, hyperparameters)
    if steps is not None and (
        isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= MOST_STEPS
    ):
        raise ValueError(f"steps={steps!r}: expected a whole number from 1 to {MOST_STEPS:,}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r}: expected a whole number of at least 0")
    if lr not in ("best", "own"):
        if isinstance(lr, str):
            raise ValueError(f"lr={lr!r}: expected a number above 0, 'best' or 'own'")
        lr = check_number("lr", lr, _ABOVE_ZERO)
    begin = _begin(place, start)
    minima, lowest = lowest_places(place)
    if goal is None:
        goal = lowest + (CLOSE if minima else HALF_WAY) * (float(place(*begin)) - lowest)
    goal = check_number("goal", goal, Range(-math.inf, math.inf))
    deviation = check_number("noise", noise, _SIZE)
    course = _Course(place, begin, noises(deviation, int(seed), steps or USUAL_STEPS, len(begin)), goal, not minima)
    paths = _paths(course, recipes, lr)
    arrived = [path.arrival for path in paths if path.arrival is not None]
    if steps is None and len(arrived) == len(paths):
        course = replace(course, wind=course.wind[: max(10, round(1.25 * max(arrived)))])
        paths = _paths(course, recipes, lr)
    return Walk(place, paths, begin, minima, lowest, lr, deviation, int(seed), goal)


def noises(deviation: float, seed: int, steps: int, variables: int) -> Array:
    """What is added to the slopes, a row for each step; the numbers are of single precision, as a page holds them."""
    drawn = np.random.default_rng(seed).standard_normal((steps, variables))
    return (deviation * drawn).astype(np.float32).astype(np.float64)


@functools.lru_cache(maxsize=64)
def lowest_places(surface: Surface) -> tuple[tuple[tuple[float, ...], ...], float]:
    """Where a surface is lowest, and the loss there.

    Where that is not known, the lowest point of a grid over the ranges is looked around, on finer and finer grids; if
    it lies on the edge, the surface goes on downwards outside and there is no such place.
    """
    if surface.minima:
        return surface.minima, float(surface(*surface.minima[0]))
    ends = np.array([surface.ranges[name] for name in surface.variables])
    middle, half = ends.mean(axis=1), np.ptp(ends, axis=1) / 2
    heights: list[float] = []
    for count in (301, *[21] * 14):
        axes = [m + h * np.linspace(-1, 1, count) for m, h in zip(middle, half, strict=True)]
        found = surface(*np.meshgrid(*axes, indexing="ij"))
        finite = np.where(np.isfinite(found), found, np.inf)
        at = np.unravel_index(int(finite.argmin()), finite.shape)
        heights.append(float(finite[at]))
        if len(heights) == 1 and any(k in (0, count - 1) for k in at):
            break
        middle, half = np.array([axis[k] for axis, k in zip(axes, at, strict=True)]), half * (3 / count)
    settled = len(heights) > 1 and heights[-2] - heights[-1] <= 1e-9 * abs(heights[0] - float(surface(*surface.start)))
    return ((tuple(map(float, middle)),), heights[-1]) if settled else ((), heights[0])


# What is asked for


def _recipes(rules: Iterable[Rule | Recipe | str], hyperparameters: Mapping[str, float | bool]) -> list[Recipe]:
    recipes = [_recipe(each) for each in ([rules] if isinstance(rules, (str, Rule, Recipe)) else rules)]
    if not recipes:
        raise ValueError("rules is empty; give at least one rule, such as downslope.sgd")
    for name, value in hyperparameters.items():
        if not any(name in recipe.settings for recipe in recipes):
            raise TypeError(f"{name}={value!r}: none of the rules has a hyperparameter of this name")
    known = [{k: v for k, v in hyperparameters.items() if k in recipe.settings} for recipe in recipes]
    return [recipe.with_settings(**given) for recipe, given in zip(recipes, known, strict=True)]


def _recipe(what: Rule | Recipe | str) -> Recipe:
    if isinstance(what, Recipe):
        return what
    if isinstance(what, str):
        what = first_form(find(what))
    if not isinstance(what, Rule):
        raise TypeError(f"rules holds {what!r}; expected rules, such as downslope.adam, their names, or recipes")
    return Recipe(what, lr=1.0) if what.hyperparameters.get("lr", 0.0) is None else Recipe(what)


def _names(recipes: Sequence[Recipe]) -> list[str]:
    """What each is called: its rule, with the dialect and the settings where that is needed to tell them apart."""
    plain = [recipe.label.removeprefix("note.") for recipe in recipes]
    names: list[str] = []
    for name, recipe in zip(plain, recipes, strict=True):
        changed = {key: value for key, value in recipe.changed.items() if key != "lr"} or {
            "lr": recipe.numbers.get("lr")
        }
        full = f"{name}({', '.join(written(changed))})" if plain.count(name) > 1 else name
        names.append(full if full not in names else f"{full} {names.count(full) + 1}")
    return names


def _begin(place: Surface, start: Sequence[float] | float | None) -> tuple[float, ...]:
    if start is None:
        return place.start
    given = (start,) if isinstance(start, (int, float, np.number)) else tuple(start)
    if len(given) != len(place.variables):
        raise ValueError(f"start={start!r}: expected a number for each of {', '.join(place.variables)}")
    begin = tuple(check_number("start", each, Range(-math.inf, math.inf)) for each in given)
    if not all(np.isfinite(each) for each in place.values(*begin).values()):
        raise ValueError(f"start={start!r}: the loss or its gradient is not finite there; choose another place")
    return begin


# Walking


@dataclass(frozen=True, eq=False)
class _Course:
    """Where all walk: the surface and the start, what is added to each slope, and the goal.

    Attributes:
        tried: Where rules have come at every learning rate; on a shorter course they begin alike.
    """

    place: Surface
    begin: tuple[float, ...]
    wind: Array
    goal: float
    is_bottomless: bool
    tried: dict[Recipe, Array] = field(default_factory=dict)


def _paths(course: _Course, recipes: Sequence[Recipe], lr: float | Literal["best", "own"]) -> tuple[Path, ...]:
    """The path of each rule."""
    paths = []
    for name, given in zip(_names(recipes), recipes, strict=True):
        chosen = given
        if lr == "best" and "lr" in given.numbers:
            chosen = given.with_settings(lr=_best(course, given))
        elif isinstance(lr, float):
            if "lr" not in given.numbers:
                raise ValueError(f"lr={lr!r}: {name} has no learning rate; use lr='own'")
            chosen = given.with_settings(lr=lr)
        paths.append(_path(course, name, given, chosen, searched=lr == "best" and "lr" in given.numbers))
    return tuple(paths)


def _stepping(course: _Course, recipe: Recipe, lrs: Array | None = None) -> Iterator[dict[str, Any]]:
    """What there is before the first step and after each: point, loss, states; then where it asked and what it felt.

    With several learning rates everything has a column for each of them.
    """
    program = recipe.program
    numbers: dict[str, Any] = dict(recipe.numbers)
    columns = () if lrs is None else lrs.shape
    if lrs is not None:
        numbers["lr"] = lrs
    x = np.array(course.begin)
    x = x if lrs is None else np.repeat(x[:, None], len(lrs), axis=1)
    starts = {name: program.initial(name, recipe.numbers) for name in program.states}
    states = {
        name: x.copy() if value is None else np.full(held_shape(program, name, x.shape), value)
        for name, value in starts.items()
    }
    scalars: dict[str, Any] = {name: np.full(columns, value)[()] for name, value in program.scalar_states.items()}
    yield {"x": x, "states": states, "scalars": scalars}
    for t, gust in enumerate(course.wind, 1):
        known = {**numbers, **scalars, "t": float(t)}
        point = interpret(program.lookahead, {"x": x, **states}, known)["x"] if program.lookahead else x
        values = course.place.values(*point)
        dx = np.stack([values[f"d{name}"] for name in course.place.variables])
        dx = dx + gust.reshape(-1, *[1] * len(columns))
        new = interpret(program, {"x": x, "dx": dx, **states}, known)
        x = new["x"]
        states = {name: new[name] for name in states}
        scalars = {name: new[name] for name in scalars}
        yield {"x": x, "states": states, "scalars": scalars, "asked": point, "dx": dx}


def _path(course: _Course, name: str, given: Recipe, recipe: Recipe, *, searched: bool) -> Path:
    seen = list(_stepping(course, recipe))
    points = np.stack([each["x"] for each in seen])
    states = {
        key: np.stack([np.broadcast_to(each["states"][key], each["x"].shape) for each in seen])
        for key in seen[0]["states"]
    }
    scalars = {key: np.array([each["scalars"][key] for each in seen]) for key in seen[0]["scalars"]}
    gradients = np.stack([each["dx"] for each in seen[1:]])
    return Path(
        name=name,
        recipe=recipe,
        given=given,
        is_best=searched,
        surface=course.place,
        points=points,
        losses=np.asarray(course.place(*points.T)),
        asked=np.stack([each["asked"] for each in seen[1:]]),
        gradients=gradients,
        states=states,
        effective=_effective(recipe, points, gradients, states, scalars),
        goal=course.goal,
        is_bottomless=course.is_bottomless,
    )


def _effective(
    recipe: Recipe, points: Array, gradients: Array, states: Mapping[str, Array], scalars: Mapping[str, Array]
) -> Array:
    """How far each step moves each weight per unit of its gradient."""
    before: dict[str, Any] = {**recipe.numbers, "t": np.arange(1.0, len(points))[:, None]}
    before |= {name: history[:-1, None] for name, history in scalars.items()}
    before |= {"x": points[:-1], "dx": gradients, **{name: history[:-1] for name, history in states.items()}}
    found = effective(recipe.program, before, {name: history[1:] for name, history in states.items()})
    if found is None:
        with np.errstate(all="ignore"):
            return np.asarray(np.abs(np.diff(points, axis=0)) / np.abs(gradients))
    return found


def _best(course: _Course, recipe: Recipe) -> float:
    """The learning rate with which a rule does best here."""
    if recipe not in course.tried:
        if recipe.program.over_tensors:  # to which the columns of several learning rates would be one tensor
            alone = [[each["x"] for each in _stepping(course, recipe.with_settings(lr=lr))] for lr in RATES]
            course.tried[recipe] = np.moveaxis(np.array(alone), 0, -1)
        else:
            course.tried[recipe] = np.stack([each["x"] for each in _stepping(course, recipe, np.array(RATES))])
    points = course.tried[recipe][: len(course.wind) + 1]
    losses = np.asarray(course.place(*points.swapaxes(0, 1)))
    arrived = arrivals(losses, course.goal, course.is_bottomless)
    ends = np.array([course.place.ranges[name] for name in course.place.variables])
    low, high = np.minimum(ends[:, 0], course.begin), np.maximum(ends[:, 1], course.begin)
    off = ~((points >= low[:, None]) & (points <= high[:, None])).all(axis=1)
    if course.is_bottomless:
        off &= np.arange(len(points))[:, None] <= arrived
    with np.errstate(all="ignore"):
        last = losses[-max(len(losses) // 10, 1) :].max(axis=0)
    last[np.isnan(last)] = np.inf
    return RATES[int(np.lexsort((last, arrived, off.any(axis=0)))[0])]
