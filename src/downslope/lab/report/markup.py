"""The pieces that sections of the page are made of."""

from __future__ import annotations

import html
from collections.abc import Iterable


def section(name: str, title: str, lead: str, content: str) -> str:
    """A section with its heading and what is said first."""
    return f'<section id="{name}">\n<h2>{title}</h2>\n<p class="lead">{lead}</p>\n{content}\n</section>\n'


def plot(name: str, label: str) -> str:
    """Where the script draws the picture of this name."""
    return (
        f'<div class="plot" id="plot-{name}" role="img" aria-label="{html.escape(label)}">'
        "<noscript>The picture needs JavaScript; its numbers are in this page, as JSON.</noscript></div>\n"
    )


def slider(name: str, label: str, most: int, start: int, text: str) -> str:
    """A slider over whole numbers from 0, with what it stands at in words."""
    return (
        f'<label class="slide">{label} <input type="range" id="{name}" min="0" max="{most}" value="{start}" step="1" '
        f'aria-valuetext="{html.escape(text)}"><output>{html.escape(text)}</output></label>'
    )


def segments(picture: str, choices: Iterable[tuple[str, str]], first_pressed: bool) -> str:
    """Buttons that choose among the views of a picture."""
    buttons = "".join(
        f'<button type="button" data-view="{key}" aria-pressed="{str(first_pressed and place == 0).lower()}">'
        f"{html.escape(label)}</button>"
        for place, (key, label) in enumerate(choices)
    )
    return f'<div class="segments" data-picture="{picture}">{buttons}</div>'
