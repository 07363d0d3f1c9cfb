"""What rules are tuned over, as it was typed: learning rates, hyperparameters and grids of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downslope.rule import Rule


def rules_of_a_race(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules by what they are called in a race: one for matrices by what trains the rest beside it too."""
    from downslope.lab.races.entrants import name_in_a_race

    return {name_in_a_race(name, rule): rule for name, rule in rules.items()}


def grid_typed(texts: list[str]) -> dict[str, list[float | bool]]:
    """A grid given as `NAME=VALUE,VALUE`, one text for each name."""
    found: dict[str, list[float | bool]] = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not (name and equals and values):
            raise ValueError(f"--grid {text}: give NAME=VALUES, such as weight_decay=0,0.01,0.1")
        if name in found:
            raise ValueError(f"--grid {text}: {name} is given twice; give all of its values at once")
        try:
            found[name] = [_value(part.strip()) for part in values.split(",") if part.strip()]
        except ValueError as error:
            raise ValueError(f"--grid {text}: {error}") from None
    return found


def hyperparameters_typed(
    texts: list[str], rules: dict[str, Rule], varied: Collection[str] = ()
) -> dict[str, dict[str, float | bool]]:
    """The hyperparameters given as `RULE.NAME=VALUE`; refuses a race in which one without default is not given."""
    from downslope.lab.engines.entrant import REST_RATIO, for_matrices
    from downslope.lab.races.entrants import called

    chosen: dict[str, dict[str, float | bool]] = {name: {} for name in rules}
    for text in texts:
        place, equals, value = text.partition("=")
        owner, dot, key = place.strip().rpartition(".")
        if not (equals and dot):
            raise ValueError(f"--set {text}: give RULE.NAME=VALUE, such as momentum.mu=0.95")
        meant = called(owner, rules)
        if not meant:
            raise ValueError(f"--set {text}: no rule of this race is named {owner}; it has {', '.join(rules)}")
        if len(meant) > 1:
            raise ValueError(f"--set {text}: say which {owner} is meant: {' or '.join(meant)}")
        if key == "lr":
            raise ValueError(f"--set {text}: lr is what the race tunes; give --lrs")
        try:
            rule, typed = rules[meant[0]], _value(value.strip())
            own = not (key == REST_RATIO and for_matrices(rule))  # else the plan checks it
            chosen[meant[0]][key] = rule.checked(key, typed) if own else typed
        except (TypeError, ValueError) as error:
            raise ValueError(f"--set {text}: {error}") from None
    for name, rule in rules.items():
        required = [key for key, value in rule.hyperparameters.items() if value is None and key != "lr"]
        if lacking := [key for key in required if key not in chosen[name] and key not in varied]:
            options = " ".join(f"--set {name}.{key}=VALUE" for key in lacking)
            raise ValueError(f"{name} needs a value for {', '.join(lacking)}; give {options}")
    return {name: given for name, given in chosen.items() if given}


def _value(text: str) -> float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor true or false") from None


def numbers_typed(text: str, option: str) -> list[float]:
    """Numbers with commas between, given for an option."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{option} {text}: give numbers with commas between") from None
