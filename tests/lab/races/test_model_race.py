"""Races on a model of one's own: fair as those on a table are, and saying what they were on."""

import re

import jax
import numpy as np
import pytest
import torch
from torch import nn

import downslope
from downslope.lab import Budget, Race, foresee, race
from downslope.lab.engines.learner import Stacking
from downslope.lab.engines.model_engine import ModelEngine
from downslope.lab.report.page import report_page
from downslope.lab.workers.threads import Threads

RULES = [downslope.sgd, downslope.adam]
SMALL = {"learning_rates": [0.03, 0.1], "tuning_seeds": 2, "confirming_seeds": 1, "verdict_seeds": 6, "epochs": 2}
X = np.random.default_rng(0).normal(size=(120, 3))
CLASSES = (X[:, 0] > 0).astype(int)


def make_net(seed):
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


@pytest.fixture(scope="module")
def result():
    return race(model=make_net, data=(X, CLASSES), rules=RULES, now=torch.optim.SGD([torch.zeros(1)], lr=0.02), **SMALL)


def text_of(found):
    """What the report says."""
    page = re.sub(r"<(script|style)[\s\S]*?</\1>", "", report_page(found))
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_every_rule_has_the_same_runs_on_the_same_beginnings(result):
    runs = {rule.rule: {(run.lr, run.seed): run for run in (*rule.tuning, *rule.verdict)} for rule in result.rules}
    shared = runs["sgd"].keys() & runs["adam"].keys()
    grid = {run.lr for run in result.rules[0].tuning} & {run.lr for run in result.rules[1].tuning}
    assert len(shared) >= 2 * len(grid)
    firsts = {}
    for those in runs.values():
        for (_, seed), run in those.items():
            firsts.setdefault(seed, set()).add((run.train_loss[0], run.valid_loss[0]))
    assert {len(losses) for losses in firsts.values()} == {1}
    assert len(set.union(*firsts.values())) == len(firsts)
    assert [run.seed for run in result.rules[0].verdict] == list(result.verdict_seeds)


def test_a_race_says_what_it_was_on(result):
    assert (result.task, result.network, result.weights) == ("classification", "Sequential of PyTorch", 34)
    assert (result.sizes, result.splits, result.batch_size) == ({"train": 72, "valid": 24, "test": 24}, 6, 4)
    assert result.baseline.loss.estimate == pytest.approx(np.log(2), rel=0.02)
    assert "torch" in result.environment["versions"]
    assert result.now.best_lr == 0.02
    assert "steps against what you do now" in result.verdict
    text = text_of(result)
    for said in (
        "Classification of 120 rows with a Sequential of PyTorch, 34 weights",
        "The model make_net, with the loss cross-entropy, since the targets are classes; runs were trained one at a "
        "time, since the model keeps statistics",
        "2 epochs of 18 steps, batches of 4",
        "At its default: the mean loss",
        "Baseline: predicting the class frequencies",
    ):
        assert said in text


def test_the_test_rows_are_seen_by_the_verdict_only(result):
    for rule in result.rules:
        assert {run.test_loss for run in rule.tuning} == {None}
        assert all(run.test_loss is not None for run in rule.verdict)


def test_a_race_is_kept_whole_and_is_the_same_again(result):
    assert Race.from_json(result.to_json()).to_json() == result.to_json()
    again = race(
        model=make_net, data=(X, CLASSES), rules=RULES, now=torch.optim.SGD([torch.zeros(1)], lr=0.02), **SMALL
    )
    assert [rule.verdict for rule in again.rules] == [rule.verdict for rule in result.rules]
    assert {plane.seed for plane in result.walks.planes} == set(result.verdict_seeds)


def test_a_loss_of_ones_own_has_no_baseline_and_its_data_may_be_a_loader():
    def misses(outputs, targets):
        return nn.functional.multi_margin_loss(outputs, targets)

    rows = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(CLASSES))
    few = SMALL | {"learning_rates": [0.03], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 1}
    loader = torch.utils.data.DataLoader(rows, batch_size=9, shuffle=True)
    found = race(model=make_net, data=loader, loss=misses, rules=RULES, splits="fixed", **few)
    assert (found.baseline, found.batch_size, found.splits) == (None, 9, 1)
    assert found.about.startswith("The model make_net, with the loss misses; runs were trained one at a time")
    assert "Baseline:" not in text_of(found)


