"""How much longer a race takes, estimated from what its epochs have taken so far."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from downslope.lab.engines.protocol import Progress, Setting
from downslope.lab.races.stage import Stage, StageName

EXPLAINING = 0.13
"""What explaining a race takes, as a share of the race, as long as no rule has been explained: so it was measured."""

EVEN: tuple[StageName, ...] = ("tuning", "widening")
"""The parts of a race in which a rule has as many runs in every setting."""


class Forecast:
    """The seconds left of a race.

    What is counted are epochs of heats, or whole runs where they are trained one at a time. A heat with empty lanes
    takes less than a full one, but not in proportion: half of it is taken not to depend on them. What comes before the
    first of a rule, above all its compilation, is counted by itself: in a short race it is half of the time.

    In batches of another size, or with another choice in its formula, a rule's runs take other times. Tuning has as
    many of each kind; of the kind that will be chosen nothing is known before, and it is taken to be the dearest.

    Args:
        rules: The names of the rules.
        epochs: The epochs of a run.
        threads: Heats at a time.
        compiled: Whether the first epoch of every stage may hold a compilation, and says nothing of the others.
        kinds: Of each rule that has several: those of its settings that take different times, see `priced`.
    """

    def __init__(
        self,
        rules: Iterable[str],
        epochs: int,
        threads: int,
        *,
        compiled: bool = True,
        kinds: Mapping[str, Sequence[Setting]] | None = None,
    ):
        self.rules = {rule: _Pace() for rule in rules}
        self.kinds = dict(kinds or {})
        self.epochs, self.compiled = epochs, compiled
        self.later: Mapping[StageName, int] = {}
        self.explaining = False
        self.explained: list[float] = []  # seconds of each rule
        self.trained_for = 0.0  # the seconds of the race before it is explained
        self.threads = min(threads, len(self.rules))
        self.lanes = 1  # the most runs that were trained at a time in one heat
        self.trained = self.skipped = 0
        self.stage: StageName = "tuning"

    def begin(self, stage: Stage) -> None:
        """Take in that a stage begins."""
        self.stage = stage.name
        self.later = {name: runs for name, runs in stage.later.items() if name != "explaining"}
        self.explaining = stage.name == "explaining" or "explaining" in stage.later
        for rule, pace in self.rules.items():
            pace.waiting = 0 if stage.name == "explaining" else stage.epochs.get(rule, 0)
            pace.heat_epochs = 0
            for one in pace.kinds.values():
                one.begun = False

    def add(self, progress: Progress) -> None:
        """Take in an epoch, or what a rule took to explain."""
        if self.stage == "explaining":
            self.explained.append(progress.seconds)
            return
        if not (progress.epochs or progress.skipped or progress.seconds):
            return  # losses of a run that goes on
        if progress.kept:
            self.rules[progress.rule].waiting -= progress.skipped
            return
        self.lanes = max(self.lanes, progress.epochs)
        whole = self.compiled or not progress.finished or any(run.diverged_at is None for run in progress.finished)
        size = self._size(progress.epochs) if progress.epochs else 0.0  # of those that begin, their first losses
        self.rules[progress.rule].add(progress, size, compiled=self.compiled, whole=whole)
        self.trained += progress.epochs if whole else 0
        self.skipped += progress.skipped + (0 if whole else progress.epochs)

    def replace(self, rule: str, runs: int, seconds: float) -> None:
        """Take it that so many runs of a rule took so long, whatever its first one did."""
        self.rules[rule].kinds[()] = _Kind(counted=seconds, count=runs)

    def left(self, elapsed: float) -> float | None:
        """The seconds left.

        Args:
            elapsed: The seconds since the race began.

        Returns:
            Seconds; None as long as nothing is known but how long the first rule took to compile.
        """
        if self.stage == "explaining":
            return self._explaining(elapsed)
        self.trained_for = elapsed
        usual, setup = self._usual()
        if usual is None:
            return None
        total = 0.0
        for pace in self.rules.values():
            to_come = sum(self._heats(self.epochs, self.epochs * runs) for runs in self.later.values())
            total += (self._now(pace) + to_come) * (usual if pace.cost is None else pace.cost)
            total += setup if pace.setup is None else 0.0
        busy = sum(pace.seconds for pace in self.rules.values())
        training = total / max(self.threads, busy / elapsed if elapsed > 0 else 0.0)
        return training + EXPLAINING * (elapsed + training) if self.explaining else training

    def _explaining(self, elapsed: float) -> float:
        """What explaining still takes: first as a share of the race, then as long as it took for other rules."""
        if not self.explained:
            return max(0.0, self.trained_for - elapsed + EXPLAINING * self.trained_for)
        waiting = len(self.rules) - len(self.explained)
        usual = sum(self.explained) / len(self.explained)
        return usual * math.ceil(waiting / self.threads)

    def takes(self, stages: Iterable[tuple[StageName, Mapping[str, int]]], epochs: int | None = None) -> float:
        """The seconds that parts of a race take, one after the other, if no run diverges.

        Args:
            stages: Of each, its name and the runs of every rule.
            epochs: The epochs of a run, where that is not what it has been until now.

        Returns:
            Seconds; 0 as long as nothing is known.
        """
        usual, setup = self._usual()
        started = [pace.started for pace in self.rules.values() if pace.started is not None]
        length, total = epochs or self.epochs, 0.0
        known = {(rule, kind) for rule, pace in self.rules.items() for kind in pace.kinds}
        for name, runs in stages:
            busy = [0.0] * self.threads
            parts = [part for rule in runs for part in self._parts(name, rule, runs[rule], usual or 0.0)]
            for seconds in sorted((length * self._full(of_them) * cost for _, of_them, cost in parts), reverse=True):
                heapq.heapreplace(busy, busy[0] + seconds)  # to the thread that is the first to be done
            total += max(busy) + sum(started) / max(1, len(started)) * len(parts) / self.threads
            new = {at for at, _, _ in parts} - known if self.compiled else set()
            total += setup * len(new) / self.threads
            known |= new
        return total

    def _parts(
        self, name: StageName, rule: str, runs: int, usual: float
    ) -> list[tuple[tuple[str, Setting], float, float]]:
        """What a rule has in a part of the race: of each kind, how many runs, and what a full heat's epoch costs."""
        kinds = self.kinds.get(rule) or [()]
        costs = {kind: self.rules[rule].cost_of(kind) or self.rules[rule].cost or usual for kind in kinds}
        if name not in EVEN:
            kinds = [max(kinds, key=lambda kind: costs[kind])]
        return [((rule, kind), runs / len(kinds), costs[kind]) for kind in kinds if runs]

    def _full(self, runs: float) -> float:
        """How many full heats take as long as so many runs, which are trained in heats of their own.

        A single heat with empty lanes is taken to be as long as a full one: of a large network it is.
        """
        full, rest = divmod(runs, self.lanes)
        return max(1.0, full + (self._size(rest) if rest else 0.0))

    def _usual(self) -> tuple[float | None, float]:
        """What an epoch costs in the mean over the rules, and the least that has come before the first."""
        known = [pace.cost for pace in self.rules.values() if pace.cost is not None]
        setup = min((pace.setup for pace in self.rules.values() if pace.setup is not None), default=0.0)
        return (sum(known) / len(known) if known else None), setup

    def _now(self, pace: _Pace) -> float:
        """What a rule still has to do in this stage, in epochs of a full heat."""
        if pace.waiting <= 0:
            return 0.0
        tuning = self.stage in ("defaults", "tuning", "widening")
        # In tuning, as many of the runs to come will diverge as of those that came.
        kept = self.trained / (self.trained + self.skipped) if tuning and self.trained else 1.0
        return self._heats(self.epochs - pace.heat_epochs, pace.waiting * kept)

    def _heats(self, epochs: int, run_epochs: float) -> float:
        """The epochs of a full heat that take as long as these epochs of runs, in a heat that has at least `epochs`."""
        full = run_epochs / self.lanes
        return full if full >= epochs else epochs * self._size(run_epochs / epochs)

    def _size(self, runs: float) -> float:
        """The time of a heat with so many runs, as a share of that of a full one."""
        return 0.5 + 0.5 * runs / self.lanes


