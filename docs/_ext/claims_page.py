"""The page `claims.md`, from the claims and what was measured of them: `python docs/_ext/claims_page.py FOLDER`.

FOLDER is that of `downslope claims`. What was measured is kept beside the page, in `claims/measured.json`, so that a
test can hold the page to the entries, to their experiments, and to the formulas in them. Without FOLDER the page is
written from what is kept. The Chinese page is written when the Chinese site is built, with its pictures.
"""

import functools
import json
import sys
from pathlib import Path

import chinese

from downslope.claims import CLAIMS, Claim
from downslope.claims.claim import Found, Part, kind, verdict
from downslope.claims.drawing import standalone
from downslope.claims.experiments import rules_of
from downslope.claims.languages import ENGLISH, Language
from downslope.claims.measuring import Measured
from downslope.claims.shelf import Shelf, asked, read, written
from downslope.claims.words import ABOUT, ending, expected, question, summary, surprises

DOCS = Path(__file__).parent.parent
MEASURED = DOCS / "claims" / "measured.json"
PICTURES = 2  # of each claim on the page; the page that the command writes has all


def page(found: dict[str, Measured], say: Language = ENGLISH) -> str:
    """The page."""
    every = [found[claim.name] for claim in CLAIMS]
    rows = [f"| [{say(claim.words)}](#{claim.name}) | {ending(found[claim.name].found, say)} |" for claim in CLAIMS]
    more = say(
        "The page that the command writes has all pictures; it needs no network and runs no script. What was mended"
        " after a first run, and why, is in [decisions](decisions.md#claims). Seconds are those of a machine under"
        " load."
    )
    kinds = [kind(one.found) for one in every]
    return "\n".join(
        [
            f"# {say('What everybody says, measured')}",
            "",
            f"**{summary(kinds, say)}**",
            "",
            f"| {say('claim')} | {say('here')} |",
            "|---|---|",
            *rows,
            "",
            f"## {say('How they are measured')}",
            say(ABOUT),
            "",
            "```sh",
            "downslope claims --list  # their names",
            "downslope claims         # measures all, remembers what is finished, writes claims/claims.html",
            "```",
            "",
            more,
            "",
            *(line for claim in CLAIMS for line in section(claim, found[claim.name], say)),
        ]
    )


def section(claim: Claim, measured: Measured, say: Language) -> list[str]:
    """What is said of a claim."""
    came = say("Of its questions, {surprises}.", surprises=surprises(claim, measured.found, say))
    lines = [
        f"({claim.name})=",
        f"## {say(claim.words)}",
        f"**{ending(measured.found, say)}**",
        "",
        f"*{say('Expected:')}* {say(claim.expected)}{say.blank}{came}",
        "",
    ]
    head = " | ".join(map(say, ("it holds if", "measured", "expected")))
    for words, parts in verdict(claim, measured.found):
        lines += [f"| {say(words)} … | {head} |", "|---|---|---|---|"]
        lines += [row(part, one, say) for part, one in parts]
        lines.append("")
    suffix = ".svg" if say is ENGLISH else ".zh.svg"
    lines += [f"![{say(each.title)}](claims/{name}{suffix})" for name, each in pictures(claim, measured)]
    rules = say.comma.join(f"[{name}](learn/rules/{name}.md)" for name in about(claim))
    played = f'<a href="playground.html#{claim.play}">{say("the playground")}</a>'
    lines += [
        "",
        say(
            "It is about {rules}. Feel it in {playground}, measure it with {command}. Where it is said:",
            rules=rules,
            playground=played,
            command=f"`downslope claims --only {claim.name}`",
        ),
        "",
    ]
    return [*lines, *(f"- {say(source)}" for source in claim.literature), ""]


def about(claim: Claim) -> list[str]:
    """The rules that a claim is about: those of which something is measured."""
    return list(
        dict.fromkeys(name for part in claim.parts for name in rules_of(part.experiment, part.measure.entrants))
    )


def spoken(is_english: bool) -> Language:
    """What the page is written in."""
    return ENGLISH if is_english else Language("zh", chinese.of_claims("docs/_ext/claims_page.py"))


def told_of(rule: str, is_english: bool) -> list[str]:
    """How each claim ended that is about a rule, for the page of the rule."""
    found, say = kept(), spoken(is_english)
    return [
        f"- [{say(claim.words)}](../../claims.md#{claim.name}) {ending(found[claim.name].found, say)}"
        for claim in CLAIMS
        if rule in about(claim)
    ]


def row(part: Part, one: Found, say: Language) -> str:
    """A question."""
    measured, told = str(one.quantity or "–"), expected(part, say)
    if one.quantity and one.quantity.said:
        measured = say("{measured} ({numbers})", measured=measured, numbers=say(one.quantity.said))
    if one.outcome != part.expected:
        told = say("{expected}, **found otherwise**", expected=told)
    return f"| {say(part.when)} | {question(part, say)} | {measured} | {told} |"


def pictures(claim: Claim, measured: Measured):
    """The pictures of a claim that are on the page, by the names of their files."""
    return [(f"{claim.name}-{k}", each) for k, each in enumerate(measured.pictures[:PICTURES], 1) if each.svg]


def told() -> list[dict]:
    """What was measured as it is kept beside the page, with a hash of what each question was."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))


@functools.cache
def kept() -> dict[str, Measured]:
    """What was measured."""
    claims = {claim.name: claim for claim in CLAIMS}
    return {one["name"]: read(one, claims[one["name"]]) for one in told()}


def keep(folder: str) -> None:
    """Keep what was measured, and the pictures."""
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
    MEASURED.write_text(f"{text}\n", encoding="utf-8")


def write_chinese(app):
    """Write the page and its pictures in Chinese, before the Chinese site is read."""
    if app.config.language == "en":
        return
    found, say = kept(), spoken(is_english=False)
    (DOCS / "claims.zh.md").write_text(page(found, say), encoding="utf-8")
    for claim in CLAIMS:
        for name, _ in pictures(claim, found[claim.name]):
            drawn = (DOCS / "claims" / f"{name}.svg").read_text(encoding="utf-8")
            (DOCS / "claims" / f"{name}.zh.svg").write_text(say.picture(drawn), encoding="utf-8")


def setup(app):
    """Write the Chinese page first."""
    app.connect("builder-inited", write_chinese)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    if sys.argv[1:]:
        keep(sys.argv[1])
    (DOCS / "claims.md").write_text(page(kept()), encoding="utf-8")
