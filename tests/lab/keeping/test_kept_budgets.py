"""Races with a budget in a folder: what was decided by the clock stays, and the time before counts."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest

import downslope
from downslope.lab import Budget, race
from downslope.lab.engines.protocol import Progress
from downslope.lab.keeping.planned import read_plan

RULES = [downslope.sgd, downslope.adam]


class Training:
    """Down a valley, a run in a second by a clock of its own; from the run on that `slower` says, in three."""

    def __init__(self, slower):
        self.slower, self.now, self.runs = slower, 100.0, 0

    def clock(self):
        return self.now

    def __call__(self, run):
        self.runs += 1
        self.now += 3.0 if self.runs > self.slower else 1.0
        x = np.random.default_rng(run.seed).normal(size=3)
        optimizer = run.optimizer(x)
        for step in itertools.count():
            if not run.report(step, 0.5 * np.array([1.0, 4.0, 10.0]) @ x**2):
                return
            optimizer.step(np.array([1.0, 4.0, 10.0]) * x)


def told(result):
    """All that a race says, but for the time it took."""
    rules = tuple(dataclasses.replace(one, seconds=0.0) for one in result.rules)
    return repr(dataclasses.replace(result, rules=rules, seconds=0.0, environment={}))


def stop_after(count):
    """What stops a race when so many runs have been trained."""
    finished = []

    def watch(event):
        if isinstance(event, Progress) and not event.kept:
            finished.extend(event.finished)
            if len(finished) >= count:
                raise KeyboardInterrupt

    return watch


def raced(train, seconds, folder, **arguments):
    budget = Budget(seconds, clock=train.clock)
    return race(train, RULES, steps=3, budget=budget, folder=folder, version="1", **arguments)


@pytest.mark.parametrize(
    ("seconds", "slower", "moments"),
    [(90, math.inf, (1, 20, 40)), (90, 60, (62,)), (8, math.inf, (1,)), (140, 50, (49, 1, 1))],
)
def test_a_race_goes_on_with_the_time_that_was_left_and_ends_where_it_would_have(tmp_path, seconds, slower, moments):
    train = Training(slower)
    whole, took = raced(train, seconds, tmp_path / "whole"), train.now - 100
    assert took <= 1.1 * seconds
    train = Training(slower)
    for moment in moments:
        assert raced(train, seconds, tmp_path / "race", watch=stop_after(moment)).interrupted
        train.now += 1e6  # while nobody trains
    result = raced(train, seconds, tmp_path / "race")
    assert told(result) == told(whole)
    assert train.now - 100 - 1e6 * len(moments) <= took + 3.0 * len(moments)
    runs = train.runs
    assert told(raced(train, seconds, tmp_path / "race")) == told(whole)
    assert train.runs == runs


def test_runs_by_which_a_grid_was_measured_are_not_made_again(tmp_path):
    grid = {"cautious": [False, True]}  # of which each is measured by itself
    train = Training(math.inf)
    whole, took = raced(train, 100, tmp_path / "whole", grid=grid), train.now - 100
    train = Training(math.inf)
    for moment in (2, 30):
        assert raced(train, 100, tmp_path / "race", grid=grid, watch=stop_after(moment)).interrupted
    assert told(raced(train, 100, tmp_path / "race", grid=grid)) == told(whole)
    assert train.now - 100 == took


def test_a_race_does_not_pay_for_the_runs_of_another_in_its_folder(tmp_path, monkeypatch):
    train = Training(math.inf)
    whole = raced(train, 60, tmp_path / "whole")
    train = Training(math.inf)
    assert raced(train, 60, tmp_path / "race", watch=stop_after(20)).interrupted
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", train.clock)  # what times runs without a budget
        race(train, [downslope.adagrad], steps=3, tuning_seeds=1, folder=tmp_path / "race", version="1")
    assert raced(train, 60, tmp_path / "race", watch=stop_after(5)).interrupted
    assert told(raced(train, 60, tmp_path / "race")) == told(whole)


def test_a_race_that_had_no_time_for_any_run_begins_anew(tmp_path):
    class Clock:
        def __init__(self, tick):
            self.now, self.tick = 0.0, tick

        def __call__(self):
            self.now += self.tick
            return self.now

    def raced(tick):
        small = {"learning_rates": [0.1], "tuning_seeds": 1, "confirming_seeds": 0, "epochs": 1, "threads": 1}
        budget = Budget(100.0, clock=Clock(tick))
        return race("parabola", [downslope.sgd], **small, verdict_seeds=3, budget=budget, folder=tmp_path / "race")

    none = raced(60.0)
    assert none.interrupted
    assert none.stopped == "Time was over before there was anything to show."
    assert "give it more time, fewer rules or shorter runs" in " ".join(none.cautions)
    again = raced(1e-4)
    assert not again.interrupted
    assert (again.stopped, len(again.rules[0].verdict)) == ("", 3)


def test_another_budget_decides_anew_with_the_runs_that_are_there(tmp_path):
    train = Training(math.inf)
    raced(train, 48, tmp_path / "race")
    few = train.runs
    more = raced(train, 90, tmp_path / "race")
    runs = sum(len(one.tuning) + len(one.verdict) for one in more.rules)
    assert train.runs < few + runs
    assert more.budget.seconds == 90
    assert read_plan(tmp_path / "race").spent["notes"][-1][0] == "end"


def test_a_table_is_measured_again_only_if_its_race_has_not_ended(tmp_path):
    def quick(**arguments):
        small = {
            "learning_rates": [0.1],
            "tuning_seeds": 1,
            "confirming_seeds": 0,
            "epochs": 1,
            "threads": 1,
            "verdict_seeds": 3,
        }
        return race("parabola", [downslope.sgd], **small, budget=3600, folder=tmp_path / "race", **arguments)

    assert quick(watch=stop_after(2)).interrupted
    result = quick()
    events = []
    assert told(quick(watch=events.append)) == told(result)
    assert all(event.kept for event in events if isinstance(event, Progress))
