"""What is said of claims, on the page, in the terminal and in the documentation alike."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from downslope.claims.claim import SAID, Claim, Found, Part, kind
from downslope.claims.experiments import SEEDS
from downslope.claims.languages import ENGLISH, Language

SHOWN = {
    "holds": "✓ holds",
    "holds when": "◐ holds under conditions",
    "fails when": "✗ fails under conditions, nowhere shown to hold",
    "does not hold": "✗ does not hold",
    "not shown": "? not shown",
    "not measured": "– not measured",
}
"""How claims end, with a sign for each."""

ABOUT = (
    "Each claim is put to several questions. What was expected of each, and between which numbers the claim holds, was "
    "written before it was run. A question is decided only if the whole interval of what was measured lies on one "
    "side of the threshold. A walk without noise leaves nothing to chance and has none; with noise it is the median of "
    f"{SEEDS} seeds, from the least to the most of them. Of a race it is the ratio over seeds that no learning rate "
    "was chosen by, with the interval of the lab's paired comparison; of two rules at given learning rates, which "
    "nobody chose, it is that over the seeds for tuning. How high a learning rate may be is known to one step of the "
    "grid, and that is its interval. Of seconds the interval is that of the epochs: how long an epoch takes was "
    "measured once, on one machine. Who never arrives has taken steps without end, so that a ratio may be 0 or ∞."
)
"""How the claims were measured."""

COUNTED = {
    "holds": ("{count} holds", "{count} hold"),
    "holds when": ("{count} holds under conditions", "{count} hold under conditions"),
    "fails when": ("{count} fails under conditions", "{count} fail under conditions"),
    "does not hold": ("{count} does not hold", "{count} do not hold"),
    "not shown": ("{count} could not be shown", "{count} could not be shown"),
    "not measured": ("{count} was not measured", "{count} were not measured"),
}
"""The same of one claim, and of several."""


def summary(kinds: Sequence[str], say: Language = ENGLISH) -> str:
    """How many claims ended how.

    Example:
        >>> summary(["holds", "holds when", "holds when"])
        'Of 3 claims 1 holds and 2 hold under conditions.'
    """
    counts = Counter(kinds)
    told = [say(words[counts[one] > 1], count=counts[one]) for one, words in COUNTED.items() if counts[one]]
    listed = told[0]
    for at, one in enumerate(told[1:], start=2):
        last = at == len(told)
        listed = say("{first} and {last}", first=listed, last=one) if last else f"{listed}{say.comma}{one}"
    if len(kinds) == 1:
        return say("Of {count} claim {listed}.", count=1, listed=listed)
    return say("Of {count} claims {listed}.", count=len(kinds), listed=listed)


def ending(found: Sequence[Found], say: Language = ENGLISH) -> str:
    """How a claim ended; where it holds under conditions only, in how many of its questions.

    Example:
        >>> ending([Found("yes"), Found("no"), Found("open")])
        '◐ holds under conditions, in 1 of 3 questions'
    """
    word = kind(found)
    if word != "holds when":
        return say(SHOWN[word])
    held = sum(one.outcome == "yes" for one in found)
    return say("{ending}, in {held} of {all} questions", ending=say(SHOWN[word]), held=held, all=len(found))


def question(part: Part, say: Language = ENGLISH) -> str:
    """What is measured for a part, and where it must lie for the claim to hold."""
    return say("{what}: {holds}", what=say(part.measure.what), holds=say(str(part.holds)))


def expected(part: Part, say: Language = ENGLISH) -> str:
    """What was expected of a part."""
    return say(SAID[part.expected])


def surprises(claim: Claim, found: Sequence[Found], say: Language = ENGLISH) -> str:
    """How many of the parts came out as was expected.

    Example:
        >>> from downslope.claims import CLAIMS
        >>> surprises(CLAIMS[0], [Found("yes")] * 4)
        '3 of 4 as expected'
    """
    done = [(part, one) for part, one in zip(claim.parts, found, strict=True) if one.outcome != "missing"]
    right = sum(part.expected == one.outcome for part, one in done)
    return say("{right} of {done} as expected", right=right, done=len(done)) if done else say("none was measured")


def missing(found: Sequence[Found]) -> list[str]:
    """What is missing, each once."""
    return list(dict.fromkeys(one.said for one in found if one.outcome == "missing"))


FOLDER = Path("claims")
"""Where claims are remembered, if no other folder is named."""


def command(names: Sequence[str], folder: Path, language: str = "en") -> str:
    """The command that measures claims, as it is typed into a shell.

    Example:
        >>> command(["zigzag"], FOLDER), command([], Path("my claims"))
        ('downslope claims --only zigzag', "downslope claims --folder 'my claims'")
    """
    where = [] if folder == FOLDER else ["--folder", str(folder)]
    spoken = [] if language == "en" else ["--language", language]
    return shlex.join(["downslope", "claims", *(word for name in names for word in ("--only", name)), *where, *spoken])
