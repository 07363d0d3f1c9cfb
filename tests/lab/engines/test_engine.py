import dataclasses
import itertools
import math
import threading

import numpy as np
import pytest

import downslope
from downslope.lab.engines.data import batch_order
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.jax_engine import JaxEngine
from downslope.lab.engines.network import Network
from downslope.lab.engines.protocol import DIVERGENCE_FACTOR, Entry
from downslope.lab.engines.schedule import Schedule
from downslope.lab.problems.columns import Columns
from downslope.lab.problems.problem import Problem
from heard import heard_rightly

RULES = [downslope.sgd, downslope.momentum, downslope.nesterov, downslope.adagrad, downslope.rmsprop, downslope.adam]


def small_problem(task="classification", *, rows=70, epochs=3, batch_size=16, hidden=(6, 5), kind="ready"):
    rng = np.random.default_rng(7)
    in_all = -(-rows * 4 // 3) + 33
    x = rng.standard_normal((in_all, 4)).astype(np.float32)
    if task == "regression":
        targets = Columns((x[:, :1] * 2 - x[:, 1:2] ** 2).astype(np.float32), ("t",), (kind,))
    else:
        targets = (x[:, 0] > x[:, 1]).astype(np.int32) + (x[:, 2] > 0).astype(np.int32)
    return Problem(
        name="small",
        title="Small",
        task=task,
        columns=Columns(x, tuple("pqrs"), (kind,) * 4),
        targets=targets,
        test_rows=np.arange(33, dtype=np.int32),
        hidden=hidden,
        outputs=3 if task == "classification" else 1,
        activation="relu",
        batch_size=batch_size,
        epochs=epochs,
        data_hash="",
        classes=("a", "b", "c") if task == "classification" else None,
        features=("p", "q", "r", "s"),
    )


def engine_for(problem, rules, hyperparameters=None, **settings):
    given = hyperparameters or {}
    entrants = {rule.name: Entrant.of(rule.name, rule, given.get(rule.name, {})) for rule in rules}
    return JaxEngine(problem, entrants, **settings)


def train(engine, entries):
    return {
        (run.rule, run.lr, run.seed): run
        for progress in heard_rightly(engine.train(entries))
        for run in progress.finished
    }


# ---- a training loop of its own, in double precision: backpropagation and formulas by hand


def forward(weights, x):
    inputs = []
    for k in range(0, len(weights), 2):
        inputs.append(x)
        z = x @ weights[k].T + weights[k + 1]
        x = np.maximum(z, 0) if k < len(weights) - 2 else z
    return inputs, x


def loss_of(weights, x, y, task):
    z = forward(weights, x)[1]
    if task == "regression":
        return np.mean((z - y) ** 2)
    z = z - z.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y])


