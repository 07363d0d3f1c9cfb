"""The playground in a browser: it walks where Python walks, answers to mouse and keyboard, and its link says all."""

import json

import numpy as np
import pytest

import downslope
from downslope.language.options import compose
from downslope.pages import asset
from downslope.play.page import LANGUAGES, LARGEST
from downslope.play.rules import every_rule, rules_code
from downslope.targets.dense import dense
from downslope.targets.formula import lines_of
from downslope.walks.surfaces import SURFACES

expect = pytest.importorskip("playwright.sync_api").expect

PATHS = "walkers.map(w => [w.id, w.lr, [...w.points], [...w.losses], w.arrived, w.length, w.turns])"


def check_paths(playground, walk, names):
    found = playground.evaluate(PATHS)
    assert [name for name, *_ in found] == names
    for path, (_, lr, points, losses, arrived, length, turns) in zip(walk.paths, found, strict=True):
        assert lr == path.lr
        theirs = np.array(points, float).reshape(path.points.shape)
        np.testing.assert_allclose(theirs, path.points, rtol=1e-9, atol=1e-9 * abs(path.points).max())
        np.testing.assert_allclose(np.array(losses, float), path.losses, rtol=1e-8, atol=1e-10 * abs(path.losses[0]))
        assert arrived == (walk.steps + 1 if path.arrival is None else path.arrival)
        assert length == pytest.approx(path.length)
        assert turns == sum(path.sign_changes)


@pytest.mark.parametrize(
    ("link", "surface", "given"),
    [
        ("surface=valley&lr=0.1&start=-9,1.5", "valley", {"lr": 0.1, "start": (-9, 1.5)}),
        ("surface=double_well&lr=best", "double_well", {"lr": "best"}),
        ("surface=valley&valley.kappa=10&lr=own", downslope.surfaces.valley.given(kappa=10), {"lr": "own"}),
    ],
)
def test_it_walks_where_python_walks(playground, opened, link, surface, given):
    rules = ["sgd", "momentum", "keras.adam", "rmsprop"]
    assert opened(f"{link}&steps=100&rules={','.join(rules)}") == ""
    playground.evaluate("while (!isTried()) tryRates(50)")
    check_paths(playground, downslope.walk(surface, rules, steps=100, **given), rules)


def test_settings_and_flags_of_one_rule_as_two_walkers(playground, opened):
    link = "surface=valley&lr=own&steps=40&rules=adam,adam.2&adam.lr=0.1&adam.2.lr=0.1&adam.beta1=0.5"
    link += "&adam.2.bias_correction=0"
    assert opened(link) == ""
    two = [
        downslope.Recipe(downslope.adam, lr=0.1, beta1=0.5),
        downslope.Recipe(downslope.adam, lr=0.1, bias_correction=False),
    ]
    check_paths(playground, downslope.walk("valley", two, steps=40, lr="own"), ["adam", "adam.2"])


def test_the_limit_of_every_rule_is_pythons(playground):
    """Worked out in the page from the coefficients of the recurrence, for settings that Python was not asked for."""
    for changed in ({}, {"mu": 0.5, "beta1": 0.8, "momentum": 0.95}):
        for name, rule in every_rule().items():
            settings = {key: value for key, value in changed.items() if key in rule.hyperparameters}
            if changed and not settings:
                continue
            settings |= {key: 0.9 for key, value in rule.hyperparameters.items() if value is None and key != "lr"}
            theirs = playground.evaluate(
                """([name, settings]) => { const rule = RULES[name];
                const numbers = { ...rule.numbers, ...settings, lr: settings.lr ?? rule.numbers.lr };
                const found = limitOf(rule.forms[flagsKey(rule.flags)], numbers);
                return found && String(found.limit); }""",
                [name, settings],
            )
            ours = rule.stability(**settings).limit
            assert (theirs is None) == (ours is None), name
            if ours is not None:
                assert float(theirs.replace("Infinity", "inf")) == pytest.approx(ours, rel=1e-6), name


def test_the_canyon_is_how_every_rule_ends(playground, opened):
    """Beside Python's walks at single learning rates; the best is its lowest place that does not leave the map."""
    opened("surface=valley&rules=sgd,nesterov,adam&steps=60&lr=best")
    playground.evaluate("while (!isTried()) tryRates(50)")
    rates, trials = playground.evaluate("[RATES, walkers.map(w => w.trial.outcomes)]")
    for k in range(20, 61, 8):
        walk = downslope.walk("valley", ["sgd", "nesterov", "adam"], steps=60, lr=rates[k])
        for path, outcomes in zip(walk.paths, trials, strict=True):
            left_map, arrived, end = outcomes[k]
            assert arrived == (61 if path.arrival is None else path.arrival)
            assert end == pytest.approx(path.losses[-6:].max())
            inside = (abs(path.points) <= [10, 3]).all()
            assert bool(left_map) is not bool(inside)


