"""The playground for everybody: keyboard, screen readers, narrow windows, no script, no network."""

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def sized(playground):
    """The page in windows of other sizes, and back."""
    yield lambda width, height: playground.set_viewport_size({"width": width, "height": height})
    playground.set_viewport_size({"width": 1300, "height": 2000})
    playground.emulate_media(color_scheme="light", reduced_motion="reduce")


@pytest.mark.parametrize(
    ("width", "scheme", "lang", "surface"), [(1300, "light", "en", "valley"), (390, "dark", "zh", "x**2/9 %2B y**2")]
)
def test_axe_finds_nothing(playground, opened, sized, width, scheme, lang, surface):
    sized(width, 900)
    playground.emulate_media(color_scheme=scheme)
    opened(f"surface={surface}&noise=0.3&cloud=1&turn=20&lang={lang}&off=sgd&speling=3")
    found = axe.Axe().run(playground).response
    assert len(found["passes"]) > 20
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def test_on_paper_a_walk_stands_still_and_its_numbers_are_there(playground, opened, sized):
    """Both are out of sight in so low a window, where they are not drawn while something moves."""
    sized(1300, 300)
    opened("surface=valley&steps=5000&t=1")
    opened.until("inSight.size === 0")
    playground.evaluate("now.playing = true; now.step = 77; draw(); dispatchEvent(new Event('beforeprint'))")
    playground.emulate_media(media="print")
    try:
        opened.until("find('at').textContent === '77'")
        assert not playground.evaluate("now.playing")
        assert playground.evaluate("document.querySelector('#numbers tbody td').textContent") != ""
    finally:
        playground.emulate_media(media="screen")


@pytest.mark.parametrize("width", [200, 320, 390, 768, 1440])
def test_it_fits(playground, opened, sized, width):
    sized(width, 800)
    for lang in ("en", "zh"):
        opened(f"surface=rotated_valley&rules=schedule_free_adamw,optax.rmsprop_momentum&lang={lang}&turn=20")
        playground.evaluate("draw()")
        assert playground.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_to_be_hit_is_large_enough(playground, opened, sized):
    """24 pixels each way (WCAG 2.2, 2.5.8), for all that is no link in a sentence."""
    sized(390, 844)
    opened("surface=valley&noise=0.3&turn=20")
    small = playground.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, input, textarea")].filter(e => {
        const box = (e.type === "checkbox" ? e.closest("label") : e).getBoundingClientRect();
        return e.checkVisibility() && (box.width < 24 || box.height < 24); }).map(e => e.outerHTML)"""
    )
    assert small == []


def test_everything_can_be_done_from_the_keyboard(playground, opened):
    """All that does something is reached by the tabulator key, and what is dragged has arrow keys."""
    opened("surface=valley&lr=0.05&steps=40&t=3")
    playground.evaluate("document.body.focus()")
    reached = []
    for _ in range(150):
        playground.keyboard.press("Tab")
        reached.append(playground.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if reached.count(reached[0]) > 1:
            break
    for each in ("surface", "start", "play", "scrubber", "rate", "slope", "copy-python", "own-text", "add"):
        assert any(name.startswith(each) for name in reached), each
    playground.locator("#start").press("ArrowLeft")
    assert playground.evaluate("state.start[0]") == -9.2
    playground.locator("h1").click()
    playground.keyboard.press("ArrowRight")
    assert playground.evaluate("now.step") == 4
    assert playground.locator("#said").inner_text().startswith("Step 4 of 40. sgd: loss ")
    playground.keyboard.press(" ")
    assert playground.evaluate("now.playing")
    playground.keyboard.press(" ")
    assert not playground.evaluate("now.playing")


def test_no_walker_is_told_by_its_colour_alone(playground, opened):
    """Ten at once: no two have the same dash and the same mark."""
    names = "sgd,momentum,nesterov,adagrad,rmsprop,adam,adamw,nadam,lion,adan"
    opened(f"surface=valley&steps=10&rules={names}")
    marks = playground.evaluate("walkers.map(w => [w.shape, w.dash.join()].join())")
    assert len(set(marks)) == 10


def test_a_dash_is_the_same_beside_the_name(playground, opened):
    """Whatever is dashed has gaps: the line beside a name, too, which is as wide as the line on the map says."""
    opened("surface=valley&rules=sgd,momentum,nesterov,adagrad")
    gaps = playground.evaluate(
        """walkers.map(({ chipKey, dash }) => { drawAllKeys();
        const { width, height } = chipKey, row = chipKey.getContext("2d").getImageData(0, height / 2, width, 1).data;
        return [dash.length > 0, row.filter((_, k) => k % 4 === 3).indexOf(0) >= 0]; })"""
    )
    assert gaps == [[False, False], [True, True], [True, True], [True, True]]


def test_no_way_is_pale(playground, opened):
    """Old or new, a way has its walker's whole colour, which tests/pages/test_theme.py holds to 3:1 from the map."""
    opened("surface=valley&steps=60&t=60&lr=0.1&rules=sgd,momentum,nesterov,adagrad,rmsprop,adam,adamw")
    drawn = playground.evaluate(
        """new DOMParser().parseFromString(svg(), "image/svg+xml").querySelectorAll("path").values()
        .map(path => [path.getAttribute("stroke"), path.getAttribute("opacity")]).toArray()"""
    )
    colours = playground.evaluate("walkers.map(w => colour(w.colour))")
    assert len(set(colours)) == 7
    for colour in colours:
        own = [opacity for stroke, opacity in drawn if stroke == colour]
        assert own == [None] * 3  # what lies behind, the last steps, and the line beside the name


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_it_fits_in_the_letters_of_whatever_font_there_is(playground, opened, sized, lang):
    """None of those that it names: the browser takes its own, whose letters have other widths."""
    opened(f"surface=rotated_valley&rules=schedule_free_adamw,optax.rmsprop_momentum&lang={lang}&turn=20")
    named = playground.evaluate("getComputedStyle(document.body).fontFamily")
    playground.evaluate(
        "document.documentElement.style.setProperty('--mono', document.body.style.fontFamily = 'No-such-font')"
    )
    try:
        assert playground.evaluate("getComputedStyle(document.body).fontFamily") == "No-such-font" != named
        for width in (320, 768):
            sized(width, 800)
            playground.evaluate("draw()")
            assert playground.evaluate("document.documentElement.scrollWidth") <= width
            cut = (
                "e => e.checkVisibility() && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)"
            )
            assert (
                playground.evaluate(f"[...document.querySelectorAll('button')].filter({cut}).map(e => e.textContent)")
                == []
            )
    finally:
        playground.evaluate("[document.documentElement, document.body].forEach(e => e.removeAttribute('style'))")


