"""What a claim is, how its verdict follows, and what is measured in walks."""

import math
import re
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import downslope.play
from downslope.claims import CLAIMS, Claim, Part, Quantity, Walked, at_least, at_most, experiments
from downslope.claims import measures as m
from downslope.claims.claim import Found, kind, verdict
from downslope.claims.drawing import is_drawing
from downslope.claims.experiments import rule_of
from downslope.claims.measuring import Bench
from downslope.claims.shelf import asked, read, written
from downslope.claims.words import surprises

LESSONS = (Path(downslope.play.__file__).parent / "lessons.js").read_text()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_an_entry_is_whole(claim):
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", claim.name)
    assert claim.literature
    assert [other.name for other in CLAIMS].count(claim.name) == 1
    lesson = claim.play.removeprefix("lesson=")
    assert lesson == claim.play or re.search(rf"^(  {lesson}: {{|LESSONS.{lesson} =)", LESSONS, re.MULTILINE)
    for part in claim.parts:
        assert not part.when.startswith("when")
        assert math.isfinite(part.holds.bound)
        for name in part.experiment.entrants:
            assert rule_of(name).name == name.partition(",")[0].rpartition(".")[2]


@pytest.mark.parametrize(
    ("threshold", "ends", "outcome"),
    [
        (at_most(1), (0.5, 0.4, 1.0), "yes"),
        (at_most(1), (0.5, 0.4, 1.1), "open"),
        (at_most(1), (1.0, 1.0, 1.0), "yes"),
        (at_most(1), (1.2, 1.01, math.inf), "no"),
        (at_least(5), (7.0, 5.0, 9.0), "yes"),
        (at_least(5), (7.0, 4.9, 9.0), "open"),
        (at_least(5), (4.0, 3.0, 4.9), "no"),
        (at_least(5), (math.inf, math.inf, math.inf), "yes"),
        (at_least(5), (7.0, math.nan, math.nan), "open"),
    ],
)
def test_the_whole_interval_lies_on_one_side(threshold, ends, outcome):
    assert threshold.outcome(Quantity(*ends)) == outcome


@pytest.mark.parametrize(
    ("outcomes", "word", "beginnings"),
    [
        (["yes", "yes", "yes"], "holds", ["Holds when"]),
        (["yes", "missing", "missing"], "holds when", ["Holds when", "Not measured here when"]),
        (["yes", "no", "open"], "holds when", ["Holds when", "Does not hold when", "Cannot be told when"]),
        (["no", "no", "no"], "does not hold", ["Does not hold when"]),
        (["open", "no", "no"], "fails when", ["Does not hold when", "Cannot be told when"]),
        (["no", "missing", "no"], "fails when", ["Does not hold when", "Not measured here when"]),
        (["open", "open", "missing"], "not shown", ["Cannot be told when", "Not measured here when"]),
        (["missing", "missing", "missing"], "not measured", ["Not measured here when"]),
    ],
)
def test_a_verdict_follows_from_its_parts(outcomes, word, beginnings):
    walked = Walked("bowl", "sgd")
    parts = [Part(f"it is {k}", m.left("sgd"), at_most(1), "yes", walked) for k in range(3)]
    claim = Claim("three", "Three.", "", ("nobody",), "", tuple(parts))
    found = [Found(outcome) for outcome in outcomes]
    assert kind(found) == word
    told = verdict(claim, found)
    assert [words for words, _ in told] == beginnings
    assert sorted(part.when for _, some in told for part, _ in some) == ["it is 0", "it is 1", "it is 2"]
    right, done = outcomes.count("yes"), 3 - outcomes.count("missing")
    assert surprises(claim, found) == (f"{right} of {done} as expected" if done else "none was measured")


def claim_of(name, *parts):
    return Claim(name, "A claim.", "Expected.", ("Somebody, 1900.",), "surface=bowl", parts)


FIRST = Walked("bowl", {"adam": {}, "adam, plain": {"bias_correction": False}}, {"lr": 0.1, "steps": 20})
VALLEY = Walked("valley", "sgd, momentum", {"lr": 0.15, "steps": 150})
SMALL = claim_of(
    "small",
    Part("it is the first step", m.stride("adam, plain", "adam"), at_least(2), "yes", FIRST),
    Part("steps are counted", m.steps("momentum", "sgd"), at_most(0.8), "yes", VALLEY),
    Part("the way is measured", m.detour("momentum", "sgd"), at_most(1), "yes", VALLEY),
    Part("it turns", m.turns("sgd"), at_least(1), "yes", VALLEY),
    Part("it must get there", m.left("sgd"), at_most(1e-3), "yes", VALLEY),
    Part("stability is asked for", m.limit("momentum", "sgd"), at_least(1), "yes", VALLEY),
    Part("shoes are looked at", m.growth("sgd"), at_most(1), "yes", VALLEY),
)


