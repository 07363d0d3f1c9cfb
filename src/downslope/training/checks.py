"""What all front ends check of what they are given, in the same words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

import numpy as np

from downslope.rule import Rule

LOOKAHEADS = ("stored", "explicit")
"""Where the point ahead of the weights is kept: in the parameters, or nowhere; the gradient is taken there."""


def check_rule(rule: Any) -> Rule:
    """A rule, if it is one.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"rule={rule!r} is not a rule; pass one such as downslope.adam, or decorate yours with @rule")
    return rule


def one_of(name: str, value: Any, choices: Iterable[str]) -> str:
    """A word, if it is among the choices.

    Raises:
        ValueError: It is not.
    """
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}")
    return value


def check_threads(threads: Any) -> int | None:
    """How many threads may share a launch, if it is a number of them; None for as many as there are processors.

    Raises:
        ValueError: It is something else.
    """
    whole = isinstance(threads, (int, np.integer)) and not isinstance(threads, bool)
    if threads is not None and not (whole and threads >= 1):
        raise ValueError(f"threads={threads!r} must be a whole number of at least 1")
    return None if threads is None else int(threads)


def is_seed(value: Any) -> TypeGuard[int]:
    """Whether random numbers can begin with this."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def check_seed(seed: Any) -> int:
    """What random numbers begin with, if they can.

    Raises:
        TypeError: They cannot.
    """
    if not is_seed(seed):
        raise TypeError(f"seed={seed!r}: give a whole number of at most 63 bits")
    return seed
