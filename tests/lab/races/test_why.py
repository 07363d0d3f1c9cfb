import dataclasses
import json
import math

import numpy as np
import pytest

import downslope
import downslope.dialects
import downslope.lab
from downslope import rule
from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.protocol import Surroundings
from downslope.lab.races.reasons import STOPPED, _beyond_its_own, growth
from downslope.lab.races.results import Race
from downslope.lab.races.why import Cliff, RuleWhy
from downslope.lab.races.words import on_limits, on_noise, on_updates, sentence
from downslope.targets.catapult import catapult
from race_fixture import make_race, with_why


@rule
def clipped(x, dx, *, lr=0.1):
    return x - lr * downslope.minimum(dx, 1.5)


@pytest.mark.parametrize(
    ("which", "power"),
    [
        (downslope.sgd, 1),
        (downslope.nesterov, 1),
        (downslope.radam, 1),  # its first steps are momentum's
        (downslope.adam, 0),
        (downslope.adagrad, 0),
        (downslope.lion, 0),
        (downslope.dialects.keras.rmsprop, 0),
        (clipped, None),
    ],
)
def test_the_first_step_goes_with_the_gradient_or_is_as_long_whatever_it_is(which, power):
    assert growth(Entrant.of(which.name, which, {}), 0.1) == power


def around(epoch, curvature, noise=100.0, ratios=(0.002, 0.001)):
    return Surroundings(epoch, curvature, None, noise, ratios)


def why(cliff, *, limit=3.8, comes_back=4.4, curvature=9.6, edge=(), best=(), reason="", held=(), best_lr=0.1):
    return RuleWhy("momentum", limit, held, reason, comes_back, curvature, cliff, best_lr, best, edge, "")


GRID = (0.1, 0.215, 0.464, 1.0)


def test_a_cliff_that_was_expected():
    cliff = Cliff(0.215, 0.464, 0.464, 0.215, "curvature", 0.44)
    assert cliff.seen == (0.215, 0.464)
    assert cliff.off_by == pytest.approx(0.44 / math.sqrt(0.215 * 0.464))
    assert cliff.explained
    said = sentence(why(cliff), GRID)
    assert said.startswith(
        "momentum diverges from lr 0.464 on: there its limit 3.8/lr is 8.19, and the curvature at the start is 9.6."
    )
    assert "not explained" not in said


def test_a_cliff_elsewhere_is_said_to_be_unexplained():
    cliff = Cliff(0.464, 1.0, None, 1.0, "curvature", 0.1)
    assert not cliff.explained
    said = sentence(why(cliff), GRID)
    assert said.startswith("momentum learns nothing from lr 1 on")
    assert "this is not explained" in said


def test_a_run_that_came_back_is_told():
    cliff = Cliff(0.464, 1.0, 1.0, 0.464, "curvature", 0.6)
    said = sentence(why(cliff, edge=(around(0, 9.6), around(1, 8.5), around(3, 4.0))), GRID)
    assert (
        "At lr 0.464, where it learns, it too begins above its limit, 8.19; after epoch 3 the curvature is 4." in said
    )


@pytest.mark.parametrize(
    ("cliff", "begins", "explained"),
    [
        (Cliff(1.0, None, None, 1.0, "curvature", 3.0), "momentum learns at every learning rate tried, up to 1.", True),
        (
            Cliff(1.0, None, None, 1.0, "curvature", 0.3),
            "momentum learns at every learning rate tried, up to 1.",
            False,
        ),
        (
            Cliff(None, 0.1, 0.1, None, "curvature", 0.3),
            "momentum diverges at every learning rate tried, down to 0.1",
            False,
        ),
        (
            Cliff(None, 0.1, 0.1, None, "curvature", 0.05),
            "momentum diverges at every learning rate tried, down to 0.1",
            True,
        ),
        (
            Cliff(None, 0.1, 0.1, None, "length", 0.05),
            "momentum diverges at every learning rate tried, down to 0.1",
            True,
        ),
        (
            Cliff(1.0, None, None, 1.0, "length", 3.0),
            "momentum does not diverge at any learning rate tried, up to 1.",
            True,
        ),
        (Cliff(0.464, 1.0, 1.0, 0.464, "length", 0.7), "momentum diverges from lr 1 on.", True),
        (Cliff(0.464, 1.0, 1.0, 0.464, "length", math.inf), "momentum diverges from lr 1 on.", False),
    ],
)
def test_what_is_said_of_a_cliff(cliff, begins, explained):
    said = sentence(why(cliff), GRID)
    assert said.startswith(begins)
    assert ("not explained" not in said) == explained
    assert said.endswith(".")


