"""A rule typed into the playground walks where Python's of the same lines walks, or is refused where it goes wrong."""

import re
from urllib.parse import quote

import numpy as np
import pytest
from typer.testing import CliRunner

import downslope
from downslope.cli import app
from downslope.pages import asset

HEAVY_BALL = "v = mu*v - lr*dx\nx += v"
ADAGRAD = "cache += dx**2\nx -= lr * dx / (sqrt(cache) + eps)"
NESTEROV = "lookahead = mu*v\nv = mu*v - lr*dx\nx += v"
BRAKE = "brake = 0.5\nv = where(v*dx > 0, brake*v, mu*v) - lr*dx\nx += v"
WALKER = (
    "(() => { const w = walkers.at(-1); return [w.id, [...w.points], w.limit && [w.limit.limit, w.limit.gain]]; })()"
)


def walks(opened, text, link="rules=sgd,own&surface=valley&lr=0.05&steps=60"):
    assert opened(f"own={quote(text)}&{link}") == ""
    return opened.page.evaluate(WALKER)


@pytest.mark.parametrize(
    "text",
    [
        HEAVY_BALL,
        ADAGRAD,
        BRAKE,
        NESTEROV,
        "g = dx/t; x = x - lr*g - 0.01*x*lr",
        "s = 1; s = 0.9*s + 0.1*dx**2\nx -= lr*dx/sqrt(s)",
    ],
)
def test_a_typed_rule_walks_where_pythons_walks(opened, text):
    name, points, _ = walks(opened, text)
    assert name == "own"
    path = downslope.walk("valley", [downslope.read_rule(text)], lr=0.05, steps=60).paths[0]
    np.testing.assert_array_equal(np.reshape(points, path.points.shape), path.points)


def test_a_choice_of_a_typed_rule_is_a_switch(opened):
    """Checked and unchecked it walks where Python's walks, its link says so, and so does its call."""
    text = "correction = True\nm = mu*m + (1 - mu)*dx\nx -= lr*m/(1 - mu**t) if correction else lr*m"
    for flag in (True, False):
        link = "" if flag else "&own.correction=0"
        _, points, limit = walks(opened, text, f"rules=own&surface=valley&lr=0.05&steps=60{link}")
        own = downslope.Recipe(downslope.read_rule(text), correction=flag)
        path = downslope.walk("valley", [own], lr=0.05, steps=60).paths[0]
        np.testing.assert_array_equal(np.reshape(points, path.points.shape), path.points)
        assert limit[0] == pytest.approx(own.rule.stability(lr=0.05, correction=flag).limit, rel=1e-7)
    called = opened.page.evaluate("python()")
    assert eval(called, {"downslope": downslope}).paths[0].points.tolist() == path.points.tolist()
    assert opened.page.evaluate("writeLink()").endswith("&own.correction=0")
    opened.page.locator("[data-flag=correction]").check()
    assert not opened.page.evaluate("writeLink()").endswith("&own.correction=0")
    assert opened.page.evaluate("walkers[0].flags") == {"correction": True, "decoupled": False}
    assert opened.page.locator("#formula .line").count() == 2


@pytest.mark.parametrize(
    "text",
    [
        "x -= lr*dx",
        HEAVY_BALL,
        NESTEROV,
        "v = mu*v + dx\nx -= lr*(dx + mu*v)",
        "m = 0.5*m + dx\nx = (1 - 0.1*lr)*x - lr*m",
    ],
)
def test_the_limit_of_a_linear_rule_is_pythons(opened, text):
    _, _, (limit, gain) = walks(opened, text)
    expected = downslope.read_rule(text).stability(lr=0.05)
    assert (limit, gain) == (pytest.approx(expected.limit, rel=1e-7), pytest.approx(expected.gain))
    path = downslope.walk("valley", [downslope.read_rule(text)], lr=0.05, steps=60).paths[0]
    shoes = opened.page.evaluate("[...walkers.at(-1).effective(5)]")
    np.testing.assert_allclose(shoes, path.effective[5], rtol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        ADAGRAD,
        BRAKE,
        "x -= lr*sign(dx)",
        "x = 2 - lr*dx",
        "lookahead = v*v; v = mu*v - lr*dx; x += v",
        "x -= lr*where(abs(dx) > 90, 1, dx)",
    ],
)
def test_of_another_rule_no_limit_is_shown(opened, text):
    assert walks(opened, text)[2] is None


