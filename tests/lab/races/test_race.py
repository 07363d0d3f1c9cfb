"""What makes a race fair, seen on real races of small networks."""

import math
from dataclasses import replace

import numpy as np
import pytest

import downslope
from downslope import rule
from downslope.dialects import keras, torch
from downslope.lab import load_problem, race
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.jax_engine import JaxEngine
from downslope.lab.engines.protocol import Entry, Run
from downslope.lab.problems.baseline import baseline
from downslope.lab.races.grid import Point, beyond, choose
from downslope.lab.races.outcome import safe_range, steps_to
from downslope.lab.races.plan import FIRST_VERDICT_SEED, GRID
from downslope.lab.races.tuning import Stage


@pytest.fixture(scope="module")
def result():
    return race(
        "parabola",
        [downslope.sgd, downslope.nesterov, downslope.adam],
        learning_rates=[0.001, 0.01, 0.1],
        tuning_seeds=2,
        verdict_seeds=4,
    )


def test_the_grid_is_three_per_decade():
    assert len(GRID) == 19
    assert (GRID[0], GRID[-1]) == (1e-5, 10.0)
    assert np.allclose(np.diff(np.log10(GRID)), 1 / 3, atol=2e-3)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({0.1: 3.0, 1.0: 2.0, 10.0: 4.0}, (1.0, None)),
        ({0.1: 1.0, 1.0: 2.0, 10.0: 4.0}, (0.1, "low")),
        ({0.1: 3.0, 1.0: 2.0, 10.0: 1.0}, (10.0, "high")),
        ({0.1: 3.0, 1.0: 2.0, 10.0: math.inf}, (1.0, None)),
        ({0.1: 2.0, 1.0: 2.0, 10.0: 4.0}, (0.1, "low")),
        ({0.1: math.inf, 1.0: math.inf}, (None, "low")),
        ({}, (None, None)),
    ],
)
def test_choosing_the_learning_rate(losses, expected):
    best, edge = choose({Point(lr): loss for lr, loss in losses.items()})
    assert (None if best is None else best.lr, edge) == expected


def test_widening_goes_on_in_steps_of_a_third_of_a_decade():
    assert beyond({0.1: 1.0, 1.0: 2.0}, "low") == (0.01, 0.0215, 0.0464)
    assert beyond({0.1: 1.0, 1.0: 2.0}, "high") == (2.15, 4.64, 10.0)


@pytest.mark.parametrize(
    ("losses", "best", "expected"),
    [
        ({0.01: 1.4, 0.1: 1.0, 1.0: 1.6}, 0.1, (0.01, 0.1)),
        ({0.001: 1.0, 0.01: 9.0, 0.1: 1.0, 1.0: math.inf}, 0.1, (0.1, 0.1)),
        ({0.1: math.inf}, None, None),
    ],
)
def test_the_safe_range_is_unbroken(losses, best, expected):
    assert safe_range(losses, best) == expected


def _run(valid_loss):
    return Run("sgd", 0.1, 0, "verdict", valid_loss, valid_loss, None)


def test_steps_to_a_target():
    runs = [_run((1.0, 0.5, 0.2)), _run((1.0, 0.2, 0.3)), _run((1.0, 0.9, 0.8))]
    assert steps_to(0.2, runs, steps_per_epoch=10) == 20
    assert steps_to(0.2, runs[1:], steps_per_epoch=10) == 10
    assert steps_to(0.2, runs[2:], steps_per_epoch=10) == math.inf
    assert steps_to(None, runs, steps_per_epoch=10) is None


def test_every_rule_gets_the_same_budget_and_the_same_luck(result):
    grids = {r.rule: sorted({run.lr for run in r.tuning}) for r in result.rules}
    for grid in grids.values():
        assert {0.001, 0.01, 0.1} <= set(grid)
    for r in result.rules:
        assert {run.seed for run in r.tuning if run.lr not in finalists(r)} <= {0, 1}
        assert {run.seed for run in r.tuning if run.lr == r.best_lr} == set(range(9))
        assert [run.seed for run in r.verdict] == [FIRST_VERDICT_SEED + k for k in range(4)]
        assert {run.lr for run in r.verdict} == {r.best_lr}
    starts = [tuple(run.valid_loss[0] for run in r.verdict) for r in result.rules]
    assert starts[0] == starts[1] == starts[2]
    assert len(set(starts[0])) == 4


