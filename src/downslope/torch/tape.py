"""A program for tensors of one shape as a list of calls to PyTorch: read once, and run for stacks of such tensors."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from downslope.language.expression import Expression
from downslope.language.operations import OPERATIONS as KINDS
from downslope.language.operations import TENSOR_WORDS, function_of
from downslope.language.program import Program
from downslope.language.whole import reduced
from downslope.targets.compute import OPERATIONS, compute
from downslope.targets.shapes import held_shape, settled
from downslope.torch.sharing import SHARE, WHOLE, Sharing, with_shares

Tensor = torch.Tensor
Shape = tuple[int, ...]

_VIEWS = ("transpose", WHOLE, SHARE)
"""What may show the memory of what it is applied to."""
_IN_PLACE = {op: getattr(torch.Tensor, f"{op}_") for op in ("add", "sub", "mul", "div")}
_MODEST = (1e-3, 1e3)
"""Between which a coefficient may be multiplied to a product rather than to its first factor: neither overflows."""


class Tape:
    """A program, for stacks of tensors of one shape.

    A stack has one dimension before those of its tensors, along which they stand one behind the other; sums are of
    each tensor, products are of one matrix each. A program that treats each weight by itself takes tensors as they are.

    Sums with a product are one call, `b * s + c * s @ s` too if `b` and `c` are constants: `c` is multiplied to the
    product then. What an operation has made in a stack is written over by the last one that needs it, or forgotten.

    Attributes:
        program: What is computed, in which sizes are numbers.
        stacked: Whether tensors have to be stacked, if it is only one.
    """

    def __init__(self, program: Program, shape: Shape, shared: bool = False):
        """Read a program.

        Args:
            program: What is computed.
            shape: That of the weights, as `shapes.matrix_shape` gives it.
            shared: Whether arrays are shares of tensors of this shape; see `torch.sharing`.
        """
        self.stacked = bool(program.over_tensors)
        self.program = settled(program, shape) if self.stacked else program
        if shared:
            self.program = with_shares(self.program)
        self._slots: dict[Expression, int] = {}
        self._shapes: dict[Expression, Shape] = {}  # of what is a tensor, without the dimension of the stack
        self._hosts: list[Expression] = []
        for e in [*self.program.coefficients, *self.program.per_weight]:
            self._place(e, shape)
        self._inputs = [(self._slots[e], str(e.value)) for e in self._shapes if e.op == "input"]
        self._like = next((e for e in self._shapes if e.op == "input"), None)
        self._calls: list[tuple[Callable[..., Any], tuple[int, ...], int, tuple[int, ...]]] = []
        self._outputs: list[tuple[str, int]] = []
        self._record()

    def _place(self, e: Expression, shape: Shape) -> None:
        """Find out whether an expression is a tensor, of which shape, and number it."""
        if e.op == "called":
            same = e.args[0]
            self._slots[e] = self._slots[same]
            if same in self._shapes:
                self._shapes[e] = self._shapes[same]
            return
        self._slots[e] = len(self._slots)
        given = [self._shapes[arg] for arg in e.args if arg in self._shapes]
        if e.op == "input" and e.from_arrays:
            self._shapes[e] = held_shape(self.program, str(e.value), shape)
        elif not given:
            self._hosts.append(e)
        elif e.op in (WHOLE, SHARE):
            self._shapes[e] = shape
        elif e.op == "product":
            self._shapes[e] = given[0][0], given[1][1]
        elif e.op == "transpose":
            self._shapes[e] = given[0][::-1]
        elif e.op in TENSOR_WORDS:
            axis = None if e.value is None else int(float(e.value))
            self._shapes[e] = tuple(n if k != axis and axis is not None else 1 for k, n in enumerate(given[0]))
        else:
            self._shapes[e] = np.broadcast_shapes(*given)

    def _record(self) -> None:
        """Write down the calls that the outputs need, each after those that it needs itself."""
        program, slots, shapes = self.program, self._slots, self._shapes
        made = [e for e in program.per_weight if e in shapes and e.op not in ("input", "called")]
        results = [slots[e] for e in program.outputs.values()]
        users = Counter([*(slots[arg] for e in made for arg in e.args), *results])
        asked = {e: self._asked(e, users) for e in made}
        needed = {*results}
        for e in reversed(made):
            if slots[e] in needed:
                needed.update(slots[arg] for arg in asked[e][1])
        made = [e for e in made if slots[e] in needed]
        last = {slots[arg]: k for k, e in enumerate(made) for arg in asked[e][1]}
        own = set[int]()  # memory that nothing else shows
        for k, e in enumerate(made):
            call, args = asked[e]
            done = {slots[arg] for arg in args if last[slots[arg]] == k and slots[arg] not in results}
            if self.stacked and e.op in _IN_PLACE and call is OPERATIONS[e.op]:
                alike = [shapes.get(arg) == shapes[e] and (arg.space == e.space) for arg in args]
                over = [same and slots[arg] in own & done for same, arg in zip(alike, args, strict=True)]
                if over[0] or (over[1] and e.op in ("add", "mul")):
                    call, args = _IN_PLACE[e.op], args if over[0] else args[::-1]
            if e.op in _VIEWS:
                own.discard(slots[args[0]])
            else:
                own.add(slots[e])
            given = [slots[arg] for arg in args]
            if e.op in (WHOLE, SHARE):
                given = [-1, *given]
            self._calls.append((call, (*given,), slots[e], tuple(done)))
        for name, e in program.outputs.items():
            slot, shown = slots[e], e
            while shown.op in ("called", *_VIEWS):
                shown = shown.args[0]
            if shown.op == "input" and shown in shapes:
                if slots[shown] == slot and shown.value == name:
                    continue  # it stays as it is
                slot = len(slots) + len(self._outputs)
                self._calls.append((torch.clone, (slots[e],), slot, ()))
            self._outputs.append((name, slot))
        self._size = len(slots) + len(self._outputs) + 1

    def _asked(self, e: Expression, users: Counter[int]) -> tuple[Callable[..., Any], tuple[Expression, ...]]:
        """The call that works out an operation, and what it is applied to."""
        shapes = self._shapes
        tensors = [arg in shapes for arg in e.args]
        if e.op == "add" and all(tensors):
            for base, product in (e.args, e.args[::-1]):
                alone = product.op == "product" and users[self._slots[product]] == 1
                if alone and shapes[product] == shapes[e] and base.op != "product":
                    beta, base = self._split(base, users)
                    alpha, left = self._split(product.args[0], users)
                    return functools.partial(torch.baddbmm, beta=beta, alpha=alpha), (base, left, product.args[1])
        if e.op == "product":
            return torch.bmm, e.args
        if e.op == "transpose":
            return _transposed, e.args
        if e.op in (WHOLE, SHARE):
            return functools.partial(_over_processes, e.op, self._shapes[e]), e.args
        if e.op in TENSOR_WORDS:
            axis = None if e.value is None else int(float(e.value))
            return functools.partial(_reduced, e.op, axis), e.args
        if e.op in ("maximum", "minimum") and not all(tensors):
            bound = "min" if e.op == "maximum" else "max"
            args = e.args if tensors[0] else e.args[::-1]
            return lambda tensor, number: tensor.clamp(**{bound: number}), args
        if "truth" in KINDS[e.op].takes and not (tensors[0] and any(tensors[1:])) and e.op != "not":
            assert self._like is not None
            return functools.partial(_of_truths, e.op), (self._like, *e.args)
        function = OPERATIONS[e.op]
        return function_of(function, torch) if isinstance(function, str) else function, e.args

    def _split(self, e: Expression, users: Counter[int]) -> tuple[float, Expression]:
        """A constant that something is multiplied by, and the rest; 1 and all of it where there is none."""
        if e.op == "mul" and users[self._slots[e]] == 1:
            for number, rest in (e.args, e.args[::-1]):
                if number.op == "constant" and _MODEST[0] <= abs(number.number) <= _MODEST[1] and rest in self._shapes:
                    return number.number, rest
        return 1.0, e

    def numbers(self, coefficients: Mapping[Expression, Any]) -> list[tuple[int, Any]]:
        """What a step needs besides tensors, by slot, however many stacks there are.

        Args:
            coefficients: As `arrays.interpret_scalars` gives them.
        """
        values: dict[Expression, Any] = {}
        with np.errstate(all="ignore"):
            for e in self._hosts:
                if e in coefficients:
                    values[e] = coefficients[e]
                elif e.op == "constant":
                    values[e] = e.value
                else:
                    values[e] = compute(e.op, [np.asarray(values[arg])[()] for arg in e.args])
        return [
            (self._slots[e], bool(value) if isinstance(value, (bool, np.bool_)) else float(value))
            for e, value in values.items()
        ]

    def run(
        self, arrays: Mapping[str, Tensor], numbers: Sequence[tuple[int, Any]], processes: Processes | None = None
    ) -> dict[str, Any]:
        """The new weights and states, by name: a tensor or a number; what stays as it is is left out.

        Args:
            arrays: Stacks of weights, gradients and states, in the precision of the step; they are not changed.
            numbers: As `numbers` gives them.
            processes: What gathers shares and keeps them, where arrays are shares.
        """
        values: list[Any] = [None] * self._size
        values[-1] = processes
        for slot, number in numbers:
            values[slot] = number
        for slot, name in self._inputs:
            values[slot] = arrays[name]
        for call, args, slot, free in self._calls:
            values[slot] = call(*[values[arg] for arg in args])
            for done in free:
                values[done] = None
        return {name: values[slot] for name, slot in self._outputs}


@dataclass(frozen=True)
class Processes:
    """How the tensors of a stack are shared out, and the shape of this process's share."""

    sharing: Sharing
    local: Shape
    held: Shape


