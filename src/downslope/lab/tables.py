"""From a .csv or .parquet file to columns of numbers, or to an error that a person can act on.

Nothing is guessed about the meaning of a column: text, dates and gaps are refused with the name of the column rather
than turned into numbers that nobody asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

Task = Literal["classification", "regression"]

FEWEST_ROWS = 10
FEWEST_ROWS_PER_CLASS = 5  # one for each fold, see `downslope.lab.problems`
MOST_INTEGER_CLASSES = 20


class DataError(ValueError):
    """The data cannot be raced on; the message says which part of it, and what to do."""


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file as numbers, neither split nor scaled.

    Attributes:
        name: The file's name without its suffix.
        file: The file's name.
        task: Classification or regression.
        x: The features in double precision, shape `(rows, features)`.
        y: The classes as integers from 0, or the targets in double precision; shape `(rows,)`.
        features: The names of the columns of `x`.
        classes: The names of the classes in the order of their numbers; None for regression.
    """

    name: str
    file: str
    task: Task
    x: NDArray[np.float64]
    y: NDArray[Any]
    features: tuple[str, ...]
    classes: tuple[str, ...] | None


def read_table(path: str | Path, *, target: str, task: Task | None = None, drop: Sequence[str] = ()) -> Table:
    """Read a table, check every column, and turn it into numbers.

    Args:
        path: A `.csv` file (comma-separated, with a header) or a `.parquet` file.
        target: The column to predict.
        task: Classification or regression; None to infer it from the target, as `load_table` describes.
        drop: Columns to leave out.

    Returns:
        The columns as numbers.

    Raises:
        DataError: The file, a column or an argument does not allow it.
    """
    path = Path(path)
    if task not in (None, "classification", "regression"):
        raise DataError(f"task: {task!r} is neither 'classification' nor 'regression'.")
    frame = _read(path)
    _require_column(frame, target, argument="target")
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    for name in drop:
        _require_column(frame, name, argument="drop")
    if target in drop:
        raise DataError(f"drop: {target!r} is the target, which cannot be left out.")
    frame = frame.drop(drop)
    if frame.height < FEWEST_ROWS:
        raise DataError(
            f"{path.name}: {_count(frame.height, 'row')} cannot be split into training, validation and test data; "
            f"at least {FEWEST_ROWS} are needed."
        )
    _refuse_gaps(frame)
    features = frame.drop(target)
    if not features.width:
        raise DataError(f"{path.name}: no feature is left beside the target {target!r}; drop fewer columns.")
    _refuse_text(features)
    _refuse_non_finite(features)
    column = frame[target]
    task = task or _infer_task(column)
    y, classes = _classes(column) if task == "classification" else (_numbers(column), None)
    return Table(
        name=path.stem,
        file=path.name,
        task=task,
        x=np.column_stack([_as_float(features[name]) for name in features.columns]),
        y=y,
        features=tuple(features.columns),
        classes=classes,
    )


def _read(path: Path) -> pl.DataFrame:
    import polars as pl

    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DataError(f"path: {str(path)!r} ends neither in .csv nor in .parquet; save the table as one of these.")
    if not path.exists():
        raise DataError(f"path: there is no file {str(path)!r}; check the spelling and the folder.")
    try:
        if suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        header = pl.read_csv(path, has_header=False, n_rows=1, infer_schema=False, glob=False)
        frame = pl.read_csv(path, infer_schema_length=None, glob=False)
    except pl.exceptions.NoDataError:
        raise DataError(f"path: {str(path)!r} is empty; it needs a header and rows.") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"path: {str(path)!r} cannot be read as {suffix[1:]}: {reason}. Is the file complete, "
            "and is it really of that kind?"
        ) from error
    # Polars renames repeated columns on reading; which one a person means by the name, it cannot know.
    names = ["" if name is None else name for name in header.row(0)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path.name}: the header repeats {_names(repeated)}; give every column its own name.")
    return frame


def _require_column(frame: pl.DataFrame, name: str, *, argument: str) -> None:
    if name in frame.columns:
        return
    lower = {column.lower(): column for column in reversed(frame.columns)}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
    if frame.width == 1 and any(mark in frame.columns[0] for mark in ";\t|"):
        hint = " The file does not seem to be separated by commas; save it so that it is."
    raise DataError(f"{argument}: there is no column {name!r}; the columns are {_names(frame.columns)}.{hint}")


