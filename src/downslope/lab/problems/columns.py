"""Columns as they are read from a table, and as a network is given them: no gaps, scaled, within 32-bit floats.

What fills a gap or scales a column is learned from the training rows alone, so that nothing about the validation and
test rows leaks into training. The number of columns is the same for every choice of training rows, so that one
compiled program serves all splits of a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["number", "flag", "category", "ready"]

LARGEST = 1e15
"""No scaled value may exceed this: squares of it, summed over rows and columns, still are 32-bit floats."""

FAR = 1e6
"""A value that is this many times as far from the middle as most are is worth a remark."""


class DataError(ValueError):
    """The data cannot be raced on; the message says which part of it, and what to do."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """How columns are scaled by some training rows: `(value - shift) * factor`, and `fill` where there is no value.

    Attributes:
        shift: One number per column, in double precision.
        factor: The same; 0 for a column that is constant in the training rows.
        fill: The same, already scaled.
    """

    shift: NDArray[np.float64]
    factor: NDArray[np.float64]
    fill: NDArray[np.float64]

    def of(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values of shape `(rows, columns)`, scaled, in double precision."""
        scaled = (np.asarray(values, np.float64) - self.shift) * self.factor
        return np.where(np.isnan(values), self.fill, scaled)


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of numbers, neither split nor scaled, perhaps with gaps.

    Attributes:
        values: Shape `(rows, columns)`, in double precision as read; NaN where a value is missing.
        names: The names of the columns.
        kinds: For each column what is done to it. A `"number"` is standardised and its gaps are filled with the median;
            a `"flag"` (0 or 1) is standardised and filled with the more frequent value; a `"category"` is a column of a
            one-hot encoding and stays 0 or 1; what is `"ready"` is left as it is.
        place: What messages call the row with an index.
        unit: The number of the table that 1 in `values` stands for, counted from `middle`; for messages.
        middle: The number of the table that 0 in `values` stands for; for messages.
    """

    values: NDArray[Any]
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    place: Callable[[int], str] = lambda row: f"row {row + 1}"
    unit: NDArray[np.float64] | float = 1.0
    middle: NDArray[np.float64] | float = 0.0

    def centred(self, rows: NDArray[np.intp]) -> Columns:
        """The same columns in 32-bit floats that lose nothing when they are scaled by one choice of rows or another.

        What is to be standardised is counted from the median of `rows`, in units of the largest distance from it there.

        Args:
            rows: The indices of the rows that training rows are ever chosen from.
        """
        some = np.array([kind in ("number", "flag") for kind in self.kinds], dtype=bool)
        middle, unit = np.zeros(len(some)), np.ones(len(some))
        values = self.values.copy()
        if some.any():
            with np.errstate(over="ignore", invalid="ignore"):
                # Dividing by the largest value first keeps differences from overflowing.
                largest = np.nan_to_num(np.nanmax(np.abs(values[rows][:, some]), axis=0, initial=0.0))
                largest = np.where(largest > 0, largest, 1.0)
                part = values[:, some] / largest
                empty = np.isnan(part[rows]).all(axis=0)
                middles = np.where(empty, 0.0, np.nanmedian(np.where(empty, 0.0, part[rows]), axis=0))
                part = part - middles
                reach = np.nanmax(np.abs(part[rows]), axis=0, initial=0.0)
                reach = np.where(reach > 0, reach, 1.0)
                values[:, some] = part / reach
                middle[some], unit[some] = middles * largest, reach * largest
        most = np.finfo(np.float32).max
        return replace(self, values=np.clip(values, -most, most).astype(np.float32), unit=unit, middle=middle)

    def scaling(self, train: NDArray[np.integer[Any]]) -> Scaling:
        """The scaling that follows from the training rows alone."""
        chosen = np.asarray(self.values[train], np.float64)
        fill = self._fill(chosen)
        chosen = np.where(np.isnan(chosen), fill, chosen)
        some = np.array([kind in ("number", "flag") for kind in self.kinds], dtype=bool)
        constant = (chosen == chosen[0]).all(axis=0)
        shift = np.where(some, chosen.mean(axis=0), 0.0)
        factor = np.ones(len(some))
        factor[some] = 1 / np.where(constant, 1.0, chosen.std(axis=0))[some]
        # Nothing can be learned from a category that no training row has, nor from a number that they all share.
        factor[constant & np.array([kind != "ready" for kind in self.kinds], dtype=bool)] = 0.0
        return Scaling(shift, factor, (fill - shift) * factor)

    def prepared(self, train: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """All rows, without gaps, scaled as follows from the training rows.

        A column that is constant in the training rows is 0 everywhere, since nothing can be learned from it; so a
        category that is not among them is 0 in all columns of its encoding.

        Args:
            train: The indices of the training rows.

        Returns:
            Double precision, of the shape of `values`.

        Raises:
            DataError: A scaled value exceeds `LARGEST`.

        Example:
            >>> columns = Columns(np.array([[2.0], [4.0], [np.nan], [8.0]]), ("a",), ("number",))
            >>> columns.prepared(np.array([0, 1])).ravel().tolist()
            [-1.0, 1.0, 0.0, 5.0]
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scaling = self.scaling(train)
            scaled = scaling.of(self.values)
        scaled[:, scaling.factor == 0] = 0.0  # however far a value is from a constant column
        self._refuse_too_far(scaled)
        return scaled

    def far(self) -> list[tuple[int, int, float]]:
        """The values that lie `FAR` beyond most of their column, the farthest of each column.

        Returns:
            For each such column its index, the index of the row, and how many times as far from the median the value
            is as the rows nearest to it are on average.

        Raises:
            DataError: A value is so far that some choice of training rows would take it past `LARGEST`.
        """
        found = []
        for column, kind in enumerate(self.kinds):
            if kind != "number" or np.isnan(self.values[:, column]).all():
                continue
            times, most = _times_as_far(self.values[:, column])
            row = int(times.argmax())
            if float(times[row]) * most > LARGEST:
                raise self._too_far(column, row)
            if times[row] > FAR:
                found.append((column, row, float(times[row])))
        return found

    def _fill(self, chosen: NDArray[np.float64]) -> NDArray[np.float64]:
        """What fills the gaps of each column, by the training rows `chosen`."""
        fill = np.zeros(len(self.kinds))
        gaps = np.isnan(self.values).any(axis=0)
        for kind, strategy in (("number", "median"), ("flag", "most_frequent")):
            which = gaps & np.array([one == kind for one in self.kinds], dtype=bool)
            if which.any():
                from sklearn.impute import SimpleImputer

                imputer = SimpleImputer(strategy=strategy, keep_empty_features=True).fit(chosen[:, which])
                fill[which] = imputer.statistics_
        return fill

    def _refuse_too_far(self, scaled: NDArray[np.float64]) -> None:
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(scaled) <= LARGEST)
        if bad.any():
            row, column = (int(index) for index in np.argwhere(bad)[0])
            raise self._too_far(column, row)

    def _as_read(self, row: int, column: int) -> float:
        unit, middle = (np.broadcast_to(one, len(self.names))[column] for one in (self.unit, self.middle))
        return float(self.values[row, column] * unit + middle)

    def _too_far(self, column: int, row: int) -> DataError:
        return DataError(
            f"column {self.names[column]!r}, {self.place(row)}: {self._as_read(row, column):g} is too far from the "
            f"other values for 32-bit floats: scaled by them it would exceed {LARGEST:g}. Correct it, remove its row, "
            f"or leave the column out with drop={self.names[column]!r}."
        )


def _times_as_far(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """How far each value is from the median, in units of what the rows nearest to it have in common.

    The unit is the root mean square distance of as many rows as the smallest training set has, gaps counted as the
    median. That is at most the square root of 7 times the standard deviation of any training set, for more than a
    sixth of its rows lie on the other side of the median. If all of these rows are equal, it is the distance of the
    nearest other row, for a training set that is not constant holds one like it.

    Returns:
        The distances, and how many times larger a scaled value can be.
    """
    rows = len(values)
    values = values / 4  # the distance of the largest numbers is a number then
    distances = np.nan_to_num(np.abs(values - np.nanmedian(values)))
    near = np.sort(distances)[: rows - 2 * math.ceil(rows / 5)]
    if near[-1] > 0:
        unit, most = near[-1] * np.sqrt(np.mean((near / near[-1]) ** 2)), 3.0
    else:
        unit, most = distances[distances > 0].min(initial=np.finfo(np.float64).max), 3.0 * math.sqrt(rows)
    with np.errstate(over="ignore"):
        times: NDArray[np.float64] = distances / unit
    return times, most
