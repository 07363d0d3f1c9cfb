"""From a table, in a file or in memory, to columns of numbers, or to an error that a person can act on.

Nothing is guessed about the meaning of a column: text, dates and gaps are refused with the name of the column and the
row, unless the caller asks for text to be encoded and gaps to be filled. What was found out about the form of a file
is said in the table's remarks.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from downslope.lab.columns import Columns, DataError, Kind
from downslope.lab.delimited import read_delimited, shown

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DataError", "Table", "Task", "names_a_table", "read_table"]

Task = Literal["classification", "regression"]

TEXTS = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXTS, *(text + packed for text in TEXTS for packed in (".gz", ".zst")), ".parquet")
"""How the names of files end that are read as tables."""

MISSING = ("NA", "N/A", "n/a", "na", "#N/A", "<NA>", "nan", "NaN", "NAN", "null", "NULL", "Null", "None", "?", "-")
"""What stands for a missing value, besides an empty cell."""

FEWEST_ROWS = 10
FEWEST_ROWS_PER_CLASS = 5  # one for each fold, see `downslope.lab.problems`
MOST_INTEGER_CLASSES = 20
MOST_CATEGORIES = 100
NO_CATEGORY = "(missing)"

COMMA_NUMBER = r"^[+-]?(\d+|\d+,\d*|,\d+)([eE][+-]?\d+)?$"
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"  # what may be a decimal comma or a separator of thousands
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


@dataclass(eq=False)
class _Source:
    """A table on its way: its columns, and how to speak of it."""

    name: str
    file: str
    frame: pl.DataFrame
    rows: NDArray[np.int64]
    below: str = ""
    as_text: bool = False
    separator: str | None = None
    remarks: list[str] = field(default_factory=list)

    def place(self, row: int) -> str:
        return f"row {self.rows[row]}{self.below}"


def names_a_table(name: str) -> bool:
    """Whether a path ends like one of the files that are read as tables.

    Example:
        >>> names_a_table("houses.CSV.gz"), names_a_table("digits")
        (True, False)
    """
    return name.lower().endswith(SUFFIXES)


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
    table = _source(source, separator, encoding, decimal_comma)
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    _require_column(table, target, argument="target")
    for name in drop:
        _require_column(table, name, argument="drop")
    if target in drop:
        raise DataError(f"drop: {target!r} is the target, which cannot be left out.")
    words = _words(missing)
    first = table.frame.columns[0]
    table.frame = table.frame.drop(drop)
    _take_out_missing(table, words)
    if table.as_text:
        _decide_on_commas(table, decimal_comma)
        table.frame = table.frame.with_columns([_typed(column) for column in table.frame])
    if not keep_index and first != target and first not in drop:
        _leave_out_index(table, first)
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


# Where a table comes from


def _source(source: object, separator: str | None, encoding: str | None, decimal_comma: bool | None) -> _Source:
    if isinstance(source, (str, Path)):
        return _file(Path(source), separator, encoding)
    for name, value in (("separator", separator), ("encoding", encoding), ("decimal_comma", decimal_comma)):
        if value is not None:
            raise DataError(f"{name}={value!r}: that is for files of text; this table is in memory.")
    return _in_memory(_polars(source), "table", "table")


def _file(path: Path, separator: str | None, encoding: str | None) -> _Source:
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
        return _Source(
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


def _in_memory(frame: pl.DataFrame, name: str, file: str) -> _Source:
    if not frame.width:
        raise DataError(f"path: {file!r} has no columns.")
    return _Source(name, file, frame, np.arange(1, frame.height + 1))


def _require_column(table: _Source, name: str, *, argument: str) -> None:
    columns = table.frame.columns
    if name in columns:
        return
    lower = {column.lower(): column for column in reversed(columns)}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f" Did you mean {shown(lower[near[0]])}?" if near else ""
    if table.as_text and table.frame.width == 1:
        hint = " If its columns are separated by something else, say by what with separator=CHARACTER."
    elif table.as_text and all(_reads_as_number(column) for column in columns):
        hint = " The first line holds nothing but numbers; the file needs a line with the names of the columns."
    raise DataError(f"{argument}: there is no column {name!r}; the columns are {_names(columns)}.{hint}")


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# From text to values


def _words(missing: Sequence[str] | None) -> tuple[str, ...]:
    if missing is None:
        return MISSING
    return (missing,) if isinstance(missing, str) else tuple(str(word) for word in missing)


def _take_out_missing(table: _Source, words: tuple[str, ...]) -> None:
    import polars as pl

    numbers = [float(word) for word in words if _reads_as_number(word)]
    changed = []
    for column in table.frame:
        kind = column.dtype
        if isinstance(kind, (pl.String, pl.Categorical, pl.Enum)):
            text = column.cast(pl.String)
            stripped = text.str.strip_chars()
            gap = stripped.is_in(["", *words])
            changed.append(pl.select(pl.when(gap).then(None).otherwise(text).alias(column.name)).to_series())
        elif kind.is_float() or (kind.is_numeric() and numbers):
            values = column.cast(pl.Float64)
            gap = values.is_nan() | values.is_in([number for number in numbers if number == number])
            changed.append(pl.select(pl.when(gap).then(None).otherwise(column).alias(column.name)).to_series())
    table.frame = table.frame.with_columns(changed)


def _decide_on_commas(table: _Source, decimal_comma: bool | None) -> None:
    """Turn decimal commas into points, once it is certain that commas are decimal."""
    import polars as pl

    def example(names: list[str], test: Callable[[pl.Series], pl.Series]) -> tuple[str, str, str] | None:
        for name in names:
            hit = test(table.frame[name]).fill_null(False).arg_true()
            if len(hit):
                return name, table.place(int(hit[0])), shown(table.frame[name][int(hit[0])])
        return None

    commas, points = [], []
    for column in table.frame:
        if column.str.contains(COMMA_NUMBER).all() and column.str.contains(",", literal=True).any():
            commas.append(column.name)
        elif column.str.contains(".", literal=True).any() and column.cast(
            pl.Float64, strict=False
        ).is_not_null().sum() == (column.is_not_null().sum()):
            points.append(column.name)
    with_point = example(points, lambda column: column.str.contains(".", literal=True))
    with_comma = example(commas, lambda column: column.str.contains(",", literal=True))
    if decimal_comma and with_point:
        name, place, cell = with_point
        raise DataError(
            f"decimal_comma=True: column {name!r}, {place}: {cell} has a point, which may be decimal or separate "
            "thousands; write all numbers alike."
        )
    if with_comma is None or decimal_comma is False:
        return
    certain = example(commas, lambda column: column.str.contains(",", literal=True) & ~column.str.contains(THOUSANDS))
    name, place, cell = certain or with_comma
    if with_point and not decimal_comma:
        raise DataError(
            f"column {name!r}, {place}: {cell} has a comma, and column {with_point[0]!r}, {with_point[1]}: "
            f"{with_point[2]} a point; write all numbers alike, without separators of thousands."
        )
    if certain is None and not decimal_comma:
        raise DataError(
            f"column {name!r}, {place}: {cell} may have a decimal comma or a separator of thousands; say "
            "decimal_comma=True if it is decimal, and otherwise remove the separators."
        )
    table.frame = table.frame.with_columns(pl.col(commas).str.replace(",", ".", literal=True))
    if not decimal_comma:
        table.remarks.append(f"Numbers are read with decimal commas, as in column {name!r}, {place}: {cell}.")


def _typed(column: pl.Series) -> pl.Series:
    """A column of text as integers, numbers or booleans if all of its cells are such, and else as it is."""
    import polars as pl

    cells = column.len() - column.null_count()
    if not cells:
        return column
    for kind in (pl.Int64, pl.Float64):
        cast = column.cast(kind, strict=False)
        if cast.len() - cast.null_count() == cells:
            return cast.fill_nan(None) if kind is pl.Float64 else cast
    lower = column.str.to_lowercase()
    if lower.is_in(["true", "false"]).all():
        return (lower == "true").alias(column.name)
    return column


def _leave_out_index(table: _Source, first: str) -> None:
    column = table.frame[first]
    unnamed = first in ("", "Unnamed: 0", "__index_level_0__")
    if unnamed and column.dtype.is_integer() and not column.null_count() and column.n_unique() == column.len():
        if table.frame.width < 2 + 1:
            return  # the only feature there is
        table.frame = table.frame.drop(first)
        what = "without name" if not first else f"{first!r}"
        table.remarks.append(
            f"Left out the first column, {what}: different whole numbers, {column[0]}, {column[1]}, … as an index has; "
            "keep_index=True keeps it."
        )


# What is refused, or filled and encoded on request


def _refuse_gaps(table: _Source, target: str, words: tuple[str, ...], impute: bool) -> None:
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


def _refuse_text(table: _Source, features: pl.DataFrame, encode: bool) -> None:
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


def _numbers_of(table: _Source, features: pl.DataFrame) -> Columns:
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


def _finite(column: pl.Series, table: _Source) -> NDArray[np.float64]:
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


def _quantity(column: pl.Series, table: _Source) -> Columns:
    if not _is_number(column.dtype):
        raise DataError(
            f"target: {column.name!r} holds no numbers ({_describe(column, table)}), so there is no number to predict; "
            "make numbers of it, or say task='classification' if its values are classes."
        )
    y = _finite(column, table)
    if (y == y[0]).all():
        raise DataError(f"target: {column.name!r} is {y[0]:g} in every row; there is nothing to predict.")
    return Columns(y[:, None], (column.name,), ("number",), table.place)


def _classes(column: pl.Series, table: _Source) -> tuple[NDArray[np.int64], tuple[str, ...]]:
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


def _describe(column: pl.Series, table: _Source) -> str:
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
