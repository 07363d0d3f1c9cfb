"""The options that every downslope optimizer for PyTorch takes besides those of its rule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
import torch

from downslope.backends.cpu import ROUNDINGS
from downslope.language.formula import Range, check_number
from downslope.torch.launch import Storage
from downslope.training.groups import POLICIES


class Extras(TypedDict, total=False):
    """The options; see `Optimizer` for what each of them does."""

    cautious: bool
    max_norm: float | None
    averaging: float | None
    nonfinite: Literal["keep", "raise", "skip"]
    state_dtype: torch.dtype | None
    rounding: Literal["nearest", "compensated", "stochastic"]
    seed: int
    threads: int | None


@dataclass(frozen=True)
class Chosen:
    """The options as chosen, each checked and with its default.

    Attributes:
        storage: What `state_dtype`, `rounding` and `seed` come to.
    """

    cautious: bool
    max_norm: float | None
    averaging: float | None
    nonfinite: str
    storage: Storage
    threads: int | None

    @classmethod
    def among(cls, extras: Extras, optimizer: str, defaults: Iterable[str]) -> Chosen:
        """Check what was chosen.

        Args:
            extras: The options given.
            optimizer: The name of the optimizer's class, for errors.
            defaults: What else it takes, for errors.

        Raises:
            TypeError: A name is unknown, or a value of the wrong kind.
            ValueError: A value is not one of those there are, or out of range.
        """
        for name in extras:
            if name not in Extras.__annotations__:
                names = ", ".join([*defaults, *Extras.__annotations__])
                raise TypeError(f"{optimizer} has no option {name!r}; it has {names}")
        cautious, max_norm, threads = extras.get("cautious", False), extras.get("max_norm"), extras.get("threads")
        if not isinstance(cautious, (bool, np.bool_)):
            raise TypeError(f"cautious={cautious!r}: give True or False")
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads={threads!r} must be a whole number of at least 1")
        return cls(
            cautious=bool(cautious),
            max_norm=None if max_norm is None else check_number("max_norm", max_norm, Range(0.0, math.inf)),
            averaging=extras.get("averaging"),
            nonfinite=_one_of("nonfinite", extras.get("nonfinite", "keep"), POLICIES),
            storage=_storage(
                extras.get("state_dtype"),
                _one_of("rounding", extras.get("rounding", "nearest"), ROUNDINGS),
                extras.get("seed", 0),
            ),
            threads=threads,
        )


def _one_of(name: str, value: Any, choices: Iterable[str]) -> str:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}")
    return str(value)


def _storage(dtype: Any, rounding: str, seed: Any) -> Storage:
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"state_dtype={dtype!r}: give a torch.dtype, such as torch.bfloat16")
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise TypeError(f"seed={seed!r}: give a whole number of at most 63 bits")
    return Storage(dtype, rounding, seed)