def test_it_walks_while_it_is_typed_and_what_is_wrong_is_pointed_at(opened):
    assert opened("surface=valley&rules=sgd&lr=0.1&steps=60") == ""
    field, problem = opened.page.locator("#own-text"), opened.page.locator("#own-problem")
    button = opened.page.locator("#own-walks")
    assert button.is_disabled()
    field.fill(HEAVY_BALL)
    assert opened.page.evaluate("walkers.length") == 1
    button.click()
    assert opened.page.evaluate("[state.rules, state.look, walkers[1].numbers]") == [
        ["sgd", "own"],
        "own",
        {"mu": 0.9, "lr": 0.01, "weight_decay": 0},
    ]
    before = opened.page.evaluate(WALKER)
    field.fill("v = mu*v - lr*dx\nx += w")
    assert opened.page.evaluate(WALKER) == before
    assert (field.get_attribute("aria-invalid"), problem.locator("mark").inner_text()) == ("true", "w")
    assert problem.inner_text().split("\n") == [
        "x += w",
        "",
        "there is no 'w'; a line w = 0.5 above would make it a hyperparameter",
    ]
    opened.page.locator("[data-lang=zh]").click()
    assert "没有“w”这个名字" in problem.inner_text()
    opened.page.evaluate("page.change({ settings: { own: { mu: 0.5 } }, lang: 'en' })")
    field.fill("x -= lr*dx")
    assert opened.page.evaluate("[problem => problem, state.settings.own, walkers[1].numbers].slice(1)") == [
        {},
        {"lr": 0.01, "weight_decay": 0},
    ]
    button.click()
    assert opened.page.evaluate("state.rules") == ["sgd"]
    opened.page.locator("#own-example").select_option("brake")
    assert opened.page.evaluate("[state.own, state.rules]") == [BRAKE, ["sgd", "own"]]


@pytest.mark.parametrize(
    "text", [HEAVY_BALL, "x = x - lr*dx*where(dx > 0 & t < 9, 1, 2) # %", ";;x-=dx;\n\n", "x -= lr*dx/(2)"]
)
def test_its_link_opens_it_again(opened, text):
    left = opened(f"own={quote(text)}&rules=own,adam&surface=valley")
    if "#" in text:
        assert left.split("\n") == ["own unexpected '#'", "rules there are no rules of the name own"]
        return
    link = opened.page.evaluate("writeLink()")
    opened("")
    assert opened(link) == ""
    assert opened.page.evaluate("[state.own, state.rules, writeLink()]") == [text, ["own", "adam"], link]
    assert opened.page.locator("#own-text").input_value() == text


def refusals():
    """What is said of texts, by what the page says it with."""
    code = asset("downslope.targets", "typed.js") + asset("downslope.targets", "typed_rule.js")
    found = re.findall(r"(?:fail\(|GrammarError\(\w+, )([`\"])(.*?)\1", code)
    plain = [re.sub(r"\$\{[^}]*\}", "7", text.replace("${bracket}", ")")) for _, text in found]
    truths = ["a number where a truth value is needed", "a truth value where a number is needed"]
    ranges = [
        "mu must be a number from 0 to below 1",
        "lr must be a finite number of at least 0",
        "k must be a finite number",
    ]
    return [problem for problem in plain if "must be" not in problem and "where a" not in problem] + truths + ranges


def test_every_refusal_is_said_in_chinese(opened):
    assert len(refusals()) > 20
    opened("lang=zh")
    for problem in refusals():
        said = opened.page.evaluate("problem => sayProblem(problem)", problem)
        assert re.search("[\u4e00-\u9fff]", said), problem
        assert not re.search("[a-z]{5}", re.sub("return|where|correction", "", said)), said


def test_ones_own_rule_from_a_file_walks_in_the_page(opened, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from downslope import rule, sign\n\n\n@rule\ndef march(x, dx, m=0, *, lr=0.1, mu=0.9):\n"
        "    m = mu * m + dx\n    return x - lr * sign(m), m\n"
    )
    target = tmp_path / "page.html"
    ran = CliRunner().invoke(app, ["play", f"{tmp_path / 'mine.py'}:march", "adam", "--out", str(target)])
    assert ran.exit_code == 0, ran.output
    other = opened.page.context.new_page()
    other.emulate_media(reduced_motion="reduce")
    other.goto(target.as_uri())
    assert other.evaluate("state.rules") == ["march", "adam"]
    found = other.evaluate("(page.change({ surface: 'valley', lr: 0.05 }), [...walkers[0].points])")
    other.close()
    march = downslope.read_rule("m = mu*m + dx; x -= lr*sign(m)")
    expected = downslope.walk("valley", [march], lr=0.05, steps=200).paths[0].points
    np.testing.assert_array_equal(np.reshape(found, (-1, 2)), expected)
