"""Computing one operation with any array library: NumPy, JAX, PyTorch, Keras."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from downslope.language.expression import Expression
from downslope.language.factors import factored
from downslope.language.operations import FACTORS, function_of
from downslope.language.whole import reduced

OPERATIONS: dict[str, Callable[..., Any] | str] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
    "square": lambda a: a * a,
    "cube": lambda a: a * a * a,
    "fourth": lambda a: a * a * a * a,
    "neg": operator.neg,
    "abs": "abs",
    "sign": "sign",
    "sqrt": "sqrt",
    "exp": "exp",
    "expm1": "expm1",
    "log": "log",
    "tanh": "tanh",
    "sin": "sin",
    "cos": "cos",
    "maximum": "maximum",
    "minimum": "minimum",
    "where": "where",
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": "logical_and",
    "or": "logical_or",
    "not": "logical_not",
}
"""How each operation is computed: by an operator, or by the function of this name in the array library."""


def compute(op: str, args: list[Any], xp: ModuleType = np) -> Any:
    """The value of an operation on values of an array library."""
    function = OPERATIONS[op]
    return function_of(function, xp)(*args) if isinstance(function, str) else function(*args)


def compute_over_tensor(e: Expression, args: list[Any], xp: ModuleType = np) -> Any:
    """The value of an operation on whole tensors, of values that are matrices where it goes by rows and columns."""
    if e.op == "called":
        return args[0]
    if e.op == "product":
        return args[0] @ args[1]
    if e.op == "transpose":
        return args[0].T if hasattr(args[0], "T") else xp.transpose(args[0])
    if e.op in FACTORS or e.op == "sort_by":
        return factored(e.op, args, xp)
    return reduced(e.op, args[0], None if e.value is None else int(float(e.value)), xp)
