"""Schedules of the learning rate: PyTorch's, followed by the optimizers of every framework, and never left early."""

import itertools

import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import torch
from torch.optim import lr_scheduler

import downslope
from downslope.lab import race
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.own_run import OwnRun
from downslope.lab.engines.protocol import Entry
from downslope.lab.engines.schedule import SCHEDULES, Schedule

STEPS = 20
SGD = Entrant.of("sgd", downslope.sgd, {})


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("constant", lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0)),
        ("linear", lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)),
        ("cosine", lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS)),
        (
            "one-cycle",
            lambda optimizer: lr_scheduler.OneCycleLR(
                optimizer, 1.0, STEPS + 1, pct_start=(0.3 * STEPS + 1) / (STEPS + 1), cycle_momentum=False
            ),  # whose phases end a step early
        ),
    ],
)
def test_they_are_pytorchs(name, theirs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = theirs(optimizer), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert Schedule.of(name).table(STEPS) == pytest.approx(rates, rel=1e-6, abs=1e-9)


def run_of(schedule, steps=STEPS):
    return OwnRun(Entry("sgd", 0.1, seed=0), SGD, steps=steps, schedule=Schedule.of(schedule))


def in_numpy(run):
    x = np.ones(1)
    optimizer = run.optimizer(x)
    for _ in range(STEPS):
        optimizer.step(2 * x)
    return x[0]


def in_torch(run):
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = run.optimizer([x])
    for _ in range(STEPS):
        optimizer.zero_grad()
        (x * x).sum().backward()
        optimizer.step()
    return x.item()


def in_optax(run):
    x = jnp.ones(1)
    transformation = run.optimizer(x)
    state = transformation.init(x)
    for _ in range(STEPS):
        updates, state = transformation.update(2 * x, state, x)
        x = optax.apply_updates(x, updates)
    return x.item()


def in_keras(run):
    x = keras.Variable(np.ones(1, np.float32))
    optimizer = run.optimizer()
    for _ in range(STEPS):
        optimizer.apply([2 * x.value], [x])
    return keras.ops.convert_to_numpy(x.value).item()


def by_hand(run):
    x = 1.0
    for step in range(STEPS):
        x -= run.lr_at(step) * 2 * x
    return x


@pytest.mark.parametrize("train", [in_numpy, in_torch, in_optax, in_keras, by_hand])
@pytest.mark.parametrize("schedule", ["one-cycle", lambda done: min(1.0, 4 * done)])
def test_every_optimizer_of_a_run_follows(train, schedule):
    factors = Schedule.of(schedule).table(STEPS)
    assert train(run_of(schedule)) == pytest.approx(np.prod(1 - 0.2 * factors), rel=1e-5)


def descending(run, last=STEPS, own=False):
    x = np.array([1.0 + run.seed])
    optimizer = downslope.Optimizer(x, run.rule, lr=run.lr) if own else run.optimizer(x)
    for step in itertools.count():
        if not run.report(step, x @ x) or step == last:
            return
        optimizer.step(2 * x)


def test_what_ends_before_its_schedule_or_does_not_follow_it_is_not_ranked():
    for arguments, cause in (
        ({"last": 12}, "ended after 12 of 20 steps, before the end of its schedule"),
        ({"own": True}, "did not follow the schedule, cosine: train with run.optimizer"),
    ):
        engine = OwnEngine(
            lambda run, given=arguments: descending(run, **given),
            {"sgd": SGD},
            steps=STEPS,
            schedule=Schedule.of("cosine"),
        )
        run = engine.run(Entry("sgd", 0.1, seed=0))
        assert run.cause.startswith(cause)
        assert run.final_loss == float("inf")


def test_a_race_with_a_schedule():
    small = {"learning_rates": [0.1, 0.3], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}
    found = race(descending, [downslope.sgd], schedule="linear", steps=STEPS, **small)
    assert found.schedule == "linear"
    (result,) = found.rules
    factors = 1 - np.arange(STEPS) / STEPS
    for run in result.verdict:
        start = 1.0 + run.seed
        assert run.final_loss == pytest.approx((start * np.prod(1 - 2 * result.best_lr * factors)) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"schedule": "warmup"}, "schedule='warmup': choose constant, linear, cosine, one-cycle, or give a function"),
        ({"schedule": 0.5}, "schedule=0.5: choose"),
        ({"schedule": lambda done: -1.0}, r"<lambda>\(0\) gives -1; return a factor"),
        ({"schedule": lambda done: 0.0}, "not always 0"),
        ({"schedule": lambda done: float("nan")}, r"\(0\) gives nan"),
        ({"schedule": lambda done: 1 / done}, r"schedule: <lambda>\(0\) raises ZeroDivisionError: .*share of"),
        ({"schedule": lambda done: "low"}, "gives 'low'; return a number"),
        ({"schedule": "cosine"}, "schedule='cosine' needs the number of steps of a run; give steps too"),
    ],
)
def test_what_is_no_schedule_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        race(**{"problem": descending, **arguments})


def test_a_function_is_not_taken_for_a_schedule_of_its_name():
    def constant(done):
        return 1 - done

    found = Schedule.of(constant)
    assert (found.name, found.constant) == ("constant (yours)", False)


def test_all_names_end_where_they_say():
    assert [round(factor(1.0), 5) for factor in SCHEDULES.values()] == [1.0, 0.0, 0.0, 0.0]
