"""What a saved file says of a training besides its tensors, and whether that belongs to another one.

`checkpoint` lists the entries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from downslope.language.program import fingerprint
from downslope.training.checkpoint import CheckpointError
from downslope.training.checks import is_seed
from downslope.training.groups import Clock, Group
from downslope.training.protocol import Training


def seed_of(record: Mapping[str, Any]) -> int:
    """The seed in a record.

    Raises:
        CheckpointError: There is none, or it is no whole number of at most 63 bits.
    """
    seed = record.get("seed")
    if not is_seed(seed):
        raise CheckpointError(f"the file's seed is {seed!r:.60}; expected a whole number of at most 63 bits")
    return seed


COMPUTED = ("rule", "flags", "options", "formula")
"""The entries that say what is computed."""


def record_of(training: Training) -> dict[str, Any]:
    """The record of a training."""
    shared, groups = described(training.groups)
    clocks = {} if training.clocks is None else training.clocks
    rest = {
        name: {"t": clock.t, "scalar_states": dict(clock.scalar_states)}
        for group in training.groups
        for name in group.names
        if (clock := clocks.get(name)) is not None and clock != Clock(training.t, group.scalar_states)
    }
    stored = any(group.settings.stored_ahead for group in training.groups)
    return {
        **shared,
        "max_norm": training.max_norm,
        "groups": groups,
        **({"lookahead": ahead_scalars(training.groups, training.t)} if stored else {}),
        "t": training.t,
        "skipped": training.skipped,
        **({"clocks": rest} if rest else {}),
        **(training.rounding or {}),
    }


def ahead_scalars(groups: Sequence[Group], t: int) -> list[list[float]]:
    """What the points ahead depend on besides weights and states, group by group, after `t` steps."""
    return [group.ahead_scalars(Clock(t, group.scalar_states)) for group in groups]


def described(groups: Sequence[Group]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is computed for the first group, and every group with what is computed for it where that is something else.

    Args:
        groups: All of a training, in their order.
    """
    computed = [_computed(group) for group in groups]
    return computed[0], [
        {
            "names": list(group.names),
            "hyperparameters": {k: None if callable(v) else v for k, v in group.hyperparameters.items()},
            "scalar_states": dict(group.scalar_states),
            **{key: own[key] for key in COMPUTED if own[key] != computed[0][key]},
            **({"complex": list(group.complex_names)} if group.complex_names else {}),
            **({"pieces": dict(group.pieces)} if group.settings.program.over_tensors else {}),
        }
        for group, own in zip(groups, computed, strict=True)
    ]


def _computed(group: Group) -> dict[str, Any]:
    settings = replace(group.settings, stored_ahead=False)
    return {
        "rule": settings.rule.name,
        "flags": settings.choices,
        "options": settings.around,
        "formula": fingerprint(settings.program),
    }