@pytest.mark.parametrize(
    "cliff", [Cliff(0.464, 1.0, 1.0, 0.464, "curvature", math.inf), Cliff(1.0, *[None] * 2, 1.0, "curvature", math.inf)]
)
def test_a_rule_that_always_comes_back_is_not_expected_at_infinity(cliff):
    said = sentence(why(cliff, comes_back=math.inf), GRID)
    assert "wherever it was let begin, up to 8 times the limit" in said
    assert "inf" not in said


def test_where_a_limit_depends_on_the_learning_rate_the_one_that_fits_is_expected():
    decaying = Entrant.of("sgd", downslope.dialects.torch.sgd, {"weight_decay": 0.1})
    found, product = _beyond_its_own(decaying, 20.0, 1e-3)
    fits = catapult(decaying.settings.program, {**decaying.numbers, "lr": found})
    assert product / 20.0 == pytest.approx(found, rel=2e-3)
    assert fits == pytest.approx(product, rel=0.03)
    assert found > 4 / 20


def test_a_state_may_begin_as_the_learning_rate():
    @rule
    def mine(x, dx, d="lr", *, lr=0.1):
        d = 0.99 * d
        return x - d * dx, d

    assert growth(Entrant.of("mine", mine, {}), 0.1) == 1


@pytest.mark.parametrize(
    ("limit", "reason", "expected"),
    [
        (None, "it goes by the sign of something", "it goes by the sign of something"),
        (0.0, "", "on a quadratic it is never stable"),
        (math.inf, "", "on a quadratic it is always stable"),
        (2.0, "", "neither in proportion to the gradient nor of a length of its own"),
    ],
)
def test_a_rule_that_nothing_is_known_of(limit, reason, expected):
    cliff = Cliff(0.464, 1.0, None, 1.0, None, None)
    assert cliff.explained is None
    said = sentence(why(cliff, limit=limit, reason=reason), GRID)
    assert said.startswith("momentum learns nothing from lr 1 on. Nothing is expected of it: ")
    assert expected in said


def test_training_in_words():
    best = (around(0, 20.0, 8.0), around(1, 38.0), around(3, 19.0, 64.0))
    one = why(Cliff(None, None, None, None, None, None), best=best)
    assert one.sharpness(best[1], 0.1) == pytest.approx(1.0)
    assert "over the limit: momentum 1." in on_limits([one])
    assert on_noise([one], 64) == (
        "The gradient noise scale is 8 rows at the start and 64 at the end of the best runs: with batches of 64, 11% "
        "of a gradient's square is noise at first and 50% at the end."
    )
    lost = why(Cliff(None, None, None, None, None, None), best=(around(0, 20.0, 8.0), around(1, 1e9, 1e9, (900.0,))))
    assert on_noise([one, lost], 64) == on_noise([one], 64)
    assert on_updates([one, lost]) == on_updates([one])
    assert "No rule" in on_limits([why(Cliff(None, None, None, None, None, None), limit=None)])


def test_what_explains_a_race_is_in_its_file_and_older_files_have_none():
    race = with_why(make_race(["momentum", "adam"]))
    assert Race.from_json(race.to_json()) == race
    older = json.loads(make_race(["sgd"]).to_json())
    del older["why"]
    assert Race.from_json(json.dumps(older)).why is None


def stop(_):
    raise KeyboardInterrupt


