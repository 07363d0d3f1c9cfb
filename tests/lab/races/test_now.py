"""What people use now in a race on a training of theirs: it trains as it does without downslope."""

import dataclasses
import functools
import runpy
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import torch
from torch import nn

import downslope
import downslope.torch
from downslope.lab import Race, race
from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.protocol import Entry
from downslope.lab.now import entrant_now
from downslope.lab.report.code import in_use, lines
from downslope.lab.report.page import report_page

STEPS = 60
with_optax = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "race_optax.py"))["train"]
FEW = {"learning_rates": [0.01, 0.1], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}


class Told:
    """What a training is handed when there is no race: it only listens."""

    def __init__(self, seed, optimizer):
        self.seed, self.optimizer, self.losses = seed, optimizer, []

    def report(self, step, loss):
        self.losses.append(loss.item())
        return step < STEPS

    def weights(self, params, state):
        return params


def with_torch(run):
    torch.manual_seed(run.seed)
    x = torch.randn(64, 3, dtype=torch.float64)
    y = torch.sin(x.sum(1, keepdim=True))
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    optimizer, step = run.optimizer(model.parameters()), 0
    while run.report(step, nn.functional.mse_loss(model(x), y)):
        rows = torch.randint(64, (16,))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        step += 1


@pytest.mark.parametrize(
    "plain",
    [
        functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
        functools.partial(torch.optim.RMSprop, lr=0.003, alpha=0.9),
    ],
    ids=["SGD", "AdamW", "RMSprop"],
)
def test_now_trains_as_plain_torch_does(plain):
    run, alone = now_and_alone(with_torch, plain([nn.Parameter(torch.ones(1))]), plain)
    assert run.valid_loss == pytest.approx(alone, rel=1e-6)
    assert run.lr == plain.keywords["lr"]


@downslope.rule
def resilient(x, dx, last=0, size="lr", *, lr=0.01, grow=1.2, shrink=0.5):
    """Rprop as PyTorch has it: each weight has a step of its own, which grows while the sign of its slope stays."""
    same = dx * last
    factor = downslope.where(same > 0, grow, downslope.where(same < 0, shrink, 1))
    size = downslope.minimum(downslope.maximum(size * factor, 1e-6), 50)
    dx = downslope.where(same < 0, 0, dx)
    return x - downslope.sign(dx) * size, dx, size


def test_an_optimizer_that_downslope_has_no_rule_for_is_raced_by_its_formula():
    plain = functools.partial(torch.optim.Rprop, lr=0.01)
    with pytest.raises(ValueError, match="downslope has no rule for Rprop of PyTorch; write its formula as a rule"):
        entrant_now(plain([nn.Parameter(torch.ones(1))]))
    run, alone = now_and_alone(with_torch, downslope.Recipe(resilient, lr=0.01), plain)
    assert run.valid_loss == pytest.approx(alone, rel=1e-6)
    assert alone[-1] < alone[0]


def test_now_trains_as_plain_optax_does():
    plain = functools.partial(optax.adamw, learning_rate=0.01, weight_decay=0.1)
    with jax.enable_x64(True):  # in single precision Optax works out 1 - beta**t to some hundred roundings
        run, alone = now_and_alone(with_optax, plain, lambda params: plain())
    assert run.valid_loss == pytest.approx(alone, rel=1e-12)


def now_and_alone(train, given, plain):
    """The run of what is used now in a race, and the losses of the same training without downslope."""
    entrant = entrant_now(given)
    run = OwnEngine(train, {"now": entrant}, steps=STEPS).run(Entry("now", entrant.lr, seed=3))
    alone = Told(3, plain)
    train(alone)
    assert run.final_loss < 0.7 * run.valid_loss[0]
    return run, alone.losses


@pytest.fixture(scope="module")
def result():
    slow = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.01)
    return race(with_torch, [downslope.sgd, downslope.adam], now=slow, steps=STEPS, **FEW | {"verdict_seeds": 7})