def test_walks_are_measured_by_known_numbers():
    found = Bench().measure(SMALL).found
    first, steps, way, turns, left, limit, growth = (one.quantity for one in found)
    assert first.estimate == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-6)
    assert (steps.estimate, steps.said) == (63 / 100, "momentum 63, sgd 100")
    assert way.estimate == pytest.approx(2.81, abs=0.01)
    assert turns.estimate > 3
    assert left.estimate < 1e-3
    assert limit.estimate == pytest.approx(3.8 / 2)
    assert growth.estimate == pytest.approx(1)  # the learning rate itself
    assert [one.outcome for one in found] == ["yes", "yes", "no", "yes", "yes", "yes", "yes"]


def test_a_rule_that_never_arrives_is_infinitely_late():
    stuck = Walked("valley", "sgd, adagrad", {"lr": 0.1, "steps": 160})
    late, soon = m.steps("adagrad", "sgd").of(stuck.run()), m.steps("sgd", "adagrad").of(stuck.run())
    assert (late.estimate, late.said) == (math.inf, "adagrad never, sgd 150")
    assert soon.estimate == 0


def test_of_several_forms_the_soonest_is_meant():
    forms = {"sgd": {}, "momentum, mu 0.5": {"mu": 0.5}, "momentum, mu 0.9": {"mu": 0.9}}
    found = Walked("valley", forms, {"steps": 120}).run()
    assert found.path("momentum").arrival == min(found.paths[name].arrival for name in list(forms)[1:])
    assert found.path("sgd") is found.paths["sgd"]
    assert found.path("momentum, mu 0.9").recipe.numbers["mu"] == 0.9


def test_a_noisy_walk_is_told_by_ten_seeds_of_its_noise():
    noisy = {"lr": 0.1, "noise": 1.0, "steps": 30}
    found = m.floor("sgd", "").of(Walked("bowl", "sgd", {**noisy, "seed": 4}).run())
    alone = [
        float(downslope.walk("bowl", downslope.sgd, **noisy, seed=seed).paths[0].losses[15:].mean())
        for seed in range(4, 14)
    ]
    assert (found.low, found.high) == pytest.approx((min(alone), max(alone)))
    assert found.estimate == pytest.approx(statistics.median(alone))
    assert at_most(found.estimate).outcome(found) == "open"


@pytest.mark.parametrize(
    ("ends", "outcome"), [((0.046, 0.022), "open"), ((0.1, 0.022), "open"), ((0.22, 0.022), "yes"), ((1, 0.022), "yes")]
)
def test_a_highest_learning_rate_is_known_to_one_step_of_the_grid(ends, outcome):
    from downslope.claims.racing import Races  # needs JAX, which a test of the command has taken away

    grid = (0.01, 0.022, 0.046, 0.1, 0.22, 0.46, 1.0)
    results = {
        name: SimpleNamespace(safe_range=(0.01, end), tuning=[SimpleNamespace(lr=lr) for lr in grid])
        for name, end in zip(("adam", "sgd"), ends, strict=True)
    }
    found = m.highest("adam", "sgd").of(Races(results, {}))
    beyond = min((lr for lr in grid if lr > ends[0]), default=math.inf)
    assert (found.estimate, found.low, found.high) == (ends[0] / 0.022, ends[0] / 0.046, beyond / 0.022)
    assert at_least(4).outcome(found) == outcome


def test_a_question_is_another_one_with_another_experiment_measure_or_formula(monkeypatch):
    part = SMALL.parts[1]
    formula = {"experiment": replace(VALLEY, rules={"sgd": {}, "momentum": {"mu": 0.8}})}
    others = [
        *(
            {"experiment": replace(VALLEY, **given)}
            for given in ({"surface": "rotated_valley"}, {"given": {"lr": 0.1}})
        ),
        {"measure": m.steps("sgd", "momentum")},
        formula,
    ]
    hashes = {asked(part), *(asked(replace(part, **each)) for each in others)}
    assert len(hashes) == 5
    assert asked(replace(part, when="said otherwise", holds=at_most(0.7))) == asked(part)
    monkeypatch.setattr(experiments, "rule_of", lambda name: downslope.rules.nesterov)  # as if it were mended
    assert asked(part) not in hashes


def test_what_was_measured_is_written_and_read_again():
    measured = Bench().measure(SMALL)
    told = written(measured)
    assert read(told, SMALL) == measured
    told["found"][0]["quantity"] |= {"estimate": "inf", "low": 0.5, "high": "inf"}
    assert read(told, SMALL).found[0] == Found(
        "open", replace(measured.found[0].quantity, estimate=math.inf, low=0.5, high=math.inf)
    )
    assert written(read(told, SMALL)) == told
    for broken in ({"found": told["found"][1:]}, {"name": "other"}, {"pictures": []}):
        with pytest.raises(ValueError, match="it is not what is measured of small"):
            read(told | broken, SMALL)


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<meta http-equiv="refresh" content="0;url=http://evil.example"/>',
        '<path d="M0,0" onclick="alert(1)"/>',
        '<rect fill="url(http://evil.example)"/>',
        "<!-- --><g/>",
        "</svg><p>",
    ],
)
def test_what_is_no_drawing_is_known(inside):
    svg = Bench().measure(replace(SMALL, parts=SMALL.parts[:1])).pictures[0].svg
    assert is_drawing(svg)
    assert not is_drawing(svg.replace("</svg></svg>", f"</svg>{inside}</svg>"))
