"""What a claim is, and how its verdict follows from what was measured.

A claim has parts. Each says when it looks, what it measures there, between which numbers that must lie for the claim to
hold, and what was expected of it before it was run. What is measured has an interval where chance has a part in it: the
whole interval must lie on one side, else it cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from downslope.claims.experiments import Raced, Walked

Outcome = Literal["yes", "no", "open", "missing"]
"""Whether a part holds; `"open"` where it cannot be told, `"missing"` where something is not installed."""

SAID: dict[Outcome, str] = {"yes": "holds", "no": "does not hold", "open": "cannot be told", "missing": "not measured"}
WHEN: dict[Outcome, str] = {
    "yes": "Holds when",
    "no": "Does not hold when",
    "open": "Cannot be told when",
    "missing": "Not measured here when",
}


@dataclass(frozen=True)
class Quantity:
    """What was measured: the number, its interval, which is the number itself where nothing is left to chance.

    Attributes:
        estimate: The number; infinite where something never happened, nan where there is none.
        low: The lower end of its interval.
        high: The upper end.
        said: The numbers behind it, for people.
    """

    estimate: float
    low: float
    high: float
    said: str = ""

    @classmethod
    def exact(cls, value: float, said: str = "") -> Quantity:
        """A number of which nothing is left to chance."""
        return cls(value, value, value, said)

    def __str__(self) -> str:
        if math.isnan(self.estimate):
            return "–"
        ends = "" if self.low == self.high else f" [{number(self.low)}, {number(self.high)}]"
        return f"{number(self.estimate)}{ends}"


def number(value: float) -> str:
    """A number for people, in three digits.

    Example:
        >>> number(0.012345), number(12345.6), number(float("inf")), number(7.0)
        ('0.0123', '12,346', '∞', '7')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Threshold:
    """Where a number must lie for a claim to hold: at a bound or beyond it."""

    side: Literal["at least", "at most"]
    bound: float

    def outcome(self, found: Quantity) -> Outcome:
        """Whether what was measured lies there, with the whole of its interval."""
        if math.isnan(found.low) or math.isnan(found.high):
            return "open"
        if self.side == "at most":
            return "yes" if found.high <= self.bound else "no" if found.low > self.bound else "open"
        return "yes" if found.low >= self.bound else "no" if found.high < self.bound else "open"

    def __str__(self) -> str:
        return f"{self.side} {number(self.bound)}"


def at_least(bound: float) -> Threshold:
    """What is measured must not be less.

    Example:
        >>> at_least(5).outcome(Quantity(7.0, 4.0, 9.0)), at_least(5).outcome(Quantity.exact(7.0))
        ('open', 'yes')
    """
    return Threshold("at least", bound)


def at_most(bound: float) -> Threshold:
    """What is measured must not be more.

    Example:
        >>> at_most(1).outcome(Quantity(1.4, 1.2, 1.6)), str(at_most(0.8))
        ('no', 'at most 0.8')
    """
    return Threshold("at most", bound)


@dataclass(frozen=True)
class Measure:
    """A number that can be read off what an experiment found.

    Attributes:
        what: What it is, for people.
        of: Reads it off.
        entrants: Of whom it is measured, as the experiment calls them.
    """

    what: str
    of: Callable[[Any], Quantity]
    entrants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One question that a claim is put to.

    Attributes:
        when: Where it looks: the end of a sentence that begins with "when".
        measure: What is measured there.
        holds: Where that must lie for the claim to hold.
        expected: What was expected before it was run.
        experiment: The walk or race that it is measured in.
    """

    when: str
    measure: Measure
    holds: Threshold
    expected: Literal["yes", "no", "open"]
    experiment: Walked | Raced


@dataclass(frozen=True)
class Claim:
    """A claim.

    Attributes:
        name: What it is called on the command line.
        words: The claim.
        expected: What was expected, and why, written before the first run.
        literature: Where it comes from and what has been found about it.
        play: The state of the playground that shows it.
        parts: What it is put to.
    """

    name: str
    words: str
    expected: str
    literature: tuple[str, ...]
    play: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Found:
    """What was found of a part; no quantity where something is missing, which `said` then names."""

    outcome: Outcome
    quantity: Quantity | None = None
    said: str = ""


def judged(part: Part, quantity: Quantity) -> Found:
    """What a measured number says of a part."""
    return Found(part.holds.outcome(quantity), quantity)


def verdict(claim: Claim, found: Sequence[Found]) -> list[tuple[str, list[tuple[Part, Found]]]]:
    """What was found of a claim: when it holds, when it does not, when it cannot be told, each with its parts.

    Args:
        claim: The claim.
        found: What was found of each of its parts.

    Returns:
        Beginnings of a sentence, with the parts that end it; in this order, and none without any.
    """
    both = list(zip(claim.parts, found, strict=True))
    groups = [(WHEN[outcome], [(part, one) for part, one in both if one.outcome == outcome]) for outcome in WHEN]
    return [(words, parts) for words, parts in groups if parts]


def kind(found: Sequence[Found]) -> str:
    """A verdict in a word or two.

    Returns:
        `holds` or `does not hold` where all parts say so; `holds when` where some part holds, `fails when` where none
        does and some do not, `not shown` where nothing can be told, `not measured`.
    """
    outcomes = {one.outcome for one in found}
    if "yes" in outcomes:
        return "holds" if len(outcomes) == 1 else "holds when"
    if "no" in outcomes:
        return "does not hold" if len(outcomes) == 1 else "fails when"
    return "not shown" if "open" in outcomes else "not measured"
