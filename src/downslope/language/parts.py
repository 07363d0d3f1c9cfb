"""Parts: functions that work out a step of a formula, and have a name that people know the step by."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from downslope.language.expression import Expression

__all__ = ["part"]


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have what a function works out written as its call, where a formula is shown to people.

    Nothing else changes: whatever computes the formula computes what the function does.

    Args:
        function: Its first argument is what it is of; the others are not shown.

    Example:
        >>> from downslope import mean, part, rule
        >>> @part
        ... def centered(a):
        ...     return a - mean(a)
        >>> @rule
        ... def centered_descent(x, dx, *, lr=0.1):
        ...     return x - lr * centered(dx)
        >>> from downslope.language.options import compose
        >>> from downslope.targets.formula import formula
        >>> formula(compose(centered_descent))
        (('x', 'x - lr * centered(dx)'),)
        >>> float(centered_descent(0.0, 3.0))
        0.0
    """

    @functools.wraps(function)
    def called(of: Any, *others: Any, **named: Any) -> Any:
        found = function(of, *others, **named)
        if isinstance(found, Expression) and isinstance(of, Expression):
            return Expression("called", (found, of), function.__name__, found.space)
        return found

    return called
