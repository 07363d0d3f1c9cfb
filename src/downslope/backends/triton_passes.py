"""Passes over the weights on a GPU, as text: see `targets.passes`.

A program of a launch does a piece. What it adds up has a place in scratch memory that nobody else writes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from downslope.backends.triton_functions import PASSES, Functions, Turn, indented, start
from downslope.backends.triton_kernel import at, read, written
from downslope.backends.triton_pieces import DEEP
from downslope.language.expression import Expression
from downslope.language.spaces import COLUMN, ROW, TENSOR, Space
from downslope.targets.passes import Pass

_MASKS = {"inside": ", inside_", "if": "tl.where(inside_, ", "zero": ", 0.0)", "least": ', float("-inf"))'}
"""What stands, in a piece that may not be whole, where the text of the work says so in brackets."""


class PassText:
    """Writes passes."""

    def __init__(self, functions: Functions):
        self._to = functions

    def write(self, k: int, one: Pass) -> None:
        """A function for a pass, and one for what it works out of every weight."""
        self._to.begin()
        roots = [*(e.args[0] for e in one.sums), *(e for _, e in one.stores)]
        parameters, arguments = [], []
        fetched: dict[Space, list[str]] = {TENSOR: [], ROW: [], COLUMN: []}
        for e in one.narrow:
            n, space = self._to.kept[e], self._to.plan.spaces[e]
            place = {TENSOR: "one_, one_ < lines_ - top_", ROW: "q_, q_ < lines_", COLUMN: "j_, j_ < columns_"}[space]
            fetched[space].append(f"k{n}_ = tl.load(at{n}_ + {place}, 0.0).to(tl.{self._to.scalar})")
            self._to.scope.known[e] = f"(k{n}_ != 0)" if e.is_condition else f"k{n}_"
            parameters.append(f"k{n}_")
            arguments.append(f"k{n}_")
        for e, name in one.reads.items():
            parameters.append(self._to.scope.name(e, name))
            arguments.append(f"old_{name}_")
        coefficients = self._to.coefficients
        lines = self._to.lines(roots)
        summands = [f"v{self._to.kept[e]}_" for e in one.sums]
        results = [*summands, *(f"new_{name}_" for name, _ in one.stores)]
        head = f"def formula_{k}({', '.join([*parameters, *coefficients])}):"
        ends = f"return {', '.join(map(self._to.value, roots))}"
        self._to.texts.append("\n".join(["@triton.jit", head, *indented([*lines, ends])]))
        work = [f"old_{name}_ = {read(name, self._to.stored[name], self._to.scalar)}" for name in one.reads.values()]
        work.append(f"{', '.join(results)} = formula_{k}({', '.join([*arguments, *coefficients])})")
        before: list[str] = []
        after: list[str] = []
        for e in one.sums:
            work += self._summed(e, before, after)
        for name, _ in one.stores:
            work += written(name, self._to.stored[name], "nearest")
        touched = dict.fromkeys([*one.reads.values(), *(name for name, _ in one.stores)])
        addresses = " | ".join(f"at_{name}_" for name in touched) or "length_"
        body = [
            *self._place(),
            f"steps_ = tl.maximum(tl.minimum((lines_ - top_ + TALL_ - 1) // TALL_, {DEEP}), 0).to(tl.int32)",
            "one_ = tl.arange(0, 1)[:, None]",
            *fetched[TENSOR],
            *fetched[COLUMN],
            *before,
            f"if {self._whole_piece()} & ((({addresses}) & 15) == 0):",
            *indented(self._tiles(touched, fetched[ROW], work, masked=False)),
            "else:",
            *indented(self._tiles(touched, fetched[ROW], work, masked=True)),
            *after,
        ]
        self._to.define(Turn(f"pass_{k}", PASSES), body)

    def _place(self) -> list[str]:
        """Where a piece is: the number of its first row, and its columns."""
        if not self._to.of_matrices:
            return [
                "lines_ = (length_ + WIDE_ - 1) // WIDE_",
                "there_ = piece_",
                "here_ = piece_ * 0",
                f"top_ = there_ * {DEEP}",
                "j_ = tl.arange(0, WIDE_)[None, :]",
            ]
        return [
            "lines_ = tl.where(length_ > 0, rows_, 0)",
            "there_ = piece_ // tl.maximum(across_, 1)",
            "here_ = piece_ - there_ * across_",
            f"top_ = there_ * ({DEEP} * TALL_)",
            "j_ = here_ * WIDE_ + tl.arange(0, WIDE_)[None, :]",
        ]

    def _whole_piece(self) -> str:
        """Whether nothing has to be masked."""
        if not self._to.of_matrices:
            return "((top_ + steps_) * WIDE_ <= length_)"
        even = "(((columns_ & 15) == 0) | (rows_ == 1))"  # every row begins at a multiple of 16 bytes if the first does
        return f"(top_ + steps_ * TALL_ <= lines_) & ((here_ + 1) * WIDE_ <= columns_) & {even}"

    def _tiles(self, touched: Iterable[str], fetched: Sequence[str], work: Sequence[str], *, masked: bool) -> list[str]:
        """The loop over the tiles of a piece."""
        pointer = "{}" if masked else "tl.multiple_of({}, 16)"
        line = "WIDE_" if not self._to.of_matrices else "columns_" if masked else "columns_ // 16 * 16"
        inside = ["inside_ = (q_ < lines_) & (j_ < columns_)"]
        if not self._to.of_matrices:
            inside = ["rest_ = tl.minimum(length_ - first_, WIDE_).to(tl.int32)", "inside_ = i_ < rest_"]
        first = "(top_ + step_ * TALL_) * line_" + (" + here_ * WIDE_" if self._to.of_matrices else "")
        masks = _MASKS if masked else dict.fromkeys(_MASKS, "")
        tile = [
            *(["q_ = top_ + step_ * TALL_ + tl.arange(0, TALL_)[:, None]"] if self._to.of_matrices else []),
            f"first_ = {first}",
            *(inside if masked else []),
            *(f"to_{name}_ = {pointer.format(at(name, self._to.stored[name]))} + first_ + i_" for name in touched),
            *fetched,
            *work,
        ]
        for word, text in masks.items():
            tile = [text_of.replace(f"<{word}>", text) for text_of in tile]
        return [
            f"line_ = {line}",
            "i_ = tl.arange(0, TALL_)[:, None] * line_ + tl.arange(0, WIDE_)[None, :]",
            "for step_ in range(steps_):",
            *indented(tile),
        ]

    def _summed(self, e: Expression, before: list[str], after: list[str]) -> list[str]:
        """The lines that add up something of a tile; and what is done with the sum before and after all tiles."""
        n, space, combined = self._to.kept[e], self._to.plan.spaces[e], self._to.combined
        lines = [f"next{n}_ = tl.broadcast_to(v{n}_, [TALL_, WIDE_]).to(tl.float64)"]
        lines += [f"next{n}_ = next{n}_ * next{n}_"] if e.op == "norm" else []
        lines.append(f"next{n}_ = <if>next{n}_{'<least>' if e.op == 'max' else '<zero>'}")
        if space == ROW:
            total = combined(e, f"next{n}_", 1)
            lines.append(f"tl.store(part{n}_ + here_ * rows_ + q_, {total}[:, None], q_ < lines_)")
            return lines
        before.append(f"sum{n}_ = tl.full([TALL_, WIDE_], {start(e)}, tl.float64)")
        lines.append(self._to.added(e, f"next{n}_"))
        if space == COLUMN:
            total = combined(e, f"sum{n}_", 0)
            inside = "(j_ < columns_) & (top_ < lines_)"
            after.append(f"tl.store(part{n}_ + there_ * columns_ + j_, {total}[None, :], {inside})")
        else:
            total = combined(e, combined(e, f"sum{n}_", 1), 0)
            after.append(f"tl.store(part{n}_ + piece_, {total}, top_ < lines_)")
        return lines
