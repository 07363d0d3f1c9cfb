"""Why the learning rates of a race's rules stop working where they do, and what training was like on the way.

Two things are known beforehand, each from the formula of a rule and the network at its start.

*Curvature.* A rule whose steps are in proportion to the gradient grows its errors where its learning rate times the
curvature is above its limit (`targets.stability`). A network may then be thrown to a place flat enough to go on; how
far above the limit it comes back from is read off the simplest network (`targets.catapult`). Over the largest curvature
of the training loss at the start, this gives the learning rate from which on the rule is expected to learn nothing.

*Length.* The first step of a rule that divides by the size of its gradients, or goes by their signs, is as long for a
faint gradient as for a steep one, so that no curvature bounds it from above: where errors grow, so does what is divided
by. It is expected to diverge from the learning rate on at which its first step alone raises the mean loss of the first
epoch to where a run counts as diverged.

Nothing is fitted, and no run is looked at for it. With a schedule both are about the first step, and nothing is
expected of a run whose learning rate is higher later. With a grid it is about the setting that was chosen.

Where the limit depends on the learning rate, as with some weight decays, it is the lowest learning rate that is beyond
its own. Beside it stands what was seen, and what does not agree is said to be unexplained.

Source: Lewkowycz et al., "The large learning rate phase of deep learning", 2020; Cohen et al., "Gradient descent on
neural networks typically occurs at the edge of stability", 2021, and "Adaptive gradient methods at the edge of
stability", 2022; McCandlish et al., "An empirical model of large-batch training", 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from downslope.lab.engines.protocol import LATER, Entry, OpenEngine, Snapshot, Surroundings
from downslope.lab.races.plan import Plan

STOPS = 4
"""How often a run is looked at after its start: after the first epoch, and then at ever larger distances."""

MOST_NUMBERS = 2**27
"""What the snapshots of a race may hold, in 32-bit floats, half a gibibyte; beyond, runs are looked at less often."""

BEYOND = 1000.0
"""How far above the highest learning rate that was tried a first step that goes too far is looked for."""

FACTOR = 2.0
"""A cliff is explained where it is expected within this factor of the middle between two learning rates."""

Cause = Literal["curvature", "length"]


@dataclass(frozen=True)
class Cliff:
    """Where the learning rates of a rule stop working, and where that was to be expected.

    Most of the tuning runs of a learning rate say what happens there. A run learns if its training loss ends below
    that of predicting the same for every row.

    Attributes:
        learns_at: The highest learning rate that the rule learns at; None if there is none.
        fails_from: The next one, from which on it does not; None if there is none.
        diverges_from: The lowest from which on the runs diverge.
        holds_at: The next one below that.
        cause: What `expected` follows from; None if nothing is known.
        expected: The learning rate from which on the rule is expected to learn nothing, by the curvature, or to
            diverge, by the length of its steps; infinite if never, None if nothing is known.
    """

    learns_at: float | None
    fails_from: float | None
    diverges_from: float | None
    holds_at: float | None
    cause: Cause | None
    expected: float | None

    @property
    def seen(self) -> tuple[float | None, float | None]:
        """Between which learning rates the cliff lies that `expected` is about."""
        return (self.holds_at, self.diverges_from) if self.cause == "length" else (self.learns_at, self.fails_from)

    @property
    def off_by(self) -> float | None:
        """What is expected over the middle of what is seen; None if there is nothing to compare."""
        below, beyond = self.seen
        if self.expected is None or below is None or beyond is None:
            return None
        return self.expected / math.sqrt(below * beyond)

    @property
    def explained(self) -> bool | None:
        """Whether it is within `FACTOR`; None if there is nothing to compare."""
        return None if self.off_by is None else 1 / FACTOR <= self.off_by <= FACTOR

    @property
    def agrees(self) -> bool | None:
        """Whether what is seen is what was expected, on a side of the grid too; None where nothing was expected."""
        below, beyond = self.seen
        if self.expected is None:
            return None
        if beyond is None:
            return self.expected > (below or 0.0)
        return self.expected <= beyond if below is None else self.explained


@dataclass(frozen=True)
class RuleWhy:
    """What is known of one rule.

    Attributes:
        rule: What it is called.
        limit: How large its learning rate times the curvature may be, read off its formula; infinite if that is always
            stable, None if it cannot be said.
        held: The states that are held still for it: if there are any, it is about the preconditioned curvature.
        reason: Why there is none.
        comes_back: How large the same may be, at the start, on the simplest network; None where nothing is expected
            by it.
        curvature: The curvature at the start that the limit is about, the median over the tuning seeds; None where
            nothing is expected by it.
        cliff: Where its learning rates stop working.
        best_lr: Its best learning rate.
        best: Along the first run of the verdict.
        edge: Along a run at the highest learning rate that it learns at.
        sentence: The cliff in words.
        batch_size: The size of batches that a grid gave it; None: that of the race.
    """

    rule: str
    limit: float | None
    held: tuple[str, ...]
    reason: str
    comes_back: float | None
    curvature: float | None
    cliff: Cliff
    best_lr: float | None
    best: tuple[Surroundings, ...]
    edge: tuple[Surroundings, ...]
    sentence: str
    batch_size: int | None = field(default=None, metadata=LATER)

    def sharpness(self, around: Surroundings, lr: float) -> float | None:
        """The learning rate times the curvature that the limit is about, over the limit; None where there is none.

        The learning rate is that of the schedule there, or of the run, where it is not known.
        """
        lr = lr if around.lr is None else around.lr
        curvature = around.preconditioned if self.held else around.curvature
        if not self.limit or self.limit == math.inf or curvature is None or not math.isfinite(curvature):
            return None
        return lr * curvature / self.limit


@dataclass(frozen=True)
class Why:
    """Why the learning rates of a race stop working where they do, and what training was like on the way.

    Attributes:
        seen_rows: How many training rows the loss was looked at on.
        train_rows: How many there are.
        rules: What is known of each rule; none if the race was stopped before.
        on_limits: How near the best runs came to the limits of their rules, in words.
        on_noise: What part of the gradients is noise.
        on_updates: How far a step moves the weights.
    """

    seen_rows: int
    train_rows: int
    rules: tuple[RuleWhy, ...]
    on_limits: str
    on_noise: str
    on_updates: str

    @property
    def sentences(self) -> list[str]:
        """All that is said of the race."""
        found = [*(one.sentence for one in self.rules), self.on_limits, self.on_noise, self.on_updates]
        return [sentence for sentence in found if sentence]


class Witness:
    """Which runs of a race are to be looked around in, and their snapshots.

    Args:
        plan: The race's plan.
        engine: Its engine.
    """

    def __init__(self, plan: Plan, engine: OpenEngine):
        self.engine, description = engine, engine.description
        states = sum(1 + len(entrant.settings.program.states) for entrant in plan.entrants.values())
        room = MOST_NUMBERS // (2 * description.weights * states)
        stops = np.geomspace(1, description.epochs, max(1, min(STOPS, room - 1))).round()
        self.epochs = frozenset((0, *map(int, stops[-room:]), description.epochs))
        self.plan = plan
        self.snapshots: dict[Entry, list[Snapshot]] = {}

    def wants(self, entry: Entry) -> bool:
        """Whether a run that is observed is looked at."""
        return entry.phase == "tuning" or entry.seed == self.plan.verdict_seeds[0]

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, if its run is looked at and it is time to."""
        entry = snapshot.entry
        if self.wants(entry) and snapshot.epoch in self.epochs:
            self.snapshots.setdefault(entry, []).append(snapshot)

    def of(self, rule: str, phase: Literal["tuning", "verdict"]) -> Sequence[Snapshot]:
        """The snapshots of the run of a rule that is looked at in this phase."""
        return next((kept for entry, kept in self.snapshots.items() if (entry.rule, entry.phase) == (rule, phase)), ())
