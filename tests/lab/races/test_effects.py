"""What a rule saves against what people do now, from runs whose steps are known."""

import math

import pytest

from downslope.lab.engines.protocol import Run
from downslope.lab.races.effects import effects, sentence


def run(losses, times=None, diverged_at=None):
    steps = tuple(range(0, 10 * len(losses), 10)) if times is None else times
    return Run("a", 0.1, 0, "verdict", (), tuple(losses), None, diverged_at, steps=steps)


def saved(rule, now, margin=0.01):
    (found,) = effects({"adam": rule}, now, overlap=0.0, margin=margin).values()
    return found


NOW = [run([3.0, 2.0, 1.0, 0.5, 0.4 + 0.01 * k]) for k in range(10)]


def test_steps_are_counted_to_where_now_ended_on_the_same_seed():
    found = saved([run([3.0, 0.405, 0.3])] + [run([3.0, 0.6, 0.3])] * 9, NOW)
    # now ends at 0.40, 0.41, ... after 40 steps: the first seed is not there after 10 but after 20, as are the others
    assert found.ratio.estimate == pytest.approx(0.5)
    assert (found.first, found.second, found.outcome) == ("adam", "now", "first")
    assert (
        sentence(found, 10, 1) == "adam saves 50 % of the steps against what you do now (50 to 50 %, 95.1 % interval)."
    )


def test_what_now_had_reached_before_its_end_counts_for_it_too():
    early = [run([3.0, 0.3, 0.9, 0.5])] * 10
    assert saved([run([3.0, 0.6, 0.5])] * 10, early).ratio.estimate == pytest.approx(2.0)


def test_a_start_that_is_low_already_saves_nothing():
    worse = [run([0.1, 0.5, 0.6])] * 10
    assert saved([run([0.1, 0.7, 0.5])] * 10, worse).ratio.estimate == pytest.approx(2.0)


def test_never_getting_there_is_infinite_and_so_is_a_now_that_diverges():
    found = saved([run([3.0, 2.0, 1.0])] * 10, NOW)
    assert found.ratio.estimate == math.inf
    assert sentence(found, 10, 1) == (
        "Nothing saves steps against what you do now: adam, the lowest of the others, does not get there on every "
        "seed; keep what you have."
    )
    lost = [run([3.0, math.inf], diverged_at=10)] * 10
    assert saved([run([3.0, 2.0])] * 10, lost).outcome == "first"
    assert saved(lost, lost).outcome == "alike"


def test_as_many_steps_is_alike_and_few_seeds_prove_nothing():
    assert "practically as many steps" in sentence(saved(NOW, NOW), 10, 1)
    faster = [run([3.0, 0.3])] * 4
    assert sentence(saved(faster, NOW[:4]), 4, 6) == (
        "Whether adam saves steps against what you do now cannot be told on 4 seeds, which are too few: run at least 8."
    )


def test_the_more_rules_may_be_picked_the_surer_each_has_to_be():
    mixed = [run([3.0, 0.3])] * 8 + [run([3.0, 1.0, 1.0, 1.0, 1.0, 0.3])] * 2
    alone = effects({"a": mixed}, NOW, overlap=0.0, margin=0.01)["a"]
    many = effects({f"a{k}": mixed for k in range(20)}, NOW, overlap=0.0, margin=0.01)["a7"]
    assert many.p_adjusted == pytest.approx(min(1.0, 20 * alone.p_value))
    assert alone.ratio.high < many.ratio.high
    assert (alone.outcome, many.outcome) == ("first", "undecided")
