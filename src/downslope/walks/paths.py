"""Walks: the paths that rules take from one start on a surface, as data.

A path is a function of its settings, worked out as a whole in double precision by the formula of the rule and that of
the surface.
"""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from downslope.language.expression import Expression
from downslope.language.formula import Range, check_number
from downslope.recipes.recipe import Recipe, written
from downslope.rule import Rule
from downslope.rules import TEXTBOOK
from downslope.targets.arrays import compute, interpret
from downslope.targets.evaluate import evaluate
from downslope.targets.stability import response
from downslope.walks.surface import Surface, surface_of

Array = np.ndarray[Any, Any]

RATES = 10.0 ** np.linspace(-6, 3, 181)
"""The learning rates among which a rule's best on a surface is looked for: twenty in each power of ten."""

CLOSE = 1e-3
"""The part of the way down that is left at the goal, unless another one is given."""

_ABOVE_ZERO = Range(5e-324, math.inf)
_SIZE = Range(0.0, math.inf)


@dataclass(frozen=True, eq=False)
class Path:
    """The way of one rule.

    Attributes:
        name: Its name among those that walk with it.
        recipe: The rule with all of its settings, the learning rate included.
        is_best: Whether the learning rate was looked for, as the rule's best on this surface.
        surface: Where it walks.
        points: The weights before the first step and after each, a row for each and a column for each weight.
        losses: The loss at each point.
        asked: Where the gradient of each step was taken: at the point, or ahead of it.
        gradients: That gradient, noise included.
        states: The states by name, rows and columns as in `points`.
        effective: How far each step moves a weight for each unit of its gradient, with what it divides by held still;
            where steps are no multiples of gradients, the step over the gradient.
        goal: The loss to be reached, if there is one.
    """

    name: str
    recipe: Recipe
    is_best: bool
    surface: Surface
    points: Array
    losses: Array
    asked: Array
    gradients: Array
    states: Mapping[str, Array]
    effective: Array
    goal: float | None

    @property
    def lr(self) -> float | None:
        """The learning rate; None for a rule without."""
        return self.recipe.numbers.get("lr")

    @functools.cached_property
    def diverged(self) -> int | None:
        """The first step after which the point or its loss is not finite."""
        bad = ~(np.isfinite(self.points).all(axis=1) & np.isfinite(self.losses))
        return int(bad.argmax()) if bad.any() else None

    @functools.cached_property
    def arrival(self) -> int | None:
        """The step from which on the loss stays at the goal or below it."""
        if self.goal is None:
            return None
        found = _arrivals(self.losses[:, None], self.goal)[0]
        return int(found) if found < len(self.losses) else None

    @property
    def length(self) -> float:
        """How long the way is, as far as it is finite."""
        return float(np.linalg.norm(np.diff(self._finite, axis=0), axis=1).sum())

    @property
    def distance(self) -> float:
        """How far its end is from its start."""
        return float(np.linalg.norm(self._finite[-1] - self._finite[0]))

    @property
    def detour(self) -> float:
        """The length over the distance: 1 for a straight way."""
        return self.length / self.distance if self.distance else math.inf if self.length else 1.0

    @property
    def sign_changes(self) -> tuple[int, ...]:
        """How often he turned back, along each axis."""
        turns = np.sign(np.diff(self._finite, axis=0))
        counts = []
        for column in turns.T:
            moved = column[column != 0]
            counts.append(int((moved[1:] != moved[:-1]).sum()))
        return tuple(counts)

    @functools.cached_property
    def curvature(self) -> Array:
        """The largest eigenvalue of the second derivatives at each point; nan where they are not finite."""
        rows = self.surface.hessian(*self.points.T)
        matrices = np.stack([np.stack([np.broadcast_to(e, self.losses.shape) for e in row], -1) for row in rows], -2)
        finite = np.isfinite(matrices).all(axis=(1, 2))
        found = np.full(len(matrices), np.nan)
        found[finite] = np.linalg.eigvalsh(matrices[finite]).max(axis=1)
        return found

    @property
    def _finite(self) -> Array:
        return self.points[: self.diverged] if self.diverged else self.points


