"""A problem: what rules race on.

A problem is rows, together with the model and the budget that belong to them. Where the rows are data, its test rows
are always the same; the others are split into training and validation rows in as many ways as there are numbers.
Scaling is always learned from the training rows of the split alone, so that nothing about the validation and test rows
leaks into training. Where nothing is learned from data, as in the descent of a function, the rows are the noise of its
steps, and the problem says which of them train and which stand for the loss without noise.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.columns import Columns, DataError
from downslope.lab.problems.model import Model
from downslope.lab.problems.tables import Task

TEST_SEED = 20_240_229
FOLDS = 5  # three to train, one to validate, one to test


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of a problem.

    Attributes:
        x: The features, float32 of shape `(rows, features)`.
        y: For classification the class of each row, int32 of shape `(rows,)`; for regression the target, float32 of
            shape `(rows, 1)`.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]


class Parts(NamedTuple):
    """The row numbers of a split, each part in ascending order."""

    train: NDArray[np.int32]
    valid: NDArray[np.int32]
    test: NDArray[np.int32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """Rows, model and training budget: what every rule of a race is given alike.

    Attributes:
        name: The short name, as given on the command line.
        title: The name for people.
        task: `"classification"` (cross-entropy) or `"regression"` (mean squared error); None: nothing is predicted.
        columns: The features of all rows in 32-bit floats, not yet scaled by any split.
        targets: The class of every row, int32 of shape `(rows,)`, or of each of its places, `(rows, places)`; or one
            column of targets.
        test_rows: The numbers of the rows that only the runs of the verdict see, about 20 %; no split changes them.
            There are none where nothing is predicted.
        hidden: The sizes of the hidden layers.
        outputs: The number of classes, or 1.
        model: What is trained; None: the network of `hidden` and `activation`.
        parts: Which rows train and which validate, where that is not for a split to say.
        draws: Steps of an epoch, if the rows of each are drawn independently, with replacement; None: an epoch is a
            pass over the training rows.
        about: What the problem is, in one sentence without its full stop, where nothing is predicted.
        shows: What a right implementation shows on it, in one sentence, with the source; empty if it is not for that.
        activation: The activation of the hidden layers.
        batch_size: Rows per step.
        epochs: Passes over the training rows in one run.
        data_hash: SHA-256 over all rows and which of them are test rows; two races with the same hash had the same
            numbers, and the same splits where their split seeds are the same too.
        classes: The names of the classes in the order of their numbers; None for regression.
        features: The names of the features.
        remarks: Sentences on how the table was read, where that was not the plain way.
    """

    name: str
    title: str
    task: Task | None
    columns: Columns
    targets: NDArray[np.int32] | Columns
    test_rows: NDArray[np.int32]
    hidden: tuple[int, ...]
    outputs: int
    batch_size: int
    epochs: int
    data_hash: str
    classes: tuple[str, ...] | None
    features: tuple[str, ...]
    activation: str = "relu"
    remarks: tuple[str, ...] = ()
    model: Model | None = None
    parts: Parts | None = None
    draws: int | None = None
    about: str = ""
    shows: str = ""

    def __post_init__(self) -> None:
        if self.task is None and (self.model is None or self.parts is None):
            raise DataError("task: None says that nothing is predicted; then give model and parts too.")

    def split(self, split_seed: int = 0, number: int = 0) -> Parts:
        """One of the many splits of the rows: a quarter of those that are not test rows validates, the others train.

        For a classification every class has its share of both, where a row has one class. A problem that says itself
        which rows are which has them so in every split.

        Args:
            split_seed: Any integer from 0; with each comes another family of splits.
            number: Any integer from 0: which of the family.

        Raises:
            DataError: The target is the same in all its training rows.

        Example:
            >>> from downslope.lab import load_problem
            >>> problem = load_problem("parabola")
            >>> [len(part) for part in problem.split(split_seed=3, number=1)]
            [600, 200, 200]
        """
        if self.parts is not None:
            return self.parts
        pool = np.setdiff1d(np.arange(len(self.columns.values), dtype=np.int32), self.test_rows)
        seed = int(np.random.SeedSequence((split_seed, number)).generate_state(1)[0])
        y = self.targets.values[pool, 0] if isinstance(self.targets, Columns) else self.targets[pool]
        train, valid = next(folds(y, self.task, FOLDS - 1, seed))
        if self.task == "regression" and (y[train] == y[train[0]]).all():
            raise DataError(
                f"target: of split {number} with split seed {split_seed} all {len(train)} training rows have the same "
                "value; there is too little to predict."
            )
        return Parts(pool[train], pool[valid], self.test_rows)

    def divided(self, parts: Parts) -> tuple[Split, Split, Split]:
        """The rows of a split for training, validation and test, scaled by its training rows.

        Raises:
            DataError: A value is too far from those for 32-bit floats.
        """
        x, y = self.prepared(parts)
        train, valid, test = (Split(x[rows], y[rows]) for rows in parts)
        return train, valid, test

    @property
    def scaled(self) -> bool:
        """Whether something about the rows depends on the split, because its training rows scale it."""
        columns = (self.columns, self.targets) if isinstance(self.targets, Columns) else (self.columns,)
        return any(kind != "ready" for one in columns for kind in one.kinds)

    def prepared(self, parts: Parts) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Features and targets of all rows, scaled by the training rows of a split.

        Raises:
            DataError: A value is too far from those for 32-bit floats.
        """
        x = self.columns.prepared(parts.train).astype(np.float32)
        if not isinstance(self.targets, Columns):
            return x, self.targets
        return x, self.targets.prepared(parts.train).astype(np.float32)

    @functools.cached_property
    def _first(self) -> tuple[Split, Split, Split]:
        return self.divided(self.split())

    @property
    def train(self) -> Split:
        """The training rows of the first split, about 60 % of all."""
        return self._first[0]

    @property
    def valid(self) -> Split:
        """The validation rows of the first split, about 20 % of all; every split has as many."""
        return self._first[1]

    @property
    def test(self) -> Split:
        """The test rows, scaled as those of the first split."""
        return self._first[2]


