"""What other tools are told of a run: its settings, and its curves over steps."""

from __future__ import annotations

import math
from collections.abc import Mapping

from downslope.lab.engines.protocol import Run
from downslope.lab.races.results import Race, RuleResult


def settings_of(result: RuleResult, run: Run) -> Mapping[str, str | float | int | bool]:
    """Rule, learning rate, seed and phase of a run, and the hyperparameters of its rule."""
    known = {name: value for name, value in result.hyperparameters.items() if name not in dict(result.setting)}
    others = {
        name: value for name, value in {**known, **dict(run.setting)}.items() if name not in ("rule", "seed", "phase")
    }
    return {"rule": run.rule, "lr": run.lr, "seed": run.seed, "phase": run.phase, **others}


def steps_of(race: Race, run: Run) -> list[int]:
    """After how many steps each entry of a run's curves was."""
    return [time * race.steps_of(run.setting) for time in run.times]


def curves_of(run: Run) -> Mapping[str, tuple[float, ...]]:
    """The curves that a run has, by name."""
    curves = {"valid_loss": run.valid_loss, "train_loss": run.train_loss, "valid_accuracy": run.valid_accuracy or ()}
    return {name: values for name, values in curves.items() if values}


def last_of(run: Run) -> Mapping[str, float]:
    """What a run reached in the end, by name; what is not finite is left out, but for the validation loss."""
    found = {"final_loss": run.final_loss, "test_loss": run.test_loss, "test_accuracy": run.test_accuracy}
    known = {name: value for name, value in found.items() if value is not None}
    return {name: value for name, value in known.items() if name == "final_loss" or math.isfinite(value)}
