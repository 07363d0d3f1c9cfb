import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from downslope.lab.races.comparison import Interval
from downslope.lab.races.statistics import (
    FLOOR,
    MOST_EXACT,
    against_one,
    compare,
    geometric_mean,
    holm,
    interval,
    seeds_needed,
    standing,
)
from race_fixture import interrupt, make_race

INF = math.inf
# The first example pays for imports, and the machine may be busy: time is no failure here.
patient = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
# A few values only, so that ties, exact multiples and double divergence are common.
LOSS = st.sampled_from([0.5, 1.0, 1.0, 1.005, 1.1, 2.0, 4.0, INF]) | st.floats(0.01, 100)


@st.composite
def races(draw, least=1, most=9):
    n = draw(st.integers(least, most))
    rules = draw(st.integers(2, 5))
    return {f"r{k}": draw(st.lists(LOSS, min_size=n, max_size=n)) for k in range(rules)}


def flipped_share(differences, edge):
    """The two-sided p-value of the sign flips against ratios from -edge to edge, with every pattern written out."""
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))

    def one_sided(shifted):
        return np.mean(signs @ shifted >= shifted.sum() - 1e-9)

    d = np.asarray(differences)
    return min(1.0, 2 * min(one_sided(-(d + edge)), one_sided(d - edge)))


# Intervals of one rule


def test_mean_of_losses_is_geometric_and_of_accuracies_arithmetic():
    values = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert interval(values).estimate == pytest.approx(2**1.5)
    assert interval(values, "arithmetic").estimate == pytest.approx(sum(values) / 6)


def test_interval_runs_between_extreme_subset_means():
    values = [1.0, 2.0, 4.0, 7.0, 11.0, 20.0]
    found = interval(values, "arithmetic")
    assert (found.low, found.high, found.level) == (1.0, 20.0, 1 - 2 / 64)  # k = 1: the lowest and highest subset
    tenth = interval([*values, 3.0, 5.0, 6.0, 8.0], "arithmetic")
    assert tenth.level == 1 - 2 * 25 / 1024
    means = sorted(
        np.mean(subset) for k in range(1, 11) for subset in itertools.combinations([*values, 3.0, 5.0, 6.0, 8.0], k)
    )
    assert (tenth.low, tenth.high) == pytest.approx((means[24], means[-25]))


@pytest.mark.parametrize("n", [6, 7, 8])
def test_level_is_exact_for_runs_that_are_symmetric_about_their_centre(n):
    """All patterns of signs of given distances from the centre are as probable: count those that are covered."""
    away = np.random.default_rng(n).lognormal(sigma=2, size=n)
    signs = np.array(list(itertools.product([-1, 1], repeat=n)))
    found = [interval((1000 + pattern * away).tolist(), "arithmetic") for pattern in signs]
    covered = np.mean([one.low <= 1000 <= one.high for one in found])
    assert covered == pytest.approx(found[0].level)


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy"])
def test_level_is_exact_for_light_and_heavy_tails(draw):
    rng = np.random.default_rng(0)
    found = [interval((1e9 + getattr(rng, draw)(size=8)).tolist(), "arithmetic") for _ in range(3000)]
    covered = np.mean([one.low <= 1e9 <= one.high for one in found])
    assert covered == pytest.approx(found[0].level, abs=0.015)


def test_splits_that_share_rows_widen_the_interval():
    values = np.random.default_rng(0).normal(5, 1, 10)
    narrow, wide = interval(values.tolist(), "arithmetic"), interval(values.tolist(), "arithmetic", overlap=1 / 3)
    factor = math.sqrt(1 + 10 / 3)
    assert wide.estimate == narrow.estimate
    assert wide.low - wide.estimate == pytest.approx(factor * (narrow.low - narrow.estimate))
    assert wide.high - wide.estimate == pytest.approx(factor * (narrow.high - narrow.estimate))


