"""A race as a study of Optuna."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from downslope.lab.engines.protocol import Run
from downslope.lab.exports.told import settings_of, steps_of
from downslope.lab.races.grid import Point
from downslope.lab.races.results import Race
from downslope.lab.races.statistics import geometric_mean


def write(race: Race, place: str) -> None:
    """Write a journal with one study; see `downslope.lab.export`."""
    optuna: Any = importlib.import_module("optuna")
    journal: Any = importlib.import_module("optuna.storages.journal")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(journal.JournalFileBackend(place, journal.JournalFileOpenLock(place)))
    study = optuna.create_study(storage=storage, study_name=race.title, direction="minimize")
    study.set_user_attr("verdict", race.verdict)
    rates = [run.lr for result in race.rules for run in result.tuning]
    given = [one for result in race.rules for run in result.tuning for one in run.setting]
    distributions = {
        name: optuna.distributions.CategoricalDistribution(sorted({value for key, value in given if key == name}))
        for name in dict(given)
    }
    distributions |= {
        "rule": optuna.distributions.CategoricalDistribution([result.rule for result in race.rules]),
        "lr": optuna.distributions.FloatDistribution(min(rates, default=1.0), max(rates, default=1.0), log=True),
    }
    for result in race.rules:
        for at in sorted({Point(run.lr, run.setting) for run in result.tuning}):
            runs = [run for run in result.tuning if (run.lr, run.setting) == at]
            attributes: dict[str, Any] = {f"final loss, seed {run.seed}": run.final_loss for run in runs}
            if at == (result.best_lr, result.setting) and result.loss is not None:
                attributes["loss on the reporting seeds"] = result.loss.estimate
            params = {**dict(at.setting), "rule": result.rule, "lr": at.lr}
            said = {*params, "seed", "phase"}
            others = {name: value for name, value in settings_of(result, runs[0]).items() if name not in said}
            study.add_trial(
                optuna.create_trial(
                    params=params,
                    distributions={name: distributions[name] for name in params},
                    value=_mean([run.final_loss for run in runs]),
                    intermediate_values=_means(race, runs),
                    user_attrs={**attributes, **others},
                )
            )


def _means(race: Race, runs: Sequence[Run]) -> dict[int, float]:
    """The mean losses while runs train, by step, where all of them have one."""
    by_step = [dict(zip(steps_of(race, run), run.valid_loss, strict=True)) for run in runs]
    shared = sorted(set.intersection(*map(set, by_step)))
    return {step: _mean([losses[step] for losses in by_step]) for step in shared}


def _mean(losses: Sequence[float]) -> float:
    return geometric_mean(losses) if all(map(math.isfinite, losses)) else math.inf
