"""Claims are measured and remembered in a folder, so that a run that was stopped goes on where it was.

claims.json           says that the folder is one of these
claims.html           what was found, as a page
playground.html       what the page links to
results/NAME.json     a claim that is finished; each is written as a whole, as it falls, with a hash of itself
races/                the runs of races, each kept by the lab within two seconds of its end
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from downslope import files
from downslope.claims.claim import Claim, Found, Part, Quantity, judged
from downslope.claims.drawing import is_drawing
from downslope.claims.entries import CLAIMS
from downslope.claims.experiments import distinct, made_of
from downslope.claims.measuring import Bench, Drawn, Measured
from downslope.sealed import AGAIN, sealed, unsealed
from downslope.version import __version__

RESULTS, RACES, PAGE, PLAYGROUND, MARKER = "results", "races", "claims.html", "playground.html", "claims.json"
MARK = {"is": "a folder of downslope claims"}
PAGES = {PAGE: '<p class="brand">downslope claims</p>', PLAYGROUND: "<title>downslope playground</title>"}
"""What tells that a page of this name was made by downslope, and may be replaced."""

MEASURE = ("claim.py", "experiments.py", "measures.py", "pictures.py", "drawing.py", "racing.py")


class Shelf:
    """The folder in which claims are remembered.

    Args:
        path: Where it is; it is made if it is not there. One that holds anything must have been made so.

    Raises:
        ValueError: It is no folder, was not made by this, holds a page that was not, or cannot be made.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            if path.exists() and any(path.iterdir()):
                self._recognise()
            path.mkdir(parents=True, exist_ok=True)
            files.write(path / MARKER, sealed(MARK))
            (path / RESULTS).mkdir(exist_ok=True)
        except OSError as error:
            why = error.strerror or str(error)
            raise ValueError(f"--folder {path}: {why}; give the name of a folder that can be written to") from None

    def _recognise(self) -> None:
        try:
            ours = unsealed((self.path / MARKER).read_text(encoding="utf-8")) == MARK
        except (FileNotFoundError, ValueError):
            ours = False
        if not ours:
            raise ValueError(
                f"--folder {self.path}: it holds other things and was not made by downslope claims; give an empty "
                "folder, or a new name"
            )
        for name, mark in PAGES.items():
            there = self.path / name
            if there.exists() and mark not in there.read_text(encoding="utf-8", errors="replace"):
                raise ValueError(
                    f"--folder {self.path}: {there} was not made by downslope and would be replaced; move it away"
                )

    def take(self, claim: Claim) -> Measured | None:
        """What was found of a claim; None if it was not finished, or is measured otherwise by now.

        Raises:
            ValueError: The file is not as it was written.
            OSError: It cannot be read.
        """
        place = self._place(claim)
        try:
            told = unsealed(place.read_text(encoding="utf-8"))
            if told["made_by"] != fingerprint(claim):
                return None
            found = read(told, claim)
            if not all(is_drawing(each.svg) for each in found.pictures):
                raise ValueError(AGAIN)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error) if isinstance(error, ValueError) else AGAIN
            raise ValueError(f"{place}: {why}; move it away, and the claim is measured again") from None
        return found

    def taken(self) -> dict[str, Measured]:
        """All that was found, by the claims' names.

        Raises:
            ValueError: A file is not as it was written.
            OSError: One cannot be read.
        """
        found = {claim.name: self.take(claim) for claim in CLAIMS}
        return {name: one for name, one in found.items() if one is not None}

    def put(self, claim: Claim, measured: Measured) -> None:
        """Remember what was found of a claim, if nothing was missing.

        Raises:
            OSError: It cannot be written.
        """
        if measured.is_whole:
            files.write(self._place(claim), sealed({"made_by": fingerprint(claim), **written(measured)}) + "\n")

    def _place(self, claim: Claim) -> Path:
        return self.path / RESULTS / f"{claim.name}.json"


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
        ValueError: A result is not as it was written.
        OSError: One cannot be read or written.
    """
    bench = Bench(shelf.path / RACES)
    for claim in claims:
        one = shelf.take(claim)
        if one is None:
            told(claim)
            one = bench.measure(claim)
            shelf.put(claim, one)
        yield one


def fingerprint(claim: Claim) -> str:
    """What decides what is found of a claim: the version, its questions, and the text of what measures."""
    asked_all = "".join(map(asked, claim.parts))
    return f"{__version__} {hashlib.sha256((_texts() + asked_all).encode()).hexdigest()[:16]}"


@functools.cache
def _texts() -> str:
    here = resources.files("downslope.claims")
    return "".join((here / name).read_text(encoding="utf-8") for name in MEASURE)


def asked(part: Part) -> str:
    """A hash of what is measured for a part: what is read off, in which experiment, and by which formulas."""
    text = json.dumps([part.measure.what, *made_of(part.experiment)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written(measured: Measured) -> dict[str, Any]:
    """What was measured, as JSON takes it, numbers that are not finite as words; outcomes are judged at reading."""
    found = [
        {"quantity": None if one.quantity is None else {**_numbers(one.quantity), "said": one.quantity.said}}
        | {"said": one.said}
        for one in measured.found
    ]
    pictures = [{"title": each.title, "svg": each.svg, "said": each.said} for each in measured.pictures]
    return {"name": measured.name, "found": found, "pictures": pictures, "seconds": measured.seconds}


def _numbers(quantity: Quantity) -> dict[str, float | str]:
    ends = {"estimate": quantity.estimate, "low": quantity.low, "high": quantity.high}
    return {name: value if math.isfinite(value) else str(value) for name, value in ends.items()}


def read(told: Mapping[str, Any], claim: Claim) -> Measured:
    """What `written` wrote of a claim, judged by its thresholds.

    Raises:
        ValueError: It is something else.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    titles = [each.title for each in distinct(part.experiment for part in claim.parts)]
    fits = told["name"] == claim.name and len(told["found"]) == len(claim.parts)
    if not fits or [each["title"] for each in told["pictures"]] != titles:
        raise ValueError(f"it is not what is measured of {claim.name}")
    found = tuple(_found(part, one) for part, one in zip(claim.parts, told["found"], strict=True))
    pictures = tuple(Drawn(*(str(each[key]) for key in ("title", "svg", "said"))) for each in told["pictures"])
    return Measured(claim.name, found, pictures, float(told["seconds"]))


def _found(part: Part, told: Mapping[str, Any]) -> Found:
    given = told["quantity"]
    if given is None:
        return Found("missing", said=str(told["said"]))
    estimate, low, high = (float(given[name]) for name in ("estimate", "low", "high"))
    return judged(part, Quantity(estimate, low, high, str(given["said"])))
