import contextlib
import dataclasses
import importlib
import math
import shutil
import sys

import numpy as np
import pytest

from downslope.lab import export
from downslope.lab.engines.protocol import said
from downslope.lab.races.statistics import geometric_mean
from race_fixture import make_race

RACE = make_race(("sgd", "adam"), epochs=5, tuning_seeds=2, verdict_seeds=2)


def with_a_grid():
    """A race whose second rule was tried in four settings, and these."""
    sgd, adam = RACE.rules
    settings = [(("beta2", beta2), ("decoupled", on)) for beta2 in (0.9, 0.99) for on in (False, True)]
    tuning = [
        dataclasses.replace(run, setting=one, valid_loss=(*run.valid_loss[:-1], 1.0 + place), diverged_at=None)
        for place, one in enumerate(settings)
        for run in adam.tuning[:4]
    ]
    verdict = tuple(dataclasses.replace(run, setting=settings[0]) for run in adam.verdict)
    adam = dataclasses.replace(adam, tuning=tuple(tuning), verdict=verdict, setting=settings[0])
    few = dataclasses.replace(sgd, tuning=sgd.tuning[-3:])
    return dataclasses.replace(RACE, rules=(few, adam)), settings


def runs_of(race):
    return [run for result in race.rules for run in (*result.tuning, *result.verdict)]


