"""Expressions: what a formula computes with while it is being read.

A formula is an ordinary Python function. Called with numbers or arrays it computes; called with expressions it leaves
behind the graph of what it would have computed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn

import numpy as np

from downslope.language.operations import FACTORS, OPERATIONS, POWERS, TENSOR_WORDS, UFUNCS, WORDS, FormulaError
from downslope.language.spaces import ALL, Space, join, product

made: ContextVar[Callable[[], None] | None] = ContextVar("made", default=None)
"""Called whenever an expression is made of others, for whoever wants to know where that happens."""


def _refuse(what: str, instead: str = "") -> NoReturn:
    words = ", ".join((*WORDS, *TENSOR_WORDS, *FACTORS, "sort_by"))
    hint = instead or f"a formula may use + - * / ** @ .T abs() comparisons and {words}"
    raise FormulaError(f"{what} cannot be used in a formula; {hint}")


class Expression:
    """One operation of a formula and what it is applied to.

    Attributes:
        op: A name from `operations.OPERATIONS` or `operations.OVER_TENSORS`, or `"constant"` or `"input"`.
        args: The expressions the operation is applied to.
        value: The number of a constant, the name of an input, the axis along which something is summed, or "all" where
            it is summed over all tensors.
        space: Where the value lives: that of the arguments together, unless it is given.
    """

    __slots__ = ("args", "op", "space", "value")
    __hash__ = object.__hash__
    op: str
    args: tuple[Expression, ...]
    value: float | str | None
    space: Space

    def __init__(
        self,
        op: str,
        args: tuple[Expression, ...] = (),
        value: float | str | None = None,
        space: Space | None = None,
    ):
        self.op = op
        self.args = args
        self.value = value
        self.space = join(*(arg.space for arg in args)) if space is None else space

    def of(self, args: tuple[Expression, ...]) -> Expression:
        """The same operation, in the same space, applied to these; the very expression if they are its own."""
        same = all(a is b for a, b in zip(args, self.args, strict=True))
        return self if same else Expression(self.op, args, self.value, self.space)

    @property
    def from_arrays(self) -> bool:
        """Whether it depends on an array; if not, it is worked out once per step."""
        return self.space.of_tensor or self.space.of_all

    @property
    def over_all(self) -> bool:
        """Whether it sums up all tensors that are updated together."""
        return self.value == "all" and self.op in TENSOR_WORDS

    @property
    def number(self) -> float:
        """The number that a constant is."""
        assert isinstance(self.value, float)
        return self.value

    @property
    def is_condition(self) -> bool:
        """Whether the value is a truth value."""
        return self.op in OPERATIONS and OPERATIONS[self.op].gives == "truth"

    def __repr__(self) -> str:
        return self.described(4)

    def described(self, depth: int) -> str:
        """The expression as text, down to so many levels."""
        if not self.args:
            return str(self.value)
        over = ', over="all"' if self.over_all else ""
        return f"{self.op}({', '.join(arg.described(depth - 1) for arg in self.args)}{over})" if depth else "..."

    def __add__(self, other: Any) -> Expression:
        return apply("add", self, other)

    def __radd__(self, other: Any) -> Expression:
        return apply("add", other, self)

    def __sub__(self, other: Any) -> Expression:
        return apply("sub", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return apply("sub", other, self)

    def __mul__(self, other: Any) -> Expression:
        return apply("mul", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return apply("mul", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return apply("div", other, self)

    def __pow__(self, other: Any) -> Expression:
        return apply("pow", self, other)

    def __rpow__(self, other: Any) -> Expression:
        return apply("pow", other, self)

    def __matmul__(self, other: Any) -> Expression:
        return multiplied(self, other)

    def __rmatmul__(self, other: Any) -> Expression:
        return multiplied(other, self)

    @property
    def T(self) -> Expression:  # noqa: N802, as arrays call it
        """Transposed, for products of matrices."""
        return _noted(Expression("transpose", (self,), space=self.space.transposed))

    def __neg__(self) -> Expression:
        return apply("neg", self)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return apply("abs", self)

    def __lt__(self, other: Any) -> Expression:
        return apply("lt", self, other)

    def __le__(self, other: Any) -> Expression:
        return apply("le", self, other)

    def __gt__(self, other: Any) -> Expression:
        return apply("gt", self, other)

    def __ge__(self, other: Any) -> Expression:
        return apply("ge", self, other)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return apply("eq", self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return apply("ne", self, other)

    def __and__(self, other: Any) -> Expression:
        return apply("and", self, other)

    def __rand__(self, other: Any) -> Expression:
        return apply("and", other, self)

    def __or__(self, other: Any) -> Expression:
        return apply("or", self, other)

    def __ror__(self, other: Any) -> Expression:
        return apply("or", other, self)

    def __invert__(self) -> Expression:
        return apply("not", self)

    def __bool__(self) -> bool:
        _refuse(
            f"a Python branch (if, and, or, not, max, min, assert) on {self!r}",
            "its value is not known when the formula is compiled: use where(condition, a, b), maximum(a, b) or "
            "minimum(a, b); a hyperparameter with a boolean default may be branched on",
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Expression:
        op = UFUNCS.get(ufunc.__name__)
        if method != "__call__" or kwargs:
            _refuse(f"numpy.{ufunc.__name__}.{method}" if method != "__call__" else f"numpy.{ufunc.__name__}(out=...)")
        if op is None:
            _refuse(f"numpy.{ufunc.__name__}")
        return apply(op, *inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Expression:
        if func is np.where and len(args) == 3 and not kwargs:
            return apply("where", *args)
        _refuse(f"numpy.{func.__name__}")

    @staticmethod
    def __operation__(op: str, *args: Any) -> Expression:
        return apply(op, *args)

    def __over_tensor__(self, op: str, axis: int | None, over: str | None) -> Expression:
        return over_tensor(op, self, axis, over)

    @staticmethod
    def __of_matrix__(op: str, *args: Any) -> Expression:
        return of_matrix(op, *args)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # the questions Python and NumPy ask of any object
            raise AttributeError(name)
        _refuse(f"the attribute or method .{name}")


def _refused(what: str, instead: str = "") -> Callable[..., NoReturn]:
    def refused(_: Any, *arguments: Any) -> NoReturn:
        _refuse(what.format(*arguments), instead)

    return refused


_OUTSIDE = {
    "getitem": "indexing [{0!r}]",
    "setitem": "writing into the weights at [{0!r}]",
    "iter": "a loop over the weights",
    "len": "len()",
    "floordiv": "floor division //",
    "mod": "the remainder %",
    "divmod": "divmod()",
    "lshift": "the shift <<",
    "rshift": "the shift >>",
    "xor": "the operator ^",
}
for _name, _what in _OUTSIDE.items():
    setattr(Expression, f"__{_name}__", _refused(_what))
    if _name in ("floordiv", "mod", "divmod", "lshift", "rshift", "xor"):
        setattr(Expression, f"__r{_name}__", _refused(_what))
for _name in ("float", "int", "complex", "round", "floor", "ceil", "trunc"):
    _instead = f"use downslope's own words: {', '.join(WORDS)}"
    setattr(Expression, f"__{_name}__", _refused(f"{_name}() or a function of the math module", _instead))


def expression(value: Any) -> Expression:
    """A number, or an expression, as an expression."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)):
        return Expression("constant", value=float(value))
    _refuse(f"the value {value!r} of type {type(value).__name__}", "a formula computes with numbers and its arguments")