def _over_processes(op: str, shape: Shape, processes: Processes, stack: Tensor) -> Tensor:
    """Shares made whole, as matrices of a shape; or the share of whole tensors."""
    if op == WHOLE:
        return processes.sharing.whole(stack, processes.local).reshape(len(stack), *shape)
    whole = stack.expand(len(stack), *shape)
    return processes.sharing.share(whole).reshape(len(stack), *processes.held)


def can_tape(program: Program) -> bool:
    """Whether a tape knows all operations of a program."""
    known = (*TENSOR_WORDS, "transpose", "product", "called", "input")
    return all(e.op in known for e in program.over_tensors)


@functools.lru_cache(maxsize=512)
def tape_of(program: Program, shape: Shape, shared: bool = False) -> Tape:
    """The tape of a program for a shape."""
    return Tape(program, shape, shared)


def _transposed(stack: Tensor) -> Tensor:
    return stack.mT


def _reduced(op: str, axis: int | None, stack: Tensor) -> Any:
    return reduced(op, stack, axis, torch, stacked=True)


def _of_truths(op: str, like: Tensor, *args: Any) -> Tensor:
    """`where`, `and` and `or` of numbers and truth values as well as of tensors."""
    given = [torch.tensor(arg, device=like.device) if isinstance(arg, bool) else arg for arg in args]
    if op == "where" and not isinstance(given[1], Tensor):
        given[1] = like.new_tensor(given[1])
    found: Tensor = function_of(str(OPERATIONS[op]), torch)(*given)
    return found
