"""Columns as they stand in a table, and what a network is given instead: whole, scaled, within 32-bit floats.

What fills a gap or scales a column is learned from the training rows alone, so that nothing about the validation and
test rows leaks into training. The number of columns is the same for every choice of training rows, so that one
compiled program serves all splits of a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
class Columns:
    """Columns of numbers, neither split nor scaled, perhaps with gaps.

    Attributes:
        values: Double precision, shape `(rows, columns)`; NaN where a value is missing.
        names: The names of the columns.
        kinds: For each column what is done to it. A `"number"` is standardised and its gaps are filled with the median;
            a `"flag"` (0 or 1) is standardised and filled with the more frequent value; a `"category"` is a column of a
            one-hot encoding and stays 0 or 1; what is `"ready"` is left as it is.
        place: What a person calls the row of an index, for errors.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    place: Callable[[int], str] = lambda row: f"row {row + 1}"

    def prepared(self, train: NDArray[np.intp]) -> NDArray[np.float64]:
        """All rows, without gaps and scaled, by what the training rows say.

        A column that is constant in the training rows says nothing there and is 0 everywhere; so a category that is
        not among them is 0 in all columns of its encoding.

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
        filled = self._filled(train)
        scaled = filled.copy()
        standardised = np.array([kind in ("number", "flag") for kind in self.kinds], dtype=bool)
        scaled[:, standardised] = _standardised(filled[:, standardised], train)
        categories = np.array([kind == "category" for kind in self.kinds], dtype=bool)
        constant = (filled[train] == filled[train[0]]).all(axis=0)
        scaled[:, categories & constant] = 0.0
        self._refuse_too_far(scaled)
        return scaled

    def far(self) -> list[tuple[int, int, float]]:
        """The values that lie `FAR` beyond most of their column, the farthest of each column.

        Returns:
            For each such column its index, the index of the row, and how many times as far from the median the value
            is as the typical one of the 60 % of the rows that are nearest to it.

        Raises:
            DataError: A value is so far that some choice of training rows would take it past `LARGEST`.
        """
        found = []
        for column, kind in enumerate(self.kinds):
            if kind != "number" or np.isnan(self.values[:, column]).all():
                continue
            times = _times_as_far(self.values[:, column])
            row = int(np.nanargmax(times))
            if times[row] > LARGEST:
                raise self._too_far(column, row)
            if times[row] > FAR:
                found.append((column, row, float(times[row])))
        return found

    def _filled(self, train: NDArray[np.intp]) -> NDArray[np.float64]:
        gaps = np.isnan(self.values).any(axis=0)
        if not gaps.any():
            return self.values
        from sklearn.impute import SimpleImputer

        filled = self.values.copy()
        for kind, strategy in (("number", "median"), ("flag", "most_frequent")):
            which = gaps & np.array([one == kind for one in self.kinds])
            if which.any():
                imputer = SimpleImputer(strategy=strategy, keep_empty_features=True).fit(self.values[train][:, which])
                filled[:, which] = imputer.transform(self.values[:, which])
        return filled

    def _refuse_too_far(self, scaled: NDArray[np.float64]) -> None:
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(scaled) <= LARGEST)
        if bad.any():
            row, column = (int(index) for index in np.argwhere(bad)[0])
            raise self._too_far(column, row)

    def _too_far(self, column: int, row: int) -> DataError:
        return DataError(
            f"column {self.names[column]!r}, {self.place(row)}: {self.values[row, column]:g} is too far from the other "
            f"values for 32-bit floats: scaled by them it would exceed {LARGEST:g}. Correct it, remove its row, or "
            f"leave the column out with drop={self.names[column]!r}."
        )


def _standardised(x: NDArray[Any], train: NDArray[np.intp]) -> NDArray[np.float64]:
    # Dividing by the largest value first keeps the squares in the standard deviation from overflowing.
    largest = np.abs(x[train]).max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        x = x / np.where(largest > 0, largest, 1.0)
        constant = np.ptp(x[train], axis=0) == 0
        spread = np.where(constant, 1.0, x[train].std(axis=0))
        scaled: NDArray[np.float64] = np.where(constant, 0.0, (x - x[train].mean(axis=0)) / spread)
    return scaled


def _times_as_far(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value's distance from the median over the typical distance of the nearest 60 %, the size of a training set.

    Where these are all equal, the training sets that are not constant hold another value, at least as far as the
    nearest other one.
    """
    largest = np.nanmax(np.abs(values))
    values = values / largest if largest > 0 else values
    distances = np.abs(values - np.nanmedian(values))
    near = np.sort(distances[~np.isnan(distances)])[: max(1, round(0.6 * np.count_nonzero(~np.isnan(distances))))]
    typical = float(np.sqrt(np.mean(near**2)))
    # The squares of distances below 1e-154 are 0.
    if typical == 0 and near[-1] > 0:
        typical = float(near[-1])
    if typical == 0:
        others = distances[distances > 0]
        typical = float(others.min()) if len(others) else 1.0
    with np.errstate(over="ignore"):
        times: NDArray[np.float64] = distances / typical
    return times