def apply(op: str, *args: Any) -> Expression:
    """The expression that applies an operation of the formula language.

    Raises:
        FormulaError: An argument is neither a number nor an expression, or a truth value stands where a number is
            needed (or the other way round).
    """
    if notice := made.get():
        notice()
    kinds = OPERATIONS[op].takes
    operands = tuple(
        _settled(arg) if kind == "truth" and isinstance(arg, (bool, np.bool_)) else expression(arg)
        for arg, kind in zip(args, kinds, strict=True)
    )
    for operand, kind in zip(operands, kinds, strict=True):
        if kind == "truth" and not operand.is_condition:
            _refuse(f"{operand!r} as a condition of {op}", "compare it with something first, as in where(v > 0, a, b)")
        if kind == "number" and operand.is_condition:
            _refuse(f"the truth value {operand!r} as a number", "turn it into one with where(condition, 1, 0)")
    if op == "pow" and operands[1].op == "constant" and operands[1].value in POWERS:
        return Expression(POWERS[operands[1].value], operands[:1])
    return Expression(op, operands)


def over_tensor(op: str, e: Expression, axis: int | None, over: str | None = None) -> Expression:
    """The expression that sums up an expression over its tensor, along an axis of it, or over "all" tensors.

    Raises:
        FormulaError: It is a number or a truth value, of which there is nothing to sum up.
    """
    if e.is_condition:
        _refuse(f"the truth value {e!r} in {op}()", "turn it into a number with where(condition, 1, 0)")
    if not e.space.of_tensor:
        raise FormulaError(f"{op}({e!r}) is of a number, the same for all weights; give it what belongs to a tensor")
    if over == "all":
        return _noted(Expression(op, (e,), "all", ALL))
    space = e.space.without(None if op == "size" else axis)  # a size is the same for all rows and columns
    return _noted(Expression(op, (e,), None if axis is None else float(axis), space))


def of_matrix(op: str, a: Any, by: Any = None) -> Expression:
    """The expression of a factor of a matrix, or of a matrix in another order.

    Raises:
        FormulaError: It is no matrix, has no such factor, or is to be sorted by what is not one for each of its rows or
            columns.
    """
    a = expression(a)
    if by is None:
        if not a.space.is_square:
            raise FormulaError(f"{op}({a!r}) is of {a.space}; it is of a square matrix, as a @ a.T is")
        return _noted(Expression(op, (a,), space=a.space))
    by = expression(by)
    if by.space not in (Space(True, a.space.first), Space(True, "", a.space.second)) or by.space == Space(True):
        raise FormulaError(
            f"{op}: {a!r} is {a.space} and {by!r} is {by.space}; give what is one for each row of a matrix, or for "
            "each of its columns"
        )
    return _noted(Expression(op, (a, by), space=a.space))


def multiplied(a: Any, b: Any) -> Expression:
    """The expression that is the product of two matrices.

    Raises:
        FormulaError: They are no matrices, or do not fit.
    """
    a, b = expression(a), expression(b)
    return _noted(Expression("product", (a, b), space=product(a.space, b.space)))


def _noted(e: Expression) -> Expression:
    if notice := made.get():
        notice()
    return e


def _settled(condition: bool | np.bool_) -> Expression:
    """A condition that is known already."""
    return Expression("eq", (expression(0.0), expression(0.0 if condition else 1.0)))