def of_tensorboard(place):
    """Of every run in a folder of event files its settings, and its curves by name."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub import errors
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    def events(path):
        reader = PyRecordReader_New(str(path))
        with contextlib.suppress(errors.OutOfRangeError):
            while True:
                reader.GetNext()
                yield Event.FromString(reader.record())

    for path in place.rglob("events.out.tfevents.*"):
        curves, told = {}, {}
        for event in events(path):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                    told |= {
                        key: getattr(one, one.WhichOneof("kind"))
                        for key, one in data.session_start_info.hparams.items()
                    }
                else:
                    curves.setdefault(value.tag, []).append((event.step, value.simple_value))
        yield told, curves


def test_tensorboard_reads_every_loss_and_setting(tmp_path):
    names = ("../\u2028sgd", "..  sgd")
    rules = [
        dataclasses.replace(
            result,
            rule=name,
            tuning=tuple(dataclasses.replace(run, rule=name) for run in result.tuning),
            verdict=tuple(dataclasses.replace(run, rule=name) for run in result.verdict),
        )
        for result, name in zip(RACE.rules, names, strict=True)
    ]
    race = dataclasses.replace(RACE, rules=tuple(rules))
    export(race, "tensorboard", tmp_path / "events")
    assert [path.name for path in tmp_path.iterdir()] == ["events"]
    found = {
        (told["rule"], told["lr"], int(told["seed"])): curves for told, curves in of_tensorboard(tmp_path / "events")
    }
    assert found.keys() == {(run.rule, run.lr, run.seed) for run in runs_of(race)}
    for run in runs_of(race):
        curves = found[run.rule, run.lr, run.seed]
        assert curves["valid_loss"] == [(17 * k, np.float32(loss)) for k, loss in enumerate(run.valid_loss)]
        assert curves["final_loss"] == [(85, np.float32(run.final_loss))]
        assert ("test_loss" in curves) == (run.phase == "verdict")


def test_tensorboard_has_a_folder_for_each_run_of_a_grid_with_its_setting(tmp_path):
    race, _ = with_a_grid()
    export(race, "tensorboard", tmp_path / "events")
    found = [
        (told["rule"], told["lr"], told["seed"], told.get("beta2"), told.get("decoupled"), curves["final_loss"][0][1])
        for told, curves in of_tensorboard(tmp_path / "events")
    ]
    settings = [dict(run.setting) for run in runs_of(race)]
    wanted = [
        (run.rule, run.lr, run.seed, setting.get("beta2"), setting.get("decoupled"), np.float32(run.final_loss))
        for run, setting in zip(runs_of(race), settings, strict=True)
    ]
    assert sorted(found, key=repr) == sorted(wanted, key=repr)


def test_a_study_of_optuna_has_a_trial_for_each_rule_and_learning_rate(tmp_path):
    optuna = pytest.importorskip("optuna")
    export(RACE, "optuna", tmp_path / "race.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "race.log"))
    study = optuna.load_study(study_name=RACE.title, storage=optuna.storages.JournalStorage(backend))
    assert study.user_attrs == {"verdict": RACE.verdict}
    assert len(study.trials) == 2 * len(RACE.learning_rates)
    means = {}
    for result in RACE.rules:
        for lr in RACE.learning_rates:
            losses = [run.final_loss for run in result.tuning if run.lr == lr]
            means[result.rule, lr] = math.inf if math.inf in losses else geometric_mean(losses)
    assert math.inf in means.values()
    assert {(trial.params["rule"], trial.params["lr"]): trial.value for trial in study.trials} == means
    assert study.best_trial.params["lr"] in [result.best_lr for result in RACE.rules]
    assert all(list(trial.intermediate_values) == [0, 17, 34, 51, 68, 85] for trial in study.trials)
    assert all(trial.intermediate_values[85] == trial.value for trial in study.trials)


def test_a_trial_of_optuna_has_its_setting_among_its_parameters(tmp_path):
    optuna = pytest.importorskip("optuna")
    race, settings = with_a_grid()
    export(race, "optuna", tmp_path / "race.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "race.log"))
    study = optuna.load_study(study_name=race.title, storage=optuna.storages.JournalStorage(backend))
    trials = [trial for trial in study.trials if trial.params["rule"] == "adam"]
    assert len(trials) == 8
    for trial in trials:
        place = settings.index((("beta2", trial.params["beta2"]), ("decoupled", trial.params["decoupled"])))
        assert trial.value == pytest.approx(1.0 + place)
        assert not {"beta2", "decoupled"} & trial.user_attrs.keys()
    assert all(trial.params.keys() == {"rule", "lr"} for trial in study.trials if trial not in trials)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A database of MLflow's, which takes seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    importlib.import_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database, tmp_path):
    """A new one, and a client of it."""
    path = shutil.copy(empty_database, tmp_path / "race.db")
    return path, importlib.import_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{path}")


USES_NOLOAD = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow 3.17


@USES_NOLOAD
def test_mlflow_has_a_run_for_each_run_below_one_for_the_race(database):
    path, client = database
    race, _ = with_a_grid()
    export(race, "mlflow", path)
    (experiment,) = client.search_experiments(filter_string=f"name = '{RACE.title}'")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    whole = found.pop("race")
    assert whole.data.tags["verdict"] == RACE.verdict
    assert len(found) == len(runs_of(race))
    for run in runs_of(race):
        setting = f"{said(run.setting)} " if run.setting else ""
        one = found[f"{run.rule} lr={run.lr:g} {setting}{run.phase} {run.seed}"]
        assert one.data.tags["mlflow.parentRunId"] == whole.info.run_id
        told = {"lr": run.lr, "seed": run.seed, "rule": run.rule, "phase": run.phase, **dict(run.setting)}
        assert one.data.params.items() >= {name: str(value) for name, value in told.items()}.items()
        assert one.info.status == ("FINISHED" if run.diverged_at is None else "FAILED")
    for run in (race.rules[0].tuning[-1], race.rules[1].verdict[0]):
        setting = f"{said(run.setting)} " if run.setting else ""
        number = found[f"{run.rule} lr={run.lr:g} {setting}{run.phase} {run.seed}"].info.run_id
        losses = [(metric.step, metric.value) for metric in client.get_metric_history(number, "valid_loss")]
        finite = [(17 * k, loss) for k, loss in enumerate(run.valid_loss) if math.isfinite(loss)]
        assert sorted(losses)[: len(finite)] == finite


@USES_NOLOAD
def test_what_mlflow_refuses_is_said_and_no_run_goes_on(database, monkeypatch):
    mlflow = importlib.import_module("mlflow")
    path, client = database
    address = f"sqlite:///{path}"

    def full(self, *arguments, **named):
        raise mlflow.MlflowException("the disk is full\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", full)
        with pytest.raises(OSError, match=r"at place=sqlite:.*race\.db: the disk is full$"):
            export(RACE, "mlflow", address)
    number = client.get_experiment_by_name(RACE.title).experiment_id
    statuses = {run.info.run_name: run.info.status for run in client.search_runs([number])}
    assert len(statuses) == 2
    assert set(statuses.values()) == {"FAILED"}
    client.delete_experiment(number)
    with pytest.raises(OSError, match=r"MLflow did not take the race, or not all of it, at place=.*active"):
        export(RACE, "mlflow", address)


def test_what_cannot_be_exported_is_refused_in_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="to='wandb': give 'tensorboard', 'mlflow', 'optuna'"):
        export(RACE, "wandb", tmp_path / "race")
    (tmp_path / "race.log").write_text("mine")
    with pytest.raises(ValueError, match=r"race.log is there already; give a new name"):
        export(RACE, "optuna", tmp_path / "race.log")
    assert (tmp_path / "race.log").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'needs optuna, which is not installed: pip install "downslope\[optuna\]"'):
        export(RACE, "optuna", tmp_path / "other.log")
    assert [path.name for path in tmp_path.iterdir()] == ["race.log"]
