"""The parts of a race, as those who watch it are told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from downslope.lab.races.budget import Foreseen

StageName = Literal["defaults", "tuning", "widening", "confirming", "verdict"]


@dataclass(frozen=True)
class Stage:
    """A part of the race that is about to begin.

    Attributes:
        name: `"defaults"`, `"tuning"`, `"widening"`, `"confirming"` or `"verdict"`.
        epochs: For every rule that takes part, the epochs to be trained.
        foreseen: What the whole race will take, once that is known: with a budget, before tuning.
    """

    name: StageName
    epochs: Mapping[str, int]
    foreseen: Foreseen | None = None
