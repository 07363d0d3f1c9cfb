"""Measuring claims, and remembering what was found, so that a run that was stopped goes on where it was.

claims.html           what was found, as a page
playground.html       what the page links to
results/NAME.json     a claim that is finished; each is written as a whole, as it falls
races/                the runs of races, each kept by the lab within two seconds of its end
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from downslope import files
from downslope.claims.claim import Claim, Found, Quantity, judged
from downslope.claims.entries import CLAIMS
from downslope.claims.experiments import Raced, Walked, distinct
from downslope.version import __version__

RESULTS, RACES, PAGE, PLAYGROUND = "results", "races", "claims.html", "playground.html"
DECIDE = ("claim.py", "entries.py", "experiments.py", "measures.py", "pictures.py", "drawing.py", "racing.py")


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


def chosen(names: Iterable[str]) -> tuple[Claim, ...]:
    """The claims of these names, in the order of the entries; all where none is named.

    Raises:
        ValueError: There is none of a name.

    Example:
        >>> [claim.name for claim in chosen(["nesterov", "zigzag"])]
        ['zigzag', 'nesterov']
    """
    wanted = list(names)
    known = [claim.name for claim in CLAIMS]
    for name in wanted:
        if name not in known:
            raise ValueError(f"--only {name}: there is no such claim; choose from {', '.join(known)}")
    return tuple(claim for claim in CLAIMS if claim.name in wanted or not wanted)


class Shelf:
    """The folder in which claims are remembered.

    Args:
        path: Where it is; it is made if it is not there.

    Raises:
        ValueError: It is no folder, holds something else, or cannot be made.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            there = {each.name for each in path.iterdir()} if path.exists() else set()
            if there - {RESULTS, RACES, PAGE, PLAYGROUND} and RESULTS not in there:
                raise ValueError(f"--folder {path}: it holds other things; give an empty folder, or a new name")
            (path / RESULTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"--folder {path}: {error.strerror}; give the name of a folder that can be written to"
            ) from None

    def take(self, claim: Claim) -> Measured | None:
        """What was found of a claim; None if it was not finished, or the claim or the version is another by now."""
        try:
            told = json.loads(self._place(claim).read_text(encoding="utf-8"))
            return read(told) if told["made_by"] == fingerprint() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # it is measured anew

    def put(self, claim: Claim, measured: Measured) -> None:
        """Remember what was found of a claim, if nothing was missing.

        Raises:
            OSError: It cannot be written.
        """
        if measured.is_whole:
            told = {"made_by": fingerprint(), **written(measured)}
            files.write(self._place(claim), json.dumps(told, indent=1, ensure_ascii=False) + "\n")

    def _place(self, claim: Claim) -> Path:
        return self.path / RESULTS / f"{claim.name}.json"


def measured(
    claims: Iterable[Claim], shelf: Shelf, told: Callable[[Claim], None] = lambda claim: None
) -> Iterator[Measured]:
    """Each claim as it is measured, or as it was found before.

    Args:
        claims: The claims.
        shelf: Where they are remembered.
        told: Called with a claim before it is measured.

    Raises:
        KeyboardInterrupt: It was stopped. What was finished is remembered.
        OSError: A result cannot be written.
    """
    bench = Bench(shelf.path / RACES)
    for claim in claims:
        one = shelf.take(claim)
        if one is None:
            told(claim)
            one = bench.measure(claim)
            shelf.put(claim, one)
        yield one


@functools.cache
def fingerprint() -> str:
    """What decides what is found of a claim: the version, and the text of what measures."""
    here = resources.files("downslope.claims")
    texts = "".join((here / name).read_text(encoding="utf-8") for name in DECIDE)
    return f"{__version__} {hashlib.sha256(texts.encode()).hexdigest()[:16]}"


def written(measured: Measured) -> dict[str, Any]:
    """What was found, as JSON takes it: numbers that are not finite are words."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value

    found: dict[str, Any] = plain(asdict(measured))
    return found


def read(told: dict[str, Any]) -> Measured:
    """What `written` wrote.

    Raises:
        ValueError: It is something else.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    found = [
        Found(one["outcome"], None if one["quantity"] is None else _quantity(one["quantity"]), one["said"])
        for one in told["found"]
    ]
    pictures = tuple(Drawn(**{key: str(each[key]) for key in ("title", "svg", "said")}) for each in told["pictures"])
    return Measured(told["name"], tuple(found), pictures, float(told["seconds"]))


def _quantity(told: dict[str, Any]) -> Quantity:
    return Quantity(float(told["estimate"]), float(told["low"]), float(told["high"]), str(told["said"]))
