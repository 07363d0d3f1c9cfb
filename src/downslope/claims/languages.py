"""What is said of claims, in English and in Chinese: whole sentences, and those that are put together from parts.

The Chinese is in `zh.json`, by the English. It is written by `docs/_ext/chinese.py` from the catalogue of translations,
which names whatever has been changed in one language only.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping

from downslope.pages import asset

LANGUAGES = ("en", "zh")

PUT_TOGETHER = (
    "at least {number}",
    "at most {number}",
    "{number} row",
    "{number} rows",
    "{number} row, {more}",
    "{number} rows, {more}",
    "{number} ({number_2} of {number_3} never)",
    "{name} {number}, {name_2} {number_2}",
    "epochs to a loss of {number}",
    "seconds to a loss of {number}",
    "effective step {number} over step {number_2}",
    "loss above the lowest, mean of {number} steps",
    "{title}, the soonest of several forms",
    "{title}, noise {number}, the first of {number_2} seeds",
    "{ground}: each at its best learning rate",
    "{ground}: each at its own learning rate",
    "{ground}: all at learning rate {number}",
    "{problem}: {rule}, batches of {sizes}",
    "{problem}, all classes as frequent",
    "{rule} at {number}",
    "{what}, {rule} over {rule_2}",
    "{what}, {rule}",
)
"""Sentences that are put together, each with its places; of several that fit, the first is meant."""

PARTS = (
    *("steps to the goal", "path over distance", "turns across the valley", "share of the way down that is left"),
    *("mean loss of the second half", "distance from the goal at the end", "largest over an earlier effective step"),
    *("length of the first step", "limit of lr times curvature", "final loss", "final loss on the tuning seeds"),
    *("final accuracy", "highest safe learning rate", "the lowest other", "all rows", "never", "adam, uncorrected"),
    *("steps", "epochs", "learning rate", "step per unit of slope", "loss above the lowest", "final validation loss"),
    "validation loss, median",
)
"""What stands in their places, or is written at the axes of a picture."""

NUMBER = r"[−\d][\d.,e−]*|∞|nan|never|[−\d]\S* \(\d+ of \d+ never\)"


class Language:
    """What a language says for a sentence in English; of what it has no word for, the English.

    Args:
        name: One of `LANGUAGES`.
        words: What is said, by the English; of English itself, nothing.

    Example:
        >>> chinese = Language("zh", {"at most {number}": "至多 {number}"})
        >>> chinese("at most 0.8"), chinese("at last")
        ('至多 0.8', 'at last')
    """

    def __init__(self, name: str, words: Mapping[str, str]):
        self.name, self.mark = name, "en" if name == "en" else "zh-CN"
        self.blank, self.comma = (" ", ", ") if name == "en" else ("", "、")
        self._words = words
        self._forms = [(_pattern(form), words[form]) for form in PUT_TOGETHER if form in words]

    def __call__(self, text: str, **values: object) -> str:
        """The sentence, with values in its places."""
        told = self._words.get(text) or (text if values else self._put_together(text))
        return told.format(**values) if values else told

    def picture(self, svg: str) -> str:
        """A drawing with its words in this language."""

        def said(found: re.Match[str]) -> str:
            return f"{found[1]}{html.escape(self(html.unescape(found[2])))}{found[3]}"

        return re.sub(r'(aria-label=")([^"]*)(")', said, re.sub(r"(<text [^>]*>)([^<]*)(</text>)", said, svg))

    def _put_together(self, text: str) -> str:
        for form, told in self._forms:
            if found := form.fullmatch(text):
                parts = {place: self._part(place, part) for place, part in found.groupdict().items()}
                return re.sub(r"(?<=[\u4e00-\u9fff）]) (?=[\u4e00-\u9fff])", "", told.format(**parts))
        return text

    def _part(self, place: str, text: str) -> str:
        """What stands in a place; the ground may be a formula, of which nothing is translated."""
        return self._words.get(text, text) if place == "ground" else self(text)


def _pattern(form: str) -> re.Pattern[str]:
    """What fits a sentence that is put together."""

    def place(found: re.Match[str]) -> str:
        return f"(?P<{found[1]}>{NUMBER if found[1].startswith('number') else '.+?'})"

    return re.compile(re.sub(r"\\{(\w+)\\}", place, re.escape(form)))


ENGLISH = Language("en", {})


def language(name: str) -> Language:
    """A language by its name.

    Raises:
        ValueError: There is no such language.
    """
    if name not in LANGUAGES:
        raise ValueError(f"--language {name}: there is no such language; choose from {', '.join(LANGUAGES)}")
    return ENGLISH if name == "en" else Language("zh", json.loads(asset("downslope.claims", "zh.json")))
