"""The passes over memory in which a program over whole tensors is computed, and what is worked out in between.

A pass visits every weight. What it adds up is complete when it has ended: then the values that are one for a tensor,
a row or a column are worked out, which takes next to no time, and the next pass finds them in scratch memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from downslope.language.expression import Expression
from downslope.language.program import Program, in_order
from downslope.language.rewrites import rewritten, with_rewritten
from downslope.language.spaces import COLUMN, NUMBER, ROW, TENSOR, WEIGHT, Space, join
from downslope.targets.write import stored

REDUCTIONS = ("norm", "mean", "sum", "max")
"""What can be summed up in a pass."""


def compiles(program: Program) -> bool:
    """Whether passes can do a program over whole tensors: it only sums up, and works out, by rows and columns.

    What multiplies matrices, or takes them apart, is left to array libraries; and so is a sum of what is one for each
    row of some tensors and one for each weight of others, by their shape.
    """
    words = [e for e in program.over_tensors if e.op != "input"]
    known = all(e.op == "called" or (e.op in (*REDUCTIONS, "size") and e.value in (None, 0.0, 1.0)) for e in words)
    plain = all(e.space in (NUMBER, TENSOR, ROW, COLUMN, WEIGHT) for e in program.expressions)
    if not known or not plain or any(e.from_arrays for e in program.scalar_outputs.values()):
        return False
    by_shape = _by_shape(program)
    widest, least = (_spaces(program, by_shape, chosen) for chosen in (join, _shared))
    return all(widest[e.args[0]] == least[e.args[0]] for e in words if e.op in ("norm", "sum"))


@dataclass(frozen=True)
class Pass:
    """What is done with every weight.

    Attributes:
        sums: What it sums up.
        stores: The arrays that it writes, and their new values.
        reads: The arrays of one value a weight that it reads, by what they hold.
        narrow: What it reads that is one for the tensor, a row or a column.
        body: What it works out for every weight.
    """

    sums: tuple[Expression, ...]
    stores: tuple[tuple[str, Expression], ...]
    reads: Mapping[Expression, str]
    narrow: tuple[Expression, ...]
    body: tuple[Expression, ...]


@dataclass(frozen=True)
class Plan:
    """How a program is computed.

    Attributes:
        passes: The passes, in order.
        between: What is worked out before each of them, and after the last: values that are kept in scratch memory,
            each after what it is made of.
        stores: The states of less than one value a weight that are written after all that, and their new values.
        spaces: Where each value lives; what depends on a tensor's shape alone is one for the tensor.
        by_shape: What depends on that, and constants: it is worked out in double precision and rounded once.
    """

    passes: tuple[Pass, ...]
    between: tuple[tuple[Expression, ...], ...]
    stores: tuple[tuple[str, Expression], ...]
    spaces: Mapping[Expression, Space]
    by_shape: Collection[Expression]

    @property
    def kept(self) -> tuple[Expression, ...]:
        """Everything that has a place in scratch memory."""
        return tuple(e for part in self.between for e in part)

    @property
    def moved(self) -> int:
        """How many arrays of one value a weight are read and written."""
        return sum(len(one.reads) + len(one.stores) for one in self.passes)

    def adds_up(self, e: Expression) -> bool:
        """Whether it sums up something of one value a weight."""
        return e.op in REDUCTIONS and self.spaces[e.args[0]] == WEIGHT


@functools.lru_cache(maxsize=256)
def unnamed(program: Program) -> Program:
    """The program with what functions with a name have worked out in the place of their calls; see `language.parts`."""
    new = rewritten(program.expressions, lambda e, args: args[0] if e.op == "called" and e.from_arrays else None)
    return with_rewritten(program, new)


def planned(program: Program, exact: Collection[str]) -> Plan:
    """The plan that moves least memory.

    Args:
        program: One that `compiles`; the plan is one for it `unnamed`.
        exact: The arrays that keep a new value as it is, so that it can be written as soon as it is complete, and be
            read again by later passes in place of all that it is made of.
    """
    program = unnamed(program)
    late, early = _Planner(program, ()).plan(), _Planner(program, exact).plan()
    return early if early.moved <= late.moved else late


class _Planner:
    """Makes a plan in which these arrays are written as early as they can be."""

    def __init__(self, program: Program, early: Collection[str]):
        self._program, self._early = program, early
        self._by_shape = _by_shape(program)
        self._spaces = spaces = _spaces(program, self._by_shape)
        self._depth: dict[Expression, int] = {}  # how many passes have to be over
        self._sums: list[Expression] = []
        for e in program.expressions:
            self._depth[e] = max((self._depth[arg] for arg in e.args), default=0)
            if e.op in REDUCTIONS and spaces[e.args[0]] == WEIGHT:
                self._depth[e] += 1
                self._sums.append(e)
        self._stores = [(name, e) for name, e in stored(program) if name not in program.spaces]
        self._known: dict[Expression, str] = {}  # what has been written, and where

    def plan(self) -> Plan:
        depth, program = self._depth, self._program
        count = max([depth[e] + 1 for _, e in self._stores] + [depth[e] for e in self._sums], default=1)
        passes = [self._pass(k, last=k == count - 1) for k in range(count)]
        narrow = tuple((name, e) for name, e in stored(program) if name in program.spaces)
        wanted = {e for one in passes for e in (*one.narrow, *one.sums)}
        wanted |= {e for _, e in narrow if self._is_narrow(e)}
        needed = in_order(wanted)
        wanted |= {e for e in needed if e.op in REDUCTIONS}
        rounded = {arg for e in needed if e not in self._by_shape for arg in e.args if arg in self._by_shape}
        wanted |= {e for e in rounded if self._is_narrow(e)}
        ordered = [e for e in program.expressions if e in wanted]
        between = tuple(tuple(e for e in ordered if depth[e] == k) for k in range(count + 1))
        return Plan(tuple(passes), between, narrow, self._spaces, self._by_shape)

    def _is_narrow(self, e: Expression) -> bool:
        return e.from_arrays and self._spaces[e] != WEIGHT

    def _pass(self, k: int, *, last: bool) -> Pass:
        """Pass number `k`; what is written by then is not written again."""
        sums = tuple(e for e in self._sums if self._depth[e] == k + 1)
        summed = [e.args[0] for e in sums]
        stores = self._stores if last else self._complete(k, summed)
        self._stores = [] if last else [pair for pair in self._stores if pair not in stores]
        roots = [*summed, *(e for _, e in stores)]
        used = self._made_of(roots, self._known)
        reads = {e: str(e.value) for e in used if e.op == "input" and self._spaces[e] == WEIGHT}
        taken = {*roots, *(arg for e in used if self._spaces[e] == WEIGHT for arg in e.args)}
        reads |= {e: name for e, name in self._known.items() if e in taken}
        self._known |= {e: name for name, e in stores}
        worked_out = {e for e in used if e.args and self._spaces[e] == WEIGHT}
        body = tuple(e for e in self._program.expressions if e in worked_out)
        return Pass(sums, tuple(stores), reads, tuple(e for e in used if self._is_narrow(e)), body)

    def _complete(self, k: int, summed: Iterable[Expression]) -> list[tuple[str, Expression]]:
        """What can be written in a pass that works it out anyhow, because what was there is not needed any more."""
        made = {*self._made_of(summed, self._known)}
        stores = [(name, e) for name, e in self._stores if name in self._early and e in made and e.op != "input"]
        later = [*(e.args[0] for e in self._sums if self._depth[e] > k + 1), *(e for _, e in self._stores)]
        while True:
            known = {**self._known, **{e: name for name, e in stores}}
            needed = {e.value for e in self._made_of(later, known) if e.op == "input"}
            left = [(name, e) for name, e in stores if name not in needed]
            if left == stores:
                return stores
            stores = left

    def _made_of(self, roots: Iterable[Expression], known: Collection[Expression]) -> list[Expression]:
        """What roots are made of, down to what is known, or is one for the tensor, a row or a column."""
        found: dict[Expression, None] = {}
        waiting = list(roots)
        while waiting:
            e = waiting.pop()
            if e not in found and e not in known:
                found[e] = None
                waiting += e.args if self._spaces[e] == WEIGHT else ()
        return list(found)


@functools.lru_cache(maxsize=256)
def _by_shape(program: Program) -> frozenset[Expression]:
    found: set[Expression] = set()
    for e in program.expressions:
        if e.op in ("constant", "size") or (e.args and e.op not in REDUCTIONS and found.issuperset(e.args)):
            found.add(e)
    return frozenset(found)


def _shared(a: Space, b: Space) -> Space:
    """What two values are both different for."""
    return Space(True, a.first and b.first, a.second and b.second)


def _spaces(
    program: Program, by_shape: Collection[Expression], chosen: Callable[[Space, Space], Space] = join
) -> dict[Expression, Space]:
    """Where every value lives; of one chosen by shape it is said what comes of the spaces of both."""
    found: dict[Expression, Space] = {}
    for e in program.expressions:
        if e in by_shape:
            found[e] = TENSOR if e.from_arrays else NUMBER
        elif e.op in REDUCTIONS:
            found[e] = found[e.args[0]].without(None if e.value is None else int(float(e.value)))
        elif e.op == "where" and e.args[0] in by_shape:
            found[e] = join(TENSOR, chosen(found[e.args[1]], found[e.args[2]]))
        else:
            found[e] = join(*(found[arg] for arg in e.args)) if e.args else e.space
    return found
