"""Races whose runs other processes train: the same runs, whatever happens to the processes."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import downslope
from downslope.lab import race
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.protocol import Entry
from downslope.lab.engines.schedule import SCHEDULES, Schedule
from downslope.lab.keeping.told import kept_runs
from downslope.lab.races.plan import Plan
from downslope.lab.subjects.training import OnTraining
from downslope.lab.workers.cluster import executor_at
from downslope.lab.workers.order import Order, machine, packed, work
from downslope.lab.workers.spread import SpreadEngine, WorkersError
from downslope.lab.workers.threads import Threads

RULES = [downslope.sgd, downslope.adam]
SMALL = {"learning_rates": [0.01, 0.1], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 3}


def training(deadly=lambda run: False):
    """A small training whose process does not survive some runs."""

    def descend(run):
        x = np.random.default_rng(run.seed).normal(size=3)
        optimizer = run.optimizer(x)
        for step in range(4):
            run.report(step, x @ x)
            optimizer.step(2 * x)
        if deadly(run):
            os.kill(os.getpid(), signal.SIGKILL)
        run.report(4, x @ x)

    return descend


def told(result):
    """All that a race says, but for the time it took."""
    rules = tuple(dataclasses.replace(one, seconds=0.0) for one in result.rules)
    return repr(dataclasses.replace(result, rules=rules, seconds=0.0, environment={}, about="", title="", problem=""))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_process_that_dies_is_replaced_and_its_runs_are_sent_again(tmp_path):
    once, here = tmp_path / "died", os.getpid()

    def deadly(run):
        if run.seed < 1000 or os.getpid() == here or once.exists():
            return False
        once.touch()
        return True

    result = race(training(deadly), RULES, **SMALL, folder=tmp_path / "race", version="1", workers=2)
    assert once.exists()
    assert told(result) == told(race(training(), RULES, **SMALL))
    again = race(training(deadly), RULES, **SMALL, folder=tmp_path / "race", version="1")
    assert told(again) == told(result)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_that_kills_three_workers_is_failed_and_the_others_are_not():
    here = os.getpid()
    result = race(
        training(lambda run: run.lr == 0.1 and run.name == "sgd" and run.seed < 1000 and os.getpid() != here),
        RULES,
        **SMALL,
        grid={"weight_decay": [0.5]},
        workers=2,
    )
    causes = {(run.rule, run.lr, run.setting): run.cause for one in result.rules for run in one.tuning}
    killed = ("sgd", 0.1, (("weight_decay", 0.5),))
    assert {key: cause for key, cause in causes.items() if cause} == {killed: "killed 3 workers"}


@pytest.mark.slow
def test_heats_of_workers_have_the_bits_of_this_process():
    quick = {**SMALL, "epochs": 1}
    assert told(race("parabola", [downslope.sgd], **quick, workers=2)) == told(
        race("parabola", [downslope.sgd], **quick)
    )


def order(train, threads=None, **changed):
    plan = Plan.of({"sgd": downslope.sgd}, hyperparameters={}, **SMALL, defaults=True)
    subject = OnTraining(train, None, None, True, Schedule.of("constant"))
    return Order(subject, plan, {}, {**machine(), **changed}, threads or Threads.here(), ())


def test_what_a_worker_says_is_words_whatever_was_raised():
    class StubbornError(Exception):
        def __reduce__(self):
            raise TypeError("not me")

    def broken(run):
        raise StubbornError("no")

    entry = Entry("sgd", 0.1, 0)
    (run,) = work(packed(order(broken)), [entry]).runs
    assert "StubbornError: no" in run.cause
    other = work(packed(order(training(), numpy="1.0")), [entry])
    assert "this worker has numpy" in other.error
    assert "not 1.0: its last digits may be others" in other.error
    assert "rule 'adam' is not among" in work(packed(order(training())), [Entry("adam", 0.1, 0)]).error


THREADS = """
import concurrent.futures, multiprocessing, sys
from threadpoolctl import threadpool_info
sys.path.insert(0, {here!r})
import test_workers as tests
def counted(run):
    run.optimizer(tests.np.zeros(3))
    found = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
    run.report(0, max(found))
    run.report(1, 0.0)
many = tests.Threads(torch=3, pools={{"blas": 2}}, xla=5)
(run,) = tests.work(tests.packed(tests.order(counted, many)), [tests.Entry("sgd", 0.1, 0)]).runs
print(run.cause or (run.valid_loss[0], tests.Threads.here().xla))
try:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as forked:
        tests.race(tests.training(), tests.RULES, **tests.SMALL, workers=forked)
