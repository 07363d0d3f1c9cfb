"""What one step of a program costs per weight: memory read and written, operations, and passes over memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from downslope.language.expression import Expression
from downslope.language.operations import OVER_TENSORS
from downslope.language.program import Program, in_order
from downslope.language.spaces import WEIGHT
from downslope.targets.passes import compiles, planned


@dataclass(frozen=True)
class Cost:
    """What one step costs per weight.

    Attributes:
        read: Bytes read from memory, in all passes.
        written: Bytes written to memory.
        operations: How often each operation is done. A product of matrices is one, of many multiplications a weight.
        passes: How often memory is gone through: once, and once more for each norm, mean or product that another one,
            or the new weights, have to wait for. Matrices between products are not counted among the bytes.
    """

    read: int
    written: int
    operations: Mapping[str, int]
    passes: int = 1

    @property
    def arithmetic(self) -> int:
        """All operations on one weight."""
        return sum(self.operations.values())

    def __str__(self) -> str:
        done = ", ".join(f"{count} {op}" for op, count in self.operations.items())
        passes = "" if self.passes == 1 else f" in {self.passes} passes"
        return (
            f"{self.read} bytes read, {self.written} bytes written{passes}, {self.arithmetic} operations ({done}) "
            "per weight"
        )


def cost(program: Program, dtype: Any = np.float32) -> Cost:
    """What a step costs per weight; of a rule over whole tensors, in the passes of its kernel if it has one.

    What is one for a tensor, a row or a column costs next to nothing, and is not counted. What is one for each pair of
    rows or columns counts as one a weight, as it is of a square matrix. All counts as if it were done at every step.

    Args:
        program: What the step computes.
        dtype: That of the arrays.

    Example:
        >>> import downslope
        >>> from downslope.language.options import compose
        >>> lamb = cost(compose(downslope.lamb))
        >>> lamb.read, lamb.written, lamb.passes
        (28, 12, 2)
    """
    size = np.dtype(dtype).itemsize
    if program.over_tensors and compiles(program):
        plan = planned(program, program.arrays)
        operations = dict(Counter(e.op for one in plan.passes for e in (*one.body, *one.sums)))
        read, written = sum(len(one.reads) for one in plan.passes), sum(len(one.stores) for one in plan.passes)
        return Cost(size * read, size * written, operations, len(plan.passes))
    stages = _stages(program)
    large = [name for name in program.outputs if name not in program.spaces or program.spaces[name].is_square]
    written = sum(program.outputs[name].value != name for name in large)
    operations = dict(Counter(e.op for stage in stages for e in stage.body))
    return Cost(size * sum(len(stage.inputs) for stage in stages), size * written, operations, len(stages))


class _Stage:
    """What array libraries can do in one pass over memory.

    Attributes:
        body: Its operations, each after what it is applied to.
        inputs: The arrays of one value a weight that it reads, or of one for each pair of rows or columns.
    """

    def __init__(self, results: Collection[Expression], known: Collection[Expression]):
        made = in_order(results, known)
        self.body = tuple(e for e in made if e.from_arrays and e.op not in ("input", "called"))
        self.inputs = tuple(str(e.value) for e in made if e.op == "input" and (e.space == WEIGHT or e.space.is_square))


def _stages(program: Program) -> list[_Stage]:
    """The stages of a step, in order; the last one gives the new weights and states.

    One ends with what has to be complete before anything that depends on it can begin: norms and other sums, and
    products of matrices. What only leads to these is worked out anew where it is needed again.
    """
    depth: dict[Expression, int] = {}
    for e in program.expressions:
        depth[e] = max((depth[arg] for arg in e.args), default=0) + (e.op in _ENDING)
    results = [*program.outputs.values(), *program.scalar_outputs.values()]
    endings = [e for e in program.expressions if e.op in _ENDING]
    stages = []
    for k in range(max((depth[e] for e in results), default=0)):
        ends = [e for e in endings if depth[e] == k + 1]
        stages.append(_Stage(ends, [e for e in endings if depth[e] <= k]))
    return [*stages, _Stage([*program.outputs.values()], endings)]


_ENDING = frozenset(OVER_TENSORS) - {"size", "transpose", "called"}
"""What has to be complete before anything that depends on it can begin."""
