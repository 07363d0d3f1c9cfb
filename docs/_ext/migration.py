"""The tables of `migrate.md`: what each optimizer of a framework is elsewhere, as `downslope.convert` finds it."""

import downslope
from downslope.dialects import DIALECTS
from downslope.dialects.spelling import Dialect
from downslope.recipes.spelled import native

SAID = {"always": "=", "constant lr": "= at a constant rate:", "never": "≈"}
GIVEN = {"lr": 0.01, "momentum": 0.9}
"""What a framework demands and has no default of."""


def recipes(dialect: Dialect):
    """The optimizers of a framework at their defaults, with the line of code that makes each."""
    for spelling in dialect.spellings:
        rule, settings = spelling.rule, {**spelling.defaults, **spelling.fixed}
        asked = {name for name, value in rule.hyperparameters.items() if value is None}
        settings |= {name: GIVEN[name] for name in asked | ({"momentum"} & {*rule.hyperparameters})}
        if spelling.decay == "decoupled" and settings.get("weight_decay"):
            settings["decoupled"] = True
        elif spelling.decay == "coupled":
            settings.pop("weight_decay", None)
        recipe = downslope.Recipe(rule, **settings)
        if line := native(recipe):
            yield line, recipe


def short(line: str):
    """A framework's line without what stands in every one of them."""
    return "`" + line.replace("model.parameters(), ", "").replace("tf.compat.v1.train.", "") + "`"


def cell(recipe: downslope.Recipe, to: str):
    """The line to write in another framework, and whether the path is the same."""
    found = downslope.convert(recipe, to)
    line = native(found.recipe) if found.recipe is not None else None
    return "–" if line is None else f"{SAID[found.comparison.same]}\N{NO-BREAK SPACE}{short(line)}"


def tables():
    """A table for every framework: its optimizers, and what to write in place of each in the others."""
    frameworks = {name: dialect for name, dialect in DIALECTS.items() if name != "note"}
    parts = []
    for name, dialect in frameworks.items():
        others = [other for other in frameworks if other != name]
        head = [dialect.framework, *(frameworks[other].framework for other in others), "here, in any framework"]
        rows = {
            short(line): [*(cell(recipe, other) for other in others), f"`dialects.{name}.{recipe.rule.name}`"]
            for line, recipe in recipes(dialect)
        }
        lines = [head, ["---"] * len(head), *([line, *cells] for line, cells in rows.items())]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"## From {dialect.framework}\n{table}\n")
    return "\n".join(parts)
