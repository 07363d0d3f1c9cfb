"""Grids over hyperparameters other than the learning rate: held to runs with these hyperparameters and no grid."""

import dataclasses
import math

import numpy as np
import pytest

import downslope
from downslope.lab import Race, foresee, race
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.jax_engine import JaxEngine
from downslope.lab.engines.learner import Stacking
from downslope.lab.engines.model_engine import ModelEngine
from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.protocol import Entry, said
from downslope.lab.engines.schedule import Schedule
from downslope.lab.problems.builtin import load_problem
from downslope.lab.races.budget import Budget
from downslope.lab.races.grid import Point, filled, settings_of
from downslope.lab.races.plan import Plan
from downslope.lab.races.scope import holds_for
from downslope.lab.races.settings import at_the_end, found, lacking
from downslope.lab.races.tries import on_the_grid
from downslope.lab.report.code import batched, lines
from downslope.lab.report.page import report_page

ADAM = {"adam": Entrant.of("adam", downslope.adam, {})}
LINEAR = Schedule.of("linear")


@pytest.fixture(scope="module")
def short():
    return dataclasses.replace(load_problem("parabola"), epochs=2)


def runs_of(engine, entries):
    runs = [run for progress in engine.train(entries) for run in progress.finished]
    return {(run.rule, run.lr, run.seed, run.setting): run for run in runs}


def test_a_lane_has_hyperparameters_of_its_own_and_a_program_its_size_of_batches(short):
    numbers = [(("beta2", beta2), ("weight_decay", decay)) for beta2 in (0.9, 0.99) for decay in (0.0, 0.1)]
    small = (("beta2", 0.9), ("weight_decay", 0.1), ("batch_size", 100.0))
    engine = JaxEngine(short, ADAM, threads=1, lanes=8, schedule=LINEAR)
    together = runs_of(engine, [Entry("adam", 0.1, seed, setting=one) for one in (*numbers, small) for seed in (0, 1)])
    assert len(engine._trainers) == 2
    assert len({run.final_loss for run in together.values()}) == 10
    alone = JaxEngine(
        dataclasses.replace(short, batch_size=100),
        {"adam": Entrant.of("adam", downslope.adam, {"beta2": 0.9}).at((("weight_decay", 0.1),))},
        threads=1,
        lanes=1,
        schedule=LINEAR,
    )
    (run,) = runs_of(alone, [Entry("adam", 0.1, 1)]).values()
    np.testing.assert_allclose(together["adam", 0.1, 1, small].valid_loss, run.valid_loss, rtol=1e-5)


def test_an_option_of_a_grid_is_around_the_rule():
    decayed = ADAM["adam"].at((("weight_decay", 0.1), ("decoupled", True), ("bias_correction", False)))
    assert decayed.settings.options == {"weight_decay", "decoupled"}
    assert decayed.settings.choices == {"bias_correction": False}
    assert decayed.numbers == {**ADAM["adam"].numbers, "weight_decay": 0.1}
    assert decayed.at((("decoupled", False),)).settings.options == {"weight_decay"}


