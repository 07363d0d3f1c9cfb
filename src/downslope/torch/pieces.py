"""Several matrices in one parameter, as projections to queries, keys and values are: a group's `pieces` and `axis`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from downslope.language.program import Program
from downslope.targets.shapes import held_shape

Tensor = torch.Tensor


@dataclass(frozen=True)
class Pieces:
    """How parameters are divided into matrices that a rule over whole tensors takes one by one.

    Attributes:
        sizes: The length of each along the axis; a single number is how many equal ones there are.
        axis: The axis along which they stand.
    """

    sizes: tuple[int, ...] | int = 1
    axis: int = 0

    @classmethod
    def of(cls, group: Mapping[str, Any], program: Program) -> Pieces:
        """What a group says.

        Raises:
            TypeError: It is no number and no list of sizes.
            ValueError: The rule treats each weight by itself.
        """
        if "pieces" not in group:
            return WHOLE
        sizes, axis = group["pieces"], group.get("axis", 0)
        listed = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
        if not listed or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in listed):
            raise TypeError(f"pieces={sizes!r}: give how many equal matrices a parameter is made of, or their sizes")
        if isinstance(axis, bool) or axis not in (0, 1):
            raise TypeError(f"axis={axis!r}: give the axis along which pieces stand, 0 or 1")
        if not program.over_tensors:
            raise ValueError(
                f"pieces={sizes!r}: {program.name} treats each weight by itself, whatever matrix it is in; leave it out"
            )
        square = [name for name, space in program.spaces.items() if space.is_square]
        if square:
            raise ValueError(
                f"pieces={sizes!r}: {program.name} keeps {square[0]} for each pair of rows or columns of a whole "
                "parameter; leave it out, or make a parameter of each piece"
            )
        return cls(tuple(listed) if isinstance(sizes, (list, tuple)) else int(sizes), axis)

    def said(self) -> dict[str, Any]:
        """The same as a file says it, equal sizes as how many there are; nothing where every parameter is one."""
        sizes = list(self.sizes) if isinstance(self.sizes, tuple) else self.sizes
        sizes = len(sizes) if isinstance(sizes, list) and len(set(sizes)) == 1 else sizes
        return {} if self == WHOLE else {"sizes": sizes, "axis": self.axis}

    def check(self, name: str, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of the pieces of a parameter.

        Raises:
            ValueError: It cannot be divided so.
        """
        if self == WHOLE:
            return [shape]
        sizes, long = self._sizes(shape), shape[self.axis] if len(shape) > self.axis else 0
        if sum(sizes) != long or 0 in sizes:
            raise ValueError(
                f"the parameter {name} of shape {shape} cannot be divided into pieces={self.sizes} along axis "
                f"{self.axis}, which has {long}; give sizes that add up to that"
            )
        return [(*shape[: self.axis], size, *shape[self.axis + 1 :]) for size in sizes]

    def _sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(self.sizes, tuple):
            return self.sizes
        long = shape[self.axis] if len(shape) > self.axis else 0
        return (long // self.sizes,) * self.sizes

    def held_shape(self, program: Program, state: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which a state is kept: along the axis of the pieces, each has its own behind that before it."""
        whole = list(held_shape(program, state, shape))
        if self != WHOLE and whole[self.axis] != shape[self.axis]:
            whole[self.axis] = len(self._sizes(shape))
        return tuple(whole)

    def over(self, tensors: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
        """Weights, gradient and states, piece by piece, each sharing their memory."""
        if self == WHOLE:
            yield tensors
            return
        start, long = 0, tensors["x"].shape[self.axis]
        for k, size in enumerate(self._sizes(tuple(tensors["x"].shape))):
            yield {
                name: tensor.narrow(self.axis, *((start, size) if tensor.shape[self.axis] == long else (k, 1)))
                for name, tensor in tensors.items()
            }
            start += size


WHOLE = Pieces()
"""Every parameter is one."""
