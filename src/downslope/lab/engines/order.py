"""The order of batches, which follows from a run's seed alone, in every framework."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def batch_order(seed: int, epoch: int, rows: int, batch_size: int) -> NDArray[np.int32]:
    """Which rows form the batches of an epoch: a shuffle of all rows, cut into full batches.

    What is left over after the last full batch is not used in this epoch, so that all steps are alike; with fewer rows
    than one batch, all of them form the only batch.

    Args:
        seed: The seed of the run.
        epoch: The epoch, from 1.
        rows: The number of training rows.
        batch_size: Rows per step.

    Returns:
        Row numbers, shape `(steps, rows per step)`.

    Example:
        >>> batch_order(seed=0, epoch=1, rows=7, batch_size=3).shape
        (2, 3)
    """
    batch_size = min(batch_size, rows)
    steps = rows // batch_size
    order = np.random.default_rng((seed, epoch)).permutation(rows)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def drawn(seed: int, epoch: int, rows: int, batch_size: int, steps: int) -> NDArray[np.int32]:
    """Which rows form the batches of an epoch, each drawn from all of them whatever was drawn before.

    Args:
        seed: The seed of the run.
        epoch: The epoch, from 1.
        rows: The number of training rows.
        batch_size: Rows per step.
        steps: Steps of the epoch.

    Returns:
        Row numbers, shape `(steps, batch_size)`.
    """
    return np.random.default_rng((seed, epoch)).integers(rows, size=(steps, batch_size), dtype=np.int32)
