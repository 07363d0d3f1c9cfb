"""A race as runs of MLflow."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from downslope.lab.engines.protocol import Run, said
from downslope.lab.exports.told import curves_of, last_of, settings_of, steps_of
from downslope.lab.races.results import Race, RuleResult

AT_A_TIME = 1000
"""So many numbers MLflow takes in one call."""


def write(race: Race, place: str) -> None:
    """Write to a tracking server, or into a SQLite file; see `downslope.lab.export`."""
    mlflow: Any = importlib.import_module("mlflow")
    address = place if "://" in place else f"sqlite:///{Path(place).absolute()}"
    try:
        client = mlflow.MlflowClient(tracking_uri=address)
        experiment = client.get_experiment_by_name(race.title)
        number = client.create_experiment(race.title) if experiment is None else experiment.experiment_id
        tags = {"verdict": race.verdict, "data": race.data_hash}
        whole = client.create_run(number, run_name="race", tags=tags).info.run_id
        with _ended(client, whole):
            for result in race.rules:
                for run in (*result.tuning, *result.verdict):
                    _write_run(race, result, run, client, number, whole)
    except mlflow.MlflowException as error:
        why = str(error).strip().partition("\n")[0]
        raise OSError(f"MLflow did not take the race, or not all of it, at place={place}: {why}") from error


def _write_run(race: Race, result: RuleResult, run: Run, client: Any, number: str, whole: str) -> None:
    """Write a run below the one of the race."""
    entities: Any = importlib.import_module("mlflow.entities")
    now = int(1000 * time.time())
    name = f"{run.rule} lr={run.lr:g} {said(run.setting)} {run.phase} {run.seed}".replace("  ", " ")
    tags = {"mlflow.parentRunId": whole, **({"cause": run.cause} if run.cause else {})}
    one = client.create_run(number, run_name=name, tags=tags).info.run_id
    steps = steps_of(race, run)
    curves = {name: list(zip(steps, values, strict=True)) for name, values in curves_of(run).items()}
    ends = {name: [(steps[-1], value)] for name, value in last_of(run).items()}
    metrics = [
        entities.Metric(name, value, now, step) for name, points in {**curves, **ends}.items() for step, value in points
    ]
    params = [entities.Param(name, str(value)) for name, value in settings_of(result, run).items()]
    with _ended(client, one, "FINISHED" if run.diverged_at is None else "FAILED"):
        client.log_batch(one, params=params)
        for first in range(0, len(metrics), AT_A_TIME):
            client.log_batch(one, metrics=metrics[first : first + AT_A_TIME])


@contextlib.contextmanager
def _ended(client: Any, run: str, how: str = "FINISHED") -> Iterator[None]:
    """Ends a run of MLflow; as failed where it was not written to its end, if MLflow can still be told."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, how)