except (ValueError, tests.WorkersError) as error:  # Windows cannot fork
    print(error)
"""


@pytest.mark.slow
def test_a_worker_computes_in_as_many_threads_as_it_is_told_and_is_never_forked():
    code = THREADS.format(here=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    threads, forked = done.stdout.splitlines()
    assert threads == "(2.0, 5)", done.stderr
    assert "workers: its processes are forked" in forked or "cannot find context" in forked


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_the_same_when_it_has_been_sent(name):
    import cloudpickle

    schedule = Schedule.of(name)
    sent = cloudpickle.loads(cloudpickle.dumps(schedule))
    assert (sent == schedule, sent.constant) == (True, name == "constant")


def test_any_executor_trains_runs_and_one_that_was_closed_is_told():
    with ThreadPoolExecutor(2) as threads:
        result = race(training(), RULES, **SMALL, grid={"weight_decay": [0.0, 0.1]}, workers=threads)
    assert told(result) == told(race(training(), RULES, **SMALL, grid={"weight_decay": [0.0, 0.1]}))
    with ThreadPoolExecutor(2) as threads:
        allowed = race(training(), RULES, **SMALL, workers=threads, budget="1h")
    assert allowed.budget.dropped == ()
    assert told(dataclasses.replace(allowed, budget=None)) == told(race(training(), RULES, **SMALL))
    with pytest.raises(WorkersError, match="nothing can be sent"):
        race(training(), RULES, **SMALL, workers=threads)


def test_runs_of_which_all_is_to_be_seen_are_trained_here():
    here, places = threading.current_thread().name, {}

    def train(run):
        places[run.seed] = threading.current_thread().name
        return training()(run)

    engine = OwnEngine(train, {"sgd": Entrant.of("sgd", downslope.sgd, {})})
    entries = [Entry("sgd", 0.1, seed, "verdict", observed=True) for seed in range(4)]
    with ThreadPoolExecutor(1, thread_name_prefix="elsewhere") as executor:
        spread = SpreadEngine(engine, order(train), executor)
        spread.here = lambda entry: entry.seed == 2
        runs = [run for progress in spread.train(entries) for run in progress.finished]
    assert sorted(run.seed for run in runs) == [0, 1, 2, 3]
    assert {seed for seed, place in places.items() if place == here} == {2}
    assert spread.seconds["sgd"] > 0


@pytest.mark.parametrize("workers", [0, True, "2"])
def test_what_is_no_number_of_processes_is_refused(workers):
    with pytest.raises(ValueError, match="give a number of processes"):
        race(training(), RULES, **SMALL, workers=workers)
    with pytest.raises(ValueError, match="does not go with a budget here"):
        race("parabola", RULES, **SMALL, workers=2, budget="1min")


@pytest.mark.slow
def test_a_worker_of_dask_may_die():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        here = os.getpid()
        with client.get_executor(retries=3) as executor:
            pids = list(client.run(os.getpid).values())
            result = race(
                training(lambda run: run.seed == 1001 and os.getpid() == pids[0] != here),
                RULES,
                **SMALL,
                workers=executor,
            )
    assert told(result) == told(race(training(), RULES, **SMALL))


@pytest.mark.slow
def test_a_scheduler_that_goes_away_loses_no_run_and_when_one_is_back_the_race_goes_on(tmp_path):
    distributed = pytest.importorskip("distributed")
    begin = functools.partial(
        distributed.LocalCluster, n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    )

    def raced(cluster, watch=None):
        with executor_at(cluster.scheduler_address) as executor:
            executor._client._timeout = 0.2  # so many seconds, not ANSWERS, it is looked for again
            kept = {"folder": tmp_path / "race", "version": "1"}
            return race(training(), RULES, **SMALL, **kept, workers=executor, watch=watch)

    with begin() as first, pytest.raises(WorkersError, match=r"scheduler|nothing can be sent"):
        raced(first, watch=lambda event: first.close() if getattr(event, "finished", ()) else None)
    assert kept_runs(tmp_path / "race")
    with begin() as second:
        assert told(raced(second)) == told(race(training(), RULES, **SMALL))


@pytest.mark.slow
def test_loky_trains_runs():
    loky = pytest.importorskip("joblib.externals.loky")  # which scikit-learn brings
    with loky.ProcessPoolExecutor(1) as executor:
        result = race(training(), RULES, **SMALL, workers=executor)
    assert told(result) == told(race(training(), RULES, **SMALL))
