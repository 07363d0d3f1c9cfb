"""What an engine sees around a run, beside a dense Hessian and gradients of rows by hand, in double precision."""

import dataclasses

import numpy as np
import pytest
from test_engine import engine_for, gradient_of, loss_of, small_problem

import downslope
from downslope.lab.engines import terrain
from downslope.lab.engines.protocol import Entry
from downslope.lab.engines.schedule import Schedule


def snapshots(engine, entry):
    observed = dataclasses.replace(entry, observed=True)
    return [snapshot for progress in engine.train([observed]) for snapshot in progress.snapshots]


@pytest.fixture(scope="module")
def watched():
    """An engine whose epochs are one step each, and the snapshots of a run of each rule."""
    problem, linear = small_problem(batch_size=200), Schedule.of("linear")
    engine = engine_for(problem, [downslope.adam, downslope.nesterov], schedule=linear)
    return engine, {name: snapshots(engine, Entry(name, 0.03, 1)) for name in ("adam", "nesterov")}


@pytest.fixture(scope="module")
def regression():
    return engine_for(small_problem("regression"), [downslope.sgd])


def rows_of(engine, seed):
    train, _, _ = engine.problem.divided(engine.problem.split(0, engine.split_number(seed)))
    return train.x.astype(np.float64), train.y


def flat(arrays):
    return np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])


def hessian(weights, x, y, task):
    """By central differences of the gradient, away from the kinks of the ReLU."""
    shapes = [w.shape for w in weights]
    ends = np.cumsum([0, *(w.size for w in weights)])

    def gradient(point):
        parts = [point[a:b].reshape(s) for a, b, s in zip(ends, ends[1:], shapes, strict=False)]
        return flat(gradient_of(parts, x, y, task))

    point, step = flat(weights), 1e-6
    columns = [(gradient(point + e) - gradient(point - e)) / (2 * step) for e in step * np.eye(len(point))]
    return np.stack(columns, axis=1)


def largest(matrix):
    return np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]


