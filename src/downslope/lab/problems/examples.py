"""Examples to learn from, as a model of the user's own takes them: arrays with one row for each.

Nothing about them is changed but the precision: what a model is to see scaled, its owner scales. A table is another
matter: what it is, `load_table` finds out, and its columns are scaled by the training rows of each split.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.builtin import PROBLEMS, load_problem
from downslope.lab.problems.columns import DataError
from downslope.lab.problems.from_table import load_table
from downslope.lab.problems.problem import FOLDS, TEST_SEED, Parts, Problem, folds, usual_batch_size
from downslope.lab.problems.readers import Read, read
from downslope.lab.problems.sources import names_a_table
from downslope.lab.problems.tables import FEWEST_ROWS, FEWEST_ROWS_PER_CLASS, Task

EPOCHS = 30
"""Passes over the training rows in one run, where nobody says how many."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Examples and a training budget: what a race on a model of the user's own has in place of a `Problem`.

    Attributes:
        name: The short name.
        title: The name for people.
        task: `"classification"` where the targets are whole numbers, else `"regression"`.
        x: What the model is given, of shape `(rows, ...)`: float32, or whole numbers of 64 bits.
        y: What it is to say: whole numbers of 64 bits, or float32; of shape `(rows, ...)`.
        test_rows: The numbers of the rows that only the runs of the verdict see, about 20 %.
        classes: How many classes there are; None for a regression, or where they have not been counted.
        batch_size: Rows per step.
        epochs: Passes over the training rows in one run.
        data_hash: SHA-256 over all rows and which of them are test rows.
        remarks: Sentences on how the data were read, where that was not the plain way.
        parts: None: which rows train and which validate is for a split to say.
        draws: None: an epoch is a pass over the training rows.
    """

    name: str
    title: str
    task: Task
    x: NDArray[Any]
    y: NDArray[Any]
    test_rows: NDArray[np.int32]
    classes: int | None
    batch_size: int
    epochs: int
    data_hash: str
    remarks: tuple[str, ...] = ()

    parts: Parts | None = None
    draws: int | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.x)

    @property
    def scaled(self) -> bool:
        """Whether what a model sees depends on the split: it does not."""
        return False

    def split(self, split_seed: int = 0, number: int = 0) -> Parts:
        """One of the many splits of the rows, drawn as `Problem.split` does: by class where there are classes."""
        pool = np.setdiff1d(np.arange(self.rows, dtype=np.int32), self.test_rows)
        seed = int(np.random.SeedSequence((split_seed, number)).generate_state(1)[0])
        train, valid = next(folds(self.y[pool], _drawn_by(self.y), FOLDS - 1, seed))
        return Parts(pool[train], pool[valid], self.test_rows)

    def prepared(self, parts: Parts) -> tuple[NDArray[Any], NDArray[Any]]:
        """All rows as a model sees them, which no split changes."""
        return self.x, self.y


def examples_of(
    data: object,
    *,
    target: str | None = None,
    task: Task | None = None,
    as_they_are: bool = False,
    batch_size: int | None = None,
    epochs: int | None = None,
) -> Problem | Examples:
    """The examples that are meant by what a person gives as data.

    Args:
        data: A pair of arrays `(inputs, targets)`, of any framework; a `Dataset` or `DataLoader` of PyTorch or a
            `tf.data.Dataset` of such pairs; the path of an `.npz` file of two arrays; a table, as a file or a data
            frame, with its `target`; the name of a built-in problem; or one from `load_table`.
        target: The column of a table to predict.
        task: Classification or regression; None: as the targets say.
        as_they_are: Whether classes keep their numbers, because a loss of the user's own may mean something by them.
        batch_size: Rows per step; by default as the data say, else a power of two between 4 and 128.
        epochs: Passes over the training rows; by default as the data say, else 30.

    Raises:
        DataError: The data do not allow a race; the message names what is wrong and says what to do.

    Example:
        >>> examples = examples_of((np.arange(60.0).reshape(20, 3), [0, 1] * 10))
        >>> examples.task, examples.x.dtype.name, len(examples.split().train)
        ('classification', 'float32', 12)
    """
    for name, count in (("batch_size", batch_size), ("epochs", epochs)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1):
            raise DataError(f"{name}={count!r}: give a whole number of at least 1")
    found = _table(data, target, task, batch_size, epochs)
    if found is not None:
        return found
    if target is not None:
        raise DataError(f"target={target!r} names a column of a table; these data are none, leave it out")
    return _assembled(read(data), task, as_they_are, batch_size, epochs)


def _table(
    data: object, target: str | None, task: Task | None, batch_size: int | None, epochs: int | None
) -> Problem | Examples | None:
    """The problem that is meant, if it is a table, comes with the package or has been read before."""
    sizes = {"batch_size": batch_size, "epochs": epochs}
    given: dict[str, Any] = {name: int(count) for name, count in sizes.items() if count is not None}
    if isinstance(data, str) and data in PROBLEMS:
        data = load_problem(data)
    if isinstance(data, (Problem, Examples)):
        if target is not None:
            raise DataError(f"target={target!r}: these data have theirs; leave it out")
        if task not in (None, data.task):
            raise DataError(f"data: {data.title} is a {data.task}, which the loss does not fit; leave the loss out")
        if data.task is None:
            raise DataError(f"data: {data.name} has no data that a model could learn from; it is a function to descend")
        rows = len(data.split().train)
        if batch_size is not None and batch_size > rows:
            raise DataError(f"batch_size: {batch_size} is more than the {rows} training rows; give at most {rows}.")
        return replace(data, **given)
    is_file = isinstance(data, (str, Path)) and names_a_table(str(data))
    if not (is_file or hasattr(data, "__arrow_c_stream__") or hasattr(data, "iloc")):
        return None
    return load_table(data, target=target or "", task=task, **given)


def _assembled(
    found: Read, task: Task | None, as_they_are: bool, batch_size: int | None, epochs: int | None
) -> Examples:
    x, remarks = _inputs(found.x), list(found.remarks)
    y, classes = _targets(found.y, task, as_they_are, remarks)
    if not len(x) == len(y):
        raise DataError(f"data: {len(x):,} rows of inputs and {len(y):,} of targets; give as many of both")
    if len(x) < FEWEST_ROWS:
        some = f"{len(x)} row{'s' if len(x) != 1 else ''}" if len(x) else "no rows"
        raise DataError(
            f"data: {some} cannot be split into training, validation and test data; at least {FEWEST_ROWS} are needed"
        )
    _, test = next(folds(y, _drawn_by(y), FOLDS, TEST_SEED))
    examples = Examples(
        name=found.name,
        title=found.title,
        task="classification" if y.dtype.kind == "i" else "regression",
        x=x,
        y=y,
        test_rows=test.astype(np.int32),
        classes=classes,
        batch_size=1,
        epochs=EPOCHS if epochs is None else int(epochs),
        data_hash=_hash(x, y, test),
        remarks=tuple(remarks),
    )
    rows = len(examples.split().train)
    if batch_size is not None and batch_size > rows:
        raise DataError(f"batch_size: {batch_size} is more than the {rows} training rows; give at most {rows}.")
    return replace(examples, batch_size=min(batch_size or found.batch_size or usual_batch_size(rows), rows))


def _inputs(x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.kind not in "fiub" or x.ndim == 0:
        raise DataError(
            f"data: inputs of the kind {x.dtype.name} with shape {x.shape}; give an array of numbers with a row for "
            "each example, or load_table(...) for columns of text"
        )
    _refuse_gaps("inputs", x)
    if x.dtype.kind in "iu" and x.dtype != np.uint8:
        return x.astype(np.int64)  # what embeddings look up
    return _float("inputs", x)


def _targets(
    y: NDArray[Any], task: Task | None, as_they_are: bool, remarks: list[str]
) -> tuple[NDArray[Any], int | None]:
    """The targets, and how many classes they are if they are."""
    if y.dtype.kind in "UTO" and all(isinstance(one, str) for one in y.ravel().tolist()) and not as_they_are:
        kind = "text"
    elif y.dtype.kind in "fiub" and y.ndim:
        kind = "numbers"
        _refuse_gaps("targets", y)
    else:
        raise DataError(f"data: targets of the kind {y.dtype.name} with shape {y.shape}; give numbers, one row each")
    whole = y.dtype.kind in "iub" or kind == "text"
    if task == "classification" and not whole:
        raise DataError(
            f"data: cross-entropy needs classes, and the targets are {y.dtype.name}; give whole numbers from 0, or "
            'loss="mse"'
        )
    if not whole or task == "regression":
        if kind == "text":
            raise DataError('data: the targets are text, which has no mean squared error; leave out loss="mse"')
        if len(y) and (y == y[:1]).all():
            raise DataError(f"data: all {len(y):,} targets are the same; there is nothing to predict")
        return _float("targets", y), None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if as_they_are:
        return y.astype(np.int64), None
    names, numbers = np.unique(y, return_inverse=True)
    if len(y) and len(names) == 1:
        raise DataError(f"data: all {len(y):,} targets are of one class, {names[0]}; there is nothing to predict")
    if y.ndim == 1 and len(y) >= FEWEST_ROWS and (few := np.bincount(numbers).min()) < FEWEST_ROWS_PER_CLASS:
        scarce = names[np.bincount(numbers).argmin()]
        raise DataError(
            f"data: class {scarce} has {few} row{'s' if few != 1 else ''}; each of the {len(names)} classes needs at "
            f"least {FEWEST_ROWS_PER_CLASS}. If the targets are quantities, give them as floats"
        )
    if y.ndim > 1 and y.dtype.kind in "iu" and y.min() >= 0:
        return y.astype(np.int64), int(y.max()) + 1  # tokens, of which some are rare
    if kind == "text" or not np.array_equal(names, np.arange(len(names))):
        listed = ", ".join(map(str, names[:3])) + (" ..." if len(names) > 3 else "")
        remarks.append(f"The classes {listed} are numbered from 0 to {len(names) - 1} in this order.")
    return numbers.reshape(y.shape).astype(np.int64), len(names)


def _float(what: str, values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if not np.isfinite(found).all():
        row = int(np.argwhere(~np.isfinite(found))[0][0])
        raise DataError(f"data: {what}, row {row}, hold a value too large for 32-bit floats; scale them")
    return found


def _refuse_gaps(what: str, values: NDArray[Any]) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        at = np.argwhere(~np.isfinite(values))
        rows = len(np.unique(at[:, 0]))
        raise DataError(
            f"data: {what} are not finite in {rows:,} of {len(values):,} rows, first {values[tuple(at[0])]} in row "
            f"{at[0][0]} (counted from 0); leave these rows out, or fill them"
        )


def _drawn_by(y: NDArray[Any]) -> Task:
    """Whether splits are drawn by class: where there is one class a row, and enough rows of each."""
    if y.dtype.kind != "i" or y.ndim != 1:
        return "regression"
    return "classification" if np.unique(y, return_counts=True)[1].min() >= FOLDS else "regression"


def _hash(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