def regression(run):
    """Five passes of least squares over 48 rows, in batches of the size that is asked for."""
    random = np.random.default_rng(run.seed)
    x, w = random.normal(size=(48, 3)), np.zeros(3)
    y = x @ [1.0, -2.0, 3.0] + 0.1 * random.normal(size=48)
    size, step = run.batch_size or 8, 0
    optimizer = run.optimizer(w)
    for _ in range(5):
        for rows in random.permutation(48)[: 48 // size * size].reshape(-1, size):
            run.report(step, np.mean((x @ w - y) ** 2))
            optimizer.step(2 * x[rows].T @ (x[rows] @ w - y[rows]) / size)
            step += 1
    run.report(step, np.mean((x @ w - y) ** 2))


RULES = [downslope.sgd, downslope.momentum]
GRID = {"mu": [0.5, 0.8, 0.95], "batch_size": [8, 24]}
SMALL = {"learning_rates": [0.01, 0.1], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}


@pytest.fixture(scope="module")
def raced():
    return race(regression, RULES, grid=GRID, **SMALL)


def test_a_race_chooses_by_validation_and_judges_there(raced):
    for result in raced.rules:
        losses = on_the_grid(raced, result)
        best = min(losses, key=lambda at: losses[at])
        assert Point(result.best_lr, result.setting) == best
        assert {(run.lr, run.setting) for run in result.verdict} == {best}
        assert set(dict(result.setting)) == ({"batch_size"} if result.rule == "sgd" else {"mu", "batch_size"})
        assert result.hyperparameters.get("mu") == dict(result.setting).get("mu")
        assert batched(result) == f"With batches of {result.batch_size}."
    momentum = raced.rules[1]
    assert len({run.setting for run in momentum.tuning}) == 7  # and the default one
    assert f"={dict(momentum.setting)['mu']:g}" in lines(momentum, ["torch"])[0]


def test_a_rule_that_lacks_something_has_the_same_budget_of_tries_and_it_is_said(raced):
    sgd, momentum = (len(on_the_grid(raced, result)) for result in raced.rules)
    assert sgd == momentum
    assert raced.verdict.endswith(
        f"Every rule was tuned over learning rate, mu and batch_size, with the same budget of {sgd} tries."
    )
    assert (
        raced.cautions[0] == "Of the grid, sgd has no mu; so sgd had more learning rates instead, between those of all."
    )
    assert found(raced).startswith("From the grid, by validation: sgd batch_size=")
    assert f"batches of {raced.rules[0].batch_size}" in holds_for(raced)


def test_it_is_kept_and_shown(raced):
    assert Race.from_json(raced.to_json()).to_json() == raced.to_json()
    assert raced.grid == {"mu": (0.5, 0.8, 0.95), "batch_size": (8.0, 24.0)}
    page = report_page(raced)
    for words in ("The grid in numbers", "mu=0.95, batch_size=24", "mu 0.5, 0.8, 0.95; batch_size 8, 24"):
        assert words in page
    assert raced.runs["setting"].n_unique() == 9


def test_epochs_are_counted_where_batches_differ(short):
    result = race(short, [downslope.sgd], grid={"batch_size": [100, 300]}, **SMALL, threads=1)
    (sgd,) = result.rules
    assert result.steps_of(sgd.setting) == 600 // sgd.batch_size
    assert holds_for(result).startswith(f"This holds for 2 epochs with batches of {sgd.batch_size}, on a ")
    assert "settings tried" in report_page(result)


def test_without_a_grid_nothing_is_said():
    plan = Plan.of({"sgd": downslope.sgd}, hyperparameters={}, learning_rates=[0.1, 1.0])
    assert plan.points("sgd", plan.learning_rates) == [Point(0.1), Point(1.0)]
    assert (lacking(plan.grid, plan.settings), at_the_end(plan.grid, {"sgd": Point(0.1)}, plan.entrants)) == ((), ())


def test_all_combinations_and_learning_rates_between():
    entrants = {"sgd": Entrant.of("sgd", downslope.sgd, {}), **ADAM}
    grid = {"beta1": (0.8, 0.9), "weight_decay": (0.0, 0.1), "decoupled": (True,)}
    settings = settings_of(grid, entrants)
    assert list(map(said, settings["sgd"])) == ["weight_decay=0, decoupled=True", "weight_decay=0.1, decoupled=True"]
    assert len(settings["adam"]) == 4
    assert filled([0.001, 0.01, 0.1], 7) == (0.001, 0.002154, 0.004642, 0.01, 0.02154, 0.04642, 0.1)
    plan = Plan.of(
        {"sgd": downslope.sgd, "adam": downslope.adam}, hyperparameters={}, learning_rates=[0.01, 0.1], grid=grid
    )
    assert [at.lr for at in plan.points("sgd", [0.01, 0.1])][::2] == [0.01, 0.02154, 0.04642, 0.1]
    assert len(plan.points("adam", [0.01, 0.1])) == 8
    assert len(plan.points("sgd", [1.0, 10.0], beside=0.1)) == 8


def test_the_end_of_a_grid_is_told_where_it_could_go_on():
    grid = {"weight_decay": (0.0, 0.01, 0.1), "beta1": (0.5, 0.8, 0.9), "batch_size": (1.0, 2.0, 4.0)}
    least = {"adam": Point(0.1, (("weight_decay", 0.0), ("beta1", 0.8), ("batch_size", 1.0)))}
    assert at_the_end(grid, least, ADAM) == ()  # no decay is below 0, no batch below a row
    most = {"adam": Point(0.1, (("weight_decay", 0.1), ("beta1", 0.5), ("batch_size", 4.0)))}
    (told,) = at_the_end(grid, most, ADAM)
    assert told.endswith(
        "adam weight_decay=0.1, the largest; adam beta1=0.5, the smallest; adam batch_size=4, the largest."
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"grid": {"lr": [0.1]}}, "learning_rates"),
        ({"grid": {"momentun": [0.1]}}, "no rule has 'momentun'; there are beta1"),
        ({"grid": {}}, "values of each hyperparameter"),
        ({"grid": {"beta1": []}}, "one or more"),
        ({"grid": {"beta1": 0.9}}, "a list of values"),
        ({"grid": {"beta1": [0.9, 0.9]}}, "twice"),
        ({"grid": {"beta1": [0.9, math.nan]}}, "give numbers"),
        ({"grid": {"beta1": [0.9, 1.5]}}, "grid of adam: beta1=1.5"),
        ({"grid": {"beta1": [True]}}, "grid of adam: beta1=True is a bool"),
        ({"grid": {"batch_size": [12.5]}}, "whole numbers"),
        ({"grid": {"batch_size": [0]}}, "whole numbers"),
        ({"grid": {"batch_size": [601]}}, "601 is more than the 600 training rows"),
        ({"grid": {"weight_decay": [-1]}}, "out of range"),
        ({"grid": {"weight_decay": [0.1], "decoupled": [1]}}, "True or False"),
        ({"grid": {"decoupled": [True]}}, "weight_decay values too"),
        ({"grid": [0.1]}, "values of each hyperparameter"),
        ({"grid": {"beta1": [0.8]}, "hyperparameters": {"adam": {"beta1": 0.9}}}, "settled for adam"),
        ({"problem": "rosenbrock", "grid": {"batch_size": [16]}}, "of which a function has none"),
    ],
)
def test_what_is_no_grid_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        race(**{"problem": "parabola", "rules": [downslope.adam], **given})


