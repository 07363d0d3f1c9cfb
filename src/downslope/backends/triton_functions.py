"""The functions of a kernel for a GPU of a rule over whole tensors: what all of them have in common, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from downslope.backends.cpu import body_scalar
from downslope.backends.memory import FIRST
from downslope.backends.triton_kernel import coefficient_lines, numbers_of, slot_columns
from downslope.backends.triton_pieces import PIECES_TEXT, TILE_TEXT, Scratch
from downslope.language.expression import Expression
from downslope.language.program import Program
from downslope.targets.passes import planned, unnamed
from downslope.targets.triton import TARGETS
from downslope.targets.write import Scope, author_names

TENSORS, ENTRIES, PASSES = "tensors", "entries", "passes"
"""What the programs of a function share out: tensors; strips of rows, and behind them of columns; pieces."""

_TAKEN = """
blocks_ block_ slots_ slot_ coefficients_ row_ piece_ length_ rows_ columns_ scratch_ tall_ wide_ across_ down_ there_
here_ top_ first_ one_ j_ q_ p_ i_ rest_ inside_ line_ lines_ steps_ step_ strips_ TALL_ WIDE_ FROM_ add larger peak
from_brain to_brain dithered number_ read_ work_out coefficients library Library np singles doubles int64 range
device_functions stumbles STUMBLES_ float add_up
"""

LIBRARY = """

@triton.jit
def add(a, b):
    return a + b


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def peak(values, axis: tl.constexpr):
    strange = tl.reduce((values != values).to(tl.int32), axis, add)
    return tl.where(strange > 0, float("nan"), tl.reduce(values, axis, larger))
