"""The text of a kernel for a rule over whole tensors: see `staged`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from downslope.backends.cpu import HALVES, body_scalar
from downslope.backends.memory import COLUMNS, FIRST, ROWS, SCRATCH
from downslope.language.expression import Expression
from downslope.language.program import Program
from downslope.language.spaces import COLUMN, ROW, TENSOR
from downslope.targets.passes import REDUCTIONS, Pass, planned, unnamed
from downslope.targets.python import kernel_target
from downslope.targets.shapes import sides
from downslope.targets.write import Scope, author_names

PIECE = 1 << 16
"""Weights of a piece, at most."""

TALL = 64
"""Rows of a piece of a large matrix: columns are added up for so many rows at a time, in the processor's cache."""

_SCOPES = 32
"""As many arrays can be told apart; see `memory.mark`."""

_INDEX = {TENSOR: "0", ROW: "q_", COLUMN: "j_"}
_RANGE = {ROW: "for q_ in range(rows_):", COLUMN: "for j_ in range(columns_):"}
_START = {"max": "-inf"}
_TAKEN = {"slot_", "rest_", "row_", "rows_", "columns_", "tall_", "wide_", "across_", "down_", "pieces_", "piece_"} | {
    *("q_", "j_", "p_", "i_", "v_", "sum_", "here_", "there_", "left_", "right_", "top_", "bottom_", "start_"),
    *("first_", "last_", "plus", "usual_nan", "access", "np", "float32", "float64", "int64", "words", "range"),
    *("max", "min", "update", "share", "coefficients", "work_out", "library", "put_word", "pieces"),
}


