"""What is said of claims, on the page, in the terminal and in the documentation alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from downslope.claims.claim import SAID, Claim, Found, Part

SHOWN = {
    "holds": "✓ holds",
    "holds when": "◐ holds under conditions",
    "does not hold": "✗ does not hold",
    "not shown": "? not shown",
    "not measured": "– not measured",
}
"""How claims end, with a sign for each."""

ABOUT = (
    "Each claim is put to several questions. What was expected of each, and between which numbers the claim holds, was "
    "written before it was run. A walk leaves nothing to chance; of a race the ratio over fresh seeds is given with "
    "the interval of the lab's paired comparison, and only if the whole of it lies on one side of the threshold is "
    "the question decided."
)
"""How the claims were measured."""

COUNTED = {
    "holds": ("holds", "hold"),
    "holds when": ("holds under conditions", "hold under conditions"),
    "does not hold": ("does not hold", "do not hold"),
    "not shown": ("could not be shown", "could not be shown"),
    "not measured": ("was not measured", "were not measured"),
}
"""The same of one claim, and of several."""


def summary(kinds: Sequence[str]) -> str:
    """How many claims ended how.

    Example:
        >>> summary(["holds", "holds when", "holds when"])
        'Of 3 claims 1 holds and 2 hold under conditions.'
    """
    counts = Counter(kinds)
    told = [f"{counts[one]} {words[counts[one] > 1]}" for one, words in COUNTED.items() if counts[one]]
    listed = told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
    return f"Of {len(kinds)} claim{'s' if len(kinds) > 1 else ''} {listed}."


def expected(part: Part) -> str:
    """What was expected of a part."""
    return SAID[part.expected]


def surprises(claim: Claim, found: Sequence[Found]) -> str:
    """How many of the parts came out as was expected.

    Example:
        >>> from downslope.claims import CLAIMS
        >>> surprises(CLAIMS[0], [Found("yes")] * 4)
        '3 of 4 as expected'
    """
    done = [(part, one) for part, one in zip(claim.parts, found, strict=True) if one.outcome != "missing"]
    right = sum(part.expected == one.outcome for part, one in done)
    return f"{right} of {len(done)} as expected"


def missing(found: Sequence[Found]) -> list[str]:
    """What is missing, each once."""
    return list(dict.fromkeys(one.said for one in found if one.outcome == "missing"))
