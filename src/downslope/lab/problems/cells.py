"""From cells of text to values: what is missing, what a comma means, what is a number, what only counts the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from downslope.lab.problems.columns import DataError
from downslope.lab.problems.delimited import shown
from downslope.lab.problems.sources import Source

if TYPE_CHECKING:
    import polars as pl

MISSING = ("NA", "N/A", "n/a", "na", "#N/A", "<NA>", "nan", "NaN", "NAN", "null", "NULL", "Null", "None", "?", "-")
"""What means a missing value, besides an empty cell."""

COMMA_NUMBER = r"^[+-]?(\d+|\d+,\d*|,\d+)([eE][+-]?\d+)?$"
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(,\d{3})+$"  # what may be a decimal comma or a separator of thousands


def reads_as_number(text: str) -> bool:
    """Whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def words_of(missing: Sequence[str] | None) -> tuple[str, ...]:
    """The words that mean a missing value: those that were asked for, or the usual ones."""
    if missing is None:
        return MISSING
    return (missing,) if isinstance(missing, str) else tuple(str(word) for word in missing)


def take_out_missing(table: Source, words: tuple[str, ...]) -> None:
    """Make cells null that are empty, not a number, or one of the words."""
    import polars as pl

    numbers = [float(word) for word in words if reads_as_number(word)]
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


def decide_on_commas(table: Source, decimal_comma: bool | None) -> None:
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


def typed(column: pl.Series) -> pl.Series:
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


def leave_out_index(table: Source, first: str) -> None:
    """Leave out a first column without name that only counts the rows, and say so."""
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
