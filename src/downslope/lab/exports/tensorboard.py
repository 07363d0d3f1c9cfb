"""A race as event files of TensorBoard."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from downslope.lab.engines.protocol import Run
from downslope.lab.exports.told import curves_of, last_of, settings_of, steps_of
from downslope.lab.races.results import Race, RuleResult


def write(race: Race, place: str) -> None:
    """Write a folder of event files; see `downslope.lab.export`."""
    events: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
    records: Any = importlib.import_module("tensorboard.summary.writer.record_writer")
    now = time.time()
    folders = _folders(result.rule for result in race.rules)
    for result in race.rules:
        for run in (*result.tuning, *result.verdict):
            setting = ",".join([f"lr={run.lr!r}", *(f"{name}={value!r}" for name, value in run.setting)])
            folder = Path(place, folders[result.rule], setting, f"{run.phase}-{run.seed}")
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"events.out.tfevents.{int(now)}.downslope").open("wb") as file:
                writer = records.RecordWriter(file)
                writer.write(events.Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
                for step, value in _values(race, result, run):
                    event = events.Event(wall_time=now, step=step)
                    event.summary.value.append(value)
                    writer.write(event.SerializeToString())


def _values(race: Race, result: RuleResult, run: Run) -> Iterator[tuple[int, Any]]:
    """What is told of a run, and after how many steps."""
    new: Any = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary.Value
    api: Any = importlib.import_module("tensorboard.plugins.hparams.api_pb2")
    about: Any = importlib.import_module("tensorboard.plugins.hparams.metadata")
    told: Any = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")

    def setting(tag: str, data: Any) -> tuple[int, Any]:
        return 0, new(tag=tag, metadata=about.create_summary_metadata(data), tensor=about.NULL_TENSOR)

    start = told.HParamsPluginData()
    for name, value in settings_of(result, run).items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(start.session_start_info.hparams[name], kind, value)
    yield setting(about.SESSION_START_INFO_TAG, start)
    steps = steps_of(race, run)
    for name, values in curves_of(run).items():
        yield from ((step, new(tag=name, simple_value=value)) for step, value in zip(steps, values, strict=True))
    yield from ((steps[-1], new(tag=name, simple_value=value)) for name, value in last_of(run).items())
    end = told.HParamsPluginData()
    end.session_end_info.status = api.STATUS_SUCCESS if run.diverged_at is None else api.STATUS_FAILURE
    yield setting(about.SESSION_END_INFO_TAG, end)


def _folders(rules: Iterable[str]) -> dict[str, str]:
    """A folder for each rule, whatever it is called."""
    folders: dict[str, str] = {}
    for rule in rules:
        plain = re.sub(r"[^\w.+-]", "_", rule).lstrip(".") or "_"
        taken = plain in folders.values()
        folders[rule] = f"{plain}-{len(folders)}" if taken else plain
    return folders
