"""The film in a browser: its paths are Python's, and it answers to mouse and keyboard."""

import re

import numpy as np
import pytest

import downslope
from downslope import Recipe
from downslope.language.program import in_order
from downslope.walks.film import film

WALKERS = """walkers.map(w => [w.name, w.lr, [...w.points], [...w.losses], w.arrived, w.length, w.turns])"""
AT_STEPS = """walkers.map(w => { const steps = [...Array(film.steps).keys()]; return {
    limit: w.limit && w.limit.limit, effective: steps.flatMap(t => [...w.effective(t)]), memory: [...w.memory],
    sharpness: [...steps, film.steps].map(t => w.sharpness(t)), places: w.places }; })"""
EXACT = {"sgd", "momentum", "nesterov", "adagrad", "rmsprop"}  # made of + - × ÷ √
ROUNDED = {"exp", "expm1", "log", "tanh", "sin", "cos", "pow"}  # of which no two libraries round every value alike


expect = pytest.importorskip("playwright.sync_api").expect


def opened(page, tmp_path, walk):
    file = tmp_path / "film.html"
    walk.write(file)
    page.emulate_media(reduced_motion="reduce")  # nothing moves by itself
    page.goto(file.as_uri())  # its script has run by then
    return page


def check_paths(page, walk):
    rounded = ROUNDED & {e.op for e in in_order(walk.surface.program.outputs.values())}
    for path, (name, lr, points, losses, arrived, length, turns) in zip(
        walk.paths, page.evaluate(WALKERS), strict=True
    ):
        assert (name, lr) == (path.name, path.lr)
        theirs, ours = np.array(points, float).reshape(path.points.shape), path.points
        if path.recipe.rule.name in EXACT and path.recipe.dialect == "note" and not rounded:
            np.testing.assert_array_equal(theirs, ours)
        else:
            np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-9 * abs(ours).max())
        np.testing.assert_allclose(np.array(losses, float), path.losses, rtol=1e-8, atol=1e-10 * path.losses[0])
        assert arrived == (walk.steps + 1 if path.arrival is None else path.arrival)
        assert length == pytest.approx(path.length)
        assert turns == sum(path.sign_changes)
    for path, found in zip(walk.paths, page.evaluate(AT_STEPS), strict=True):
        assert found["limit"] == (path.stability.limit and pytest.approx(path.stability.limit))
        np.testing.assert_allclose(found["effective"], path.effective.ravel(), rtol=1e-6)
        np.testing.assert_allclose(found["sharpness"], path.sharpness, rtol=1e-6, atol=1e-12)
        rows = np.reshape(found["memory"], (walk.steps + 1, -1))
        for place in found["places"]:
            if place["name"] in path.states:
                theirs = rows[:, place["place"] :][:, : place["length"]]
                np.testing.assert_allclose(theirs, path.states[place["name"]], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("surface", "given"),
    [
        ("valley", {}),
        ("rosenbrock", {"steps": 150, "noise": 0.2, "seed": 5}),
        ("saddle", {"lr": 0.05, "steps": 60}),
        ("x*y", {}),
        ("bumps", {"lr": "own", "steps": 80}),
        ("logistic", {"steps": 30, "lr": 1.0}),
    ],
)
def test_the_page_walks_where_python_walks(page, tmp_path, surface, given):
    walk = downslope.walk(surface, **given)
    check_paths(opened(page, tmp_path, walk), walk)


def test_other_dialects_and_settings(page, tmp_path):
    rules = ["torch.adam", "keras.adam", "schedule_free_adamw", "lion", Recipe(downslope.momentum, mu=0.5)]
    rules += [Recipe(downslope.adam, weight_decay=0.1, decoupled=True), Recipe(downslope.sgd, cautious=True)]
    walk = downslope.walk("valley", rules, steps=60, lr=0.05)
    check_paths(opened(page, tmp_path, walk), walk)