def finalists(result):
    """The learning rates that were run on more than the two tuning seeds."""
    return {run.lr for run in result.tuning if run.seed > 1}


def test_the_best_is_the_lowest_mean_of_all_its_seeds(result):
    for r in result.rules:
        means = {}
        for run in r.tuning:
            if run.lr in finalists(r):
                means.setdefault(run.lr, []).append(run.final_loss)
        assert {len(losses) for losses in means.values()} == {9}
        assert r.best_lr == min(means, key=lambda lr: np.mean(means[lr]))


def test_every_rule_gets_as_many_runs_at_the_same_learning_rates(result):
    assert len({len(r.tuning) for r in result.rules}) == 1
    assert len({tuple(sorted({run.lr for run in r.tuning})) for r in result.rules}) == 1
    assert len({len(finalists(r)) for r in result.rules}) == 1


def test_one_learning_rate_does_not_tell_the_side_and_is_widened_on_both():
    quick = {"tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}
    found = race("parabola", [downslope.sgd], learning_rates=[0.01], **quick).rules[0]
    rates = sorted({run.lr for run in found.tuning})
    assert rates == [0.001, 0.00215, 0.00464, 0.01, 0.0215, 0.0464, 0.1]
    assert (found.best_lr, found.edge) == (0.0464, None)


def test_each_seed_has_its_own_split_unless_it_is_fixed(result):
    quick = {"learning_rates": [0.05], "tuning_seeds": 2, "confirming_seeds": 0, "verdict_seeds": 3}
    quick["hyperparameters"] = {"momentum": {"mu": 0.0}}
    rules = [downslope.sgd, downslope.momentum]
    varied, fixed = (race("parabola", rules, splits=splits, **quick) for splits in ("varied", "fixed"))
    assert (varied.splits, fixed.splits) == (3, 1)
    assert (varied.overlap, fixed.overlap) == (200 / 600, 0.0)
    assert len(set(varied.baseline.losses)) == 3
    assert len(set(fixed.baseline.losses)) == 1
    problem = load_problem("parabola")
    for loss, seed in zip(varied.baseline.losses, varied.verdict_seeds, strict=True):
        train, valid, _ = problem.split(0, seed)
        y = problem.targets.values[:, 0]
        assert loss == pytest.approx(np.mean((y[valid] - y[train].mean()) ** 2), rel=1e-5)


def test_seeds_replicate_or_repeat_a_race():
    quick = {"learning_rates": [0.05], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}

    def runs(**luck):
        found = race("parabola", [downslope.sgd], **quick, **luck)
        assert (found.seed, found.split_seed) == (luck.get("seed", 0), luck.get("split_seed", 0))
        return found.rules[0].tuning + found.rules[0].verdict, found

    base, race_base = runs()
    assert runs(seed=0, split_seed=0)[0] == base
    other_seed, race_other = runs(seed=3)
    other_split, _ = runs(split_seed=3)
    assert {run.seed for run in base} == {run.seed for run in other_split}
    assert {run.seed for run in base}.isdisjoint(run.seed for run in other_seed)
    assert {run.seed - 3_000_000 for run in other_seed} == {run.seed for run in base}
    for changed in (other_seed, other_split):
        assert {run.valid_loss[0] for run in base}.isdisjoint(run.valid_loss[0] for run in changed)
    # Other weights on the same splits: predicting the mean is as good as it was.
    assert race_other.baseline.losses == race_base.baseline.losses


def test_the_best_epoch_is_told_beside_the_last(result):
    for r in result.rules:
        best = [min(run.valid_loss[1:]) for run in r.verdict]
        assert r.best_loss.estimate == pytest.approx(np.exp(np.mean(np.log(best))))
        assert r.best_loss.estimate <= r.loss.estimate


def test_a_lucky_learning_rate_is_found_out():
    """On the parabola SGD at 0.464 does well on the first three seeds and falls apart on most others."""
    rates = [0.0464, 0.1, 0.215, 0.464, 1.0]
    hasty = race("parabola", [downslope.sgd], learning_rates=rates, confirming_seeds=0, verdict_seeds=10).rules[0]
    careful = race("parabola", [downslope.sgd], learning_rates=rates, verdict_seeds=10).rules[0]
    assert hasty.best_lr == 0.464
    assert hasty.loss.estimate > 0.03
    assert careful.best_lr < 0.464
    assert careful.loss.estimate < 0.015


def test_only_the_verdict_sees_the_test_data(result):
    for r in result.rules:
        assert all(run.test_loss is None for run in r.tuning)
        assert all(run.test_loss is not None for run in r.verdict)


def test_the_best_on_the_edge_widens_the_grid(result):
    """At 0.001 to 0.1 a tuned SGD wants more; the grid must have grown until the best was inside, or the limit."""
    sgd = result.rules[0]
    rates = sorted({run.lr for run in sgd.tuning})
    assert rates[-1] > 0.1
    assert sgd.edge is not None or rates[0] < sgd.best_lr < rates[-1]


def test_the_result_holds_what_decides_it(result):
    assert result.data_hash == load_problem("parabola").data_hash
    assert result.learning_rates == (0.001, 0.01, 0.1)
    assert result.network == "1-20-1 MLP, ReLU"
    assert result.weights == 61
    assert result.steps_per_epoch == 600 // 32
    assert {"downslope", "jax", "numpy"} <= set(result.environment["versions"])
    assert len(result.comparisons) == 3
    assert result.target_loss == sorted(run.final_loss for run in result.rules[0].verdict)[2]
    assert math.isfinite(result.rules[0].steps_to_target)  # who sets the target reaches it


def test_a_race_is_repeatable(result):
    again = race(
        "parabola",
        [downslope.sgd, downslope.nesterov, downslope.adam],
        learning_rates=[0.001, 0.01, 0.1],
        tuning_seeds=2,
        verdict_seeds=4,
    )
    assert [r.verdict for r in again.rules] == [r.verdict for r in result.rules]
    assert again.verdict == result.verdict


@rule
def runaway(x, dx, *, lr=0.1):
    """Walks up instead of down, ever faster."""
    return x * 10 + lr * dx


def test_a_rule_that_always_diverges_is_reported_as_such():
    found = race("parabola", [downslope.sgd, runaway], learning_rates=[0.1], tuning_seeds=1, verdict_seeds=2)
    lost = found.rules[1]
    assert lost.best_lr is None
    assert lost.edge == "low"
    assert all(math.isinf(run.final_loss) and run.diverged_at is not None for run in lost.tuning)
    # The grid was widened twice, downwards, for the lost one; upwards for sgd, and both were tried at the same.
    rates = {run.lr for run in lost.tuning}
    assert min(rates) == 0.001
    assert rates == {run.lr for run in found.rules[0].tuning}
    assert lost.verdict == ()
    assert "sgd" in found.verdict
    alone = race("parabola", [runaway], learning_rates=[0.1], tuning_seeds=1, verdict_seeds=2)
    assert alone.verdict.startswith("Every run diverged")
    assert found.rules[0].verdict


def test_ctrl_c_keeps_what_is_finished():
    events = []

    def watch(event):
        events.append(event)
        if isinstance(event, Stage) and event.name == "verdict":
            raise KeyboardInterrupt

    found = race("parabola", [downslope.sgd], learning_rates=[0.01, 0.1, 1.0], tuning_seeds=1, watch=watch)
    assert found.interrupted
    assert found.rules[0].best_lr is not None
    assert found.rules[0].verdict == ()
    assert "no verdict" in found.verdict


def test_a_race_stopped_while_judging_has_no_winner():
    judged = []

    def watch(event):
        if not isinstance(event, Stage):
            judged.extend(run.rule for run in event.finished if run.phase == "verdict")
            if judged.count(judged[0] if judged else "") == 6:
                raise KeyboardInterrupt

    rules = [downslope.sgd, downslope.nesterov, downslope.adam]
    settings = {"learning_rates": [0.01, 0.1], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 6}
    found = race("parabola", rules, threads=1, watch=watch, **settings)
    complete = [result.rule for result in found.rules if len(result.verdict) == 6]
    assert 0 < len(complete) < 3
    assert found.interrupted
    assert found.verdict.startswith(f"There is no winner: of the {len(complete)} of 3 rules judged")


def test_the_baseline_is_a_constant_prediction(result):
    problem = load_problem("parabola")
    expected = []
    for seed in result.verdict_seeds:
        train, valid, _ = problem.divided(problem.split(0, seed))
        expected.append(np.mean((valid.y - train.y.astype(float).mean()) ** 2))
    assert result.baseline.losses == pytest.approx(expected, rel=1e-6)
    assert result.baseline.accuracy is None
    assert {r.against_baseline.second for r in result.rules} == {"baseline"}
    assert all(r.against_baseline.ratio.estimate < 1 for r in result.rules)
    shares = np.bincount(load_problem("digits").train.y) / len(load_problem("digits").train.y)
    digits = load_problem("digits")
    loss, accuracy = baseline("classification", digits.train, digits.valid)
    assert loss == pytest.approx(-np.mean([math.log(shares[label]) for label in digits.valid.y]))
    assert accuracy == np.mean(digits.valid.y == shares.argmax())


def test_few_validation_rows_are_warned_of(result):
    assert result.cautions == ()
    problem = load_problem("parabola")
    few = replace(problem, test_rows=np.arange(968, dtype=np.int32))
    found = race(few, [downslope.sgd], learning_rates=[0.1], tuning_seeds=1, confirming_seeds=0, verdict_seeds=1)
    assert "8 validation rows" in found.cautions[0]


def test_no_reporting_seed_was_tuned_on():
    short = replace(load_problem("parabola"), epochs=1)
    found = race(short, [downslope.sgd], learning_rates=[0.1], tuning_seeds=1001, confirming_seeds=0, verdict_seeds=2)
    assert set(found.verdict_seeds).isdisjoint(found.tuning_seeds)


def test_a_rule_with_a_narrow_range_is_tried_within_it():
    @rule(ranges={"lr": (0.0, 0.5)})
    def careful(x, dx, *, lr=0.1):
        return x - lr * dx

    found = race("parabola", [careful], learning_rates=[0.01, 0.1], tuning_seeds=1, verdict_seeds=2).rules[0]
    assert max(run.lr for run in found.tuning) == 0.464
    with pytest.raises(ValueError, match="careful"):
        race("parabola", [careful], learning_rates=[0.1, 1.0])


def test_a_best_rate_found_on_the_edge_while_confirming_widens_the_grid_too(result):
    for found in result.rules:
        tried = sorted({run.lr for run in found.tuning})
        at_limit = tried[0] < 1e-4 or tried[-1] >= 10
        assert found.edge is None or at_limit


def test_settings_reach_the_rule():
    plain = {"tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2, "learning_rates": [0.01, 0.03, 0.1]}
    still = race("parabola", [downslope.momentum], hyperparameters={"momentum": {"mu": 0.0}}, **plain)
    sgd = race("parabola", [downslope.sgd], **plain)
    assert still.rules[0].hyperparameters == {"mu": 0.0}
    at = {run.lr: run.final_loss for run in still.rules[0].tuning}
    for run in sgd.rules[0].tuning:
        assert at[run.lr] == pytest.approx(run.final_loss, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"problem": "nothing"}, "nothing"),
        ({"rules": []}, "rules"),
        ({"rules": "sgd"}, "rules"),
        ({"learning_rates": 0.1}, "learning_rates"),
        ({"learning_rates": ["a"]}, "learning_rates"),
        ({"learning_rates": [1e39]}, "learning_rates"),
        ({"tuning_seeds": True}, "tuning_seeds"),
        ({"threads": -1}, "threads"),
        ({"hyperparameters": {"momentum": {"mu": 1.5}}}, "mu=1.5"),
        ({"hyperparameters": {"sgd": {"lr": 0.5}}}, "lr"),
        ({"rules": ["adam"]}, "adam"),
        ({"learning_rates": []}, "learning_rates"),
        ({"learning_rates": [0.1, -1.0]}, "learning_rates"),
        ({"learning_rates": [math.nan]}, "learning_rates"),
        ({"tuning_seeds": 0}, "tuning_seeds"),
        ({"verdict_seeds": 1_000_000}, "verdict_seeds=1000000"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"split_seed": True}, "split_seed=True"),
        ({"splits": "none"}, "splits='none'"),
        ({"confirming_seeds": -1}, "confirming_seeds"),
        ({"verdict_seeds": 1.5}, "verdict_seeds"),
        ({"margin": 1.0}, "margin=1.0"),
        ({"margin": -0.1}, "margin=-0.1"),
        ({"target_loss": math.nan}, "target_loss"),
        ({"hyperparameters": {"adam": {"beta3": 1.0}}}, "beta3"),
        ({"hyperparameters": {"momentums": {}}}, "hyperparameters: no rule is named 'momentums'; the rules are sgd, "),
        (
            {"rules": [downslope.adam, downslope.adam]},
            "two of them are called 'adam'; every rule needs",
        ),
        ({"rules": {"": downslope.adam}}, "'' is no name for adam"),
        (
            {"rules": [keras.adam, torch.adam], "hyperparameters": {"adam": {"beta1": 0.8}}},
            "keras.adam, torch.adam are all named 'adam'",
        ),
    ],
)
def test_bad_input_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        race(**{"problem": "parabola", **arguments})