def assemble(
    *,
    name: str,
    title: str,
    task: Task,
    x: Columns,
    y: NDArray[Any] | Columns,
    classes: tuple[str, ...] | None,
    hidden: tuple[int, ...],
    batch_size: int | None,
    epochs: int,
    remarks: tuple[str, ...] = (),
    model: Model | None = None,
    shows: str = "",
) -> Problem:
    """Make a `Problem` of whole columns: choose its test rows, check that every split can be scaled, and hash it.

    Args:
        name: See `Problem`, like every argument that is not explained here.
        title: The name for people.
        task: Classification or regression.
        x: All features.
        y: All classes as integers from 0, shape `(rows,)` or `(rows, places)`, or one column of all targets.
        classes: The names of the classes; None for regression.
        hidden: The sizes of the hidden layers.
        batch_size: Rows per step; None to choose by the number of training rows.
        epochs: Passes over the training rows.
        remarks: Sentences on how the table was read.
        model: What is trained; None: the network of `hidden`.
        shows: What a right implementation shows.

    Raises:
        DataError: A value is too far from the others for 32-bit floats, or the target is constant in the training
            rows, or `batch_size` exceeds their number.
    """
    pool, test = next(folds(y.values[:, 0] if isinstance(y, Columns) else y, task, FOLDS, TEST_SEED))
    problem = Problem(
        name=name,
        title=title,
        task=task,
        columns=x.centred(pool),
        targets=y.centred(pool) if isinstance(y, Columns) else y.astype(np.int32),
        test_rows=test.astype(np.int32),
        hidden=hidden,
        outputs=1 if classes is None else len(classes),
        batch_size=batch_size or 1,
        epochs=epochs,
        data_hash="",
        classes=classes,
        features=x.names,
        remarks=remarks,
        model=model,
        shows=shows,
    )
    rows = len(problem.split().train)
    if batch_size is not None and batch_size > rows:
        raise DataError(f"batch_size: {batch_size} is more than the {rows} training rows; give at most {rows}.")
    problem.divided(problem.split())  # what cannot be scaled is refused here, not while a race runs
    return replace(problem, batch_size=batch_size or usual_batch_size(rows), data_hash=hash_of(x, y, test))


def check_sizes(*, hidden: tuple[int, ...], batch_size: int | None, epochs: int) -> None:
    """Refuse a network or a budget that has nothing in it.

    Raises:
        DataError: A size is less than 1.
    """
    for index, width in enumerate(hidden):
        if width < 1:
            raise DataError(f"hidden: layer {index + 1} of {tuple(hidden)} has size {width}; each needs at least 1.")
    if batch_size is not None and batch_size < 1:
        raise DataError(f"batch_size: {batch_size} rows per step make no step; give at least 1.")
    if epochs < 1:
        raise DataError(f"epochs: {epochs} epochs make no run; give at least 1.")


def folds(
    y: NDArray[Any], task: Task | None, count: int, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The row numbers of several ways to leave a fold of the rows out, and those of the fold; by class if there are."""
    # One of several folds rather than a share drawn at random: with as many rows of a class as there are folds, every
    # fold is certain to hold that class, and how many rows it has does not depend on the seed.
    from sklearn.model_selection import KFold, StratifiedKFold

    splitter = StratifiedKFold if task == "classification" and y.ndim == 1 else KFold
    folded: Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]] = splitter(
        count, shuffle=True, random_state=seed
    ).split(np.zeros(len(y)), y)
    return folded


def usual_batch_size(rows: int) -> int:
    """A power of two between 4 and 128, about a sixteenth of the training rows."""
    return int(min(2 ** np.clip(np.floor(np.log2(rows / 16)), 2, 7), rows))


def hash_of(x: Columns, y: Columns | NDArray[Any], test: NDArray[np.integer[Any]]) -> str:
    """SHA-256 over all rows, and which of them are test rows."""
    digest = hashlib.sha256()
    for array in (x.values, y.values if isinstance(y, Columns) else y, test):
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
