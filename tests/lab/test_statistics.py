import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from downslope.lab.results import Comparison, Interval
from downslope.lab.statistics import compare, holm, interval, seeds_needed, sign_flip_test, smallest_p, verdict

INF = math.inf
# The first example pays for importing SciPy, and the machine may be busy: time is no failure here.
patient = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
LOSSES = st.lists(st.floats(0, 1e6) | st.just(INF), min_size=1, max_size=8)


def no_interval(found):
    return math.isnan(found.low) and math.isnan(found.high)


# Intervals


@pytest.mark.parametrize(("statistic", "n"), [("mean", 12), ("mean", 30), ("median", 15)])
def test_interval_covers_the_truth_about_as_often_as_it_says(statistic, n):
    rng = np.random.default_rng(0)
    found = [interval(rng.normal(3, 2, n).tolist(), statistic, seed=1) for _ in range(250)]
    below = np.mean([one.high < 3 for one in found])
    above = np.mean([one.low > 3 for one in found])
    assert 0.89 < 1 - below - above < 0.985
    assert abs(below - above) < 0.05  # neither side is favoured


def test_interval_of_skewed_runs_is_not_symmetric():
    values = np.random.default_rng(0).lognormal(size=25).tolist()
    found = interval(values, "mean", seed=0)
    assert found.high - found.estimate > 1.3 * (found.estimate - found.low)


def test_interval_is_the_same_for_the_same_seed():
    values = np.random.default_rng(0).normal(size=15).tolist()
    assert interval(values, "mean", seed=3) == interval(values, "mean", seed=3)
    assert interval(values, "mean", seed=3) != interval(values, "mean", seed=4)


@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_equal_values_leave_no_doubt(statistic):
    assert interval([0.1] * 5, statistic, seed=0) == Interval(0.1, 0.1, 0.1)
    assert interval([INF] * 3, statistic, seed=0) == Interval(INF, INF, INF)


@pytest.mark.parametrize("values", [[2.0], [1.0, 3.0]])
def test_fewer_than_three_runs_allow_no_interval(values):
    found = interval(values, seed=0)
    assert found.estimate == 2.0
    assert no_interval(found)


def test_one_failure_among_many_moves_the_median_by_one_rank():
    found = interval([1.0, 2.0, 3.0, 4.0, INF], seed=0)
    assert found.estimate == 3.0
    assert found.low == 1.0
    assert found.high == INF  # three or more of five drawn runs are the failure with probability 0.058
    many = interval([*np.linspace(1, 2, 30).tolist(), INF], seed=0)
    assert math.isfinite(many.high)


def test_a_majority_of_failures_makes_the_median_infinite():
    found = interval([1.0, INF, INF, INF], seed=0)
    assert found.estimate == INF
    assert found.high == INF
    assert not math.isnan(found.low)


def test_one_failure_makes_the_mean_infinite():
    found = interval([1.0, 2.0, 3.0, INF], "mean", seed=0)
    assert (found.estimate, found.high) == (INF, INF)
    assert math.isfinite(found.low)


def test_median_that_no_single_run_changes():
    found = interval([0.0, 1.0, 1.0, 1.0, 2.0], seed=0)
    assert found.estimate == 1.0
    assert 0.0 <= found.low <= 1.0 <= found.high <= 2.0


@patient
@given(values=LOSSES, statistic=st.sampled_from(["median", "mean"]))
def test_interval_is_never_half_missing_and_stays_within_the_runs(values, statistic):
    found = interval(values, statistic, seed=0)
    assert not math.isnan(found.estimate)
    if len(values) < 3:
        assert no_interval(found)
    else:
        # The quantiles of the resampled estimates may be off by a rounding error of a mean.
        slack = 1e-9 * min(max(values), 1e6)
        assert min(values) - slack <= found.low <= found.high <= max(values) + slack


@pytest.mark.parametrize("values", [[], [1.0, math.nan, 2.0], [1.0, -INF]])
def test_interval_refuses_what_is_no_result(values):
    with pytest.raises(ValueError, match="values: "):
        interval(values, seed=0)


# The sign-flip test


@pytest.mark.parametrize(
    ("differences", "patterns"),
    [
        ([0.3, 0.1, 0.2, 0.5, 0.4], 2 / 32),
        ([-0.3, -0.1, -0.2, -0.5, -0.4], 2 / 32),
        ([1.0, 2.0, 3.0], 2 / 8),
        ([-1.0, 2.0, 3.0], 4 / 8),  # sums 6, 4 and their negatives are as far away as 4
        ([0.0, 0.0, 0.0, 0.0], 1.0),
        ([1.0], 1.0),
        ([0.0, 1.0, 1.0, 1.0], 2 / 8),  # a tie says nothing
    ],
)
def test_exact_p_values(differences, patterns):
    assert sign_flip_test(differences) == pytest.approx(patterns)


