"""The parts of a race, as those who watch it are told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from downslope.lab.races.budget import Foreseen

StageName = Literal["measuring", "defaults", "tuning", "widening", "confirming", "verdict", "explaining"]


@dataclass(frozen=True)
class Stage:
    """A part of the race that is about to begin.

    Attributes:
        name: `"measuring"`, `"defaults"`, `"tuning"`, `"widening"`, `"confirming"`, `"verdict"` or `"explaining"`.
        epochs: For every rule that takes part, the epochs to be trained. (Explaining one counts as an epoch.) What is
            measured are none: nobody reports them, and nothing is chosen by them.
        later: The runs of each rule in the parts of the race that follow, as far as they can be known.
        foreseen: What the whole race will take, once that is known: with a budget, before tuning.
    """

    name: StageName
    epochs: Mapping[str, int]
    later: Mapping[StageName, int] = field(default_factory=dict)
    foreseen: Foreseen | None = None
