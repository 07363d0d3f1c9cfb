import base64
import dataclasses
import hashlib
import json
import math
import re
import zlib
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import plotly.graph_objects as go
import pytest

import downslope
from downslope.cli.screen import table
from downslope.lab import Race
from downslope.lab.races.outcome import steps_to
from downslope.lab.races.statistics import geometric_mean
from downslope.lab.races.verdict import difference
from downslope.lab.report.curves import pace, training_curves
from downslope.lab.report.drawing import looks, number
from downslope.lab.report.page import report_page, write_report
from downslope.lab.report.pictures import canyon, same_and_tuned
from downslope.lab.report.plane import limits, plane_picture
from downslope.lab.report.target import time_to_target
from downslope.lab.report.why import why_pictures
from race_fixture import GRID, RULES, interrupt, make_race, walks_of, with_why

NASTY = '</script><img src=x onerror=alert(1)> "prices" & <b>more</b>.csv'
RACES = {
    "finished": make_race(),
    "twelve rules": make_race(tuple(RULES)),
    "one rule": make_race(("adam",)),
    "one seed": make_race(verdict_seeds=1, tuning_seeds=1),
    "explained": with_why(make_race()),
    "regression": make_race(task="regression", title=NASTY),
    "diverged": make_race(everything_diverges=True),
    "interrupted": interrupt(make_race()),
    "nothing run": dataclasses.replace(
        interrupt(make_race(("sgd", "adam"))),
        rules=tuple(
            dataclasses.replace(rule, tuning=(), best_lr=None, safe_range=None)
            for rule in interrupt(make_race(("sgd", "adam"))).rules
        ),
    ),
}


class Page(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.cells, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        if tag in ("td", "th", "p"):
            self.cells.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1][0] == "script":
            self.scripts[-1][1] += data
        elif self.cells and any(tag in ("td", "th", "p") for tag, _ in self._open):
            self.cells[-1][2] += data

    def unpacked(self, name):
        (found,) = [text for attributes, text in self.scripts if attributes.get("id") == name]
        return zlib.decompress(base64.b64decode(found)).decode()

    def script(self, name):
        return json.loads(self.unpacked(name))

    def text(self, **wanted):
        return [text for _, attributes, text in self.cells if wanted.items() <= attributes.items()]


@pytest.fixture(scope="module")
def pages():
    return {name: report_page(race) for name, race in RACES.items()}


# The page as a whole


@pytest.mark.parametrize("case", RACES)
def test_page_loads_nothing(pages, case):
    page = Page(pages[case])
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not attributes.keys() & {"src", "href", "srcset", "action", "onerror"}
    for name in ("page.css", "page.js"):
        assert not re.search(
            r"https?:|@import|url\(|fetch\(", resources.files("downslope.lab.report").joinpath(name).read_text()
        )


@pytest.mark.parametrize("case", RACES)
def test_page_holds_the_whole_race(pages, case):
    found = Race.from_json(json.dumps(Page(pages[case]).script("race")))
    assert found.to_json() == RACES[case].to_json()  # nan, where runs are too few for intervals, equals nothing
    assert found.data_hash == RACES[case].data_hash


@pytest.mark.parametrize("case", RACES)
def test_page_is_well_formed(pages, case):
    text = pages[case]
    assert text.count("</script") == len(Page(text).scripts) == 5
    assert text.endswith("</html>\n")


def test_no_script_runs_but_the_pages_own(pages):
    page = Page(pages["finished"])
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    allowed = re.search("script-src ([^;]*)", policy)[1].split()
    own = page.scripts[-1][1], page.unpacked("plotly")
    assert own[1].lstrip("/*! \n").startswith("plotly.js v")
    assert allowed == [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in own]


def test_a_page_of_a_thousand_runs_of_a_thousand_epochs_is_small():
    race = make_race(tuple(RULES), task="regression", tuning_seeds=5, epochs=3)
    noise = np.random.default_rng(0)

    def long(run):
        curve = run.final_loss * (1 + noise.random(1001)) if run.diverged_at is None else np.full(1001, np.inf)
        curve = tuple(curve.tolist())
        return dataclasses.replace(run, train_loss=curve, valid_loss=curve)

    rules = [
        dataclasses.replace(one, tuning=tuple(map(long, one.tuning)), verdict=tuple(map(long, one.verdict)))
        for one in race.rules
    ]
    assert sum(len(one.tuning) + len(one.verdict) for one in rules) > 1000
    race = dataclasses.replace(race, rules=tuple(rules), epochs=1000, walks=None)
    text = report_page(race)
    assert len(text.encode()) <= 3_000_000
    page = Page(text)
    assert "race" not in [attributes.get("id") for attributes, _ in page.scripts]
    assert not any(attributes.get("id") == "save" for _, attributes in page.elements)
    pictures = page.script("pictures")
    (own,) = traces_of(same_and_tuned(race).views[0], "adam", mode="lines+markers")
    runs = [run for run in race.rules[5].tuning if run.lr == race.rules[5].best_lr]
    drawn = [run.valid_loss[epoch] for run in runs for epoch in own["x"]]
    np.testing.assert_allclose(own["y"], np.median(np.reshape(drawn, (len(runs), -1)), axis=0), rtol=1e-3)
    assert (own["x"][0], own["x"][-1]) == (0, 1000)
    curves = [
        trace
        for picture in pictures.values()
        for view in picture["views"].values()
        for trace in view["traces"]
        if trace["mode"] == "lines+markers"
    ]
    assert 300 < max(len(trace["x"]) for trace in curves) <= 400