def test_a_race_that_is_stopped_says_that_it_is_not_explained():
    race = downslope.lab.race("parabola", [downslope.sgd], why=True, watch=stop)
    assert race.interrupted
    assert race.why.sentences == [STOPPED]


@pytest.fixture(scope="module")
def explained():
    @rule
    def mine(x, dx, *, lr=0.1):
        return x - lr * downslope.sign(dx)

    @rule
    def still(x, dx, *, lr=0.1):
        return x - lr * 1e-30 * dx

    problem = dataclasses.replace(downslope.lab.load_problem("parabola"), epochs=4)
    rates = [0.1, 0.464, 2.15, 10.0]
    entrants = {"sgd": downslope.sgd, "mine": mine, "still": still}
    return downslope.lab.race(
        problem, entrants, learning_rates=rates, tuning_seeds=1, confirming_seeds=0, verdict_seeds=2, why=True,
        schedule="linear",
    )  # fmt: skip


def test_a_race_explains_its_rules_and_keeps_each_run_once(explained):
    sgd, mine, still = explained.why.rules
    assert sgd.limit == pytest.approx(2)
    assert sgd.comes_back == pytest.approx(4)
    assert sgd.cliff.cause == "curvature"
    assert sgd.cliff.expected == pytest.approx(4 / sgd.curvature)
    assert sgd.curvature == pytest.approx(7.94, rel=0.01)  # of seed 0 on the parabola
    assert mine.limit is None
    assert mine.cliff.cause == "length"
    assert 1 < mine.cliff.expected < 10
    assert still.cliff.learns_at is None
    assert still.edge == ()
    assert still.sentence.startswith("still learns nothing at every learning rate tried, down to 0.001.")
    for one, result in zip((sgd, mine), explained.rules[:2], strict=True):
        shares = [at.lr / one.best_lr for at in one.best]
        assert shares == pytest.approx([1, 0.75, 0.5, 0.25, shares[-1]])  # the step before the last epoch is followed
        assert 0 < shares[-1] < 0.05  # by that of its last
        assert [at.epoch for at in one.best] == [0, 1, 2, 3, 4]
        assert one.best[0].noise_scale > 0
        keys = [(run.lr, run.seed) for run in result.tuning]
        assert len(keys) == len(set(keys))
        finite = [run for run in result.tuning if run.lr == one.cliff.learns_at]
        assert np.isfinite([run.final_loss for run in finite]).all()
        assert one.sentence in explained.why.sentences
    assert Race.from_json(explained.to_json()).why == explained.why


def test_with_a_grid_the_setting_that_was_chosen_is_explained_and_of_a_rate_that_rises_nothing_is_expected():
    problem = dataclasses.replace(downslope.lab.load_problem("parabola"), epochs=3)
    few = {"learning_rates": [0.1, 1.0], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 1}
    grid = {"mu": [0.5, 0.99], "batch_size": [16]}
    race = downslope.lab.race(problem, [downslope.momentum], grid=grid, schedule="one-cycle", why=True, **few)
    (one,), (result,) = race.why.rules, race.rules
    mu = result.hyperparameters["mu"]
    assert one.limit == pytest.approx(2 * (1 + mu))
    assert one.batch_size == result.batch_size == 16
    assert (one.cliff.cause, one.cliff.expected) == (None, None)
    assert "Nothing is expected of it: its learning rate is at its highest only later" in one.sentence
    assert [at.lr / one.best_lr for at in one.best[:2]] == pytest.approx([0.04, 0.9972], abs=0.02)
    assert one.sharpness(one.best[0], one.best_lr) == pytest.approx(
        0.04 * one.best_lr * one.best[0].curvature / one.limit
    )
    assert "with batches of 16" in race.why.on_noise
    learns = [run for run in result.tuning if run.lr == one.cliff.learns_at and run.setting == result.setting]
    assert learns
    assert all(math.isfinite(run.final_loss) for run in learns)
    several = (why(one.cliff, best=(around(0, 20.0), around(3, 19.0, 64.0))), dataclasses.replace(one, best=()))
    assert on_noise(several, 32).endswith("at the end of the best runs, which had batches of 16 to 32.")
