"""What a race with a budget decided, kept in its folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from downslope.lab.keeping.folder import Folder
from downslope.lab.keeping.identity import canonical, rule_of
from downslope.lab.keeping.kept import KeptEngine
from downslope.lab.races.budget import Budget
from downslope.lab.races.decisions import Decisions, Note
from downslope.lab.races.plan import Plan


def decisions_kept(engine: KeptEngine, budget: Budget, plan: Plan, *, why: bool) -> Decisions:
    """The decisions that the folder of a race has; of a race with another budget it has none.

    Args:
        engine: What keeps its runs.
        budget: How long the race may take.
        plan: The race without a budget.
        why: Whether time is kept for explaining it.
    """
    folder, training = engine.folder, engine.description
    of = canonical(
        {
            "seconds": budget.seconds,
            "settled": sorted(budget.settled),
            "rules": {name: rule_of(entrant) for name, entrant in plan.entrants.items()},
            "learning rates": plan.learning_rates,
            "seeds": [plan.tuning_seeds, plan.confirming_seeds, plan.verdict_seeds],
            "settings": {name: [list(map(list, one)) for one in its] for name, its in plan.settings.items()},
            "epochs": None if training is None else training.epochs,
            "why": why,
        }
    )
    assert folder.planned is not None
    before = folder.planned.spent
    known = [] if before is None or before["of"] != of else [Note(*note) for note in before["notes"]]

    def keep(notes: Sequence[Note]) -> None:
        assert folder.planned is not None
        spent = {"of": of, "notes": [list(dataclasses.astuple(note)) for note in notes]}
        with contextlib.suppress(OSError):  # then it is decided again the next time
            folder.write_plan(dataclasses.replace(folder.planned, spent=spent))

    return Decisions(known, lambda: engine.trained, keep)


def spent_by_others(folder: Folder) -> None:
    """Have a race with a budget, if the folder has one, not pay for the runs of the race that now begins there.

    Args:
        folder: That of both; it is open.
    """
    assert folder.planned is not None
    spent = folder.planned.spent
    if spent is None or not spent["notes"]:
        return
    last = Note(*spent["notes"][-1])
    if last.trained is None:
        return
    settled = dataclasses.replace(last, elapsed=last.spent(folder.seconds), trained=None)
    notes = [*spent["notes"][:-1], list(dataclasses.astuple(settled))]
    with contextlib.suppress(OSError):  # then it pays for them
        folder.write_plan(dataclasses.replace(folder.planned, spent={**spent, "notes": notes}))