def test_text_from_outside_stays_text(pages):
    page = Page(pages["regression"])
    assert ("b", {}) not in page.elements
    assert NASTY in page.script("race")["title"]
    assert "&lt;img src=x onerror=alert(1)&gt;" in pages["regression"]
    assert "<img" not in pages["regression"].replace(page.scripts[2][1], "")


def test_names_of_rules_stay_text():
    race = make_race(("sgd", "adam"))
    name = "adam<u>'\"&"
    rules = (race.rules[0], dataclasses.replace(race.rules[1], rule=name, formula=r"\text{</math><script>}"))
    comparisons = tuple(dataclasses.replace(one, second=name) for one in race.comparisons)
    planes = tuple(
        dataclasses.replace(one, walks=(one.walks[0], dataclasses.replace(one.walks[1], rule=name, shown=0.1)))
        for one in race.walks.planes
    )
    walks = dataclasses.replace(race.walks, planes=planes)
    page = Page(report_page(dataclasses.replace(race, rules=rules, comparisons=comparisons, walks=walks)))
    assert ("u", {}) not in page.elements
    assert "<u>" not in page.script("pictures")["plane"]["styles"][1]["hovertemplate"]
    assert len(page.scripts) == 5
    buttons = [attributes["data-rule"] for tag, attributes in page.elements if "data-rule" in attributes]
    assert buttons == ["sgd", name]
    hover = [trace["hovertemplate"] for trace in page.script("pictures")["canyon"]["views"]["all"]["traces"][-1:]]
    assert "<u>" not in hover[0]


def test_the_verdict_comes_first(pages):
    assert Page(pages["finished"]).text(**{"class": "verdict"}) == [RACES["finished"].verdict]
    assert Page(pages["interrupted"]).text(**{"class": "verdict"}) == ["The race was stopped before a verdict."]
    assert "Interrupted" in Page(pages["interrupted"]).text(**{"class": "stopped"})[0]
    assert Page(pages["diverged"]).text(**{"class": "verdict"})[0].startswith("Every run diverged")
    assert not Page(pages["finished"]).text(**{"class": "stopped"})


def test_sections_are_in_reading_order(pages):
    places = [
        pages["finished"].index(f'<section id="{name}"')
        for name in ("results", "canyon", "pair", "curves", "plane", "pairs", "formulas", "method")
    ]
    assert places == sorted(places)
    assert pages["explained"].index('id="plane"') < pages["explained"].index('id="why"')


def test_cautions_stand_below_the_verdict():
    race = dataclasses.replace(make_race(("sgd", "adam")), cautions=("There are 8 validation rows.",))
    assert Page(report_page(race)).text(**{"class": "caution"}) == ["There are 8 validation rows."]


def test_how_the_table_was_read_is_said_with_the_data(pages):
    race = dataclasses.replace(make_race(("sgd", "adam")), remarks=("Left out 2 rows.", "Column '<b>': one gap."))
    method = report_page(race).split('id="method"')[1]
    assert "<dt>Reading the table</dt><dd>Left out 2 rows. Column &#x27;&lt;b&gt;&#x27;: one gap.</dd>" in method
    assert "Reading the table" not in pages["finished"]


def test_the_baseline_is_in_the_table_and_explained(pages):
    assert "baselinethe same for every row" in [text for _, _, text in Page(pages["finished"]).cells]
    assert "Baseline: predicting the class frequencies of the training rows." in pages["finished"]
    assert "Baseline: predicting the mean of the training targets." in pages["regression"]


def test_a_rule_that_is_not_shown_to_beat_the_baseline_is_marked():
    race = make_race(("sgd", "adam"))
    useless = dataclasses.replace(race.rules[0].against_baseline, outcome="undecided")
    rules = (dataclasses.replace(race.rules[0], against_baseline=useless), race.rules[1])
    assert report_page(race).count("not shown to beat the baseline") == 0
    assert report_page(dataclasses.replace(race, rules=rules)).count("not shown to beat the baseline") == 1


def test_some_runs_that_diverged_are_counted_beside_the_mean_of_the_others():
    race = make_race(("sgd", "adam"))
    first, *rest = race.rules[0].verdict
    runs = (dataclasses.replace(first, diverged_at=5), *rest)
    lost = dataclasses.replace(race.rules[0], verdict=runs, finished_loss=0.125)
    page = Page(report_page(dataclasses.replace(race, rules=(lost, race.rules[1]))))
    assert "0.125in 9 of 10 runs, 1 diverged" in column(page, "Validation loss")


def test_pairs_say_which_rule_is_lower_and_by_how_much(pages):
    race = RACES["finished"]
    cells = [text for _, _, text in Page(pages["finished"]).cells]
    for comparison in race.comparisons:
        assert difference(comparison) in cells
        lower = {"first": comparison.first, "second": comparison.second}.get(comparison.outcome)
        assert not lower or f"{lower} is lower" in cells