def gradient_of(weights, x, y, task):
    inputs, z = forward(weights, x)
    if task == "regression":
        dz = 2 * (z - y) / len(y)
    else:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        dz = p / p.sum(axis=1, keepdims=True)
        dz[np.arange(len(y)), y] -= 1
        dz /= len(y)
    gradient = []
    for k in range(len(weights) - 2, -1, -2):
        gradient[:0] = [dz.T @ inputs[k // 2], dz.sum(axis=0)]
        dz = (dz @ weights[k]) * (inputs[k // 2] > 0)
    return gradient


def update_by_hand(rule, x, dx, state, t, lr):
    if rule == "sgd":
        return x - lr * dx
    if rule in ("momentum", "nesterov"):
        state["v"] = 0.9 * state.get("v", 0) - lr * dx
        return x + state["v"]
    if rule == "adagrad":
        state["cache"] = state.get("cache", 0) + dx**2
        return x - lr * dx / (np.sqrt(state["cache"]) + downslope.adagrad.hyperparameters["eps"])
    decay, eps = (downslope.rmsprop.hyperparameters[name] for name in ("decay_rate", "eps"))
    if rule == "rmsprop":
        state["cache"] = decay * state.get("cache", 0) + (1 - decay) * dx**2
        return x - lr * dx / (np.sqrt(state["cache"]) + eps)
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * dx
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * dx**2
    return x - lr * state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


def train_by_hand(problem, rule, lr, seed, factor=lambda done: 1.0):
    weights = [np.float64(w) for w in Network.of(problem).initial(seed)]
    states = [{} for _ in weights]
    train_rows, valid_rows, test_rows = problem.divided(problem.split(0, seed))
    x, y = np.float64(train_rows.x), train_rows.y
    valid = [loss_of(weights, valid_rows.x, valid_rows.y, problem.task)]
    train = [loss_of(weights, x, y, problem.task)]
    t, steps = 0, problem.epochs * (len(x) // min(problem.batch_size, len(x)))
    for epoch in range(1, problem.epochs + 1):
        losses = []
        for rows in batch_order(seed, epoch, len(x), problem.batch_size):
            t += 1
            point = weights
            if rule == "nesterov":
                point = [w + 0.9 * s.get("v", 0) for w, s in zip(weights, states, strict=True)]
            losses.append(loss_of(point, x[rows], y[rows], problem.task))
            gradient = gradient_of(point, x[rows], y[rows], problem.task)
            weights = [
                update_by_hand(rule, w, dx, s, t, lr * factor((t - 1) / steps))
                for w, dx, s in zip(weights, gradient, states, strict=True)
            ]
        train.append(np.mean(losses))
        valid.append(loss_of(weights, valid_rows.x, valid_rows.y, problem.task))
    accuracy = np.mean(forward(weights, test_rows.x)[1].argmax(axis=1) == test_rows.y)
    return train, valid, loss_of(weights, test_rows.x, test_rows.y, problem.task), accuracy


@pytest.fixture(scope="module")
def engine():
    return engine_for(small_problem(), RULES, lanes=4, threads=2)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_run_follows_a_loop_written_by_hand_in_double_precision(engine, rule):
    lr = {"sgd": 0.1, "momentum": 0.03, "nesterov": 0.03, "adagrad": 0.05}.get(rule, 0.01)
    (run,) = train(engine, [Entry(rule, lr, seed=3, phase="verdict")]).values()
    train_loss, valid_loss, test_loss, test_accuracy = train_by_hand(engine.problem, rule, lr, 3)
    np.testing.assert_allclose(run.train_loss, train_loss, rtol=2e-4)
    np.testing.assert_allclose(run.valid_loss, valid_loss, rtol=2e-4)
    assert run.test_loss == pytest.approx(test_loss, rel=2e-4)
    assert run.test_accuracy == pytest.approx(test_accuracy)
    assert (run.rule, run.lr, run.seed, run.phase) == (rule, lr, 3, "verdict")


def test_a_run_follows_its_schedule_whatever_its_neighbours_have_left():
    engine = engine_for(small_problem(), [downslope.adam], lanes=2, threads=1, schedule=Schedule.of("one-cycle"))
    many = [Entry("adam", lr, 3) for lr in (1e20, 0.02, 0.01)]  # the first diverges and makes place
    found = train(engine, many)
    for entry in many[1:]:
        _, valid_loss, _, _ = train_by_hand(engine.problem, "adam", entry.lr, 3, Schedule.of("one-cycle").factor)
        np.testing.assert_allclose(found["adam", entry.lr, 3].valid_loss, valid_loss, rtol=2e-4)
    engine.shorten(2)
    (run,) = train(engine, many[2:]).values()
    _, valid_loss, _, _ = train_by_hand(engine.problem, "adam", 0.01, 3, Schedule.of("one-cycle").factor)
    np.testing.assert_allclose(run.valid_loss, valid_loss, rtol=2e-4)


@pytest.mark.parametrize(("task", "seed"), [("classification", 3), ("regression", 1007)])
def test_a_run_on_a_split_of_its_own_scales_by_its_own_training_rows(task, seed):
    problem = small_problem(task, kind="number", hidden=(5,))
    engine = engine_for(problem, [downslope.sgd], lanes=4, threads=1)
    entries = [Entry("sgd", 0.05, s, "verdict") for s in (0, 1, seed)]
    run = train(engine, entries)["sgd", 0.05, seed]
    train_loss, valid_loss, test_loss, _ = train_by_hand(problem, "sgd", 0.05, seed)
    np.testing.assert_allclose(run.train_loss, train_loss, rtol=2e-4)
    np.testing.assert_allclose(run.valid_loss, valid_loss, rtol=2e-4)
    assert run.test_loss == pytest.approx(test_loss, rel=2e-4)
    assert train(engine, entries[2:])["sgd", 0.05, seed] == run


def test_gaps_are_filled_by_the_training_rows_of_each_split():
    problem = small_problem("regression", kind="number", hidden=(5,))
    values = problem.columns.values.copy()
    values[np.random.default_rng(0).random(values.shape) < 0.2] = np.nan
    problem = dataclasses.replace(problem, columns=dataclasses.replace(problem.columns, values=values))
    runs = train(engine_for(problem, [downslope.sgd], threads=1), [Entry("sgd", 0.05, seed) for seed in (2, 5)])
    for seed in (2, 5):
        by_hand = train_by_hand(problem, "sgd", 0.05, seed)
        np.testing.assert_allclose(runs["sgd", 0.05, seed].valid_loss, by_hand[1], rtol=2e-4)


def test_one_fixed_split_serves_all_seeds():
    problem = small_problem("regression", hidden=())
    engine = engine_for(problem, [downslope.sgd], threads=1, varied=False, split_seed=4)
    assert [engine.split_number(seed) for seed in (0, 7, 1003)] == [0, 0, 0]
    run = train(engine, [Entry("sgd", 0.05, 7)])["sgd", 0.05, 7]
    weights = [np.float64(w) for w in Network.of(problem).initial(7)]
    _, valid, _ = problem.divided(problem.split(4, 0))
    assert run.valid_loss[0] == pytest.approx(loss_of(weights, valid.x, valid.y, "regression"), rel=1e-5)


def test_a_network_without_a_finite_loss_has_diverged_before_the_first_step():
    problem = small_problem("regression", epochs=4)
    values = problem.columns.values.copy()
    values[problem.split(0, 0).valid[0], 1] = 1e30
    problem = dataclasses.replace(problem, columns=dataclasses.replace(problem.columns, values=values))
    reports = list(engine_for(problem, [downslope.sgd], threads=1).train([Entry("sgd", 0.1, 0, "verdict")]))
    ((run,),) = [report.finished for report in reports]
    assert run.diverged_at == 0
    assert run.train_loss == run.valid_loss == (math.inf,) * 5
    assert (run.final_loss, run.best_loss, run.test_loss) == (math.inf,) * 3
    assert sum(report.epochs for report in reports) == 0
    assert sum(report.skipped for report in reports) == 4


def test_regression_follows_the_loop_by_hand_and_has_no_accuracy():
    problem = small_problem("regression", hidden=(5,))
    engine = engine_for(problem, [downslope.nesterov], threads=1)
    (run,) = train(engine, [Entry("nesterov", 0.02, 0, "verdict")]).values()
    train_loss, valid_loss, test_loss, _ = train_by_hand(problem, "nesterov", 0.02, 0)
    np.testing.assert_allclose(run.train_loss, train_loss, rtol=2e-4)
    np.testing.assert_allclose(run.valid_loss, valid_loss, rtol=2e-4)
    assert run.test_loss == pytest.approx(test_loss, rel=2e-4)
    assert run.valid_accuracy is None
    assert run.test_accuracy is None


def test_a_run_is_bitwise_the_same_whatever_its_lane_and_its_neighbours(engine):
    entry = Entry("adam", 0.01, 5)
    alone = train(engine, [entry])["adam", 0.01, 5]
    others = [Entry("adam", 10.0**-k, seed) for k in range(1, 4) for seed in range(3)]
    crowd = [*others, *(Entry("rmsprop", 1e6, s) for s in range(5)), entry, Entry("adam", 1e9, 9)]
    assert train(engine, crowd)["adam", 0.01, 5] == alone
    for place in range(4):
        assert train(engine, [*others[:place], entry])["adam", 0.01, 5] == alone


def test_the_number_of_lanes_and_threads_does_not_matter(engine):
    entries = [Entry("momentum", 0.03, seed) for seed in range(3)]
    expected = train(engine, entries)
    other = train(engine_for(engine.problem, [downslope.momentum], lanes=7, threads=1), entries)
    for key, run in expected.items():
        np.testing.assert_allclose(other[key].valid_loss, run.valid_loss, rtol=1e-6)


def test_more_runs_than_lanes_are_all_trained_and_the_same_when_asked_again(engine):
    entries = [Entry(rule, lr, seed) for rule in ("sgd", "adam") for lr in (0.1, 0.01, 0.001) for seed in range(4)]
    first = train(engine, entries)
    assert set(first) == {(entry.rule, entry.lr, entry.seed) for entry in entries}
    assert train(engine, entries[::-1]) == first


def test_all_rules_start_from_the_same_network_on_the_same_seed(engine):
    runs = train(engine, [Entry(rule.name, 0.01, seed) for rule in RULES for seed in (0, 1)])
    starts = {(run.seed, run.train_loss[0], run.valid_loss[0], run.valid_accuracy[0]) for run in runs.values()}
    assert len(starts) == 2


def test_progress_accounts_for_every_epoch(engine):
    entries = [Entry("sgd", 0.01, s) for s in range(5)] + [Entry("sgd", 1e30, 0)]
    reports = list(engine.train(entries))
    assert sum(report.epochs + report.skipped for report in reports) == len(entries) * engine.problem.epochs
    assert sum(len(report.finished) for report in reports) == len(entries)
    assert engine.seconds["sgd"] > 0


def test_divergence_is_infinite_from_its_epoch_on_and_ends_the_run():
    problem = small_problem(epochs=6)
    engine = engine_for(problem, [downslope.sgd], lanes=4, threads=1)
    reports = list(engine.train([Entry("sgd", 1e30, 0, "verdict"), Entry("sgd", 0.05, 0, "verdict")]))
    runs = {run.lr: run for report in reports for run in report.finished}
    lost = runs[1e30]
    assert lost.diverged_at == 1
    assert lost.final_loss == math.inf
    assert len(lost.valid_loss) == len(lost.train_loss) == len(lost.valid_accuracy) == problem.epochs + 1
    assert math.isfinite(lost.train_loss[0])
    assert lost.train_loss[1:] == lost.valid_loss[1:] == (math.inf,) * problem.epochs
    assert lost.valid_accuracy[1:] == (0.0,) * problem.epochs
    assert (lost.test_loss, lost.test_accuracy) == (math.inf, 0.0)
    assert runs[0.05].diverged_at is None
    assert sum(report.skipped for report in reports) == problem.epochs - 1


def test_a_loss_that_has_run_away_is_divergence_before_it_overflows():
    problem = small_problem("regression", epochs=4, hidden=())
    limit = np.linalg.eigvalsh(problem.train.x.T @ problem.train.x / len(problem.train.x)).max()
    engine = engine_for(problem, [downslope.sgd], threads=1)
    (run,) = train(engine, [Entry("sgd", 10 / limit, 0)]).values()
    by_hand = np.array(train_by_hand(problem, "sgd", 10 / limit, 0)[1])
    assert np.isfinite(np.float32(by_hand[1:3])).all()  # nothing has overflowed yet
    assert run.diverged_at == 1 + int(np.argmax(by_hand[1:] > DIVERGENCE_FACTOR * by_hand[0]))


def test_only_the_verdict_sees_the_test_data(engine):
    (run,) = train(engine, [Entry("sgd", 0.1, 0, "tuning")]).values()
    assert run.test_loss is None
    assert run.test_accuracy is None


def test_stopping_early_keeps_what_was_reported_and_leaves_the_engine_usable(engine):
    entries = [Entry("sgd", 0.1, seed) for seed in range(30)]
    reports = engine.train(entries)
    kept = [run for _ in range(2 * engine.problem.epochs) for run in next(reports).finished]  # of two heats
    reports.close()
    assert 0 < len(kept) < len(entries)
    again = train(engine, [Entry("sgd", 0.1, run.seed) for run in kept])
    assert all(again["sgd", 0.1, run.seed] == run for run in kept)


def test_a_rule_with_a_scalar_state_and_a_state_that_starts_at_the_weights():
    @downslope.rule
    def averaged(x, dx, mean="x", weight=downslope.scalar(0.0), *, t, lr):
        weight = weight + 1 / t
        step = x - lr * dx
        return step, mean + (step - mean) / weight, weight

    problem = small_problem(epochs=2)
    plain = train(engine_for(problem, [downslope.sgd], threads=1), [Entry("sgd", 0.1, 0)])["sgd", 0.1, 0]
    run = train(engine_for(problem, [averaged], threads=1), [Entry("averaged", 0.1, 0)])["averaged", 0.1, 0]
    np.testing.assert_allclose(run.valid_loss, plain.valid_loss, rtol=1e-6)


def test_a_state_may_start_from_the_learning_rate_of_its_run():
    @downslope.rule
    def settling(x, dx, size="lr", *, lr):
        return x - size * dx, size

    problem = small_problem(epochs=2)
    entries = [("sgd", 0.1), ("sgd", 0.3)]
    plain = train(engine_for(problem, [downslope.sgd], threads=1), [Entry(name, lr, 0) for name, lr in entries])
    runs = train(engine_for(problem, [settling], threads=1), [Entry("settling", lr, 0) for _, lr in entries])
    for name, lr in entries:
        np.testing.assert_allclose(runs["settling", lr, 0].valid_loss, plain[name, lr, 0].valid_loss, rtol=1e-6)


def test_hyperparameters_and_flags_reach_the_rule():
    problem = small_problem(epochs=2)
    settings = {"momentum": {"mu": 0.0}}
    heavy = engine_for(problem, [downslope.momentum, downslope.sgd], hyperparameters=settings, threads=1)
    runs = train(heavy, [Entry("momentum", 0.1, 0), Entry("sgd", 0.1, 0)])
    np.testing.assert_allclose(runs["momentum", 0.1, 0].valid_loss, runs["sgd", 0.1, 0].valid_loss, rtol=1e-6)
    adam = [
        engine_for(problem, [downslope.adam], hyperparameters={"adam": {"bias_correction": flag}}, threads=1)
        for flag in (True, False)
    ]
    with_it, without = (train(engine, [Entry("adam", 0.01, 0)])["adam", 0.01, 0] for engine in adam)
    assert with_it.valid_loss[0] == without.valid_loss[0]
    assert with_it.valid_loss[1] != without.valid_loss[1]


def test_a_batch_larger_than_the_data_is_one_batch_of_all_rows():
    assert batch_order(0, 1, rows=5, batch_size=8).shape == (1, 5)
    problem = small_problem("regression", rows=9, batch_size=64, epochs=2)
    (run,) = train(engine_for(problem, [downslope.sgd], threads=1), [Entry("sgd", 0.1, 0)]).values()
    np.testing.assert_allclose(run.valid_loss, train_by_hand(problem, "sgd", 0.1, 0)[1], rtol=2e-4)


def test_batches_of_an_epoch_do_not_overlap_and_differ_between_epochs_and_seeds():
    order = batch_order(4, 1, rows=70, batch_size=16)
    assert order.shape == (4, 16)
    assert len(np.unique(order)) == order.size
    np.testing.assert_array_equal(order, batch_order(4, 1, rows=70, batch_size=16))
    assert not np.array_equal(order, batch_order(4, 2, rows=70, batch_size=16))
    assert not np.array_equal(order, batch_order(5, 1, rows=70, batch_size=16))


def test_what_cannot_be_trained_is_refused_by_name(engine):
    problem = engine.problem
    with pytest.raises(ValueError, match="lion"):
        next(engine.train([Entry("lion", 0.1, 0)]))
    with pytest.raises(ValueError, match="learning rate"):
        next(engine.train([Entry("sgd", -0.1, 0)]))
    with pytest.raises(ValueError, match=r"hyperparameters of adam: .*beta3"):
        engine_for(problem, [downslope.adam], {"adam": {"beta3": 0.1}})


def test_a_failure_inside_a_heat_reaches_the_caller(engine):
    broken = engine_for(dataclasses.replace(engine.problem, features=("p", "q")), [downslope.sgd], threads=2)
    with pytest.raises(TypeError, match="dot_general"):
        list(broken.train([Entry("sgd", 0.1, 0)]))


def test_ctrl_c_while_a_heat_starts_leaves_none_at_work(monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    engine = engine_for(small_problem(epochs=200), [downslope.adam])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(engine, [Entry("adam", 0.01, seed) for seed in range(40)])
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("heat-")] == []


# ---- runs that are observed


def observe(engine, entries):
    """The runs, and the snapshots of each that is observed, in the order in which they were reported."""
    reports = list(engine.train(entries))
    snapshots = {}
    for snapshot in (one for report in reports for one in report.snapshots):
        snapshots.setdefault((snapshot.entry.rule, snapshot.entry.lr, snapshot.entry.seed), []).append(snapshot)
    return {(run.rule, run.lr, run.seed): run for report in reports for run in report.finished}, snapshots


def test_a_run_that_is_observed_is_the_same_and_its_snapshots_have_the_losses_of_its_curve(engine):
    entries = [Entry(rule, 0.03, seed, "verdict") for rule in ("nesterov", "adam") for seed in range(6)]
    expected = train(engine, entries)
    observed = [dataclasses.replace(entry, observed=entry.seed in (1, 5)) for entry in entries]
    runs, snapshots = observe(engine, observed)
    assert runs == expected
    assert snapshots.keys() == {(entry.rule, 0.03, entry.seed) for entry in observed if entry.observed}
    steps = engine.description.steps_per_epoch
    for key, walk in snapshots.items():
        assert [(one.epoch, one.steps) for one in walk] == [(epoch, epoch * steps) for epoch in range(4)]
        _, valid, _ = engine.problem.divided(engine.problem.split(0, key[2]))
        losses = [loss_of([np.float64(w) for w in one.weights], valid.x, valid.y, "classification") for one in walk]
        np.testing.assert_allclose(losses, runs[key].valid_loss, rtol=1e-5)
        for start, w in zip(walk[0].weights, Network.of(engine.problem).initial(key[2]), strict=True):
            np.testing.assert_array_equal(start, w)


def test_a_snapshot_has_the_states_that_led_to_its_weights():
    @downslope.rule
    def counted(x, dx, v=0.0, count=downslope.scalar(2.0), *, lr):
        v = 0.9 * v - lr * dx
        return x + v, v, count + 3

    problem = small_problem("regression", rows=9, batch_size=64, epochs=3)  # an epoch is one step
    _, snapshots = observe(engine_for(problem, [counted], threads=1), [Entry("counted", 0.01, 4, observed=True)])
    (walk,) = snapshots.values()
    assert [one.scalars for one in walk] == [{"count": 2.0 + 3 * step} for step in range(4)]
    assert [state.max() for state in walk[0].states["v"]] == [0.0] * len(walk[0].weights)
    for before, after in itertools.pairwise(walk):
        for x, new, v in zip(before.weights, after.weights, after.states["v"], strict=True):
            np.testing.assert_allclose(new - x, v, atol=1e-6)
            assert v.any()


def test_the_last_snapshot_of_a_run_that_diverged_is_of_the_epoch_in_which_it_did():
    problem = small_problem("regression", epochs=6)
    engine = engine_for(problem, [downslope.sgd], lanes=2, threads=1)
    runs, snapshots = observe(engine, [Entry("sgd", lr, 0, observed=True) for lr in (1e30, 0.001, 1e20)])
    assert [runs["sgd", lr, 0].diverged_at for lr in (1e30, 0.001, 1e20)] == [1, None, 1]
    found = {lr: [one.epoch for one in snapshots["sgd", lr, 0]] for lr in (1e30, 0.001, 1e20)}
    assert found == {1e30: [0, 1], 0.001: list(range(7)), 1e20: [0, 1]}

    values = problem.columns.values.copy()
    values[problem.split(0, 0).valid[0], 1] = 1e30
    lost = dataclasses.replace(problem, columns=dataclasses.replace(problem.columns, values=values))
    runs, snapshots = observe(engine_for(lost, [downslope.sgd], threads=1), [Entry("sgd", 0.1, 0, observed=True)])
    assert runs["sgd", 0.1, 0].diverged_at == 0
    assert [one.epoch for one in snapshots["sgd", 0.1, 0]] == [0]
