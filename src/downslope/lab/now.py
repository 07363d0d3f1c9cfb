"""What people use now, as a contestant of a race."""

from __future__ import annotations

from typing import Any

from downslope.lab.engines.entrant import Entrant, for_matrices
from downslope.recipes.present import recipe_of
from downslope.recipes.spelled import title


def entrant_now(optimizer: Any) -> Entrant | None:
    """What people use now, as it is.

    Raises:
        ValueError: It cannot be read.
    """
    if optimizer is None:
        return None
    try:
        recipe = recipe_of(optimizer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"now: {error}") from None
    if for_matrices(recipe.rule):
        raise ValueError(
            f"now: {title(recipe)} trains matrices, and what trains the rest of your network it does not say; race "
            f"{recipe.rule.name} among the rules instead"
        )
    numbers = {name: value for name, value in recipe.numbers.items() if name != "lr"}
    return Entrant(recipe.chosen, numbers, recipe.numbers["lr"], title(recipe))
