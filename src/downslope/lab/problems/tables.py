"""From a table, in a file or in memory, to columns of numbers, or to an error that a person can act on.

Nothing is guessed about the meaning of a column: text, dates and gaps are refused with the name of the column and the
row, unless the caller asks for text to be encoded and gaps to be filled. What was found out about the form of a file
is said in the table's remarks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.cells import (
    decide_on_commas,
    leave_out_index,
    reads_as_number,
    take_out_missing,
    typed,
    words_of,
)
from downslope.lab.problems.columns import Columns, DataError, Kind
from downslope.lab.problems.delimited import shown
from downslope.lab.problems.sources import Source, source_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DataError", "Table", "Task", "read_table"]

Task = Literal["classification", "regression"]

FEWEST_ROWS = 10
FEWEST_ROWS_PER_CLASS = 5  # one for each fold, see `downslope.lab.problems.problem`
MOST_INTEGER_CLASSES = 20
MOST_CATEGORIES = 100
NO_CATEGORY = "(missing)"

LIKE_A_NUMBER = r"^[-+$€£]?\s*\d[\d.,' ]*([eE][+-]?\d+)?\s*%?$"


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a table as numbers, neither split nor scaled.

    Attributes:
        name: The file's name without its suffixes.
        file: The file's name.
        task: Classification or regression.
        x: The features; text as one column of zeros and ones per category, gaps as NaN.
        y: The classes as integers from 0, shape `(rows,)`; or the target of a regression, one column without gaps.
        classes: The names of the classes in the order of their numbers; None for regression.
        remarks: Sentences on how the table was read, where that was not the plain way.
    """

    name: str
    file: str
    task: Task
    x: Columns
    y: NDArray[np.int64] | Columns
    classes: tuple[str, ...] | None
    remarks: tuple[str, ...]


def read_table(
    source: object,
    *,
    target: str,
    task: Task | None = None,
    drop: Sequence[str] = (),
    separator: str | None = None,
    decimal_comma: bool | None = None,
    encoding: str | None = None,
    missing: Sequence[str] | None = None,
    keep_index: bool = False,
    impute: bool = False,
    encode: bool = False,
) -> Table:
    """Read a table, check every column, and turn it into numbers.

    Args:
        source: A path or a data frame, as `load_table` takes it.
        target: The column to predict.
        task: Classification or regression; None to infer it from the target, as `load_table` describes.
        drop: Columns to leave out.
        separator: See `load_table`, like the other arguments that are not explained here.
        decimal_comma: Whether numbers are written as 1,5; None to find out.
        encoding: The encoding of a text file.
        missing: The words that stand for a missing value, instead of the usual ones.
        keep_index: Whether to keep a first column that only counts the rows.
        impute: Whether to allow gaps in features.
        encode: Whether to turn features of text into zeros and ones.

    Returns:
        The columns as numbers.

    Raises:
        DataError: The file, a column or an argument does not allow it.
    """
    if task not in (None, "classification", "regression"):
        raise DataError(f"task: {task!r} is neither 'classification' nor 'regression'.")
    table = source_of(source, separator, encoding, decimal_comma)
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    _require_column(table, target, argument="target")
    for name in drop:
        _require_column(table, name, argument="drop")
    if target in drop:
        raise DataError(f"drop: {target!r} is the target, which cannot be left out.")
    words = words_of(missing)
    first = table.frame.columns[0]
    table.frame = table.frame.drop(drop)
    take_out_missing(table, words)
    if table.as_text:
        decide_on_commas(table, decimal_comma)
        table.frame = table.frame.with_columns([typed(column) for column in table.frame])
    if not keep_index and first != target and first not in drop:
        leave_out_index(table, first)
    _refuse_gaps(table, target, words, impute)
    if table.frame.height < FEWEST_ROWS:
        raise DataError(
            f"{table.file}: {_count(table.frame.height, 'row')} cannot be split into training, validation and test "
            f"data; at least {FEWEST_ROWS} are needed."
        )
    features = table.frame.drop(target)
    if not features.width:
        raise DataError(f"{table.file}: no feature is left beside the target {target!r}; drop fewer columns.")
    _refuse_text(table, features, encode)
    column = table.frame[target]
    task = task or _infer_task(column)
    x = _numbers_of(table, features)
    y, classes = _classes(column, table) if task == "classification" else (_quantity(column, table), None)
    for part in (x, y) if isinstance(y, Columns) else (x,):
        table.remarks += [
            f"Column {part.names[at]!r}, {table.place(row)}: {part.values[row, at]:g} is {times:.0e} times as far from "
            "the middle as most values; if it is a mistake, correct it or remove its row."
            for at, row, times in part.far()
        ]
    return Table(table.name, table.file, task, x, y, classes, tuple(table.remarks))


