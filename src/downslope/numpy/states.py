"""What the optimizer for NumPy arrays remembers of each: as what it is kept, and how it begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from downslope.language.program import Program
from downslope.targets.codes import CODED, SCALES, blocks, encode
from downslope.targets.shapes import held_shape
from downslope.training.eight_bits import none_codable
from downslope.training.groups import Array, Group
from downslope.training.settings import Settings

States = dict[str, dict[str, Array]]
"""Arrays by the name of the state, or of its codes or scales, and that of the weights."""


def codes_for(settings: Settings, dtype: np.dtype[Any], state_dtype: Any) -> Mapping[str, str]:
    """The states that are kept as codes, and as which: "int8" or "uint8".

    Args:
        settings: The rule, as it was chosen.
        dtype: The dtype of the weights.
        state_dtype: What was asked for.

    Raises:
        TypeError: That is no dtype.
        ValueError: States cannot be kept so.
    """
    from downslope.backends.coded import codes_of

    if state_dtype is None:
        return {}
    try:
        wanted = np.dtype(state_dtype)
    except TypeError:
        raise TypeError(f"state_dtype={state_dtype!r:.60} is no dtype; give numpy.uint8, or leave it out") from None
    if wanted != np.uint8:
        raise ValueError(
            f"state_dtype={wanted} is not there for NumPy arrays; numpy.uint8 keeps states in eight bits where these "
            "do, and without state_dtype they are kept in the dtype of the weights"
        )
    if dtype != np.float32:
        raise ValueError(f"state_dtype=uint8 is for weights of float32; these are {dtype}; leave state_dtype out")
    program = settings.program
    if program.over_tensors:
        raise ValueError(
            f"state_dtype={wanted} is for rules that treat each weight by itself; {program.name} goes by whole "
            "tensors, whose states are kept as they are; leave state_dtype out"
        )
    codes = codes_of(program, None if settings.ahead is None else settings.ahead.to_point)
    if program.states and not codes:
        raise ValueError(f"state_dtype=uint8: {none_codable(settings.rule.name, program.states)}")
    return codes


def begun(params: Mapping[str, Array], groups: Sequence[Group], codes: Mapping[str, str]) -> States:
    """All states at their initial values.

    Args:
        params: The weights, by name.
        groups: Their groups.
        codes: Those that are kept as codes, and as which.
    """
    program = groups[0].settings.program
    found: States = {}
    for group in groups:
        numbers = {name: group.value(name, 1, program.ranges[name]) for name in group.hyperparameters}
        for state in program.states:
            start = program.initial(state, numbers)
            for name in group.names:
                if state not in codes:
                    found.setdefault(state, {})[name] = _begun(program, state, params[name], start)
                    continue
                assert start is not None
                code, scale = encode(np.array([start], np.float32), codes[state])
                x = params[name]
                found.setdefault(state + CODED, {})[name] = np.full(x.shape, code[0])
                found.setdefault(state + SCALES, {})[name] = np.full(blocks(x.size), scale[0])
    order = [*program.states, *(state + CODED for state in codes), *(state + SCALES for state in codes)]
    return {what: found[what] for what in order if what in found}


def remembered(state: Mapping[str, Mapping[str, Array]], states: Iterable[str], name: str) -> list[Array]:
    """The arrays that are remembered of some weights: one for each of these states, and then the scales of codes."""
    arrays = [state[what if what in state else what + CODED][name] for what in states]
    return arrays + [state[what + SCALES][name] for what in states if what + SCALES in state]


def _begun(program: Program, state: str, like: Array, initial: float | None) -> Array:
    """A new state of these weights, each element its initial value; None for a copy of the weights."""
    from downslope.backends.memory import alongside

    if state in program.spaces:
        return np.full(held_shape(program, state, like.shape), initial, like.dtype.type)
    array = alongside(like, np.dtype(like.dtype.type))
    array[...] = like if initial is None else initial
    return array
