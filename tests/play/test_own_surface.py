"""A surface typed into the playground is the one that Python reads: its ground, its walks, its window, its refusals."""

from urllib.parse import quote

import numpy as np
import pytest

import downslope
from downslope.walks.walking import lowest_places

ROSENBROCK = "(1 - x)**2 + 100*(y - x**2)**2"
WAVES = "x**2/4 + y**2 + 2*sin(2*x)*cos(2*y)"
FAR = "(x - 100)**2/50 + abs(x)**1.5"
CLIFF = "where(x > 1, exp(-x), 2 - x) + log(1 + y**2)"


def opens(opened, text, rest=""):
    return opened(f"surface={quote(text)}&steps=40&lr=0.01&rules=sgd,momentum,adam{rest}")


@pytest.mark.parametrize(
    ("text", "ends"),
    [(ROSENBROCK, None), (WAVES, None), (WAVES, [-1, 2, 0, 3]), (FAR, [-20, 20]), (CLIFF, None), ("-x", None)],
)
def test_it_is_pythons(opened, text, ends):
    rest = f"&window={','.join(map(str, ends))}" if ends else ""
    assert opens(opened, text, rest) == ""
    start, window, minima, lowest, goal, found, python = opened.page.evaluate(
        """[state.start, state.window, surface.minima, surface.lowest, goal, walkers.map(w => [...w.points]),
        find("python").textContent]"""
    )
    pairs = list(zip(window[::2], window[1::2], strict=True))
    assert window == (ends or [-5, 5] * len(pairs))
    surface = downslope.read_surface(text, ranges=dict(zip("xy", pairs, strict=False)))
    read = f'"{text}"' if ends is None else f'downslope.read_surface("{text}", ranges='
    assert python.startswith(f"downslope.walk({read}")
    walk = downslope.walk(surface, ["sgd", "momentum", "adam"], start=start, steps=40, lr=0.01)
    for path, points in zip(walk.paths, found, strict=True):
        np.testing.assert_allclose(points, path.points.ravel(), rtol=1e-9, atol=1e-12)
    expected_minima, expected_lowest = lowest_places(surface)
    assert (lowest, goal) == (pytest.approx(expected_lowest, abs=1e-12), pytest.approx(walk.goal, abs=1e-12))
    np.testing.assert_allclose(minima, [*expected_minima], atol=1e-6)


@pytest.mark.parametrize("text", [ROSENBROCK, WAVES, FAR, CLIFF])
def test_its_slope_is_that_of_differences(opened, text):
    """And its curvature that of its slope; the surface turned and stretched is so too."""
    assert opens(opened, text, "&turn=20&stretch=2&times=3") == ""
    size = opened.page.evaluate("surface.variables.length")
    places = np.random.default_rng(0).uniform(-3, 3, (10, size))
    step = 1e-5
    near = [place + offset for place in places for e in np.eye(size) for offset in (step * e, -step * e)]
    at = "places => places.map(at => [...surface.height(at, []), ...surface.second(at, [])])"
    here = np.array(opened.page.evaluate(at, places.tolist()))
    around = np.array(opened.page.evaluate(at, [place.tolist() for place in near])).reshape(10, size, 2, -1)
    differences = (around[:, :, 0] - around[:, :, 1]) / (2 * step)
    np.testing.assert_allclose(here[:, 1 : 1 + size], differences[:, :, 0], rtol=1e-6, atol=1e-5)
    seconds = here[:, 1 + size :].reshape(10, size, size)
    np.testing.assert_allclose(seconds, differences[:, :, 1 : 1 + size], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x**2 +", "expected a number, a name or ("),
        ("x**2 + z", "there is no 'z'"),
        ("constructor", "there is no 'constructor'"),
        ("__proto__", "there is no '__proto__'"),
        ("x > 1", "the formula is a truth value, not a number"),
        ("x" * 201, "the formula has 201 characters"),
        ("3 + x - x", "it is level everywhere"),
        ("log(-1 - x**2)", "the loss and its slope are finite nowhere here"),
    ],
)
def test_what_is_no_ground_is_left_out_and_the_reason_said(opened, text, why):
    assert opens(opened, text).startswith(f"surface {why}")
    assert opened.page.evaluate("[state.surface, state.steps]") == ["double_well", 40]
    opens(opened, text, "&lang=zh")
    assert any("\u4e00" <= letter <= "\u9fff" for letter in opened.page.locator("#left-list").inner_text())


@pytest.mark.parametrize(
    ("window", "why"),
    [
        ("1,2", "expected 4 number(s)"),
        ("1,2,3,3", "each axis ends above where it begins"),
        ("-9,-8,x,1", "expected a number from −1 × 10⁶ to 10⁶"),
    ],
)
def test_a_window_that_is_none_is_left_out(opened, window, why):
    assert opens(opened, WAVES, f"&window={window}") == f"window {why}"
    assert opened.page.evaluate("state.window") == [-5, 5, -5, 5]


def test_a_steep_and_a_broken_one_are_drawn(opened):
    """Infinite, undefined or flat in parts: nothing complains, and walkers go on or stand."""
    for text in ("exp(100*x)", "exp(exp(x)) + y", "1/x + y**2", "sqrt(x) + log(y)", "where(x > 0, 1, 0)", "1e300*x**2"):
        assert opens(opened, text, "&t=20") == ""
        opened.page.evaluate("draw()")
    assert opened.page.evaluate("state.window") == [-5, 5]
    assert opens(opened, "(x - 300)**2") == ""
    assert opened.page.evaluate("[state.window, surface.minima[0].map(Math.round)]") == [[-500, 500], [300]]
    assert opens(opened, "valley", "&window=1,2") == "window only for a surface that was typed"


def test_it_is_typed_and_its_link_opens_it_again(opened):
    opened("surface=valley&steps=40")
    page = opened.page
    field, problem = page.locator("#formula-text"), page.locator("#formula-problem")
    assert not field.is_visible()
    page.locator("#surface").select_option(label="type a formula …")
    assert field.input_value() == page.evaluate("state.surface")
    field.fill(WAVES)
    field.fill(ROSENBROCK + " +")
    assert page.evaluate("state.surface") == WAVES
    assert problem.inner_text().split("\n")[-1] == "expected a number, a name or ("
    assert field.get_attribute("aria-invalid") == "true"
    field.fill(ROSENBROCK)
    assert (problem.inner_text(), page.evaluate("state.surface")) == ("", ROSENBROCK)
    page.get_by_label("x from").fill("-2")
    page.get_by_label("x from").press("Enter")
    page.get_by_label("y from").fill("9")
    page.get_by_label("y from").press("Enter")  # above its end: it goes back
    assert page.evaluate("state.window") == [-2, 5, -5, 5]
    link, walked = page.evaluate("[writeLink(), [...walkers[0].points]]")
    opened("")
    assert not field.is_visible()
    assert opened(link) == ""
    assert page.evaluate("[writeLink(), [...walkers[0].points]]") == [link, walked]
    assert field.is_visible()
    assert field.input_value() == ROSENBROCK
    field.fill("x**2")
    assert page.evaluate("[state.start, state.window]") == [[-4], [-5, 5]]
    page.locator("#surface").select_option("bowl")
    assert page.evaluate("[state.window, state.surface]") == [[], "bowl"]