"""
"""How values are combined to one, of which one is not a number if any is."""


def start(e: Expression) -> str:
    """What nothing adds up to, or the largest of nothing."""
    return 'float("-inf")' if e.op == "max" else "0.0"


class Turn(NamedTuple):
    """A function, as it is launched.

    Attributes:
        name: What it is called.
        shared: What its programs share out, one of `TENSORS`, `ENTRIES` and `PASSES`.
        rows: Whether something is worked out for rows.
        columns: The same of columns.
    """

    name: str
    shared: str
    rows: bool = False
    columns: bool = False


def indented(lines: Iterable[str], by: int = 4) -> list[str]:
    """Lines further to the right."""
    return [" " * by + line for line in lines]


class Functions:
    """The functions, and what is known in the one that is being written.

    Attributes:
        program: What a step computes, without functions with a name.
        plan: How it is computed.
        of_matrices: Whether rows and columns matter.
        scalar: The precision of the body.
        stored: What each of the program's arrays is stored as.
        kept: What has a place in scratch memory, and its number.
        scratch: How that is laid out.
        scope: The names of the function that is being written.
        known: What is known in it from the beginning: coefficients.
        texts: Definitions.
        turns: What is launched, in order.
    """

    scope: Scope
    known: dict[Expression, str]

    def __init__(self, program: Program, storages: Sequence[str]):
        """Begin without any.

        Args:
            program: What a step computes.
            storages: What each of the program's arrays is stored as.
        """
        self.scalar, self.of_matrices = body_scalar(storages), program.of_matrices
        self._whole, self.stored = program, dict(zip(program.arrays, storages, strict=True))
        self._slot = slot_columns(storages, "nearest")
        self._given = [f"given_{index}_" for index in range(numbers_of(program, storages))]
        self.program = program = unnamed(program)
        self._target = TARGETS[self.scalar]
        self.plan = planned(program, [name for name, storage in self.stored.items() if storage == self.scalar])
        self.kept = {e: n for n, e in enumerate(self.plan.kept)}
        self.scratch = Scratch(self.plan, program.expressions, self.scalar, self.of_matrices)
        self._wishes = author_names(program)
        self.texts: list[str] = []
        self.turns: list[Turn] = []

    @property
    def coefficients(self) -> list[str]:
        """The names of the coefficients."""
        return [variable for variable, _ in self._named]

    def begin(self) -> None:
        """A new function, in which coefficients are known."""
        self.scope = Scope(self._target, {*_TAKEN.split(), *self._target.reserved, *self._given})
        self.scope.taken |= {f"{word}_{name}_" for name in self.stored for word in ("at", "to", "old", "new")}
        self.scope.taken |= {
            f"{word}{n}_" for n in self.kept.values() for word in ("at", "part", "k", "v", "sum", "next")
        }
        self._named, self.known = [], {}
        for index, e in enumerate(self._whole.coefficients):
            variable = self.scope.claim(f"c{index}" if e.args else str(e.value))
            self._named.append((variable, ""))
            self.known[e] = f"({variable} != 0)" if e.is_condition else variable
        self.scope.known = dict(self.known)

    def define(self, turn: Turn, body: Sequence[str]) -> None:
        """Add a function: its slot, the geometry of its tensor, addresses and coefficients before its body."""
        rows, columns, scratch = (len(self._slot) + k for k in range(3))
        text = "\n".join(body)
        lines = [
            "block_ = tl.load(blocks_ + tl.program_id(0))",
            f"slot_ = slots_ + (block_ >> 32) * {len(self._slot) + 3}",
            "piece_ = block_ & 0xFFFFFFFF",
            "length_ = tl.load(slot_)",
            f"row_ = coefficients_ + tl.load(slot_ + 1) * {len(self._whole.coefficients)}",
            f"rows_ = tl.load(slot_ + {rows})",
            f"columns_ = tl.load(slot_ + {columns})",
        ]
        tile = ("TALL_", "WIDE_") if turn.shared == PASSES else ("tall_", "wide_")
        lines += TILE_TEXT if self.of_matrices and turn.shared != PASSES else ()
        lines += [line.format(*tile) for line in PIECES_TEXT[self.of_matrices]]
        address = f"tl.load(slot_ + {scratch}).to(tl.pointer_type(tl.float64))"
        for name, _, room in self.scratch.areas():
            lines.append(f"{name} = {address}")
            address = f"{name} + {' * '.join(room)}"
        for name in self.stored:
            if f"at_{name}_" in text:
                column = self._slot.index(FIRST + self._whole.arrays.index(name))
                lines.append(f"at_{name}_ = tl.load(slot_ + {column})")
        lines += coefficient_lines(self._whole, self._named, self._given)
        given = "".join(f"{name}, " for name in self._given)
        compiled_in = ", ".join(f"{name}: tl.constexpr" for name in ("TALL_", "WIDE_", "FROM_"))
        head = f"def {turn.name}(blocks_, slots_, coefficients_, {given}{compiled_in}):"
        self.texts.append("\n".join(["@triton.jit", head, *indented([*lines, *body])]))
        self.turns.append(turn)

    def value(self, e: Expression) -> str:
        """An expression as a number."""
        text = self.scope.text(e)
        return f"tl.where({text}, real(1.0), real(0.0))" if e.is_condition else text

    def lines(self, roots: Sequence[Expression]) -> list[str]:
        """The lines that work out expressions of what is known."""
        return [f"{variable} = {text}" for variable, text in self.scope.lines(roots, self._wishes)]

    def finished(self, e: Expression, total: str, count: str) -> str:
        """A sum, as what it is the sum for, rounded to the precision of the body."""
        ends = {"norm": f"tl.sqrt({total})", "mean": f"({total} / {count}.to(tl.float64))"}
        return f"{ends.get(e.op, total)}.to(tl.{self.scalar})"

    def combined(self, e: Expression, values: str, axis: int) -> str:
        """Values that are added up, or the largest of them, along an axis."""
        return f"peak({values}, {axis})" if e.op == "max" else f"tl.reduce({values}, {axis}, add)"

    def added(self, e: Expression, values: str) -> str:
        """The line that adds values to a sum, or keeps the larger ones."""
        total = f"sum{self.kept[e]}_"
        return f"{total} = " + (f"maximum({total}, {values})" if e.op == "max" else f"{total} + {values}")
