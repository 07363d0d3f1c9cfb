import dataclasses
import itertools
import math

import numpy as np
import pytest

import downslope
from downslope.lab import Problem, race
from downslope.lab.engines.protocol import Progress
from downslope.lab.races import plane
from downslope.lab.races.plane import NUMBERS, POINTS, STOPS, Trails
from race_fixture import make_race, snapshots_of, walks_of


def runs_of(*rules, seeds=2, epochs=6):
    return [run for result in make_race(rules, verdict_seeds=seeds, epochs=epochs).rules for run in result.verdict]


def moves_of(run, weights=40):
    """The displacements from the start after each epoch that the run has a loss for, one row each."""
    shown = itertools.takewhile(lambda one: math.isfinite(run.valid_loss[one.epoch]), snapshots_of(run, weights))
    points = np.array([np.concatenate(one.weights) for one in shown], np.float64)
    return points[1:] - points[0]


def test_a_plane_is_that_of_the_singular_value_decomposition_with_every_run_counting_alike():
    runs = runs_of("sgd", "momentum", "adam")
    found = walks_of(runs, 3, 2, 6)
    assert (found.epochs, found.error) == (tuple(range(7)), 0.0)
    for one in found.planes:
        moves = {run.rule: moves_of(run) for run in runs if run.seed == one.seed}
        rows = np.concatenate([move / np.linalg.norm(move) for move in moves.values()])
        _, values, directions = np.linalg.svd(rows)
        assert one.shown == pytest.approx(values[:2] ** 2 / 3, rel=1e-3)
        assert [walk.rule for walk in one.walks] == ["sgd", "momentum", "adam"]
        signs = np.sign(moves["sgd"].sum(axis=0) @ directions[:2].T) * (1, 1)
        for walk in one.walks:
            move = moves[walk.rule]
            places = move @ directions[:2].T * signs
            assert (walk.x[0], walk.y[0]) == (0.0, 0.0)
            np.testing.assert_allclose(walk.x[1:], places[:, 0], atol=1e-3 * np.abs(places).max())
            np.testing.assert_allclose(walk.y[1:], places[:, 1], atol=1e-3 * np.abs(places).max())
            assert walk.distance == pytest.approx(np.linalg.norm(move[-1]), rel=1e-3)
            steps = np.diff(move, axis=0, prepend=np.zeros((1, 40)))
            assert walk.length == pytest.approx(np.linalg.norm(steps, axis=1).sum(), rel=1e-3)
            assert walk.shown == pytest.approx((places**2).sum() / (move**2).sum(), rel=1e-3)
        assert sum(one.shown) == pytest.approx(np.mean([walk.shown for walk in one.walks]), rel=1e-3)


def test_a_run_that_went_far_does_not_hide_where_the_others_went():
    runs = runs_of("sgd", "momentum", "adam", seeds=1)
    trails = Trails(3, [100], 6, 40)
    for run in runs:
        for snapshot in snapshots_of(run, 40):
            far = 1000 if run.rule == "adam" else 1
            trails.add(dataclasses.replace(snapshot, weights=tuple(far * w for w in snapshot.weights)))
    ((one,),) = (found.planes for found in [trails.walks(runs)])
    near = {walk.rule: walk.shown for walk in walks_of(runs, 3, 1, 6).planes[0].walks}
    assert {walk.rule: walk.shown for walk in one.walks} == pytest.approx(near, rel=1e-2)


def test_two_weights_are_seen_as_they_are():
    (one,) = walks_of(runs_of("sgd", "adam", seeds=1), 2, 1, 6, weights=2).planes
    assert sum(one.shown) == pytest.approx(1.0, abs=1e-3)
    for walk in one.walks:
        assert math.hypot(walk.x[-1], walk.y[-1]) == pytest.approx(walk.distance, rel=1e-3)
        assert walk.shown == 1.0


def test_a_walk_ends_before_its_run_diverged():
    runs = runs_of("sgd", "momentum", "adam", seeds=1)
    when = {"sgd": 1, "momentum": 4}
    for place, run in enumerate(runs):
        if lost := when.get(run.rule):
            runs[place] = dataclasses.replace(
                run, diverged_at=lost, valid_loss=run.valid_loss[:lost] + (math.inf,) * (7 - lost)
            )
    (one,) = walks_of(runs, 3, 1, 6).planes
    assert {walk.rule: len(walk.x) for walk in one.walks} == {"sgd": 1, "momentum": 4, "adam": 7}
    lost = one.walks[0]
    assert (lost.x, lost.y, lost.distance, lost.length, lost.shown) == ((0.0,), (0.0,), 0.0, 0.0, None)
    assert sum(one.shown) == pytest.approx(np.mean([walk.shown for walk in one.walks[1:]]), rel=1e-3)


def test_one_step_of_one_rule_is_a_line():
    (one,) = walks_of(runs_of("adam", seeds=1, epochs=1), 1, 1, 1).planes
    assert one.shown == (1.0, 0.0)
    assert one.walks[0].x == (0.0, one.walks[0].distance)
    assert one.walks[0].y == (0.0, 0.0)