def test_more_seeds_than_can_be_tried_exactly():
    rng = np.random.default_rng(0)
    n = MOST_EXACT + 4
    found = [interval((10 + rng.normal(size=n)).tolist(), "arithmetic") for _ in range(300)]
    assert all(one.level >= 0.95 for one in found)
    assert np.mean([one.low <= 10 <= one.high for one in found]) == pytest.approx(0.95, abs=0.035)
    assert interval([1.0] * 100) == Interval(1.0, 1.0, 1.0, found[0].level)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_too_few_runs_allow_no_interval(n):
    found = interval([2.0] * n)
    assert found.estimate == 2.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.level)


def test_a_run_that_diverged_leaves_the_interval_open():
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, INF])
    assert (found.estimate, found.high) == (INF, INF)
    assert 1.0 <= found.low < 4
    assert interval([INF] * 8).low == INF


def test_zero_is_floored():
    assert interval([0.0] * 6).estimate == pytest.approx(FLOOR)
    assert interval([0.0] * 6, "arithmetic").estimate == 0


@pytest.mark.parametrize("values", [[], [1.0, math.nan, 2.0], [1.0, -INF], [-1.0]])
def test_interval_refuses_what_is_no_result(values):
    with pytest.raises(ValueError, match="values: "):
        interval(values)


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


@patient
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=8), st.sampled_from([0.0, 0.01, 0.2]))
def test_p_value_is_that_of_all_sign_flips(differences, margin):
    edge = -math.log1p(-margin)
    (found,) = compare({"a": np.exp(differences).tolist(), "b": [1.0] * len(differences)}, margin=margin)
    lower, upper = (flipped_share(differences, edge + slack) for slack in (1e-9, -1e-9))
    assert min(lower, upper) - 1e-12 <= found.p_value <= max(lower, upper) + 1e-12


@patient
@given(races())
def test_table_and_decision_never_contradict(losses):
    edge = -math.log1p(-0.01)
    comparisons = compare(losses)
    for one in comparisons:
        low, high = np.log([max(one.ratio.low, 1e-300), max(one.ratio.high, 1e-300)])
        beyond = high < -edge + 1e-9 or low > edge - 1e-9
        assert not one.decided or beyond
        assert one.decided or not (high < -edge - 1e-9 or low > edge + 1e-9)
        if one.outcome == "alike":
            assert -edge - 1e-9 <= low <= high <= edge + 1e-9
        order = standing(losses[one.first]) < standing(losses[one.second])
        assert one.outcome != "first" or order
        assert one.outcome != "second" or not order
        assert one.decided == (one.p_adjusted <= 0.05)
        assert one.p_value <= one.p_adjusted + 1e-12
        assert math.isnan(one.ratio.low) or one.ratio.low <= one.ratio.estimate <= one.ratio.high


@patient
@given(races(least=6), st.sampled_from([0.0, 1 / 3, 1.0]))
def test_interval_is_the_test_inverted(losses, overlap):
    """Scaling one rule's losses to the ends of the interval makes the pair just undecided against a margin of 0."""
    a, b = (np.array(losses[rule]) for rule in ("r0", "r1"))
    (found,) = compare({"a": a.tolist(), "b": b.tolist()}, overlap=overlap, margin=0.0)
    for end, outwards in ((found.ratio.low, 1 - 1e-6), (found.ratio.high, 1 + 1e-6)):
        if 1e-6 < end < 1e6 and np.isfinite(a).all():
            (inside,) = compare({"a": (a / (end / outwards)).tolist(), "b": b.tolist()}, overlap=overlap, margin=0.0)
            (outside,) = compare({"a": (a / (end * outwards)).tolist(), "b": b.tolist()}, overlap=overlap, margin=0.0)
            assert not inside.decided or found.ratio.low == pytest.approx(found.ratio.high)
            assert outside.decided


