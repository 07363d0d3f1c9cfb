"""What a grid over hyperparameters found, in words and in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.protocol import BATCH_SIZE, Setting, said
from downslope.lab.races.grid import Grid, Point, lowest
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.tries import on_the_grid


def tuned_over(grid: Iterable[str], tries: Mapping[str, int]) -> str:
    """What rules were tuned over, and at how many combinations of a learning rate and a setting, in one sentence.

    Args:
        grid: What was varied besides the learning rate.
        tries: How many combinations each rule was tried at.

    Example:
        >>> tuned_over(["mu", "batch_size"], {"sgd": 36, "momentum": 36})
        'Every rule was tuned over learning rate, mu and batch_size, with the same budget of 36 tries.'
    """
    what = f"{', '.join(['learning rate', *grid][:-1])} and {[*grid][-1]}"
    least, most = min(tries.values()), max(tries.values())
    if least == most:
        return f"Every rule was tuned over {what}, with the same budget of {least} tries."
    listed = ", ".join(f"{rule} {count}" for rule, count in tries.items())
    return f"Rules were tuned over {what}, with {least} to {most} tries: {listed}."


def listed(race: Race) -> str:
    """What the grid varied, with its values."""
    return "; ".join(f"{name} {', '.join(map(_value, values))}" for name, values in race.grid.items())


def found(race: Race) -> str:
    """What was chosen for each rule, in one sentence; empty without a grid."""
    chosen = [f"{result.rule} {said(result.setting)}" for result in race.rules if result.setting]
    return f"From the grid, by validation: {'; '.join(chosen)}." if chosen else ""


def lacking(grid: Grid, settings: Mapping[str, Sequence[Setting]]) -> tuple[str, ...]:
    """Which rules lack what a grid varies, and what they had instead, in a sentence.

    Args:
        grid: The grid.
        settings: The settings of each rule that was tuned.
    """
    without = {rule: [name for name in grid if name not in dict(own[0])] for rule, own in settings.items()}
    told = [f"{rule} has no {' and no '.join(names)}" for rule, names in without.items() if names]
    if not told:
        return ()
    most = max(map(len, settings.values()))
    fewer = [rule for rule, own in settings.items() if len(own) < most]
    instead = f"; so {', '.join(fewer)} had more learning rates instead, between those of all" if fewer else ""
    return (f"Of the grid, {'; '.join(told)}{instead}.",)


def at_the_end(grid: Grid, best: Mapping[str, Point | None], entrants: Mapping[str, Entrant]) -> tuple[str, ...]:
    """Which values were chosen at the end of the grid, where going on might help, in a sentence.

    Of two values one always is, and nothing is said.
    """
    told = []
    for rule, at in best.items():
        for name, value in () if at is None else at.setting:
            numbers = sorted(one for one in grid[name] if not isinstance(one, bool))
            if len(numbers) >= 3 and value in (numbers[0], numbers[-1]):
                smallest = value == numbers[0]
                if _allows(entrants[rule], name, _next(name, value, -math.inf if smallest else math.inf)):
                    told.append(f"{rule} {name}={_value(value)}, the {'smallest' if smallest else 'largest'}")
    if not told:
        return ()
    return (f"The best values lie at the end of the grid, and beyond it others may be better: {'; '.join(told)}.",)


def by_setting(race: Race, result: RuleResult) -> list[tuple[Point, float]]:
    """For every setting of a rule the point with the lowest loss on the tuning seeds, and that loss."""
    losses = on_the_grid(race, result)
    settings = dict.fromkeys(at.setting for at in losses)
    best = [lowest({at: loss for at, loss in losses.items() if at.setting == one}) for one in settings]
    return [(at, losses[at]) for at in best]


def _next(name: str, value: float, towards: float) -> float:
    """The next number after a value, of what is counted the next whole one."""
    return value + math.copysign(1, towards) if name == BATCH_SIZE else math.nextafter(value, towards)


def _allows(entrant: Entrant, name: str, value: float) -> bool:
    """Whether a rule could have a value."""
    try:
        entrant.check(name, value)
    except ValueError:
        return False
    return True


def _value(value: float | bool) -> str:
    return str(value) if isinstance(value, bool) else f"{value:g}"
