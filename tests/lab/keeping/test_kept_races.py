"""Races that are kept in a folder: what ends one, what goes on, what is refused."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
from downslope.lab import load_problem, race
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.jax_engine import JaxEngine
from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.protocol import Entry, Progress
from downslope.lab.keeping.claims import STALE, Claims
from downslope.lab.keeping.folder import Folder
from downslope.lab.keeping.identity import Identity
from downslope.lab.keeping.kept import KeptEngine
from downslope.lab.keeping.refusing import FolderError
from downslope.lab.keeping.rows import read_all, read_runs
from downslope.lab.keeping.told import kept_runs, read_race
from downslope.lab.races.plane import Trails

RULES = [downslope.sgd, downslope.adam]
SMALL = {"learning_rates": [0.01, 0.1], "tuning_seeds": 1, "confirming_seeds": 1, "verdict_seeds": 3}
CALLS = []


def descend(run):
    """A training of one's own: a bowl whose start follows from the seed."""
    CALLS.append((run.name, run.lr, run.seed))
    x = np.random.default_rng(run.seed).normal(size=3)
    optimizer = run.optimizer(x)
    for step in range(4):
        run.report(step, x @ x)
        optimizer.step(2 * x)
    run.report(4, x @ x)


def told(result):
    """All that a race says, but for the time it took."""
    rules = tuple(dataclasses.replace(one, seconds=0.0) for one in result.rules)
    return repr(dataclasses.replace(result, rules=rules, seconds=0.0, environment={}))


def raced(folder=None, rules=RULES, **arguments):
    """A small race on a training of one's own, and how many runs were trained in it."""
    CALLS.clear()
    result = race(descend, rules, **{**SMALL, **arguments}, folder=folder)
    return result, len(CALLS)


@pytest.fixture(scope="module")
def whole():
    return raced()


def stop_after(count):
    """What stops a race when so many runs have finished."""
    finished = []

    def watch(event):
        if isinstance(event, Progress):
            finished.extend(event.finished)
            if len(finished) >= count:
                raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize("moment", [1, 4, 9])
def test_a_race_that_was_stopped_goes_on_and_ends_where_one_ends_that_was_not(tmp_path, whole, moment):
    uninterrupted, trained = whole
    stopped, before = raced(tmp_path / "race", watch=stop_after(moment))
    assert stopped.interrupted
    result, after = raced(tmp_path / "race")
    assert told(result) == told(uninterrupted)
    assert before + after <= trained + 2  # the first run is tried twice more, and may have been when it was stopped
    again, none = raced(tmp_path / "race")
    assert (told(again), none) == (told(uninterrupted), 0)
    assert told(read_race(tmp_path / "race")) == told(uninterrupted)


@pytest.mark.slow
def test_a_race_of_heats_that_is_partly_in_the_folder_ends_bit_for_bit_the_same_with_its_walks(tmp_path):
    quick = functools.partial(race, "parabola", [downslope.sgd], **SMALL, epochs=2, threads=1)
    uninterrupted = quick()
    assert quick(folder=tmp_path / "race", watch=stop_after(6)).interrupted
    for path in list((tmp_path / "race" / "runs").iterdir())[1:]:
        path.unlink()  # as if these had not been written before the power failed
    assert told(quick(folder=tmp_path / "race")) == told(uninterrupted)
    assert uninterrupted.walks is not None


def test_a_heat_of_which_some_lanes_are_in_the_folder_trains_the_others_as_before(tmp_path):
    entrants = {"momentum": Entrant.of("momentum", downslope.momentum, {})}
    engine = JaxEngine(dataclasses.replace(load_problem("parabola"), epochs=2), entrants, lanes=4, threads=1)
    training, identity = engine.description, Identity.of({"data": "small"}, {}, [])
    entries = [Entry("momentum", 0.1, seed, "verdict", observed=True) for seed in range(6)]

    def trained(engine, entries):
        trails = Trails(1, range(6), training.epochs, training.weights)
        runs = []
        for progress in engine.train(entries):
            runs += progress.finished
            for snapshot in progress.snapshots:
                trails.add(snapshot)
        runs.sort(key=lambda run: run.seed)
        return runs, trails.walks(runs)

    def kept():
        folder = Folder(tmp_path / "race")
        folder.open(identity)
        made = KeptEngine(engine, entrants, folder, identity)
        made.trails = Trails(1, range(6), training.epochs, training.weights)
        return made

    alone = trained(engine, entries)
    trained(kept(), [entries[4], entries[1]])
    rest = kept()
    assert trained(rest, entries) == alone
    assert (rest.folder.answered, rest.folder.trained) == (2, 4)
    assert trained(kept(), entries) == alone


