"""A race as a file: to JSON and back without losing a bit.

JSON has no word for infinity, which is what a diverged run's loss is, so infinite and missing numbers are written as
the strings "inf", "-inf" and "nan". Reading is strict: a key too many or too few means that the file was made by
something else, and a half-understood race is worse than none. Only a field that was added later may be missing, from a
file that is older than it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from downslope.lab.engines.protocol import LATER, Run, said

if TYPE_CHECKING:
    import polars as pl
    from _typeshed import DataclassInstance

FORMAT = 2  # 1 had medians and no splits
WORDS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}

T = TypeVar("T")


def to_json(race: DataclassInstance) -> str:
    """Write a race as JSON.

    Args:
        race: A data class of data classes, strings, numbers, booleans, None, and lists, tuples and dicts of these.

    Returns:
        One JSON object with the fields of the race and `"format": 2`; `from_json` gives back an equal race.

    Raises:
        ValueError: A value is of a kind that JSON cannot hold; the message says where it is.
    """
    document = {"format": FORMAT, **{f.name: encode(getattr(race, f.name), f.name) for f in dataclasses.fields(race)}}
    return json.dumps(document, allow_nan=False)


def from_json(text: str, kind: type[T]) -> T:
    """Read a race that `to_json` wrote.

    Args:
        text: The JSON.
        kind: The data class of a race; the annotations of its fields say what each value must be.

    Returns:
        The race.

    Raises:
        ValueError: The text is no JSON, was written in another format, lacks a key, has one too many, or has a value of
            the wrong kind; the message says which and where.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"This is no race: it is not JSON ({error}).") from None
    if not isinstance(document, dict) or "format" not in document:
        raise ValueError("This is no race: it has no key 'format'.")
    found = document.pop("format")
    if found != FORMAT:
        raise ValueError(
            f"The race is in format {found!r}, but this version reads {FORMAT}; use the downslope that wrote it."
        )
    race = decode(document, kind, "race")
    assert isinstance(race, kind)
    return race


def runs_table(runs: Iterable[Run]) -> pl.DataFrame:
    """Runs as a table, one row each; the columns are described at `Race.runs`."""
    import polars as pl

    rows = [
        {
            "rule": run.rule,
            "lr": run.lr,
            "setting": said(run.setting) or None,
            "seed": run.seed,
            "phase": run.phase,
            "diverged_at": run.diverged_at,
            "cause": run.cause or None,
            "train_loss": run.train_loss[-1] if run.train_loss else None,
            "valid_loss": run.final_loss,
            "valid_accuracy": None if run.valid_accuracy is None else run.valid_accuracy[-1],
            "best_valid_loss": run.best_loss,
            "test_loss": run.test_loss,
            "test_accuracy": run.test_accuracy,
        }
        for run in runs
    ]
    kinds = {"rule": pl.String, "lr": pl.Float64, "setting": pl.String, "seed": pl.Int64, "phase": pl.String}
    kinds |= {"diverged_at": pl.Int64, "cause": pl.String}
    numbers = ("train_loss", "valid_loss", "valid_accuracy", "best_valid_loss", "test_loss", "test_accuracy")
    return pl.DataFrame(rows, schema={**kinds, **dict.fromkeys(numbers, pl.Float64)})


def encode(value: Any, where: str) -> Any:
    """What JSON can hold of a value: of data classes, strings, numbers, booleans, None, and lists, tuples and dicts.

    Raises:
        ValueError: It is of another kind; the message says `where`.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where}: the key {key!r} is no string.")
        return {key: encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        if all(type(item) is float and math.isfinite(item) for item in value):  # a curve, of which there may be many
            return list(value)
        return [encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    raise ValueError(f"{where}: {value!r} is a {type(value).__name__}, which JSON cannot hold.")


def decode(value: Any, kind: Any, where: str) -> Any:
    """A value of this kind, which `encode` made that of.

    Raises:
        ValueError: It is of another kind; the message says `where`.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _decode_fields(value, kind, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return _decode_union(value, arguments, where)
    if origin is Literal:
        _require(value in arguments, value, " or ".join(repr(argument) for argument in arguments), where)
        return value
    if origin is tuple:
        _require(isinstance(value, list), value, "a list", where)
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        _require(len(kinds) == len(value), value, f"a list of {len(kinds)}", where)
        return tuple(decode(item, kinds[index], f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        _require(isinstance(value, dict), value, "an object", where)
        return {key: decode(item, arguments[1], f"{where}[{key!r}]") for key, item in value.items()}
    return _decode_plain(value, kind, where)


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _decode_fields(value: Any, kind: Any, where: str) -> Any:
    _require(isinstance(value, dict), value, "an object", where)
    kinds = _hints(kind)
    unknown = sorted(value.keys() - kinds.keys())
    missing = sorted(f.name for f in dataclasses.fields(kind) if f.name not in value and f.metadata != LATER)
    if unknown or missing:
        complaints = [f"unknown keys {unknown}"] * bool(unknown) + [f"missing keys {missing}"] * bool(missing)
        raise ValueError(f"{where}: {' and '.join(complaints)}; was the file made by another version of downslope?")
    return kind(**{name: decode(item, kinds[name], f"{where}.{name}") for name, item in value.items()})


def _decode_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    if bool in kinds and isinstance(value, bool):
        return value
    (kind,) = (kind for kind in kinds if kind not in (type(None), bool))
    return decode(value, kind, where)


def _decode_plain(value: Any, kind: Any, where: str) -> Any:
    if kind is float:
        if isinstance(value, str) and value in WORDS:
            return WORDS[value]
        _require(isinstance(value, int | float) and not isinstance(value, bool), value, "a number", where)
        return float(value)
    names = {int: "a whole number", str: "text", bool: "true or false"}
    _require(type(value) is kind, value, names[kind], where)
    return value


def _require(holds: bool, value: Any, expected: str, where: str) -> None:
    if not holds:
        shown = repr(value)
        raise ValueError(f"{where}: expected {expected}, found {shown if len(shown) < 60 else shown[:57] + '...'}.")
