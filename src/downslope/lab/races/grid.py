"""Grids over hyperparameters other than the learning rate: what every rule is tried at, and the same number of tries.

Every combination of a grid is a setting of each rule, as far as the rule has what is varied; each is tried at all of
the learning rates. A rule that has less of it has fewer settings, and gets more learning rates instead, between those
of all: so none is better only because it was tried more often.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np

from downslope.lab.engines.entrant import REST_RATIO, Entrant
from downslope.lab.engines.protocol import BATCH_SIZE, OPTIONS, Setting

Grid = Mapping[str, Sequence[float | bool]]

PER_DECADE = 3
"""How many learning rates a decade has that is tried."""

Side = Literal["low", "high"]


class Point(NamedTuple):
    """Where a rule is tried."""

    lr: float
    setting: Setting = ()


def checked(grid: Any, given: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float | bool, ...]]:
    """A grid as people give it: for each name one or more numbers, or True and False.

    Args:
        grid: What they gave.
        given: The hyperparameters of each rule that are settled.

    Raises:
        ValueError: It is no grid, or something of it is settled.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"grid={grid!r}: give the values of each hyperparameter, as in {{'weight_decay': [0, 0.01]}}")
    found = {}
    for name, values in grid.items():
        if name == "lr":
            raise ValueError("grid: lr is what the race tunes anyway; give learning_rates=[...]")
        for rule, settled in given.items():
            if name in settled:
                raise ValueError(f"grid: {name} is settled for {rule} in hyperparameters; leave one of the two out")
        shown = f"grid: {name} {values!r}"
        if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)) or np.ndim(values) != 1:
            raise ValueError(f"{shown}: give a list of values")
        if not len(values):
            raise ValueError(f"{shown}: give one or more values")
        if not all(isinstance(one, np.bool_) or (isinstance(one, Real) and math.isfinite(one)) for one in values):
            raise ValueError(f"{shown}: give numbers, or True and False")
        if len(set(values)) < len(values):
            raise ValueError(f"{shown}: a value is there twice")
        found[name] = tuple(bool(one) if isinstance(one, (bool, np.bool_)) else float(one) for one in values)
    return found


def settings_of(grid: Grid, entrants: Mapping[str, Entrant]) -> dict[str, tuple[Setting, ...]]:
    """The settings of every rule: all combinations of what it has of a grid, the last name varying fastest.

    Args:
        grid: The values of each hyperparameter, as `checked` gives them.
        entrants: The rules that are tuned.

    Raises:
        ValueError: No rule has one of the names, or a value is out of range for a rule that has it.

    Example:
        >>> import downslope
        >>> rules = {"sgd": downslope.sgd, "momentum": downslope.momentum}
        >>> settings_of({"mu": (0.5, 0.9)}, {name: Entrant.of(name, rule, {}) for name, rule in rules.items()})
        {'sgd': ((),), 'momentum': ((('mu', 0.5),), (('mu', 0.9),))}
    """
    if "decoupled" in grid and "weight_decay" not in grid:
        raise ValueError("grid: decoupled says how to apply weight_decay; give weight_decay values too")
    has = {name: [key for key in grid if entrant.has(key)] for name, entrant in entrants.items()}
    for key in grid:
        if not any(key in its for its in has.values()):
            raise ValueError(f"grid: no rule has {key!r}; there are {', '.join(_known(entrants.values()))}")
    found = {}
    for name, entrant in entrants.items():
        for key in has[name]:
            for value in grid[key]:
                try:
                    entrant.check(key, value)
                except ValueError as error:
                    raise ValueError(f"grid of {name}: {error}") from None
        combined = itertools.product(*(grid[key] for key in has[name]))
        found[name] = tuple(tuple(zip(has[name], values, strict=True)) for values in combined)
    return found


def _known(entrants: Iterable[Entrant]) -> list[str]:
    """What a grid may vary of some rules."""
    entrants = list(entrants)
    rules = [entrant.settings.rule for entrant in entrants]
    theirs = dict.fromkeys(name for rule in rules for name in (*rule.hyperparameters, *rule.flags) if name != "lr")
    beside = [REST_RATIO] if any(entrant.rest for entrant in entrants) else []
    return list(dict.fromkeys((*theirs, *beside, *OPTIONS, BATCH_SIZE)))


def filled(rates: Sequence[float], count: int, beside: float | None = None) -> tuple[float, ...]:
    """So many learning rates: these, and others at equal ratios between them, as evenly as may be.

    Args:
        rates: Learning rates in ascending order.
        count: How many it shall be; as they are where there is nothing between them.
        beside: One on either side of them that there was before: between it and them others may be too.

    Example:
        >>> filled([0.01, 0.1], 3), filled([1.0, 10.0], 4, beside=0.1)
        ((0.01, 0.03162, 0.1), (0.3162, 1.0, 3.162, 10.0))
    """
    gaps = list(itertools.pairwise(sorted((*rates, *(() if beside is None else (beside,))))))
    more, found = count - len(rates), list(rates)
    for place, (low, high) in enumerate(gaps):
        here = more * (place + 1) // len(gaps) - more * place // len(gaps)
        found += [float(f"{low * (high / low) ** (k / (here + 1)):.4g}") for k in range(1, here + 1)]
    return tuple(sorted(found))


def choose(losses: Mapping[Point, float]) -> tuple[Point | None, Side | None]:
    """Where the loss is lowest, and the side on which its learning rate lies on the edge of those tried.

    Args:
        losses: The mean final loss of each point, infinite where a seed diverged.

    Returns:
        The best (of equals that with the smallest learning rate), None if all are infinite; and the edge, where
        widening could still help. When every point diverged, that is the low one.

    Example:
        >>> choose({Point(0.01): 0.5, Point(0.1): 0.2, Point(1.0): float("inf")})
        (Point(lr=0.1, setting=()), None)
        >>> choose({Point(0.01): 0.5, Point(0.1): 0.2})[1]
        'high'
    """
    if not losses:
        return None, None
    best = lowest(losses)
    return (None, "low") if math.isinf(losses[best]) else (best, edge_of(best, losses))


def lowest(losses: Mapping[Point, float]) -> Point:
    """Where the loss is lowest; of equals that with the smallest learning rate, then the first."""
    return min(losses, key=lambda at: (losses[at], at.lr))


def edge_of(best: Point, tried: Iterable[Point]) -> Side | None:
    """The side on which a learning rate lies on the edge of those tried."""
    rates = [at.lr for at in tried]
    return "low" if best.lr == min(rates) else "high" if best.lr == max(rates) else None


def beyond(tried: Collection[float], edge: Side) -> tuple[float, ...]:
    """A decade of learning rates beyond the edge of those tried.

    Example:
        >>> beyond({0.01, 0.1}, "high")
        (0.215, 0.464, 1.0)
    """
    end = min(tried) if edge == "low" else max(tried)
    sign = -1 if edge == "low" else 1
    return tuple(sorted(float(f"{end * 10 ** (sign * k / PER_DECADE):.3g}") for k in range(1, PER_DECADE + 1)))