def test_more_rules_rates_and_seeds_train_only_what_is_lacking(tmp_path, whole):
    _, trained = whole
    first, alone = raced(tmp_path / "race", rules=RULES[:1])
    result, more = raced(tmp_path / "race")
    assert told(result) == told(whole[0])
    assert more == trained - alone
    wider, few = raced(tmp_path / "race", verdict_seeds=4)
    assert few == len(RULES)
    assert {run.seed for run in wider.rules[0].verdict} > {run.seed for run in first.rules[0].verdict}


def test_a_grid_goes_on_and_more_of_its_values_train_only_what_is_lacking(tmp_path):
    grid = {"weight_decay": [0.0, 0.1], "decoupled": [True]}
    assert raced(tmp_path / "race", grid=grid, watch=stop_after(7))[0].interrupted
    before = len(kept_runs(tmp_path / "race"))
    result, more = raced(tmp_path / "race", grid=grid)
    assert told(result) == told(raced(grid=grid)[0])
    whole = kept_runs(tmp_path / "race")
    assert more == len(whole) - before
    assert raced(tmp_path / "race", grid={**grid, "weight_decay": [0.0, 0.1, 0.2]})[1] > 0
    again = kept_runs(tmp_path / "race")
    assert {key for key in again if again[key].run.setting[:1] == (("weight_decay", 0.2),)} == {*again} - {*whole}


def test_the_key_of_a_run_without_a_grid_is_that_of_before_there_were_any():
    key = json.loads(Identity.of({}, {}, []).key(Entry("sgd", 0.1, 0), {}, None))
    assert key["run"] == {"rule": {}, "epochs": None, "lr": 0.1, "seed": 0, "phase": "tuning"}


def test_a_rule_by_another_name_is_another_run_of_a_training_that_is_told_the_name(tmp_path):
    raced(tmp_path / "race", rules={"mine": downslope.sgd})
    _, trained = raced(tmp_path / "race", rules={"yours": downslope.sgd})
    assert trained > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [({"steps": 4}, "steps: 4 here, none in the folder"), ({"version": "2"}, "train: version 2 here, source")],
)
def test_a_folder_of_another_race_is_refused_and_says_what_differs(tmp_path, change, words):
    raced(tmp_path / "race")
    with pytest.raises(FolderError, match=words):
        raced(tmp_path / "race", **change)


def test_what_only_rounding_separates_counts_where_it_is_wanted_and_is_said(tmp_path, whole):
    raced(tmp_path / "race")
    folder = Folder(tmp_path / "race")
    other = Identity.of({"train": "version 1"}, {"threads": 1}, [])
    assert Identity.of({"train": "version 1"}, {"threads": 2}, []).difference(other) == (
        [],
        ["threads: 2 here, 1 in the folder"],
    )
    plan = folder.path / "plan.json"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder.path, elsewhere)
    _moved_to_another_machine(elsewhere)
    with pytest.raises(FolderError, match=r"numpy: .* here, 1.0 in the folder.*mix=True"):
        raced(elsewhere)
    result, trained = raced(elsewhere, mix=True)
    assert trained == 0
    assert any("their last digits may differ" in caution for caution in result.cautions)
    assert told(dataclasses.replace(result, cautions=whole[0].cautions)) == told(whole[0])
    assert plan.is_file()