@dataclass(frozen=True, eq=False)
class Walk:
    """The paths of several rules from one start.

    Attributes:
        surface: Where they walk.
        paths: One for each rule.
        start: Where they begin.
        noise: The standard deviation of what is added to each slope, the same for all at each step.
        seed: That of the noise.
        goal: The loss to be reached, if there is one.
    """

    surface: Surface
    paths: tuple[Path, ...]
    start: tuple[float, ...]
    noise: float
    seed: int
    goal: float | None

    def __getitem__(self, name: str) -> Path:
        """The path of this name."""
        for path in self.paths:
            if path.name == name:
                return path
        raise KeyError(f"{name!r}: there are {', '.join(path.name for path in self.paths)}")

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.paths[0].losses) - 1

    def summary(self) -> list[dict[str, Any]]:
        """A row for each path: its name, learning rate and measures; None where there is none.

        Example:
            >>> import downslope
            >>> row = downslope.walk("valley", [downslope.sgd], lr=0.1).summary()[0]
            >>> row["rule"], row["lr"], row["arrival"], row["sign_changes"]
            ('sgd', 0.1, 150, (0, 0))
        """
        return [
            {
                "rule": path.name,
                "lr": path.lr,
                "best": path.is_best,
                "loss": float(path.losses[-1]),
                "arrival": path.arrival,
                "diverged": path.diverged,
                "length": path.length,
                "distance": path.distance,
                "sign_changes": path.sign_changes,
            }
            for path in self.paths
        ]

    def __repr__(self) -> str:
        return f"<walk on {self.surface.name}: {', '.join(path.name for path in self.paths)}; {self.steps} steps>"

    def _repr_html_(self) -> str:
        heads = ["rule", "lr", "loss at the end", "at the goal", "way / distance", "turns"]
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(path))}</tr>" for path in self.paths)
        head = "".join(f"<th>{each}</th>" for each in heads)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(path: Path) -> Iterator[str]:
    yield html.escape(path.name)
    yield "" if path.lr is None else f"{path.lr:.3g}{' (its best)' if path.is_best else ''}"
    yield f"diverged at step {path.diverged}" if path.diverged is not None else f"{path.losses[-1]:.3g}"
    yield "" if path.goal is None else "never" if path.arrival is None else f"step {path.arrival}"
    yield f"{path.detour:.3g}"
    yield ", ".join(map(str, path.sign_changes))


def walk(
    surface: Surface | str | Callable[..., Any],
    rules: Iterable[Rule | Recipe] = TEXTBOOK,
    *,
    start: Sequence[float] | float | None = None,
    steps: int = 200,
    lr: float | Literal["best", "own"] = "best",
    noise: float = 0.0,
    seed: int = 0,
    goal: float | None = None,
) -> Walk:
    """Let rules walk on a surface, all from one start.

    Args:
        surface: A surface, the name of a built-in one, a formula as text, or a function of `x` and `y`.
        rules: Rules, or recipes where a rule is to have other settings than its defaults.
        start: Where they begin; the default is the surface's own start.
        steps: How many steps they take.
        lr: A learning rate for all; "best" for each rule's best here, which is looked for; or "own" for that of its
            recipe. The best is the one, of 181 from 1e-6 to 1000, that is soonest at the goal to stay there; where none
            gets there, or no goal is known, that of the lowest mean loss in the last tenth of the steps. What strays
            farther from the ranges of the surface than they are wide does not count.
        noise: The standard deviation of what is added to each slope, as mini-batches do: the same for all rules.
        seed: That of the noise.
        goal: The loss to be reached; the default is a thousandth of the way from the lowest loss to that at the start.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, the surface is finite nowhere, or the start is no place on it.
        GrammarError: The text is no formula.
        FormulaError: The function is no formula.

    Example:
        >>> import downslope
        >>> walked = downslope.walk("x**2/10 + 5*y**2", [downslope.sgd, downslope.momentum], start=(-9, 1.5), lr=0.1)
        >>> walked
        <walk on x**2/10 + 5*y**2: sgd, momentum; 200 steps>
        >>> walked["momentum"].points.shape, walked["momentum"].states["v"].shape
        ((201, 2), (201, 2))
    """
    place = surface_of(surface)
    recipes = [_recipe(each) for each in rules]
    if not recipes:
        raise ValueError("rules is empty; give at least one rule, such as downslope.sgd")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps={steps!r}: expected a whole number of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r}: expected a whole number of at least 0")
    if lr not in ("best", "own"):
        if isinstance(lr, str):
            raise ValueError(f"lr={lr!r}: expected a number above 0, 'best' or 'own'")
        lr = check_number("lr", lr, _ABOVE_ZERO)
    begin = _begin(place, start)
    goal = _goal(place, begin) if goal is None else check_number("goal", goal, Range(-math.inf, math.inf))
    deviation = check_number("noise", noise, _SIZE)
    wind = deviation * np.random.default_rng(seed).standard_normal((int(steps), len(begin)))

    paths = []
    for name, recipe in zip(_names(recipes), recipes, strict=True):
        searched = lr == "best" and "lr" in recipe.numbers
        if searched:
            chosen = recipe.with_settings(lr=_best(place, recipe, begin, wind, goal))
        elif isinstance(lr, float):
            if "lr" not in recipe.numbers:
                raise ValueError(f"lr={lr!r}: {name} has no learning rate; use lr='own'")
            chosen = recipe.with_settings(lr=lr)
        else:
            chosen = recipe
        paths.append(_path(place, name, chosen, begin, wind, goal, searched))
    return Walk(place, tuple(paths), begin, deviation, int(seed), goal)


# What is asked for


def _recipe(what: Rule | Recipe) -> Recipe:
    if isinstance(what, Recipe):
        return what
    if not isinstance(what, Rule):
        raise TypeError(f"rules holds {what!r}; expected rules, such as downslope.adam, or recipes")
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


def _goal(place: Surface, begin: tuple[float, ...]) -> float | None:
    if place.lowest is None:
        return None
    return place.lowest + CLOSE * (float(place(*begin)) - place.lowest)


