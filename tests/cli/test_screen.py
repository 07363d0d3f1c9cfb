import dataclasses
import io
import math
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from downslope.cli.about import about
from downslope.cli.screen import show, table
from downslope.lab.engines.protocol import Progress
from downslope.lab.problems.builtin import load_problem
from downslope.lab.races.forecast import Forecast
from downslope.lab.races.notebook import medians
from downslope.lab.races.stage import Stage
from downslope.lab.ticker import Ticker
from race_fixture import GRID, RULES, interrupt, make_race, with_why

NAMES = ("sgd", "r" * 64, "価格最適化の規則", "🙂_rule", "e\x1b[31m_\u202erule")


def renamed(race):
    """The race with names that are hard to print."""
    names = {result.rule: name for result, name in zip(race.rules, NAMES, strict=False)}
    rules = tuple(dataclasses.replace(r, rule=names.get(r.rule, r.rule)) for r in race.rules)
    return dataclasses.replace(race, rules=rules)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("width", [20, 40, 60, 72, 80, 100, 120, 132, 160])
def test_every_name_and_number_is_whole(task, width):
    race = renamed(make_race(tuple(RULES), task=task))
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    console.print(table(race, width), soft_wrap=True)
    text = out.getvalue()
    assert "…" not in text
    longest = max(cell_len(line) for line in text.splitlines())
    assert longest <= max(width, 64)  # at most a name is longer, and stands by itself
    words = set(re.split(r"[\s\[\],]+", text))
    for result in race.rules:
        assert "\x1b" not in text
        assert "\u202e" not in text
        for number in (result.best_lr, result.loss.estimate, result.loss.low, result.loss.high):
            assert f"{number:.3g}" in words
        if task == "classification":
            assert f"{result.accuracy.estimate:.1%}" in words
        assert f"{result.seconds:.1f}" in words
    assert all(name in text for name in ("r" * 64, "価格最適化の規則", "🙂_rule", r"e\x1b[31m_\u202erule"))


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_name_longer_than_the_screen_leaves_the_others_their_table(width):
    race = make_race(("sgd", "adam", "lion"))
    long = "r" * 130
    race = dataclasses.replace(race, rules=(dataclasses.replace(race.rules[0], rule=long), *race.rules[1:]))
    lines = table(race, width).plain.splitlines()
    assert lines.count(long) == 1
    assert max(cell_len(line) for line in lines if line != long) <= width
    assert sum("0.0" in line for line in lines) < 12  # a table, not a line for every number


@pytest.mark.parametrize("race", [interrupt(make_race()), make_race(everything_diverges=True)])
def test_a_table_of_a_race_without_results(race):
    assert all(result.rule in table(race, 60).plain for result in race.rules)


def test_the_start_says_what_is_raced():
    text = "\n".join(about(load_problem("parabola"), 2))
    facts = ("Regression", "1,000 rows", "600 to train", "1-20-1", "epochs", "0.0955 is what predicting")
    assert [fact for fact in facts if fact not in text] == []
    assert "2.3 is what guessing" in "\n".join(about(load_problem("digits"), 6))


def staged(rules, epochs, setup=2.0, epoch=0.1, lanes=64):
    """What a race reports that trains one rule after the other, and the time after each: stages and epochs."""
    now, compiled = 0.0, set()
    later = {"tuning": 57, "confirming": 28, "verdict": 10}
    for name, runs in list(later.items()):
        del later[name]
        yield now, Stage(name, dict.fromkeys(rules, runs * epochs), dict(later))
        for rule in rules:
            for k in range(epochs):
                full = epoch * (0.5 + 0.5 * runs / 57)
                seconds = full if k else 2 * full if rule in compiled else setup
                compiled.add(rule)
                now += seconds
                yield now, Progress(rule, min(runs, lanes), 0, (), seconds)


def test_a_pipe_gets_a_line_at_every_tenth_and_one_bar_never_goes_back():
    problem = load_problem("parabola")
    out, clock = io.StringIO(), [0.0]
    rules = ["sgd", "momentum", "adagrad", "keras.adam"]
    console = Console(file=out, width=80)
    ticker = Ticker(about(problem, len(rules)), rules, problem.epochs, console, clock=lambda: clock[0])
    shares = []
    with ticker:
        for clock[0], event in staged(rules, problem.epochs):
            ticker.watch(event)
            shares.append(ticker.shown)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    lines = [line for line in out.getvalue().splitlines() if "%:" in line]
    shown = [int(line.split(" %")[0]) for line in lines]
    assert shown == sorted(set(shown))
    assert len(shown) >= 7
    assert "left" in lines[1]
    assert "about" not in lines[-1]