def _require_column(table: Source, name: str, *, argument: str) -> None:
    columns = table.frame.columns
    if name in columns:
        return
    lower = {column.lower(): column for column in reversed(columns)}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f" Did you mean {shown(lower[near[0]])}?" if near else ""
    if table.as_text and table.frame.width == 1:
        hint = " If its columns are separated by something else, say by what with separator=CHARACTER."
    elif table.as_text and all(reads_as_number(column) for column in columns):
        hint = " The first line holds nothing but numbers; the file needs a line with the names of the columns."
    lacking = f"there is no column {name!r}" if name else f"say which column to predict, with {argument}=COLUMN"
    raise DataError(f"{argument}: {lacking}; the columns are {_names(columns)}.{hint}")


def _refuse_gaps(table: Source, target: str, words: tuple[str, ...], impute: bool) -> None:
    import polars as pl

    frame = table.frame
    gaps = {name: count for name, count in frame.null_count().row(0, named=True).items() if count}
    if not gaps:
        return
    empty = [name for name in gaps if gaps[name] == frame.height]
    if empty and frame.height:
        raise DataError(
            f"column {shown(empty[0])} has no value in any row; leave it out with drop={empty[0]!r}, or give it values."
        )
    listed = ", ".join(
        f"{name!r} ({count}, first in {table.place(int(frame[name].is_null().arg_true()[0]))})"
        for name, count in gaps.items()
    )
    if not impute:
        raise DataError(
            f"missing values: {listed}, of {frame.height} rows; fill features with their medians by impute=True, "
            "remove the rows, or leave a column out with drop=NAME. "
            + (
                f"An empty cell and the words {', '.join(words)} count as missing; "
                if table.as_text and words
                else "An empty cell counts as missing; "
            )
            + "other words with missing=WORD."
        )
    if target in gaps:
        known = frame[target].is_not_null()
        table.remarks.append(f"Left out {_count(gaps.pop(target), 'row')} in which the target {target!r} is missing.")
        table.rows = table.rows[known.to_numpy()]
        table.frame = frame.filter(known)
    for name in gaps:
        missing = table.frame[name].null_count()
        if not missing:
            continue
        if _is_number(table.frame.schema[name]):
            kind = "more frequent value" if table.frame.schema[name].is_(pl.Boolean) else "median"
            how = f"filled with the {kind} of the training rows"
        else:
            how = "a category of its own"
        table.remarks.append(f"Column {name!r}: {_count(missing, 'missing value')}, {how}.")


def _refuse_text(table: Source, features: pl.DataFrame, encode: bool) -> None:
    refused = [name for name, kind in features.schema.items() if not _is_number(kind)]
    never = [name for name in refused if not _is_text(features.schema[name])]
    if refused and (never or not encode):
        listed = ", ".join(f"{name!r} ({_describe(features[name], table)})" for name in never or refused)
        encoded = "" if never else " encode=True turns text into zeros and ones, one column per category."
        raise DataError(
            f"features must be numbers: {listed}; leave a column out with drop=NAME, or make numbers of it.{encoded}"
        )
    for name in refused:
        column = features[name].drop_nulls()
        like = column.str.contains(LIKE_A_NUMBER).sum()
        if 2 * like >= column.len():
            raise DataError(
                f"encode=True: column {name!r} ({_describe(features[name], table)}) looks like numbers in {like} of "
                f"{column.len()} rows; correct the others, name a word for missing values with missing=WORD, or leave "
                f"the column out with drop={name!r}."
            )
        if column.n_unique() > MOST_CATEGORIES:
            raise DataError(
                f"encode=True: column {name!r} has {column.n_unique()} categories, e.g. {shown(column[0])}; more than "
                f"{MOST_CATEGORIES} are not encoded. Merge some, or leave the column out with drop={name!r}."
            )


