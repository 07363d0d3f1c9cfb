"""Adding up in compiled code."""

from __future__ import annotations

from collections.abc import Sequence

from downslope.backends.compiler import Word
from downslope.backends.instructions import Value, Writer


def _plus(writer: Writer, arguments: Sequence[Value]) -> Value:
    total, more = (writer.cast(value, "double") for value in arguments)
    return writer.new("double", f"fadd reassoc {total}, {more.text}")


plus = Word(_plus)
"""For compiled code: a sum in double precision to which something is added, where the compiler may choose the order, so
that it adds up several parts side by side. The order is then that of the machine code: the same every time."""
