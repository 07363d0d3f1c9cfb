"""Lessons: what an answer claims is what the walkers do, its numbers are Python's, and it is said of no other state."""

import re

import pytest

import downslope

LESSONS = ["zigzag", "tuned", "limits", "cycle", "hill", "saddle", "adagrad", "rmsprop", "first", "correction", "eps"]
LESSONS += ["dialects", "turned", "worth", "batches"]
TRIED = """() => { while (!isTried()) tryRates(100);
  while (state.lesson === "batches" && !isTrained()) trainFor(100, 1);
  draw(); }"""


def answered(opened, link):
    """What the page says to a guess."""
    assert opened(link) == ""
    opened.page.evaluate(TRIED)
    return opened.page.locator("#answer").inner_text()


def test_there_is_a_test_for_every_lesson(opened):
    assert opened.page.evaluate("Object.keys(LESSONS)") == LESSONS


@pytest.mark.parametrize("name", LESSONS)
def test_what_an_answer_claims_is_what_the_walkers_do(opened, name):
    right = opened.page.evaluate("name => LESSONS[name].right", name)
    said = answered(opened, f"lesson={name}&guess={right}")
    assert opened.page.evaluate("name => LESSONS[name].holds(byId())", name)
    assert said.startswith("Right. ")
    in_chinese = answered(opened, f"lesson={name}&guess={(right + 1) % 3}&lang=zh")
    assert in_chinese.startswith("不对。")
    for text in (said, in_chinese):
        assert not re.search(r"[{}–]|NaN|undefined", text)
    numbers = [set(re.findall(r"−?\d+(?:\.\d+)?", text)) for text in (said, in_chinese)]
    facts = opened.page.evaluate("name => Object.values(LESSONS[name].facts(byId())).map(String)", name)
    shown = [fact for fact in facts if re.fullmatch(r"−?\d+(\.\d+)?", fact)]
    assert shown
    assert all(fact in numbers[0] and fact in numbers[1] for fact in shown)


def facts(opened, name):
    answered(opened, f"lesson={name}&guess=0")
    return opened.page.evaluate("name => LESSONS[name].facts(byId())", name)


def arrivals(surface, rules, **settings):
    return [str(path.arrival) for path in downslope.walk(surface, rules, **settings).paths]


def test_the_numbers_of_answers_are_pythons(opened):
    found = facts(opened, "limits")
    for name in ("sgd", "momentum", "nesterov"):  # the curvature across the valley is 10
        assert float(found[name]) == pytest.approx(getattr(downslope, name).stability().limit / 10, abs=5e-4)
    found = facts(opened, "turned")
    start = (-12 / 2**0.5, 2 / 2**0.5)
    rules = ["sgd", "adam", "rmsprop"]
    before = arrivals("valley", rules, lr=0.1, start=start, steps=400)
    assert [str(found[f"{name}Before"]) for name in rules] == before
    assert [found[name] for name in rules] == arrivals("rotated_valley", rules, lr=0.1, steps=400)
    found = facts(opened, "zigzag")
    assert [found["sgdSteps"], found["momentumSteps"]] == arrivals("valley", ["sgd", "momentum"], lr=0.15, steps=200)
    found = facts(opened, "adagrad")
    best = downslope.walk("valley", ["adagrad"], lr="best", steps=200).paths[0]
    assert (float(found["best"]), found["soon"]) == (best.lr, best.arrival)
    found = facts(opened, "tuned")
    other = downslope.Recipe(downslope.momentum, mu=0.57)
    expected = arrivals("valley", ["sgd", "momentum", other], lr="best", steps=200)
    assert [found["sgd"], found["momentum"], found["other"]] == expected


def test_a_question_hides_the_answer_and_a_guess_shows_it(opened):
    assert opened("lesson=zigzag") == ""
    page = opened.page
    assert page.evaluate("walkers.map(w => w.shown)") == [False, False]
    assert not page.locator("#chips small").first.is_visible()
    assert not page.locator("section.numbers").is_visible()
    assert page.locator("#answer").inner_text() == ""
    page.locator(".choices button").first.click()
    assert page.evaluate("walkers.map(w => w.shown)") == [True, True]
    assert "Momentum's" in page.locator(".choices .right").inner_text()
    assert "SGD's: it zigzags" in page.locator(".choices .wrong").inner_text()
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert page.locator("#answer").inner_text().startswith("Not so. Momentum's way is 3.88 times")
    page.evaluate("page.change({ lr: 0.01 })")
    assert page.locator("#answer").inner_text().startswith("You have changed something")
    page.evaluate("page.change({ lr: 0.15 })")
    assert page.locator("#answer").inner_text().startswith("Not so. Momentum's way is 3.88 times")


@pytest.mark.parametrize(
    "change", ["lr=0.1", "start=-5,1", "valley.kappa=10", "momentum.mu=0.5", "steps=50", "rules=sgd"]
)
def test_a_link_that_says_something_else_gets_no_answer(opened, change):
    assert answered(opened, f"lesson=zigzag&guess=1&{change}").startswith("You have changed something")


def test_links_of_lessons(opened):
    opened("lesson=saddle&guess=2&lang=zh&hide=rates,surface")
    page = opened.page
    assert not page.locator("#surface").is_visible()
    assert not page.locator("[data-rates=best]").is_visible()
    link = page.evaluate("writeLink()")
    before = page.evaluate("JSON.stringify(state)")
    opened("")
    assert page.locator("#lessons li").count() == len(LESSONS)
    assert opened(link) == ""
    assert page.evaluate("JSON.stringify(state)") == before
    assert "lesson" in opened("lesson=zag")
    assert "guess" in opened("lesson=zigzag&guess=7")
    page.evaluate("location.hash = '#lesson=hill'")
    opened.until("state.lesson === 'hill'")
    page.locator("#lessons a").last.click()
    opened.until("state.lesson === 'saddle'")
    page.locator("#lessons a").first.click()
    opened.until("state.lesson === ''")
    assert page.evaluate("document.body.className") == ""


def test_a_teacher_takes_parts_away(opened):
    """What `hide` names is out of sight, and all else that is not inside of it stays."""
    seen = """partsOf().filter(part =>
        [...document.querySelectorAll(`[data-part="${part}"]`)].some(each => each.checkVisibility()))"""
    opened("surface=valley")
    parts = opened.page.evaluate("partsOf()")
    assert opened.page.evaluate(seen) == parts
    inside = {"stage": {"steps"}, "closely": {"settings"}}
    for part in parts:
        assert opened(f"surface=valley&hide={part}") == ""
        assert {*parts} - {*opened.page.evaluate(seen)} == {part, *inside.get(part, ())}
    opened(f"surface=valley&hide={','.join(parts)}")
    assert opened.page.evaluate(seen) == []
