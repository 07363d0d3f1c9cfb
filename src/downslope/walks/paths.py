"""Walks as data: the paths that rules have taken from one start on a surface."""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np

from downslope.recipes.recipe import Recipe
from downslope.targets.stability import Stability, stability
from downslope.walks.surface import Surface

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Path:
    """The way of one rule.

    Attributes:
        name: Its name among those that walk with it.
        recipe: The rule with all of its settings, and the learning rate that it walked with.
        given: The rule as it was given, with a learning rate of its own.
        is_best: Whether the learning rate was looked for, as the rule's best on this surface.
        surface: Where it walks.
        points: The weights before the first step and after each, a row for each and a column for each weight.
        losses: The loss at each point.
        asked: Where the gradient of each step was taken: at the point, or ahead of it.
        gradients: That gradient, noise included.
        states: The states by name, rows and columns as in `points`.
        effective: How far each step moves a weight for each unit of its gradient, with what it divides by held still;
            where steps are no multiples of gradients, the step over the gradient.
        goal: The loss to be reached.
        is_bottomless: Whether the surface has no lowest place, so that a rule that has arrived may walk on for ever.
    """

    name: str
    recipe: Recipe
    given: Recipe
    is_best: bool
    surface: Surface
    points: Array
    losses: Array
    asked: Array
    gradients: Array
    states: Mapping[str, Array]
    effective: Array
    goal: float
    is_bottomless: bool

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
        """The step from which on the loss stays at the goal or below it; None if it is not there at the end."""
        found = int(arrivals(self.losses, self.goal, self.is_bottomless))
        return found if found < len(self.losses) else None

    @property
    def length(self) -> float:
        """How long the way is: to the goal, or to the end of one that does not get there, as far as it is finite."""
        return float(np.linalg.norm(np.diff(self._way, axis=0), axis=1).sum())

    @property
    def distance(self) -> float:
        """How far the end of this way is from its start."""
        return float(np.linalg.norm(self._way[-1] - self._way[0]))

    @property
    def detour(self) -> float:
        """The length over the distance: 1 for a straight way."""
        return self.length / self.distance if self.distance else math.inf if self.length else 1.0

    @property
    def sign_changes(self) -> tuple[int, ...]:
        """How often he turned back on this way, along each axis."""
        turns = np.sign(np.diff(self._way, axis=0))
        return tuple(map(int, (turns[1:] * turns[:-1] < 0).sum(axis=0)))

    @functools.cached_property
    def curvature(self) -> Array:
        """The largest eigenvalue of the second derivatives at each point; nan where they are not finite."""
        return _largest(self._hessians)

    @functools.cached_property
    def stability(self) -> Stability:
        """How large `lr` times the curvature may be for this rule with these settings."""
        return stability(self.recipe.program, self.recipe.numbers)

    @functools.cached_property
    def sharpness(self) -> Array:
        """`lr` times the curvature at each point, which `stability.limit` is the limit of.

        The largest eigenvalue of the second derivatives, times the learning rate. For a rule with states that are held
        still, of the preconditioned ones: each axis is scaled by the factor before the gradient in the step from this
        point (at the end, in the step to it). nan where it is not finite, or there is no limit to compare it to.

        Source: Cohen et al., "Adaptive gradient methods at the edge of stability", 2022, section 2.
        """
        limit = self.stability
        if limit.limit is None or (limit.held and not limit.gain):
            return np.full(len(self.points), np.nan)
        if not limit.held:
            return self.recipe.numbers["lr"] * self.curvature
        with np.errstate(invalid="ignore"):
            root = np.sqrt(np.concatenate([self.effective, self.effective[-1:]]) / limit.gain)
            return _largest(root[:, :, None] * self._hessians * root[:, None, :])

    @functools.cached_property
    def _hessians(self) -> Array:
        """The second derivatives at each point."""
        rows = self.surface.hessian(*self.points.T)
        return np.stack([np.stack([np.broadcast_to(e, self.losses.shape) for e in row], -1) for row in rows], -2)

    @property
    def _way(self) -> Array:
        ends = [len(self.points)]
        ends += [self.arrival + 1] if self.arrival is not None else []
        ends += [max(1, self.diverged)] if self.diverged is not None else []
        return self.points[: min(ends)]


@dataclass(frozen=True, eq=False)
class Walk:
    """The paths of several rules from one start.

    Attributes:
        surface: Where they walk.
        paths: One for each rule.
        start: Where they begin.
        minima: Where the surface is lowest; none if it has no lowest place within its ranges.
        lowest: The loss there, or the lowest within the ranges.
        lr: The learning rate of all, "best" where each has the one that suits it, "own" where each has its own.
        noise: The standard deviation of what is added to each slope, the same for all at each step.
        seed: That of the noise.
        goal: The loss to be reached.
    """

    surface: Surface
    paths: tuple[Path, ...]
    start: tuple[float, ...]
    minima: tuple[tuple[float, ...], ...]
    lowest: float
    lr: float | Literal["best", "own"]
    noise: float
    seed: int
    goal: float

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

    def write(self, path: str | FilePath) -> None:
        """Write the walk: `.html` is the film, `.gif` an animation, `.png`, `.svg`, `.pdf` a picture, `.csv` numbers.

        Args:
            path: Where to write.

        Raises:
            ValueError: The name ends otherwise.
            ImportError: What draws pictures or formulas is missing.
            OSError: The file cannot be written, or there is something that is no file.
        """
        from downslope.walks.write import write  # with what draws

        write(self, path)

    def _repr_html_(self) -> str:
        from downslope.walks.film import film

        frame = 'width="100%" height="900" style="border: 0" sandbox="allow-scripts"'
        return f'<iframe {frame} srcdoc="{html.escape(film(self))}"></iframe>'


def _largest(matrices: Array) -> Array:
    """The largest eigenvalue of each symmetric matrix; nan where one is not finite."""
    finite = np.isfinite(matrices).all(axis=(1, 2))
    found = np.full(len(matrices), np.nan)
    found[finite] = np.linalg.eigvalsh(matrices[finite]).max(axis=1)
    return found


def arrivals(losses: Array, goal: float, is_bottomless: bool) -> Array:
    """The row from which on each column stays at the goal or below; the number of rows where there is none.

    Without a bottom, the first row there: what follows may be anything, not a number included.
    """
    below = losses <= goal
    if is_bottomless:
        below = np.logical_or.accumulate(below, axis=0)
    above = ~below[::-1]
    return np.where(above.any(axis=0), len(losses) - above.argmax(axis=0), 0)