def test_where_nothing_moved_there_is_no_plane():
    runs = runs_of("sgd", "adam", seeds=2)
    trails = Trails(2, [100, 101], 6, 40)
    for run in runs:
        first, *rest = snapshots_of(run, 40)
        for snapshot in (first, *rest):
            still = run.seed == 100 or run.rule == "sgd"
            trails.add(dataclasses.replace(snapshot, weights=first.weights) if still else snapshot)
    (one,) = trails.walks(runs).planes
    assert one.seed == 101
    still = one.walks[0]
    assert (still.rule, still.shown, set(still.x), len(still.x)) == ("sgd", None, {0.0}, 7)
    assert trails.walks([run for run in runs if run.seed == 100]) is None
    assert trails.walks([]) is None


@pytest.mark.parametrize(
    ("rules", "seeds", "epochs"), [(1, 1, 1), (6, 10, 30), (17, 10, 30), (6, 10, 5000), (300, 4, 41)]
)
def test_however_long_a_race_few_points_are_kept(rules, seeds, epochs):
    trails = Trails(rules, range(seeds), epochs, 100)
    assert (trails.epochs[0], trails.epochs[-1]) == (0, epochs)
    assert len(trails.epochs) <= STOPS + 1
    assert epochs > STOPS or trails.epochs == tuple(range(epochs + 1))
    assert list(trails.seeds) == list(range(len(trails.seeds)))
    assert len(trails.seeds) >= 1
    points = rules * len(trails.seeds) * len(trails.epochs)
    assert points <= POINTS or len(trails.seeds) == 1
    assert len(trails.seeds) == seeds or points + rules * len(trails.epochs) > POINTS


def test_of_many_weights_sums_are_kept_whose_distances_are_right_within_the_error_that_is_told(monkeypatch):
    runs = runs_of("sgd", "momentum", "adam", seeds=4)
    exact = walks_of(runs, 3, 4, 6, weights=5_000)
    assert exact.error == 0.0
    monkeypatch.setattr(plane, "NUMBERS", 3 * 4 * 7 * 800)
    brief = walks_of(runs, 3, 4, 6, weights=5_000)
    assert brief.error == pytest.approx(1 / math.sqrt(2 * 800))
    ratios = [
        ours.distance / true.distance
        for one, other in zip(brief.planes, exact.planes, strict=True)
        for ours, true in zip(one.walks, other.walks, strict=True)
    ]
    assert 0 < np.std(ratios) < 2 * brief.error
    assert np.mean(ratios) == pytest.approx(1, abs=brief.error)
    for one, other in zip(brief.planes, exact.planes, strict=True):
        assert one.shown == pytest.approx(other.shown, abs=3 * brief.error)


def test_digits_and_what_is_much_larger_fit_into_memory():
    assert NUMBERS * 4 <= 2**27
    assert Trails(6, range(10), 30, 4810).walks([]) is None
    trails = Trails(6, range(10), 30, 3_000_000)
    size = 6 * len(trails.seeds) * len(trails.epochs)
    weights = (np.ones(3_000_000, np.float32),)
    run = runs_of("sgd", seeds=1)[0]
    snapshot = dataclasses.replace(next(snapshots_of(run, 40)), weights=weights)
    trails.add(snapshot)
    trails.add(dataclasses.replace(snapshot, epoch=1, weights=(2 * weights[0],)))
    ((kept,),) = trails._moves.values()
    assert kept.nbytes * size <= 2**27
    assert np.linalg.norm(kept) == pytest.approx(math.sqrt(3_000_000), rel=0.05)


def linear_problem():
    """A line through one feature: two weights, so that a walk has its true length on the plane."""
    from downslope.lab.problems.columns import Columns

    rng = np.random.default_rng(3)
    x = rng.standard_normal((80, 1)).astype(np.float32)
    return Problem(
        name="line",
        title="Line",
        task="regression",
        columns=Columns(x, ("x",), ("ready",)),
        targets=Columns(2 * x + 1, ("y",), ("ready",)),
        test_rows=np.arange(16, dtype=np.int32),
        hidden=(),
        outputs=1,
        activation="relu",
        batch_size=64,
        epochs=3,
        data_hash="",
        classes=None,
        features=("x",),
    )


def test_a_race_records_the_runs_of_its_verdict_and_an_interrupted_one_those_that_ended():
    def stop(report):
        if isinstance(report, Progress) and any(run.phase == "verdict" for run in report.finished):
            raise KeyboardInterrupt

    quick = {"learning_rates": [0.05, 0.2], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}
    found = race(linear_problem(), [downslope.adam, downslope.sgd], watch=stop, threads=1, **quick)
    assert found.interrupted
    ended = {(result.rule, run.seed) for result in found.rules for run in result.verdict}
    assert {(walk.rule, one.seed) for one in found.walks.planes for walk in one.walks} == ended
    assert ended == {("adam", 1000), ("adam", 1001)}
    for one in found.walks.planes:
        # The first epoch is one step, and Adam's first step is the learning rate for each of the two weights.
        length = math.hypot(one.walks[0].x[1], one.walks[0].y[1])
        assert length == pytest.approx(found.rules[0].best_lr * math.sqrt(2), rel=1e-3)