@patient
@given(races(), st.sampled_from([0.0, 0.5]))
def test_comparing_the_other_way_round_says_the_same(losses, overlap):
    back = {(one.first, one.second): one for one in compare(dict(reversed(losses.items())), overlap=overlap)}
    for one in compare(losses, overlap=overlap):
        other = back[one.second, one.first].turned()
        assert other.outcome == one.outcome
        assert other.p_value == pytest.approx(one.p_value)
        assert other.win_probability == pytest.approx(one.win_probability)
        assert other.ratio.estimate == pytest.approx(one.ratio.estimate)


def test_compare_clear_outcome():
    rng = np.random.default_rng(0)
    good = rng.uniform(1, 2, 8)
    (found,) = compare({"adam": good.tolist(), "sgd": (good * rng.uniform(1.4, 1.6, 8)).tolist()})
    assert (found.first, found.second, found.outcome) == ("adam", "sgd", "first")
    assert found.win_probability == 1.0
    assert found.p_value == found.p_adjusted == pytest.approx(2 / 256)
    assert 1 / 1.6 < found.ratio.low < found.ratio.estimate < found.ratio.high < 1 / 1.4


def test_compare_is_paired():
    # Seeds differ far more than the rules do; only the pairing shows that the first rule always wins.
    luck = np.geomspace(1, 100, 8)
    edge = np.linspace(1.1, 1.2, 8)
    (found,) = compare({"a": luck.tolist(), "b": (luck * edge).tolist()})
    assert found.decided
    (shuffled,) = compare({"a": luck.tolist(), "b": (luck * edge)[::-1].tolist()})
    assert not shuffled.decided


def test_a_lower_median_does_not_win():
    """The second rule has the lower median and the higher mean."""
    a = [0.036, 0.024, 0.039, 0.023, 0.019, 0.034, 0.042, 0.03, 0.038, 0.05]
    b = [0.035, 0.025, 0.041, 0.029, 0.021, 0.034, 0.081, 0.03, 0.038, 0.059]
    (found,) = compare({"a": a, "b": b}, margin=0.0)
    assert np.median(b) < np.median(a)
    assert standing(a) < standing(b)
    assert found.ratio.estimate < 1
    assert found.outcome in ("first", "undecided")


def test_seeds_where_a_rule_diverged_count_in_the_difference():
    a = [0.10, 0.11, 0.10, 0.12, 0.10, 0.11, 0.10, 0.10, 0.12, 0.11]
    (found,) = compare({"a": a, "b": [0.05, 0.06, 0.05, *[INF] * 7]})
    assert found.outcome == "first"
    assert found.ratio == Interval(0.0, 0.0, 0.0, found.ratio.level)


def test_differences_below_the_margin_do_not_matter():
    slow, fast = [0.0641000001] * 10, [0.0641] * 10
    (found,) = compare({"slow": slow, "fast": fast})
    assert found.outcome == "alike"
    (found,) = compare({"slow": slow, "fast": fast}, margin=0.0)
    assert found.outcome == "second"


def test_divergence_is_decisive_only_where_it_is_frequent():
    (always,) = compare({"a": [INF] * 6, "b": [1.0] * 6})
    assert (always.outcome, always.p_value) == ("second", 2 / 64)
    (once,) = compare({"a": [INF, *[0.5] * 9], "b": [1.0] * 10})
    assert once.outcome == "undecided"
    assert once.ratio.estimate == once.ratio.high == INF
    (both,) = compare({"a": [INF] * 8, "b": [INF] * 8})
    assert both.outcome == "alike"
    assert both.ratio.estimate == 1.0


def test_units_of_the_loss_do_not_matter_even_where_runs_diverged():
    a, b = [1.0, INF, 2.0, 3.0, 1.5, 1.2, 1.1], [1.1, 1.2, INF, 3.5, 1.4, 1.3, 1.2]
    small, large = ({"a": [k * x for x in a], "b": [k * x for x in b]} for k in (1e-3, 1e3))
    (one,), (other,) = compare(small, overlap=0.4), compare(large, overlap=0.4)
    assert one.p_value == other.p_value
    assert one.ratio.estimate == pytest.approx(other.ratio.estimate)


