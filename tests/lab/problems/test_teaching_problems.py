"""What theory or a paper says of a problem, and what runs of it do."""

import dataclasses
import typing

import numpy as np
import pytest

import downslope
from downslope.cli.race import race as race_command
from downslope.lab import PROBLEMS, DataError, load_problem, race, write_report
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.jax_engine import JaxEngine
from downslope.lab.engines.protocol import Entry
from downslope.lab.problems import linear

RULES = [downslope.sgd, downslope.momentum, downslope.nesterov, downslope.adagrad, downslope.rmsprop, downslope.adam]


def train(problem, entries, **changes):
    """The runs of some rules, learning rates and seeds, and where the observed ones ended."""
    engine = JaxEngine(dataclasses.replace(problem, **changes), {r.name: Entrant.of(r.name, r, {}) for r in RULES})
    runs, ends = {}, {}
    for progress in engine.train(entries):
        runs |= {(run.rule, run.lr, run.seed): run for run in progress.finished}
        ends |= {(one.entry.rule, one.entry.lr, one.entry.seed): one.weights for one in progress.snapshots}
    return runs, ends


def test_the_noise_floor_of_a_quadratic():
    lr, mu, weights = 0.1, 0.9, 100
    floors = {  # of w and v as a linear recursion with noise of variance 1, and curvature 1
        "sgd": weights / 2 * lr / (2 - lr),
        "momentum": weights / 2 * lr * (1 + mu) / ((1 - mu) * (2 * (1 + mu) - lr)),
    }
    assert floors == pytest.approx({"sgd": 100 * 0.026316, "momentum": 100 * 0.256757}, rel=1e-5)
    runs, _ = train(load_problem("noisy-quadratic"), [Entry(r, lr, seed) for r in floors for seed in range(16)])
    for rule, floor in floors.items():
        settled = [loss for run in runs.values() if run.rule == rule for loss in run.valid_loss[4:]]
        assert np.mean(settled) == pytest.approx(floor, rel=0.03)


def test_the_noise_of_functions_has_no_mean_and_its_variance():
    rows = load_problem("noisy-quadratic").columns.values.astype(np.float64)
    assert (rows[0] == 0).all()
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.mean(rows[1:] ** 2, axis=0), 1, rtol=1e-6)


def test_the_stability_limits_of_a_quadratic():
    problem = load_problem("deep-quadratic")
    sharpest = np.linalg.eigvalsh(problem.model.hessian.astype(np.float64))[-1]
    limits = {rule: limit / sharpest for rule, limit in (("sgd", 2), ("momentum", 3.8), ("nesterov", 3.8 / 2.8))}
    rates = {rule: (0.98 * limit, 1.02 * limit) for rule, limit in limits.items()}
    runs, _ = train(problem, [Entry(rule, lr, 0) for rule, both in rates.items() for lr in both])
    for rule, (below, beyond) in rates.items():
        assert runs[rule, below, 0].final_loss < 0.2 * runs[rule, below, 0].valid_loss[0]
        assert runs[rule, beyond, 0].diverged_at is not None


def test_steps_in_rosenbrocks_valley_are_those_of_its_derivative():
    problem = load_problem("rosenbrock")
    runs, ends = train(problem, [Entry("sgd", 1e-3, 5, observed=True), Entry("momentum", 1e-3, 5)])
    a, b = np.float64(problem.model.initial(5)[0])
    for _ in range(1000):
        slope = -2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)
        a, b = a - 1e-3 * slope[0], b - 1e-3 * slope[1]
    np.testing.assert_allclose(ends["sgd", 1e-3, 5][0], (a, b), rtol=1e-3)
    assert runs["momentum", 1e-3, 5].final_loss < 1e-3 * runs["sgd", 1e-3, 5].final_loss


