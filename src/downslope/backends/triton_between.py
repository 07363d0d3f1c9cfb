"""What is worked out between passes on a GPU, as text: what is one for the tensor, for each row or each column.

What pieces have added up is joined in their order, so that nothing depends on which of them was first. What one
function stores, only those launched after it read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from downslope.backends.triton_functions import ENTRIES, TENSORS, Functions, Turn, indented, start
from downslope.backends.triton_kernel import at, read, written
from downslope.backends.triton_pieces import SIDE, TILE
from downslope.language.expression import Expression
from downslope.language.spaces import COLUMN, ROW, TENSOR, Space
from downslope.targets.passes import REDUCTIONS


class BetweenText:
    """Writes functions for what is between passes."""

    def __init__(self, functions: Functions):
        self._to = functions

    def write(self, k: int) -> None:
        """Functions for what is worked out before a pass, by rows and columns and by tensors in turn."""
        phases: dict[Expression, int] = {}

        def phase(e: Expression, space: Space) -> int:
            """The first function in which everything that something is made of is known."""
            least = max((phases[each] for each in self._made_of(e) if each in phases), default=0)
            return least + ((least % 2 == 0) == (space == TENSOR))

        found: dict[int, list[Expression]] = {}
        for e in self._to.plan.between[k]:
            if e not in self._to.plan.by_shape:
                phases[e] = phase(e, self._to.plan.spaces[e])
                found.setdefault(phases[e], []).append(e)
        last = max(phases.values(), default=0)  # after which nobody reads what a state was
        stores: dict[int, list[tuple[str, Expression]]] = {}
        for name, e in self._to.plan.stores if k == len(self._to.plan.passes) else ():
            space = self._to.program.spaces[name]
            stores.setdefault(last + ((last % 2 == 0) == (space == TENSOR)), []).append((name, e))
        for number in sorted({*found, *stores}):
            body = self._tensors if number % 2 else self._entries
            body(f"between_{k}_{number}", found.get(number, []), stores.get(number, []))

    def _made_of(self, root: Expression) -> Iterator[Expression]:
        """What is kept that something is made of, itself left out."""
        waiting, seen = [*(() if self._to.plan.adds_up(root) else root.args)], set[Expression]()
        while waiting:
            e = waiting.pop()
            if e not in seen:
                seen.add(e)
                if e in self._to.kept:
                    yield e
                else:
                    waiting += e.args

    def _entries(self, name: str, values: Sequence[Expression], stores: Sequence[tuple[str, Expression]]) -> None:
        """A function for what is one for each row or each column."""
        self._to.begin()
        of: dict[Space, list[str]] = {}
        for space in (ROW, COLUMN):
            mine = [e for e in values if self._to.plan.spaces[e] == space]
            held = [(state, e) for state, e in stores if self._to.program.spaces[state] == space]
            if mine or held:
                self._to.scope.known = dict(self._to.known)
                index, strip = ("q_", "piece_") if space == ROW else ("j_", "(piece_ - strips_)")
                of[space] = [
                    f"{index} = {strip} * {SIDE} + tl.arange(0, {SIDE})",
                    f"inside_ = {index} < {'rows_' if space == ROW else 'columns_'}",
                    "one_ = tl.arange(0, 1)",
                    *(line for e in mine for line in self._entry(e, index)),
                    *(line for state, e in held for line in self._state(state, e, index)),
                ]
        lines = [f"strips_ = {f'(rows_ + {SIDE - 1}) // {SIDE}' if ROW in of else 'rows_ * 0'}", "if length_ > 0:"]
        lines += ["    if piece_ < strips_:", *indented(of.get(ROW, ["pass"]), 8)]
        lines += ["    else:", *indented(of.get(COLUMN, ["pass"]), 8)]
        self._to.define(Turn(name, ENTRIES, ROW in of, COLUMN in of), lines)

    def _entry(self, e: Expression, index: str) -> list[str]:
        """The lines that work out and keep one value."""
        n = self._to.kept[e]
        lines = self._joined(e, index) if self._to.plan.adds_up(e) else self._narrow(e, index)
        value = f"tl.broadcast_to(v{n}_, [{SIDE}])"
        lines.append(f"tl.store(at{n}_ + {index}, {value}.to(tl.float64), inside_)")
        self._to.scope.known[e] = f"(v{n}_ != 0)" if e.is_condition else f"v{n}_"
        return lines

    def _joined(self, e: Expression, index: str) -> list[str]:
        """What pieces have added up for each row or column, joined in their order."""
        n = self._to.kept[e]
        pieces, count, entries = ("across_", "columns_", "rows_") if index == "q_" else ("down_", "rows_", "columns_")
        place = f"p_ * {entries} + {index}[None, :], (p_ < {pieces}) & inside_[None, :]"
        part = f"tl.load(part{n}_ + {place}, {start(e)})"
        total = self._to.combined(e, f"sum{n}_", 0)
        return [
            f"sum{n}_ = tl.full([{SIDE}, {SIDE}], {start(e)}, tl.float64)",
            f"first_ = {pieces} * 0",
            f"while first_ < {pieces}:",
            f"    p_ = first_ + tl.arange(0, {SIDE})[:, None]",
            f"    {self._to.added(e, part)}",
            f"    first_ += {SIDE}",
            f"v{n}_ = {self._to.finished(e, total, count)}",
        ]

    def _narrow(self, e: Expression, index: str) -> list[str]:
        """The lines that work out something that is no sum of weights, nor of others."""
        n, lines = self._to.kept[e], self._known_lines(e, index)
        if e.op not in REDUCTIONS:
            return [*lines, f"v{n}_ = {self._to.value(e)}"]
        text = self._to.scope.text(e.args[0])  # along the direction in which it is one value
        return [*lines, f"v{n}_ = {f'tl.abs({text})' if e.op == 'norm' else text}"]

    def _known_lines(self, root: Expression, index: str) -> list[str]:
        """The lines that read what something is made of; and work it out, or its operand if it is a sum."""
        lines, waiting, seen = [], [*root.args], set[Expression]()
        while waiting:
            e = waiting.pop()
            if e in seen or not e.from_arrays or e in self._to.scope.known:
                continue
            seen.add(e)
            if e in self._to.kept:
                lines += self._fetch(e, index)
            elif e.op == "input":
                lines.append(self._input(e, index))
            else:
                waiting += e.args
        if root.op == "input":
            return [self._input(root, index)]
        return [*lines, *self._to.lines(root.args if root.op in REDUCTIONS else [root])]

    def _fetch(self, e: Expression, index: str) -> list[str]:
        """The line that reads a value from scratch memory, after which it is known."""
        n, space = self._to.kept[e], self._to.plan.spaces[e]
        place = "one_" if space == TENSOR else f"{index}, inside_, 0.0"
        self._to.scope.known[e] = f"(k{n}_ != 0)" if e.is_condition else f"k{n}_"
        return [f"k{n}_ = tl.load(at{n}_ + {place}).to(tl.{self._to.scalar})"]

    def _input(self, e: Expression, index: str) -> str:
        """The line that reads a state of less than one value a weight."""
        state, masked = str(e.value), self._to.program.spaces[str(e.value)] != TENSOR
        to = f"({at(state, self._to.stored[state])} + {index if masked else 'one_'})"
        text = read(state, self._to.stored[state], self._to.scalar).replace(f"to_{state}_", to)
        return f"{self._to.scope.name(e, state)} = {text.replace('<inside>', ', inside_, 0' if masked else '')}"

    def _state(self, state: str, e: Expression, index: str) -> list[str]:
        """The lines that store a state of less than one value a weight, as wide as the state is."""
        lines = [] if e in self._to.scope.known or e not in self._to.kept else self._fetch(e, index)
        wide = f"tl.broadcast_to({self._to.value(e)}, [{1 if index == 'one_' else SIDE}])"
        lines += [f"new_{state}_ = {wide}", f"to_{state}_ = {at(state, self._to.stored[state])} + {index}"]
        inside = "" if index == "one_" else ", inside_"
        return [
            *lines,
            *(text.replace("<inside>", inside) for text in written(state, self._to.stored[state], "nearest")),
        ]

    def _tensors(self, name: str, values: Sequence[Expression], stores: Sequence[tuple[str, Expression]]) -> None:
        """A function for what is one for each tensor."""
        self._to.begin()
        lines = ["one_ = tl.arange(0, 1)"]
        for e in values:
            n = self._to.kept[e]
            if self._to.plan.adds_up(e):
                lines += self._total(e)
            elif e.op in REDUCTIONS and self._to.plan.spaces[e.args[0]] != TENSOR:
                lines += self._reduced(e)
            else:
                lines += self._narrow(e, "one_")
            lines.append(f"tl.store(at{n}_ + one_, tl.broadcast_to(v{n}_, [1]).to(tl.float64))")
            self._to.scope.known[e] = f"(v{n}_ != 0)" if e.is_condition else f"v{n}_"
        for state, e in stores:
            lines += self._state(state, e, "one_")
        self._to.define(Turn(name, TENSORS), ["if (length_ > 0) & (piece_ == 0):", *indented(lines)])

    def _total(self, e: Expression) -> list[str]:
        """What pieces have added up for the tensor, joined in their order."""
        n, pieces = self._to.kept[e], "(across_ * down_)"
        inside = f"next{n}_ = tl.load(part{n}_ + i_, i_ < {pieces}, {start(e)})"
        return self._loop(e, pieces, [inside], "(rows_ * columns_)")

    def _reduced(self, e: Expression) -> list[str]:
        """The sum of what is one for each row or column."""
        n, (arg,) = self._to.kept[e], e.args
        index, count = ("q_", "rows_") if self._to.plan.spaces[arg] == ROW else ("j_", "columns_")
        outside = dict(self._to.scope.known)
        inside = [f"{index} = i_", f"inside_ = i_ < {count}", *self._known_lines(e, index)]
        value = f"tl.broadcast_to({self._to.scope.text(arg)}, i_.shape).to(tl.float64)"
        self._to.scope.known = outside
        inside.append(f"next{n}_ = {value}")
        inside += [f"next{n}_ = next{n}_ * next{n}_"] if e.op == "norm" else []
        inside.append(f"next{n}_ = tl.where(inside_, next{n}_, {start(e)})")
        return self._loop(e, count, inside, count)

    def _loop(self, e: Expression, end: str, inside: Sequence[str], count: str) -> list[str]:
        """The lines that add up so many values, a tile at a time, each as `inside` says it of the numbers `i_`."""
        n = self._to.kept[e]
        total = self._to.combined(e, f"sum{n}_", 0)
        return [
            f"sum{n}_ = tl.full([{TILE}], {start(e)}, tl.float64)",
            "first_ = length_ * 0",
            f"while first_ < {end}:",
            f"    i_ = first_ + tl.arange(0, {TILE})",
            *indented(inside),
            "    " + self._to.added(e, f"next{n}_"),
            f"    first_ += {TILE}",
            f"v{n}_ = {self._to.finished(e, f'tl.broadcast_to({total}, [1])', count)}",
        ]