def _refuse_gaps(frame: pl.DataFrame) -> None:
    gaps = {name: count for name, count in frame.null_count().row(0, named=True).items() if count}
    if gaps:
        listed = ", ".join(f"{name!r} ({count})" for name, count in gaps.items())
        raise DataError(
            f"missing values: {listed}, of {frame.height} rows; fill them, remove their rows, "
            "or leave a column out with --drop NAME."
        )


def _refuse_text(features: pl.DataFrame) -> None:
    refused = [name for name, kind in features.schema.items() if not _is_number(kind)]
    if refused:
        listed = ", ".join(f"{name!r} ({_describe(features[name])})" for name in refused)
        raise DataError(
            f"features must be numbers: {listed}; leave a column out with --drop NAME, or encode it as numbers first."
        )


def _refuse_non_finite(features: pl.DataFrame) -> None:
    bad = {name: int((~np.isfinite(_as_float(features[name]))).sum()) for name in features.columns}
    if any(bad.values()):
        listed = ", ".join(f"{name!r} ({count})" for name, count in bad.items() if count)
        raise DataError(
            f"values that are NaN or infinite: {listed}, of {features.height} rows; replace them, remove their rows, "
            "or leave a column out with --drop NAME."
        )


def _infer_task(column: pl.Series) -> Task:
    kind = column.dtype
    if kind.is_integer():
        return "classification" if column.n_unique() <= MOST_INTEGER_CLASSES else "regression"
    return "regression" if kind.is_numeric() or kind.is_temporal() else "classification"


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    if not _is_number(column.dtype):
        raise DataError(
            f"target: {column.name!r} holds no numbers ({_describe(column)}), so there is no number to predict; "
            "encode it as numbers, or choose classification if its values are classes."
        )
    y = _as_float(column)
    bad = int((~np.isfinite(y)).sum())
    if bad:
        raise DataError(f"target: {column.name!r} is NaN or infinite in {_count(bad, 'row')}; remove them.")
    if (y == y[0]).all():
        raise DataError(f"target: {column.name!r} is {y[0]:g} in every row; there is nothing to predict.")
    return y


def _classes(column: pl.Series) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    import polars as pl

    if column.dtype.is_temporal() or column.dtype.is_nested():
        raise DataError(f"target: {column.name!r} holds no classes ({_describe(column)}); name another column.")
    if column.dtype.is_float() and not column.is_finite().all():
        raise DataError(f"target: {column.name!r} holds NaN or infinite values; remove their rows.")
    # Enum and Categorical have an order of their own, which is not the one of their names.
    values = column if _is_number(column.dtype) else column.cast(pl.String)
    distinct = values.unique().sort()
    classes = tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in distinct)
    if len(classes) == 1:
        raise DataError(f"target: {column.name!r} is {classes[0]!r} in every row; there is nothing to tell apart.")
    y = distinct.search_sorted(values).to_numpy().astype(np.int64)
    sizes = np.bincount(y)
    smallest = int(sizes.argmin())
    if sizes[smallest] < FEWEST_ROWS_PER_CLASS:
        others = int((sizes < FEWEST_ROWS_PER_CLASS).sum()) - 1
        raise DataError(
            f"target: of {column.name!r}, the class {classes[smallest]!r} has {_count(sizes[smallest], 'row')}"
            f"{f' (and {others} more of its {len(classes)} classes have too few)' if others else ''}; each needs at "
            f"least {FEWEST_ROWS_PER_CLASS} to be split. Remove or merge the rare classes, or choose regression if "
            "the values are quantities."
        )
    return y, classes


def _as_float(column: pl.Series) -> NDArray[np.float64]:
    import polars as pl

    return column.cast(pl.Float64).to_numpy()


def _is_number(kind: pl.DataType) -> bool:
    import polars as pl

    return kind.is_numeric() or kind.is_(pl.Boolean)


def _describe(column: pl.Series) -> str:
    # An example of what is in the way says more than the type: often it is one "?" among a thousand numbers.
    import polars as pl

    if column.dtype.is_(pl.String):
        is_text = column.cast(pl.Float64, strict=False).is_null()
        example = column.filter(is_text)[0] if is_text.any() else column[0]
        return f"text, e.g. {example!r}"
    if column.dtype.is_temporal():
        return "dates or times"
    return str(column.dtype)


def _names(names: Iterable[str], most: int = 30) -> str:
    listed = [repr(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
