"""What a race is on, as it was typed: a problem, a table, a model of one's own with its data, or one's own training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from downslope.cli.names import names_a_file, own_function

if TYPE_CHECKING:
    from downslope.lab.problems.examples import Examples
    from downslope.lab.problems.problem import Problem


@dataclass(frozen=True)
class Raced:
    """What a race is on.

    Attributes:
        arguments: What `downslope.lab.race` is given of it.
        about: Says what it is, in lines of which the first is a title, given how many rules take part and how the rows
            are split.
        epochs: The epochs of a run; None if the engine reports run by run.
        own: Whether code of the user's own is trained, one run at a time.
        needs: The packages that train it, beyond what every race needs. They take seconds to load.
        remarks: How the data were read, in sentences.
    """

    arguments: Mapping[str, Any]
    about: Callable[[int, str], Sequence[str]]
    epochs: int | None
    own: bool
    needs: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def raced_on(name: str, about_table: Mapping[str, Any], *, epochs: int | None, data: str, loss: str) -> Raced:
    """What is raced on.

    Args:
        name: A problem, a table, or `file.py:function`.
        about_table: What was said of the table, by option.
        epochs: What was said of the epochs.
        data: What a model learns from; empty: the function of a file is no factory of models.
        loss: What a model minimises; empty: as the targets say.

    Raises:
        ValueError: There is no such thing, or an option does not go with it.
    """
    task = about_table["task"]
    if task not in ("", "classification", "regression"):
        raise ValueError(f"--task {task}: choose classification or regression")
    if data and not names_a_file(name):
        raise ValueError(f"--data {data} is for a model of yours, file.py:function, which {name} is none of")
    if loss and not data:
        raise ValueError(f"--loss {loss} is for a model of yours; give its --data too")
    if data:
        return _model(name, data, loss, about_table, epochs)
    if names_a_file(name):
        return _training(name, about_table, epochs)
    return _problem(name, about_table, epochs)


def _training(name: str, about_table: Mapping[str, Any], epochs: int | None) -> Raced:
    """The training of the user's own that is named."""
    from downslope.cli.about import about_training

    if used := _used({**about_table, "epochs": epochs}):
        raise ValueError(
            f"--{used[0].replace('_', '-')} is for a table; {name} is a training of your own (a model needs --data)"
        )
    train = own_function(name, "PROBLEM", "to train a run")
    return Raced({"problem": train}, lambda rules, splits: about_training(train, rules), None, own=True)


def _model(name: str, data: str, loss: str, about_table: Mapping[str, Any], epochs: int | None) -> Raced:
    """The model of the user's own that is named, and its data."""
    from downslope.cli.about import about_model
    from downslope.lab.engines.model_engine import examples_for

    if about_table["hidden"]:
        raise ValueError(f"--hidden is for a table without a model; {name} has its layers")
    make = own_function(name, "PROBLEM", "to make a model for a seed")
    minimised: Any = own_function(loss, "--loss", "to tell a loss") if names_a_file(loss) else loss or None
    size = about_table["batch_size"]
    held: Problem | Examples | str = data
    if about_table["target"]:
        held = _table(data, about_table, epochs)
    elif used := _used({**about_table, "batch_size": None}):
        raise ValueError(f"--{used[0].replace('_', '-')} is for a table; say its --target too")
    examples = examples_for(held, minimised, batch_size=size, epochs=epochs)
    return Raced(
        {"model": make, "data": examples, "loss": minimised},
        lambda rules, splits: about_model(make, examples, minimised, rules, splits),
        examples.epochs,
        own=True,
        needs=("sklearn.model_selection",),
        remarks=examples.remarks,
    )


def _problem(name: str, about_table: Mapping[str, Any], epochs: int | None) -> Raced:
    """The built-in problem or the table that is named."""
    from downslope.cli.about import about
    from downslope.lab import PROBLEMS, load_problem
    from downslope.lab.problems.problem import check_sizes
    from downslope.lab.problems.sources import names_a_table

    used = _used(about_table)
    if names_a_table(name) or (name not in PROBLEMS and (about_table["target"] or Path(name).exists())):
        chosen = _table(name, about_table, epochs)
    elif used and name in PROBLEMS:
        raise ValueError(f"--{used[0].replace('_', '-')} is for a table of yours; {name} is a built-in problem")
    else:
        chosen = load_problem(name)
        if epochs is not None:
            check_sizes(hidden=chosen.hidden, batch_size=None, epochs=epochs)
            chosen = replace(chosen, epochs=epochs)
    return Raced(
        {"problem": chosen},
        lambda rules, splits: about(chosen, rules, splits),
        chosen.epochs,
        own=False,
        needs=("jax", "sklearn.model_selection"),
        remarks=chosen.remarks,
    )


def _table(name: str, about_table: Mapping[str, Any], epochs: int | None) -> Problem:
    from downslope.lab import load_table

    used = {"target": "", **{key: about_table[key] for key in _used(about_table)}}
    if "hidden" in used:
        used["hidden"] = tuple(_whole_numbers(used["hidden"], "--hidden"))
    return load_table(name, **used, epochs=30 if epochs is None else epochs)


def _used(options: Mapping[str, Any]) -> list[str]:
    """The options that a person has given."""
    unused = {"decimal_comma": (None,), "batch_size": (None,), "epochs": (None,)}  # False and 0 are something said
    return [key for key, value in options.items() if value not in unused.get(key, ("", [], None, False))]


def _whole_numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{option} {text}: give whole numbers with commas between") from None