def _moved_to_another_machine(path):
    """Rewrite a folder as if NumPy had been another one."""
    from downslope.lab.keeping.planned import read_plan

    planned = read_plan(path)
    there = Folder(path, mix=True)
    old = Identity(planned.identity.what, {**planned.identity.rounding, "numpy": "1.0"}, planned.identity.labelled)
    there.write_plan(dataclasses.replace(planned, identity=old))
    for file in list((path / "runs").iterdir()):
        runs = read_runs(file)
        file.unlink()
        keys = [json.loads(one.key) for one in runs]
        for key in keys:
            key["rounding"]["numpy"] = "1.0"
        texts = [json.dumps(key, sort_keys=True, separators=(",", ":")) for key in keys]
        there.add([dataclasses.replace(one, key=text) for one, text in zip(runs, texts, strict=True)])


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(FolderError, match=r"holds other things and no plan\.json"):
        raced(tmp_path)
    with pytest.raises(FolderError, match="give a folder that can be written to"):
        raced(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"


def test_a_folder_that_is_deleted_midway_ends_no_race_and_is_told(tmp_path, whole):
    def watch(event):
        if isinstance(event, Progress):
            shutil.rmtree(tmp_path / "race", ignore_errors=True)

    result, _ = raced(tmp_path / "race", watch=watch)
    assert result.verdict == whole[0].verdict
    assert any("could not be written" in caution for caution in result.cautions)


def test_what_a_full_disk_does_not_take_is_told_and_trained_again(tmp_path, whole):
    resource = pytest.importorskip("resource")  # Windows has no such limit
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def watch(event):
        if isinstance(event, Progress):  # from the first run on no file takes a byte
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))

    try:
        result, _ = raced(tmp_path / "race", watch=watch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.verdict == whole[0].verdict
    (caution,) = (one for one in result.cautions if "could not be written" in one)
    assert caution.startswith(f"{whole[1] - 2} finished runs")  # two more are made to know the training
    assert "File too large" in caution
    assert not list((tmp_path / "race" / "runs").iterdir())
    again, trained = raced(tmp_path / "race")
    assert told(again) == told(whole[0])
    assert trained >= whole[1] - 2


def test_what_does_not_go_with_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shared by several processes.*leave one of them out"):
        raced(Folder(tmp_path / "race", join=True), budget="1min")
    with pytest.raises(ValueError, match="give folder too"):
        raced(mix=True)


def test_a_training_without_a_source_asks_for_a_version(tmp_path):
    here = {"descend": descend}
    exec("def train(run): return descend(run)", here)
    with pytest.raises(ValueError, match=r"cannot be told from its source.*give version="):
        race(here["train"], RULES, **SMALL, folder=tmp_path / "race")
    assert race(here["train"], RULES, **SMALL, folder=tmp_path / "race", version="1").verdict


def joined(path, entries, calls, both):
    """Train some runs in a folder that others share, and give their losses by seed."""

    def train(run):
        calls.append(run.seed)
        x = np.random.default_rng(run.seed).normal(size=3)
        run.optimizer(x)
        if len(calls) == 1:
            both.wait(timeout=300)
        run.report(0, x @ x)
        run.report(1, x @ x / 2)

    entrants = {"sgd": Entrant.of("sgd", downslope.sgd, {})}
    folder, identity = Folder(path, join=True), Identity.of({"train": "joined"}, {}, [])
    folder.open(identity)
    engine = KeptEngine(OwnEngine(train, entrants, quiet=False), entrants, folder, identity)
    return {run.seed: run.final_loss for progress in engine.train(entries) for run in progress.finished}


def test_two_that_share_a_folder_divide_the_runs_and_both_have_all(tmp_path):
    entries = [Entry("sgd", 0.1, seed) for seed in range(8)]
    calls, found, both = ([], []), [], threading.Barrier(2)

    def go(which):
        found.append(joined(tmp_path / "race", entries, calls[which], both))

    threads = [threading.Thread(target=go, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert sorted(found[0]) == list(range(8))
    assert sorted(calls[0] + calls[1]) == list(range(8))
    assert min(map(len, calls)) > 0
    assert not list((tmp_path / "race" / "claims").iterdir())


def test_the_claim_of_a_process_that_died_is_ignored_and_a_fresh_one_is_not(tmp_path):
    Folder(tmp_path / "race").open(Identity.of({"train": "joined"}, {}, []))
    theirs, ours = Claims(tmp_path / "race"), Claims(tmp_path / "race")
    assert theirs.take("a run")
    assert not ours.take("a run")
    (claim,) = [path for path in (tmp_path / "race" / "claims").iterdir() if not path.name.startswith(".")]
    os.utime(claim, (claim.stat().st_atime, claim.stat().st_mtime - 2 * STALE))
    assert ours.take("a run")
    assert not theirs.take("a run")
    ours.release(["a run"])
    assert theirs.take("a run")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "race"
    raced(path, rules=RULES[:1])
    return path


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_that_was_changed_is_refused_in_a_sentence_and_never_read_wrongly(kept, data):
    file = data.draw(st.sampled_from(sorted(path for path in kept.rglob("*") if path.is_file())))
    before, right = file.read_bytes(), told(read_race(kept))
    cut = data.draw(st.integers(0, len(before)))
    changed = data.draw(
        st.sampled_from(
            [before[:cut], before[cut:], before[:cut] + data.draw(st.binary(min_size=1)) + before[cut + 1 :]]
        )
    )
    file.write_bytes(changed)
    try:
        with contextlib.suppress(FolderError):
            assert told(read_race(kept)) == right
    finally:
        file.write_bytes(before)


CURVES = ["train_loss", "valid_loss", "valid_accuracy", "steps"]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_that_claim_what_is_not_so_are_refused_under_any_name(kept, tmp_path_factory, data):
    table = pl.concat([pl.read_parquet(file) for file in sorted((kept / "runs").iterdir())])
    rows = table.to_dicts()
    place = data.draw(st.integers(0, len(rows) - 1))
    row, other = rows[place], rows[place - 1]
    kind = data.draw(st.sampled_from(["key", "run", "curve", "seconds"]))
    if kind == "key":  # a run under the name of another
        row["key"] = other["key"]
    elif kind == "run":
        about = json.loads(row["run"])
        name = data.draw(st.sampled_from(["lr", "seed", "phase", "setting", "rule"]))
        new = {"lr": 2 * about["lr"], "seed": about["seed"] + 1, "setting": [["mu", 0.5]], "rule": "other"}
        new["phase"] = "verdict" if about["phase"] == "tuning" else "tuning"
        row["run"] = json.dumps({**about, name: new[name]})
    elif kind == "curve":  # of those that have entries
        name = data.draw(st.sampled_from([one for one in CURVES if row[one]]))
        row[name] = row[name][: data.draw(st.integers(0, len(row[name]) - 1))]
    else:
        row["seconds"] = data.draw(st.sampled_from([-1.0, math.inf, math.nan]))
    content = io.BytesIO()
    pl.DataFrame(rows, schema=table.schema).write_parquet(content)
    path = tmp_path_factory.mktemp("claims") / f"{hashlib.sha256(content.getvalue()).hexdigest()}.parquet"
    path.write_bytes(content.getvalue())
    for read in (read_runs, lambda path: read_all([path])):
        with pytest.raises(FolderError, match="holds no runs that this version can read"):
            read(path)


def test_a_table_of_somebody_else_among_the_runs_is_refused(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "race")
    foreign = tmp_path / "foreign.parquet"
    pl.DataFrame({"run": [1]}).write_parquet(foreign)
    name = f"{hashlib.sha256(foreign.read_bytes()).hexdigest()}.parquet"
    shutil.move(foreign, tmp_path / "race" / "runs" / name)
    with pytest.raises(FolderError, match="its columns are run"):
        raced(tmp_path / "race", rules=RULES[:1])


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
import test_kept_races as tests
from downslope.lab.engines.protocol import Progress
def watch(event, finished=[]):
    finished += event.finished if isinstance(event, Progress) else ()
    if len(finished) >= {moment}:
        os.kill(os.getpid(), signal.SIGKILL)
tests.raced({folder!r}, watch=watch)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_race_whose_process_is_killed_goes_on(tmp_path, whole):  # bench/killed_races.py has any moment
    here = __file__.rpartition("/")[0]
    code = KILLED.format(here=here, moment=9, folder=str(tmp_path / "race"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = sum(len(read_runs(path)) for path in (tmp_path / "race" / "runs").glob("*.parquet"))
    result, after = raced(tmp_path / "race")
    assert told(result) == told(whole[0])
    assert after <= whole[1] - kept  # what finished in the last half second may not have been written
