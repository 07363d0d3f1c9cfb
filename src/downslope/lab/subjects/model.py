"""Races on a model of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from downslope.lab.engines.factory import Make
from downslope.lab.engines.learner import Loss, Stacking, described
from downslope.lab.engines.model_engine import ModelEngine
from downslope.lab.engines.own_check import check_training
from downslope.lab.engines.schedule import Schedule
from downslope.lab.keeping.identity import FRAMEWORKS, Identity, threads_of_frameworks
from downslope.lab.keeping.sources import source_of
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.problem import Problem
from downslope.lab.races.plan import Plan
from downslope.lab.races.raced import Raced
from downslope.lab.subjects.course import Clock, Course, training_of

if TYPE_CHECKING:
    from downslope.lab.engines.jax_engine import JaxEngine


@dataclass(frozen=True)
class OnModel:
    """A factory of models to race on: a `Subject`.

    Attributes:
        make: Makes a model for a seed.
        examples: What models learn from.
        loss: What is minimised; None: as the targets say.
        threads: Heats at a time, of networks of JAX; None: one per processor.
        limit: The most seconds that a run may take.
        quiet: Whether what models print is held back.
        schedule: How the learning rate changes in a run.
        version: What tells the factory from an earlier one; empty: its source.
    """

    make: Make
    examples: Problem | Examples
    loss: Loss | None
    threads: int | None
    limit: float | None
    quiet: bool
    schedule: Schedule
    version: str = ""

    defaults = True

    def course(self, plan: Plan, clock: Clock, seeds: Sequence[int]) -> Course:
        """All that is needed to race on it: the factory is tried, and how its runs are trained is found out."""
        plan.check_batches(len(self.examples.split(plan.split_seed).train))
        engine = ModelEngine(
            self.make,
            self.examples,
            plan.entrants,
            loss=self.loss,
            seeds=(plan.tuning_seeds[0], plan.verdict_seeds[0]),
            split_seed=plan.split_seed,
            varied=plan.splits == "varied",
            limit=self.limit,
            quiet=self.quiet,
            schedule=self.schedule,
            clock=clock,
        )
        heats = engine.in_heats(seeds, self.threads)
        if heats is None and self.threads is not None:
            raise ValueError(
                f"threads={self.threads!r} is for networks of JAX, which are trained side by side; leave it out"
            )
        if heats is not None and self.limit is not None:
            raise ValueError(f"limit={self.limit!r} is for runs that are trained one at a time; those of JAX are not")

        def raced(plan: Plan) -> Raced:
            assert self.examples.task is not None  # data without are refused
            return Raced.table(
                self.examples,
                plan,
                [engine.split_number(one) for one in plan.verdict_seeds],
                about=f"{described(self.make, self.loss, self.examples.task)}; {engine.stacking.reason}",
                comparable=isinstance(engine.loss, str),
            )

        identity = partial(self._identity, plan, engine, heats)
        if heats is not None:
            return Course(heats, raced, heats.shorten, measured=True, cautions=engine.cautions, identity=identity)

        def decide(decided: Mapping[str, Any]) -> None:
            engine.stacking = Stacking(**decided)

        return Course(
            engine,
            raced,
            engine.shorten,
            measured=engine.stacking.lanes > 1,
            check=partial(check_training, engine),
            cautions=engine.cautions,
            identity=identity,
            decided=asdict(engine.stacking),
            decide=decide,
        )

    def _identity(self, plan: Plan, engine: ModelEngine, heats: JaxEngine | None) -> Identity:
        """What decides all runs alike."""
        schedule = training_of(plan, self.schedule)
        what = {
            "data": self.examples.data_hash,
            **source_of(self.make, self.version, "model"),
            **({"loss": engine.loss} if isinstance(engine.loss, str) else source_of(engine.loss, self.version, "loss")),
            "network": engine.description.network,
            "batch size": engine.description.batch_size,
            "limit": self.limit,
            **schedule,
        }
        side_by_side = {} if heats is None else {"runs side by side": heats.lanes}
        return Identity.of(what, {"threads": threads_of_frameworks(), **side_by_side}, FRAMEWORKS)