# Walking


def _stepping(
    place: Surface, recipe: Recipe, begin: tuple[float, ...], wind: Array, lrs: Array | None = None
) -> Iterator[dict[str, Any]]:
    """What there is before the first step and after each: point, loss, states; then where it asked and what it felt.

    With several learning rates everything has a column for each of them.
    """
    program = recipe.program
    numbers: dict[str, Any] = dict(recipe.numbers)
    columns = () if lrs is None else lrs.shape
    if lrs is not None:
        numbers["lr"] = lrs
    x = np.array(begin) if lrs is None else np.repeat(np.array(begin)[:, None], len(lrs), axis=1)
    starts = {name: program.initial(name, recipe.numbers) for name in program.states}
    states = {name: x.copy() if value is None else np.full_like(x, value) for name, value in starts.items()}
    scalars: dict[str, Any] = {name: np.full(columns, value)[()] for name, value in program.scalar_states.items()}
    yield {"x": x, "states": states, "scalars": scalars}
    for t, gust in enumerate(wind, 1):
        known = {**numbers, **scalars, "t": float(t)}
        point = interpret(program.lookahead, {"x": x, **states}, known)["x"] if program.lookahead else x
        values = place.values(*point)
        dx = np.stack([values[f"d{name}"] for name in place.variables])
        dx = dx + gust.reshape(-1, *[1] * len(columns))
        new = interpret(program, {"x": x, "dx": dx, **states}, known)
        x = new["x"]
        states = {name: new[name] for name in states}
        scalars = {name: new[name] for name in scalars}
        yield {"x": x, "states": states, "scalars": scalars, "asked": point, "dx": dx}


def _path(
    place: Surface,
    name: str,
    recipe: Recipe,
    begin: tuple[float, ...],
    wind: Array,
    goal: float | None,
    searched: bool,
) -> Path:
    seen = list(_stepping(place, recipe, begin, wind))
    points = np.stack([each["x"] for each in seen])
    states = {key: np.stack([each["states"][key] for each in seen]) for key in seen[0]["states"]}
    scalars = {key: np.array([each["scalars"][key] for each in seen]) for key in seen[0]["scalars"]}
    gradients = np.stack([each["dx"] for each in seen[1:]])
    return Path(
        name=name,
        recipe=recipe,
        is_best=searched,
        surface=place,
        points=points,
        losses=np.asarray(place(*points.T)),
        asked=np.stack([each["asked"] for each in seen[1:]]),
        gradients=gradients,
        states=states,
        effective=_effective(recipe, points, gradients, states, scalars),
        goal=goal,
    )


def _effective(
    recipe: Recipe, points: Array, gradients: Array, states: Mapping[str, Array], scalars: Mapping[str, Array]
) -> Array:
    """How far each step moves each weight per unit of its gradient."""
    found = response(recipe.program)
    with np.errstate(all="ignore"):
        if found is None:
            return np.asarray(np.abs(np.diff(points, axis=0)) / np.abs(gradients))
        e, held = found
        known: dict[str, Any] = {name: np.float64(value) for name, value in recipe.numbers.items()}
        known |= {"t": np.arange(1.0, len(points))[:, None], "x": points[:-1], "dx": gradients}
        known |= {name: history[:-1, None] for name, history in scalars.items()}
        known |= {name: history[:-1] for name, history in states.items()}
        known |= {f"{name} still": states[name][1:] for name in held}

        def leaf(part: Expression) -> Any:
            return np.float64(part.number) if part.op == "constant" else known[str(part.value)]

        value = evaluate([e], leaf, lambda part, args: compute(part.op, args))[e]
    return np.array(np.broadcast_to(value, gradients.shape))


def _best(place: Surface, recipe: Recipe, begin: tuple[float, ...], wind: Array, goal: float | None) -> float:
    """The learning rate with which a rule does best here."""
    points = np.stack([each["x"] for each in _stepping(place, recipe, begin, wind, RATES)])
    losses = np.array(place(*points.swapaxes(0, 1)))
    for axis, (first, ends) in enumerate(zip(begin, place.ranges.values(), strict=True)):
        low, high = min(*ends, first), max(*ends, first)
        near = np.abs(points[:, axis] - (low + high) / 2) <= 1.5 * (high - low)
        losses[:, ~near.all(axis=0)] = np.inf
    losses[~np.isfinite(losses)] = np.inf
    if goal is not None:
        arrivals = _arrivals(losses, goal)
        if arrivals.min() < len(losses):
            soonest = np.flatnonzero(arrivals == arrivals.min())
            return float(RATES[soonest[losses[-1, soonest].argmin()]])
    last = losses[-max(len(losses) // 10, 1) :].mean(axis=0)
    return float(RATES[last.argmin()])


def _arrivals(losses: Array, goal: float) -> Array:
    """For each column the row from which on it stays at the goal or below; the number of rows where there is none."""
    above = ~(losses <= goal)
    after_the_last = len(losses) - above[::-1].argmax(axis=0)
    return np.where(above.any(axis=0), after_the_last, 0)
