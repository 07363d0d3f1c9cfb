import dataclasses
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

import downslope
from downslope.lab import Race
from downslope.lab.races.comparison import Interval
from downslope.lab.races.notebook import medians
from race_fixture import GRID, interrupt, make_race

RACES = {
    "finished": make_race(("sgd", "adam")),
    "regression": make_race(("sgd",), task="regression", verdict_seeds=1),
    "diverged": make_race(("sgd",), everything_diverges=True),
    "interrupted": interrupt(make_race(("sgd", "adam", "rmsprop"))),
}


@pytest.fixture
def document():
    return json.loads(RACES["finished"].to_json())


@pytest.mark.parametrize("case", ["finished", "diverged", "interrupted"])
def test_round_trip(case):
    text = RACES[case].to_json()
    race = Race.from_json(text)
    assert race == RACES[case]
    assert race.to_json() == text
    assert type(race.rules[0].tuning[0].valid_loss) is tuple


def test_missing_numbers_survive():
    loss = Race.from_json(RACES["regression"].to_json()).rules[0].loss
    assert math.isnan(loss.low)
    assert math.isnan(loss.high)
    assert loss.estimate == RACES["regression"].rules[0].loss.estimate


def test_any_parser_can_read_it():
    text = RACES["diverged"].to_json()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert '"inf"' in text


def test_settings_keep_their_kind(document):
    adam = Race.from_json(json.dumps(document)).rules[1].hyperparameters
    assert adam["bias_correction"] is True
    assert type(adam["beta1"]) is float


def test_numpy_scalars_become_plain_numbers():
    race = RACES["finished"]
    first = dataclasses.replace(
        race.rules[0], loss=Interval(np.float32(0.5), np.float64(0.25), np.float64("nan"), 0.95)
    )
    race = dataclasses.replace(race, weights=np.int64(7), rules=(first,), comparisons=())
    found = Race.from_json(race.to_json())
    assert (found.weights, type(found.weights)) == (7, int)
    assert (found.rules[0].loss.estimate, found.rules[0].loss.low) == (0.5, 0.25)


def test_what_json_cannot_hold_is_refused():
    race = dataclasses.replace(RACES["finished"], environment={"packages": {"numpy": object}})
    with pytest.raises(ValueError, match=r"environment\['packages'\]\['numpy'\]: .* is a type"):
        race.to_json()
    race = dataclasses.replace(RACES["finished"], environment={1: "one"})
    with pytest.raises(ValueError, match="environment: the key 1 is no string"):
        race.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("epochs"), r"race: missing keys \['epochs'\]"),
        (lambda d: d.update(colour="red"), r"race: unknown keys \['colour'\]"),
        (lambda d: d["rules"][1]["tuning"][3].pop("seed"), r"rules\[1\].tuning\[3\]: missing keys \['seed'\]"),
        (lambda d: d["rules"][0]["tuning"][0].update(lr="fast"), r"tuning\[0\].lr: expected a number, found 'fast'"),
        (lambda d: d["rules"][0]["tuning"][0].update(seed=1.5), r"seed: expected a whole number, found 1.5"),
        (lambda d: d["rules"][0]["tuning"][0].update(seed=True), r"seed: expected a whole number, found True"),
        (lambda d: d["rules"][0].update(safe_range=[0.1]), r"safe_range: expected a list of 2, found \[0.1\]"),
        (lambda d: d.update(task="poetry"), r"task: expected 'classification' or 'regression', found 'poetry'"),
        (lambda d: d.update(interrupted=0), r"interrupted: expected true or false, found 0"),
        (lambda d: d.update(rules={}), r"rules: expected a list, found {}"),
        (lambda d: d.update(title=None), r"title: expected text, found None"),
        (lambda d: d.update(sizes=[1]), r"sizes: expected an object, found \[1\]"),
        (lambda d: d.update(format=99), r"format 99"),
        (lambda d: d.pop("format"), r"no key 'format'"),
    ],
)
def test_reading_is_strict(document, change, message):
    change(document)
    with pytest.raises(ValueError, match=message):
        Race.from_json(json.dumps(document))


def test_a_race_from_before_there_were_walks_has_none(document):
    assert document.pop("walks")["planes"]
    assert Race.from_json(json.dumps(document)) == dataclasses.replace(RACES["finished"], walks=None)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_race_is_refused(text):
    with pytest.raises(ValueError, match="This is no race"):
        Race.from_json(text)


def test_a_notebook_shows_the_verdict_the_canyon_and_the_rules_and_names_stay_what_they_are():
    race = make_race(("sgd", "adam"))
    name = "<b>*my_rule*|</b>"
    shown = dataclasses.replace(
        race, rules=(race.rules[0], dataclasses.replace(race.rules[1], rule=name))
    )._repr_html_()
    root = ElementTree.fromstring(shown)
    assert root.find("p/strong").text == race.verdict
    first = ["".join(cell.itertext()) for cell in root.find("table/tbody/tr")]  # the lowest
    loss = race.rules[1].loss
    assert first == [f" {name}", "0.00464", f"{loss.estimate:.3g} [{loss.low:.3g}, {loss.high:.3g}]"]
    groups = list(root.iterfind("svg/g"))
    lines = {group.find("title").text: group.findall("path")[-1].get("d") for group in groups}
    finals = [medians((run.lr, run.final_loss) for run in result.tuning) for result in race.rules]
    finite = [sum(map(math.isfinite, losses.values())) for losses in finals]
    assert [len(re.findall("[ML]", lines[rule])) for rule in ("sgd", name)] == finite
    crosses = [path for path in root.iterfind("svg/g/path") if path.get("d").endswith("l8 8m-8 0l8 -8")]
    assert len(crosses) == 2 * len(GRID) - sum(finite) > 0
    nothing = ElementTree.fromstring(make_race(everything_diverges=True)._repr_html_())
    assert nothing.find("svg") is None


def test_what_a_race_recommends_is_a_recipe():
    race = make_race(("sgd", "adam"))
    sgd = dataclasses.replace(race.rules[0], formula=downslope.sgd.latex())
    assert dataclasses.replace(race, rules=(sgd,)).recommend() == downslope.Recipe(downslope.sgd, lr=sgd.best_lr)
    with pytest.raises(ValueError, match=r"adam at lr 0\.00464\d* is recommended, but that is no rule of downslope's"):
        race.recommend()
    with pytest.raises(ValueError, match="recommends nothing: it was stopped before its end"):
        interrupt(race).recommend()
    with pytest.raises(ValueError, match="recommends nothing: no rule got to the end"):
        make_race(everything_diverges=True).recommend()