def test_a_model_that_is_the_same_on_every_seed_is_told():
    body = make_net(0).state_dict()

    def pretrained(seed):
        model = make_net(seed)
        model.load_state_dict(body)
        return model

    few = SMALL | {"learning_rates": [0.03], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 1}
    found = race(model=pretrained, data=(X, CLASSES), rules=RULES, **few)
    assert any("the same weights on every seed" in caution for caution in found.cautions)


def test_a_model_that_keeps_count_is_told():
    calls = []

    class Counting(nn.Linear):
        def forward(self, x):
            calls.append(1)
            return super().forward(x) * (1 + 1e-4 * len(calls))

    few = SMALL | {"learning_rates": [0.03], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 1}
    found = race(model=lambda seed: Counting(3, 2), data=(X, CLASSES), rules=RULES, **few)
    assert any("no function of its seed: sgd at 0.01" in caution for caution in found.cautions)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": make_net}, "data: a NoneType holds no pairs"),
        ({"model": make_net, "data": "digits", "problem": "parabola"}, "problem='parabola' is for a race on a problem"),
        ({"model": make_net, "data": "digits", "why": True}, "why=True is for a race on a problem without a model"),
        ({"model": make_net, "data": (X, CLASSES), "threads": 2}, "threads=2 is for networks of JAX"),
        ({"model": make_net, "data": "digits", "steps": 9}, "steps=9 is for a race on a training of your own"),
        ({"data": (X, CLASSES)}, "data=a tuple is for a race on a model of your own, model=make_net"),
        ({"loss": "mse"}, "loss='mse' is for a race on a model of your own"),
        ({"model": make_net, "data": "digits", "limit": -1}, "limit=-1: give the most seconds"),
        ({"model": make_net, "data": "digits", "batch_size": 0}, "batch_size=0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        race(**arguments)


def make_pair(seed):
    return lambda key: jax.random.normal(key, (3, 2)), lambda weights, x: x @ weights


def test_what_runs_take_is_foreseen():
    seen = []
    foreseen = foresee(model=make_net, data=(X, CLASSES), rules=RULES, watch=seen.append, **SMALL)
    assert foreseen.runs == 2 * (2 * 3 + 2 * 1 + 6)
    assert seen[-1].foreseen == foreseen


class Clock:
    """A clock that stands still but where it is moved."""

    now = 100.0

    def __call__(self):
        return self.now


def test_runs_that_are_stacked_are_priced_as_such_and_keep_to_the_time(monkeypatch):
    clock, seconds = Clock(), 14

    class Timed(nn.Linear):
        def forward(self, x):  # called once for all runs of a stack
            clock.now += 0.004
            return super().forward(x)

    monkeypatch.setattr(ModelEngine, "_whether_to_stack", lambda *_: Stacking(8, "runs were stacked"))
    few = {"learning_rates": [0.03, 0.1], "tuning_seeds": 4, "confirming_seeds": 0, "batch_size": 24, "epochs": 4}
    given = {"model": lambda seed: Timed(3, 2), "data": (X, CLASSES), "rules": RULES, **few}
    foreseen = foresee(**given, budget=Budget(seconds, clock=clock))
    begun = clock.now
    found = race(**given, budget=Budget(seconds, clock=clock))
    took = clock.now - begun
    assert took <= 1.1 * seconds
    assert all(len(rule.verdict) == len(found.verdict_seeds) for rule in found.rules)
    assert len(found.verdict_seeds) >= 6
    assert foreseen.seconds < seconds


def test_networks_of_jax_have_a_budget_and_models_for_all_of_its_seeds():
    few = SMALL | {"tuning_seeds": 1, "confirming_seeds": 0, "threads": 1}
    del few["verdict_seeds"]
    found = race(model=make_pair, data=(X, CLASSES), rules=RULES, budget="5min", **few)
    assert len(found.verdict_seeds) == 40
    assert found.budget.dropped == ()


def test_a_worker_has_as_many_threads_of_pytorch_as_it_is_told():
    before = Threads.here()
    try:
        Threads(before.torch + 1, {}, before.xla).set()
        assert Threads.here() == Threads(before.torch + 1, Threads.here().pools, before.xla)
        assert torch.get_num_threads() == before.torch + 1
    finally:
        before.set()