def test_it_moves_at_once_unless_nothing_is_to_move(playground, playground_file):
    other = playground.context.new_page()
    other.emulate_media(reduced_motion="reduce")
    other.goto(playground_file.as_uri())
    assert other.evaluate("[now.playing, now.step === state.steps]") == [False, True]
    other.close()
    other = playground.context.new_page()
    other.emulate_media(reduced_motion="no-preference")
    other.goto(playground_file.as_uri())
    assert other.evaluate("now.playing")
    assert other.locator("#play").get_attribute("aria-label") == "Pause"
    assert other.evaluate("performance.getEntriesByType('resource').length") == 0
    assert other.evaluate("document.title") == "downslope playground"
    other.close()


def test_without_a_script_it_says_what_it_is(playground, playground_file):
    context = playground.context.browser.new_context(java_script_enabled=False, offline=True)
    plain = context.new_page()
    plain.goto(playground_file.as_uri())
    assert "needs JavaScript" in plain.locator("noscript").inner_text()
    assert plain.locator("noscript svg polyline").count() == 6
    assert not plain.locator("#play").is_visible()
    context.close()


def test_touch_drags_the_start(playground, playground_file):
    context = playground.context.browser.new_context(
        has_touch=True, viewport={"width": 390, "height": 844}, reduced_motion="reduce", offline=True
    )
    phone = context.new_page()
    phone.goto(f"{playground_file.as_uri()}#surface=valley")
    box = phone.locator("#ground").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    assert phone.evaluate("state.start") == pytest.approx([-5, 1.5], abs=0.1)
    finger = context.new_cdp_session(phone)
    for kind, place in (
        ("touchStart", [-5, 1.5]),
        ("touchMove", [-2, 0.5]),
        ("touchMove", [5, -1.5]),
        ("touchEnd", None),
    ):
        x, y = phone.evaluate(
            "([x, y]) => { const { width, height, left, top } = ground.getBoundingClientRect();"
            "const place = placed(surface, width, height)(x, y); return [left + place[0], top + place[1]]; }",
            place or [0, 0],
        )
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}] if place else []})
    assert phone.evaluate("state.start") == pytest.approx([5, -1.5], abs=0.1)
    assert phone.evaluate("scrollY") == 0
    context.close()