def check_same(record: Mapping[str, Any], here: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Make sure that a record agrees with this optimizer's own in these entries.

    Raises:
        CheckpointError: It does not.
    """
    for key in keys:
        if record.get(key) != here[key]:
            if key == "formula":
                raise _of_another_formula("the file's", record.get(key), here)
            raise CheckpointError(
                f"the file's {key} is {record.get(key)!r}, this optimizer's {here[key]!r}; "
                "load it into an optimizer made with the same rule, formula and options"
            )


def _of_another_formula(where: str, theirs: Any, here: Mapping[str, Any]) -> CheckpointError:
    """The error for a file of a rule that had the same name and another formula."""
    return CheckpointError(
        f"{where} {here['rule']} is another formula than this optimizer's (fingerprint {theirs!r:.60}, here "
        f"{here['formula']!r}): it was written otherwise then, by you or by another version of downslope, and its "
        "states may mean something else. Load the file into an optimizer with the formula of then, as a rule of your "
        "own (the changelog tells which have changed); it goes on as before"
    )


def check_groups(
    record: Mapping[str, Any], shared: Mapping[str, Any], here: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The file's parameter groups, made sure to be those of this optimizer, in whatever order their names are.

    Args:
        record: The file's record.
        shared: What this optimizer computes for its first group.
        here: This optimizer's groups, as `described`.

    Raises:
        CheckpointError: The groups differ, or the record is malformed.
    """
    groups = record.get("groups")
    if not isinstance(groups, list) or len(groups) != len(here):
        raise CheckpointError(f"the file's groups are {groups!r:.200}; this optimizer has {len(here)}")
    for k, (saved, mine) in enumerate(zip(groups, here, strict=True)):
        _check_names(k, saved.get("names") if isinstance(saved, dict) else saved, mine["names"])
        for key in (*COMPUTED, "complex", "pieces"):
            theirs, ours = saved.get(key, record.get(key)), mine.get(key, shared.get(key))
            if key == "pieces" and (theirs is None or ours is None):  # not said, or of no matter for this rule
                continue
            if theirs != ours:
                if key == "formula":
                    raise _of_another_formula(f"in the file's group {k}", theirs, {**shared, **mine})
                raise CheckpointError(
                    f"the {key} of the file's group {k} is {theirs!r:.200}, here {ours!r:.200}; load it into an "
                    "optimizer whose groups are made in the same way"
                )
        for part in ("hyperparameters", "scalar_states"):
            _numbers(saved, part, mine[part], f"group {k}")
    return groups


def _check_names(k: int, saved: Any, mine: Sequence[str]) -> None:
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise CheckpointError(f"the file's group {k} holds {saved!r:.200}; expected names")
    if sorted(saved) != sorted(mine):
        missing, unknown = [n for n in mine if n not in saved], [n for n in saved if n not in mine]
        raise CheckpointError(
            f"the file's group {k} holds {saved!r:.200}; this optimizer's holds {mine!r:.200}; "
            f"missing in the file: {missing!r:.200}, unknown here: {unknown!r:.200}"
        )


def _numbers(saved: Mapping[str, Any], part: str, names: Collection[str], where: str) -> dict[str, Any]:
    """A part of a record that gives numbers by name, made sure to have just these names."""
    numbers = saved.get(part)
    if not isinstance(numbers, dict) or numbers.keys() != set(names):
        raise CheckpointError(f"the file's {where} has {part} {numbers!r:.200}; expected {list(names)}")
    for name, value in numbers.items():
        scheduled = value is None and part == "hyperparameters"
        if not scheduled and not _is_number(value):
            raise CheckpointError(f"the file's {name} in {where} is {value!r:.60}; expected a number")
    return numbers


def _is_number(value: Any) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def bound(record: Mapping[str, Any]) -> float | None:
    """The file's `max_norm`.

    Args:
        record: The file's record, its options checked.

    Raises:
        CheckpointError: It is neither a number of at least 0 nor None, or is there although its options say it is not.
    """
    value = record.get("max_norm")
    if not record["options"]["max_norm"]:
        if value is not None:
            raise CheckpointError(f"the file's max_norm is {value!r:.60}; expected None, as its options say")
        return None
    if not (_is_number(value) and value >= 0):
        raise CheckpointError(f"the file's max_norm is {value!r:.60}; expected a number of at least 0")
    return float(value)


def count(record: Mapping[str, Any], name: str, where: str = "") -> int:
    """A count in a record.

    Raises:
        CheckpointError: It is not a count.
    """
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise CheckpointError(f"the file's {name}{where} is {value!r:.60}; expected a whole number from 0 to 2**53")
    return value


def clocks_in(record: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Clock]:
    """How far every parameter in the file has come, by name.

    Args:
        record: The file's record.
        groups: Its groups, checked.

    Raises:
        CheckpointError: The record is malformed.
    """
    own, t = record.get("clocks", {}), count(record, "t")
    names = [name for group in groups for name in group["names"]]
    if not isinstance(own, dict) or not own.keys() <= set(names):
        raise CheckpointError(f"the file's clocks are {own!r:.200}; expected some of {names!r:.200}")
    found = {}
    for group in groups:
        for name in group["names"]:
            clock = own.get(name, {"t": t, "scalar_states": group["scalar_states"]})
            if not isinstance(clock, dict):
                raise CheckpointError(f"the file's clock of {name} is {clock!r:.60}; expected t and scalar_states")
            scalars = _numbers(clock, "scalar_states", group["scalar_states"], f"clock of {name}")
            floats = {state: float(value) for state, value in scalars.items()}
            found[name] = Clock(count(clock, "t", f" of {name}"), floats)
    return found
