"""Which arguments of a race are about what it is raced on, and what they say it is raced on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from downslope.lab.engines.model_engine import examples_for
from downslope.lab.engines.schedule import Schedule
from downslope.lab.problems.builtin import load_problem
from downslope.lab.problems.columns import DataError
from downslope.lab.problems.problem import Problem, check_sizes
from downslope.lab.subjects.course import Subject
from downslope.lab.subjects.model import OnModel
from downslope.lab.subjects.table import OnProblem
from downslope.lab.subjects.training import OnTraining

Kind = Literal["table", "function", "model", "training"]

_MODELS = dict.fromkeys(("data", "loss", "target", "batch_size"), "a model of your own, model=make_net")
_TRAININGS = dict.fromkeys(("steps", "limit", "quiet"), "a training of your own")
_OWN = {"version": "a model or a training of your own"}
_TABLES = dict.fromkeys(("split_seed", "splits", "why", "threads", "epochs"), "a table")
_DATA = dict.fromkeys(("split_seed", "splits", "why"), "data, and {problem.name} has none")
_NETWORKS = dict.fromkeys(("problem", "why"), "a problem without a model")

ELSEWHERE: dict[Kind, Mapping[str, str]] = {
    "table": {**_MODELS, **_TRAININGS, **_OWN},
    "function": {**_MODELS, **_TRAININGS, **_OWN, **_DATA},
    "model": {**_NETWORKS, "steps": "a training of your own; give epochs"},
    "training": {**_MODELS, **_TABLES},
}
"""Of all that may be raced on: the arguments that are about something else, and what that is."""


def subject_of(given: Mapping[str, Any], usual: Mapping[str, Any], schedule: Schedule) -> Subject:
    """What is raced on.

    Args:
        given: The arguments of `downslope.lab.race` that are about it.
        usual: What they are where nobody gives them.
        schedule: How the learning rate changes in a run.

    Raises:
        ValueError: There is nothing to race on, or one of the arguments is about something else.
    """
    model, problem = given["model"], given["problem"]
    if model is None and isinstance(problem, str):
        problem = load_problem(problem)
    kind = _kind(model, problem)
    for name, what in ELSEWHERE[kind].items():
        value = given[name]
        if value is not usual[name] and (not isinstance(value, (str, int, float)) or value != usual[name]):
            shown = repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
            raise ValueError(f"{name}={shown} is for a race on {what.format(problem=problem)}; leave it out")

    def of(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names}

    if kind == "model":
        examples = examples_for(given["data"], **of("loss", "target", "batch_size", "epochs"))
        return OnModel(model, examples, **of("loss", "threads", "limit", "quiet", "version"), schedule=schedule)
    if kind == "training":
        return OnTraining(problem, **of("steps", "limit", "quiet", "version"), schedule=schedule)
    if (epochs := given["epochs"]) is not None:
        check_sizes(hidden=problem.hidden, batch_size=None, epochs=epochs)
        problem = replace(problem, epochs=epochs)
    return OnProblem(problem, **of("threads", "why"), schedule=schedule)


def _kind(model: Any, problem: Any) -> Kind:
    if model is not None:
        return "model"
    if isinstance(problem, Problem):
        return "table" if problem.task is not None else "function"
    if callable(problem):
        return "training"
    raise DataError(
        f"problem: a {type(problem).__name__} is no problem; make one with load_table(..., target=COLUMN), or give a "
        "function that trains a run"
    )