def test_how_the_race_was_run(pages):
    method = pages["twelve rules"].split('id="method"')[1].split("</section>")[0]
    facts = (RACES["twelve rules"].data_hash, "1,079 train, 359 valid, 359 test rows", "100 to 109", "0.5.0", "4,810")
    assert [fact for fact in facts if fact not in method] == []
    assert "still on the edge for adadelta (high)" in method


def test_write_report(tmp_path):
    path = tmp_path / "reports" / "race.html"
    write_report(RACES["one rule"], path)
    assert path.read_text(encoding="utf-8") == report_page(RACES["one rule"])
    assert [one.name for one in path.parent.iterdir()] == ["race.html"]


# Tables


def column(page, label):
    return page.text(**{"data-label": label})


def test_summary_is_ranked_by_validation_loss(pages):
    page, race = Page(pages["finished"]), RACES["finished"]
    estimates = sorted(result.loss.estimate for result in race.rules)
    shown = column(page, "Validation loss")
    assert shown.pop().startswith("2.3")  # the baseline
    assert [float(re.match(r"[\d.]+?(?=0\.\d+ –)", cell)[0]) for cell in shown] == pytest.approx(estimates, rel=5e-3)
    assert len(column(page, "Test accuracy")) == len(race.rules)
    assert "missed" in column(page, "Steps to target")


@pytest.mark.parametrize("case", ["finished", "regression", "twelve rules"])
def test_the_screen_and_the_page_say_the_same(pages, case):
    page, (heads, *lines) = (
        Page(pages[case]),
        (re.split(r"\s{2,}", row) for row in table(RACES[case], 250).plain.split("\n")),
    )
    labels = {
        "best lr": "Best learning rate",
        "safe lr": "Safe range",
        "validation loss": "Validation loss",
        "accuracy": "Accuracy",
        "steps to target": "Steps to target",
        "seconds": "Seconds of training",
    }
    assert labels.keys() - set(heads) == (set() if case != "regression" else {"accuracy"})
    for head, cells in zip(heads, zip(*lines[:-1], strict=True), strict=True):
        if head in labels:
            shown = [cell.split("a factor")[0].split("at the")[0] for cell in column(page, labels[head])]
            digits = [["".join(re.findall(r"\d|\.|missed", cell)) for cell in those] for those in (cells, shown)]
            assert digits[1][: len(cells)] == digits[0], head


def test_summary_of_a_regression_has_no_accuracy(pages):
    page = Page(pages["regression"])
    assert column(page, "Accuracy") == column(page, "Test accuracy") == []
    assert len(column(page, "Test loss")) == 5


def test_summary_counts_failures(pages):
    race = RACES["finished"]
    sgd = next(result for result in race.rules if result.rule == "sgd")
    failed = sum(run.diverged_at is not None for run in sgd.tuning)
    assert failed > 0
    assert f"tuning {failed} of {len(sgd.tuning)}reporting 0 of 10" in column(Page(pages["finished"]), "Failures")
    assert column(Page(pages["diverged"]), "Best learning rate") == ["–all diverged"] * 5


def test_summary_of_an_interrupted_race(pages):
    assert column(Page(pages["interrupted"]), "Best learning rate") == [
        "0.464",
        "–tuning unfinished",
        *["–not tuned yet"] * 3,
    ]


def test_summary_says_what_is_too_close_to_call(pages):
    heads = " ".join(text for tag, _, text in Page(pages["twelve rules"]).cells if tag == "th")
    assert "nadamlowest" in heads
    assert "adamtoo close to call" in heads


def test_matrix_shows_both_sides_and_greys_out_what_is_undecided(pages):
    page, race = Page(pages["finished"]), RACES["finished"]
    decided = sum(one.decided for one in race.comparisons)
    assert 0 < decided < len(race.comparisons)
    assert len(page.text(**{"class": "win"})) == len(page.text(**{"class": "loss"})) == decided
    assert len(page.text(**{"class": "even"})) == 2 * (len(race.comparisons) - decided)
    one = next(one for one in race.comparisons if one.win_probability not in (0.0, 0.5, 1.0))
    hints = {attributes["title"].split(":")[0]: text for _, attributes, text in page.cells if "title" in attributes}
    assert hints[f"{one.first} against {one.second}"] == f"{100 * one.win_probability:.3g} %"
    titles = [attributes["title"] for _, attributes, _ in page.cells if "title" in attributes]
    assert sum(difference(one) in title and f"{100 * one.ratio.level:.3g} % interval" in title for title in titles) >= 1
    assert hints[f"{one.second} against {one.first}"] == f"{100 - 100 * one.win_probability:.3g} %"


@pytest.mark.parametrize("case", ["one rule", "interrupted", "nothing run"])
def test_no_matrix_without_pairs(pages, case):
    assert "nothing to compare" in pages[case]
    assert not Page(pages[case]).text(**{"class": "even"})


# Pictures


