"""The report of a race: one HTML page that needs no network, and shows what happened.

What is large in it is packed: the plotting library, the pictures and the race itself. The page unpacks them.
"""

from __future__ import annotations

import functools
import html
import json
from pathlib import Path
from typing import Any

from downslope import files
from downslope.lab.races.results import Race
from downslope.lab.report.curves import training_curves
from downslope.lab.report.drawing import Picture, looks
from downslope.lab.report.pictures import after_tries, canyon, same_and_tuned
from downslope.lab.report.plane import plane_picture, walked
from downslope.lab.report.sections import first_view, sections
from downslope.lab.report.target import time_to_target
from downslope.lab.report.why import why_pictures
from downslope.pages import asset, document, packed, policy, theme
from downslope.version import __version__

MOST_NUMBERS = 80_000
"""The page holds a race whose curves have no more: about 0.9 MB of it. Of a larger one it has pictures and tables."""


def write_report(race: Race, path: str | Path) -> None:
    """Write the report of a race as one self-contained HTML page.

    The page needs no network: the plotting library, the formulas (as MathML) and the whole race (as JSON, deflated and
    in base64, in the element `#race`) are inside. Of a race whose curves have more than 80,000 numbers there are the
    pictures and tables only, so that 1,000 runs of 1,000 steps are a page of 3 MB. It is written in one piece, so that
    a page once there is never half a page.

    Args:
        race: The race; it may have been interrupted, and every run of it may have diverged.
        path: Where to write the page; its folder is made if it is not there.

    Raises:
        OSError: The page cannot be written, or there is something that is no file; see `downslope.files.write`.
    """
    if files.descriptor(path) is None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    files.write(path, report_page(race))


def report_page(race: Race) -> str:
    """The page that `write_report` writes, as text.

    Args:
        race: As for `write_report`.

    Returns:
        A whole HTML document.
    """
    look = looks(race)
    every = (
        canyon(race),
        after_tries(race),
        same_and_tuned(race),
        training_curves(race),
        time_to_target(race),
        plane_picture(race),
        *why_pictures(race),
    )
    pictures = {picture.name: picture for picture in every}
    drawn = {name: _drawn(picture, race) for name, picture in pictures.items() if picture.views}
    blocks = {
        "plotly": _library()[1],
        "pictures": packed(json.dumps(drawn, allow_nan=False)),
        "walks": packed(json.dumps(walked(race), allow_nan=False)),
    }
    if whole := _numbers(race) <= MOST_NUMBERS:
        blocks["race"] = packed(race.to_json())
    script = asset("downslope.lab.report", "page.js")
    data = "".join(f'<script type="text/plain" id="{name}">{text}</script>\n' for name, text in blocks.items())
    itself = " The race itself is in it as JSON." if whole else ""
    body = f"""<main>
{sections(race, look, pictures, whole=whole)}<footer class="small">Made by downslope {html.escape(_version(race))}.
This page loads nothing from the network.{itself} Pictures: plotly.js, © Plotly, Inc., MIT licence.</footer>
</main>
{data}<script>{script}</script>"""
    return document(
        f"{race.title}: a race between update rules",
        body,
        style=f"{theme()}{asset('downslope.lab.report', 'page.css')}",
        policy=policy(None, script, _library()[0]),
    )


@functools.cache
def _library() -> tuple[str, str]:
    """The plotting library, and the same packed."""
    from plotly.offline import get_plotlyjs

    library: str = get_plotlyjs()
    return library, packed(library)


def _numbers(race: Race) -> int:
    """How many numbers the curves of a race have."""
    runs = (run for result in race.rules for run in (*result.tuning, *result.verdict))
    return sum(len(run.train_loss) + len(run.valid_loss) + len(run.valid_accuracy or ()) for run in runs)


def _drawn(picture: Picture, race: Race) -> dict[str, Any]:
    return {
        "layout": picture.layout,
        "first": first_view(race, picture),
        "shared": [view.key for view in picture.views if picture.name == "pair" and view.key != "own"],
        "views": {view.key: vars(view) for view in picture.views},
        "styles": picture.styles,
    }


def _version(race: Race) -> str:
    return str(race.environment.get("versions", {}).get("downslope", __version__))
