"""Code to copy: the rule that ended lowest, at its learning rate, in each framework."""

from __future__ import annotations

import math
from typing import Any

from downslope.dialects import DIALECTS, full_name
from downslope.lab.races.results import Race, RuleResult
from downslope.recipes.conversion import convert
from downslope.recipes.recipe import Recipe

FRAMEWORKS = {"torch": "PyTorch", "keras": "Keras", "optax": "Optax", "note": "NumPy"}


def lowest(race: Race) -> RuleResult | None:
    """The rule that ended lowest in a race run to its end; None where it was stopped or every run diverged."""
    if race.interrupted:
        return None
    first = next(iter(race.ranked), None)
    done = first is not None and first.best_lr is not None and first.finished_loss is not None
    return first if first is not None and done and math.isfinite(first.finished_loss or 0.0) else None


def snippets(result: RuleResult) -> dict[str, str]:
    """Code by framework for a rule of downslope; none for others, which cannot be imported from anywhere."""
    forms = (rule for dialect in DIALECTS.values() for rule in dialect.rules.values())
    rule = next((form for form in forms if full_name(form) == result.rule), None)
    flags = {name: value for name, value in result.hyperparameters.items() if isinstance(value, bool)}
    if rule is None or result.best_lr is None or rule.latex(**flags) != result.formula:
        return {}
    settings: dict[str, Any] = dict(result.hyperparameters)
    recipe = Recipe(rule, lr=result.best_lr, **settings)
    return {name: convert(recipe, dialect).snippet() for dialect, name in FRAMEWORKS.items()}
