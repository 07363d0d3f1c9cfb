"""Code to copy: the rule that ended lowest, at its learning rate, in each framework."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from downslope.lab.races.results import Race, RuleResult
from downslope.lab.races.scope import trained
from downslope.recipes.conversion import convert
from downslope.recipes.recipe import Recipe
from downslope.recipes.spelled import native, with_downslope

FRAMEWORKS = {"torch": "PyTorch", "keras": "Keras", "optax": "Optax", "note": "NumPy"}


def in_use(race: Race) -> list[str]:
    """The frameworks that lines are for: those that a training of one's own has loaded, else those that are there."""
    versions = race.environment.get("versions", {})
    loaded = [name for name in ("torch", "keras", "optax") if name in versions]
    there = [name for name in ("torch", "keras", "optax") if importlib.util.find_spec(name) is not None]
    return (loaded or ([] if race.steps_per_epoch is None else there)) or ["note"]


def lines(result: RuleResult, frameworks: Iterable[str]) -> list[str]:
    """A line for each framework that makes an optimizer of a rule at its learning rate: its own, where that is exact.

    The line has `model` (PyTorch) or `params` (NumPy) from its surroundings. There is none of a rule that is not
    downslope's, and for a rule for matrices with another one beside it only PyTorch's, whose optimizers have both.
    """
    recipe = result.recipe
    if result.parts is not None and "torch" in frameworks:
        return [f"optimizer = {_in_parts(*result.parts)}"]
    if recipe is None:
        return []
    return [f"optimizer = {_line(recipe, framework)}" for framework in frameworks]


def scheduled(race: Race) -> str:
    """What code to copy leaves out: the schedule that its learning rate was raced with; empty if there was none."""
    steps = trained(race, race.advised)
    if race.schedule == "constant" or steps is None:
        return ""
    return (
        f"With the schedule {race.schedule} over {steps:,} step{'s' if steps != 1 else ''}; at a constant learning "
        "rate this was not raced."
    )


def batched(result: RuleResult) -> str:
    """What code to copy leaves out: the size of batches, where it was chosen from a grid; else empty."""
    return "" if result.batch_size is None else f"With batches of {result.batch_size}."


def _line(recipe: Recipe, framework: str) -> str:
    found = convert(recipe, framework)
    line = native(found.recipe) if found.recipe is not None and found.comparison else None
    if line is not None and found.comparison is not None and found.comparison.same == "always":
        return line.replace("torch.optim.", "downslope.torch.")
    return with_downslope(recipe, framework)[1]


def _in_parts(matrices: Recipe, rest: Recipe) -> str:
    """What makes an optimizer of PyTorch that runs one recipe on the inner matrices and another on the rest."""
    parts = []
    for recipe in (matrices, rest):
        _, call = with_downslope(recipe, "torch")
        parts.append(f"dict(rule={call.partition('(')[2].partition(', ')[2]}")
    return f"downslope.torch.Optimizer(downslope.split(model).groups({', '.join(parts)}))"


def snippets(result: RuleResult) -> dict[str, str]:
    """Code by framework for a rule of downslope; none for others, which cannot be imported from anywhere."""
    recipe = result.recipe
    if result.parts is not None:
        imports = "import downslope\nimport downslope.torch"
        imports += "\nfrom downslope import dialects" if result.parts[0].dialect not in (None, "note") else ""
        return {"PyTorch": f"{imports}\n\noptimizer = {_in_parts(*result.parts)}"}
    return {} if recipe is None else {name: convert(recipe, to).snippet() for to, name in FRAMEWORKS.items()}