def descent(run):
    """A quadratic whose batches do nothing but to be asked for."""
    x = np.random.default_rng(run.seed).normal(size=4)
    optimizer = run.optimizer(x)
    for step in range(6):
        run.report(step, x @ x * (run.batch_size or 1))
        optimizer.step(2 * x)


def test_a_training_of_ones_own_has_the_setting_in_its_optimizer():
    setting = (("mu", 0.5), ("weight_decay", 0.1), ("batch_size", 3.0))
    engine = OwnEngine(descent, {"momentum": Entrant.of("momentum", downslope.momentum, {})})
    run = engine.run(Entry("momentum", 0.1, 0, setting=setting))
    x = np.random.default_rng(0).normal(size=4)
    v, losses = 0 * x, []
    for _ in range(6):
        losses.append(3 * (x @ x))
        v = 0.5 * v - 0.1 * (2 * x + 0.1 * x)
        x = x + v
    np.testing.assert_allclose(run.valid_loss, losses, rtol=1e-12)
    assert (run.setting, run.cause) == (setting, "")


def no_batches(run):
    x = np.random.default_rng(run.seed).normal(size=2)
    run.optimizer(x).step(x)
    run.report(1, x @ x)


def by_hand(run):
    run.report(1, run.lr * float(run.batch_size or 1) + np.random.default_rng(run.seed).normal())