def test_the_limit_is_drawn_where_theory_puts_it(playground, opened):
    """The largest curvature of the valley is 10: the limits are 2, 3.8 and 1.357 over it; Adam has none of its own."""
    opened("surface=valley&rules=sgd,momentum,nesterov,adam&lr=0.01")
    limits = playground.evaluate("walkers.map(w => limitingRate(w) || null)")
    assert limits[:3] == pytest.approx([0.2, 0.38, 0.1357], rel=1e-3)
    assert limits[3] is None
    assert (
        playground.locator("#limits").inner_text()
        == "nesterov\N{NO-BREAK SPACE}0.136 · sgd\N{NO-BREAK SPACE}0.2 · momentum\N{NO-BREAK SPACE}0.38"
    )


def test_the_learning_rate_is_a_handle_on_the_canyon(playground, opened):
    opened("surface=valley&rules=sgd,momentum,adam&lr=best&steps=60")
    playground.evaluate("while (!isTried()) tryRates(50)")
    best = playground.evaluate("walkers.map(w => w.lr)")
    playground.get_by_role("button", name="each its own").click()  # nothing jumps
    assert playground.evaluate("walkers.map(w => w.lr)") == best
    playground.locator("#rate").press("ArrowRight")
    assert playground.evaluate("walkers.map(w => w.lr > 0)") == [True] * 3
    assert playground.evaluate("walkers.map(w => w.lr)")[1:] == best[1:]
    playground.get_by_role("button", name="same for all").click()
    assert len(set(playground.evaluate("walkers.map(w => w.lr)"))) == 1
    playground.locator("#rate").fill("30")  # a tenth of a power of ten each, from 1e-4 on
    assert playground.evaluate("state.lr") == 0.1
    place = playground.evaluate("rateScale(find('canyon').getBoundingClientRect().width).x(0.01)")
    playground.locator("#canyon").click(position={"x": place, "y": 50})  # which waits until it stays where it is
    assert playground.evaluate("state.lr") == pytest.approx(0.01, rel=0.05)
    opened.until("walkers.every(w => w.lr === state.lr)")  # in the frame after
    playground.get_by_role("button", name="each its best").click()
    playground.evaluate("while (!isTried()) tryRates(50)")
    assert playground.evaluate("walkers.map(w => w.lr)") == best
    row = playground.locator("#rows tr", has_text="momentum").inner_text()
    path = downslope.walk("valley", ["momentum"], steps=60)["momentum"]
    assert path.lr == best[1]
    for shown in (path.arrival, f"{path.detour:.3g}", sum(path.sign_changes)):
        assert str(shown) in row


def test_moving_the_start_makes_the_walk_from_there(playground, opened):
    opened("surface=valley&steps=80&lr=0.1")
    playground.locator("#start").press("ArrowRight")
    playground.locator("#start").press("ArrowUp")
    assert playground.evaluate("state.start") == [-8.8, 1.56]
    rules = ["sgd", "momentum", "adam"]
    check_paths(playground, downslope.walk("valley", rules, start=(-8.8, 1.56), steps=80, lr=0.1), rules)
    box = playground.locator("#ground").bounding_box()
    playground.locator("#start").hover()
    playground.mouse.down()
    playground.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    playground.mouse.up()
    assert playground.evaluate("state.start") == pytest.approx([-5, 1.5], abs=0.05)


def test_after_a_drag_all_is_as_if_it_had_begun_there(playground, opened):
    """While it lasts, walks, canyon and words follow bit by bit; a pointer that rests is enough for them."""
    seen = """[state.start,
        ...['chips', 'rows', 'places', 'rate-shown', 'formula', 'python'].map(id => find(id).innerText),
        ...['ground', 'curves', 'canyon', 'man'].map(id => find(id).toDataURL()), find('start').style.transform,
        walkers.map(w => [[...w.points.slice(-2)], w.trial.outcomes])]"""
    rest = "!asked && !changed && !isWaiting() && isTried()"
    opened("surface=valley&rules=sgd,momentum,adam&steps=150&lr=0.1")
    opened.until(rest)
    playground.evaluate(
        "dragging = true; for (let k = 0; k < 9; k++) { change({ start: [-9 + k, 1.5] }); frame(16 * k); }"
    )
    opened.until(rest)
    dragged = playground.evaluate(seen)
    playground.evaluate("dragging = false; openLink(writeLink())")
    opened.until(rest)
    assert dragged[0] == [-1, 1.5]
    assert dragged == playground.evaluate(seen)


