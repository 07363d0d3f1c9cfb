"""Measuring claims: each experiment once, whoever asks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downslope.claims.claim import Claim, Found, judged
from downslope.claims.experiments import Raced, Walked, distinct


@dataclass(frozen=True)
class Drawn:
    """A picture of an experiment.

    Attributes:
        title: What it shows.
        svg: The picture; empty where something is missing that draws it, which `said` then names.
        said: What is missing.
    """

    title: str
    svg: str
    said: str = ""


@dataclass(frozen=True)
class Measured:
    """A claim that was measured: what was found of each part, and the pictures of its experiments."""

    name: str
    found: tuple[Found, ...]
    pictures: tuple[Drawn, ...]
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was missing."""
        return all(one.outcome != "missing" for one in self.found) and not any(each.said for each in self.pictures)


@dataclass
class Bench:
    """Where claims are measured: each experiment is run once, whoever asks.

    Attributes:
        folder: Where races keep their runs; None: nowhere.
        found: What each experiment found, or why it could not be run.
    """

    folder: Path | None = None
    found: dict[str, Any] = field(default_factory=dict)

    def of(self, experiment: Walked | Raced) -> Any:
        """What an experiment found.

        Raises:
            ImportError: Something that it needs is not installed.
        """
        key = repr(experiment)
        if key not in self.found:
            try:
                self.found[key] = experiment.run(self.folder)
            except ImportError as error:
                self.found[key] = error
        if isinstance(self.found[key], ImportError):
            raise self.found[key]
        return self.found[key]

    def measure(self, claim: Claim) -> Measured:
        """Measure a claim; what cannot be measured here says what is missing."""
        begun = time.perf_counter()
        found, pictures = [], []
        for part in claim.parts:
            try:
                found.append(judged(part, part.measure.of(self.of(part.experiment))))
            except ImportError as error:
                found.append(Found("missing", said=str(error)))
        for experiment in distinct(part.experiment for part in claim.parts):
            try:
                pictures.append(Drawn(experiment.title, experiment.picture(self.of(experiment))))
            except ImportError as error:
                pictures.append(Drawn(experiment.title, "", str(error)))
        return Measured(claim.name, tuple(found), tuple(pictures), time.perf_counter() - begun)
