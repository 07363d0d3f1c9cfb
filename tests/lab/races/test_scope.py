"""What a verdict holds for, and what the order was at a quarter of the training."""

import dataclasses
import math

import downslope
from downslope.lab import race
from downslope.lab.races.scope import earlier, holds_for
from race_fixture import make_race


def test_a_verdict_names_steps_batch_width_schedule_and_decay():
    found = make_race(("sgd", "adamw"))
    steps = f"{found.epochs * found.steps_per_epoch:,} steps"
    assert holds_for(found) == (
        f"This holds for {steps} with batches of {found.batch_size}, on a {found.network}, of {found.weights:,} "
        "weights, a constant learning rate and weight decay 0.01 in adamw."
    )
    beside = dataclasses.replace(found.rules[0], rule="muon+adamw", hyperparameters={"rest_ratio": 1.0})
    both = dataclasses.replace(found, rules=(beside, found.rules[1]))
    assert "weight decay 0.01 in the adamw of muon+adamw, 0.01 in adamw." in holds_for(both)
    assert "the schedule cosine and no weight decay" in holds_for(
        dataclasses.replace(make_race(("sgd", "adam")), schedule="cosine")
    )
    assert holds_for(make_race(("sgd", "adam"), everything_diverges=True)) == ""


def test_another_order_at_a_quarter_is_told():
    small = {"learning_rates": [0.1, 0.2, 0.4], "tuning_seeds": 2, "confirming_seeds": 0, "verdict_seeds": 2}

    def train(run):
        for step in range(9):
            sprint = 0.5 ** min(step, 2) * 0.98 ** max(0, step - 2)
            loss = 0.75**step if run.name == "steady" else sprint
            if not run.report(step, loss * (1 + abs(math.log(run.lr / 0.2))) * (1 + 0.01 * (run.seed % 7))):
                return

    found = race(train, {"steady": downslope.sgd, "quick": downslope.adam}, steps=8, **small)
    assert "another rule was lowest, quick" in earlier(found)
    assert "(quick 0.251, steady 0.565; at the end steady 0.101, quick 0.223)" in earlier(found)
    assert holds_for(found) == (
        "This holds for 8 steps; schedule, weight decay, batches and model are those of the training."
    )
    assert holds_for(dataclasses.replace(found, schedule="linear")) == (
        "This holds for 8 steps and the schedule linear; weight decay, batches and model are those of the training."
    )
    assert earlier(dataclasses.replace(found, schedule="linear")) == ""
    alone = dataclasses.replace(found, rules=found.rules[:1])
    assert earlier(alone) == ""


def test_where_nobody_looked_at_a_quarter_nothing_is_said():
    small = {"learning_rates": [0.1, 0.2, 0.4], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 2}

    def train(run):
        for step in (0, 5, 8):
            run.report(step, (1 + run.lr) * (1 + 0.01 * (run.seed % 7)) / (1 + step))

    assert earlier(race(train, [downslope.sgd, downslope.adam], steps=8, **small)) == ""
