"""Races on a training of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from downslope.lab.engines.own_check import check_training
from downslope.lab.engines.own_engine import OwnEngine, Train
from downslope.lab.engines.own_run import ignored
from downslope.lab.engines.protocol import Run
from downslope.lab.engines.schedule import Schedule
from downslope.lab.keeping.identity import FRAMEWORKS, Identity, threads_of_frameworks
from downslope.lab.keeping.sources import source_of
from downslope.lab.races.plan import Plan
from downslope.lab.races.raced import Raced
from downslope.lab.subjects.course import Clock, Course, training_of


@dataclass(frozen=True)
class OnTraining:
    """A function that trains runs, to race on: a `Subject`.

    Attributes:
        train: The function.
        steps: The steps of a run; None: until it returns.
        limit: The most seconds that a run may take.
        quiet: Whether what it prints is held back.
        schedule: How the learning rate changes in a run.
        version: What tells the function from an earlier one; empty: its source.
    """

    train: Train
    steps: int | None
    limit: float | None
    quiet: bool
    schedule: Schedule
    version: str = ""

    defaults = True

    def course(self, plan: Plan, clock: Clock, seeds: Sequence[int]) -> Course:
        """All that is needed to race on it."""
        engine = OwnEngine(
            self.train,
            plan.entrants,
            steps=self.steps,
            limit=self.limit,
            quiet=self.quiet,
            schedule=self.schedule,
            clock=clock,
        )

        def check(firsts: Sequence[Run], other_seed: int) -> Sequence[str]:
            found = check_training(engine, firsts, other_seed)
            if unused := ignored(plan.grid, engine.asked):
                raise ValueError(f"train: it {unused}")
            return found

        return Course(
            engine,
            lambda _: self.told(),
            check=check,
            identity=partial(self._identity, plan),
            listen=engine.listen,
        )

    def _identity(self, plan: Plan) -> Identity:
        """What decides all runs alike; the function is told its rule's name, and may import anything."""
        what = {
            **source_of(self.train, self.version, "train"),
            "steps": self.steps,
            "limit": self.limit,
            "schedule": training_of(plan, self.schedule)["schedule"],
        }
        return Identity.of(what, {"threads": threads_of_frameworks()}, FRAMEWORKS, labelled=True)

    def told(self) -> Raced:
        """What a race tells of it: the name of the function, and where that is from."""
        name = getattr(self.train, "__qualname__", type(self.train).__name__)
        module = getattr(self.train, "__module__", "") or ""
        place = "" if module in ("", "__main__") else f" of {module}"
        return Raced(name=name, title=f"Your own training, {name}", about=f"The training {name}{place}")
