"""The page of the claims: one HTML file without scripts that loads nothing."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

from downslope.claims.claim import Claim, Found, Part, kind, verdict
from downslope.claims.languages import ENGLISH, Language
from downslope.claims.measuring import Measured
from downslope.claims.shelf import PLAYGROUND
from downslope.claims.words import ABOUT, FOLDER, command, ending, expected, missing, question, summary, surprises
from downslope.pages import asset, document, policy, theme
from downslope.printable import printable
from downslope.version import __version__

WIDE, HIGH, REACH = 170.0, 16.0, 30.0
"""A strip's size, and how many times beyond the threshold it reaches on either side."""


def claims_page(
    claims: Sequence[Claim],
    found: Sequence[Measured],
    note: str = "",
    folder: Path = FOLDER,
    say: Language = ENGLISH,
) -> str:
    """The page, as text.

    Args:
        claims: The claims that were measured.
        found: What was found of each.
        note: What is to be said first, such as that the run was stopped.
        folder: Where they are remembered.
        say: The language of the page.
    """
    style = f"{theme()}{asset('downslope.claims', 'page.css')}"
    kinds = [kind(one.found) for one in found]
    contents = "".join(
        f'<li><a href="#{claim.name}">{html.escape(say(claim.words))}</a><small>{ending(one.found, say)}</small></li>'
        for claim, one in zip(claims, found, strict=True)
    )
    sections = "".join(_section(claim, one, folder, say) for claim, one in zip(claims, found, strict=True))
    stopped = f'<p class="missing">{html.escape(note)}</p>' if note else ""
    head = summary(kinds, say) if kinds else say("No claim has been measured yet.")
    made = say("Made by downslope {version} with {command}.", version=__version__, command="downslope claims")
    title = say("What everybody says about update rules, measured")
    body = f"""<main>
<header>
<p class="brand">downslope claims</p>
<h1>{html.escape(title)}</h1>
<p class="found">{html.escape(head)}</p>
<p class="lead">{say(ABOUT)}</p>
{stopped}<ul class="contents">{contents}</ul>
</header>
{sections}<footer class="small">{html.escape(made)}
{say("This page loads nothing from the network, and runs no script.")}</footer>
</main>"""
    return document(title, body, style=style, policy=policy(style), language=say.mark)


def _section(claim: Claim, measured: Measured, folder: Path, say: Language) -> str:
    word = kind(measured.found)
    pictures = "".join(
        f"<figure><figcaption>{html.escape(say(each.title))}</figcaption>"
        f"{say.picture(each.svg) or _lacking(each.said)}</figure>"
        for each in measured.pictures
    )
    lacking = "".join(map(_lacking, missing(measured.found)))
    sources = "".join(f"<li>{html.escape(say(source))}</li>" for source in claim.literature)
    groups = "".join(
        f'<tbody><tr class="group"><th colspan="4" scope="rowgroup">{say(words)} …</th></tr>'
        f"{''.join(_row(part, one, say) for part, one in parts)}</tbody>"
        for words, parts in verdict(claim, measured.found)
    )
    came = say("Of its questions, {surprises}.", surprises=surprises(claim, measured.found, say))
    about = html.escape(say("What was measured of {claim}", claim=claim.name))
    played = f'<a href="{PLAYGROUND}#{html.escape(_state(claim, say))}">{say("See it in the playground")}</a>'
    ways = say(
        "{played}, or {command}. Again: {again}",
        played=played,
        command=_code(f'downslope play --link "{claim.play}"'),
        again=_code(printable(command([claim.name], folder, say.name))),
    )
    return f"""<section id="{claim.name}">
<h2>{html.escape(say(claim.words))}</h2>
<p class="verdict"><b class="{word.split()[0]}">{ending(measured.found, say)}</b></p>
<p class="lead"><b>{say("Expected:")}</b> {html.escape(say(claim.expected))}{say.blank}{html.escape(came)}</p>
{lacking}<div class="scroll" tabindex="0" role="region" aria-label="{about}"><table>
<thead><tr><td></td><th scope="col">{say("it holds if")}</th><th scope="col">{say("measured")}</th>
<th scope="col">{say("expected")}</th></tr></thead>
{groups}</table></div>
<div class="pictures">{pictures}</div>
<h3>{say("Where it is said")}</h3>
<ul class="sources small">{sources}</ul>
<p class="small">{ways}</p>
</section>
"""


def _code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>"


def _state(claim: Claim, say: Language) -> str:
    """The playground's state, in the language of the page."""
    return claim.play if say.name == "en" else f"lang={say.name}&{claim.play}"


def _row(part: Part, one: Found, say: Language) -> str:
    measured = "–"
    if one.quantity is not None:
        said = f"<small>{html.escape(say(one.quantity.said))}</small>" if one.quantity.said else ""
        measured = f"{one.quantity}{said}{_strip(part, one)}"
    otherwise = f'<small class="other">{say("but found otherwise")}</small>'
    other = "" if one.outcome in (part.expected, "missing") else otherwise
    return (
        f'<tr><th scope="row">{html.escape(say(part.when))}</th>'
        f'<td data-label="{say("it holds if")}">{html.escape(question(part, say))}</td>'
        f'<td class="number" data-label="{say("measured")}">{measured}</td>'
        f'<td data-label="{say("expected")}">{expected(part, say)}{other}</td></tr>'
    )


def _strip(part: Part, one: Found) -> str:
    """Where the measured lies beside the threshold, on a logarithmic scale; the claim holds on the tinted side."""
    quantity = one.quantity
    if quantity is None or math.isnan(quantity.estimate):
        return ""

    def place(value: float) -> float:
        times = value / part.holds.bound if value > 0 else 0.0
        share = (
            math.log(times) / math.log(REACH) if times > 0 and not math.isinf(times) else math.copysign(1, times - 1)
        )
        return round(WIDE / 2 * (1 + max(-0.97, min(0.97, share))), 1)

    middle = WIDE / 2
    side = 0.0 if part.holds.side == "at most" else middle
    ends = "" if math.isnan(quantity.low) else f"M{place(quantity.low)},8H{place(quantity.high)}"
    return (
        f'<svg class="strip" viewBox="0 0 {WIDE:.0f} {HIGH:.0f}" aria-hidden="true">'
        f'<rect x="{side}" width="{middle}" height="16" fill="var(--win)"/>'
        f'<path d="M0,8H{WIDE:.0f}" stroke="var(--line)"/>'
        f'<path d="M{middle},0V16" stroke="var(--muted)" stroke-width="1.5"/>'
        f'<path d="{ends}" stroke="var(--ink)" stroke-width="3"/>'
        f'<circle cx="{place(quantity.estimate)}" cy="8" r="4" fill="var(--ink)"/></svg>'
    )


def _lacking(said: str) -> str:
    return f'<p class="missing">{html.escape(said)}</p>'
