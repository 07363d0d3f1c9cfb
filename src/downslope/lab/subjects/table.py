"""Races on the network of a problem: built in, or of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from downslope.lab.engines.schedule import Schedule
from downslope.lab.keeping.identity import Identity
from downslope.lab.problems.columns import Columns
from downslope.lab.problems.problem import Problem
from downslope.lab.races.plan import Plan
from downslope.lab.races.raced import Raced
from downslope.lab.races.reasons import Explanation
from downslope.lab.subjects.course import Clock, Course, training_of

if TYPE_CHECKING:
    from downslope.lab.engines.jax_engine import JaxEngine


@dataclass(frozen=True)
class OnProblem:
    """A problem to race on: a `Subject`.

    Attributes:
        problem: Data and network, or a function.
        threads: Heats at a time; None: one per processor.
        schedule: How the learning rate changes in a run.
        why: Whether the race is explained.
    """

    problem: Problem
    threads: int | None
    schedule: Schedule
    why: bool

    defaults = False

    def course(self, plan: Plan, clock: Clock, seeds: Sequence[int]) -> Course:
        """All that is needed to race on it."""
        from downslope.lab.engines.jax_engine import JaxEngine  # JAX takes a second to import

        problem = self.problem
        plan.check_batches(None if problem.task is None else len(problem.split(plan.split_seed).train))
        engine = JaxEngine(
            problem,
            plan.entrants,
            threads=self.threads,
            split_seed=plan.split_seed,
            varied=plan.splits == "varied",
            schedule=self.schedule,
            clock=clock,
        )
        for one in seeds if problem.task == "regression" else ():
            problem.split(plan.split_seed, engine.split_number(one))  # refuses a constant target, before training

        def raced(plan: Plan) -> Raced:
            return Raced.table(problem, plan, [engine.split_number(seed) for seed in plan.verdict_seeds])

        matrices = [name for name, entrant in plan.entrants.items() if entrant.rest is not None]
        if self.why and matrices:
            raise ValueError(
                f"why=True explains rules that treat each weight by itself, and not {', '.join(matrices)}; leave one "
                "of the two out"
            )
        explanation = Explanation(problem, engine) if self.why else None
        beside = {"runs side by side": engine.lanes}
        return Course(
            engine,
            raced,
            engine.shorten,
            measured=True,
            cautions=engine.cautions,
            explanation=explanation,
            identity=lambda: Identity.of(self._what(plan, engine), beside, ["jax", "jaxlib"]),
        )

    def _what(self, plan: Plan, engine: JaxEngine) -> dict[str, Any]:
        """What decides all runs alike, but for machine and libraries."""
        problem = self.problem
        kinds = [list(one.kinds) for one in (problem.columns, problem.targets) if isinstance(one, Columns)]
        return {
            "data": problem.data_hash,
            "task": problem.task,
            "columns": hashlib.sha256(repr(kinds).encode()).hexdigest()[:16],
            "network": engine.description.network,
            "batch size": engine.description.batch_size,
            "draws": problem.draws,
            **training_of(plan, self.schedule),
        }