@dataclass
class _Kind:
    """What epochs took of a rule's runs that take the same time: in batches of one size, with one formula."""

    setup: float | None = None  # seconds of the first of all, with the compilation
    counted: float = 0.0  # seconds of epochs that were not the first of a stage
    count: float = 0.0  # how many full heats' epochs these are
    begun: bool = False  # whether there was one in this stage


@dataclass
class _Pace:
    """What one rule's epochs took."""

    waiting: int = 0  # epochs of runs to come in this stage
    heat_epochs: int = 0  # those done in this stage
    seconds: float = 0.0
    started: float | None = None  # by how much the first epoch of the last part of the race was longer than others
    kinds: dict[Setting, _Kind] = field(default_factory=dict)

    @property
    def setup(self) -> float | None:
        """The seconds of the first epoch of all; None as long as there was none."""
        return min((one.setup for one in self.kinds.values() if one.setup is not None), default=None)

    @property
    def cost(self) -> float | None:
        """The seconds of an epoch of a full heat, as far as is known: the mean over the kinds of runs."""
        costs = [one.counted / one.count for one in self.kinds.values() if one.count]
        return sum(costs) / len(costs) if costs else None

    def cost_of(self, kind: Setting) -> float | None:
        """The same of the runs of one kind."""
        one = self.kinds.get(kind)
        return one.counted / one.count if one is not None and one.count else None

    def add(self, progress: Progress, size: float, *, compiled: bool, whole: bool) -> None:
        one = self.kinds.setdefault(progress.setting, _Kind())
        if compiled and one.setup is None:
            one.setup = progress.seconds
        elif compiled and not one.begun:
            self.started = max(0.0, progress.seconds - size * (self.cost_of(progress.setting) or progress.seconds))
        elif whole:
            one.counted += progress.seconds
            one.count += size
        one.begun = True
        self.seconds += progress.seconds
        self.heat_epochs += 1
        self.waiting -= progress.epochs + progress.skipped
