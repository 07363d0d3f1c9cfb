"""A problem from a table of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from downslope.lab.problems.problem import Problem, assemble, check_sizes
from downslope.lab.problems.tables import Task, read_table

if TYPE_CHECKING:
    import polars as pl


def load_table(
    path: str | Path | pl.DataFrame | Any,
    *,
    target: str,
    hidden: tuple[int, ...] = (64,),
    task: Task | None = None,
    drop: Sequence[str] = (),
    separator: str | None = None,
    decimal_comma: bool | None = None,
    encoding: str | None = None,
    missing: Sequence[str] | None = None,
    keep_index: bool = False,
    impute: bool = False,
    encode: bool = False,
    batch_size: int | None = None,
    epochs: int = 30,
) -> Problem:
    """Make a problem from a table.

    Features are standardised, and so is the target of a regression: a loss of 1 there is what predicting the mean
    gives. Columns of booleans become 0 and 1; a column that is constant in the training rows becomes 0 everywhere.

    A file may be separated by commas, semicolons, tabs or vertical bars, have decimal commas, and be encoded in UTF-8,
    UTF-16 or cp1252: which of these is found out, and said in the problem's `remarks`. Where two readings fit, the file
    is refused until an argument says which is meant. A first column without name that only counts the rows is left out.

    Args:
        path: A file with a header that ends in `.csv`, `.tsv` or `.txt`, perhaps compressed (`.gz`, `.zst`); or a
            `.parquet` file; or a data frame of Polars or pandas, or an Arrow table.
        target: The column to predict.
        hidden: The sizes of the hidden layers; `()` gives a linear model.
        task: Whether to predict a class or a number. By default a target of text or booleans, or of integers with at
            most 20 distinct values, means classification, and any other target regression.
        drop: Columns to leave out.
        separator: The character between the cells of a text file, or the word `"tab"`; None to find out.
        decimal_comma: Whether the numbers of a text file are written as 1,5; None to find out.
        encoding: The encoding of a text file, such as `"utf-8"`; None to find out.
        missing: The words that stand for a missing value, instead of NA, N/A, nan, null, None, ? and - in their usual
            spellings; an empty cell always does.
        keep_index: Whether to keep a first column that only counts the rows.
        impute: Whether to fill the gaps of features: of numbers with the median of the training rows, of booleans with
            their more frequent value, of text with a category of its own. Rows without a target are left out.
        encode: Whether to turn each feature of text into one column of zeros and ones per category, at most 100. A
            category that is not in the training rows is 0 in all of them.
        batch_size: Rows per step; by default a power of two between 4 and 128, about a sixteenth of the training rows.
        epochs: Passes over the training rows in one run.

    Returns:
        The problem, named after the file; the same file gives the same problem.

    Raises:
        DataError: The file, a column or an argument does not allow it; the message names it and says what to do.

    Example:
        >>> import polars as pl
        >>> rows = range(60)
        >>> columns = {"size": [k / 7 for k in rows], "town": ["A", "B"] * 30, "price": [k % 9 / 2 for k in rows]}
        >>> houses = pl.DataFrame(columns)
        >>> problem = load_table(houses, target="price", encode=True)
        >>> problem.task, problem.features
        ('regression', ('size', 'town=A', 'town=B'))
    """
    check_sizes(hidden=hidden, batch_size=batch_size, epochs=epochs)
    table = read_table(
        path,
        target=target,
        task=task,
        drop=drop,
        separator=separator,
        decimal_comma=decimal_comma,
        encoding=encoding,
        missing=missing,
        keep_index=keep_index,
        impute=impute,
        encode=encode,
    )
    return assemble(
        name=table.name,
        title=f"{table.file}: {target}",
        task=table.task,
        x=table.x,
        y=table.y,
        classes=table.classes,
        hidden=tuple(hidden),
        batch_size=batch_size,
        epochs=epochs,
        remarks=table.remarks,
    )
