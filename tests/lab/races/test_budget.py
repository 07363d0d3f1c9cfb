"""A race keeps to the time that it is given, by a clock that is given too."""

import itertools
import math

import numpy as np
import pytest

import downslope
from downslope.lab import Budget, Race, foresee, race
from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.races.allowance import Allowance
from downslope.lab.races.budget import DETECTABLE, LAST_LEFT_OUT, SIZES, detectable, proves
from downslope.lab.races.plan import Plan
from downslope.lab.races.stage import Stage
from downslope.lab.races.statistics import compare
from downslope.lab.report.page import report_page

RULES = [downslope.sgd, downslope.adam]


class Clock:
    """A clock that stands still but where it is moved; `ticking` moves it at every look."""

    def __init__(self, ticking=0.0):
        self.now, self.ticking = 100.0, ticking

    def __call__(self):
        self.now += self.ticking
        return self.now


class Training:
    """Down a valley, a run in a second; from the run on that `slower` says, in three."""

    def __init__(self, clock, slower=math.inf):
        self.clock, self.slower, self.runs = clock, slower, 0

    def __call__(self, run):
        self.runs += 1
        self.clock.now += 3.0 if self.runs > self.slower else 1.0
        random = np.random.default_rng(run.seed)
        x = random.normal(size=3).astype(np.float32)
        steep = np.array([1.0, 4.0, 10.0], np.float32)
        optimizer = run.optimizer(x)
        for step in itertools.count():
            if not run.report(step, 0.5 * steep @ x**2):
                return
            optimizer.step(steep * x + 0.1 * random.normal(size=3).astype(np.float32))


def raced(seconds, rules=None, slower=math.inf, **arguments):
    clock = Clock()
    training = Training(clock, slower)
    found = race(training, rules, steps=3, budget=Budget(seconds, clock=clock), **arguments)
    return found, clock.now - 100, training.runs


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(90, 90), ("90", 90), ("90s", 90), ("5min", 300), ("5 m", 300), ("1h30min", 5400), ("1h 1min 1s", 3661)],
)
def test_a_budget_is_written_as_people_do(given, seconds):
    assert Budget.of(given).seconds == seconds


@pytest.mark.parametrize("given", [0, -1, math.inf, math.nan, True, "", "soon", "5 parsecs", "0min", None, [5]])
def test_what_is_no_time_is_refused(given):
    with pytest.raises(ValueError, match=r"budget=.*give seconds, more than 0"):
        Budget.of(given)


@pytest.mark.parametrize(("seconds", "size", "rules"), [(140, 2, 2), (90, 3, 2), (48, 4, 2), (140, 4, 6)])
def test_the_largest_race_that_fits_is_chosen_and_keeps_to_the_time(seconds, size, rules):
    found, took, _ = raced(seconds, RULES if rules == 2 else None)
    assert took <= 1.01 * seconds
    assert len(found.rules) == rules
    chosen = SIZES[size]
    assert found.learning_rates[:2] == ((1e-5, 2.15e-5) if chosen.every == 1 else found.learning_rates[:2])
    assert len(found.learning_rates) == len(range(0, 19, chosen.every))
    assert (len(found.tuning_seeds), len(found.confirming_seeds)) == (chosen.tuning, chosen.confirming)
    assert len(found.verdict_seeds) >= 6
    assert not found.interrupted
    assert all(len(rule.verdict) == len(found.verdict_seeds) for rule in found.rules)


def test_it_is_the_race_of_these_sizes_run_for_run():
    found, _, _ = raced(90, RULES)
    again = race(
        Training(Clock()),
        RULES,
        steps=3,
        learning_rates=found.learning_rates,
        tuning_seeds=len(found.tuning_seeds),
        confirming_seeds=len(found.confirming_seeds),
        verdict_seeds=len(found.verdict_seeds),
    )
    assert [rule.verdict for rule in found.rules] == [rule.verdict for rule in again.rules]
    assert (found.verdict, found.budget is None, again.budget) == (again.verdict, False, None)
    assert Race.from_json(found.to_json()) == found
    assert found.budget.chosen in report_page(found)


def test_a_second_round_that_is_cut_does_not_take_the_first_back():
    plan = Plan.of({rule.name: rule for rule in RULES}, hyperparameters={})
    allowance = Allowance(Budget(60), OwnEngine(Training(Clock()), plan.entrants, steps=3), plan)
    allowance.cut("confirming", 0, 7, again=True)
    allowance.cut("confirming", 0, 7)
    allowance.cut("confirming", 3, 7)
    assert [said.partition(": ")[2] for said in allowance.dropped] == [
        "those confirmed before count.",
        "none of 7 seeds was run by all rules, and nothing of it counts.",
        "only 3 of 7 seeds were run by all rules, and nothing else counts.",
    ]


def test_more_than_enough_time_makes_the_usual_race_with_more_fresh_seeds():
    found, took, runs = raced(10_000, RULES)
    assert (len(found.learning_rates), len(found.tuning_seeds), len(found.verdict_seeds)) == (19, 3, 40)
    assert took == runs
    assert "40 fresh seeds can show a winner" in found.budget.proves


