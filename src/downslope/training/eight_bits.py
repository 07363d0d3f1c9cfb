"""States in eight bits across files: a training goes on from codes or from numbers, whichever it keeps itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from downslope.targets.codes import CODED, SCALES, blocks, check_scales, decode, encode
from downslope.training.checkpoint import CheckpointError, Raw
from downslope.training.protocol import Kind, Training

_NUMBERS = ("float64", "float32", "float16", "bfloat16")


def none_codable(rule: str, states: Iterable[str]) -> str:
    """What is wrong with asking for states in eight bits for a rule of which none can be kept so."""
    return (
        f"{rule} has no state that eight bits would do for; {', '.join(states)} must be exact, as places of weights, "
        "points ahead and variances must. Leave state_dtype out"
    )


def as_kept(training: Training, file: Mapping[str, Raw]) -> dict[str, Raw]:
    """The tensors of a file, each state as the training keeps it.

    Codes are read as the numbers they stand for, in single precision; numbers become the nearest codes.

    Args:
        training: What is to go on.
        file: The tensors by their keys. Those of other kinds than the training's stay as they are.

    Raises:
        CheckpointError: Scales are not what scales can be, or a state is negative that cannot be.
    """
    found = dict(file)
    for group in training.groups:
        for name in group.names:
            kinds = training.kinds(name)
            for what, kind in kinds.items():
                key = f"{what}/{name}"
                if what.endswith(CODED):
                    state = what.removesuffix(CODED)
                    plain = f"{state}/{name}"
                    if key not in file and plain in file and _is(file[plain], _NUMBERS, kind[1]):
                        found[key], found[f"{state}{SCALES}/{name}"] = _coded(plain, found.pop(plain), kind[0])
                elif what.endswith(SCALES) and key in file and _is(file[key], ("float32",), kind[1]):
                    _check(key, file[key])
                elif key not in file and f"{what}{CODED}/{name}" in file and what != "x":
                    _read(found, what, name, kind)
    return found


def _is(raw: Raw, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> bool:
    return raw.dtype in dtypes and raw.shape == shape


def _coded(key: str, raw: Raw, code: str) -> tuple[Raw, Raw]:
    with np.errstate(over="ignore"):
        numbers = raw.numbers().astype(np.float32)
    if code == "uint8" and (numbers < 0).any():
        raise CheckpointError(f"the file's {key!r} is {numbers.min():g} somewhere; this rule's is never negative")
    codes, scales = encode(numbers.reshape(-1), code)
    return Raw.of(codes.reshape(raw.shape)), Raw.of(scales)


def _read(found: dict[str, Raw], state: str, name: str, kind: Kind) -> None:
    """Put numbers in the place of a state's codes and scales, if they are of the right kinds."""
    dtype, shape = kind
    keys = f"{state}{CODED}/{name}", f"{state}{SCALES}/{name}"
    codes, scales = (found.get(key) for key in keys)
    size = int(np.prod(shape))
    if codes is None or scales is None or not _is(codes, ("int8", "uint8"), shape):
        return
    if not _is(scales, ("float32",), (blocks(size),)) or dtype not in _NUMBERS:
        return
    _check(keys[1], scales)
    numbers = decode(codes.array().reshape(-1), scales.array()).reshape(shape)
    with np.errstate(over="ignore"):
        found[f"{state}/{name}"] = Raw.rounded(numbers, dtype)
    for key in keys:
        del found[key]


def _check(key: str, raw: Raw) -> None:
    try:
        check_scales(raw.array())
    except ValueError as error:
        raise CheckpointError(f"the file's {key!r} holds {error}") from None
