"""Computing a program with any array library: NumPy, JAX, PyTorch, Keras.

For frameworks that compile by themselves, for reference, and as the fallback where a kernel cannot go.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from downslope.language import vmapped
from downslope.language.expression import Expression
from downslope.language.operations import FACTORS, OVER_TENSORS
from downslope.language.program import Program, in_order, is_decided
from downslope.language.rewrites import accurate_coefficients
from downslope.language.spaces import WEIGHT
from downslope.language.together import divided
from downslope.language.whole import joined, summed
from downslope.targets.compute import OPERATIONS, compute, compute_over_tensor
from downslope.targets.evaluate import evaluate, evaluate_in_order
from downslope.targets.shapes import held_shape, matrix_shape, settled

__all__ = [
    "OPERATIONS",
    "compute",
    "interpret",
    "interpret_body",
    "interpret_coefficients",
    "interpret_scalars",
    "interpret_together",
    "with_sums",
]

_ARRAYS_ONLY = frozenset({"maximum", "minimum", "where", "and", "or"})
"""The operations of which some array libraries accept arrays only."""

_Number = (int, float, np.number)


def interpret(
    program: Program, arrays: Mapping[str, Any], scalars: Mapping[str, Any], xp: ModuleType = np
) -> dict[str, Any]:
    """Compute one step.

    Args:
        program: What the step computes; what it sums up over all tensors is summed up over this one, see `with_sums`.
        arrays: `x`, `dx` and the states, all of one shape (but for states that are one for each row or column, see
            `shapes.held_shape`) and one dtype, which is the precision of the body.
        scalars: The hyperparameters, scalar states, and `t` where the program takes it: numbers, which are worked
            with in double precision, or traced values of a framework, with which everything that depends on them is
            worked out accurately in single precision; see `accurate_coefficients`.
        xp: The array library: `numpy`, `jax.numpy`, `torch`, `keras.ops`.

    Returns:
        The new weights and states by name, scalar states included.

    Example:
        >>> import numpy as np, downslope
        >>> from downslope.language.options import compose
        >>> arrays = {"x": np.float32([1, 2]), "dx": np.float32([1, -1])}
        >>> interpret(compose(downslope.sgd), arrays, {"lr": 0.5})["x"]
        array([0.5, 2.5], dtype=float32)
    """
    if program.over_all:
        return interpret_together(program, [arrays], scalars, xp)[0]
    values = interpret_scalars(program, scalars, xp)
    new = interpret_body(program, arrays, values, xp)
    return {**new, **{name: values[e] for name, e in program.scalar_outputs.items()}}


def interpret_together(
    program: Program, tensors: Sequence[Mapping[str, Any]], scalars: Mapping[str, Any], xp: ModuleType = np
) -> list[dict[str, Any]]:
    """Compute one step of tensors that are updated together: what `interpret` gives of each.

    Args:
        program: What the step computes.
        tensors: Each tensor's arrays, as for `interpret`.
        scalars: As for `interpret`.
        xp: The array library.

    Example:
        >>> import numpy as np
        >>> from downslope import norm, rule
        >>> from downslope.language.options import compose
        >>> @rule
        ... def normalized(x, dx, *, lr=0.1):
        ...     return x - lr * dx / norm(dx, over="all")
        >>> tensors = [{"x": np.zeros(1), "dx": np.array([3.0])}, {"x": np.zeros(1), "dx": np.array([-4.0])}]
        >>> [new["x"].tolist() for new in interpret_together(compose(normalized), tensors, {"lr": 0.5})]
        [[-0.3], [0.4]]
    """
    if program.over_all:
        scalars = with_sums(program, lambda: ((program, arrays) for arrays in tensors), scalars, xp)
    rest = divided(program).rest
    return [interpret(rest, arrays, scalars, xp) for arrays in tensors]


def with_sums(
    program: Program,
    tensors: Callable[[], Iterable[tuple[Program, Mapping[str, Any]]]],
    scalars: Mapping[str, Any],
    xp: ModuleType = np,
) -> Mapping[str, Any]:
    """The scalars of a step, with what a program sums up over all tensors: what `together.divided(program).rest` takes.

    Args:
        program: The one whose sums are wanted.
        tensors: Gives each tensor's program, which is this one or sums up as it does, and its arrays, as for
            `interpret`. It is called once for each round of sums. Of no tensors all sums are 0.
        scalars: As for `interpret`.
        xp: The array library. With NumPy and PyTorch sums are numbers, for which the host waits; they do not depend on
            where the tensors are.
    """
    known = dict(scalars)
    with np.errstate(all="ignore"):
        for k, each in enumerate(divided(program).rounds):
            known |= _round(k, each.words, tensors(), known, xp)
    return known


def _round(
    k: int,
    words: Mapping[str, str],
    tensors: Iterable[tuple[Program, Mapping[str, Any]]],
    known: Mapping[str, Any],
    xp: ModuleType,
) -> dict[str, Any]:
    """The sums of one round, given those before."""
    parts: dict[str, list[Any]] = {}
    counts: dict[str, int] = {}
    coefficients: dict[Program, dict[Expression, Any]] = {}
    for program, arrays in tensors:
        own = divided(program).rounds[k].program
        if own not in coefficients:
            coefficients[own] = interpret_scalars(own, known, xp)
        if 0 in arrays["x"].shape:
            continue
        for name, value in _summands(own, arrays, coefficients[own], xp).items():
            parts.setdefault(name, []).append(summed(words[name], value, xp))
            counts[name] = counts.get(name, 0) + math.prod(value.shape)
    return {
        name: joined(word, _on_host(parts.get(name, []), xp), counts.get(name, 0), xp) for name, word in words.items()
    }


def _summands(
    program: Program, arrays: Mapping[str, Any], coefficients: Mapping[Expression, Any], xp: ModuleType
) -> dict[str, Any]:
    """What a tensor has to be summed up, each as many elements as its space says."""
    arrays = _as_matrix(program, arrays, xp)
    own = _decided(program, arrays["x"].shape, coefficients)
    values, x = _worked_out(own, arrays, coefficients, xp), arrays["x"]
    found = {}
    for name, e in program.outputs.items():
        value, space = values[own.outputs[name]], e.space
        if space == WEIGHT:
            whole = x
        elif program.of_matrices and space.stretches_to(WEIGHT) and (space.first or space.second):
            whole = x[:, :1] if space.first else x[:1]
        else:
            whole = xp.reshape(x, (-1,))[0]
        if not hasattr(value, "shape") or math.prod(value.shape) < math.prod(whole.shape):
            value = value + xp.zeros_like(whole)  # by its shape it is a number, or has been chosen to be narrower
        found[name] = value
    return found


def _on_host(parts: list[Any], xp: ModuleType) -> list[Any]:
    """Values as numbers, where the library computes at once: the host waits for those of each device once."""
    if xp is np:
        return [np.float64(part) for part in parts]
    if xp.__name__ != "torch":
        return parts
    found: list[Any] = list(parts)
    for device in {part.device for part in parts if hasattr(part, "device")}:
        here = [k for k, part in enumerate(parts) if getattr(part, "device", None) == device]
        wide = xp.float64 if device.type in ("cpu", "cuda") else xp.float32
        for k, value in zip(here, xp.stack([parts[k].to(wide) for k in here]).tolist(), strict=True):
            found[k] = value
    return [np.float64(part) for part in found]


def interpret_scalars(program: Program, scalars: Mapping[str, Any], xp: ModuleType = np) -> dict[Expression, Any]:
    """The value of every expression that depends on no array: what one step needs once, however many arrays there are.

    Args:
        program: The one whose scalar expressions are wanted.
        scalars: As for `interpret`.
        xp: The array library.
    """

    def leaf(e: Expression) -> Any:
        if e.op == "constant":
            return e.value
        value = scalars[str(e.value)]
        return np.float64(value) if isinstance(value, _Number) else value  # with IEEE results where Python would raise

    def apply(e: Expression, args: list[Any]) -> Any:
        if all(isinstance(arg, (bool, np.bool_, *_Number)) for arg in args):
            value = compute(e.op, args)
            return value[()] if isinstance(value, np.ndarray) else value  # NumPy's `where` of numbers is an array
        return compute(e.op, [_weak(arg) for arg in args], xp)

    accurate = accurate_coefficients(program)
    with np.errstate(all="ignore"):  # infinities and nan follow IEEE, here as in a kernel
        if all(isinstance(scalars[name], _Number) for name in program.scalars):
            return evaluate_in_order(accurate, leaf, apply)  # in double precision, where the plain forms will do
        values = evaluate(accurate.values(), leaf, apply)
    return {e: values[new] for e, new in accurate.items()}


def interpret_body(
    program: Program, arrays: Mapping[str, Any], coefficients: Mapping[Expression, Any], xp: ModuleType = np
) -> dict[str, Any]:
    """The new weights and states by name.

    Args:
        program: The one whose body is computed.
        arrays: As for `interpret`.
        coefficients: The value of each of `program.coefficients`, as `interpret_scalars` gives them.
        xp: The array library.

    Raises:
        ShapeError: The program multiplies matrices, and the weights are none, or it knows fewer dimensions.
    """
    assert not program.over_all, "the sums over all tensors come first: with_sums, and what divided leaves"
    if program.over_tensors:
        return _over_tensor(program, arrays, coefficients, xp)
    x = arrays["x"]
    if program.most_dimensions is not None:
        matrix_shape(program, x.shape)

    def leaf(e: Expression) -> Any:
        return e.value if e.op == "constant" else arrays[str(e.value)]

    def apply(e: Expression, args: list[Any]) -> Any:
        args = [_cast(value, arg, x, xp) for value, arg in zip(args, e.args, strict=True)]
        return compute(e.op, [_full(value, x, xp) for value in args] if e.op in _ARRAYS_ONLY else args, xp)

    def result(e: Expression) -> Any:
        return values[e] if e.from_arrays else _cast(values[e], e, x, xp) + xp.zeros_like(x)

    with np.errstate(all="ignore"):
        values = evaluate_in_order(program.per_weight, leaf, apply, coefficients)
        return {name: result(e) for name, e in program.outputs.items()}


def _over_tensor(
    program: Program, arrays: Mapping[str, Any], coefficients: Mapping[Expression, Any], xp: ModuleType
) -> dict[str, Any]:
    """The same for a program over whole tensors: with the weights as a matrix, if it goes by rows and columns."""
    given, arrays = arrays, _as_matrix(program, arrays, xp)
    x = arrays["x"]
    if 0 in x.shape:  # of which there is no mean, and nothing to update
        return {name: given[name] for name in program.outputs}
    program = _decided(program, x.shape, coefficients)

    def result(name: str, e: Expression) -> Any:
        value = values[e]
        if e.op == "constant" or not e.from_arrays:
            value = _cast(value, e, x, xp)
        like = arrays[name]
        new = e.args and e.op not in OVER_TENSORS  # not what was given, nor a view of it
        if not new or tuple(getattr(value, "shape", ())) != tuple(like.shape):
            value = value + xp.zeros_like(like)
        return xp.reshape(value, tuple(given[name].shape))

    with np.errstate(all="ignore"):
        values = _worked_out(program, arrays, coefficients, xp)
        return {name: result(name, e) for name, e in program.outputs.items()}


def _as_matrix(program: Program, arrays: Mapping[str, Any], xp: ModuleType) -> Mapping[str, Any]:
    """The arrays as matrices, if the program goes by rows and columns.

    Raises:
        ShapeError: The program multiplies matrices, and the weights are none.
    """
    shape = tuple(arrays["x"].shape)
    as_matrix = matrix_shape(program, shape)
    if as_matrix == shape:
        return arrays
    square = {name for name, space in program.spaces.items() if space.is_square}
    inner = {name: held_shape(program, name, as_matrix) for name in arrays if name not in square}
    return {**arrays, **{name: xp.reshape(arrays[name], shape) for name, shape in inner.items()}}


def _decided(program: Program, shape: Sequence[int], coefficients: Mapping[Expression, Any]) -> Program:
    """The program for tensors of a shape, as far as it is decided what it computes of them."""
    truths = [coefficients[e] for e in program.conditions]
    decisions = tuple(bool(truth) if isinstance(truth, (bool, np.bool_)) else None for truth in truths)
    return settled(program, tuple(shape), decisions)


def _worked_out(
    program: Program, arrays: Mapping[str, Any], coefficients: Mapping[Expression, Any], xp: ModuleType
) -> dict[Expression, Any]:
    """The value of every expression of a program that is settled for these arrays."""
    x = arrays["x"]

    def leaf(e: Expression) -> Any:
        return e.value if e.op == "constant" else arrays[str(e.value)]

    def apply(e: Expression, args: list[Any]) -> Any:
        if e.op in OVER_TENSORS:
            return compute_over_tensor(e, args, xp)
        args = [_cast(value, arg, x, xp) for value, arg in zip(args, e.args, strict=True)]
        like = next((arg for arg in args if not isinstance(arg, (bool, np.bool_, *_Number))), None)
        if like is None:
            return compute(e.op, [np.asarray(arg)[()] for arg in args])
        if like is args[0] and e.op == "where":  # the numbers of a choice are none of truth values
            like = next((arg for arg in args[1:] if not isinstance(arg, _Number)), xp.zeros_like(like, dtype=x.dtype))
        return compute(e.op, [_full(value, like, xp) for value in args] if e.op in _ARRAYS_ONLY else args, xp)

    with np.errstate(all="ignore"):
        return _evaluated(program, leaf, apply, coefficients, xp)


def _evaluated(
    program: Program,
    leaf: Callable[[Expression], Any],
    apply: Callable[[Expression, list[Any]], Any],
    coefficients: Mapping[Expression, Any],
    xp: ModuleType,
) -> dict[Expression, Any]:
    """The values of a program's body; of two arrays of which only one will do, that one, where a matrix is factorised.

    A condition that is traced decides while the compiled step runs, by the library's `cond`.
    """
    choose = _cond(xp)
    late = frozenset(e for e in program.per_weight if choose and is_decided(e) and _factorises(e))
    if not late:
        return evaluate_in_order(program.per_weight, leaf, apply, coefficients)

    def values_of(roots: Iterable[Expression], known: Mapping[Expression, Any]) -> dict[Expression, Any]:
        values = dict(known)
        for e in in_order(roots, values, lambda e: e.args[:1] if e in late else e.args):
            if e in late:
                values[e] = chosen(e, values)
            else:
                values[e] = apply(e, [values[arg] for arg in e.args]) if e.args else leaf(e)
        return values

    def chosen(e: Expression, known: Mapping[Expression, Any]) -> Any:
        condition, *both = e.args
        needed = dict.fromkeys((*both, *(arg for inner in in_order(both, known) for arg in inner.args)))
        given = {one: known[one] if one in known else leaf(one) for one in needed if one in known or one.op == "input"}
        traced = [one for one, value in given.items() if not isinstance(value, (bool, np.bool_, *_Number))]

        def of(root: Expression, *operands: Any) -> Any:
            return values_of([root], {**given, **dict(zip(traced, operands, strict=True))})[root]

        a, b = (functools.partial(of, root) for root in both)
        return choose(known[condition], a, b, [given[one] for one in traced])

    return values_of(program.outputs.values(), coefficients)


def _factorises(e: Expression) -> bool:
    """Whether a matrix is factorised on the way to it."""
    return any(inner.op in FACTORS for inner in in_order([e]))


def _cond(xp: ModuleType) -> Any:
    """What computes one of two things of operands in an array library; None where nothing is traced."""
    if xp.__name__ == "jax.numpy":
        return vmapped.choose
    if xp.__name__ != "keras.ops":
        return None
    return lambda condition, a, b, operands: xp.cond(condition, lambda: a(*operands), lambda: b(*operands))


def interpret_coefficients(program: Program, scalars: Mapping[str, float]) -> tuple[float, ...]:
    """The coefficients, then the new scalar states, in double precision with IEEE results."""
    values = interpret_scalars(program, scalars)
    return tuple(float(values[e]) for e in (*program.coefficients, *program.scalar_outputs.values()))


def _weak(value: Any) -> Any:
    """A host number as a Python float, which takes on the precision of the traced value it meets."""
    return float(value) if isinstance(value, _Number) else value


def _cast(value: Any, e: Expression, x: Any, xp: ModuleType) -> Any:
    """A coefficient or constant rounded to the precision of the body, once, as a kernel does."""
    if e.from_arrays or isinstance(value, (bool, np.bool_)):
        return value
    if xp is np:
        return x.dtype.type(value)
    if isinstance(value, _Number):
        return float(value)  # a weak number: the framework rounds it to the dtype of the array it meets
    return value.astype(x.dtype) if hasattr(value, "astype") and value.dtype != bool else value


def _full(value: Any, x: Any, xp: ModuleType) -> Any:
    """A host number or truth value as an array like the weights; an array as it is."""
    if isinstance(value, (bool, np.bool_)):
        return xp.full_like(x, float(value)) != 0
    return xp.full_like(x, value) if isinstance(value, _Number) else value