def test_the_leader_needs_no_correction_for_the_number_of_rules():
    rng = np.random.default_rng(3)
    losses = {f"r{k}": np.exp(rng.normal(0.5, 0.3, 10)).tolist() for k in range(6)}
    losses["best"] = np.exp(rng.normal(0, 0.3, 10)).tolist()
    comparisons = compare(losses)
    mine = [one for one in comparisons if one.second == "best"]
    claim = max(one.p_value for one in mine)
    assert 0.0024 < claim < 0.05  # more than Holm's method would have let through
    assert all(one.outcome == "second" for one in mine)
    assert all(one.p_adjusted <= claim for one in mine)
    others = [one for one in comparisons if "best" not in (one.first, one.second)]
    by_holm = dict(zip([id(c) for c in comparisons], holm([c.p_value for c in comparisons]), strict=True))
    assert [one.p_adjusted for one in others] == [by_holm[id(one)] for one in others]


def test_splits_that_share_rows_make_decisions_harder():
    rng = np.random.default_rng(0)
    a = np.exp(rng.normal(0, 0.1, 10))
    losses = {"a": a.tolist(), "b": (a * np.exp(rng.normal(0.25, 0.15, 10))).tolist()}
    (one_split,), (many) = compare(losses), compare(losses, overlap=1 / 3)
    assert one_split.decided
    assert not many[0].decided
    assert many[0].ratio.estimate == one_split.ratio.estimate


def test_compare_needs_two_rules_and_the_same_seeds():
    assert compare({}) == ()
    assert compare({"a": [1.0]}) == ()
    assert compare({"a": [], "b": []}) == ()
    with pytest.raises(ValueError, match="a 2, b 1"):
        compare({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(ValueError, match=r"b: \[nan\] contains nan"):
        compare({"a": [1.0], "b": [math.nan]})
    with pytest.raises(ValueError, match=r"margin=1.0"):
        compare({"a": [1.0], "b": [1.0]}, margin=1.0)
    with pytest.raises(ValueError, match=r"overlap=-1"):
        compare({"a": [1.0], "b": [1.0]}, overlap=-1)


def test_against_the_baseline():
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, 8))
    found = against_one({"good": (0.5 * noise).tolist(), "bad": (1.01 * noise).tolist()}, [1.0] * 8)
    assert (found["good"].outcome, found["bad"].outcome) == ("first", "undecided")
    assert found["good"].ratio.estimate == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("rules", [2, 6, 12])
def test_seeds_needed_is_the_first_number_that_suffices(rules):
    """Two rules in front that cannot be told apart, and all others far behind."""
    n = seeds_needed(rules)
    for seeds, enough in ((n, True), (n - 1, False)):
        losses = {f"r{k}": np.geomspace(1, 1.5, seeds) * (2.0 + k) ** 3 for k in range(rules)}
        losses["r1"] = losses["r0"][::-1]
        decided = [one.decided for one in compare({rule: values.tolist() for rule, values in losses.items()})]
        assert any(decided) == (enough and rules > 2)
    assert seeds_needed(2) == 6


# Order


def test_a_rule_that_diverges_on_more_seeds_stands_behind():
    assert standing([9.0, 9.0]) < standing([0.1, INF]) < standing([INF, INF])
    assert standing([1.0, INF]) > standing([INF, 0.5])
    assert geometric_mean([INF, INF]) == INF


def test_ranked_puts_those_not_judged_last():
    race = make_race()
    means = [result.loss.estimate for result in race.ranked]
    assert means == sorted(means)
    stopped = interrupt(race)
    assert [result.rule for result in stopped.ranked] == [result.rule for result in race.rules]