def test_a_limit_that_depends_on_the_learning_rate_is_that_of_the_one_shown(page, tmp_path):
    walk = downslope.walk("rotated_valley", ["adamw", "sgd"], steps=12, lr=1.0)
    page = opened(page, tmp_path, walk)
    check_paths(page, walk)
    page.locator("#rate").fill("88")  # 630
    fast = downslope.walk("rotated_valley", ["adamw", "sgd"], steps=12, lr=630)
    check_paths(page, fast)
    assert [path.stability.limit for path in fast.paths] == [0, pytest.approx(2)]
    assert walk["adamw"].stability.limit == pytest.approx(37.81)


def test_how_near_every_rule_is_to_its_limit_is_shown(page, tmp_path):
    """On a curvature of 10: 0.21 times it is beyond 2, and within 3.8; what cannot be said says why."""
    walk = downslope.walk("valley", ["sgd", "momentum", "lion", "keras.rmsprop"], steps=40, lr=0.21)
    page = opened(page, tmp_path, walk)
    sgd, momentum, lion, rmsprop = page.locator("#walkers tr").all()
    assert "2.1 > 2" in sgd.inner_text()
    assert sgd.locator(".beyond").count() == 1
    assert "2.1 < 3.8" in momentum.inner_text()
    assert momentum.locator(".beyond").count() == 0
    page.get_by_label("One step back").click()
    assert re.search(
        r"sgd: loss \S+( × \S+)?, beyond its limit; momentum: loss [^,]+; lion", page.locator("#said").inner_text()
    )
    assert "no limit" in lion.inner_text()
    assert "No limit can be read off lion: it goes by the sign" in page.locator(".notes").inner_text()
    assert f"{walk['keras.rmsprop'].sharpness[40]:.3g} > 2*" in rmsprop.inner_text()
    page.locator("#scrubber").fill("1")
    expect(page.locator("#at")).to_have_text("1")
    path = walk["keras.rmsprop"]
    shown = rmsprop.inner_text()
    for number in (path.sharpness[1], *path.effective[1], *path.states["velocity"][1]):
        assert f"{number:.3g}" in shown
    page.locator("#rate").fill("52")  # 0.16
    expect(sgd).to_contain_text("1.6 < 2")


def test_moving_the_start_makes_the_walk_from_there(page, tmp_path):
    page = opened(page, tmp_path, downslope.walk("valley", steps=80))
    page.locator("#start").press("ArrowRight")
    page.locator("#start").press("ArrowUp")
    check_paths(page, downslope.walk("valley", steps=80, start=(-8.8, 1.56)))
    page.locator("#at-x").fill("5")
    page.locator("#at-x").press("Enter")
    check_paths(page, downslope.walk("valley", steps=80, start=(5, 1.56)))
    box = page.locator("#ground").bounding_box()
    page.locator("#start").hover()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.up()
    start = page.evaluate("chosen.start")
    assert start == pytest.approx([-5, 1.5], abs=0.05)
    check_paths(page, downslope.walk("valley", steps=80, start=start))


def test_learning_rates_can_be_shared(page, tmp_path):
    page = opened(page, tmp_path, downslope.walk("valley", steps=80))
    page.get_by_label("each rule its default").check()
    check_paths(page, downslope.walk("valley", steps=80, lr="own"))
    page.get_by_label("the same for all:").check()
    check_paths(page, downslope.walk("valley", steps=80, lr=0.01))
    page.locator("#rate").press("ArrowRight")
    check_paths(page, downslope.walk("valley", steps=80, lr=0.013))
    page.get_by_label("each rule its best here").check()
    check_paths(page, downslope.walk("valley", steps=80))


def test_the_call_that_is_shown_makes_this_walk(page, tmp_path):
    rules = ["sgd", "torch.adam", Recipe(downslope.momentum, mu=0.5)]
    walk = downslope.walk("himmelblau", rules, steps=30, noise=0.1, seed=2)
    page = opened(page, tmp_path, walk)
    page.locator("#start").press("ArrowLeft")
    again = eval(page.locator("#python").inner_text(), {"downslope": downslope})
    assert again.start == (-0.6, -1.0)
    check_paths(page, again)