@pytest.mark.parametrize(("train", "cause"), [(no_batches, "run.batch_size"), (by_hand, "did not use mu of the grid")])
def test_a_setting_that_a_training_ignores_is_no_run_and_no_race(train, cause):
    engine = OwnEngine(train, {"momentum": Entrant.of("momentum", downslope.momentum, {})})
    run = engine.run(Entry("momentum", 0.1, 0, setting=(("mu", 0.5), ("batch_size", 3.0))))
    assert cause in run.cause
    assert run.final_loss == math.inf
    with pytest.raises(ValueError, match=f"train: it .*{cause}"):
        race(train, RULES, grid=GRID, **SMALL)


def test_a_model_is_trained_in_its_setting_alone_and_stacked_and_follows_the_schedule(short):
    torch = pytest.importorskip("torch")
    setting = (("beta2", 0.9), ("batch_size", 200.0))

    def net(seed):
        return torch.nn.Linear(1, 1)

    engine = ModelEngine(net, short, ADAM, schedule=LINEAR, limit=100)
    engine.stacking = Stacking(1, "")
    alone = runs_of(engine, [Entry("adam", 0.01, 0, setting=setting)])
    engine.stacking = Stacking(2, "", fewest=2)
    stacked = runs_of(engine, [Entry("adam", lr, 0, setting=one) for lr in (0.01, 0.1) for one in (setting, ())])
    assert len(stacked) == 4
    other = {"adam": Entrant.of("adam", downslope.adam, {"beta2": 0.9})}
    plain = ModelEngine(net, dataclasses.replace(short, batch_size=200), other, schedule=LINEAR, limit=100)
    (expected,) = runs_of(plain, [Entry("adam", 0.01, 0)]).values()
    assert alone["adam", 0.01, 0, setting].valid_loss == expected.valid_loss
    np.testing.assert_allclose(stacked["adam", 0.01, 0, setting].valid_loss, expected.valid_loss, rtol=1e-4)


def test_a_race_in_time_counts_all_settings():
    foreseen = foresee(
        descent, [downslope.sgd], learning_rates=[0.1], tuning_seeds=2, confirming_seeds=1, verdict_seeds=3,
        grid={"weight_decay": [0, 0.1, 0.2]}, budget=Budget(math.inf),
    )  # fmt: skip
    assert foreseen.runs == 2 * (1 + 3) + 3 + 3  # the first at the default learning rate
    assert "3 settings" in foreseen.chosen


class Clock:
    """A clock that stands still but where it is moved."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_race_in_time_knows_that_large_batches_take_longer(capsys):
    clock = Clock()

    def slow(run):
        regression(run)
        clock.now += 4.0 if run.batch_size == 24 else 1.0

    given = {"rules": RULES, "grid": GRID, "learning_rates": [0.01, 0.1]}
    foreseen = foresee(slow, budget=Budget(150, clock=clock), progress=True, **given)
    assert (
        capsys.readouterr().err.count("Measuring what runs cost: momentum") == 2
    )  # with small batches, with large ones
    begun = clock.now
    assert begun == 2 * (1 + 4) + 4 * 1  # a run of each rule in both sizes; the defaults, the first again and another
    tuning, verdict = 2 * 13 * (1 + 4) / 2, 2 * 6 * 4  # half of the tries in either size; then large ones may win
    assert foreseen.seconds == pytest.approx(tuning + verdict, rel=0.03)
    found = race(slow, budget=Budget(150, clock=clock), **given)
    assert not found.interrupted
    assert {result.batch_size for result in found.rules} == {8}
    assert len(found.verdict_seeds) > 4 * 6  # small ones won, and there was time for more
    assert clock.now - begun <= 150
