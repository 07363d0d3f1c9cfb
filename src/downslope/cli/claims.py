"""The command `downslope claims`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from downslope import files
from downslope.cli.ending import Stoppable, refuse
from downslope.printable import printable
from downslope.version import __version__

if TYPE_CHECKING:
    from downslope.claims import Claim
    from downslope.claims.languages import Language
    from downslope.claims.measuring import Measured
    from downslope.claims.shelf import Shelf


def claims(
    only: Annotated[
        list[str] | None, typer.Option(help="A claim to measure, by its name; `--list` shows them. Repeat for more.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where what is found is remembered, and the page is written.")] = Path(
        "claims"
    ),
    language: Annotated[
        str, typer.Option(help="The language of the page and of what is said: en, or zh for Chinese.")
    ] = "en",
    names: Annotated[bool, typer.Option("--list", help="List the claims and their names.")] = False,
) -> None:
    """Measure what everybody says about update rules, and write a page of what holds.

    Each claim says what was expected and what was found. Whatever ends it, the same command goes on where it was.
    """
    from downslope.claims.languages import language as spoken
    from downslope.claims.shelf import PAGE, Shelf, chosen, measured
    from downslope.claims.words import command

    console = Console(highlight=False)
    stop = Stoppable()
    try:
        say, wanted = spoken(language), chosen(only or [])
        if names:
            for claim in wanted:
                for at, line in enumerate(Text(say(claim.words)).wrap(console, console.width - 17)):
                    console.print(Text.assemble(f"{'' if at else claim.name:<17}", line))
            return
        shelf = Shelf(folder)
        known = shelf.taken()
        done = 0
        try:
            with stop:
                for claim, one in zip(
                    wanted, measured(wanted, shelf, lambda claim: _begin(claim, console)), strict=True
                ):
                    known[claim.name] = one
                    done += 1
                    _tell(claim, one, console, say)
        except KeyboardInterrupt:
            stopped = say("It was stopped after {done} of {wanted} claims.", done=done, wanted=len(wanted))
            _write(known, shelf, say, stopped)
            again = printable(command(only or [], folder, language))
            told = say("stopped after {done} of {wanted} claims; go on with:", done=done, wanted=len(wanted))
            refuse("claims", f"{told} {again}", stop.status)
        _write(known, shelf, say)
    except (ValueError, OSError) as error:
        refuse("claims", error)
    console.print(f"{say('Page:')} {printable(str(folder / PAGE))}", markup=False, soft_wrap=True)


def _begin(claim: Claim, console: Console) -> None:
    if console.is_terminal:
        console.print(Text(f"{claim.name} …", style="dim"))


def _tell(claim: Claim, one: Measured, console: Console, say: Language) -> None:
    """A claim's verdict, with its numbers."""
    from downslope.claims.claim import kind, verdict
    from downslope.claims.words import ending, expected, missing, surprises

    def line(text: str, indent: int, style: str = "") -> None:
        for each in Text(printable(text)).wrap(console, max(console.width - indent, 20)):
            console.print(Text.assemble(" " * indent, (each.plain.rstrip(), style)))

    line(f"{claim.name}: {say(claim.words)}", 0, "bold")
    told = ending(one.found, say)
    came = surprises(claim, one.found, say)
    line(told if kind(one.found) == "not measured" else say("{ending}; {surprises}", ending=told, surprises=came), 2)
    for words, parts in verdict(claim, one.found):
        line(say(words), 2)
        for part, found in parts:
            line(say(part.when), 4)
            if found.quantity is not None:
                number, behind = f"{found.quantity}", say(found.quantity.said)
                number = say("{number} ({behind})", number=number, behind=behind) if behind else number
                what, holds = say(part.measure.what), say(str(part.holds))
                asked = say("{what}: {number}, {holds} asked", what=what, number=number, holds=holds)
                if found.outcome != part.expected:
                    asked = say("{asked}; expected: {expected}", asked=asked, expected=expected(part, say))
                line(asked, 6, "dim")
    for said in dict.fromkeys([*missing(one.found), *(each.said for each in one.pictures if each.said)]):
        line(said, 2)
    console.print()


def _write(known: Mapping[str, Measured], shelf: Shelf, say: Language, note: str = "") -> None:
    """Write the page of all that is known, and beside it the playground, unless this version's is there."""
    from downslope.claims.page import claims_page
    from downslope.claims.shelf import PAGE, PLAYGROUND, chosen

    playground, version = shelf.path / PLAYGROUND, f'"version":"{__version__}"'
    if not playground.is_file() or version not in playground.read_text(encoding="utf-8", errors="replace"):
        from downslope.play.page import page

        files.write(playground, page())
    claims = [claim for claim in chosen([]) if claim.name in known]
    found = [known[claim.name] for claim in claims]
    files.write(shelf.path / PAGE, claims_page(claims, found, note, shelf.path, say))