def pieces_of(rows: int, columns: int) -> tuple[int, int]:
    """Into how many pieces a matrix is divided, next to each other and below each other."""
    tall = min(rows, TALL)
    wide = min(columns, PIECE // tall)
    tall = min(rows, PIECE // wide)
    return -(-columns // wide), -(-rows // tall)


_GEOMETRY = f"""\
rows_ = rest_[{ROWS}]
columns_ = rest_[{COLUMNS}]
tall_ = min(rows_, {TALL})
wide_ = min(columns_, {PIECE} // tall_)
tall_ = min(rows_, {PIECE} // wide_)
across_ = (columns_ + wide_ - 1) // wide_
down_ = (rows_ + tall_ - 1) // tall_
pieces_ = across_ * down_""".splitlines()
"""What a function begins with: see `pieces_of`."""


def _indented(lines: Iterable[str], by: int = 4) -> list[str]:
    return [" " * by + line for line in lines]


class StagedText:
    """The functions of a kernel, as text.

    Attributes:
        plan: How the program is computed.
        accessors: How memory is read and written.
        functions: Definitions, one for what is between passes and for each pass, in the order of `turns`.
        turns: Their names.
    """

    def __init__(self, program: Program, storages: Sequence[str]):
        """Write them.

        Args:
            program: What a step computes.
            storages: What each of the program's arrays is stored as.
        """
        self.scalar = body_scalar(storages)
        self._coefficients, self._storages = program.coefficients, dict(zip(program.arrays, storages, strict=True))
        self._program = program = unnamed(program)
        self._target, self._double = kernel_target(self.scalar), kernel_target("float64")
        exact = [name for name, storage in self._storages.items() if storage == self.scalar]
        self.plan = planned(program, exact)
        self._kept = {e: n for n, e in enumerate(self.plan.kept)}
        self._wishes = author_names(program)
        self.accessors = [*self._accessors()]
        self.functions: list[str] = []
        self.turns: list[str] = []
        for k in range(len(self.plan.between)):
            self._define(f"between_{k}", "", self._between(k))
            if k < len(self.plan.passes):
                self._define(f"pass_{k}", ", first_: int64, last_: int64", self._pass(self.plan.passes[k]))

    def scratch(self, rows: int, columns: int) -> int:
        """How many doubles a tensor needs in scratch memory."""
        across, down = pieces_of(rows, columns)
        known = {"rows_": rows, "columns_": columns, "across_": across, "down_": down, "1": 1}
        found = 0
        for e in self._kept:
            one, *more = (known[word] for word in self._extent(e))
            found += one * (more[0] if more else 1)
        return found

    def _extent(self, e: Expression) -> tuple[str, ...]:
        """The room of a value in scratch memory, as factors."""
        space = self.plan.spaces[e]
        if self.plan.adds_up(e):
            return {TENSOR: ("across_", "down_"), ROW: ("across_", "rows_"), COLUMN: ("down_", "columns_")}[space]
        return {TENSOR: ("1",), ROW: ("rows_",), COLUMN: ("columns_",)}[space]

    def _accessors(self) -> Iterator[str]:
        for k, (name, storage) in enumerate(self._storages.items()):
            halves = f', storage="{storage}"' if storage in HALVES else ""
            yield f'load_{name}_, store_{name}_ = access("{self.scalar}", {k}{halves})'
        for n in self._kept.values():
            which = n + len(self._storages)
            yield f'load{n}_, store{n}_ = access("float64", {which if which < _SCOPES else None})'

    def _define(self, name: str, more: str, body: Iterable[str]) -> None:
        """Add a function: with the geometry of its tensor, its addresses and coefficients before its body."""
        lines = [*_GEOMETRY]
        at = f"rest_[{SCRATCH}]"
        for e, n in self._kept.items():
            lines.append(f"at{n}_ = {at}")
            at = f"at{n}_ + 8 * {' * '.join(self._extent(e))}"
        lines += [f"at_{array}_ = slot_[{FIRST + k}]" for k, array in enumerate(self._storages)]
        text = list(body)  # which names the coefficients
        lines += [f"{variable} = row_[{index}]" for index, variable in enumerate(self._named)]
        rows = "singles" if self.scalar == "float32" else "doubles"
        head = f"@library.function()\ndef {name}(slot_: words, rest_: words, row_: {rows}{more}) -> None:"
        self.functions.append("\n".join([head, *_indented([*lines, *text])]))
        self.turns.append(name)

    def _begin(self) -> None:
        """A new scope, in which coefficients are known."""
        loads = {name for array in self._storages for name in (f"load_{array}_", f"store_{array}_", f"at_{array}_")}
        areas = {f"{word}{n}_" for n in self._kept.values() for word in ("load", "store", "at", "k", "sum", "row")}
        self._scope = Scope(self._target, {*_TAKEN, *loads, *areas, *self._target.reserved})
        self._named, self._known = [], {}
        for index, e in enumerate(self._coefficients):
            variable = self._scope.claim(f"c{index}" if e.args else str(e.value))
            self._named.append(variable)
            self._known[e] = f"({variable} != 0)" if e.is_condition else variable

    def _computed(self, roots: Sequence[Expression], known: Mapping[Expression, str]) -> list[str]:
        """The lines that work out these expressions, after which `_text` says what each is."""
        self._scope.known = {**self._known, **known}
        return [f"{variable} = {text}" for variable, text in self._scope.lines(roots, self._wishes)]

    def _text(self, e: Expression) -> str:
        text = self._scope.text(e)
        return f"(1.0 if {text} else 0.0)" if e.is_condition else text

    def _fetch(self, e: Expression) -> tuple[str, str]:
        """The line that reads a value from scratch memory, and how it is then known."""
        n = self._kept[e]
        line = f"k{n}_ = {self.scalar}(load{n}_(at{n}_, {_INDEX[self.plan.spaces[e]]}))"
        return line, f"(k{n}_ != 0)" if e.is_condition else f"k{n}_"

    # ---- what is between passes

    def _between(self, k: int) -> Iterator[str]:
        self._begin()
        for e in self.plan.between[k]:
            if self.plan.adds_up(e):
                yield from self._joined(e)
            elif e in self.plan.by_shape:
                yield from self._of_shape(e)
            elif e.op in REDUCTIONS:
                yield from self._reduced(e)
            else:
                yield from self._worked_out(e)
        if k == len(self.plan.passes):
            for name, e in self.plan.stores:
                yield from self._stored(name, e)
        yield "pass"

    def _joined(self, e: Expression) -> Iterator[str]:
        """What the pieces have added up, added in their order."""
        n, space = self._kept[e], self.plan.spaces[e]
        more = "maximum(sum_, {})" if e.op == "max" else "sum_ + {}"
        start = f"sum_ = {_START.get(e.op, '0.0')}"
        end = self._finished(e, "sum_", {TENSOR: "(rows_ * columns_)", ROW: "columns_", COLUMN: "rows_"}[space])
        if space == TENSOR:
            yield from (start, "for p_ in range(pieces_):", f"    sum_ = {more.format(f'load{n}_(at{n}_, p_)')}")
            yield f"store{n}_(at{n}_, 0, {end})"
        elif space == ROW:
            yield from ("for q_ in range(rows_):", f"    {start}", "    for p_ in range(across_):")
            yield f"        sum_ = {more.format(f'load{n}_(at{n}_, p_ * rows_ + q_)')}"
            yield f"    store{n}_(at{n}_, q_, {end})"
        else:
            yield from ("for p_ in range(1, down_):", "    for j_ in range(columns_):")
            yield f"        sum_ = load{n}_(at{n}_, j_)"
            yield f"        store{n}_(at{n}_, j_, {more.format(f'load{n}_(at{n}_, p_ * columns_ + j_)')})"
            yield from ("for j_ in range(columns_):", f"    sum_ = load{n}_(at{n}_, j_)")
            yield f"    store{n}_(at{n}_, j_, {end})"

    def _finished(self, e: Expression, total: str, count: str) -> str:
        """A sum, as what it is the sum for, rounded to the precision of the body."""
        ends = {"norm": f"sqrt({total})", "mean": f"{total} / {count}"}
        return f"{self.scalar}({ends.get(e.op, total)})"

    def _of_shape(self, e: Expression) -> Iterator[str]:
        n = self._kept[e]
        known = {one: _size(one) for one in self._program.expressions if one.op == "size"}
        text = self._double.write(e, known, top=False).text
        value = f"(1.0 if {text} else 0.0)" if e.is_condition else f"{self.scalar}({text})"
        yield f"store{n}_(at{n}_, 0, {value})"

    def _reduced(self, e: Expression) -> Iterator[str]:
        """The sum of what is one for each row or column; or for the tensor, and then it is what it was."""
        n, (arg,) = self._kept[e], e.args
        space = self.plan.spaces[arg]
        inside = [*self._narrow_lines(arg), f"v_ = {self._scope.text(arg)}"]
        if space == self.plan.spaces[e]:
            inside.append(f"store{n}_(at{n}_, {_INDEX[space]}, {'abs(v_)' if e.op == 'norm' else 'v_'})")
            yield from (_RANGE[space], *_indented(inside)) if space in _RANGE else inside
            return
        yield from (f"sum_ = {_START.get(e.op, '0.0')}", _RANGE[space])
        yield from _indented([*inside, f"sum_ = {_added(e, 'sum_')}"])
        count = {ROW: "rows_", COLUMN: "columns_"}[space]
        yield f"store{n}_(at{n}_, 0, {self._finished(e, 'sum_', count)})"

    def _worked_out(self, e: Expression) -> Iterator[str]:
        n, space = self._kept[e], self.plan.spaces[e]
        inside = [*self._narrow_lines(e, but=e), f"store{n}_(at{n}_, {_INDEX[space]}, {self._text(e)})"]
        yield from (_RANGE[space], *_indented(inside)) if space in _RANGE else inside

    def _stored(self, name: str, e: Expression) -> Iterator[str]:
        """A state of less than one value a weight, from scratch memory, as wide as the state is."""
        space = self._program.spaces[name]
        index = _INDEX[space]
        inside = []
        if e in self._kept:
            line, text = self._fetch(e)
            inside.append(line)
        else:
            text = self._target.write(e, self._known, top=False).text
        inside.append(f"store_{name}_(at_{name}_, {index}, {self._storable(name, text)})")
        yield from (_RANGE[space], *_indented(inside)) if space in _RANGE else inside

    def _storable(self, name: str, text: str) -> str:
        return f"usual_nan({text})" if self._storages[name] == "bfloat16" else f"{self.scalar}({text})"

    def _narrow_lines(self, root: Expression, but: Expression | None = None) -> list[str]:
        """The lines that work out a value that is no sum of weights, with what is in scratch memory but for itself."""
        lines, known, waiting, seen = [], dict[Expression, str](), [root], set[Expression]()
        while waiting:
            e = waiting.pop()
            if e in seen or not e.from_arrays:
                continue
            seen.add(e)
            if e in self._kept and e is not but:
                line, known[e] = self._fetch(e)
                lines.append(line)
            elif e.op == "input":
                known[e] = self._scope.claim(str(e.value))
                lines.append(f"{known[e]} = load_{e.value}_(at_{e.value}_, {_INDEX[self.plan.spaces[e]]})")
            else:
                waiting += e.args
        return [*lines, *self._computed([root], known)]

    # ---- passes

    def _pass(self, one: Pass) -> Iterator[str]:
        self._begin()
        spaces, known = self.plan.spaces, dict[Expression, str]()
        fetched: dict[object, list[str]] = {TENSOR: [], ROW: [], COLUMN: []}
        for e in one.narrow:
            line, known[e] = self._fetch(e)
            fetched[spaces[e]].append(line)
        loads = []
        for e, name in one.reads.items():
            known[e] = self._scope.claim(name)
            loads.append(f"{known[e]} = load_{name}_(at_{name}_, i_)")
        roots = [*(e.args[0] for e in one.sums), *(e for _, e in one.stores)]
        inside = ["i_ = start_ + j_", *loads, *fetched[COLUMN], *self._computed(roots, known)]
        before: dict[object, list[str]] = {TENSOR: [], ROW: []}
        after: dict[object, list[str]] = {TENSOR: [], ROW: []}
        columns = []
        for e in one.sums:
            n, space, start = self._kept[e], spaces[e], _START.get(e.op, "0.0")
            inside.append(f"v_ = {self._scope.text(e.args[0])}")
            if space == COLUMN:
                columns.append(f"store{n}_(at{n}_, there_ * columns_ + j_, {start})")
                place = f"at{n}_, there_ * columns_ + j_"
                inside.append(f"store{n}_({place}, {_added(e, f'load{n}_({place})', plain=True)})")
                continue
            before[space].append(f"sum{n}_ = {start}")
            inside.append(f"sum{n}_ = {_added(e, f'sum{n}_')}")
            index = "piece_" if space == TENSOR else "here_ * rows_ + q_"
            after[space].append(f"store{n}_(at{n}_, {index}, sum{n}_)")
        for name, e in one.stores:
            inside.append(f"store_{name}_(at_{name}_, i_, {self._storable(name, self._scope.text(e))})")
        yield from ("last_ = pieces_ if last_ < 0 else last_", *fetched[TENSOR])
        yield "for piece_ in range(first_, last_):"
        yield from _indented(
            [
                "there_ = piece_ // across_",
                "here_ = piece_ - there_ * across_",
                "left_ = here_ * wide_",
                "right_ = min(left_ + wide_, columns_)",
                "top_ = there_ * tall_",
                "bottom_ = min(top_ + tall_, rows_)",
                *before[TENSOR],
                *(["for j_ in range(left_, right_):", *_indented(columns)] if columns else []),
                "for q_ in range(top_, bottom_):",
                *_indented(["start_ = q_ * columns_", *fetched[ROW], *before[ROW]]),
                "    for j_ in range(left_, right_):",
                *_indented(inside, 8),
                *_indented(after[ROW]),
                *after[TENSOR],
            ]
        )


def _size(e: Expression) -> str:
    """How many elements something has, as text."""
    return f"float64({' * '.join(f'{side}_' for side in sides(e)) or '1'})"


def _added(e: Expression, total: str, *, plain: bool = False) -> str:
    """What becomes of a sum with the value `v_` added to it."""
    if e.op == "max":
        return f"maximum({total}, float64(v_))"
    value = "float64(v_) * float64(v_)" if e.op == "norm" else "float64(v_)"
    return f"{total} + {value}" if plain else f"plus({total}, {value})"
