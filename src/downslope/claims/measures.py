"""What can be measured in a walk or in a race, for the parts of a claim.

Of one rule, or of one over that of another. Of a walk with noise it is the median of all seeds, with the interval from
the least of them to the most. Where a race is concerned the number is a ratio over its reporting seeds
with the interval of the lab's own comparison of two rules, and a run that diverged is infinitely bad.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from downslope.claims.claim import Measure, Quantity, number
from downslope.walks.walking import lowest_places

if TYPE_CHECKING:
    from downslope.claims.experiments import Walks
    from downslope.claims.racing import Races
    from downslope.walks.paths import Path

# In a walk


def steps(rule: str, over: str) -> Measure:
    """Steps to the goal, to stay there."""
    return _walked("steps to the goal", lambda path: math.inf if path.arrival is None else path.arrival, rule, over)


def detour(rule: str, over: str = "") -> Measure:
    """The length of the way over the distance from its start to its end."""
    return _walked("path over distance", lambda path: path.detour, rule, over)


def turns(rule: str, over: str = "") -> Measure:
    """How often he turns back across the valley, on the way to the goal."""
    return _walked("turns across the valley", lambda path: path.sign_changes[-1], rule, over)


def left(rule: str) -> Measure:
    """The share of the way down that is left at the end."""

    def share(path: Path) -> float:
        lowest = lowest_places(path.surface)[1]
        return float((path.losses[-1] - lowest) / (path.losses[0] - lowest))

    return _walked("share of the way down that is left", share, rule)


def floor(rule: str, over: str) -> Measure:
    """The mean loss over the second half of the way."""
    return _walked(
        "mean loss of the second half", lambda path: float(path.losses[len(path.losses) // 2 :].mean()), rule, over
    )


def farthest(rule: str, over: str) -> Measure:
    """How far he is from x = 0 at most in the last tenth of the way."""
    return _walked(
        "distance from the goal at the end",
        lambda path: float(np.abs(path.points[-len(path.points) // 10 :, 0]).max()),
        rule,
        over,
    )


def growth(rule: str) -> Measure:
    """How much the effective step, that per unit of slope, grows at most after a smaller one, along any axis."""

    def most(path: Path) -> float:
        return float((path.effective / np.minimum.accumulate(path.effective, axis=0)).max())

    return _walked("largest over an earlier effective step", most, rule)


def later(rule: str, early: int, late: int) -> Measure:
    """The effective step after `late` steps over that after `early`."""
    return _walked(
        f"effective step {late:,} over step {early:,}",
        lambda path: float(path.effective[late - 1, 0] / path.effective[early - 1, 0]),
        rule,
    )


def stride(rule: str, over: str) -> Measure:
    """How long the first step is."""
    return _walked(
        "length of the first step", lambda path: float(np.abs(path.points[1] - path.points[0]).max()), rule, over
    )


def limit(rule: str, over: str) -> Measure:
    """The largest learning rate times curvature with which it comes to rest on a quadratic."""
    return _walked("limit of lr times curvature", lambda path: path.stability.limit or math.nan, rule, over)


def _walked(what: str, of: Callable[[Path], float], rule: str, over: str = "") -> Measure:
    def read(found: Walks) -> Quantity:
        each = [{name: float(of(walks.path(name))) for name in (rule, over) if name} for walks in _seeds(found)]
        numbers = [_ratio(one[rule], one[over]) if over else one[rule] for one in each]
        said = ", ".join(f"{name} {_usual([one[name] for one in each])}" for name in each[0]) if over else ""
        if any(map(math.isnan, numbers)):
            return Quantity.exact(math.nan, said)
        return Quantity(statistics.median(numbers), min(numbers), max(numbers), said)

    return Measure(_called(what, rule, over), read, (rule, over))


def _seeds(found: Walks) -> tuple[Walks, ...]:
    return (found, *found.others)


def _usual(values: Sequence[float]) -> str:
    middle = statistics.median(values)
    return "never" if math.isinf(middle) else number(middle)


def _ratio(a: float, b: float) -> float:
    if math.isinf(a) and math.isinf(b):
        return math.nan
    return math.inf if math.isinf(a) or b == 0 else a / b


# In a race


def loss(rule: str, over: str = "") -> Measure:
    """The final validation loss at the best learning rate; over that of the lowest other rule, where none is named."""

    def read(found: Races) -> Quantity:
        other = over or next(name for name in found.ranked if name != rule)
        return found.compared(rule, other, {name: found.final(name) for name in found.results})

    return Measure(_called("final loss", rule, over or "the lowest other"), read, (rule, over))


def loss_at(rule: str, lr: float, over: str, over_lr: float) -> Measure:
    """The final validation loss at a learning rate over that of another rule at another one, on the tuning seeds."""

    def read(found: Races) -> Quantity:
        return found.compared(rule, over, {rule: found.tried(rule, lr), over: found.tried(over, over_lr)})

    what = "final loss on the tuning seeds"
    return Measure(_called(what, f"{rule} at {lr:g}", f"{over} at {over_lr:g}"), read, (rule, over))


def accuracy(rule: str, over: str) -> Measure:
    """The final validation accuracy."""
    return _raced("final accuracy", lambda found, name: found.accuracies(name), rule, over)


def epochs(rule: str, over: str, target: float) -> Measure:
    """Passes over the training rows until the validation loss is first at a target."""
    return _raced(f"epochs to a loss of {target:g}", lambda found, name: found.epochs_to(name, target), rule, over)


def seconds(rule: str, over: str, target: float) -> Measure:
    """Seconds until the validation loss is first at a target, by what an epoch took in the race, with all its runs.

    That is one number; the interval is that of the epochs.
    """

    def each(found: Races, name: str) -> Sequence[float]:
        return [each * found.seconds_an_epoch(name) for each in found.epochs_to(name, target)]

    return _raced(f"seconds to a loss of {target:g}", each, rule, over)


def highest(rule: str, over: str) -> Measure:
    """The highest learning rate of the safe range: within which the loss stays within 1.5 times the best.

    Where the range ends is known to one step of the grid only, which is the interval.
    """

    def read(found: Races) -> Quantity:
        (end, beyond), (other, other_beyond) = (found.safe_end(name) for name in (rule, over))
        said = f"{rule} {number(end)}, {over} {number(other)}"
        return Quantity(end / other, end / other_beyond, beyond / other, said)

    return Measure(_called("highest safe learning rate", rule, over), read, (rule, over))


def _raced(what: str, of: Callable[[Any, str], Sequence[float]], rule: str, over: str) -> Measure:
    def read(found: Races) -> Quantity:
        return found.compared(rule, over, {name: of(found, name) for name in (rule, over)})

    return Measure(_called(what, rule, over), read, (rule, over))


def _called(what: str, rule: str, over: str) -> str:
    return f"{what}, {rule} over {over}" if over else f"{what}, {rule}"
