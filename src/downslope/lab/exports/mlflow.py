"""A race as runs of MLflow."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from downslope.lab.engines.protocol import said
from downslope.lab.exports.told import curves_of, last_of, settings_of, steps_of
from downslope.lab.races.results import Race

AT_A_TIME = 1000
"""So many numbers MLflow takes in one call."""


def write(race: Race, place: str) -> None:
    """Write to a tracking server, or into a SQLite file; see `downslope.lab.export`."""
    mlflow: Any = importlib.import_module("mlflow")
    entities: Any = importlib.import_module("mlflow.entities")
    address = place if "://" in place else f"sqlite:///{Path(place).absolute()}"
    client = mlflow.MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name(race.title)
    number = client.create_experiment(race.title) if experiment is None else experiment.experiment_id
    now = int(1000 * time.time())
    whole = client.create_run(number, run_name="race", tags={"verdict": race.verdict, "data": race.data_hash})
    for result in race.rules:
        for run in (*result.tuning, *result.verdict):
            name = f"{run.rule} lr={run.lr:g} {said(run.setting)} {run.phase} {run.seed}".replace("  ", " ")
            tags = {"mlflow.parentRunId": whole.info.run_id, **({"cause": run.cause} if run.cause else {})}
            one = client.create_run(number, run_name=name, tags=tags).info.run_id
            steps = steps_of(race, run)
            curves = {name: list(zip(steps, values, strict=True)) for name, values in curves_of(run).items()}
            ends = {name: [(steps[-1], value)] for name, value in last_of(run).items()}
            metrics = [
                entities.Metric(name, value, now, step)
                for name, points in {**curves, **ends}.items()
                for step, value in points
            ]
            params = [entities.Param(name, str(value)) for name, value in settings_of(result, run).items()]
            client.log_batch(one, params=params)
            for first in range(0, len(metrics), AT_A_TIME):
                client.log_batch(one, metrics=metrics[first : first + AT_A_TIME])
            client.set_terminated(one, "FINISHED" if run.diverged_at is None else "FAILED")
    client.set_terminated(whole.info.run_id)
