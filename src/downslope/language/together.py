"""Sums over all tensors that are updated together, and what is left of a program when they are known.

A program with such sums is divided into rounds: in each, every tensor gives its part of some sums, and when all have,
these are numbers. What is left takes them as it takes hyperparameters, and updates each tensor by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from downslope.language.expression import Expression
from downslope.language.operations import OVER_TENSORS
from downslope.language.program import Program, share
from downslope.language.rewrites import rewritten, with_rewritten
from downslope.language.trace import number


@dataclass(frozen=True)
class Round:
    """Sums that can be taken at once.

    Attributes:
        program: What each tensor works out: as the output of each sum's name, what is to be summed up.
        words: The word of each sum, by its name.
    """

    program: Program
    words: Mapping[str, str]


@dataclass(frozen=True)
class Divided:
    """A program in parts.

    Attributes:
        rounds: The sums over all tensors; those of a round take what the rounds before have found as numbers.
        rest: The program with all sums as numbers.
    """

    rounds: tuple[Round, ...]
    rest: Program


@functools.lru_cache(maxsize=256)
def divided(program: Program) -> Divided:
    """The rounds of a program, and the rest; without sums over all tensors the rest is the program.

    Example:
        >>> from downslope import norm, rule
        >>> from downslope.language.options import compose
        >>> from downslope.targets.formula import formula
        >>> @rule
        ... def normalized(x, dx, *, lr=0.1):
        ...     return x - lr * dx / norm(dx, over="all")
        >>> parts = divided(compose(normalized))
        >>> [(each.words, each.program.outputs) for each in parts.rounds]
        [({'all 0': 'norm'}, {'all 0': dx})]
        >>> parts.rest.scalars
        ('lr', 'all 0')
    """
    if not program.over_all:
        return Divided((), program)
    names = {e: f"all {k}" for k, e in enumerate(program.over_all)}
    new = _with_sums(program, lambda e, args: number(names[e]))
    depth: dict[Expression, int] = {}
    for e in program.expressions:
        depth[e] = max((depth[arg] for arg in e.args), default=0) + e.over_all
    rounds = []
    for k in range(max(depth.values())):
        sums = [e for e in program.over_all if depth[e] == k + 1]
        outputs, _ = share({names[e]: new[e.args[0]] for e in sums}, {})
        own = replace(program, outputs=outputs, scalar_outputs={}, names={}, lookahead=None)
        rounds.append(Round(own, {names[e]: e.op for e in sums}))
    return Divided(tuple(rounds), with_rewritten(program, new))


@functools.lru_cache(maxsize=256)
def alone(program: Program) -> Program:
    """The program for a tensor that is all there is: what is summed up over all tensors is summed up over it.

    Example:
        >>> from downslope import norm, rule
        >>> from downslope.language.options import compose
        >>> from downslope.targets.formula import formula
        >>> @rule
        ... def normalized(x, dx, *, lr=0.1):
        ...     return x - lr * dx / norm(dx, over="all")
        >>> formula(alone(compose(normalized)))
        (('x', 'x - lr * dx / norm(dx)'),)
    """
    if not program.over_all:
        return program
    new = _with_sums(program, lambda e, args: Expression(e.op, args, None, args[0].space.without(None)))
    return with_rewritten(program, new)


def _with_sums(
    program: Program, sums: Callable[[Expression, tuple[Expression, ...]], Expression]
) -> dict[Expression, Expression]:
    """What becomes of every expression of a program when others stand in the place of sums over all tensors."""

    def instead(e: Expression, args: tuple[Expression, ...]) -> Expression | None:
        if e.over_all:
            return sums(e, args)
        if e.of(args) is e or (e.op in OVER_TENSORS and e.op != "called"):
            return None
        if e.op == "called" and not args[0].from_arrays:
            return args[0]
        space = args[0].space if e.op == "called" else None  # what a sum has become decides where it lives
        return Expression(e.op, args, e.value, space)

    return rewritten(program.expressions, instead)
