"""Text from outside, made safe to print: names of files, columns and rules may hold anything."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # hold together what is one sign, such as a family of emoji or a syllable of Devanagari


def printable(text: str, keep: str = "") -> str:
    r"""A text in which nothing moves the cursor, colours the screen or turns the direction of reading.

    Control and format characters, separators of lines and halves of surrogate pairs are written as their escapes in
    Python, everything else stays.

    Args:
        text: Anything, such as a name from a file.
        keep: Characters that stay in any case, such as a newline in a message.

    Example:
        >>> printable("price\x1b[31m"), printable("a\rb"), printable("Größe, 価格")
        ('price\\x1b[31m', 'a\\rb', 'Größe, 価格')
    """
    return "".join(c if c in keep or c in _JOINERS or _harmless(c) else _escape(c) for c in text)


def _harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
