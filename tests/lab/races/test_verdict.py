import math

import numpy as np
import pytest
from hypothesis import given
from test_statistics import patient, races

from downslope.lab.races.comparison import Comparison, Interval, winner
from downslope.lab.races.statistics import against_one, compare, standing
from downslope.lab.races.verdict import difference, verdict

INF = math.inf


def judged(losses, **facts):
    return verdict(losses, compare(losses), **facts)


def spread(centre, n=10, seed=0):
    return (centre + np.random.default_rng(seed).uniform(-0.01, 0.01, n)).tolist()


def test_the_winner_and_by_how_much():
    sentence = judged({"sgd": spread(0.9), "adam": spread(0.1, seed=1), "adagrad": spread(0.5, seed=2)})
    assert sentence.startswith("adam wins: mean validation loss 0.1 over")
    assert "over 10 seeds on one split of the data, significantly lower than both other rules: 80 % lower" in sentence
    assert "lower than adagrad, the next (95.1 % interval: 79 to 81 %)" in sentence
    assert "than the other rule: 89 % lower (" in judged({"sgd": spread(0.9), "adam": spread(0.1)})


def test_who_wins_is_decided_in_one_place():
    losses = {"sgd": spread(0.9), "adam": spread(0.1, seed=1), "adagrad": spread(0.5, seed=2)}
    found = compare(losses)
    assert winner(found, 3) == "adam"
    assert winner(found, 4) is None  # one rule was not judged
    assert winner(found, 3, against_one(losses, [1.0] * 10)) == "adam"
    assert winner(found, 3, against_one(losses, [0.1] * 10)) is None
    assert winner(compare({"sgd": [0.9] * 10, "adam": [0.9] * 10}), 2) is None
    assert winner((), 1) is None


@patient
@given(races())
def test_a_sentence_says_wins_exactly_of_the_winner(losses):
    found = compare(losses)
    name = winner(found, len(losses))
    assert (name is not None) == (" wins: " in verdict(losses, found))
    assert name is None or verdict(losses, found).startswith(f"{name} wins: ")


def test_every_run_is_lost_in_every_way_in_which_one_was():
    losses, lost = {"sgd": [INF] * 3, "adam": [INF] * 3}, {"sgd": "diverged", "adam": "failed"}
    nothing = "Every run diverged or failed, so no rule can be recommended: see why they did."
    assert judged(losses, lost=lost) == nothing
    assert judged(losses, lost=dict.fromkeys(lost, "failed")) == nothing.replace("diverged or ", "")
    assert judged(losses, lost=lost, raced=3).endswith(
        "judged before the race was stopped, every run diverged or failed."
    )


def test_what_the_confidence_covers():
    losses = {"sgd": spread(0.9), "adam": spread(0.1)}
    assert "over 10 seeds, each with its own split of the data" in judged(losses, splits=10)


def test_those_that_cannot_be_told_from_the_best():
    rng = np.random.default_rng(0)
    losses = {"sgd": spread(0.9), "adam": rng.uniform(0.08, 0.12, 10).tolist(), "nadam": [0.101] * 10}
    sentence = judged(losses)
    assert sentence.startswith(("adam ended lowest", "nadam ended lowest"))
    assert "cannot be told apart from it." in sentence
    assert "sgd" not in sentence


def test_those_that_are_practically_as_low():
    sentence = judged({"sgd": [0.9] * 10, "adam": [0.1] * 10, "nadam": [0.1001] * 10})
    assert sentence.startswith("adam ended lowest")
    assert sentence.endswith("but nadam is practically as low.")


def test_the_closest_few_of_many():
    rng = np.random.default_rng(0)
    sentence = judged({f"rule{i}": rng.uniform(0.05, 0.2, 12).tolist() for i in range(9)})
    assert "and 5 other rules cannot be told apart" in sentence


def test_too_few_seeds():
    sentence = judged({"sgd": spread(0.9, 3), "adam": spread(0.1, 3), "adagrad": spread(0.5, 3)})
    assert sentence.startswith("adam ended lowest")
    assert "3 seeds cannot prove a difference: run at least 6." in sentence
    assert "one seed cannot prove" in judged({"sgd": [0.9], "adam": [0.1]})