def drawable(value):
    if isinstance(value, dict):
        return {key: drawable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [drawable(item) for item in value]
    return re.sub(r"^@[a-z]+\d?(/[\d.]+)?$", "#123456", value) if isinstance(value, str) else value


@pytest.mark.parametrize("case", RACES)
def test_plotly_knows_every_property(case):
    race = RACES[case]
    for picture in (
        canyon(race),
        same_and_tuned(race),
        training_curves(race),
        time_to_target(race),
        plane_picture(race),
        *why_pictures(race),
    ):
        for view in picture.views:
            traces = view.traces or picture.styles
            go.Figure({"data": drawable(traces), "layout": drawable({**picture.layout, **(view.layout or {})})})


def traces_of(view, rule, **wanted):
    found = [trace for trace in view.traces if trace["meta"]["rule"] == rule]
    return [trace for trace in found if all(trace.get(key) == value for key, value in wanted.items())]


def test_canyon_shows_medians_ribbons_and_divergence():
    race = RACES["finished"]
    view = canyon(race).views[0]
    momentum = next(result for result in race.rules if result.rule == "momentum")
    finals = {lr: [run.final_loss for run in momentum.tuning if run.lr == lr] for lr in GRID}
    (line,) = [trace for trace in traces_of(view, "momentum", mode="lines+markers") if "yaxis" not in trace]
    assert line["x"] == list(GRID)
    for lr, y in zip(line["x"], line["y"], strict=True):
        median = float(np.median(finals[lr]))
        assert y is None if math.isinf(median) else y == pytest.approx(median, rel=1e-3)
    (ribbon,) = traces_of(view, "momentum", fill="toself")
    for lr, y in zip(ribbon["x"], ribbon["y"], strict=True):
        assert any(y == pytest.approx(edge, rel=1e-3) for edge in (min(finals[lr]), max(finals[lr]))) or any(
            map(math.isinf, finals[lr])
        )
    (crosses,) = traces_of(view, "momentum", yaxis="y2")
    every = [lr for lr in GRID if all(map(math.isinf, finals[lr]))]
    some = [lr for lr in GRID if any(map(math.isinf, finals[lr]))]
    assert crosses["x"] == some
    assert [lr for lr, symbol in zip(some, crosses["marker"]["symbol"], strict=True) if symbol == "x"] == every
    assert every != some
    assert not traces_of(view, "adagrad", yaxis="y2")
    (bar,) = traces_of(view, "momentum", yaxis="y3", mode="lines+markers")
    assert tuple(bar["x"]) == pytest.approx(momentum.safe_range)


def test_canyon_stays_within_its_edges_however_large_a_loss():
    race = make_race(("sgd",))
    runs = tuple(
        dataclasses.replace(run, valid_loss=(*run.valid_loss[:-1], 1e30)) if run.lr == 1.0 else run
        for run in race.rules[0].tuning
    )
    race = dataclasses.replace(race, rules=(dataclasses.replace(race.rules[0], tuning=runs),))
    picture = canyon(race)
    low, top = picture.layout["yaxis"]["range"]
    assert 10**top < 20
    for trace in picture.views[0].traces:
        if "yaxis" not in trace:
            assert all(y is None or low - 1e-4 <= math.log10(y) <= top + 1e-4 for y in trace["y"])


def test_pair_differs_in_nothing_but_learning_rates():
    race = RACES["finished"]
    picture = same_and_tuned(race)
    views = {view.key: view for view in picture.views}
    assert all(view.layout is None for view in picture.views)
    for result in race.rules:
        for view, lr in ((views["own"], result.best_lr), (views["lr=0.01"], 0.01)):
            curves = np.array([run.valid_loss for run in result.tuning if run.lr == lr])
            (line,) = traces_of(view, result.rule, mode="lines+markers")
            np.testing.assert_allclose(line["y"], np.median(curves, axis=0), rtol=1e-3)
    assert "adam 0.00464" in views["own"].note
    assert "momentum" in views["lr=10.0"].note


def test_pair_starts_at_the_usual_learning_rate(pages):
    pictures = Page(pages["finished"]).script("pictures")
    assert pictures["pair"]["first"] == "lr=0.01"
    assert len(pictures["pair"]["shared"]) == len(GRID)
    assert pictures["canyon"]["first"] == "all"


def test_curves_show_the_mean_and_the_middle_half_over_steps():
    race = RACES["finished"]
    views = {view.key: view for view in training_curves(race).views}
    assert list(views) == ["valid", "seconds", "train", "accuracy"]
    assert [view.key for view in training_curves(RACES["regression"]).views] == ["valid", "seconds", "train"]
    adam = next(result for result in race.rules if result.rule == "adam")
    (line,) = traces_of(views["train"], "adam", mode="lines+markers")
    assert line["x"] == [17 * epoch for epoch in range(31)]
    curves = np.array([run.train_loss for run in adam.verdict])
    np.testing.assert_allclose(line["y"], np.exp(np.log(curves).mean(axis=0)), rtol=1e-3)
    (end,) = traces_of(views["valid"], "adam", mode="lines+markers")
    assert end["y"][-1] == pytest.approx(adam.loss.estimate, rel=1e-3)
    (band,) = traces_of(views["train"], "adam", fill="toself")
    assert band["y"][30] == pytest.approx(np.sort(curves[:, -1])[2], rel=1e-3)
    assert views["valid"].layout["shapes"][0]["y0"] == race.target_loss
    assert "shapes" not in views["train"].layout


def test_curves_over_seconds_are_those_over_steps_with_each_rule_at_its_own_pace():
    race = RACES["finished"]
    slow, *others = race.rules
    race = dataclasses.replace(race, rules=(dataclasses.replace(slow, seconds=10 * slow.seconds), *others))
    views = {view.key: view for view in training_curves(race).views}
    for result in race.rules:
        (over_steps,) = traces_of(views["valid"], result.rule, mode="lines+markers")
        (over_seconds,) = traces_of(views["seconds"], result.rule, mode="lines+markers")
        runs = (*result.tuning, *result.verdict)
        steps = sum(17 * (len(run.valid_loss) - 1 if run.diverged_at is None else run.diverged_at) for run in runs)
        assert over_seconds["y"] == over_steps["y"]
        assert over_seconds["x"] == pytest.approx([step * result.seconds / steps for step in over_steps["x"]])
    longest = max(x for trace in views["seconds"].traces for x in trace["x"])
    assert views["seconds"].layout["xaxis"]["range"] == [0, pytest.approx(1.01 * longest)]
    assert views["seconds"].layout["shapes"] == views["valid"].layout["shapes"]


def test_time_to_the_target_has_a_mark_for_each_seed_and_shows_those_that_missed_it():
    race = RACES["finished"]
    finals = sorted(run.final_loss for result in race.rules for run in result.verdict)
    target = finals[len(finals) // 3]  # most miss it
    rules = [
        dataclasses.replace(one, steps_to_target=steps_to(target, one.verdict, race.steps_of(one.setting)))
        for one in race.rules
    ]
    race = dataclasses.replace(race, target_loss=target, rules=tuple(rules))
    steps, seconds = time_to_target(race).views
    for result in race.rules:
        reached = {}
        for run in result.verdict:
            at = next((epoch for epoch, loss in enumerate(run.valid_loss) if loss <= target), None)
            reached |= {} if at is None else {run.seed: 17 * at}
        marks = [trace for trace in traces_of(steps, result.rule) if "text" in trace]
        drawn = [(x, text) for trace in marks for x, text in zip(trace["x"], trace["text"], strict=True)]
        assert len(drawn) == len(result.verdict)
        assert sorted(x for x, text in drawn if "missed" not in text) == sorted(map(float, reached.values()))
        crosses = [trace for trace in marks if trace["marker"]["symbol"] == "x"]
        assert sum(len(trace["x"]) for trace in crosses) == len(result.verdict) - len(reached)
        assert all(x > max(reached.values(), default=0) for trace in crosses for x in trace["x"])
        ticks = [trace["x"] for trace in traces_of(steps, result.rule) if "text" not in trace]
        assert ticks == ([] if math.isinf(result.steps_to_target) else [[result.steps_to_target]])
        times = [trace for trace in traces_of(seconds, result.rule) if "text" in trace]
        for trace, other in zip(times, marks, strict=True):
            if trace["marker"]["symbol"] != "x":
                assert trace["x"] == pytest.approx([x * pace(race, result) for x in other["x"]], rel=1e-3)
    assert any(math.isinf(result.steps_to_target) for result in race.rules)
    assert time_to_target(dataclasses.replace(race, target_loss=None)).views == ()


def test_curves_end_at_the_mean_of_the_runs_that_finished():
    race = make_race(("sgd",), verdict_seeds=3)
    first, *rest = race.rules[0].verdict
    lost = dataclasses.replace(first, valid_loss=first.valid_loss[:5] + (math.inf,) * 26, diverged_at=5)
    race = dataclasses.replace(race, rules=(dataclasses.replace(race.rules[0], verdict=(lost, *rest)),))
    (line,) = traces_of(training_curves(race).views[0], "sgd", mode="lines+markers")
    assert line["y"][-1] == pytest.approx(geometric_mean([run.final_loss for run in rest]), rel=1e-3)


def test_curves_end_with_a_cross_where_the_last_run_diverged():
    race = make_race(("sgd",), verdict_seeds=3)
    runs = tuple(
        dataclasses.replace(run, valid_loss=run.valid_loss[:5] + (math.inf,) * 26, diverged_at=5)
        for run in race.rules[0].verdict
    )
    race = dataclasses.replace(race, rules=(dataclasses.replace(race.rules[0], verdict=runs),))
    view = training_curves(race).views[0]
    (line,) = traces_of(view, "sgd", mode="lines+markers")
    assert line["y"][5:] == [None] * 26
    (cross,) = traces_of(view, "sgd", mode="markers")
    assert (cross["x"], cross["y"]) == ([4 * 17], [line["y"][4]])


def test_a_rule_looks_the_same_everywhere_and_like_no_other():
    found = looks(RACES["twelve rules"])
    assert len({look.symbol for look in found.values()}) == 12
    assert len({(look.colour, look.dash) for look in found.values()}) == 12


# The walks of the network


def with_lost_runs(race, when):
    """The race with runs of the verdict that diverge in an epoch, by rule."""
    rules = []
    for result in race.rules:
        runs = result.verdict
        if lost := when.get(result.rule):
            losses = [run.valid_loss[:lost] + (math.inf,) * (31 - lost) for run in runs]
            runs = tuple(
                dataclasses.replace(run, diverged_at=lost, valid_loss=one)
                for run, one in zip(runs, losses, strict=True)
            )
        rules.append(dataclasses.replace(result, verdict=runs))
    walks = walks_of([run for result in rules for run in result.verdict], len(rules), len(race.verdict_seeds), 30)
    return dataclasses.replace(race, rules=tuple(rules), walks=walks)


def test_the_plane_says_how_much_it_shows_and_what_became_of_whom():
    race = with_lost_runs(make_race(("sgd", "momentum", "adam"), verdict_seeds=2), {"momentum": 4})
    first = race.walks.planes[0]
    unseen = dataclasses.replace(first.walks[0], shown=0.31)
    planes = (dataclasses.replace(first, shown=(0.6231, 0.2), walks=(unseen, *first.walks[1:2])), race.walks.planes[1])
    race = dataclasses.replace(race, walks=dataclasses.replace(race.walks, planes=planes))
    picture = plane_picture(race)
    assert picture.views[0].note == (
        "Seed 100: this plane shows 82 % of how far the weights moved. "
        "Diverged: momentum in epoch 4; a cross marks the last point before. "
        "Less than half is seen of sgd (31 %). Not run to an end on this seed: adam."
    )
    assert picture.views[0].layout["xaxis"]["title"]["text"] == "first direction, 62 %"
    assert [view.key for view in picture.views] == ["100", "101"]
    assert picture.layout["yaxis"]["scaleanchor"] == "x"


def test_the_colours_of_the_plane_reach_from_the_lowest_loss_to_the_highest():
    race = with_lost_runs(make_race(("sgd", "adam")), {"sgd": 2})
    scale = plane_picture(race).layout["coloraxis"]
    losses = [loss for result in race.rules for run in result.verdict for loss in run.valid_loss if loss < math.inf]
    assert 0.8 * min(losses) < 10 ** scale["cmin"] < min(losses)
    assert max(losses) < 10 ** scale["cmax"] < 1.2 * max(losses)


def test_what_was_left_out_of_the_walks_is_said():
    race = make_race(("sgd", "adam"))
    assert limits(race, race.walks) == ""
    walks = dataclasses.replace(race.walks, epochs=(0, 1, 30), planes=race.walks.planes[:4], error=0.0104)
    assert limits(race, walks) == (
        "Of 30 epochs, 2 are shown, more of them early. Of 10 reporting seeds, 4 are shown. "
        "Of so many weights only random sums were kept: distances in the picture are off by about 1 %."
    )


def test_the_walks_in_numbers_are_means_over_the_runs_that_finished():
    race = with_lost_runs(make_race(("sgd", "adam")), {"sgd": 2})
    table = report_page(race).split('<table class="walks">')[1].split("</table>")[0]
    rows = dict(re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', table))
    walks = [walk for plane in race.walks.planes for walk in plane.walks if walk.rule == "adam"]
    cells = re.findall(r">([^<]+)</td>", rows["adam"])
    assert cells == [
        number(np.mean([walk.distance for walk in walks])),
        number(np.mean([walk.length for walk in walks])),
        f"{100 * np.mean([walk.shown for walk in walks]):.3g} %",
        number(race.rules[1].loss.estimate),
    ]
    assert re.findall(r">([^<]+)</td>", rows["sgd"]) == ["–"] * 4


def test_a_race_without_walks_says_so(pages):
    older = dataclasses.replace(make_race(("adam",)), walks=None)
    assert "had moved, or the race was saved before walks were." in report_page(older)
    for case in ("diverged", "interrupted", "nothing run"):
        assert "There is no walk to show: no run of the verdict ended and had moved.<" in pages[case]


def test_the_walks_make_the_page_little_larger():
    race = make_race(("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"))
    without = dataclasses.replace(race, walks=None)
    assert len(report_page(race)) - len(report_page(without)) < 60_000


# Paper, screen readers and long names


def test_why_is_there_for_those_who_asked(pages):
    assert '<section id="why"' not in pages["finished"]
    race, page = RACES["explained"], Page(pages["explained"])
    said = " ".join(text for _, _, text in page.cells)
    for sentence in (race.why.on_limits, race.why.on_noise, race.why.on_updates):
        assert sentence in json.dumps(page.script("pictures"), ensure_ascii=False)
    assert pages["explained"].count("<li>") == len(race.rules)
    assert "Where every rule" in said
    stopped = dataclasses.replace(race, why=dataclasses.replace(race.why, rules=(), on_limits="It was stopped."))
    assert "It was stopped." in report_page(stopped)
    assert why_pictures(stopped) == ()


def test_why_speaks_of_the_rules_and_runs_that_are_there():
    race = RACES["explained"]
    bare = dataclasses.replace(race, rules=tuple(dataclasses.replace(one, tuning=()) for one in race.rules))
    assert '<section id="why"' in report_page(bare)
    fewer = dataclasses.replace(race, rules=race.rules[:1])
    assert [trace["name"] for view in why_pictures(fewer)[1].views for trace in view.traces if trace["name"]] != []


def test_cliffs_are_drawn_where_they_were_seen_and_expected():
    race = RACES["explained"]
    cliffs, limits_, steps = why_pictures(race)
    for one in race.why.rules:
        seen, *expected = traces_of(cliffs.views[0], one.rule)
        assert seen["x"] == [lr for lr in one.cliff.seen if lr is not None]
        assert [trace["x"] for trace in expected] == [[pytest.approx(one.cliff.expected, rel=1e-3)]]
        (curve,) = traces_of(limits_.views[0], one.rule)
        assert curve["y"] == pytest.approx([min(one.sharpness(at, one.best_lr), 30) for at in one.best], rel=1e-3)
        noise, first_layer, second_layer = (traces_of(view, one.rule)[0]["y"] for view in steps.views)
        assert noise == pytest.approx([at.noise_scale for at in one.best], rel=1e-3)
        assert first_layer == pytest.approx([at.update_ratios[0] for at in one.best], rel=1e-3)
        assert second_layer == pytest.approx([at.update_ratios[1] for at in one.best], rel=1e-3)
    marks = [trace for trace in canyon(race).views[0].traces if trace.get("cliponaxis") is False]
    assert {trace["name"] for trace in marks} == {one.rule for one in race.why.rules if one.cliff.expected <= 10}


def test_the_slider_says_its_learning_rate(pages):
    sliders = [attributes for tag, attributes in Page(pages["finished"]).elements if attributes.get("type") == "range"]
    assert [(one["aria-valuetext"], one["value"], one["max"]) for one in sliders] == [
        ("0.01", str(GRID.index(0.01)), str(len(GRID) - 1)),
        ("30", "30", "30"),  # after which epoch the walks are shown
        ("100", "0", "9"),  # on which seed
    ]


def test_the_levels_are_drawn_over_the_data():
    pictures = (canyon(RACES["finished"]).layout, training_curves(RACES["finished"]).views[0].layout)
    assert [layout["shapes"][0]["layer"] for layout in pictures] == ["above", "above"]


def test_the_canyons_numbers_are_in_a_table():
    race = make_race(("sgd", "adam"))
    page = report_page(race)
    table = page[page.index('<table class="valleys">') :]
    (row,) = re.findall(r'<tr><th scope="row">0\.01</th>(.*?)</tr>', table[: table.index("</table>")])
    losses = sorted(run.final_loss for run in race.rules[1].tuning if run.lr == 0.01)
    spread = f"{number(losses[0])} – {number(losses[2])}"
    assert row.endswith(f'<td class="number">{number(losses[1])}<small>{spread}</small></td>')
    assert "∞<small>∞ – ∞</small><small>3 of 3 diverged</small>" in table


def test_the_rule_that_ended_lowest_is_there_to_copy(pages):
    race = make_race(("adam",))
    rule = dataclasses.replace(race.rules[0], formula=downslope.adam.latex(bias_correction=True))
    page = report_page(dataclasses.replace(race, rules=(rule,)))
    assert f"torch.optim.Adam(model.parameters(), lr={rule.best_lr}" in page
    assert [name in page for name in ("import downslope.keras", "import optax", "downslope.adam, lr=")] == [True] * 3
    for case in ("diverged", "interrupted", "nothing run"):
        assert '<section id="code"' not in pages[case]


def test_the_code_to_copy_says_whether_its_rule_won():
    won = make_race(("sgd", "adam"))
    adam = dataclasses.replace(won.rules[1], formula=downslope.adam.latex(bias_correction=True))
    won = dataclasses.replace(won, rules=(won.rules[0], adam))
    assert won.verdict.startswith("adam wins")
    assert "adam won. Here it is" in report_page(won)
    undecided = tuple(dataclasses.replace(one, outcome="undecided") for one in won.comparisons)
    assert "adam had the lowest loss. Here it is" in report_page(dataclasses.replace(won, comparisons=undecided))


def test_the_seconds_say_of_what(pages):
    assert "Seconds of training" in Page(pages["finished"]).text(scope="col")


# A real browser, where there is one


@pytest.fixture
def opened(page, tmp_path):
    """Opens the report of a race in a browser, of one colour scheme or the other."""
    expect = pytest.importorskip("playwright.sync_api").expect

    def opened(race, scheme="light"):
        write_report(race, tmp_path / "race.html")
        page.emulate_media(color_scheme=scheme)
        page.goto((tmp_path / "race.html").as_uri())
        expect(page.locator(".plot:not(:has(.plotly))")).to_have_count(0, timeout=300_000)
        return page

    return opened


@pytest.mark.slow
def test_a_browser_draws_what_there_is_where_nothing_was_run(opened):
    assert opened(RACES["nothing run"]).locator("#plot-canyon .plotly").count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [True, False])
def test_a_page_from_a_file_copies_the_code_or_selects_it(opened, allowed):
    race = make_race(("adam",))
    rule = dataclasses.replace(race.rules[0], formula=downslope.adam.latex(bias_correction=True))
    page = opened(dataclasses.replace(race, rules=(rule,)))
    clipboard = "async (text) => { window.taken = text; }" if allowed else "async () => { throw new Error(); }"
    page.evaluate(f'Object.defineProperty(navigator, "clipboard", {{ value: {{ writeText: {clipboard} }} }})')
    button = page.locator(".copy").first
    button.click()
    while (said := button.inner_text()) not in ("Copied", "Selected"):
        page.evaluate("new Promise(requestAnimationFrame)")
    assert said == "Copied" or not allowed
    wanted = button.evaluate('button => button.parentElement.querySelector("code").textContent')
    assert "torch.optim.Adam(" in wanted
    assert page.evaluate("window.taken" if allowed else "getSelection().toString()").strip() == wanted.strip()


@pytest.mark.slow
def test_a_browser_that_cannot_draw_says_so_and_copies(browser, tmp_path):
    race = make_race(("adam",))
    rule = dataclasses.replace(race.rules[0], formula=downslope.adam.latex(bias_correction=True))
    write_report(dataclasses.replace(race, rules=(rule,)), tmp_path / "race.html")
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.add_init_script("delete window.DecompressionStream")
        page.goto((tmp_path / "race.html").as_uri())
        assert page.locator("#plot-canyon").inner_text() == "The pictures need a newer browser."
        assert page.locator("#save").count() == 0
        assert "All numbers need a newer browser, too." in page.locator("#method").inner_text()
        button = page.locator(".copy").first
        button.click()
        while button.inner_text() not in ("Copied", "Selected"):
            page.evaluate("new Promise(requestAnimationFrame)")


@pytest.mark.slow
def test_one_rule_of_many_stands_out_while_the_keyboard_is_at_it(opened):
    found = opened(RACES["twelve rules"]).evaluate("""() => {
const strong = () => new Set(document.getElementById("plot-canyon").data
  .filter((trace) => trace.opacity === 1).map((trace) => trace.meta.rule)).size;
const key = document.querySelector('.rules [data-rule="lion"]');
const found = [strong()];
key.focus({ focusVisible: true });
found.push(strong(), key.matches(":focus-visible"));
key.blur();
key.click();
found.push(strong(), key.getAttribute("aria-pressed"));
for (const set of ["all", "none", "few"]) {
  document.querySelector(`[data-set="${set}"]`).click();
  found.push(strong());
}
return found; }""")
    assert found == [5, 1, True, 6, "true", 12, 0, 5]


@pytest.mark.slow
def test_a_dark_browser_prints_in_light_colours_and_says_which_learning_rate(opened):
    found = opened(make_race(("adam", "sgd")), "dark").evaluate("""() => {
dispatchEvent(new Event("beforeprint"));
return [
  document.getElementById("printed-pair").textContent,
  document.querySelector("#plot-canyon .scatterlayer path.js-line[style*='stroke-width: 2.2']").style.stroke,
  matchMedia("(prefers-color-scheme: dark)").matches,
]; }""")
    assert found == ["Shown: every rule at learning rate 0.01.", "rgb(0, 63, 148)", True]


@pytest.mark.slow
def test_the_walks_go_as_far_as_the_slider_and_have_the_losses_of_their_runs(opened):
    race = with_lost_runs(make_race(("sgd", "adam"), verdict_seeds=3), {"sgd": 9})
    found = opened(race).evaluate("""async () => {
const found = [];
const seen = (name) => document.getElementById(name).innerText;
function look() {
  const traces = document.getElementById("plot-plane").data;
  found.push(traces.map(({ name, x, y, marker, text }) => [name, x, y, marker.color, marker.symbol, text.at(-1)]));
}
function slide(name, value) {
  const slider = document.getElementById(name);
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  found.push(slider.getAttribute("aria-valuetext"));
}
look();
slide("plane-seed", 2);
slide("plane-epoch", 5);
await new Promise(requestAnimationFrame);
await new Promise(requestAnimationFrame);
look();
found.push(seen("note-plane"));
return found; }""")
    whole, seed, epoch, part, note = found
    assert (seed, epoch) == ("102", "5")
    assert note == plane_picture(race).views[2].note
    for found, plane, stop in ((whole, race.walks.planes[0], 30), (part, race.walks.planes[2], 5)):
        for (name, x, y, colours, symbols, text), walk, result in zip(found, plane.walks, race.rules, strict=True):
            (run,) = [run for run in result.verdict if run.seed == plane.seed]
            count = min(stop + 1, 9 if name == "sgd" else 31)
            assert name == walk.rule == result.rule
            assert (tuple(x), tuple(y)) == (walk.x[:count], walk.y[:count])
            np.testing.assert_allclose(colours, np.log10(run.valid_loss[:count]), rtol=1e-12)
            own = looks(race)[name].symbol
            assert symbols == [*[own] * (count - 1), "x" if name == "sgd" and stop == 30 else own]
            assert text == f"after epoch {count - 1}: loss {float(f'{run.valid_loss[count - 1]:.3g}'):g}"
