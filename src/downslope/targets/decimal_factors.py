"""Factors of matrices of decimal numbers, as `language.factors` gives them; in the arithmetic that is set."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from decimal import Decimal, getcontext
from typing import Any

import numpy as np

SWEEPS = 60
"""After how many sweeps rotations have long made any matrix diagonal, which takes about ten of them."""


def eigenvectors(a: Any) -> Any:
    """By Jacobi's rotations, each of which makes one element off the diagonal 0."""
    n = len(a)
    a, q = a.copy(), np.array([[Decimal(i == j) for j in range(n)] for i in range(n)], object)
    least = Decimal(10) ** (-getcontext().prec) * sum((abs(one) for one in a.ravel()), Decimal(0))
    if not least.is_finite():
        return np.full(a.shape, Decimal("nan"), object)
    for _ in range(SWEEPS):
        if all(abs(a[i, j]) <= least for i in range(n) for j in range(i)):
            break
        for i, j in itertools.combinations(range(n), 2):
            if not a[i, j]:
                continue
            slope = (a[j, j] - a[i, i]) / (2 * a[i, j])
            tangent = (1 if slope >= 0 else -1) / (abs(slope) + (slope * slope + 1).sqrt())
            cosine = 1 / (tangent * tangent + 1).sqrt()
            for rotated in (a.T, a, q.T):  # columns of it, rows of it, columns of what they come from
                first, second = rotated[i].copy(), rotated[j].copy()
                rotated[i], rotated[j] = cosine * (first - tangent * second), cosine * (second + tangent * first)
    q = q[:, sorted(range(n), key=lambda k: a[k, k])]
    for column in q.T:
        if max(column, key=abs) < 0:
            column[...] = -column
    return q


def qr(a: Any) -> Any:
    """By Gram and Schmidt, twice, which is as good as exact; a column that depends on those before it turns another."""
    n = len(a)
    done: list[Any] = []
    if not all(one.is_finite() for one in a.ravel()):
        return np.full(a.shape, Decimal("nan"), object)
    for k in range(n):
        for column in (a[:, k], *np.array([[Decimal(i == j) for j in range(n)] for i in range(n)], object)):
            size, rest = (column @ column).sqrt(), column
            for other in done * 2:
                rest = rest - (other @ rest) * other
            length = (rest @ rest).sqrt()
            if length > size * Decimal(10) ** (5 - getcontext().prec):
                break
        done.append(rest / length)
    return np.array(done, object).T


FACTORIZED: dict[str, Callable[[Any], Any]] = {"eigenvectors": eigenvectors, "qr": qr}
"""The words of `language.operations.FACTORS`."""


def sort_by(a: Any, by: Any) -> Any:
    """A matrix with its columns, or rows, in the order of one number for each of them."""
    order = sorted(range(by.size), key=lambda k: by.ravel()[k])
    return a[order] if by.shape[1] == 1 and len(a) > 1 else a[:, order]
