"""What every kernel has worked out before a launch: coefficients and new scalar states, compiled for the host.

It is text for the module of a kernel, whatever that runs on; in double precision, and each coefficient rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from downslope.language.program import Program, in_order
from downslope.targets.python import PYTHON, coefficients_source

_WORK_OUT = '''\
@library.function(address=True)
def work_out(rows_: int64, clocks_: doubles, scalars_: doubles, coefficients_: {rows}) -> None:
    """Work out the coefficients of every row, and its new scalar states behind its scalars."""
    for row_ in range(rows_):
        clock_ = clocks_ + {clocks} * row_
        scalar_ = scalars_ + {scalars} * row_
        to_ = coefficients_ + {columns} * row_
        new_ = coefficients({arguments})
{assignments}
'''


class Host(NamedTuple):
    """Parts of a kernel's module.

    Attributes:
        functions: The names that it takes from `math`, with a comma behind each.
        coefficients: The function that works out coefficients and scalar states, for `library.in_place`.
        work_out: The one that does so for all rows of a table, whose address is asked for.
        rows: What the coefficients are to compiled code.
    """

    functions: str
    coefficients: str
    work_out: str
    rows: str


def host(program: Program, scalar: str, called: Iterable[str] = ()) -> Host:
    """The part of a program that depends on no array, as text.

    Args:
        program: What a step computes.
        scalar: The precision of coefficients, "float32" or "float64".
        called: What the rest of the module calls.
    """
    words = {*called} | PYTHON.words(in_order([*program.coefficients, *program.scalar_outputs.values()]))
    clocks = {"t": "clock_[0] + 1.0"} | {state: f"clock_[{j}]" for j, state in enumerate(program.scalar_states, 1)}
    arguments = [clocks.get(name, f"scalar_[{k}]") for k, name in enumerate(program.scalars)]
    columns, inputs, outputs = len(program.coefficients), len(program.scalars), len(program.scalar_outputs)
    assignments = [f"to_[{k}] = {scalar}(new_[{k}])" for k in range(columns)]
    assignments += [f"scalar_[{inputs + j}] = new_[{columns + j}]" for j in range(outputs)]
    rows = "singles" if scalar == "float32" else "doubles"
    work_out = _WORK_OUT.format(
        rows=rows,
        columns=columns,
        clocks=1 + len(program.scalar_states),
        scalars=inputs + outputs,
        arguments=", ".join(arguments),
        assignments="\n".join(f"        {line}" for line in assignments or ["pass"]),
    )
    functions = "".join(f"{word}, " for word in sorted(word for word in words if hasattr(math, word)))
    return Host(functions, coefficients_source(program), work_out, rows)