def test_separable_points_are_fitted_by_all_and_told_by_some():
    problem = load_problem("separable")
    found = {"sgd": 0.1, "adam": 0.01}
    runs, ends = train(problem, [Entry(rule, lr, 0, observed=True) for rule, lr in found.items()])
    rows, valid, _ = problem.divided(problem.split(0, 0))
    x, y = np.float64(rows.x), np.float64(rows.y[:, 0])
    larger = np.mean(valid.y > 0)
    for (rule, lr, _), run in runs.items():
        assert run.train_loss[-1] < 1e-3
        weights = np.float64(ends[rule, lr, 0][0])
        if rule == "sgd":
            np.testing.assert_allclose(weights, np.linalg.pinv(x) @ y, atol=2e-2)  # the shortest that fits
            assert run.valid_accuracy[-1] == 1
        else:
            np.testing.assert_allclose(weights, np.sign(x.T @ y) / 4, atol=0.05)
            assert run.valid_accuracy[-1] == pytest.approx(larger)
            assert run.final_loss == pytest.approx((larger + 25 * (1 - larger)) / 16, rel=0.05)


def test_rare_classes_are_what_holds_gradient_descent_back():
    tried, seeds = {"sgd": (4.64, 10.0, 46.4), "adam": (0.0215, 0.0464)}, range(2)
    ratios, rare = [], {}
    for power in (1.0, 0.0):
        problem, best = linear.heavy_tail(power), {}
        runs, ends = train(problem, [Entry(r, lr, s, observed=True) for r in tried for lr in tried[r] for s in seeds])
        for rule, rates in tried.items():
            means = {lr: np.mean([np.log(runs[rule, lr, seed].final_loss) for seed in seeds]) for lr in rates}
            lr = min(means, key=means.get)
            best[rule] = means[lr]
            if power:
                rare[rule] = np.mean([rare_loss(problem, seed, ends[rule, lr, seed]) for seed in seeds])
        ratios.append(np.exp(best["adam"] - best["sgd"]))
    assert ratios[0] < 0.6
    assert ratios[1] > 1.2
    assert rare["adam"] < 0.5 * rare["sgd"]


def rare_loss(problem, seed, weights):
    """The mean loss of validation rows of the rarer half of the classes."""
    _, valid, _ = problem.divided(problem.split(0, seed))
    scores = np.float64(valid.x) @ np.float64(weights[0]).T + weights[1]
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(valid.y)), valid.y]
    return np.mean(losses[valid.y >= 50])


@pytest.mark.parametrize(
    ("argument", "value"), [("split_seed", 1), ("splits", "fixed"), ("why", True)], ids=["split_seed", "splits", "why"]
)
def test_a_function_has_no_data_to_split_or_explain(argument, value):
    with pytest.raises(ValueError, match=rf"{argument}={value!r} is for a race on data, and rosenbrock has none"):
        race("rosenbrock", **{argument: value})


def test_a_function_has_no_data_for_a_model_either():
    with pytest.raises(DataError, match="rosenbrock has no data that a model could learn from"):
        race(model=lambda seed: None, data="rosenbrock")


def test_the_command_names_every_problem():
    about = typing.get_type_hints(race_command, include_extras=True)["problem"].__metadata__[0].help
    assert [name for name in PROBLEMS if name not in about] == []


def test_a_problem_that_predicts_nothing_says_what_it_trains():
    with pytest.raises(DataError, match="task: None says that nothing is predicted"):
        dataclasses.replace(load_problem("parabola"), task=None)


def test_the_report_on_a_function_says_nothing_of_data(tmp_path):
    problem = dataclasses.replace(load_problem("rosenbrock"), epochs=2)
    result = race(problem, RULES[:2], learning_rates=[1e-4, 1e-3], tuning_seeds=1, confirming_seeds=0, verdict_seeds=6)
    assert (result.task, result.sizes, result.baseline, result.splits) == (None, {}, None, 0)
    assert result.rules[0].test_loss is None
    assert problem.shows in result.shows
    write_report(result, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text().partition("<script")[0]
    assert problem.shows[:40] in page
    for word in ("alidation", "split", "Test ", "aseline", "None", " rows ", "network", "Network"):
        assert word not in page.partition("<main>")[2].partition("<footer")[0], word
