"""Where a table comes from: a file by its path, or a data frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.columns import DataError
from downslope.lab.problems.delimited import read_delimited, shown

if TYPE_CHECKING:
    import polars as pl

TEXTS = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXTS, *(text + packed for text in TEXTS for packed in (".gz", ".zst")), ".parquet")
"""How the names of files end that are read as tables."""


@dataclass(eq=False)
class Source:
    """A table while it is read: its columns, and what messages call it."""

    name: str
    file: str
    frame: pl.DataFrame
    rows: NDArray[np.int64]
    below: str = ""
    as_text: bool = False
    separator: str | None = None
    remarks: list[str] = field(default_factory=list)

    def place(self, row: int) -> str:
        """What messages call the row with an index."""
        return f"row {self.rows[row]}{self.below}"


def names_a_table(name: str) -> bool:
    """Whether a path ends like one of the files that are read as tables.

    Example:
        >>> names_a_table("houses.CSV.gz"), names_a_table("digits")
        (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def source_of(source: object, separator: str | None, encoding: str | None, decimal_comma: bool | None) -> Source:
    """The table that is meant by a path or a data frame."""
    if isinstance(source, (str, Path)):
        return _file(Path(source), separator, encoding)
    for name, value in (("separator", separator), ("encoding", encoding), ("decimal_comma", decimal_comma)):
        if value is not None:
            raise DataError(f"{name}={value!r}: that is for files of text; this table is in memory.")
    return _in_memory(_polars(source), "table", "table")


def _file(path: Path, separator: str | None, encoding: str | None) -> Source:
    import polars as pl

    if not names_a_table(path.name):
        raise DataError(f"path: {str(path)!r} ends in none of {', '.join(SUFFIXES)}; save the table as one of these.")
    if not path.exists():
        raise DataError(f"path: there is no file {str(path)!r}; check the spelling and the folder.")
    if path.is_dir():
        raise DataError(f"path: {str(path)!r} is a folder; give a file in it.")
    name = path.name[: -max(len(one) for one in SUFFIXES if path.name.lower().endswith(one))]
    if path.suffix.lower() != ".parquet":
        cells = read_delimited(path, separator=separator, encoding=encoding)
        return Source(
            name, path.name, cells.frame, cells.rows, " below the header", True, cells.separator, list(cells.remarks)
        )
    try:
        return _in_memory(pl.read_parquet(path, glob=False), name, path.name)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"path: {str(path)!r} cannot be read as parquet: {shown(reason, 200)}. Is the file complete, and is it "
            "really of that kind?"
        ) from error


def _polars(source: object) -> pl.DataFrame:
    import polars as pl

    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    kind = f"{type(source).__module__.partition('.')[0]}.{type(source).__name__}"
    try:
        if kind == "pandas.DataFrame":
            found: Any = pl.from_pandas(source)
        elif hasattr(source, "__arrow_c_stream__"):
            found = pl.DataFrame(source)
        else:
            raise DataError(f"path: {kind} is neither a path nor a data frame of polars, pandas or Arrow.")
    except ImportError as error:
        raise DataError(f"path: this {kind} cannot be read without pyarrow: pip install pyarrow ({error}).") from None
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"path: this {kind} cannot be read: {shown(reason, 200)}.") from error
    if not isinstance(found, pl.DataFrame):
        raise DataError(f"path: {kind} is no table; give a data frame.")
    return found


def _in_memory(frame: pl.DataFrame, name: str, file: str) -> Source:
    if not frame.width:
        raise DataError(f"path: {file!r} has no columns.")
    return Source(name, file, frame, np.arange(1, frame.height + 1))