def test_what_is_walked_again_and_again_is_drawn_once(playground, opened):
    """RMSprop ends by jumping to and fro: a few lines, that is, which go to every pixel in which it has been."""
    opened("surface=valley&rules=rmsprop&steps=3000&t=3000&lr=0.5")
    points, lines = playground.evaluate(
        """(() => { const { width, height } = sizes.get(ground), place = placed(surface, width, height);
        const { losses, points } = walkers[0], { lines } = seenOf(walkers[0], scene(), place);
        return [[...losses.keys()].map(t => place(...points.slice(2 * t, 2 * t + 2)).map(Math.round)),
            lines.map(line => line.map(v => Number.isNaN(v) ? null : Math.round(v)))]; })()"""
    )
    drawn = {pair for line in lines for pair in zip(line[::2], line[1::2], strict=True)} - {(None, None)}
    assert drawn == {tuple(point) for point in points}
    assert sum(map(len, lines)) / 2 < 1000


def test_steps_are_looked_up(playground, opened):
    opened("surface=valley&steps=80&t=80")
    expect(playground.locator("#step")).to_have_text("80")
    playground.get_by_label("One step back").click()
    expect(playground.locator("#step")).to_have_text("79")
    playground.locator("#scrubber").fill("10")
    expect(playground.locator("#step")).to_have_text("10")
    assert playground.locator("#said").inner_text().startswith("Step 10 of 80. sgd: loss ")


@pytest.mark.parametrize(
    ("link", "left"),
    [
        ("surface=valley&speling=3", "speling"),
        ("surface=nowhere", "surface"),
        ("steps=1e9", "steps"),
        ("steps=-1", "steps"),
        ("adam.lr=nan", "adam.lr"),
        ("adam.__proto__=1", "adam.__proto__"),
        ("__proto__=1", "__proto__"),
        ("constructor.constructor=alert(1)", "constructor.constructor"),
        ("rules=sgd,<img src=x>", "rules"),
        ("rules=toString", "rules"),
        ("start=1,2,3", "start"),
        ("lang=xx", "lang"),
        ("%E0%A4%A", "%E0%A4%A"),
        ("v=99", "v"),
        ("a" * 9000, ""),
    ],
)
def test_what_a_link_cannot_say_is_left_out_and_named(playground, opened, link, left):
    said = opened(link)
    assert said.startswith(left)
    assert len(said) > len(left)
    assert playground.evaluate("walkers.length") == 3


def test_a_link_says_the_state_and_nothing_more(playground, opened):
    link = "#v=1&surface=valley&rules=sgd,adam&start=-5,1&lr=own&t=7&lang=zh&valley.kappa=10&adam.lr=0.1"
    assert opened(link) == ""
    assert playground.evaluate("writeLink()") == link


def test_words_are_there_in_every_language(playground):
    words = playground.evaluate("PLAY.words")
    plain = {name: json.loads(asset("downslope.play", f"words/{name}.json")) for name in LANGUAGES}
    ours = ("rule.", "surface.", "problem.")  # in English they are Python's own
    keys = [{key for key in each if not key.startswith(ours)} for each in plain.values()]
    assert all(each == keys[0] for each in keys)
    assert all(text.strip() for each in words.values() for text in each.values())


def test_every_rule_and_surface_is_told_of_in_chinese():
    words = json.loads(asset("downslope.play", "words/zh.json"))
    told = {key for key in words if key.startswith(("rule.", "surface.")) and key != "surface"}
    surfaces = {f"surface.{surface.name}.{what}" for surface in SURFACES for what in ("name", "teaches")}
    assert told == {f"rule.{name}" for name in every_rule()} | surfaces


def test_it_is_small(playground_file):
    """Every rule adds to it; who adds the one that is too much learns here what there is to choose from."""
    size, known = len(playground_file.read_bytes()), every_rule()
    each = len(dense(rules_code(known))) // len(known)
    choice = f"a rule takes {each} in the middle: write something smaller, or leave dialects out of `every_rule`"
    assert size <= LARGEST, f"the page has {size} bytes and may have {LARGEST} (play.page.LARGEST); {choice}"


def test_formulas_are_in_the_page_as_their_trees(playground):
    """They are there as text, which the page reads: of every program it is the tree that Python wrote."""
    forms = "Object.entries(forms).map(([on, form]) => [on, treesOf(form)])"
    found = playground.evaluate(f"Object.entries(RULES).map(([name, {{ forms }}]) => [name, {forms}])")
    assert [name for name, _ in found] == [*every_rule()]
    for (name, forms), rule in zip(found, every_rule().values(), strict=True):
        for on, lines in forms:
            program = compose(rule, **{flag: flag in on.split() for flag in rule.flags})
            assert [[line, tree] for line, tree, _ in lines] == trees(program), (name, on)


def trees(program):
    """The lines of a program, each with the tree of its value; in it an earlier line is its place in a list."""
    lines, called = lines_of(program)
    places = {}

    def tree(e, *, top=False):
        if e in places and not top:
            return [places[e]]
        return e.value if e.op in ("input", "constant") else [e.op, *map(tree, e.args)]

    found = [["ahead", tree(program.lookahead.outputs["x"])]] if program.lookahead else []
    for line in lines:
        found.append([line.name, tree(line.value, top=True)])
        if line.value.op != "input" and called.get(line.value) == line.name:
            places[line.value] = len(found) - 1
    return found
