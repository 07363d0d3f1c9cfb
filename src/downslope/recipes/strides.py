"""Which learning rate in one form of Muon is which in another: the one with which a step is as long.

Muon's steps do not shrink with the gradient, so their length is the learning rate times what the form and the shape of
the matrix say. It is not looked up: both forms do their first step, with the same gradient, and the steps are measured.
"""

from __future__ import annotations

import functools

import numpy as np

from downslope.recipes.recipe import Recipe, literal
from downslope.rules import muon
from downslope.targets.arrays import interpret
from downslope.targets.shapes import Shape, held_shape, multiplies

Layer = tuple[int, int]
"""The inputs and outputs of a layer."""

LAYERS = ((256, 256), (256, 1024), (1024, 256))
"""For which it is said: one with as many outputs as inputs, with more, and with fewer."""

OUTPUTS_FIRST = (None, "note", "torch")
"""The dialects in which the rows of a layer's matrix are its outputs; in the others they are its inputs."""


def has_strides(recipe: Recipe) -> bool:
    """Whether a recipe's steps have a length of their own: those of rules that multiply matrices."""
    return "lr" in recipe.numbers and multiplies(recipe.program)


def rate_as_long(own: Recipe, other: Recipe, layer: Layer) -> float:
    """The learning rate with which the other recipe's first step is as long as this one's, in the same layer.

    Args:
        own: A recipe with a learning rate.
        other: Another; its own learning rate does not matter.
        layer: Its inputs and outputs; each framework has its matrix as it lies there.

    Example:
        >>> from downslope import Recipe, dialects
        >>> keller, moon = Recipe(dialects.torch.muon, lr=0.02), Recipe(dialects.keras.muon)
        >>> round(rate_as_long(keller, moon, (64, 16)), 6)
        0.0125
    """
    mine, its = (stride(recipe.with_settings(lr=1.0), _shape(recipe, layer)) for recipe in (own, other))
    return own.numbers["lr"] * mine / its


def _shape(recipe: Recipe, layer: Layer) -> Shape:
    """The shape of a layer's matrix in the framework of a recipe."""
    return layer[::-1] if recipe.dialect in OUTPUTS_FIRST else layer


def rate_of_adamw(lr: float, other: Recipe, layer: Layer) -> float:
    """The learning rate with which the other recipe does what AdamW does with this one.

    Source: Liu et al., "Muon is scalable for LLM training", 2025: a step of AdamW moves a weight by about 0.2 of the
    learning rate, as a root mean square, and Muon takes over its learning rate and weight decay with steps as long.

    Example:
        >>> from downslope import Recipe, dialects
        >>> round(rate_of_adamw(3e-4, Recipe(dialects.torch.muon), (64, 64)), 8)
        0.00048
    """
    return rate_as_long(Recipe(muon, lr=lr, match_rms=True), other, layer)


@functools.lru_cache(maxsize=64)
def stride(recipe: Recipe, shape: Shape) -> float:
    """How long the first step is that weights of 0 are moved by, as a root mean square."""
    program = recipe.program
    drawn = np.random.default_rng(0).standard_normal((min(shape), max(shape))).astype(np.float32)
    dx = drawn if drawn.shape == shape else drawn.T  # the same matrix, however it lies
    starts = {name: program.initial(name, recipe.numbers) or 0.0 for name in program.states}
    states = {name: np.full(held_shape(program, name, shape), start, np.float32) for name, start in starts.items()}
    arrays = {"x": np.zeros(shape, np.float32), "dx": dx, **states}
    new = interpret(program, arrays, {**recipe.numbers, **program.scalar_states, "t": 1})["x"]
    return float(np.sqrt(np.mean(np.square(new, dtype=np.float64))))


def in_words(own: Recipe, other: Recipe) -> str:
    """A sentence that says with which learning rates the steps of the other are as long."""
    rates = {layer: float(f"{rate_as_long(own, other, layer):.3g}") for layer in LAYERS}
    if {*rates.values()} == {float(f"{own.numbers['lr']:.3g}")}:
        return "Its steps are as long at the same learning rate."
    said = [f"{literal(rate)} in a layer from {inputs} to {outputs}" for (inputs, outputs), rate in rates.items()]
    return f"Its steps are as long at lr={', '.join(said)}."
