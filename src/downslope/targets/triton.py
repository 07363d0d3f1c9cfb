"""Triton: the subset of Python that kernels for GPUs are written in.

Quotients and roots are rounded correctly; constants have the precision of the body, and functions are those of the
device's own library, which are within two or three units in the last place (Triton's own `exp` and `log` are not).
"""

from __future__ import annotations

import math

from downslope.targets.python import FORMS as PYTHON
from downslope.targets.python import RESERVED as WORDS
from downslope.targets.write import ATOM, Form, Target, Text, call, infix, prefix

LIBRARY = """\
@triton.jit
def real(value: tl.constexpr):
    return tl.full((), value, tl.{scalar})


@triton.jit
def maximum(a, b):
    return tl.where(a > b, a, tl.where(a != a, a, b))


@triton.jit
def minimum(a, b):
    return tl.where(a < b, a, tl.where(a != a, a, b))


@triton.jit
def sign(a):
    return tl.where(a > 0, real(1.0), tl.where(a < 0, real(-1.0), a + real(0.0)))
"""
"""The functions that the text calls besides Triton's, given the `scalar` type of the body: once in every module.

Of zeros and nan they make what NumPy's do. A number by itself would be single precision wherever Triton takes it for a
tensor.
"""

_SINGLE = {
    **{op: PYTHON[op] for op in ("add", "sub", "mul", "square", "cube", "fourth")},
    **{op: infix(PYTHON[op].template.strip("{} "), 1) for op in ("lt", "le", "gt", "ge", "eq", "ne")},
    "or": infix("|", 2),  # tighter than a comparison, unlike "or", and looser than a sum
    "and": infix("&", 3),
    "not": prefix("~", 7),
    "neg": Form("-1.0 * {}", 6, (7,)),  # Triton 3.6 takes -a for 0 - a, which is not -0 where a is 0
    "div": call("tl.div_rn", 2),
    "sqrt": call("tl.sqrt_rn"),
    "abs": call("tl.abs"),
    "where": call("tl.where", 3),
    "maximum": call("maximum", 2),
    "minimum": call("minimum", 2),
    "sign": call("sign"),
    "pow": call("libdevice.pow", 2),
    **{op: call(f"libdevice.{op}") for op in ("exp", "expm1", "log", "tanh", "sin", "cos")},
}

_DOUBLE = _SINGLE | {"div": infix("/", 6), "sqrt": call("tl.sqrt")}
"""In double precision the plain forms are those that round correctly, and the only ones."""

RESERVED = WORDS | {"tl", "triton", "libdevice", "real", "float", "formula"}


def number(value: float) -> Text:
    """A number in Triton, in the precision of the body."""
    if value == 0 and math.copysign(1, value) < 0:
        return Text("-1.0 * real(0.0)", 6, first="minus")
    return Text(f"real({value!r})" if math.isfinite(value) else f'real(float("{value}"))', ATOM)


TARGETS = {
    "float32": Target(_SINGLE, number, RESERVED),
    "float64": Target(_DOUBLE, number, RESERVED),
}
"""What kernels are written in, for each precision of the body."""