def test_steps_are_looked_up(page, tmp_path):
    walk = downslope.walk("valley", steps=80)
    page = opened(page, tmp_path, walk)
    assert page.locator("#step").inner_text() == "80"  # the whole walk, for who wants nothing to move
    page.get_by_label("One step back").click()
    expect(page.locator("#step")).to_have_text("79")
    page.locator("#scrubber").fill("10")
    expect(page.locator("#step")).to_have_text("10")
    assert page.locator("#said").inner_text().startswith("Step 10 of 80. sgd: loss ")
    page.evaluate("chosen.speed = 1000")
    page.get_by_label("Play").click()
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play", timeout=120_000)  # it has stopped
    expect(page.locator("#step")).to_have_text("80")
    button = page.get_by_role("button", name="adam")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.evaluate("walkers.find(w => w.name === 'adam').shown") is False


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_drawn(page, tmp_path, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    opened(page, tmp_path, downslope.walk("rosenbrock", steps=40))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        """() => { const c = document.getElementById('ground'); draw();
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const seen = new Set();
        for (let k = 0; k < d.length; k += 4) seen.add(d.slice(k, k + 3).join()); return seen.size; }"""
    )
    assert colours > 100  # bands, contours and ways, and not an empty canvas


def test_the_lines_of_the_map_are_where_the_height_is(page, tmp_path):
    """Around a circle they add up to its length; where two corners are higher, the middle says which way they run."""
    opened(page, tmp_path, downslope.walk("valley", ["sgd"], steps=10))
    lines_of = """([values, count, edges]) => { const heights = Float64Array.from(values);
        return contours(heights, banded(heights, edges), count, edges); }"""
    side = np.arange(101) - 50.0
    circles = page.evaluate(lines_of, [np.hypot(*np.meshgrid(side, side)).ravel().tolist(), 101, [20.0, 40.0]])
    for radius, lines in zip((20, 40), circles, strict=True):
        ends = np.reshape(lines, (-1, 2, 2)) - 50
        np.testing.assert_allclose(np.hypot(*ends.T), radius, atol=0.05)
        assert np.hypot(*(ends[:, 1] - ends[:, 0]).T).sum() == pytest.approx(2 * np.pi * radius, rel=1e-3)
    for level, apart in ((0.6, [0, 0]), (0.4, [-0.6, 0.6])):  # corners 1 0 above 0 1: the high ones, or the low ones
        (lines,) = page.evaluate(lines_of, [[1, 0, 0, 1], 2, [level]])
        middles = np.reshape(lines, (2, 2, 2)).mean(axis=1)
        assert sorted(middles[:, 1] - middles[:, 0]) == pytest.approx(apart)


def test_a_rule_that_diverges_and_a_region_of_nan(page, tmp_path):
    opened(page, tmp_path, downslope.walk("valley", ["sgd", "adam"], lr=50, steps=300))
    assert "∞" in page.locator("#walkers").inner_text()
    opened(page, tmp_path, downslope.walk("log(x) + y**2", ["sgd"], steps=20, start=(2, 1)))


def test_nothing_but_its_own_script_runs(page, tmp_path):
    file = tmp_path / "film.html"
    downslope.walk("where(x<1, x**2, 2*x-1) + y**2").write(file)
    other = page.context.new_page()
    other.goto(file.as_uri())
    other.evaluate(
        """() => { for (const text of ['window.bad = 1']) { const s = document.createElement('script');
        s.textContent = text; document.body.append(s); setTimeout(text); } }"""
    )
    assert other.evaluate("window.bad") is None
    assert other.locator("h1").inner_text() == "where(x<1, x**2, 2*x-1) + y**2"
    other.close()


def test_it_is_small():
    assert len(film(downslope.walk("logistic", steps=20)).encode()) < 300_000