@pytest.mark.parametrize(("setup", "epoch"), [(2.0, 0.01), (2.0, 0.5), (0.1, 0.1)])
def test_the_time_left_is_right_whatever_compiling_takes(setup, epoch):
    rules = ["a", "b", "c", "d"]
    forecast = Forecast(rules, 30, threads=1)
    events = list(staged(rules, 30, setup, epoch))
    end = events[-1][0]
    said = []
    for now, event in events:
        if isinstance(event, Stage):
            forecast.begin(event)
        else:
            forecast.add(event)
            said.append((forecast.left(now), end - now))
    assert said[0][0] is None
    assert all(left == pytest.approx(true, rel=0.2, abs=4 * epoch) for left, true in said[1:])


def test_explaining_is_part_of_the_race_and_counted_by_rule_once_it_has_begun():
    forecast = Forecast(["a", "b", "c"], 10, threads=1)
    forecast.begin(Stage("verdict", dict.fromkeys("abc", 100), {"explaining": 1}))
    for rule in "aaabbbccc":
        forecast.add(Progress(rule, 10, 0, (), 1.0))
    assert forecast.left(9.0) == pytest.approx(21 * 1.5 + 0.13 * (9 + 21 * 1.5), rel=0.5)
    forecast.left(40.0)
    forecast.begin(Stage("explaining", dict.fromkeys("abc", 1)))
    assert forecast.left(42.0) == pytest.approx(0.13 * 40 - 2)
    forecast.add(Progress("b", 1, 0, (), 3.0))
    assert forecast.left(43.0) == 6.0
    forecast.add(Progress("a", 1, 0, (), 5.0))
    forecast.add(Progress("c", 1, 0, (), 5.0))
    assert forecast.left(53.0) == 0


def test_runs_to_come_diverge_as_those_before_did():
    forecast = Forecast(["a"], 10, threads=1)
    forecast.begin(Stage("tuning", {"a": 80 * 10}))
    for _ in range(21):
        forecast.add(Progress("a", 10, 10, (), 1.0))  # half of the epochs are not trained
    assert forecast.left(21.0) == pytest.approx((800 - 21 * 20) / 2 / 10)


def test_what_explains_a_race_stands_below_its_verdict(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    race, out = with_why(make_race(("sgd", "adam"))), io.StringIO()
    show(race, Console(file=out, width=80, highlight=False))
    shown = out.getvalue()
    places = [shown.index(sentence) for sentence in (race.verdict, *race.why.sentences, " in all.")]
    assert places == sorted(places)


def test_a_terminal_shows_the_canyon_as_it_is_known():
    race = make_race(("sgd", "adam"))
    out = io.StringIO()
    ticker = Ticker((), ["sgd", "adam", "new"], 30, Console(file=out, width=100, height=40, highlight=False))
    ticker.watch(Stage("tuning", {}))
    for result in race.rules:
        for run in result.tuning:
            ticker.watch(Progress(run.rule, 1, 0, (run,), 0.1))
    ticker.console.print(ticker.live.get_renderable())
    lines = {line.split()[-1]: line for line in out.getvalue().splitlines() if " runs  " in line}
    everything = [loss for result in race.rules for loss in medians_of(result).values() if math.isfinite(loss)]
    for result in race.rules:
        medians, drawn = medians_of(result), lines[result.rule].split()[-2]
        assert len(drawn) == len(GRID)
        assert [character == "x" for character in drawn] == [math.isinf(loss) for loss in medians.values()]
        lowest, highest = min(everything), max(everything)
        assert [character == "▁" for character in drawn if character != "x"] == [
            math.log(loss / lowest) < math.log(highest / lowest) / 8 for loss in medians.values() if math.isfinite(loss)
        ]
    assert lines["new"].split() == ["0", "runs", "new"]


def test_a_terminal_shows_each_rule_in_its_best_setting_so_far():
    worse, better = (("mu", 0.5),), (("mu", 0.9),)
    (result,) = make_race(("momentum",)).rules
    out = io.StringIO()
    ticker = Ticker((), ["momentum"], 30, Console(file=out, width=100, height=40, highlight=False))
    ticker.watch(Stage("tuning", {}))
    for run in result.tuning:
        ends = {worse: 2.0, better: 2.0 if run.lr == GRID[3] else 1.0}
        for setting, loss in ends.items():
            one = dataclasses.replace(run, valid_loss=(3.0, loss), diverged_at=None, setting=setting)
            ticker.watch(Progress(run.rule, 1, 0, (one,), 0.1))
    ticker.console.print(ticker.live.get_renderable())
    (line,) = (line for line in out.getvalue().splitlines() if " runs  " in line)
    assert line.split()[-3:] == ["▁▁▁█" + "▁" * (len(GRID) - 4), "momentum", "mu=0.9"]


def medians_of(result):
    return medians((run.lr, run.final_loss) for run in result.tuning)
