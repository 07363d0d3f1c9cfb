"""How a command ends: with one line that says what is wrong, whatever the terminal can show."""

from __future__ import annotations

import codecs
import signal
import sys
import unicodedata
from types import FrameType
from typing import Any, NoReturn

import typer

from downslope.printable import printable

_PLAIN = {
    "×": "x",
    "·": "-",
    "–": "-",
    "—": "-",
    "−": "-",
    "’": "'",
    "“": '"',
    "”": '"',
    "≈": "~",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "→": "->",
    "←": "<-",
    "✓": "yes",
    "✗": "no",
    "√": "sqrt",
    "∞": "inf",
    "⊙": "*",
    "━": "-",
    "╸": "-",
    "╺": "-",
    "²": "^2",
    "³": "^3",
}


def refuse(command: str, error: BaseException | str, status: int = 2) -> NoReturn:
    """End a command with one line on standard error.

    Args:
        command: The command's name, such as `"race"`.
        error: What is wrong.
        status: The exit status: 2 for what the user can put right, 1 for what failed.
    """
    typer.echo(f"downslope {command}: {printable(str(error), keep=chr(10))}", err=True)
    raise typer.Exit(status)


def speak_any_locale() -> None:
    """Make printing succeed on a terminal without UTF-8: characters that it cannot show are spelled in ASCII."""
    codecs.register_error("downslope", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and not (stream.encoding or "").lower().startswith("utf"):
            stream.reconfigure(errors="downslope")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    known = _PLAIN.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return known or character.encode("unicode_escape").decode()


class Stoppable:
    """While it is entered, SIGTERM raises KeyboardInterrupt as Ctrl-C does.

    Attributes:
        status: The exit status of a command that was stopped, by convention 128 and the signal's number.
    """

    def __init__(self) -> None:
        self.status = 128 + signal.SIGINT
        self._before: Any = None

    def __enter__(self) -> Stoppable:
        self._before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.status = 128 + number
        raise KeyboardInterrupt
