"""What is raced on, in lines for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from downslope.lab.engines.learner import Loss, described
from downslope.lab.problems.baseline import baseline_on
from downslope.lab.problems.examples import Examples
from downslope.lab.problems.problem import Problem
from downslope.printable import printable


def about(problem: Problem, rules: int, splits: str = "varied") -> list[str]:
    """What is raced, in lines: the title, the task and its rows, the model and its training, the loss, what is shown.

    Args:
        problem: What is raced on.
        rules: How many rules take part.
        splits: "varied" if every seed has a split of its own.
    """
    from downslope.lab.engines.network import model_of  # JAX takes a second to import

    model = model_of(problem)
    many = f"{rules} rule{'s' if rules != 1 else ''}"
    title, shows = printable(problem.title), [f"A right implementation: {problem.shows}"] if problem.shows else []
    if problem.task is None:
        budget = f"{problem.epochs * (problem.draws or 1):,} steps from a start by the seed"
        return [title, f"{problem.about}; {model.size:,} weights, {budget}; {many}", *shows]
    parts = {"to train": problem.train, "to validate": problem.valid, "to test": problem.test}
    rows = sum(len(part.x) for part in parts.values())
    split = ", ".join(f"{len(part.x):,} {purpose}" for purpose, part in parts.items())
    if problem.task == "classification":
        loss = f"cross-entropy; {math.log(problem.outputs):.3g} is what guessing among {problem.outputs} classes gives"
    else:
        constant = baseline_on(problem, *problem.split()[:2])[0]
        loss = f"mean squared error; {constant:.3g} is what predicting the mean gives"
    return [
        title,
        f"{problem.task.capitalize()} of {rows:,} rows: {split}; "
        + ("each seed has a split of its own" if splits == "varied" else "one split for all seeds"),
        f"{model.name}, {model.size:,} weights, {problem.epochs} epochs in batches of {problem.batch_size}; {many}",
        f"Loss: {loss}",
        *shows,
    ]


def about_training(train: Callable[[Any], object], rules: int) -> tuple[str, str]:
    """What is raced where that is a training of the user's own, in two lines.

    Args:
        train: Its function.
        rules: How many rules take part.
    """
    many = f"{rules} rule{'s' if rules != 1 else ''}"
    title = f"Your own training, {getattr(train, '__qualname__', type(train).__name__)}"
    return printable(title), f"{many}; first a run of each at its default learning rate. Loss: as it is reported"


def about_model(
    make: Callable[[int], object], examples: Examples | Problem, loss: Loss | None, rules: int, splits: str
) -> tuple[str, str, str]:
    """What is raced where that is a model of the user's own, in three lines.

    Args:
        make: Its factory.
        examples: What it learns from.
        loss: What it minimises; None: as the targets say.
        rules: How many rules take part.
        splits: "varied" if every seed has a split of its own.
    """
    assert examples.task is not None  # data without are refused
    parts = examples.split()
    split = ", ".join(
        f"{len(rows):,} {purpose}" for rows, purpose in zip(parts, ("to train", "to validate", "to test"), strict=True)
    )
    return (
        printable(f"{described(make, loss, examples.task)}, on {examples.title}"),
        f"{examples.task.capitalize()} of {sum(map(len, parts)):,} rows: {split}; "
        + ("each seed has a split of its own" if splits == "varied" else "one split for all seeds"),
        f"{examples.epochs} epochs in batches of {examples.batch_size}; {rules} rule{'s' if rules != 1 else ''}, first "
        "a run of each at its default learning rate",
    )
