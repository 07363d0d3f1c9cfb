"""Spaces: where a value of a formula lives, and what happens to that when values meet.

A number depends on no array and is worked out once per step. What is summed up over all tensors is a number too, but
one that depends on arrays. Everything else belongs to a tensor and has, in each of its two directions, one value for
all of it or one each: for the whole tensor, for each of its rows or columns, or for each weight. A tensor of more than
two dimensions is the matrix of its first dimension and all others; a vector is the matrix of one row.
"""

from __future__ import annotations

from typing import NamedTuple

from downslope.language.operations import FormulaError


class Space(NamedTuple):
    """Where a value lives.

    Attributes:
        of_tensor: Whether it is another one for each tensor.
        first: What it is different for along its first direction: "rows" or "columns" of the weights, or nothing.
        second: The same along the second.
        of_all: Whether it depends on arrays by nothing but sums over all tensors, so that it is one for all of them.
    """

    of_tensor: bool
    first: str = ""
    second: str = ""
    of_all: bool = False

    def __str__(self) -> str:
        if not self.of_tensor:
            return "one for all tensors" if self.of_all else "one number"
        if self in _NAMED:
            return _NAMED[self]
        return f"a matrix of {self.first or 'one row'} by {self.second or 'one column'}"

    @property
    def is_square(self) -> bool:
        """Whether it is a square matrix, whatever the shape of the weights: for each pair of rows, or of columns."""
        return self.first == self.second != ""

    @property
    def transposed(self) -> Space:
        """With the directions exchanged."""
        return Space(self.of_tensor, self.second, self.first, self.of_all)

    def without(self, axis: int | None) -> Space:
        """What is left when one direction has become a single value, or both."""
        return Space(True, self.first if axis == 1 else "", self.second if axis == 0 else "")

    def stretches_to(self, other: Space) -> bool:
        """Whether a value of this space can stand for one of another, the same along what it does not know."""
        return self.first in ("", other.first) and self.second in ("", other.second)


NUMBER = Space(False)
ALL = Space(False, of_all=True)
TENSOR = Space(True)
ROW = Space(True, "rows")
COLUMN = Space(True, "", "columns")
WEIGHT = Space(True, "rows", "columns")
PAIR_OF_ROWS = Space(True, "rows", "rows")
PAIR_OF_COLUMNS = Space(True, "columns", "columns")

_NAMED = {
    TENSOR: "one for the tensor",
    ROW: "one for each row",
    COLUMN: "one for each column",
    WEIGHT: "one a weight",
    PAIR_OF_ROWS: "one for each pair of rows",
    PAIR_OF_COLUMNS: "one for each pair of columns",
}


def join(*spaces: Space) -> Space:
    """The space of what is worked out element by element from values of these: row and column make a weight.

    Raises:
        FormulaError: They do not fit.

    Example:
        >>> join(NUMBER, ROW, COLUMN) == WEIGHT
        True
    """
    found = NUMBER
    for space in spaces:
        if (found.first and space.first and found.first != space.first) or (
            found.second and space.second and found.second != space.second
        ):
            raise FormulaError(
                f"{found} and {space} do not fit together element by element; with .T one of them is transposed, and "
                "@ is the product of matrices"
            )
        of_tensor, of_all = found.of_tensor or space.of_tensor, found.of_all or space.of_all
        found = Space(of_tensor, found.first or space.first, found.second or space.second, of_all and not of_tensor)
    return found


def product(a: Space, b: Space) -> Space:
    """The space of the product of two matrices.

    Raises:
        FormulaError: They do not fit.

    Example:
        >>> product(WEIGHT, WEIGHT.transposed) == Space(True, "rows", "rows")
        True
    """
    if not (a.of_tensor and b.of_tensor):
        raise FormulaError("the product @ is one of two matrices; a number multiplies with *")
    if a.second != b.first:
        raise FormulaError(
            f"the product of {a} and {b} does not fit: the second direction of the first, {a.second or 'one column'}, "
            f"is not the first of the second, {b.first or 'one row'}; transpose one of them with .T"
        )
    return Space(True, a.first, b.second)