def _numbers_of(table: Source, features: pl.DataFrame) -> Columns:
    import polars as pl

    values: list[NDArray[np.float64]] = []
    names: list[str] = []
    kinds: list[Kind] = []
    for column in features:
        if _is_number(column.dtype):
            values.append(_finite(column, table))
            names.append(column.name)
            kinds.append("flag" if column.dtype.is_(pl.Boolean) else "number")
            continue
        text = column.cast(pl.String).fill_null(NO_CATEGORY)
        for category in text.unique().sort():
            values.append((text == category).to_numpy().astype(np.float64))
            names.append(f"{column.name}={category}")
            kinds.append("category")
    return Columns(np.column_stack(values), tuple(names), tuple(kinds), table.place)


def _finite(column: pl.Series, table: Source) -> NDArray[np.float64]:
    values = _as_float(column)
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"column {column.name!r}, {table.place(row)}: the value is infinite or beyond 1.8e308"
            f"{_and_more(int(infinite.sum()))}; correct it, remove the row, or leave the column out with "
            f"drop={column.name!r}."
        )
    return values


def _and_more(number: int) -> str:
    return f" (as in {_count(number - 1, 'more row')})" if number > 1 else ""


def _infer_task(column: pl.Series) -> Task:
    kind = column.dtype
    if kind.is_integer():
        return "classification" if column.n_unique() <= MOST_INTEGER_CLASSES else "regression"
    return "regression" if kind.is_numeric() or kind.is_temporal() else "classification"


def _quantity(column: pl.Series, table: Source) -> Columns:
    if not _is_number(column.dtype):
        raise DataError(
            f"target: {column.name!r} holds no numbers ({_describe(column, table)}), so there is no number to predict; "
            "make numbers of it, or say task='classification' if its values are classes."
        )
    y = _finite(column, table)
    if (y == y[0]).all():
        raise DataError(f"target: {column.name!r} is {y[0]:g} in every row; there is nothing to predict.")
    return Columns(y[:, None], (column.name,), ("number",), table.place)


def _classes(column: pl.Series, table: Source) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    import polars as pl

    if column.dtype.is_temporal() or column.dtype.is_nested():
        raise DataError(f"target: {column.name!r} holds no classes ({_describe(column, table)}); name another column.")
    if column.dtype.is_numeric():
        _finite(column, table)
    # Enum and Categorical have an order of their own, which is not the one of their names.
    values = column if _is_number(column.dtype) else column.cast(pl.String)
    distinct = values.unique().sort()
    classes = tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in distinct)
    if len(classes) == 1:
        raise DataError(f"target: {column.name!r} is {shown(classes[0])} in every row; there is nothing to tell apart.")
    y = distinct.search_sorted(values).to_numpy().astype(np.int64)
    sizes = np.bincount(y)
    smallest = int(sizes.argmin())
    if sizes[smallest] < FEWEST_ROWS_PER_CLASS:
        others = int((sizes < FEWEST_ROWS_PER_CLASS).sum()) - 1
        quantities = ", or say task='regression' if the values are quantities" if _is_number(column.dtype) else ""
        raise DataError(
            f"target: of {column.name!r}, the class {shown(classes[smallest])} has {_count(sizes[smallest], 'row')}, "
            f"{'' if sizes[smallest] == 1 else 'the first '}{table.place(int((y == smallest).argmax()))}"
            f"{f' (and {others} more of its {len(classes)} classes have too few)' if others else ''}; each needs at "
            f"least {FEWEST_ROWS_PER_CLASS} to be split. Remove or merge the rare classes{quantities}."
        )
    return y, classes


def _as_float(column: pl.Series) -> NDArray[np.float64]:
    import polars as pl

    return column.cast(pl.Float64).to_numpy()


def _is_number(kind: pl.DataType) -> bool:
    import polars as pl

    return kind.is_numeric() or kind.is_(pl.Boolean)


def _is_text(kind: pl.DataType) -> bool:
    import polars as pl

    return kind.is_(pl.String)


def _describe(column: pl.Series, table: Source) -> str:
    # An example of what is in the way says more than the type: often it is one "unknown" among a thousand numbers.
    import polars as pl

    if column.dtype.is_(pl.String):
        is_text = (column.cast(pl.Float64, strict=False).is_null() & column.is_not_null()).arg_true()
        row = int(is_text[0]) if len(is_text) else int(column.is_not_null().arg_true()[0])
        return f"text, e.g. {shown(column[row])} in {table.place(row)}"
    if column.dtype.is_temporal():
        return "dates or times"
    return str(column.dtype)


def _names(names: Iterable[str], most: int = 30) -> str:
    listed = [shown(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
