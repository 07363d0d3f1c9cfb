"""The table of a race as data, and that terminal and page say the same."""

import dataclasses
import math

import pytest

from downslope.cli.screen import table
from downslope.lab.engines.protocol import how_lost
from downslope.lab.races.statistics import geometric_mean
from downslope.lab.races.summary import rows_of
from downslope.lab.races.verdict import verdict as judged
from downslope.lab.report.page import report_page
from race_fixture import interrupt, make_race


def test_a_row_for_each_rule_the_lowest_loss_first_and_the_baseline_last():
    race = make_race()
    rows = rows_of(race)
    assert [row.name for row in rows] == [*(result.rule for result in race.ranked), None]
    losses = [row.loss.estimate for row in rows[:-1]]
    assert losses == sorted(losses)
    assert (rows[-1].loss, rows[-1].accuracy) == (race.baseline.loss, race.baseline.accuracy)
    assert rows[-1].seconds is None
    assert [row.name for row in rows_of(dataclasses.replace(race, baseline=None))][-1] is not None


def some_lost(race, *, tuning):
    """The race, the first rule of which has no learning rate that holds on every seed, though some runs finished."""
    first, *others = race.rules
    runs = tuple(dataclasses.replace(run, diverged_at=3) if run.seed == 0 else run for run in first.tuning[:tuning])
    return dataclasses.replace(
        race, rules=(dataclasses.replace(first, tuning=runs, verdict=(), best_lr=None, edge="low"), *others)
    )


@pytest.mark.parametrize(
    ("race", "reasons"),
    [
        (make_race(("sgd", "adam"), everything_diverges=True), {"sgd": "all diverged", "adam": "all diverged"}),
        (some_lost(make_race(("sgd", "adam")), tuning=30), {"sgd": "all diverged", "adam": ""}),
        (interrupt(make_race()), {"sgd": "", "momentum": "tuning unfinished", "adam": "not tuned yet"}),
    ],
    ids=["all", "one seed of each rate", "stopped"],
)
def test_why_there_is_no_best_learning_rate_is_said_alike_in_terminal_and_page(race, reasons):
    rows = {row.name: row.no_best_lr for row in rows_of(race)}
    page, lines = report_page(race), table(race, 200).plain.splitlines()
    for rule, reason in reasons.items():
        assert rows[rule] == reason
        (line,) = (line for line in lines if line.split()[0] == rule)
        assert line.split()[1 : 1 + len(reason.split())] == reason.split()
        row = page.split(f"</svg>{rule}</span>")[1].split("</tr>")[0]
        assert f"–<small>{reason}</small>" in row if reason else "–<small>" not in row.split("</td>")[0]


@pytest.mark.parametrize(("count", "causes"), [(1, ["gone"]), (10, ["gone"] * 10), (2, ["gone", ""])])
def test_a_run_that_failed_for_another_cause_is_not_said_to_have_diverged(count, causes):
    race = make_race(("sgd", "adam"))
    first, second = race.rules
    lost = [
        dataclasses.replace(run, diverged_at=1, cause=cause) for run, cause in zip(first.verdict, causes, strict=False)
    ]
    verdict = (*lost, *first.verdict[count:])
    changed = dataclasses.replace(race, rules=(dataclasses.replace(first, verdict=verdict, tuning=tuple(lost)), second))
    how = "failed" if all(causes) else "diverged or failed"
    (line,) = (line for line in table(changed, 200).plain.splitlines() if line.split()[0] == "sgd")
    assert (f"({count} {how})" if count < 10 else f" {how} ") in line
    assert count == 10 or f"in {10 - count} of 10 runs, {count} {how}</small>" in report_page(changed)
    losses = {"sgd": [math.inf] * count + [0.1] * (10 - count), "adam": [math.inf] * 10}
    assert how in judged(losses, [], lost={"sgd": how_lost(verdict)})


def test_where_some_runs_diverged_the_mean_is_that_of_the_others():
    race = make_race(("sgd", "adam"))
    first, second = race.rules
    lost = dataclasses.replace(first.verdict[0], test_loss=math.inf, diverged_at=2)
    runs = (lost, *first.verdict[1:])
    finished = geometric_mean([run.final_loss for run in runs])
    changed = dataclasses.replace(first, verdict=runs, finished_loss=finished)
    row = next(row for row in rows_of(dataclasses.replace(race, rules=(changed, second))) if row.name == "sgd")
    assert (row.verdict.count, row.verdict.lost, row.verdict.some_lost) == (10, 1, True)
    assert row.finished_loss == finished
    assert row.finished_test_loss == geometric_mean([run.test_loss for run in runs[1:]])
