"""One small, hard training, the same for every recipe, on which paths are compared.

There are 20 weights: gradients of five sizes from 1e-9 to 1e3, which go well below and above every usual epsilon, and
of four kinds each. `steady` ones keep their sign, `flipping` ones do not, `rare` ones are zero but in every fifth step,
`late` ones are zero until step 7. Where it is not zero, the gradient is `size * noise + pull * x`, taken where the rule
wants it taken; the pull, 0.2 of the size but at most 0.2, leads what a rule did back into what it does.

To a rule that goes by whole tensors they are two matrices.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from downslope.language.program import Program
from downslope.recipes.recipe import Recipe
from downslope.targets.decimals import Numbers, compute
from downslope.targets.shapes import held_shape

SIZES = tuple(Decimal(10) ** exponent for exponent in (-9, -6, -3, 0, 3))
KINDS = ("steady", "flipping", "rare", "late")
WEIGHTS = [(size, kind) for size in SIZES for kind in KINDS]
MATRICES = ((4, 3), (2, 4))
"""What the weights are to a rule that goes by whole tensors: a tall matrix and a wide one."""

START: Numbers = [Decimal((-1) ** k * (5 + k)) / 10 for k in range(len(WEIGHTS))]


def gradient(t: int, point: Numbers) -> Numbers:
    """The gradient at step `t`, from 1."""
    return [noise if pull is None else noise + pull * x for (noise, pull), x in zip(_force(t), point, strict=True)]


@functools.lru_cache(maxsize=256)
def _force(t: int) -> list[tuple[Decimal, Decimal | None]]:
    """The noise at step `t` and what pulls, weight by weight; no pull where the gradient is zero."""
    generator = random.Random(t)
    found: list[tuple[Decimal, Decimal | None]] = []
    for size, kind in WEIGHTS:
        noise = Decimal(round(1000 * generator.random()) + 100) / 1000
        sign = -1 if kind != "steady" and generator.random() < 0.5 else 1
        silent = (kind == "rare" and t % 5 != 2) or (kind == "late" and t < 7)
        pull = Decimal("0.2") * min(size, Decimal(1))
        found.append((Decimal(0), None) if silent else (size * noise * sign, pull))
    return found


def rate(t: int) -> Decimal:
    """What the learning rate at step `t` is multiplied by, where it changes: from 1/7 to 13/7."""
    return Decimal(1 + 7 * t % 13) / 7


def _count(program: Program, state: str) -> int:
    """How many numbers a state has."""
    return (
        len(START)
        if state not in program.spaces
        else sum(math.prod(held_shape(program, state, shape)) for shape in MATRICES)
    )


@dataclass(frozen=True)
class Training:
    """A recipe at work, after `t` steps.

    Attributes:
        recipe: What is trained with.
        x: The weights.
        states: The states, by name.
        scalar_states: The scalar states, by name.
        t: The number of steps done.
    """

    recipe: Recipe
    x: Numbers = field(default_factory=lambda: START)
    states: Mapping[str, Numbers] = field(default_factory=dict)
    scalar_states: Mapping[str, Decimal] = field(default_factory=dict)
    t: int = 0

    @classmethod
    def begin(cls, recipe: Recipe) -> Training:
        """A recipe before its first step."""
        program = recipe.program
        starts = {name: program.initial(name, recipe.numbers) for name in program.states}
        states = {
            name: START if start is None else [Decimal(start)] * _count(program, name) for name, start in starts.items()
        }
        scalar_states = {name: Decimal(start) for name, start in program.scalar_states.items()}
        return cls(recipe, states=states, scalar_states=scalar_states)

    def numbers(self, factor: Decimal) -> dict[str, Decimal]:
        """All scalars of the next step, with a learning rate so many times that of the recipe."""
        numbers = {name: Decimal(value) for name, value in self.recipe.numbers.items()}
        if "lr" in numbers:
            numbers["lr"] = numbers["lr"] * factor
        return {**numbers, **self.scalar_states, "t": Decimal(self.t + 1)}

    def point(self, factor: Decimal = Decimal(1)) -> Numbers:
        """Where the gradient of the next step is taken."""
        ahead = self.recipe.program.lookahead
        if ahead is None:
            return self.x
        point: Numbers = compute(ahead, {"x": self.x, **self.states}, self.numbers(factor), MATRICES)["x"]
        return point

    def step(self, dx: Numbers, factor: Decimal = Decimal(1)) -> Training:
        """The training after one more step."""
        new = compute(self.recipe.program, {"x": self.x, "dx": dx, **self.states}, self.numbers(factor), MATRICES)
        states = {name: new[name] for name in self.states}
        scalar_states = {name: new[name] for name in self.scalar_states}
        return replace(self, x=new["x"], states=states, scalar_states=scalar_states, t=self.t + 1)

    def handed_over(self, recipe: Recipe, states: Mapping[str, Numbers], scalar_states: Mapping[str, Any]) -> Training:
        """Another recipe that goes on from here with these states, its gradients taken at the same point."""
        scalars = {name: Decimal(value) for name, value in scalar_states.items()}
        other = Training(recipe, self.x, states, scalars, self.t)
        if self.recipe.rule.ahead is recipe.rule.ahead:
            return other
        ahead = recipe.chosen.ahead
        if ahead is None:
            return replace(other, x=self.point())
        weights = compute(ahead.to_weights, {"x": self.point(), **states}, other.numbers(Decimal(1)), MATRICES)["x"]
        return replace(other, x=weights)
