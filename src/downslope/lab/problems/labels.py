"""Losses and hits of models that tell classes apart, with one score for each class along the last axis."""

from __future__ import annotations

from typing import Any

import jax


def cross_entropy(scores: jax.Array, y: Any) -> jax.Array:
    """The cross-entropy of softmax in nats, averaged over all places of a row.

    Args:
        scores: Shape `(rows, ..., classes)`.
        y: The right classes, integers of shape `(rows, ...)`.

    Returns:
        Shape `(rows,)`.
    """
    # By a product with zeros and ones: to look the scores up would make the gradient write them one at a time.
    right = jax.nn.one_hot(y, scores.shape[-1], dtype=scores.dtype)
    losses = jax.nn.logsumexp(scores, axis=-1) - (scores * right).sum(axis=-1)
    return losses.reshape(len(scores), -1).mean(axis=1)


def hits(scores: jax.Array, y: Any) -> jax.Array:
    """The share of the places of a row whose highest score is that of the right class; arguments as above."""
    right = (scores.argmax(axis=-1) == y).reshape(len(scores), -1)
    shares: jax.Array = right.mean(axis=1, dtype=scores.dtype)
    return shares