def test_the_verdict_begins_with_what_is_saved(result):
    now, lowest = result.now, result.ranked[0]
    assert (now.rule, now.title, now.tuned, now.best_lr) == ("now", "PyTorch's SGD", False, 0.01)
    assert {run.lr for run in now.tuning} == {0.01}
    saved = lowest.against_now
    assert saved.outcome == "first"
    assert result.verdict.startswith(
        f"{lowest.rule} saves {100 * (1 - saved.ratio.estimate):.0f} % of the steps against"
    )
    assert result.verdict.endswith(".")
    needed = []
    for run, ended in zip(lowest.verdict, now.verdict, strict=True):
        first = [
            next(k for k, loss in enumerate(one.valid_loss) if k and loss <= ended.final_loss) for one in (run, ended)
        ]
        needed.append(np.log(first[0] / first[1]))
    assert saved.ratio.estimate == pytest.approx(np.exp(np.mean(needed)))
    assert "where what you do now ends" in result.target_note


def test_the_line_to_paste_is_of_the_rule_that_saves_and_works(result):
    best = result.advised
    assert best.rule == result.verdict.split()[0]
    (line,) = lines(best, ["torch"])
    assert line == f"optimizer = downslope.torch.{best.rule.upper() if best.rule == 'sgd' else 'Adam'}(" + (
        f"model.parameters(), lr={best.best_lr})"
    )
    space = {"downslope": downslope, "model": nn.Linear(2, 1)}
    exec(line, space)
    assert space["optimizer"].param_groups[0]["lr"] == best.best_lr
    assert "torch" in in_use(result)


def test_what_is_not_shown_to_save_is_not_advised(result):
    def undecided(one):
        return one.against_now and dataclasses.replace(one.against_now, outcome="undecided")

    rules = tuple(dataclasses.replace(one, against_now=undecided(one)) for one in result.rules)
    kept = dataclasses.replace(result, rules=rules)
    assert kept.advised.rule == "now"
    with pytest.raises(
        ValueError, match=r"^Keep what you have: PyTorch's SGD, lr 0.01. No rule is shown to save steps"
    ):
        kept.recommend()
    page = report_page(kept)
    assert "Keep what you have: PyTorch&#x27;s SGD, lr 0.01. No rule is shown to save steps" in page
    assert '<button type="button" class="copy"' not in page
    assert dataclasses.replace(result, interrupted=True).advised is None


def test_now_is_no_rule_that_is_tuned(result):
    assert now_is_untuned(result)
    assert Race.from_json(result.to_json()).to_json() == result.to_json()
    page = report_page(result)
    assert "PyTorch&#x27;s SGD" in page
    assert "% of the steps" in page
    assert f"{result.advised.rule} saves steps against what you have. Here it is" in page
    assert "lr = 0.01 (as it is)" in page
    assert "at a constant learning rate this was not raced" not in page
    assert f"With the schedule cosine over {STEPS} steps; at a constant learning rate this was not raced." in (
        report_page(dataclasses.replace(result, schedule="cosine"))
    )
    assert "now at the learning rate it came with, which was not tuned" in page


def now_is_untuned(result):
    return (result.now.safe_range, result.now.edge, result.now.default_lr) == (None, None, None)


@pytest.mark.slow
def test_now_stands_in_a_race_on_a_table_too():
    few = FEW | {"learning_rates": [0.001, 0.1, 10]}
    found = race("parabola", [downslope.sgd], now=downslope.Recipe(downslope.adam, lr=0.01, weight_decay=0.01), **few)
    assert now_is_untuned(found)
    assert found.now.hyperparameters["weight_decay"] == 0.01
    assert len(found.now.verdict) == 2
    assert "against what you do now cannot be told on 2 seeds, which are too few: run at least 6" in found.verdict


@pytest.mark.parametrize(
    ("now", "rules", "said"),
    [
        (3, None, "now: 3 is no optimizer that downslope can read"),
        (optax.sgd(0.1), None, "now: .* does not say what it computes"),
        (downslope.sgd, {"now": downslope.adam}, "'now' is what the optimizer given as now= is called"),
    ],
)
def test_what_cannot_be_now_is_refused(now, rules, said):
    with pytest.raises(ValueError, match=said):
        race(with_torch, rules, now=now)