def test_agrees_with_all_sign_patterns_written_out():
    differences = np.random.default_rng(0).normal(0.5, 1, 9)
    sums = np.array([np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=9)])
    expected = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_test(differences.tolist()) == pytest.approx(expected)


def test_more_seeds_than_can_be_tried_exactly():
    rng = np.random.default_rng(0)
    assert sign_flip_test(rng.uniform(1, 2, 20).tolist()) == pytest.approx(smallest_p(20, 1))
    assert sign_flip_test(rng.normal(0, 1, 20).tolist()) > 0.05


def test_p_values_of_no_difference_are_uniform():
    rng = np.random.default_rng(2)
    p = np.array([sign_flip_test(rng.normal(size=8).tolist()) for _ in range(400)])
    assert np.mean(p <= 0.05) == pytest.approx(0.047, abs=0.025)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_divergence_on_every_seed_is_decisive():
    assert sign_flip_test([INF] * 6) == pytest.approx(2 / 64)
    assert sign_flip_test([-INF] * 6) == pytest.approx(2 / 64)


def test_one_divergence_loses_one_seed_and_not_the_race():
    # Signed ranks 6, -1, -2, -3, -4, -5: sums at least 9 away from zero.
    signs = itertools.product([-1, 1], repeat=6)
    expected = np.mean([abs(np.dot(s, [1, 2, 3, 4, 5, 6])) >= 9 for s in signs])
    assert sign_flip_test([INF, -0.1, -0.2, -0.3, -0.4, -0.5]) == pytest.approx(expected)
    assert expected > 0.05


@patient
@given(st.lists(st.floats(-1e300, 1e300) | st.sampled_from([INF, -INF]), min_size=1, max_size=7))
def test_p_value_is_symmetric_and_never_below_what_is_possible(differences):
    p = sign_flip_test(differences)
    assert 0 < p <= 1
    assert p >= min(1.0, 2 / 2 ** len(differences)) - 1e-12
    assert sign_flip_test([-difference for difference in differences]) == pytest.approx(p)


@pytest.mark.parametrize("differences", [[], [0.1, math.nan]])
def test_sign_flip_refuses_what_is_missing(differences):
    with pytest.raises(ValueError, match="differences: "):
        sign_flip_test(differences)


# Holm


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 by 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to the 0.06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_stays_a_probability():
    assert holm([0.5, 0.9, 0.7]) == (1.0, 1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.2]) == (0.2,)


@patient
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_is_no_harsher_than_bonferroni(p_values):
    adjusted = holm(p_values)
    for (p, a), (q, b) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert p > q or a <= b
    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(1, len(p_values) * p) + 1e-12


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="p_values: "):
        holm([0.5, p])


# Comparisons


def test_compare_clear_outcome():
    rng = np.random.default_rng(0)
    good = rng.uniform(1, 2, 8)
    (found,) = compare({"adam": good.tolist(), "sgd": (good + rng.uniform(0.4, 0.6, 8)).tolist()})
    assert (found.first, found.second) == ("adam", "sgd")
    assert found.win_probability == 1.0
    assert found.p_value == found.p_adjusted == pytest.approx(2 / 256)
    assert found.decided
    assert -0.6 < found.difference.low < found.difference.estimate < found.difference.high < -0.4


def test_compare_is_paired():
    # Seeds differ far more than the rules do; only the pairing shows that the first rule always wins.
    luck = np.linspace(0, 100, 8)
    edge = np.linspace(0.1, 0.2, 8)
    (found,) = compare({"a": luck.tolist(), "b": (luck + edge).tolist()})
    assert found.decided
    (shuffled,) = compare({"a": luck.tolist(), "b": (luck + edge)[::-1].tolist()})
    assert not shuffled.decided


def test_compare_all_pairs_with_holm():
    rng = np.random.default_rng(1)
    found = compare({rule: rng.normal(place, 1, 9).tolist() for place, rule in enumerate("abcd")})
    assert [(c.first, c.second) for c in found] == list(itertools.combinations("abcd", 2))
    assert [c.p_adjusted for c in found] == list(holm([c.p_value for c in found]))
    assert [c.decided for c in found] == [c.p_adjusted < 0.05 for c in found]