def test_seeds_that_cannot_tell_so_many_rules_apart():
    rng = np.random.default_rng(0)
    losses = {f"rule{i}": rng.uniform(0.05, 0.2, 8).tolist() for i in range(9)}
    assert "8 seeds are too few to tell 9 rules apart: run at least 11." in judged(losses)
    assert "too few" not in judged({rule: losses[rule] for rule in ("rule0", "rule1")})


def test_six_seeds_suffice_for_any_number_of_rules():
    assert judged({f"rule{k}": spread(1 + k, 6) for k in range(17)}).startswith("rule0 wins")


def test_everything_diverged():
    assert judged({"sgd": [INF] * 5, "adam": [INF] * 5}).startswith("Every run diverged")


def test_one_rule_and_none():
    assert judged({"sgd": spread(0.5)}).startswith("Only sgd was raced, with a mean validation loss 0.5")
    assert judged({}) == judged({"sgd": []}) == "No rule has been run on the reporting seeds, so there is no verdict."


def test_failures_of_the_best_are_counted():
    losses = {"sgd": [*spread(0.9, 8), INF, INF], "adam": [*spread(0.1, 9), INF]}
    assert "of which 1 diverged" in judged(losses)


def test_an_interrupted_race_has_no_winner():
    losses = {"sgd": spread(0.9), "adam": spread(0.1), "nesterov": spread(0.5)}
    sentence = judged(losses, raced=6)
    assert sentence.startswith("There is no winner: of the 3 of 6 rules judged before the race was stopped, adam")
    assert "wins" not in sentence
    assert judged(losses, raced=3).startswith("adam wins")
    assert "every run diverged" in judged({"sgd": [INF] * 6}, raced=2)


def test_a_rule_that_does_not_beat_the_baseline_does_not_win():
    losses = {"ascent": spread(0.99), "worse": spread(1.5)}
    useful = against_one(losses, [1.0] * 10)
    sentence = judged(losses, baseline=useful, baseline_name="predicting the mean")
    assert sentence.startswith("No rule wins: ascent ended lowest")
    assert sentence.endswith("it is not shown to do better than predicting the mean.")
    assert judged(losses, baseline=against_one(losses, [2.0] * 10)).startswith("ascent wins")
    undecided = {"a": spread(1.2), "b": spread(1.2, seed=1)}
    assert "not shown to do better" in judged(undecided, baseline=against_one(undecided, [1.0] * 10))


@patient
@given(races(least=6))
def test_the_sentence_agrees_with_order_and_comparisons(losses):
    comparisons = compare(losses)
    sentence = verdict(losses, comparisons)
    best = min(losses, key=lambda rule: standing(losses[rule]))
    if sentence.startswith("Every run diverged"):
        assert all(value == INF for values in losses.values() for value in values)
        return
    assert sentence.startswith(best)
    mine = [one if one.first == best else one.turned() for one in comparisons if best in (one.first, one.second)]
    assert all(one.outcome != "second" for one in mine)
    assert (" wins: " in sentence) == all(one.outcome == "first" for one in mine)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        ((0.88, 0.82, 0.95), "a 12 % lower than b (5 to 18 %)"),
        ((1.25, 1.05, 1.6), "b 20 % lower than a (4.8 to 38 %)"),
        ((0.95, 0.85, 1.05), "a 5 % lower than b (15 % lower to 5 % higher)"),
        ((0.95, 0.5, 3.0), "a 5 % lower than b (50 % lower to 3 times as high)"),
        ((1.0, 1.0, 1.0), "a as low as b (0 to 0 %)"),
        ((0.5, math.nan, math.nan), "a 50 % lower than b"),
        ((0.0, 0.7, INF), "a lower than b, which came to its end less often (30 % lower to any higher)"),
        ((INF, INF, INF), "b lower than a, which came to its end less often"),
    ],
)
def test_difference_in_words(ratio, words):
    assert difference(Comparison("a", "b", Interval(*ratio, 0.95), 0.5, 0.5, 0.5, "undecided")) == words
