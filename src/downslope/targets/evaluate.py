"""Computing expressions: one walk over them, whatever the values are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from downslope.language.expression import Expression
from downslope.language.program import in_order

Value = TypeVar("Value")


def evaluate(
    roots: Iterable[Expression],
    leaf: Callable[[Expression], Value],
    apply: Callable[[Expression, list[Value]], Value],
    known: Mapping[Expression, Value] | None = None,
) -> dict[Expression, Value]:
    """The value of every expression that the roots are made of.

    Args:
        roots: The expressions wanted.
        leaf: The value of a constant or an input.
        apply: The value of an operation, given those of its arguments.
        known: Values that are there already.
    """
    return evaluate_in_order(in_order(roots, known or {}), leaf, apply, known)


def evaluate_in_order(
    expressions: Iterable[Expression],
    leaf: Callable[[Expression], Value],
    apply: Callable[[Expression, list[Value]], Value],
    known: Mapping[Expression, Value] | None = None,
) -> dict[Expression, Value]:
    """The same for expressions of which each comes after what it is applied to, such as `Program.expressions`."""
    values = dict(known or {})
    for e in expressions:
        if e not in values:
            values[e] = apply(e, [values[arg] for arg in e.args]) if e.args else leaf(e)
    return values
