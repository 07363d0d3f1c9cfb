"""The best of a few learning rates, counted, held to drawing them in every way there is."""

import itertools
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from downslope.lab.races.grid import Point
from downslope.lab.races.tries import best_after, on_the_grid
from downslope.lab.report.page import report_page
from downslope.lab.report.pictures import after_tries
from race_fixture import make_race


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_counting_is_drawing_in_every_way(seed, share):
    random = np.random.default_rng(seed)
    values = [*random.integers(0, 6, 6).astype(float).tolist(), math.inf, math.inf]  # some of them equal
    random.shuffle(values)
    for tries in range(1, len(values) + 1):
        lowest = sorted(min(drawn) for drawn in itertools.combinations(values, tries))
        assert best_after(values, tries, share) == lowest[math.ceil(share * len(lowest)) - 1]
        if share == 0.5:
            assert best_after(values, tries) == statistics.median_low(lowest)


@pytest.mark.parametrize(("tries", "share", "said"), [(0, 0.5, "tries=0"), (4, 0.5, "1 to 3"), (1, 0.0, "share=0")])
def test_what_cannot_be_drawn_is_refused(tries, share, said):
    with pytest.raises(ValueError, match=said):
        best_after([1.0, 2.0, 3.0], tries, share)


def test_losses_are_of_the_grid_and_of_all_tuning_seeds():
    race = make_race(("sgd", "adam"))
    sgd, adam = race.rules
    lr = sorted({run.lr for run in sgd.tuning})[3]
    losses = [run.final_loss for run in sgd.tuning if run.lr == lr and run.seed in race.tuning_seeds]
    assert on_the_grid(race, sgd)[Point(lr)] == pytest.approx(math.exp(np.log(losses).mean()))
    assert on_the_grid(race, sgd)[Point(max(run.lr for run in sgd.tuning))] == math.inf
    beside = replace(sgd.tuning[0], lr=0.1234)
    more = replace(
        sgd, tuning=(*sgd.tuning, *(replace(beside, seed=seed) for seed in race.tuning_seeds)), default_lr=0.1234
    )
    assert Point(0.1234) not in on_the_grid(replace(race, rules=(more, adam)), more)
    assert Point(0.1234) not in on_the_grid(race, replace(sgd, tuning=(*sgd.tuning, beside)))


def test_the_page_shows_what_is_counted():
    race = make_race(("sgd", "adam"))
    (view,) = after_tries(race).views
    for result in race.rules:
        losses = list(on_the_grid(race, result).values())
        line = next(one for one in view.traces if one["name"] == result.rule and one["mode"] == "lines+markers")
        assert line["x"] == list(range(1, len(losses) + 1))
        assert line["y"][4] == pytest.approx(best_after(losses, 5), rel=1e-3)
    page = report_page(race)
    assert 'id="plot-tries"' in page
    assert "5 tries" in page
