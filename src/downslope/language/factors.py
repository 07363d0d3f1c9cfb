"""The words of a formula that factorise a matrix, `eigenvectors` and `qr`, and the one that sorts one: `sort_by`.

Called with arrays of any library they compute; of expressions they make an expression. What mathematics leaves open is
settled, so that libraries agree: eigenvectors come in the order of their eigenvalues and with their largest element
positive, and the triangular factor that `qr` does not give has no negative number on its diagonal.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from downslope.language.operations import namespace
from downslope.language.vmapped import one_by_one

__all__ = ["eigenvectors", "qr", "sort_by"]


def eigenvectors(a: Any) -> Any:
    """The eigenvectors of a symmetric matrix as the columns of another, that of the smallest eigenvalue first.

    Each has the length 1 and its largest element positive. The eigenvalues are `sum(q * (a @ q), axis=0)`, one for each
    column of `q`. Of a matrix that is not finite all is nan.

    Args:
        a: A square array of any library, of which the two triangles are the same; or an expression of a formula.

    Raises:
        FormulaError: The expression is of no square matrix.
        ValueError: The array is not square.
        ArithmeticError: It did not converge, in double precision either; JAX and TensorFlow give nan instead.

    Example:
        >>> import numpy as np
        >>> eigenvectors(np.array([[2.0, 0.0], [0.0, 1.0]]))
        array([[0., 1.],
               [1., 0.]])
    """
    return _of("eigenvectors", a)


def qr(a: Any) -> Any:
    """The orthogonal factor of a square matrix: its columns, each made orthogonal to those before it, of length 1.

    It is the Q of `a = Q @ R`, where the diagonal of R is not negative. Of a matrix that is not finite all is nan.

    Args:
        a: A square array of any library, or an expression of a formula.

    Raises:
        FormulaError: The expression is of no square matrix.
        ValueError: The array is not square.

    Example:
        >>> import numpy as np
        >>> qr(np.array([[0.0, 3.0], [-2.0, 1.0]])) + 0.0
        array([[ 0.,  1.],
               [-1.,  0.]])
    """
    return _of("qr", a)


def sort_by(a: Any, by: Any) -> Any:
    """A matrix with its columns in the order of one number for each of them, the smallest first; or with its rows so.

    Args:
        a: A matrix of any library, or an expression of a formula.
        by: One number for each column, as a matrix of one row; or for each row, as a matrix of one column.

    Raises:
        FormulaError: The expression `by` is neither one for each row of `a` nor for each column.
        ValueError: The array is neither.

    Example:
        >>> import numpy as np
        >>> sort_by(np.array([[10.0, 20.0, 30.0]]), np.array([[3.0, 1.0, 2.0]]))
        array([[20., 30., 10.]])
    """
    return _of("sort_by", a, by)


def _of(op: str, *args: Any) -> Any:
    for arg in args:
        if hasattr(type(arg), "__of_matrix__"):
            return type(arg).__of_matrix__(op, *args)
    arrays = [arg if hasattr(arg, "shape") else np.asarray(arg, np.float64) for arg in args]
    return factored(op, arrays, namespace(arrays))


def factored(op: str, arrays: list[Any], xp: ModuleType) -> Any:
    """One of the words, of arrays of a library.

    Args:
        op: The word.
        arrays: What it is applied to.
        xp: The library, such as `numpy`, `torch`, `jax.numpy`, `keras.ops`.
    """
    shape = tuple(arrays[0].shape)
    if op == "sort_by":
        along = tuple(arrays[1].shape)
        if len(shape) != 2 or along not in ((1, shape[1]), (shape[0], 1)):
            raise ValueError(
                f"sort_by(a, by): a has shape {shape} and by {along}; give a matrix, and one number for each of its "
                "columns as a matrix of one row, or for each of its rows as a matrix of one column"
            )
        rows = along == (shape[0], 1) and shape[0] != 1
        return _taken(arrays[0], _order(arrays[1], xp), 0 if rows else 1, xp)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{op}: an array of shape {shape} is no square matrix; give one, such as a @ a.T")
    own = namespace(arrays)
    if own is not np and own.__name__ == "torch":
        xp = own  # Keras's functions on it are those of PyTorch, which raise where others give nan
    if xp is not np and xp.__name__ != "torch":
        function = functools.partial(_eigenvectors if op == "eigenvectors" else _orthogonal, xp=xp)
        return (one_by_one(function) if xp.__name__ == "jax.numpy" else function)(arrays[0])
    if not bool(xp.isfinite(arrays[0]).all()):
        return xp.full_like(arrays[0], xp.nan)
    if op == "qr":
        return _orthogonal(arrays[0], xp)
    return _converged(lambda a: _eigenvectors(a, xp), arrays[0], xp)


def _converged(function: Callable[[Any], Any], a: Any, xp: ModuleType) -> Any:
    """A function of a matrix, in double precision if it fails otherwise.

    Raises:
        ArithmeticError: It fails there too.
    """
    failed = np.linalg.LinAlgError if xp is np else xp.linalg.LinAlgError
    with contextlib.suppress(failed):
        return function(a)
    try:
        found = function(a.astype(np.float64) if xp is np else a.double())
    except failed as error:
        raise ArithmeticError(
            f"eigenvectors of a matrix of shape {tuple(a.shape)} did not converge, in double precision either "
            f"({error}); smaller steps, or max_norm=, keep gradients from growing so far apart"
        ) from None
    return found.astype(a.dtype) if xp is np else found.to(a.dtype)


def _eigenvectors(a: Any, xp: ModuleType) -> Any:
    found = (xp.linalg if hasattr(xp, "linalg") else xp).eigh(a)[1]
    place = xp.argmax(xp.abs(found), 0)
    peak = xp.diagonal(_taken(found, place, 0, xp))
    return xp.where(peak < 0, -found, found)


def _orthogonal(a: Any, xp: ModuleType) -> Any:
    q, r = (xp.linalg if hasattr(xp, "linalg") else xp).qr(a)
    return xp.where(xp.diagonal(r) < 0, -q, q)


def _order(by: Any, xp: ModuleType) -> Any:
    flat = xp.reshape(by, (-1,))
    stable: dict[str, Any] = {"kind": "stable"} if xp is np else {"stable": True} if xp.__name__ != "keras.ops" else {}
    return xp.argsort(flat, **stable)


def _taken(a: Any, order: Any, axis: int, xp: ModuleType) -> Any:
    return xp.index_select(a, axis, order) if xp.__name__ == "torch" else xp.take(a, order, axis=axis)
