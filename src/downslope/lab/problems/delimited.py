"""From a file of delimited text to its cells, as text: compression, encoding, separator.

What the file does not say is found out where it is certain, and reported; where two readings fit, the file is refused
with the name of the option that decides. Nothing here knows what a number is.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.columns import DataError

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
RECORDS_LOOKED_AT = 500
# UTF-32 first: its mark begins with the one of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, eq=False)
class Cells:
    """What a file of delimited text holds.

    Attributes:
        frame: All columns as text without surrounding blanks, null where a cell is empty; rows without any cell are
            left out.
        rows: For each row of `frame` its number below the header, from 1, empty rows counted.
        separator: What stands between the cells.
        remarks: What was found out that is not the usual: the encoding, the separator, empty rows.
    """

    frame: pl.DataFrame
    rows: NDArray[np.int64]
    separator: str
    remarks: tuple[str, ...]


def read_delimited(path: Path, *, separator: str | None = None, encoding: str | None = None) -> Cells:
    """Read a file of delimited text with a header.

    Args:
        path: The file; `.gz` and `.zst` at the end of its name say that it is compressed.
        separator: What stands between cells; None to find it among comma, semicolon, tab and vertical bar.
        encoding: The encoding of the text; None to find it among UTF-8, UTF-16 and UTF-32, and else cp1252.

    Raises:
        DataError: The file cannot be read, or can be read in more than one way.
    """
    import polars as pl

    file = repr(path.name)
    text, encoded = _text(path, encoding)
    remarks = [encoded] if encoded else []
    if "\0" in text:
        raise DataError(f"path: {file} holds zero bytes, so it is not the text it should be; is it complete?")
    text = text.lstrip("\ufeff").lstrip("\r\n")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    stated = re.match(r'"?sep=(.)"?\r?\n', text)  # a line that spreadsheets write
    if stated:
        text = text[stated.end() :]
        separator = separator or stated[1]
    if not text.strip():
        raise DataError(f"path: {file} is empty; it needs a header and rows.")
    if separator is None:
        separator = _found_separator(text, file)
        if separator != ",":
            remarks.append(f"The columns of {file} are separated by {SEPARATORS[separator]}.")
    else:
        separator = _checked_separator(separator)
    try:
        frame = pl.read_csv(
            text.encode(), has_header=False, separator=separator, infer_schema=False, raise_if_empty=False
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(_why_not(text, separator, file)) from error
    frame = frame.with_columns(pl.all().str.strip_chars().replace("", None))
    names = ["" if name is None else name for name in frame.row(0)]
    frame = frame.slice(1)
    full = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy().astype(bool)
    last = int(np.flatnonzero(full)[-1]) + 1 if full.any() else 0
    if not full[:last].all():
        remarks.append(f"Left out {int((~full[:last]).sum())} rows of {file} in which every cell is empty.")
    names, frame = _named(names, frame, file, remarks)
    return Cells(frame.filter(pl.Series(full)), np.flatnonzero(full) + 1, separator, tuple(remarks))


def shown(text: str, most: int = 40) -> str:
    """A cell or a name in quotes, its control characters as escapes, cut if it is long."""
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def _named(names: list[str], frame: pl.DataFrame, file: str, remarks: list[str]) -> tuple[list[str], pl.DataFrame]:
    # A separator at the end of every line makes a column that has neither a name nor a value.
    ghosts = [index for index, name in enumerate(names) if not name and frame[:, index].is_null().all()]
    if len(ghosts) == len(names):
        raise DataError(f"path: no column of {file} has a name; it needs a line with the names of the columns.")
    if ghosts and frame.height:
        remarks.append(f"Left out {len(ghosts)} of the columns of {file}: without name and without values.")
        frame = frame[:, [index for index in range(frame.width) if index not in ghosts]]
        names = [name for index, name in enumerate(names) if index not in ghosts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        listed = ", ".join(shown(name) for name in repeated)
        raise DataError(f"path: the header of {file} repeats {listed}; give every column its own name.")
    frame.columns = names
    return names, frame


def _text(path: Path, encoding: str | None) -> tuple[str, str]:
    """The text of a file, and a remark if its encoding had to be guessed."""
    file = repr(path.name)
    data = _bytes(path)
    marked = next((name for mark, name in MARKS if data.startswith(mark)), None)
    if encoding is not None:
        try:
            return data.decode(encoding), ""
        except LookupError:
            raise DataError(
                f"encoding={encoding!r}: there is none of this name; usual ones are utf-8, cp1252."
            ) from None
        except UnicodeError as error:
            raise DataError(f"encoding={encoding!r}: {_place(data, error)} of {file} is not text in it.") from None
    guess = marked or _by_zeros(data)
    try:
        text = data.decode(guess or "utf-8")
        return text, "" if guess in (None, "utf-8") else f"{file} is read as {guess}."
    except UnicodeError as error:
        if guess:
            raise DataError(
                f"path: {file} looks like {guess} but {_place(data, error)} is not text in it; is the file complete? "
                "Name another encoding with encoding=NAME."
            ) from None
    try:
        text = data.decode("cp1252")
    except UnicodeError as error:
        raise DataError(
            f"path: {file} is neither UTF-8 nor cp1252 ({_place(data, error)}); name its encoding with encoding=NAME."
        ) from None
    return text, f"{file} is not UTF-8 and read as cp1252; if letters look wrong, name the encoding with encoding=NAME."


def _by_zeros(data: bytes) -> str | None:
    # ASCII characters in UTF-16 without a mark: every other byte of the header is zero.
    head = data[:64]
    if len(head) >= 4 and len(data) % 2 == 0:
        if not any(head[1::2]) and all(head[::2]):
            return "utf-16-le"
        if not any(head[::2]) and all(head[1::2]):
            return "utf-16-be"
    return None


def _place(data: bytes, error: UnicodeError) -> str:
    if not isinstance(error, UnicodeDecodeError):
        return "a byte"
    byte = f"byte {data[error.start]:#04x}" if error.start < len(data) else "the end"
    return f"{byte} in line {data.count(10, 0, error.start) + 1}"


def _bytes(path: Path) -> bytes:
    import polars as pl

    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as file:
                return file.read()
        if path.suffix.lower() == ".zst":
            # Whole lines as the cells of one column: the only part of Polars that gives what Zstandard packed.
            lines = pl.read_csv(
                path, has_header=False, separator="\x1e", quote_char=None, infer_schema=False, glob=False
            )
            return "\n".join(line or "" for line in lines[:, 0]).encode()
        return path.read_bytes()
    except pl.exceptions.NoDataError:
        return b""
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"path: {str(path)!r} cannot be read: {shown(reason, 200)}. Is the file complete?") from error


def _checked_separator(separator: str) -> str:
    separator = SPELLED.get(separator.lower(), separator)
    if len(separator) != 1 or not separator.isascii() or separator.isalnum() or separator in '"\r\n.+-\0':
        raise DataError(f"separator={separator!r}: give one character, such as ';', or the word tab.")
    return separator


def _records(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator)


def _found_separator(text: str, file: str) -> str:
    """The separator that divides the first records alike, if there is one and no more than one."""
    head = text if len(text) < 2**20 else text[: text.rfind("\n", 0, 2**20)]
    widths = {}
    for one in SEPARATORS:
        try:
            records = itertools.islice(_records(head, one), RECORDS_LOOKED_AT)
            widths[one] = [len(record) for record in records if any(record)] or [1]
        except csv.Error:
            widths[one] = [1]
    wide = [one for one, found in widths.items() if found[0] > 1]
    even = [one for one in wide if len(set(widths[one])) == 1]
    if len(even) > 1 or (not even and len(wide) > 1):
        listed = " or ".join(SEPARATORS[one] for one in even or wide)
        raise DataError(
            f"path: {file} may be separated by {listed}; say by which, with separator={shown((even or wide)[-1])}."
        )
    return (even or wide or [","])[0]


def _why_not(text: str, separator: str, file: str) -> str:
    """Why a text cannot be divided into cells: the first record that does not fit."""
    name = SEPARATORS.get(separator, repr(separator))
    width = None
    try:
        for number, record in enumerate(_records(text, separator)):
            if width is None:
                width = len(record)
            elif len(record) > width:
                more = " Numbers with decimal commas need another separator." if separator == "," else ""
                return (
                    f"path: {file}, row {number} below the header: it has {len(record)} cells where the header has "
                    f"{width}, divided at {name}; the first is {shown(record[0])}.{more} If the columns are separated "
                    "by something else, say by what with separator=CHARACTER."
                )
    except csv.Error:
        pass
    return f"path: {file} cannot be divided into cells at {name}: a quotation mark is not closed or stands in a cell."
