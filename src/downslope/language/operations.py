"""The operations of a formula: one row each, with everything that the rest of the house asks about one, and the words.

To add an operation, add a row here, its word if it has one, and an entry to the table of every target; a test names the
tables that lack one. A word computes with numbers and arrays of any library; of expressions it makes an expression.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["cos", "exp", "expm1", "log", "maximum", "minimum", "sign", "sin", "sqrt", "tanh", "where"]

WORDS = tuple(__all__)
"""The words a formula may use besides + - * / ** abs() and comparisons, element by element."""

TENSOR_WORDS = ("norm", "mean", "sum", "max", "size")
"""The words that sum up a whole tensor, or an axis of it; see `language.whole`."""


class FormulaError(TypeError):
    """A function is not a formula: it uses something that cannot be compiled, or returns the wrong things."""


Kind = Literal["number", "truth"]


class Operation(NamedTuple):
    """An operation.

    Attributes:
        takes: What each of its arguments is.
        gives: What it gives.
        exact: Whether its result is the same in every library: IEEE 754 says how it is rounded, or nothing is.
        ufuncs: The NumPy functions that are this operation.
    """

    takes: tuple[Kind, ...]
    gives: Kind = "number"
    exact: bool = True
    ufuncs: tuple[str, ...] = ()


_ONE: tuple[Kind, ...] = ("number",)
_TWO: tuple[Kind, ...] = ("number", "number")

OPERATIONS: dict[str, Operation] = {
    "add": Operation(_TWO, ufuncs=("add",)),
    "sub": Operation(_TWO, ufuncs=("subtract",)),
    "mul": Operation(_TWO, ufuncs=("multiply",)),
    "div": Operation(_TWO, ufuncs=("divide", "true_divide")),
    "pow": Operation(_TWO, exact=False, ufuncs=("power",)),
    "square": Operation(_ONE, ufuncs=("square",)),
    "cube": Operation(_ONE),
    "fourth": Operation(_ONE),
    "neg": Operation(_ONE, ufuncs=("negative",)),
    "abs": Operation(_ONE, ufuncs=("absolute", "fabs")),
    "sign": Operation(_ONE, ufuncs=("sign",)),
    "sqrt": Operation(_ONE, ufuncs=("sqrt",)),
    "exp": Operation(_ONE, exact=False, ufuncs=("exp",)),
    "expm1": Operation(_ONE, exact=False, ufuncs=("expm1",)),
    "log": Operation(_ONE, exact=False, ufuncs=("log",)),
    "tanh": Operation(_ONE, exact=False, ufuncs=("tanh",)),
    "sin": Operation(_ONE, exact=False, ufuncs=("sin",)),
    "cos": Operation(_ONE, exact=False, ufuncs=("cos",)),
    "maximum": Operation(_TWO, ufuncs=("maximum",)),
    "minimum": Operation(_TWO, ufuncs=("minimum",)),
    "where": Operation(("truth", "number", "number")),
    "lt": Operation(_TWO, "truth", ufuncs=("less",)),
    "le": Operation(_TWO, "truth", ufuncs=("less_equal",)),
    "gt": Operation(_TWO, "truth", ufuncs=("greater",)),
    "ge": Operation(_TWO, "truth", ufuncs=("greater_equal",)),
    "eq": Operation(_TWO, "truth", ufuncs=("equal",)),
    "ne": Operation(_TWO, "truth", ufuncs=("not_equal",)),
    "and": Operation(("truth", "truth"), "truth", ufuncs=("logical_and", "bitwise_and")),
    "or": Operation(("truth", "truth"), "truth", ufuncs=("logical_or", "bitwise_or")),
    "not": Operation(("truth",), "truth", ufuncs=("logical_not", "invert")),
}
"""Every operation on elements that a formula may use; only `where`, `and`, `or` and `not` take truth values."""

FACTORS = ("eigenvectors", "qr")
"""The words that factorise a matrix; see `language.factors`."""

OVER_TENSORS = (*TENSOR_WORDS, *FACTORS, "sort_by", "transpose", "product", "called")
"""Every operation on whole tensors: what sums them up, factorises or sorts them, what makes of them the matrices that
they are, and what a function with a name has worked out, which is its first argument; see `language.parts`."""

POWERS = {2.0: "square", 3.0: "cube", 4.0: "fourth"}
"""The powers that are worked out by repeated multiplication, each an operation of its own."""

UFUNCS = {ufunc: name for name, operation in OPERATIONS.items() for ufunc in operation.ufuncs}
"""The operation of each NumPy function that is one."""


def _word(op: str) -> Callable[..., Any]:
    arity = len(OPERATIONS[op].takes)

    def word(*args: Any) -> Any:
        if len(args) != arity:
            raise FormulaError(f"{op}() takes {arity} argument(s), got {len(args)}")
        for arg in args:
            if hasattr(type(arg), "__operation__"):
                return type(arg).__operation__(op, *args)
        return function_of(op, namespace(args))(*args)

    word.__name__ = word.__qualname__ = op
    word.__doc__ = f"`{op}` of numbers, arrays, or the expressions a formula is made of, element by element."
    return word


@functools.cache
def function_of(name: str, library: Any) -> Callable[..., Any]:
    """The function of this name in an array library, or among its special functions; else NumPy's.

    What NumPy has not is that of the module `math`, element by element.
    """
    if hasattr(library, name):
        function: Callable[..., Any] = getattr(library, name)
        return function
    if library is np:
        return _element_by_element(getattr(math, name))
    with contextlib.suppress(ImportError):
        library = importlib.import_module(f"{library.__name__.partition('.')[0]}.scipy.special")
    return getattr(library, name, None) or function_of(name, np)


def _element_by_element(function: Callable[..., float]) -> Callable[..., Any]:
    doubles = np.vectorize(function, otypes="d")

    def keeping_precision(*args: Any) -> Any:
        return doubles(*args).astype(np.result_type(*args))[()]

    return keeping_precision


def namespace(args: Iterable[Any]) -> Any:
    """The array library of the first argument that has one (NumPy for plain numbers)."""
    for arg in args:
        if hasattr(arg, "__array_namespace__"):
            return arg.__array_namespace__()
        library = sys.modules.get(type(arg).__module__.partition(".")[0])
        if hasattr(library, "tanh"):  # PyTorch and TensorFlow, which do not say what their namespace is
            return library
    return np


sqrt = _word("sqrt")
exp = _word("exp")
expm1 = _word("expm1")
log = _word("log")
tanh = _word("tanh")
sin = _word("sin")
cos = _word("cos")
sign = _word("sign")
maximum = _word("maximum")
minimum = _word("minimum")
where = _word("where")