def test_compare_with_divergence():
    (found,) = compare({"a": [1.0, 2.0, INF, INF], "b": [1.5, INF, 3.0, INF]})
    assert found.win_probability == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found.difference.estimate == pytest.approx(-0.5)  # only the first seed finished for both
    assert not math.isnan(found.p_value)
    (none,) = compare({"a": [INF] * 4, "b": [INF] * 4})
    assert (none.win_probability, none.p_value, none.decided) == (0.5, 1.0, False)
    assert math.isnan(none.difference.estimate)
    (always,) = compare({"a": [1.0] * 7, "b": [INF] * 7})
    assert always.decided
    assert always.win_probability == 1.0


def test_compare_needs_two_rules_and_the_same_seeds():
    assert compare({}) == ()
    assert compare({"a": [1.0]}) == ()
    assert compare({"a": [], "b": []}) == ()
    with pytest.raises(ValueError, match="a 2, b 1"):
        compare({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(ValueError, match="b has nan"):
        compare({"a": [1.0], "b": [math.nan]})


@pytest.mark.parametrize(("n", "pairs"), [(5, 1), (6, 1), (8, 6), (12, 66), (4, 66)])
def test_smallest_p_is_what_a_clean_sweep_gives(n, pairs):
    sweep = sign_flip_test(np.linspace(1, 2, n).tolist())
    assert smallest_p(n, pairs) == pytest.approx(holm([sweep] + [1.0] * (pairs - 1))[0])


def test_seeds_needed_is_the_first_number_that_suffices():
    for pairs in (1, 3, 6, 66):
        n = seeds_needed(pairs)
        assert smallest_p(n, pairs) < 0.05 <= smallest_p(n - 1, pairs)
    assert smallest_p(1, 1) == 1.0


# The verdict


def judged(losses):
    return verdict(losses, compare(losses))


def spread(centre, n=10, seed=0):
    return (centre + np.random.default_rng(seed).uniform(-0.01, 0.01, n)).tolist()


def test_verdict_names_the_winner():
    sentence = judged({"sgd": spread(0.9), "adam": spread(0.1, seed=1), "adagrad": spread(0.5, seed=2)})
    assert sentence.startswith("adam wins: median validation loss 0.09")
    assert "over 10 seeds" in sentence
    assert "than both other rules." in sentence
    assert "than the other rule." in judged({"sgd": spread(0.9), "adam": spread(0.1)})


def test_verdict_names_those_that_cannot_be_told_from_the_best():
    losses = {"sgd": spread(0.9), "adam": spread(0.100, seed=1), "nadam": spread(0.101, seed=2)}
    sentence = judged(losses)
    assert sentence.startswith(("adam ended lowest", "nadam ended lowest"))
    assert "cannot be told apart from it" in sentence
    assert "sgd" not in sentence


def test_verdict_names_the_closest_few_of_many():
    sentence = judged({f"rule{i}": spread(0.1, 12, seed=i) for i in range(9)})
    assert "and 5 other rules cannot be told apart" in sentence


def test_verdict_says_when_seeds_are_too_few():
    sentence = judged({"sgd": spread(0.9, 3), "adam": spread(0.1, 3), "adagrad": spread(0.5, 3)})
    assert sentence.startswith("adam ended lowest")
    assert "3 seeds cannot prove" in sentence
    assert f"at least {seeds_needed(3)}" in sentence
    assert "one seed cannot prove" in judged({"sgd": [0.9], "adam": [0.1]})


def test_verdict_when_everything_diverged():
    assert judged({"sgd": [INF] * 5, "adam": [INF] * 5}).startswith("Every run diverged")


def test_verdict_of_one_rule_and_of_none():
    assert judged({"sgd": spread(0.5)}).startswith("Only sgd was raced, with a median validation loss 0.5")
    assert judged({}) == judged({"sgd": []}) == "No rule has been run on the reporting seeds, so there is no verdict."


def test_verdict_counts_failures_of_the_best():
    losses = {"sgd": spread(0.9), "adam": [*spread(0.1, 9), INF]}
    assert "of which 1 diverged" in judged(losses)


def test_verdict_prefers_a_rule_that_no_other_beats():
    # By the median `fragile` is lower; but the decided comparison, by the mean, goes against it.
    losses = {"fragile": [1.0] * 6 + [50.0] * 5, "steady": [1.1] * 11}
    comparison = Comparison("fragile", "steady", Interval(22, 9, 31), 6 / 11, 0.01, 0.01, True)
    assert verdict(losses, (comparison,)).startswith("steady wins")
