"""Rules that look at a matrix from the directions in which its gradients vary: Shampoo and SOAP.

The directions are the eigenvectors of `dx @ dx.T` and `dx.T @ dx`, summed or averaged over the steps, and it takes two
square matrices as large as a tensor's sides to remember these. A side longer than 10,000 is left out: with as many
elements, such a matrix would be 400 MB in single precision.

A tensor of more than two dimensions is the matrix of its first dimension and all others. The authors' codes take a
matrix for each dimension by default; SOAP's merges dimensions if asked to.
"""

from typing import Any

from downslope.language.factors import eigenvectors, qr, sort_by
from downslope.language.formula import columns, columns_by_columns, rows, rows_by_rows, scalar
from downslope.language.operations import maximum, sqrt, where
from downslope.language.parts import part
from downslope.language.whole import size, sum
from downslope.rule import rule

__all__ = ["shampoo", "soap"]
"""In the order of publication."""

LONGEST = 10_000
"""The longest side of a tensor for which a square matrix is kept."""


def _power(a: Any, exponent: float, eps: Any) -> Any:
    """A power of a symmetric matrix without negative eigenvalues, to each of which `eps` is added before."""
    q = eigenvectors(a)
    values = maximum(sum(q * (a @ q), axis=0), 0) + eps
    return (q * values**exponent) @ q.T


@part
def inverse_root(a: Any, eps: Any) -> Any:
    """The power -1/2 of a matrix."""
    return _power(a, -1 / 2, eps)


@part
def inverse_fourth_root(a: Any, eps: Any) -> Any:
    """The power -1/4 of a matrix."""
    return _power(a, -1 / 4, eps)


@rule(least_dimensions=1)
def shampoo(
    x,
    dx,
    left=rows_by_rows(0),
    right=columns_by_columns(0),
    left_sums=rows(0),
    right_sums=columns(0),
    *,
    lr=0.1,
    eps=1e-4,
):
    """Adagrad for a whole matrix: slopes that its rows, or its columns, have had in common are measured together.

    Source: Gupta, Koren & Singer, "Shampoo: preconditioned stochastic tensor optimization", 2018, Algorithm 1; of a
    vector it is their case of one dimension, Adagrad with a full matrix.

    Of a side longer than 10,000 only the sums of squares are kept. Both matrices are factorised at every step.
    """
    tall, wide = size(dx, axis=0), size(dx, axis=1)
    left = where((tall > 1) & (tall <= LONGEST), left + dx @ dx.T, left)
    right = where(wide <= LONGEST, right + dx.T @ dx, right)
    left_sums = where(tall > LONGEST, left_sums + sum(dx**2, axis=1), left_sums)
    right_sums = where(wide > LONGEST, right_sums + sum(dx**2, axis=0), right_sums)
    by_rows = where(tall > LONGEST, dx / (left_sums + eps) ** (1 / 4), inverse_fourth_root(left, eps) @ dx)
    by_both = where(wide > LONGEST, by_rows / (right_sums + eps) ** (1 / 4), by_rows @ inverse_fourth_root(right, eps))
    of_vector = where(wide > LONGEST, dx / sqrt(right_sums + eps), dx @ inverse_root(right, eps))
    return x - lr * where(tall == 1, of_vector, by_both), left, right, left_sums, right_sums


@part
def turned(a: Any, left_basis: Any, right_basis: Any) -> Any:
    """A matrix as it is seen in both bases; a side that has none stays as it is."""
    with_left, with_right = _bases(a)
    a = where(with_left, left_basis.T @ a, a)
    return where(with_right, a @ right_basis, a)


@part
def turned_back(a: Any, left_basis: Any, right_basis: Any) -> Any:
    """A matrix that was seen in both bases, as it is."""
    with_left, with_right = _bases(a)
    a = where(with_left, left_basis @ a, a)
    return where(with_right, a @ right_basis.T, a)


def _bases(a: Any) -> tuple[Any, Any]:
    """Whether a tensor of this shape has a basis for its columns, and one for its rows."""
    tall, wide = size(a, axis=0), size(a, axis=1)
    return (tall > 1) & (tall <= LONGEST), (tall > 1) & (wide <= LONGEST)


@rule(least_dimensions=0, ranges={"every": (1.0, 1e308)})
def soap(
    x,
    dx,
    m=0,
    v=0,
    left=rows_by_rows(0),
    right=columns_by_columns(0),
    left_basis=rows_by_rows(0),
    right_basis=columns_by_columns(0),
    age=scalar(0),
    *,
    t,
    lr=3e-3,
    beta1=0.95,
    beta2=0.95,
    eps=1e-8,
    every=10,
    weight_decay=0.01,
):
    """Adam, who turns a matrix until its slopes have nothing to do with each other before he measures them.

    Source: Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", 2024, Algorithm 3, and the authors' code.

    As in their code the first step moves nothing: it only finds out in which directions to look. Every `every` steps
    these are brought up to date, by one multiplication and a QR factorisation, and `v` is put into their new order.
    Vectors, matrices of one row, and the side of a matrix that is longer than 10,000 are not turned.

    Optax and Keras count the steps of all parameters together: there a matrix that is without a gradient at the first
    finds its directions only when they are next brought up to date, and but for its decay stands still until then.
    """
    seen = turned(dx, left_basis, right_basis)
    mean = where(t == 1, m, beta1 * m + (1 - beta1) * dx)
    square = where(t == 1, v, beta2 * v + (1 - beta2) * seen**2)
    step = turned(mean, left_basis, right_basis) / (sqrt(square) + eps)
    steps = maximum(t - 1, 1)
    rate = lr * sqrt(1 - beta2**steps) / (1 - beta1**steps)
    moved = (x - rate * turned_back(step, left_basis, right_basis)) * (1 - lr * weight_decay)

    age = where(t == 1, 0, where(age + 1 >= every, 0, age + 1))
    due = (t > 1) & (age == 0)
    with_left, with_right = _bases(dx)
    left = where(with_left, beta2 * left + (1 - beta2) * dx @ dx.T, left)
    right = where(with_right, beta2 * right + (1 - beta2) * dx.T @ dx, right)
    left_values = sum(left_basis * (left @ left_basis), axis=0)
    right_values = sum(right_basis * (right @ right_basis), axis=0)
    by_rows = where(with_left, where(due, sort_by(square, -left_values.T), square), square)
    by_both = where(with_right, where(due, sort_by(by_rows, -right_values), by_rows), by_rows)
    new_left = where(due, qr(left @ sort_by(left_basis, -left_values)), left_basis)
    new_right = where(due, qr(right @ sort_by(right_basis, -right_values)), right_basis)
    left_basis = where(with_left, where(t == 1, eigenvectors(left), new_left), left_basis)
    right_basis = where(with_right, where(t == 1, eigenvectors(right), new_right), right_basis)
    return where(t == 1, x, moved), mean, by_both, left, right, left_basis, right_basis, age
