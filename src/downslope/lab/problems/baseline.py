"""What a rule has to beat to be of any use: predicting the same for every row, without a look at its features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.columns import Columns
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.problem import Problem, Split
from downslope.lab.problems.tables import Task

NAMES: dict[Task, str] = {
    "regression": "predicting the mean of the training targets",
    "classification": "predicting the class frequencies of the training rows",
}


def baseline(task: Task, train: Split, valid: Split) -> tuple[float, float | None]:
    """The validation loss and accuracy of a constant prediction that is learned from the training targets alone.

    Args:
        task: For `"regression"` the mean of the training targets is predicted; for `"classification"` the frequencies
            of the classes, and for the accuracy the most frequent one.
        train: The training rows.
        valid: The validation rows.

    Returns:
        The mean squared error and None, or the mean cross-entropy in nats, infinite if there is a class without a
        training row, and the accuracy.

    Example:
        >>> rows = Split(np.zeros((4, 1)), np.array([0, 0, 0, 1]))
        >>> loss, accuracy = baseline("classification", rows, rows)
        >>> round(loss, 3), accuracy
        (0.562, 0.75)
    """
    if task == "regression":
        targets = valid.y.astype(np.float64)
        return float(np.mean((targets - train.y.mean(axis=0, dtype=np.float64)) ** 2)), None
    counts = np.bincount(train.y, minlength=int(valid.y.max()) + 1)
    with np.errstate(divide="ignore"):
        losses = -np.log(counts / len(train.y))
    return float(losses[valid.y].mean()), float(np.mean(valid.y == counts.argmax()))


def baseline_on(
    problem: Problem | Examples, train: NDArray[np.int32], rows: NDArray[np.int32]
) -> tuple[float, float | None]:
    """The loss and accuracy of a constant prediction on some rows of a problem, learned from the training rows."""
    assert problem.task is not None  # else there is nothing to predict
    y: Any = problem.y if isinstance(problem, Examples) else problem.targets
    if isinstance(y, Columns):
        y = y.scaling(train).of(y.values)
    nothing = np.empty((len(y), 0), np.float32)
    parts = (y[part].ravel() if problem.task == "classification" else y[part] for part in (train, rows))
    return baseline(problem.task, *(Split(nothing, part) for part in parts))
