"""What is decided of a race before its first run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.protocol import BATCH_SIZE, SEEDS_PER_RACE, Setting, priced
from downslope.lab.races.grid import PER_DECADE, Grid, Point, checked, filled, settings_of
from downslope.lab.races.statistics import MARGIN
from downslope.rule import Rule

GRID = tuple(float(f"{10 ** (k / PER_DECADE):.3g}") for k in range(-5 * PER_DECADE, PER_DECADE + 1))
"""The learning rates every rule starts from: three per decade from 1e-5 to 10."""

CONFIRMING_SEEDS = 7
"""More tuning seeds for the learning rates that look best."""

FINALISTS = 4
"""How many learning rates of every rule are confirmed at a time."""

FIRST_VERDICT_SEED = 1000
"""Reporting seeds count from here, tuning seeds from 0: no run is judged on a seed that something was chosen by."""

NOW = "now"
"""What the user's present optimizer is called in a race."""

Splits = Literal["varied", "fixed"]


@dataclass(frozen=True)
class Plan:
    """Rules, learning rates and seeds of a race.

    Attributes:
        entrants: The rules with their hyperparameters, by what they are called in the race.
        learning_rates: The grid to start from, in ascending order.
        tuning_seeds: The seeds that every learning rate is run on.
        confirming_seeds: More of them, for the learning rates that look best.
        verdict_seeds: The seeds that every rule's best learning rate is judged on.
        seed: Which family of initial weights and orders of batches the seeds belong to.
        split_seed: Which family of splits of the rows the seeds choose from.
        splits: `"varied"`: each seed has a split of its own; `"fixed"`: all have one.
        margin: The smallest difference in loss that matters, as a share.
        target_loss: A validation loss to time the rules by; None: where the first rule ends.
        defaults: Whether every rule is run at its default learning rate too.
        schedule: How the learning rate changes in a run, by the name of it.
        grid: What is tuned besides the learning rate: the values of each hyperparameter.
        settings: The combinations of these that each rule that is tuned can have.
    """

    entrants: Mapping[str, Entrant]
    learning_rates: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    confirming_seeds: tuple[int, ...]
    verdict_seeds: tuple[int, ...]
    seed: int
    split_seed: int
    splits: Splits
    margin: float
    target_loss: float | None
    defaults: bool = False
    schedule: str = "constant"
    grid: Mapping[str, tuple[float | bool, ...]] = field(default_factory=dict)
    settings: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rules: Mapping[str, Rule],
        *,
        hyperparameters: Mapping[str, Mapping[str, float | bool]],
        learning_rates: Sequence[float] = GRID,
        tuning_seeds: int = 3,
        confirming_seeds: int = CONFIRMING_SEEDS,
        verdict_seeds: int = 10,
        seed: int = 0,
        split_seed: int = 0,
        splits: Splits = "varied",
        margin: float = MARGIN,
        target_loss: float | None = None,
        now: Entrant | None = None,
        defaults: bool = False,
        schedule: str = "constant",
        grid: Grid | None = None,
    ) -> Plan:
        """A plan, checked; the arguments are those of `downslope.lab.race`.

        Of a rule that is run `now`, the learning rate is settled.

        Raises:
            ValueError: An argument does not allow a race; the message names it.
        """
        rates = _rates(rules, learning_rates)
        for name, count, least in (
            ("tuning_seeds", tuning_seeds, 1),
            ("confirming_seeds", confirming_seeds, 0),
            ("verdict_seeds", verdict_seeds, 1),
            ("seed", seed, 0),
            ("split_seed", split_seed, 0),
        ):
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < least:
                raise ValueError(f"{name}={count!r}: give a whole number of at least {least}")
        if splits not in get_args(Splits):
            raise ValueError(
                f"splits={splits!r}: give 'varied' for a split of its own per seed, or 'fixed' for one split"
            )
        if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin < 1:
            raise ValueError(f"margin={margin!r}: give a share from 0 to less than 1, such as 0.01 for 1 %")
        if target_loss is not None and not math.isfinite(target_loss):
            raise ValueError(f"target_loss={target_loss!r}: give a finite number")
        varied = {} if grid is None else checked(grid, hyperparameters)
        demanded = {name: values[0] for name, values in varied.items()}  # of what a rule has no default for
        entrants = {
            name: Entrant.of(
                name,
                rule,
                {key: one for key, one in demanded.items() if rule.hyperparameters.get(key, 0.0) is None}
                | dict(hyperparameters.get(name, {})),
            )
            for name, rule in rules.items()
        }
        settings = settings_of(varied, entrants)
        if now is not None and NOW in entrants:
            raise ValueError(
                f"rules: {NOW!r} is what the optimizer given as now= is called; give the rule another name"
            )
        if now is not None:
            entrants[NOW] = now
        tuning, confirming, verdict = _seeds(seed, tuning_seeds, confirming_seeds, verdict_seeds)
        return cls(
            entrants=entrants,
            learning_rates=rates,
            tuning_seeds=tuning,
            confirming_seeds=confirming,
            verdict_seeds=verdict,
            seed=int(seed),
            split_seed=int(split_seed),
            splits=splits,
            margin=margin,
            target_loss=target_loss,
            defaults=defaults,
            schedule=schedule,
            grid=varied,
            settings=settings,
        )

    def points(self, rule: str, rates: Sequence[float], beside: float | None = None) -> list[Point]:
        """Where a rule is tried: at these learning rates in all of its settings.

        One with fewer settings than another has as many more learning rates, between these.

        Args:
            rule: The rule.
            rates: Learning rates in ascending order.
            beside: One on either side of them at which it was tried before.
        """
        own = self.settings.get(rule, ((),))
        count = len(rates) * self.most_settings // len(own)
        return [Point(lr, setting) for lr in filled(rates, count, beside) for setting in own]

    def check_batches(self, rows: int | None) -> None:
        """Refuse a grid over sizes of batches that are no batches.

        Args:
            rows: The training rows; None: there are none, since a function is descended.

        Raises:
            ValueError: It has such sizes.
        """
        sizes = self.grid.get(BATCH_SIZE, ())
        if sizes and rows is None:
            raise ValueError("grid: batch_size is for a race on data, of which a function has none; leave it out")
        if rows is not None and (large := [f"{size:g}" for size in sizes if size > rows]):
            raise ValueError(f"grid: batch_size {', '.join(large)} is more than the {rows} training rows")

    def kinds(self, rule: str) -> list[Setting]:
        """The settings of a rule as far as they decide how long its runs take: see `priced`."""
        return list(dict.fromkeys(map(priced, self.settings.get(rule, ((),)))))

    @property
    def most_settings(self) -> int:
        """How many settings the rule has that has the most."""
        return max((len(self.settings.get(name, ())) for name in self.tuned), default=1)

    def with_seeds(self, tuning: int, confirming: int, verdict: int) -> Plan:
        """The same plan with so many seeds."""
        first, more, fresh = _seeds(self.seed, tuning, confirming, verdict)
        return replace(self, tuning_seeds=first, confirming_seeds=more, verdict_seeds=fresh)

    @property
    def tuned(self) -> list[str]:
        """The rules whose learning rates are tuned."""
        return [name for name, entrant in self.entrants.items() if entrant.lr is None]

    @property
    def given(self) -> dict[str, float]:
        """The learning rates that rules have before any tuning, which are run beside the grid."""
        if not self.defaults:
            return {name: entrant.lr for name, entrant in self.entrants.items() if entrant.lr is not None}
        both = ((name, entrant.lr or entrant.default_lr) for name, entrant in self.entrants.items())
        return {name: lr for name, lr in both if lr is not None}

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that a run may have."""
        return (*self.tuning_seeds, *self.confirming_seeds, *self.verdict_seeds)


def _rates(rules: Mapping[str, Rule], rates: Iterable[Any]) -> tuple[float, ...]:
    """The learning rates in ascending order."""
    try:
        ordered = tuple(sorted({float(rate) for rate in rates}))
    except (TypeError, ValueError):
        raise ValueError(f"learning_rates={rates!r}: give a list of numbers") from None
    if not ordered or not all(1e-30 <= rate <= 1e30 for rate in ordered):
        raise ValueError(f"learning_rates={list(ordered)}: give at least one, all from 1e-30 to 1e30")
    for name, rule in rules.items():
        for rate in ordered:
            if "lr" in rule.ranges and rate not in rule.ranges["lr"]:
                raise ValueError(f"learning_rates: {rate:g} is out of range for {name}; expected {rule.ranges['lr']}")
    return ordered


def _seeds(seed: int, tuning: int, confirming: int, verdict: int) -> tuple[tuple[int, ...], ...]:
    """The seeds of a race: none is in two of its parts, nor in another race."""
    start = SEEDS_PER_RACE * int(seed)
    first = max(FIRST_VERDICT_SEED, tuning + confirming)
    if first + verdict > SEEDS_PER_RACE:
        raise ValueError(
            f"tuning_seeds={tuning}, confirming_seeds={confirming} and verdict_seeds={verdict} are more than "
            f"{SEEDS_PER_RACE:,} seeds; give fewer"
        )
    bounds = ((0, tuning), (tuning, tuning + confirming), (first, first + verdict))
    return tuple(tuple(range(start + low, start + high)) for low, high in bounds)
