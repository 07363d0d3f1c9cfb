"""How large a race is made for the time that there is, and what a race of that size can prove.

What somebody settled stays as it is; the rest is chosen, from the largest race to the smallest, and the first that fits
is taken: `SIZES` with all rules and epochs, then with half and a quarter of the epochs, then the same with ever fewer
rules; at the very end a race that can prove nothing. The order is written here and nowhere else, and no result has a
say in it.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from downslope.lab.races.plan import NOW, Plan
from downslope.lab.races.statistics import SIGNIFICANCE, seeds_for

MOST_SEEDS = 40
"""Fresh seeds of a race that has time left: more would hardly show smaller differences."""

LEAST_SEEDS = seeds_for(1)
"""The fewest fresh seeds with which a winner can be shown."""

FEWEST_RULES = 2

LAST_LEFT_OUT = ("adam", "momentum", "sgd", "rmsprop", "nesterov", "adagrad")
"""Of the usual rules those that people ask about first: the others are left out before them."""

DETECTABLE = {
    False: {6: 1.8, 7: 1.3, 8: 1.2, 10: 1.0, 12: 0.9, 14: 0.84, 20: 0.7, 30: 0.56, 40: 0.47},
    True: {6: 2.9, 7: 2.2, 8: 2.0, 10: 1.9, 12: 1.8, 14: 1.6, 20: 1.6, 30: 1.5, 40: 1.4},
}
"""By how much one of two rules has to be lower to be found lower in 8 of 10 races, in standard deviations of their
difference from seed to seed: by whether every seed has a split of its own, and the number of seeds. Normal luck."""


@dataclass(frozen=True)
class Budget:
    """How long a race may take.

    Attributes:
        seconds: From its call to its result.
        settled: What of the race stays as it is; see `candidates`.
        clock: Gives seconds, from wherever it counts them.
        begun: What the clock said when the race began; None: it has not yet.
    """

    seconds: float
    settled: frozenset[str] = frozenset()
    clock: Callable[[], float] = field(default=time.perf_counter, compare=False)
    begun: float | None = None

    @classmethod
    def of(cls, given: float | str | Budget, settled: Iterable[str] = (), begun: float | None = None) -> Budget:
        """A budget as people write it: seconds, or text such as `"90s"`, `"5min"` or `"1h 30min"`.

        Args:
            given: How people write it.
            settled: What of the race stays as it is.
            begun: What the clock said when the race began.

        Raises:
            ValueError: It is no time above zero.

        Example:
            >>> Budget.of("5min").seconds, Budget.of("1h30min").seconds, Budget.of(90).seconds
            (300.0, 5400.0, 90.0)
        """
        if isinstance(given, Budget):
            return replace(given, settled=given.settled.union(settled), begun=begun)
        seconds = _seconds(given) if isinstance(given, str) else given
        known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not known or not 0 < seconds < math.inf:
            raise ValueError(
                f"budget={given!r}: give seconds, more than 0, or a time such as '90s', '5min' or '1h30min'"
            )
        return cls(float(seconds), frozenset(settled), begun=begun)


def _seconds(text: str) -> Any:
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"\s*(?:{number}\s*h)?\s*(?:{number}\s*m(?:in)?)?\s*(?:{number}\s*s?)?\s*", text)
    parts = [None] if found is None else found.groups()
    if not any(parts):
        return None
    return sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))


def duration(seconds: float) -> str:
    """A time for people who wait: `42 s`, `3 min 5 s`, `1 h 4 min`.

    Example:
        >>> duration(185.2), duration(0.4)
        ('3 min 5 s', '0.4 s')
    """
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


@dataclass(frozen=True)
class Foreseen:
    """What a race will be, before it is made.

    Attributes:
        seconds: How long it takes, measured on its rules, without what is over already.
        runs: How many trainings it has.
        disk: The bytes of its report and, if they are asked for, of its JSON and of its CSV.
        chosen: Rules, learning rates, seeds and epochs, in words.
        proves: What that can prove, in one sentence.
        fits: Whether there is time for it; if not, nothing smaller could be raced either.
    """

    seconds: float
    runs: int
    disk: tuple[int, int, int]
    chosen: str
    proves: str
    fits: bool = True

    @property
    def sentences(self) -> list[str]:
        """All of it, for people."""
        report, json, csv = map(size_of, self.disk)
        return [
            f"Race: {self.chosen}.",
            f"{self.runs:,} runs, about {duration(self.seconds)}"
            + ("." if self.fits else ", which is more than there is left: nothing would be raced."),
            self.proves,
            f"On disk: a report of about {report}; with all numbers as JSON {json}, with the runs as CSV {csv} more.",
        ]


def size_of(count: int) -> str:
    """A number of bytes for people.

    Example:
        >>> size_of(2_340_000), size_of(58_120)
        ('2.3 MB', '58 kB')
    """
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


@dataclass(frozen=True)
class Spent:
    """What a race made of the time that it had.

    Attributes:
        seconds: How much that was.
        chosen: What was chosen before tuning, in words.
        proves: What it can prove, in one sentence.
        dropped: What was then left out after all, in sentences.
        over: Whether it was over before all rules had been judged.
    """

    seconds: float
    chosen: str
    proves: str
    dropped: tuple[str, ...]
    over: bool = False


@dataclass(frozen=True)
class Size:
    """How large a race is.

    Attributes:
        every: Every how-manieth learning rate of the grid is tried.
        tuning: Tuning seeds.
        confirming: Confirming seeds.
        verdict: Fresh seeds; in the end as many as there is time for.
    """

    every: int
    tuning: int
    confirming: int
    verdict: int


SIZES = (
    Size(1, 3, 7, 10),
    Size(1, 2, 4, 8),
    Size(2, 2, 3, 8),
    Size(3, 2, 2, LEAST_SEEDS),
    Size(3, 1, 0, LEAST_SEEDS),
)
PROVING_NOTHING = Size(3, 1, 0, 3)
SHARES = (1, 2, 4)  # of the epochs: all, half, a quarter


@dataclass(frozen=True)
class Chosen:
    """A race that may be made.

    Attributes:
        plan: Its rules, learning rates and seeds.
        epochs: Its epochs; None where a run is as long as it is.
        left_out: The rules that it lacks.
    """

    plan: Plan
    epochs: int | None
    left_out: tuple[str, ...] = ()

    def sentence(self, usual: Chosen, *, more: bool = False) -> str:
        """What was chosen, and what of the usual race is not there.

        Args:
            usual: The race without a budget.
            more: Whether it has more fresh seeds where there is time for them.
        """
        plan = self.plan
        rules = f"{len(plan.tuned)} rule{'s' if len(plan.tuned) != 1 else ''}"
        parts = [
            f"{rules}" + (f" without {', '.join(self.left_out)}" if self.left_out else ""),
            _of(len(plan.learning_rates), len(usual.plan.learning_rates), "learning rate"),
            *([f"up to {plan.most_settings} settings at each"] if plan.most_settings > 1 else []),
            _of(len(plan.tuning_seeds), len(usual.plan.tuning_seeds), "tuning seed"),
            _of(len(plan.confirming_seeds), len(usual.plan.confirming_seeds), "confirming seed"),
        ]
        if self.epochs is not None and usual.epochs is not None:
            parts.append(_of(self.epochs, usual.epochs, "epoch"))
        fresh = len(plan.verdict_seeds)
        return (
            f"{', '.join(parts)}, and {fresh}{' or more' if more else ''} fresh seed{'s' if fresh != 1 or more else ''}"
        )


def _of(count: int, usual: int, name: str) -> str:
    many = name if (usual if count != usual else count) == 1 else f"{name}s"
    return f"{count} {many}" if count == usual else f"{count} of {usual} {many}"


def candidates(plan: Plan, settled: Collection[str], epochs: int | None) -> Iterator[Chosen]:
    """The races that may be made, the largest first.

    Args:
        plan: The race without a budget.
        settled: What stays as it is: `"rules"`, `"learning_rates"`, `"tuning_seeds"`, `"confirming_seeds"`,
            `"verdict_seeds"`, `"epochs"`.
        epochs: The epochs of a run; None where a run is as long as it is.
    """
    shares = (1,) if epochs is None or "epochs" in settled else SHARES
    shorter = [None if epochs is None else max(1, epochs // share) for share in shares]
    fewer = list(_fewer(plan, settled))
    for kept, length, size in itertools.product(fewer, shorter, SIZES):
        yield _sized(plan, kept, length, size, settled)
    yield _sized(plan, fewer[-1], shorter[-1], PROVING_NOTHING, settled)


def _fewer(plan: Plan, settled: Collection[str]) -> Iterator[Mapping[str, Any]]:
    """The rules, and then ever fewer of them; what people have now stays."""
    yield plan.entrants
    if "rules" in settled:
        return
    ranked = by_importance(plan.tuned)
    for count in range(len(ranked) - 1, FEWEST_RULES - 1, -1):
        yield {name: one for name, one in plan.entrants.items() if name == NOW or name in ranked[:count]}


def by_importance(names: Iterable[str]) -> list[str]:
    """Rules in the order in which they stay: what people have now, and then as in `LAST_LEFT_OUT`."""
    order = {name: place for place, name in enumerate((NOW, *LAST_LEFT_OUT))}
    return sorted(names, key=lambda name: order.get(name, len(order)))


def _sized(plan: Plan, entrants: Mapping[str, Any], epochs: int | None, size: Size, settled: Collection[str]) -> Chosen:
    rates = plan.learning_rates if "learning_rates" in settled else plan.learning_rates[:: size.every]
    counts = {
        name: len(getattr(plan, name)) if name in settled else getattr(size, name.removesuffix("_seeds"))
        for name in ("tuning_seeds", "confirming_seeds", "verdict_seeds")
    }
    smaller = replace(plan.with_seeds(*counts.values()), entrants=entrants, learning_rates=rates)
    return Chosen(smaller, epochs, tuple(name for name in plan.entrants if name not in entrants))


def proves(seeds: int, *, varied: bool, spread: float | None = None) -> str:
    """What so many fresh seeds can prove, in one sentence.

    Args:
        seeds: How many.
        varied: Whether every seed has a split of its own.
        spread: By how much the logarithms of two rules' losses differ from seed to seed, as a standard deviation; None
            as long as nobody knows.

    Example:
        >>> proves(3, varied=False)
        '3 fresh seeds cannot show a winner at the 5 % level, however far ahead a rule is: that takes 6.'
    """
    if seeds < LEAST_SEEDS:
        many = "One fresh seed" if seeds == 1 else f"{seeds} fresh seeds"
        return f"{many} cannot show a winner at the 5 % level, however far ahead a rule is: that takes {LEAST_SEEDS}."
    place = max(1, int(SIGNIFICANCE * 2**seeds / 2)) if seeds <= 14 else 0
    level = 1 - 2 * place / 2**seeds if place else 1 - SIGNIFICANCE
    size = detectable(seeds, varied=varied)
    by = f"{size:.2g} times what their difference varies by from seed to seed"
    if spread is not None:
        by = f"{100 * -math.expm1(-size * spread):.2g} % (by what the runs varied in tuning)"
    return (
        f"{seeds} fresh seeds can show a winner at the 5 % level, with intervals of {100 * level:.3g} %: of two rules, "
        f"one that is lower by {by} is found to be so in 8 of 10 such races."
    )


def detectable(seeds: int, *, varied: bool) -> float:
    """By how much one of two rules has to be lower to be found in 8 of 10 races: see `DETECTABLE`.

    Between the numbers of seeds that were simulated, on a straight line of the logarithms.
    """
    known = DETECTABLE[varied]
    above = min(n for n in known if n >= min(seeds, max(known)))
    below = max(n for n in known if n <= max(seeds, min(known)))
    if above == below:
        return known[above]
    share = (math.log(seeds) - math.log(below)) / (math.log(above) - math.log(below))
    return math.exp((1 - share) * math.log(known[below]) + share * math.log(known[above]))


def spread_of(logs: Sequence[Sequence[float]]) -> float | None:
    """The median, over pairs of rules, of the standard deviation of their difference; None with fewer than 3 seeds.

    Args:
        logs: The logarithms of each rule's losses, on the same seeds.
    """
    found = []
    for one, other in itertools.combinations(logs, 2):
        differences = [a - b for a, b in zip(one, other, strict=True) if math.isfinite(a) and math.isfinite(b)]
        if len(differences) >= 3:
            mean = math.fsum(differences) / len(differences)
            found.append(math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (len(differences) - 1)))
    return sorted(found)[len(found) // 2] if found else None
