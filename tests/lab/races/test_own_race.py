"""Races on a training of one's own: as fair as the others, and saying nothing that they cannot know."""

import io
import itertools
import math
import re
import sys

import numpy as np
import pytest

import downslope
from downslope.lab import Race, race
from downslope.lab.report.page import report_page

SMALL = {"learning_rates": [0.01, 0.1], "tuning_seeds": 2, "confirming_seeds": 1, "verdict_seeds": 6, "steps": 10}
RULES = [downslope.sgd, downslope.adam]


def quadratic(run, noise=0.0):
    """Ten steps down a valley, from where the seed says."""
    random = np.random.default_rng(run.seed)
    x = random.normal(size=3).astype(np.float32)
    steep = np.array([1.0, 4.0, 10.0], np.float32)
    optimizer, step = run.optimizer(x), 0
    while run.report(step, 0.5 * steep @ x**2 + noise):
        optimizer.step(steep * x + 0.1 * random.normal(size=3).astype(np.float32))
        step += 1


@pytest.fixture(scope="module")
def result():
    return race(quadratic, RULES, **SMALL)


def test_every_rule_has_the_same_runs(result):
    sgd, adam = result.rules
    everywhere = grid(result)
    beside = [(run.rule, run.lr, run.seed) for one in result.rules for run in one.tuning if run.lr not in everywhere]
    assert beside == ([] if 0.001 in everywhere else [("adam", 0.001, seed) for seed in result.tuning_seeds])
    first = [sorted((r.lr, r.seed) for r in one.tuning if r.lr in everywhere and r.seed < 2) for one in result.rules]
    assert first[0] == first[1]
    assert len(sgd.tuning) == len(adam.tuning) - len(beside)
    assert [run.seed for run in sgd.verdict] == [run.seed for run in adam.verdict] == list(result.verdict_seeds)
    assert adam.default_lr == 0.001


def grid(result):
    """The learning rates that all rules have been run at."""
    return set.intersection(*({run.lr for run in one.tuning} for one in result.rules))


def test_the_numbers_are_those_of_the_training_itself(result):
    best = result.rules[0]
    for run in best.verdict:
        x = np.random.default_rng(run.seed)
        w, losses = x.normal(size=3).astype(np.float32), []
        steep = np.array([1.0, 4.0, 10.0], np.float32)
        for _ in range(10):
            losses.append(float(0.5 * steep @ w**2))
            w -= np.float32(best.best_lr) * (steep * w + 0.1 * x.normal(size=3).astype(np.float32))
        assert run.valid_loss[:10] == pytest.approx(losses, rel=1e-5)
        assert run.steps == tuple(range(11))


def test_the_default_is_shown_and_chosen_only_if_it_is_on_the_grid():
    found = race(quadratic, {"own": downslope.adam}, **SMALL | {"learning_rates": [1e-5]}).rules[0]
    assert found.default_lr == 0.001
    at_default = [run.final_loss for run in found.tuning if run.lr == 0.001 and run.seed < 2]
    assert found.default_loss == pytest.approx(math.exp(np.log(at_default).mean()))
    assert found.best_lr != 0.001 or 0.001 in {run.lr for run in found.tuning if run.seed == 2}


def test_a_race_is_kept_whole(result):
    assert Race.from_json(result.to_json()) == result
    table = result.runs
    assert set(table["train_loss"]) == {None}
    assert table["cause"].null_count() == len(table)


def test_nothing_is_said_of_what_is_not_known(result):
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style)[\s\S]*?</\1>", "", report_page(result)))
    for word in ("validation", "split", "Test ", "aseline", "epoch", "None", "rows", "walks", "Network", "batches of"):
        assert not re.search(word, text), word
    assert "validation" not in result.verdict
    assert (result.task, result.network, result.weights, result.baseline, result.walks) == (None, "", None, None, None)
    assert "The training quadratic" in text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_run_that_fails_is_told_and_the_others_go_on_before_ones_eyes(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())

    def train(run):
        if run.name == "adam" and run.lr > 0.05:
            raise MemoryError("all gone")
        quadratic(run)

    found = race(train, RULES, **SMALL)
    told = " ".join(terminal.getvalue().split())
    for said in ("First run, sgd at lr 0.01: ", "First run, adam at lr 0.001: ", "First answer", " % ", "runs adam"):
        assert said in told
    sgd, adam = found.rules
    assert {run.cause for run in sgd.tuning} == {""}
    assert {run.cause for run in adam.tuning if run.lr > 0.05} == {"MemoryError: all gone"}
    assert adam.best_lr <= 0.05
    (caution,) = found.cautions
    assert "failed otherwise than by diverging, and count as if diverged: MemoryError: all gone (" in caution
    assert "such as adam at 0.1 on seed 0" in caution
    page = report_page(found)
    assert "failed otherwise than by diverging</summary>" in page
    assert re.search(r"<small>\d of \d failed</small>", page)
    assert re.search(r"<small>\d of \d diverged</small>", page)  # of sgd, where it did
    assert set(found.runs["cause"]) == {None, "MemoryError: all gone"}


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (lambda run: run.lr, "reported no loss after a step"),
        (lambda run: 1 / 0, "train: none of the first 2 runs ended, one of each rule; the first: ZeroDivisionError"),
        (lambda run: [run.report(step, 1.0 + run.seed) for step in range(3)], "every rule would do the same"),
        (lambda run: [run.report(step, run.lr) for step in range(3)], "seeds 0 and 1000 gave the same losses"),
    ],
)
def test_a_training_that_no_race_can_be_made_of_is_refused_at_once(train, said):
    with pytest.raises(ValueError, match=said):
        race(train, RULES, **SMALL)


def test_a_training_that_is_no_function_of_its_seed_is_told():
    calls = itertools.count()

    def train(run):
        quadratic(run, noise=1e-6 * next(calls))

    (caution,) = race(train, RULES, **SMALL).cautions
    assert caution.startswith("The training is no function of its seed: sgd at 0.01 on seed 0, run twice, ended at ")


def test_budgets_that_differ_are_told():
    def train(run):
        for step in range(5 if run.name == "sgd" else 7):
            run.report(step, 1 + run.lr / (1 + step) + 0.01 * np.random.default_rng(run.seed).random())

    (caution,) = race(train, RULES, **SMALL).cautions
    assert "ended after 4 to 6 steps" in caution


def test_a_race_that_is_stopped_keeps_what_it_has():
    calls = itertools.count()

    def train(run):
        if next(calls) == 12:
            raise KeyboardInterrupt
        quadratic(run)

    found = race(train, RULES, **SMALL)
    assert found.interrupted
    assert sum(len(one.tuning) for one in found.rules) == 10  # two were the repetitions
    assert "stopped" in found.verdict or "no verdict" in found.verdict
    assert "Interrupted: only what had finished is shown." in report_page(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"problem": quadratic, "splits": "fixed"}, "splits='fixed' is for a race on a table"),
        ({"problem": quadratic, "why": True}, "why=True is for a race on a table"),
        ({"problem": quadratic, "threads": 2}, "threads=2 is for a race on a table"),
        ({"problem": "parabola", "steps": 10}, "steps=10 is for a race on a training of your own"),
        ({"problem": "parabola", "limit": 1.0}, "limit=1.0 is for a race on a training of your own"),
        ({"problem": 3}, "or give a function that trains a run"),
    ],
)
def test_arguments_of_the_other_kind_of_race_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        race(**arguments)
