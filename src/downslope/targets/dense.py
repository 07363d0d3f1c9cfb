"""Scripts in few characters, for pages that must be small: without blanks and comments, some with short names."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PARTS = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<comment>//[^\n]*)|(?P<blank>\s+)|(?P<word>[\w$]+)|(?P<sign>.)"""
)
_PATTERN = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\]|\\.)*\])+/")
_LETTERS = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*(?:`|\$\{)", re.DOTALL)
"""What follows an accent grave or the end of an expression between two of them."""


def without_blanks(code: str) -> str:
    r"""A script without comments and without the blanks that part nothing; what is between quotes stays as it is.

    Every statement of it must end with a semicolon or a brace. Statements that are not indented begin a line.

    Example:
        >>> without_blanks('const c = a - -b * { "a b": `${ c + `d  ${1}` } e` }; // why')
        'const c=a- -b*{"a b":`${c+`d  ${1}`} e`};'
    """
    parts: list[str] = []
    last, blank = "", ""
    for kind, text in _tokens(code):
        if kind in ("blank", "comment"):
            blank = text if kind == "blank" else blank
            continue
        is_empty = last == ";" and parts[-2:-1] == [")"]  # as after `for (...)`
        if (text in ")]}" and last == ",") or (text == "}" and last == ";" and not is_empty):
            parts.pop()
        if blank.endswith("\n") and last:
            parts.append("\n")
        elif blank and last and _is_parted(last, text):
            parts.append(" ")
        parts.append(text)
        last, blank = text, ""
    return "".join(parts)


def _is_parted(before: str, after: str) -> bool:
    """Whether two parts would be another one without a blank between them."""
    return (_is_word(before[-1]) and _is_word(after[0])) or (before[-1] == after[0] and after[0] in "+-")


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter in "_$"


def _tokens(code: str) -> Iterator[tuple[str, str]]:
    """The kind and the text of each part of a script."""
    depths: list[int] = []  # of braces, in the expressions of strings that are being read
    last, place = "", 0
    while place < len(code):
        found = _PARTS.match(code, place)
        assert found is not None
        kind, text = str(found.lastgroup), found[0]
        closes = text == "}" and depths and depths[-1] == 0
        if text == "`" or closes:
            rest = _LETTERS.match(code, found.end())
            if rest is None:
                raise ValueError(f"a string that begins at character {place} has no end")
            text += rest[0]
            kind = "letters"
            if closes:
                depths.pop()
            if text.endswith("${"):
                depths.append(0)
        elif text == "/" and (not last or last == "return" or not (_is_word(last[-1]) or last[-1] in ")]}\"'`")):
            pattern = _PATTERN.match(code, place)
            kind, text = "pattern", pattern[0] if pattern else text
        elif depths and kind == "sign":
            depths[-1] += (text == "{") - (text == "}")
        if kind not in ("blank", "comment"):
            last = text
        place += len(text)
        yield kind, text


def dense(code: str) -> str:
    """What `targets.javascript` writes, without blanks, with constants declared together, and with short names.

    The names that a rule's functions give to what they take become some that no rule can have.

    Example:
        >>> dense("point(at_all, x_all, states, hyperparameters) {")
        'point($a,$x,$s,$h){'
        >>> dense("{ const a = 1; const b = 2; c = a; }")
        '{const a=1,b=2;c=a}'
    """
    code = without_blanks(re.sub(r'"([A-Za-z_]\w*)":', r"\1:", re.sub(r"(?<=[;,{}])\n *", " ", code)))
    code = _CONSTANTS.sub(lambda found: re.sub(r";const\b ?", ",", found[0]), code)
    code = _FUNCTION.sub(r"(\1)=>\2", code)
    parts = re.split(r'("(?:[^"\\]|\\.)*")', code)
    parts[::2] = (_NAMES.sub(lambda found: _SHORT[found[1]], _WHOLE.sub(r"\1", part)) for part in parts[::2])
    return "".join(parts)


_CONSTANT = r"const\b(?:\{[^{}]*\}|[^;{}])*"
_CONSTANTS = re.compile(rf"{_CONSTANT}(?:;{_CONSTANT})+")
_FUNCTION = re.compile(r"\bfunction\(([^()]*)\)\{return ([^;{}]*)\}")
_WHOLE = re.compile(r"(?<![\w.])(\d+)\.0(?![\w.])")
_SHORT = {"hyperparameters": "$h", "states": "$s", "x_all": "$x", "dx_all": "$d", "at_all": "$a"}
_NAMES = re.compile(rf"(?<![.\w])({'|'.join(_SHORT)})\b(?!:)")
