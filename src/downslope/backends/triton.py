"""Triton as it is installed here: what has to be known of it, and how functions written in it are launched.

A launch runs a function as many programs. Those that work on weights share them out in blocks: a list in the device's
memory says, for every program, which slot its block belongs to, and the block's number among those of its slot.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from downslope.backends import source_cache, triton_key

Array = np.ndarray[Any, Any]

LEAST = (3, 6)
"""The oldest version of Triton that these kernels are tested with."""

BLOCK = 1024
"""Weights that a block updates, or half as many, or those of a scale; see `shape_of`."""

WARPS, EACH = 4, 8
"""Groups of 32 threads that share such a block, and how many weights a thread has then."""

OPTIONS = {"num_warps": WARPS, "enable_fp_fusion": False}
"""How kernels are compiled: no product and sum is made one operation with one rounding, since no formula says so."""

NOTHING = 0xFFFFFFFF
"""The number of a block, of whatever slot, that lies behind all weights."""


def interpreted() -> bool:
    """Whether Triton has been asked to run kernels in Python (`TRITON_INTERPRET=1`)."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def stumbles() -> bool:
    """Whether Triton's compiler ends the process over some kernels unless coefficients come from where it cannot look.

    Its vectorizer fails on what is multiplied by a number that was loaded; seen with 3.7.1, not with 3.6.0 or 3.9.0.
    """
    import triton

    return not interpreted() and triton.__version__.startswith(("3.7.", "3.8.")) and _of_nvidia(without=True)


def _of_nvidia(*, without: bool = False) -> bool:
    """Whether kernels are compiled for a card of this maker; without any card, what is to be said of that."""
    import triton

    if interpreted():
        return False
    try:
        return bool(triton.runtime.driver.active.get_current_target().backend == "cuda")
    except RuntimeError:  # there is no card
        return without


def device_functions() -> Any:
    """The device's own library of functions; in Triton's interpreter, which has none, NumPy's."""
    return _numpys_functions() if interpreted() else importlib.import_module("triton.language.extra.libdevice")


@functools.cache
def _numpys_functions() -> ModuleType:
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def by_numpy(function: Any) -> Any:
        def applied(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):
                values = function(*(argument.handle.data for argument in arguments))
            kind = max((argument.type for argument in arguments), key=lambda kind: kind.is_block())
            return tl.tensor(TensorHandle(values, kind.scalar), kind)

        return applied

    functions = ModuleType("libdevice")
    named = {"exp": np.exp, "expm1": np.expm1, "log": np.log, "tanh": np.tanh, "sin": np.sin, "cos": np.cos}
    functions.__dict__.update({name: by_numpy(function) for name, function in {**named, "pow": np.power}.items()})
    return functions


def loaded(stem: str, source: str) -> ModuleType:
    """The module of this text, with some of its functions, if it has them, in a form that Triton's interpreter needs.

    By `add` and `larger` reductions combine numbers; it does whole reductions by its own ones, and would call others
    for every pair of numbers. Of numbers among the arguments, `number_` makes what is computed with; it leaves them be.
    """
    module = source_cache.load(stem, source)
    if interpreted():
        standard = importlib.import_module("triton.language.standard")
        known = {"add": standard._sum_combine, "larger": standard._elementwise_max, "number_": _number}
        module.__dict__.update({name: known[name] for name in known.keys() & module.__dict__.keys()})
    return module


def _number(value: float) -> Any:
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    return tl.tensor(TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)


class Shape(NamedTuple):
    """How a kernel is shared out among threads.

    Attributes:
        block: Weights that a block updates.
        warps: Groups of 32 threads that share it.
        registers: How many a thread may have, so that more threads have room at the same time; None for as many as it
            takes. What finds no room in them goes to memory and back, which costs less than to wait alone.
    """

    block: int
    warps: int
    registers: int | None


PLAIN = Shape(BLOCK, WARPS, None)
"""For functions around the kernel itself."""


def blocks(sizes: Iterable[int], block: int = BLOCK) -> Array:
    """What each block of a launch works on: its slot in the upper half, its number in that slot in the lower one."""
    return listed([-(-int(size) // block) for size in sizes])


def listed(counts: Sequence[int]) -> Array:
    """The same for slots with so many blocks each."""
    slots = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    numbers = np.arange(len(slots)) - np.repeat(np.cumsum([0, *counts])[:-1], counts)
    found: Array = (slots << 32) | numbers
    return found


def launcher(
    function: Any,
    programs: int,
    tensors: Sequence[Any],
    constants: Mapping[str, int],
    shape: Shape = PLAIN,
    numbers: int = 0,
    trial: Sequence[Any] = (),
) -> Callable[..., Any]:
    """What launches a function of a kernel's module on the same tensors again and again, given the numbers.

    One program is run at once, so that what cannot be compiled or launched is known. Afterwards nothing is asked of the
    arguments again, which would take longer than the launch itself.

    Args:
        function: The function.
        programs: How many programs of it are run.
        tensors: Its first arguments.
        constants: Those that come last and are compiled in, in their order.
        shape: How it is shared out among threads; of the block, the function is told by the constants.
        numbers: How many numbers in single precision stand between them.
        trial: The first arguments of the program that is run at once, if it is not to work on these.
    """
    if not interpreted():
        triton_key.hasten()
    nothing = [0.0] * numbers
    options: dict[str, Any] = {**OPTIONS, "num_warps": shape.warps}
    if shape.registers and _of_nvidia():
        options["maxnreg"] = shape.registers
    compiled = function[(1,)](*(trial or tensors), *nothing, **constants, **options)
    if compiled is None:  # by the interpreter
        interpret = function[(programs,)]
        return lambda *given: interpret(*tensors, *given, **constants)
    run, last = compiled[(programs, 1, 1)], tuple(constants.values())
    return lambda *given: run(*tensors, *given, *last)