def test_forms_of_one_rule_race_each_other_under_names_of_their_own():
    quick = {"learning_rates": [0.01], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2, "threads": 1}
    settings = {"keras.adam": {"eps": 1e-3}, "short": {"beta1": 0.5}}
    rules = {"adam": downslope.adam, "keras.adam": keras.adam, "short": downslope.adam}
    result = race("parabola", rules, hyperparameters=settings, **quick)
    assert [one.rule for one in result.rules] == ["adam", "keras.adam", "short"]
    assert [one.hyperparameters["beta1"] for one in result.rules] == [0.9, 0.9, 0.5]
    assert {(one.first, one.second) for one in result.comparisons} >= {("adam", "keras.adam"), ("keras.adam", "short")}
    assert len({one.verdict[0].final_loss for one in result.rules}) == 3
    assert all(run.rule == one.rule for one in result.rules for run in (*one.tuning, *one.verdict))
    alone = race("parabola", [keras.adam], hyperparameters={"adam": {"eps": 1e-3}}, **quick)  # its own name will do
    assert alone.rules[0].rule == "keras.adam"
    assert alone.rules[0].verdict == result.rules[1].verdict


def test_most_of_the_gap_at_one_shared_learning_rate_is_gone_when_each_rule_has_its_own():
    digits = replace(load_problem("digits"), epochs=6)
    rates = {"sgd": (0.01, 1.0), "adam": (0.01, 0.02)}
    engine = JaxEngine(digits, {name: Entrant.of(name, getattr(downslope, name), {}) for name in rates}, threads=1)
    entries = [Entry(name, lr, seed=0) for name, lrs in rates.items() for lr in lrs]
    runs = [run for progress in engine.train(entries) for run in progress.finished]
    ends = {(run.rule, run.lr): run.final_loss for run in runs}
    shared, tuned = (ends["sgd", rates["sgd"][k]] / ends["adam", rates["adam"][k]] for k in (0, 1))
    assert shared > 8  # on each of ten seeds it was 11 to 16
    assert 1 / 3 < tuned < 3  # seed 0: 1.25
