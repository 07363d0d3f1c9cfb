"""What trains each of a network's weights: one rule, or one for matrices those in between and another the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.entrant import REST_RATIO, Entrant
from downslope.lab.engines.protocol import OPTIONS
from downslope.lab.problems.model import Model, inner_of
from downslope.language.program import Program
from downslope.language.together import divided
from downslope.targets.arrays import interpret, with_sums
from downslope.targets.shapes import held_shape


@dataclass(frozen=True)
class Part:
    """A rule on one of the weights, as a heat computes it.

    Attributes:
        program: The rule.
        given: Its hyperparameters but the learning rate.
        pieces: Of how many matrices the weights are made, one above another.
        is_rest: Whether it trains what another rule leaves.
    """

    program: Program
    given: Mapping[str, float]
    pieces: int = 1
    is_rest: bool = False

    def numbers(self, lr: Any, varied: Mapping[str, Any]) -> dict[str, Any]:
        """All of its hyperparameters.

        Args:
            lr: The learning rate of the run.
            varied: Those that a grid gives the run; to what trains the rest, only what is meant for both.
        """
        if not self.is_rest:
            return {**self.given, **varied, "lr": lr}
        both = {name: value for name, value in varied.items() if name in OPTIONS}
        return {**self.given, **both, "lr": lr * varied.get(REST_RATIO, self.given[REST_RATIO])}

    def begin(self, weights: NDArray[np.float32], numbers: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        """The states before the first step."""
        starts = {name: self.program.initial(name, numbers) for name in self.program.states}
        return {
            name: weights.copy() if start is None else np.full(self._held(name, weights.shape), start, weights.dtype)
            for name, start in starts.items()
        }

    def _held(self, state: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which a state is kept: those of all pieces one above another."""
        if self.pieces == 1:
            return held_shape(self.program, state, shape)
        rows, *others = held_shape(self.program, state, (shape[0] // self.pieces, *shape[1:]))
        return (self.pieces * rows, *others)

    def ahead(self, arrays: Mapping[str, Any], scalars: Mapping[str, Any]) -> Any:
        """Where the gradient is taken."""
        if self.program.lookahead is None:
            return arrays["x"]
        import jax.numpy as jnp

        return interpret(self.program.lookahead, arrays, scalars, jnp)["x"]

    def step(self, arrays: Mapping[str, Any], scalars: Mapping[str, Any]) -> dict[str, Any]:
        """New weights and states, and the new scalar states; sums over all tensors are among the scalars."""
        import jax
        import jax.numpy as jnp

        program = divided(self.program).rest
        if self.pieces == 1:
            return interpret(program, arrays, scalars, jnp)
        new = jax.vmap(lambda one: interpret(program, one, scalars, jnp))(self._apart(arrays))
        return {name: one.reshape(arrays[name].shape) if name in arrays else one[0] for name, one in new.items()}

    def _apart(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one.reshape(self.pieces, -1, *one.shape[1:]) for name, one in arrays.items()}

    def matrices(self, arrays: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The arrays of each piece."""
        if self.pieces == 1:
            return [arrays]
        apart = self._apart(arrays)
        return [{name: one[k] for name, one in apart.items()} for k in range(self.pieces)]


def step_together(
    of: Sequence[tuple[Part, Mapping[str, Any]]], tensors: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A step of all weights: what `Part.step` gives of each; a rule's sums are over all that it trains.

    Args:
        of: What trains each of the weights, and its scalars.
        tensors: The arrays of each.
    """
    import jax.numpy as jnp

    summed: dict[Program, Mapping[str, Any]] = {}
    for part, scalars in of:
        if part.program.over_all and part.program not in summed:
            own = [
                (part.program, matrix)
                for (other, _), arrays in zip(of, tensors, strict=True)
                if other.program is part.program
                for matrix in other.matrices(arrays)
            ]
            summed[part.program] = with_sums(part.program, lambda own=own: own, scalars, jnp)  # type: ignore[misc]
    return [
        part.step(arrays, summed.get(part.program, scalars))
        for (part, scalars), arrays in zip(of, tensors, strict=True)
    ]


def parts_of(entrant: Entrant, model: Model) -> tuple[Part, ...]:
    """What trains each of the weights of a model.

    Raises:
        ValueError: The rule is for matrices, and the model has none in between.
    """
    program = entrant.settings.program
    if entrant.rest is None:
        return (Part(program, entrant.numbers),) * len(model.initial(0))
    rest = Part(
        entrant.rest.settings.program,
        {**entrant.rest.numbers, REST_RATIO: entrant.numbers[REST_RATIO]},
        is_rest=True,
    )
    return tuple(Part(program, entrant.numbers, pieces) if pieces else rest for pieces in inner_of(model))


def who_trains_what(name: str, entrant: Entrant, inner: Sequence[bool], sizes: Sequence[int], note: str = "") -> str:
    """What a rule for matrices trains and what another one does, in a sentence.

    Args:
        name: What it is called in the race.
        entrant: The rule.
        inner: Whether each of the weights is a matrix that it trains.
        sizes: How many numbers each of the weights has.
        note: What could not be known of them.
    """
    trained = [size for size, is_inner in zip(sizes, inner, strict=True) if is_inner]
    assert entrant.rest is not None
    rest, ratio = entrant.rest.settings.rule.name, entrant.numbers[REST_RATIO]
    lr = "the same learning rate" if ratio == 1 else f"{ratio:g} times its learning rate"
    return (
        f"{name}: {entrant.settings.rule.name} trained the matrices between first and last layer, {len(trained)} of "
        f"{len(sizes)} arrays with {sum(trained):,} of {sum(sizes):,} weights, and {rest} the rest at {lr}"
        + (f"; {note}." if note else ".")
    )
