"""The page `claims.md`, from the claims and what was measured of them: `python docs/_ext/claims_page.py FOLDER`.

FOLDER is that of `downslope claims`. What was measured is kept beside the page, in `claims/measured.json`, so that a
test can hold the page to the entries, to their experiments, and to the formulas in them.
"""

import json
import sys
from pathlib import Path

from downslope.claims import CLAIMS, Claim
from downslope.claims.claim import Found, Part, kind, verdict
from downslope.claims.drawing import standalone
from downslope.claims.measuring import Measured
from downslope.claims.shelf import Shelf, asked, read, written
from downslope.claims.words import ABOUT, SHOWN, expected, summary, surprises

DOCS = Path(__file__).parent.parent
PICTURES = 2  # of each claim on the page; the page that the command writes has all


def page(found: dict[str, Measured]) -> str:
    """The page."""
    every = [found[claim.name] for claim in CLAIMS]
    rows = [f"| [{claim.words}](#{claim.name}) | {SHOWN[kind(found[claim.name].found)]} |" for claim in CLAIMS]
    return "\n".join(
        [
            "# What everybody says, measured",
            "",
            f"{summary([kind(one.found) for one in every])} {ABOUT}",
            "",
            "```sh",
            "downslope claims --list         # their names",
            "downslope claims                # measures all, remembers what is finished, writes claims/claims.html",
            "```",
            "",
            "| claim | here |",
            "|---|---|",
            *rows,
            "",
            "The page that the command writes has all pictures; it needs no network and runs no script. What was "
            "mended after a first run, and why, is in [decisions](decisions.md#claims). Seconds are those of a machine "
            "under load.",
            "",
            *(line for claim in CLAIMS for line in section(claim, found[claim.name])),
        ]
    )


def section(claim: Claim, measured: Measured) -> list[str]:
    """What is said of a claim."""
    lines = [
        f"({claim.name})=",
        f"## {claim.words}",
        f"**{SHOWN[kind(measured.found)]}**",
        "",
        f"*Expected:* {claim.expected} Of its questions, {surprises(claim, measured.found)}.",
        "",
    ]
    for words, parts in verdict(claim, measured.found):
        lines += [f"| {words} … | it holds if | measured | expected |", "|---|---|---|---|"]
        lines += [row(part, one) for part, one in parts]
        lines.append("")
    lines += [f"![{each.title}](claims/{name}.svg)" for name, each in pictures(claim, measured)]
    lines += ["", f'Feel it in <a href="playground.html#{claim.play}">the playground</a>, measure it with']
    lines += [f"`downslope claims --only {claim.name}`. Where it is said:", ""]
    return [*lines, *(f"- {source}" for source in claim.literature), ""]


def row(part: Part, one: Found) -> str:
    """A question."""
    said = f" ({one.quantity.said})" if one.quantity and one.quantity.said else ""
    other = "" if one.outcome == part.expected else ", **found otherwise**"
    return (
        f"| {part.when} | {part.measure.what}: {part.holds} | {one.quantity or '–'}{said} | {expected(part)}{other} |"
    )


def pictures(claim: Claim, measured: Measured):
    """The pictures of a claim that are on the page, by the names of their files."""
    return [(f"{claim.name}-{k}", each) for k, each in enumerate(measured.pictures[:PICTURES], 1) if each.svg]


def told() -> list[dict]:
    """What was measured as it is kept beside the page, with a hash of what each question was."""
    return json.loads((DOCS / "claims" / "measured.json").read_text(encoding="utf-8"))


def kept() -> dict[str, Measured]:
    """What was measured."""
    claims = {claim.name: claim for claim in CLAIMS}
    return {one["name"]: read(one, claims[one["name"]]) for one in told()}


def main(folder: str) -> None:
    """Write the page, its pictures, and what was measured."""
    shelf = Shelf(Path(folder))
    found = {claim.name: shelf.take(claim) for claim in CLAIMS}
    if unfinished := [name for name, one in found.items() if one is None]:
        sys.exit(f"{folder}: not finished: {', '.join(unfinished)}")
    (DOCS / "claims").mkdir(exist_ok=True)
    for old in (DOCS / "claims").glob("*.svg"):
        old.unlink()
    plain = []
    for claim in CLAIMS:
        for name, each in pictures(claim, found[claim.name]):
            (DOCS / "claims" / f"{name}.svg").write_text(standalone(each.svg), encoding="utf-8")
        one = written(found[claim.name])
        questions = [{"asked": asked(part), **each} for part, each in zip(claim.parts, one["found"], strict=True)]
        drawn = [{**each, "svg": "…"} for each in one["pictures"]]
        plain.append({**one, "found": questions, "pictures": drawn})
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    (DOCS / "claims" / "measured.json").write_text(f"{text}\n", encoding="utf-8")
    (DOCS / "claims.md").write_text(page(kept()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
