"""Models of one's own in training: the very numbers of a loop of the framework, and the factories that are refused."""

import copy
import functools
import hashlib
import itertools
import math
import re
import time

import numpy as np
import pytest
import torch
from torch import nn

import downslope
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.learner import Stacking
from downslope.lab.engines.model_engine import ModelEngine, examples_for
from downslope.lab.engines.order import batch_order
from downslope.lab.engines.protocol import Entry
from downslope.lab.engines.schedule import Schedule
from downslope.lab.problems.builtin import load_problem
from heard import heard_rightly

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4)).astype(np.float32)
CLASSES = (X[:, 0] > 0).astype(int)
AMOUNTS = X @ RANDOM.normal(size=(4, 1)).astype(np.float32)
NAMES = ("sgd", "nesterov", "adam")
ENTRANTS = {name: Entrant.of(name, getattr(downslope, name), {}) for name in NAMES}


def mlp(seed):
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def restless(seed):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def half_silent(seed):
    """Half of its ReLUs are given nothing but zeros: by their slope there the weights below stay as they are."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[4:], model[0].bias[4:] = 0, 0
    return model


def engine_of(make, data=(X, CLASSES), loss=None, epochs=3, batch_size=16, **options):
    examples = examples_for(data, loss, epochs=epochs, batch_size=batch_size)
    return ModelEngine(make, examples, ENTRANTS, loss=loss, **options)


def loop(make, data, criterion, kind, seed, epochs=3, batch_size=16, cosine=False, **settings):
    """Validation losses, mean training losses and the loss on the test rows, of a loop as a user would write it."""
    examples = examples_for(data, None, batch_size=batch_size)
    x, y = (torch.from_numpy(array) for array in examples.prepared(None))
    train, valid, test = (torch.from_numpy(rows).long() for rows in examples.split(0, seed))
    torch.manual_seed(seed)
    model = make(seed)
    optimizer = kind(model.parameters(), **settings)
    steps = epochs * (len(train) // batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if cosine else None

    def loss_on(rows):
        model.eval()
        with torch.no_grad():
            return criterion(model(x[rows]), y[rows]).item()

    losses, means = [loss_on(valid)], [loss_on(train)]
    for epoch in range(1, epochs + 1):
        model.train()
        seen = []
        for rows in train[torch.from_numpy(batch_order(seed, epoch, len(train), batch_size)).long()]:
            optimizer.zero_grad()
            loss = criterion(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            if cosine:
                scheduler.step()
            seen.append(loss.item())
        losses.append(loss_on(valid))
        means.append(np.mean(seen))
    return losses, means, loss_on(test)


@pytest.mark.parametrize(
    ("make", "rule", "kind", "schedule"),
    [
        (mlp, "sgd", torch.optim.SGD, "cosine"),
        (restless, "sgd", torch.optim.SGD, "constant"),
        (half_silent, "sgd", torch.optim.SGD, "constant"),
        (mlp, "adam", torch.optim.Adam, "constant"),
    ],
)
def test_a_run_is_a_loop_of_pytorch(make, rule, kind, schedule):
    (run,) = finished(engine_of(make, schedule=Schedule.of(schedule)), Entry(rule, 0.05, 7, "verdict"))
    cosine = schedule == "cosine"
    losses, means, test = loop(make, (X, CLASSES), nn.functional.cross_entropy, kind, 7, cosine=cosine, lr=0.05)
    assert run.valid_loss == pytest.approx(losses, rel=1e-6)
    assert run.train_loss == pytest.approx(means, rel=1e-6)
    assert run.test_loss == pytest.approx(test, rel=1e-6)
    assert run.valid_accuracy[-1] > 0.7


def test_the_mean_squared_error_of_amounts_and_of_a_loss_of_ones_own_are_one():
    plain = engine_of(lambda seed: nn.Linear(4, 1), (X, AMOUNTS[:, 0]))
    own = engine_of(
        lambda seed: nn.Linear(4, 1), (X, AMOUNTS), loss=lambda outputs, targets: ((outputs - targets) ** 2).mean()
    )
    entry = Entry("sgd", 0.1, 3)
    run, again = plain.run(entry), own.run(entry)
    assert run.valid_loss == pytest.approx(again.valid_loss, rel=1e-6)
    assert (run.valid_accuracy, run.test_loss) == (None, None)
    losses, _, _ = loop(lambda seed: nn.Linear(4, 1), (X, AMOUNTS), nn.functional.mse_loss, torch.optim.SGD, 3, lr=0.1)
    assert run.valid_loss == pytest.approx(losses, rel=1e-6)


def test_a_rule_with_a_look_ahead_is_judged_at_the_weights_themselves():
    run = engine_of(mlp).run(Entry("nesterov", 0.05, 5))
    model_at = {}

    def watched(seed):
        model_at["model"] = mlp(seed)
        return model_at["model"]

    engine = engine_of(watched)
    (snapshot, *_, last) = [s for p in engine.train([Entry("nesterov", 0.05, 5, observed=True)]) for s in p.snapshots]
    assert snapshot.epoch == 0
    held = mlp(0)
    with torch.no_grad():
        for parameter, value in zip(held.parameters(), last.weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
        valid = engine.examples.split(0, 5).valid
        loss = nn.functional.cross_entropy(held(torch.from_numpy(X[valid])), torch.from_numpy(CLASSES[valid]))
        there = nn.functional.cross_entropy(
            model_at["model"](torch.from_numpy(X[valid])), torch.from_numpy(CLASSES[valid])
        )
    assert run.final_loss == pytest.approx(loss.item(), rel=1e-6)
    assert abs(there.item() / loss.item() - 1) > 1e-4  # where the gradient is taken is elsewhere


def finished(engine, *entries):
    return [run for progress in heard_rightly(engine.train(entries)) for run in progress.finished]


def test_a_run_is_the_same_alone_and_among_others_observed_or_not():
    engine = engine_of(restless)
    assert engine.stacking.lanes == 1
    among = finished(engine, Entry("adam", 0.01, 1), Entry("sgd", 100.0, 2), Entry("adam", 0.01, 3, observed=True))
    assert among[2] == engine_of(restless).run(Entry("adam", 0.01, 3))
    assert among[0].valid_loss != among[2].valid_loss


def test_what_the_watcher_draws_between_epochs_changes_nothing():
    def drawing(entry):
        for progress in engine_of(restless).train([entry]):
            torch.rand(3), np.random.rand()  # noqa: NPY002
            yield from progress.finished

    state = torch.get_rng_state()
    (run,) = drawing(Entry("sgd", 0.1, 4))
    torch.set_rng_state(state)
    assert run == engine_of(restless).run(Entry("sgd", 0.1, 4))
    assert torch.equal(torch.get_rng_state(), state)


def test_tables_are_scaled_by_the_training_rows_of_the_split():
    problem = load_problem("diabetes")
    engine = ModelEngine(lambda seed: nn.Linear(10, 1), problem, ENTRANTS)
    train, valid, _ = problem.divided(problem.split(0, 9))
    torch.manual_seed(9)
    model = nn.Linear(10, 1)
    start = nn.functional.mse_loss(model(torch.from_numpy(valid.x)), torch.from_numpy(valid.y)).item()
    begun = nn.functional.mse_loss(model(torch.from_numpy(train.x)), torch.from_numpy(train.y)).item()
    run = engine.run(Entry("sgd", 1e-3, 9))
    assert (run.valid_loss[0], run.train_loss[0]) == pytest.approx((start, begun), rel=1e-6)


def test_divergence_is_infinite_and_ends_a_run():
    progress = list(engine_of(mlp, epochs=6).train([Entry("sgd", 1e12, 0, "verdict")]))
    run = progress[-1].finished[0]
    assert run.diverged_at == 1
    assert run.valid_loss[1:] == (math.inf,) * 6
    assert (run.test_loss, run.test_accuracy) == (math.inf, 0.0)
    assert sum(p.epochs for p in progress) + sum(p.skipped for p in progress) == 6


def test_what_a_run_raises_is_its_cause_and_the_others_go_on(capsys):
    class Fragile(nn.Linear):
        def forward(self, x):
            if self.training and self.weight.abs().max() > 3:
                print("close to the end")
                raise MemoryError("all gone")
            return super().forward(x)

    engine = engine_of(lambda seed: Fragile(4, 2))
    lost, kept = finished(engine, Entry("sgd", 80.0, 0, "verdict"), Entry("sgd", 0.1, 0))
    assert lost.cause == "MemoryError: all gone (it printed last: close to the end)"
    assert (lost.diverged_at, lost.final_loss, lost.test_loss) == (1, math.inf, math.inf)
    assert (kept.cause, kept.diverged_at) == ("", None)
    assert capsys.readouterr().out == ""


def test_a_model_of_other_shapes_than_the_first_is_the_cause_of_its_run():
    engine = engine_of(lambda seed: nn.Linear(4, 2, bias=seed != 5))
    kept, lost, last = finished(engine, *(Entry("sgd", 0.1, seed, "verdict") for seed in (4, 5, 6)))
    assert re.search(r"of different shapes, bias of \(2,\) and then of none for the seed 5; all runs", lost.cause)
    assert (lost.final_loss, lost.test_loss) == (math.inf, math.inf)
    assert (kept.cause, last.cause) == ("", "")


def test_a_run_that_takes_too_long_is_stopped():
    class Slow(nn.Linear):
        def forward(self, x):
            while self.training and self.weight.abs().max() > 3:
                pass
            return super().forward(x)

    run = engine_of(lambda seed: Slow(4, 2), limit=0.3).run(Entry("sgd", 80.0, 0))
    assert run.cause == "took longer than its limit of 0.3 seconds"


@pytest.mark.parametrize(
    ("rule", "data"), [("sgd", "diabetes"), ("nesterov", (X, CLASSES)), ("adam", (X, CLASSES))], ids=NAMES
)
def test_runs_that_are_stacked_are_those_that_are_trained_alone(rule, data):
    def make(seed):
        model = nn.Sequential(nn.Linear(10 if table else 4, 8), nn.Tanh(), nn.Linear(8, 1 if table else 2))
        model[0].bias.requires_grad_(False)  # what is not trained differs from seed to seed too
        return model

    table = rule == "sgd"
    engine = engine_of(make, data, batch_size=16, schedule=Schedule.of("one-cycle" if rule == "adam" else "constant"))
    engine.stacking = Stacking(6, "asked for")
    rates = (0.02, 0.05, 1e12, 0.1, 0.01, 0.03, 0.07, 0.04, 0.06, 0.08)  # the last four are no full stack
    entries = [Entry(rule, lr, seed, "verdict", observed=seed == 1) for seed, lr in enumerate(rates)]
    progress = list(engine.train(entries))
    stacked = {run.seed: run for one in progress for run in one.finished}
    assert sum(one.epochs + one.skipped for one in progress) == 3 * len(entries)
    assert max(one.epochs for one in progress) == 6
    for entry in entries[:4] + entries[-1:]:
        alone, run = engine.run(entry), stacked[entry.seed]
        assert run.diverged_at == alone.diverged_at
        assert (run.diverged_at == 1) == (entry.lr > 1e3)
        curves = [(*one.valid_loss, *one.train_loss, one.test_loss) for one in (run, alone)]
        assert curves[0] == pytest.approx(curves[1], rel=1e-4)
        assert table or run.valid_accuracy == pytest.approx(alone.valid_accuracy)
    seen = [snapshot for one in progress for snapshot in one.snapshots]
    single = [snapshot for one in engine._run(entries[1]) for snapshot in one.snapshots]
    assert [snapshot.epoch for snapshot in seen] == [0, 1, 2, 3]
    for one, other in zip(seen, single, strict=True):
        for a, b in zip(one.weights, other.weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
def test_a_run_is_the_same_in_the_first_lane_in_the_last_alone_and_in_the_next_stack(rule):
    engine = engine_of(mlp)
    engine.stacking = Stacking(4, "asked for")
    one, *others = (Entry(rule, lr, seed) for seed, lr in enumerate((0.05, 0.02, 1e12, 0.1)))
    reports = engine.train([one, *others[:2], one, one, others[2]])  # the losses of one run thrice, under one name
    first, last, later = (run for progress in reports for run in progress.finished if run.entry == one)
    assert first == last  # to the last bit
    for run in (engine.run(one), later):  # a smaller stack rounds otherwise
        assert run.valid_loss == pytest.approx(first.valid_loss, rel=1e-6)
        assert run.train_loss == pytest.approx(first.train_loss, rel=1e-6)


class Words(nn.Module):
    """A classifier of three words each, whose table is its last layer too."""

    def __init__(self, padding_idx, module):
        super().__init__()
        self.embedding = nn.Embedding(6, 4, padding_idx=padding_idx)
        self.layer, self.module = nn.Linear(4, 4), module

    def forward(self, x):
        table = self.embedding
        words = table(x) if self.module else nn.functional.embedding(x, table.weight, table.padding_idx)
        return self.layer(words.mean(1)) @ table.weight[:2].T


@pytest.mark.parametrize(("padding_idx", "module"), [(1, True), (-1, True), (4, False)])
def test_padding_is_not_trained_in_any_lane_of_a_stack(padding_idx, module):
    rows = np.random.default_rng(1).integers(6, size=(120, 3))
    engine = engine_of(lambda seed: Words(padding_idx, module), (rows, CLASSES))
    engine.stacking = Stacking(6, "asked for")
    for run in finished(engine, *(Entry("sgd", 0.5, seed) for seed in range(6))):
        assert run.valid_loss == pytest.approx(engine.run(Entry("sgd", 0.5, run.seed)).valid_loss, rel=1e-4)


def test_a_stack_in_which_something_is_raised_is_trained_one_by_one():
    class Fragile(nn.Linear):
        def forward(self, x):
            if torch._C._functorch.is_batchedtensor(x) and self.training and len(stacks) > 3:
                raise MemoryError("all gone")
            stacks.append(x)
            return super().forward(x)

    stacks = []
    engine = engine_of(lambda seed: Fragile(4, 2))
    engine.stacking = Stacking(6, "asked for")
    stacks.clear()
    runs = finished(engine, *(Entry("sgd", 0.1, seed) for seed in range(4)))
    assert [run.seed for run in runs] == [0, 1, 2, 3]
    assert {run.cause for run in runs} == {""}
    assert runs[2] == engine.run(Entry("sgd", 0.1, 2))


class Flow(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > 0 else -y


class Tiring(nn.Linear):
    """After three steps it gives this number times its outputs, or raises something."""

    def __init__(self, last):
        super().__init__(4, 2)
        self.last, self.steps = last, 0

    def forward(self, x):
        self.steps += self.training
        if self.steps > 3 and self.last is None:
            raise MemoryError("all gone")
        return super().forward(x) * (self.last if self.steps > 3 else 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (restless, "one at a time, since the model keeps statistics while it trains, as batch norm does"),
        (lambda seed: nn.Sequential(nn.Linear(4, 2), nn.Dropout()), "draws random numbers, as dropout does"),
        (lambda seed: Flow(4, 2), "since torch.func cannot stack the model: vmap: "),
        (mlp, "runs were stacked|since 32 stacked ones took"),
        (lambda seed: Tiring(None), "one at a time, since a trial run failed: MemoryError: all gone"),
        (lambda seed: Tiring(math.nan), "one at a time, since a trial run at 0.01 diverged"),
    ],
)
def test_why_runs_are_stacked_or_not_is_told(make, said):
    assert re.search(said, engine_of(make).stacking.reason)


def test_a_clock_that_ticks_rarely_times_no_stack(monkeypatch):
    fine = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: 0.015625 * (fine() // 0.015625))  # as Windows has it
    assert re.search("runs were stacked, which|since 32 stacked ones took", engine_of(mlp).stacking.reason)


def test_a_loss_that_is_no_mean_over_the_rows_is_not_added_up_over_stacks():
    def root(outputs, targets):
        return nn.functional.mse_loss(outputs.squeeze(), targets).sqrt()

    for loss in (root, lambda outputs, targets: root(outputs, targets) ** 2):
        reason = engine_of(lambda seed: nn.Linear(4, 1), (X, AMOUNTS[:, 0]), loss).stacking.reason
        assert ("since the loss of a batch is not the mean over its rows" in reason) == (loss is root)


def hashed(model):
    return hashlib.sha256(b"".join(one.numpy().tobytes() for one in model.state_dict().values())).hexdigest()


def test_the_weights_of_ones_own_model_are_untouched_and_a_copy_of_them_is_a_beginning():
    mine = restless(0)
    before = hashed(mine)
    for make, said in ((mine, "that is made is no factory"), (lambda seed: mine, "share their weights")):
        with pytest.raises(ValueError, match=said):
            engine_of(make)
        assert hashed(mine) == before
    engine = engine_of(lambda seed: copy.deepcopy(mine))
    assert "begins with the same weights on every seed" in engine.cautions[0]
    first, other = finished(engine, Entry("adam", 0.1, 0), Entry("adam", 0.1, 1))
    assert first.valid_loss != other.valid_loss
    assert hashed(mine) == before


def test_an_instance_is_refused_with_the_factory_written_out():
    with pytest.raises(ValueError, match="every run needs a new model") as refused:
        engine_of(mlp(0))
    (code,) = re.findall(r"def make_net\(seed\): return .*(?= and give make_net)", str(refused.value))
    space = {"nn": nn}
    exec(code, space)
    assert engine_of(space["make_net"]).description == engine_of(mlp).description


class Net(nn.Module):
    pass


def with_nan(seed):
    model = mlp(seed)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    return model


def divided(seed):
    class Divided(nn.Linear):
        def forward(self, x):
            return super().forward(x) / 0 * 0

    return Divided(4, 2)


counter = itertools.count()
one_model = mlp(0)
body = nn.Linear(4, 8)


def raising(seed):
    print("about to")
    raise RuntimeError("no such layer")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Net, r"the class Net is no factory.*def make_net\(seed\): return Net\(\.\.\.\)"),
        (3, "model=3 cannot be called"),
        (lambda: mlp(0), "cannot be called with a seed alone"),
        (lambda seed: None, "gives nothing; it is to give a torch.nn.Module"),
        (lambda seed: {"net": mlp(seed)}, "gives a dict"),
        (raising, r"make\(0\) failed: RuntimeError: no such layer \(it printed last: about to\)"),
        (with_nan, "gives weights that are not finite, 0.weight"),
        (divided, "before any training the model gives outputs that are not finite"),
        (lambda seed: nn.Linear(4, 2 + next(counter)), "different shapes, weight of"),
        (
            lambda seed: nn.Linear(4, 2 + seed),
            r"different shapes, weight of \(2, 4\) and then of \(3, 4\) for the seed 1",
        ),
        (lambda seed: one_model, "share their weights, so that one run would go on where another ended"),
        (lambda seed: nn.Sequential(body, nn.Linear(8, 2)), "share their weights"),
        (lambda seed: (torch.manual_seed(next(counter)), mlp(0))[1], "called twice with the seed 0 gives different"),
        (lambda seed: nn.Linear(3, 2), "evaluating it failed: RuntimeError: mat1 and mat2"),
        (lambda seed: nn.Linear(4, 1), "gives 1 number for each row, and the targets are of 2 classes"),
        (lambda seed: nn.Sequential(nn.Linear(4, 2), nn.Softmax(-1)), "probabilities that sum to 1"),
        (lambda seed: nn.Sequential(nn.Linear(4, 2), nn.Flatten(0)), "cross-entropy needs outputs of shape"),
        (lambda seed: nn.Flatten(), "has no parameter to train"),
        (lambda seed: mlp(0).requires_grad_(False), "has no parameter to train"),
    ],
)
def test_factories_that_no_race_can_be_made_of_are_refused(make, said, capsys):
    with pytest.raises(ValueError, match=said):
        engine_of(make)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (nn.CrossEntropyLoss(reduction="none"), r"it gives an array of shape \(16,\); give one number"),
        (lambda outputs, targets: 1.0, "it gives a float; give a tensor"),
        (lambda outputs, targets: outputs.detach().square().mean(), "does not depend on what is trained"),
        (lambda outputs, targets: -outputs.square().mean(), "is -.* before training"),
        (lambda outputs, targets: outputs.mean() * torch.nan, "the loss gives values that are not finite"),
        (lambda outputs: outputs, "TypeError"),
        ("mae", "loss='mae': choose 'mse' or 'cross-entropy'"),
        (3, "loss=3 cannot be called"),
        ("mse", r"outputs of shape \(16, 2\) for targets of shape \(16,\)"),
    ],
)
def test_losses_that_are_none_are_refused(loss, said):
    with pytest.raises(ValueError, match=said):
        engine_of(mlp, loss=loss)


def test_rows_of_tokens_are_told_apart_one_by_one():
    tokens = RANDOM.integers(0, 5, (60, 6))
    make = functools.partial(lambda seed, width: nn.Sequential(nn.Embedding(5, width), nn.Linear(width, 5)), width=3)
    run = engine_of(make, (tokens, tokens)).run(Entry("adam", 0.1, 0))
    assert run.final_loss < 0.5 * run.valid_loss[0]
    assert run.valid_accuracy[-1] > run.valid_accuracy[0]


def test_parameters_that_the_first_rows_make_are_trained():
    run = engine_of(lambda seed: nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(2))).run(
        Entry("adam", 0.1, 0)
    )
    assert run.final_loss < run.valid_loss[0]
