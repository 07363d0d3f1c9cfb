"""What numbers hyperparameters may be, and the check that a value is one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Range:
    """The values a hyperparameter may take: from `low` to `high`, the upper end included or not."""

    low: float
    high: float
    closed: bool = True

    def __contains__(self, value: float) -> bool:
        return self.low <= value and (value <= self.high if self.closed else value < self.high)

    def __str__(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return "a finite number"
        if self.high == math.inf:
            return f"a finite number of at least {self.low:g}"
        return f"a number from {self.low:g} to {'' if self.closed else 'below '}{self.high:g}"


FRACTION = Range(0.0, 1.0, closed=False)
"""What a hyperparameter may be whose name begins with "beta"."""

ANY = Range(-math.inf, math.inf)
"""What one of any other name may be."""

USUAL = {
    **dict.fromkeys(("mu", "momentum", "rho", "decay_rate", "averaging"), FRACTION),
    **dict.fromkeys(("lr", "eps", "weight_decay", "max_norm"), Range(0.0, math.inf)),
}
"""What hyperparameters of the literature's other names may be."""


def usual_range(name: str) -> Range:
    """The range that a hyperparameter of this name has throughout the literature."""
    if name in USUAL:
        return USUAL[name]
    return FRACTION if name.startswith("beta") else ANY


def check_number(name: str, value: Any, allowed: Range) -> float:
    """The value as a float, or an error that names the hyperparameter, shows the value and says what would do."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not is_number(value):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected {allowed}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond any float
        number = math.inf
    if not math.isfinite(number) or number not in allowed:
        raise ValueError(f"{name}={value!r} is out of range; expected {allowed}")
    return number


def is_number(value: Any) -> bool:
    """Whether it is a number of Python or of NumPy; True and False are none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
