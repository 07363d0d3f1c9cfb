"""Rules with a look-ahead: from the point ahead that variables hold to the weights, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

if TYPE_CHECKING:
    from downslope.keras.optimizer import Optimizer

Array = np.ndarray[Any, Any]


def moved(optimizer: Optimizer, *, to_weights: bool, x: list[Array] | None = None) -> list[Array]:
    """Where the variables would be at the weights, or at the points ahead of them.

    Args:
        optimizer: An optimizer with its variables, whose rule has a look-ahead.
        to_weights: Which way to go.
        x: Where to start, instead of at what the variables hold.
    """
    ahead = optimizer._settings.settled.ahead
    assert ahead is not None
    known: dict[str, Any] = {**optimizer._settings.numbers, "t": number(optimizer.iterations) + 1}
    known |= {name: number(value) for name, value in optimizer._states.scalars.items()}
    if "lr" in ahead.scalars:
        known["lr"] = number(optimizer.learning_rate)
    scalars = {name: known[name] for name in ahead.scalars}
    found = []
    for k, variable in enumerate(optimizer._trainable_variables):
        array = array_of(variable) if x is None else x[k]
        states = {name: array_of(of[k]) for name, of in optimizer._states.by_name.items() if of[k] is not None}
        if len(states) < len(optimizer._states.by_name):
            found.append(array)  # a variable that Keras overwrites by itself
            continue
        body = np.float64 if array.dtype == np.float64 else np.float32
        given = {name: state.astype(body) for name, state in states.items()}
        new = ahead.move(array.astype(body), given, scalars, to_weights=to_weights)
        found.append(new.astype(array.dtype))
    return found


def array_of(variable: Any) -> Array:
    """A copy of a variable's value."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if keras.backend.backend() == "tensorflow":
        return np.array(value.numpy())  # what keras.ops does there, NumPy 2 deprecates
    return np.array(ops.convert_to_numpy(value))


def number(value: Any) -> float:
    """The value of a scalar variable, tensor or number."""
    return float(value) if isinstance(value, (int, float)) else float(array_of(value))


def are_ahead(optimizer: Optimizer) -> bool:
    """Whether the variables hold points ahead of the weights at the moment."""
    return optimizer._states.ahead is not None and number(optimizer._states.ahead) > 0


def place(optimizer: Optimizer, arrays: list[Array]) -> None:
    """Write values into the variables."""
    for variable, array in zip(optimizer._trainable_variables, arrays, strict=True):
        variable.assign(array)


def to_weights(optimizer: Optimizer) -> None:
    """Have the variables hold the weights from now on; the next step goes on from there."""
    if are_ahead(optimizer):
        place(optimizer, moved(optimizer, to_weights=True))
        optimizer._states.ahead.assign(0.0)


def to_lookahead(optimizer: Optimizer) -> None:
    """Have the variables hold the points ahead, where the next gradient is to be taken."""
    if optimizer._states.ahead is not None and not are_ahead(optimizer):
        place(optimizer, moved(optimizer, to_weights=False))
        optimizer._states.ahead.assign(1.0)


def weights(optimizer: Optimizer) -> list[Array] | None:
    """The weights, if the variables hold something else."""
    return moved(optimizer, to_weights=True) if are_ahead(optimizer) else None


def explicit(optimizer: Optimizer) -> list[Array] | None:
    """The points ahead, if the variables hold the weights and the caller looks ahead by himself."""
    wanted = optimizer.built and optimizer.rule.ahead is not None and optimizer.lookahead == "explicit"
    return moved(optimizer, to_weights=False) if wanted else None


@dataclass(frozen=True)
class Kept:
    """What variables held before they were given other values, these values, and how many steps had been done."""

    arrays: list[Array]
    placed: list[Array]
    done: float
    ahead: bool


def leave(optimizer: Optimizer, arrays: list[Array] | None) -> Kept | None:
    """Write other values into the variables; `come_back` undoes it."""
    if arrays is None:
        return None
    held = [array_of(variable) for variable in optimizer._trainable_variables]
    kept = Kept(held, arrays, number(optimizer._iterations), are_ahead(optimizer))
    place(optimizer, arrays)
    if kept.ahead:
        optimizer._states.ahead.assign(0.0)
    return kept


def come_back(optimizer: Optimizer, kept: Kept | None) -> None:
    """Put back exactly what the variables held, unless there have been steps, which went on from the other values.

    Weights that somebody has set meanwhile stay what training goes on from.
    """
    if kept is None or number(optimizer._iterations) != kept.done:
        return
    if kept.ahead and (are_ahead(optimizer) or not _hold(optimizer, kept.placed)):
        to_lookahead(optimizer)
        return
    place(optimizer, kept.arrays)
    if kept.ahead:
        optimizer._states.ahead.assign(1.0)


def _hold(optimizer: Optimizer, arrays: list[Array]) -> bool:
    held = zip(optimizer._trainable_variables, arrays, strict=True)
    return all(array_of(variable).tobytes() == array.tobytes() for variable, array in held)


@contextlib.contextmanager
def away(optimizer: Optimizer, arrays: list[Array] | None) -> Iterator[None]:
    """Have other values in the variables for the length of a with block."""
    kept = leave(optimizer, arrays)
    try:
        yield
    finally:
        come_back(optimizer, kept)