def test_the_curvature_is_the_largest_eigenvalue_of_a_dense_hessian(watched):
    engine, runs = watched
    last = runs["adam"][-1]
    around = engine.look_around(last)
    x, y = rows_of(engine, 1)
    dense = hessian(last.weights, x, y, "classification")
    assert around.curvature == pytest.approx(largest(dense), rel=5e-3)

    # The preconditioned one, with Adam's factor by hand: v after the next step, on all rows.
    g, v, t = flat(gradient_of(last.weights, x, y, "classification")), flat(last.states["v"]), last.steps + 1
    v = 0.999 * v + 0.001 * g**2
    root = np.sqrt(1 / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    assert around.preconditioned == pytest.approx(largest(root[:, None] * dense * root), rel=1e-2)


def test_the_curvature_of_a_mean_square(regression):
    begun = regression.begin(Entry("sgd", 0.1, 0))
    weights = tuple(w + np.float32(0.01) for w in begun.weights)  # with biases of 0 some rows are on a kink
    around = regression.look_around(dataclasses.replace(begun, weights=weights, steps=1))
    x, y = rows_of(regression, 0)
    assert around.curvature == pytest.approx(largest(hessian(weights, x, y, "regression")), rel=5e-3)
    assert around.preconditioned is None


def test_a_network_that_has_died_is_curved_along_its_last_bias_alone(regression):
    begun = regression.begin(Entry("sgd", 0.1, 0))
    dead = tuple(w if k >= 4 else -np.abs(w) - (k % 2) for k, w in enumerate(begun.weights))
    around = regression.look_around(dataclasses.replace(begun, weights=dead, steps=1))
    assert around.curvature == pytest.approx(2.0, rel=1e-3)


def test_the_noise_scale_is_that_of_the_gradients_of_single_rows(watched):
    engine, runs = watched
    weights = runs["nesterov"][-1].weights
    x, y = rows_of(engine, 1)
    rows = np.stack([flat(gradient_of(weights, x[k : k + 1], y[k : k + 1], "classification")) for k in range(len(x))])
    expected = rows.var(axis=0, ddof=1).sum() / (rows.mean(axis=0) ** 2).sum()
    assert engine.look_around(runs["nesterov"][-1]).noise_scale == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
def test_the_next_step_is_the_one_that_the_run_takes(watched, rule):
    engine, runs = watched
    start, first, second, *_ = runs[rule]
    for before, after in ((start, first), (first, second)):
        found = engine.look_around(before).update_ratios
        assert len(found) == 3
        for layer, ratio in enumerate(found):
            pair = slice(2 * layer, 2 * layer + 2)
            moved = np.linalg.norm(flat(after.weights[pair]) - flat(before.weights[pair]))
            assert ratio == pytest.approx(moved / np.linalg.norm(flat(before.weights[pair])), rel=1e-4)
    losses = engine.after_first_step(Entry(rule, 0.03, 1), [0.01, 0.03, 3.0])
    assert losses[1] == pytest.approx(loss_of(first.weights, *rows_of(engine, 1), "classification"), rel=1e-5)
    assert losses[0] != losses[1] != losses[2]


def test_a_run_that_has_not_begun_is_as_one_that_is_observed(watched):
    engine, runs = watched
    begun, observed = engine.begin(Entry("adam", 0.03, 1)), runs["adam"][0]
    assert begun.epoch == observed.epoch == begun.steps == observed.steps == 0
    assert all(np.array_equal(a, b) for a, b in zip(begun.weights, observed.weights, strict=True))
    assert engine.look_around(begun) == engine.look_around(observed)


def test_nothing_is_seen_where_numbers_are_not_finite(regression):
    begun = regression.begin(Entry("sgd", 0.1, 0))
    lost = dataclasses.replace(begun, weights=tuple(np.full_like(w, np.nan) for w in begun.weights))
    assert regression.look_around(lost) is None
    assert regression.look_around(dataclasses.replace(begun, entry=Entry("sgd", 1e39, 0))) is None


def test_of_many_rows_some_are_looked_at(watched, monkeypatch):
    engine, _ = watched
    count = len(engine.problem.split().train)
    assert engine.seen_rows(0) == (count, count)
    monkeypatch.setattr(terrain, "MOST_ROWS", 20)
    assert engine.seen_rows(0) == (20, count)


def test_of_some_rows_the_noise_scale_does_not_take_their_own_noise_for_gradient(watched, monkeypatch):
    """The mean, over many choices of rows, of what is divided by is that of all rows, and so is that of the noise."""
    engine, runs = watched
    weights = runs["nesterov"][-1].weights
    x, y = rows_of(engine, 1)
    rows = np.stack([flat(gradient_of(weights, x[k : k + 1], y[k : k + 1], "classification")) for k in range(len(x))])
    place = {row: k for k, row in enumerate(engine.problem.split(0, engine.split_number(1)).train)}
    monkeypatch.setattr(terrain, "MOST_ROWS", 40)
    known = engine._lookout.terrain
    ground = terrain.Terrain(known.data, known.model)
    seen = rows[[place[row] for row in ground.rows(1)]]
    noise = seen.var(axis=0, ddof=1).sum()
    square = (seen.mean(axis=0) ** 2).sum() - noise * (1 / 40 - 1 / len(rows))
    assert ground.noise_scale(1, weights) == pytest.approx(noise / square if square > 0 else np.inf, rel=1e-3)
    generator = np.random.default_rng(0)
    some = [rows[generator.choice(len(rows), 40, replace=False)] for _ in range(4000)]
    squares = [(s.mean(axis=0) ** 2).sum() - s.var(axis=0, ddof=1).sum() * (1 / 40 - 1 / len(rows)) for s in some]
    assert np.mean(squares) == pytest.approx((rows.mean(axis=0) ** 2).sum(), rel=0.05)


def test_a_layer_of_zeros_has_a_ratio_all_the_same(regression):
    begun = regression.begin(Entry("sgd", 0.1, 0))
    empty = dataclasses.replace(begun, weights=tuple(np.zeros_like(w) for w in begun.weights), steps=1)
    assert all(ratio == 0 or np.isinf(ratio) for ratio in regression.look_around(empty).update_ratios)