def test_what_is_settled_stays():
    found, _, _ = raced(60, RULES, verdict_seeds=7, learning_rates=[0.01, 0.1, 1], tuning_seeds=2)
    assert (found.learning_rates, len(found.tuning_seeds), len(found.verdict_seeds)) == ((0.01, 0.1, 1), 2, 7)
    assert "7 fresh seeds" in found.budget.chosen


def test_usual_rules_are_left_out_in_the_order_that_was_said():
    found, took, _ = raced(56)
    kept = [rule.rule for rule in found.rules]
    assert set(kept) == set(LAST_LEFT_OUT[: len(kept)])
    assert 2 <= len(kept) < 6
    assert "without" in found.budget.chosen
    assert took <= 57


@pytest.mark.parametrize("seconds", [3, 8, 20])
def test_where_nothing_fits_nothing_is_ranked_and_that_is_said(seconds):
    found, took, _ = raced(seconds)
    assert took <= seconds
    assert found.interrupted
    assert found.winner is None
    assert "there is no verdict" in found.verdict
    assert "give it more time, fewer rules or shorter runs" in found.cautions[-1]


@pytest.mark.parametrize(("seconds", "slower"), [(90, 10), (90, 40), (90, 60), (140, 50)])
def test_runs_that_get_slower_cost_seeds_and_never_fairness(seconds, slower):
    found, took, _ = raced(seconds, RULES, slower)
    assert took <= 1.1 * seconds
    seeds = {tuple(run.seed for run in rule.verdict) for rule in found.rules}
    assert len(seeds) == 1
    assert found.interrupted or seeds == {found.verdict_seeds}
    for seed in (*found.tuning_seeds, *found.confirming_seeds):
        rates = [{run.lr for run in rule.tuning if run.seed == seed} for rule in found.rules]
        beside = {0.001, 0.01} - set(found.learning_rates)  # the defaults
        assert found.interrupted or len(rates[0] - beside) == len(rates[1] - beside)
    assert found.budget.dropped


def test_a_table_keeps_to_the_time_with_fewer_epochs_if_need_be_and_to_what_was_foreseen():
    clock, events = Clock(0.25), []
    small = {"learning_rates": [0.01, 0.1, 1], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 6}
    found = race("parabola", [downslope.sgd], threads=1, budget=Budget(18, clock=clock), watch=events.append, **small)
    assert clock.now - 100 <= 19.8
    assert found.epochs in (3, 6)  # of 12; heats run beside who looks at the clock
    assert {len(run.valid_loss) for rule in found.rules for run in rule.verdict} == {found.epochs + 1}
    assert found.walks.epochs[-1] == found.epochs
    (foreseen,) = (event.foreseen for event in events if isinstance(event, Stage) and event.foreseen)
    assert f"{found.epochs} of 12 epochs" in foreseen.chosen
    assert foreseen.runs == 3 + 6
    sizes = len(report_page(found)), len(found.to_json()), len(found.runs.write_csv())
    for expected, size in zip(foreseen.disk, sizes, strict=True):
        assert expected == pytest.approx(size, rel=0.5)


def test_a_dry_run_measures_and_trains_no_more():
    clock = Clock()
    training = Training(clock)
    foreseen = foresee(training, RULES, steps=3, budget=Budget(90, clock=clock))
    assert training.runs == 4  # each at its default; the first again, and on another seed
    found, _, _ = raced(90, RULES)
    assert foreseen.chosen == found.budget.chosen
    assert (foreseen.runs, foreseen.seconds) == (2 * (7 * 2 + 4 * 2 + 6) + 4, pytest.approx(60))
    whole = foresee(training, RULES, steps=3)
    assert whole.runs == 2 * (3 * 19 + 4 * 7 + 10) + 6
    assert "10 fresh seeds" in whole.chosen


def test_a_dry_run_that_is_stopped_foresees_nothing():
    """A race answers Ctrl-C by ending with what it has."""

    def training(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        foresee(training, RULES, steps=3)


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("seeds", [6, 10, 20])
def test_what_can_be_proved_is_what_simulated_races_prove(seeds, varied):
    random = np.random.default_rng(seeds)
    lower = detectable(seeds, varied=varied)
    found = 0
    for _ in range(150):
        difference = random.normal(lower, 1.0, seeds)
        losses = {"a": [1.0] * seeds, "b": np.exp(0.01 * difference).tolist()}
        (one,) = compare(losses, overlap=1 / 3 if varied else 0.0, margin=0.0)
        found += one.outcome == "first"
    assert 0.68 <= found / 150 <= 0.92


def test_too_few_seeds_are_said_to_prove_nothing():
    assert "cannot show a winner at the 5 % level" in proves(5, varied=False)
    assert "1.1 times" in proves(9, varied=False)
    assert "lower by 9.5 %" in proves(10, varied=False, spread=0.1)
    assert detectable(1000, varied=True) == DETECTABLE[True][40]
