"""What can be set: every control changes the state that Python would be given."""

import numpy as np
import pytest

import downslope
from downslope import Recipe, dialects
from downslope.language.options import compose
from downslope.play.rules import every_rule
from downslope.targets.stability import stability


def points(playground):
    return playground.evaluate("Object.fromEntries(walkers.map(w => [w.id, [...w.points]]))")


def check(playground, **recipes):
    """The walkers are where Python's are."""
    found = points(playground)
    assert list(found) == [name.replace("__", ".") for name in recipes]
    walk = downslope.walk("valley", list(recipes.values()), steps=40, lr="own")
    for path, theirs in zip(walk.paths, found.values(), strict=True):
        np.testing.assert_allclose(theirs, path.points.ravel(), rtol=1e-9, atol=1e-12)


@pytest.fixture
def settings(playground, opened):
    """Those of Adam, which walks beside SGD."""
    opened("surface=valley&steps=40&lr=own&rules=sgd,adam&sgd.lr=0.1&adam.lr=0.1&look=adam")
    return playground.locator("#settings")


def test_numbers_and_switches(playground, settings):
    sgd = Recipe(downslope.sgd, lr=0.1)
    check(playground, sgd=sgd, adam=Recipe(downslope.adam, lr=0.1))
    settings.locator("[type=number][data-number=beta1]").fill("0.5")
    settings.locator("[type=number][data-number=beta1]").press("Enter")
    check(playground, sgd=sgd, adam=Recipe(downslope.adam, lr=0.1, beta1=0.5))
    settings.get_by_label("bias correction").uncheck()
    check(playground, sgd=sgd, adam=Recipe(downslope.adam, lr=0.1, beta1=0.5, bias_correction=False))
    settings.locator("[type=range][data-number=beta2]").fill("1")
    check(playground, sgd=sgd, adam=Recipe(downslope.adam, lr=0.1, beta1=0.5, beta2=0.9, bias_correction=False))
    assert "adam.bias_correction=0" in playground.evaluate("writeLink()")
    for wrong in ("1", "-0.1", "", "1e400"):
        settings.locator("[type=number][data-number=beta1]").fill(wrong)
        settings.locator("[type=number][data-number=beta1]").press("Enter")
        assert playground.evaluate("state.settings.adam.beta1") == 0.5
    settings.get_by_role("button", name="Defaults").click()
    check(playground, sgd=sgd, adam=Recipe(downslope.adam))


def test_two_dialects_as_two_walkers(playground, settings):
    settings.get_by_label("Beside that of").select_option("keras.adam")
    sgd, adam = Recipe(downslope.sgd, lr=0.1), Recipe(downslope.adam, lr=0.1)
    check(playground, sgd=sgd, adam=adam, keras__adam=Recipe(dialects.keras.adam, lr=0.1))
    settings.get_by_label("In the form of").select_option("torch.adam")
    check(playground, sgd=sgd, adam=adam, torch__adam=Recipe(dialects.torch.adam, lr=0.1))
    settings.get_by_role("button", name="Remove").click()
    check(playground, sgd=sgd, adam=adam)


def test_a_rule_walks_twice(playground, settings):
    playground.get_by_role("group", name="Look closely at").get_by_role("button", name="adam").click()
    settings.get_by_role("button", name="Walk twice").click()
    settings.get_by_label("bias correction").uncheck()
    sgd, adam = Recipe(downslope.sgd, lr=0.1), Recipe(downslope.adam, lr=0.1)
    check(playground, sgd=sgd, adam=adam, adam__2=Recipe(downslope.adam, lr=0.1, bias_correction=False))
    playground.get_by_label("Add a rule").select_option("lion")
    assert playground.evaluate("state.rules") == ["sgd", "adam", "adam.2", "lion"]
    playground.locator("#reset").click()
    playground.evaluate("going.stop()")
    assert playground.evaluate("[state.surface, state.rules]") == ["double_well", ["sgd", "momentum", "adam"]]


def test_steps_and_surfaces(playground, settings):
    playground.locator("#step-count").fill("25")
    playground.locator("#step-count").press("Enter")
    assert {len(each) for each in points(playground).values()} == {2 * 26}
    playground.locator("#step-count").fill("1e9")
    playground.locator("#step-count").press("Enter")
    assert playground.evaluate("state.steps") == 25
    playground.locator("#surface").select_option("bumps")
    assert playground.evaluate("state.start") == [-7]
    assert {len(each) for each in points(playground).values()} == {26}


def test_every_rule_on_every_surface_can_be_looked_at(playground, opened):
    """Nothing complains, whatever is on screen; the page fixture holds to that."""
    names = list(every_rule())
    for k, surface in enumerate(downslope.surfaces.SURFACES):
        opened(f"surface={surface.name}&rules={','.join(names[k::17][:4])}&steps=20&t=3&lr=best")
        playground.evaluate("for (const rule of state.rules) { change({ look: rule }); draw(); }")


def test_quick_clicks(playground, opened):
    opened("surface=valley&steps=20")
    playground.evaluate(
        """() => { const buttons = [...document.querySelectorAll("button")].filter(b => b.id !== "own-walks");
        for (let k = 0; k < 300; k++) buttons[(k * 7919) % buttons.length].click();
        going.stop(); draw(); }"""
    )
    assert playground.evaluate("walkers.length > 0 && walkers.every(w => w.losses.length === state.steps + 1)")


def decaying():
    """All rules without a weight decay of their own, with what has no default."""
    for name, rule in every_rule().items():
        if "weight_decay" not in rule.hyperparameters:
            missing = {key: 0.9 for key, value in rule.hyperparameters.items() if value is None}
            yield name, rule, missing | {"lr": 0.05}


@pytest.mark.parametrize("options", [{"weight_decay": 0.3}, {"weight_decay": 0.3, "decoupled": True}])
def test_decay_around_every_rule_is_the_option_of_that_name(playground, opened, options):
    """Walks, limits and the numbers in the formula, as Python composes them: every other rule, and who looks ahead."""
    rules = [each for k, each in enumerate(decaying()) if k % 2 == len(options) % 2 or each[1].ahead]
    assert len(rules) > 20
    for k in range(0, len(rules), 12):
        some = rules[k : k + 12]
        keys = {"weight_decay": 0.3, "decoupled": int("decoupled" in options), "lr": 0.05}
        link = "".join(f"&{name}.{key}={value}" for name, _, _ in some for key, value in keys.items())
        assert opened(f"surface=rotated_valley&steps=12&lr=own&rules={','.join(each[0] for each in some)}{link}") == ""
        found = playground.evaluate(
            """walkers.map(w => { const all = [];
            for (const t of [0, 11]) { const { lines } = numbersOf(w, momentOf(w, t), 1);
              all.push([lines[linesOf(w.form).findLastIndex(line => line.name === "x")], w.points[2 * (t + 1) + 1]]); }
            return [[...w.points], w.limit && String(w.limit.limit), all]; })"""
        )
        walk = downslope.walk(
            "rotated_valley", [Recipe(rule, **numbers, **options) for _, rule, numbers in some], steps=12, lr="own"
        )
        for (name, rule, _), path, (points, limit, lines) in zip(some, walk.paths, found, strict=True):
            np.testing.assert_allclose(points, path.points.ravel(), rtol=1e-12, atol=1e-13, err_msg=name)
            expected = stability(compose(rule, **dict.fromkeys(options, True)), path.recipe.numbers).limit
            assert (limit is None) == (expected is None), name
            if limit is not None:
                assert float(limit.replace("Infinity", "inf")) == pytest.approx(expected, rel=1e-6), name
            np.testing.assert_allclose(*np.transpose(lines), rtol=1e-12, atol=1e-14, err_msg=name)


def test_decay_is_switched_on_and_copied(playground, settings):
    box = settings.locator("[data-flag=decoupled]")
    assert box.is_disabled()
    settings.locator("[type=number][data-number=weight_decay]").fill("0.2")
    settings.locator("[type=number][data-number=weight_decay]").press("Enter")
    sgd = Recipe(downslope.sgd, lr=0.1)
    check(playground, sgd=sgd, adam=Recipe(downslope.adam, lr=0.1, weight_decay=0.2))
    assert playground.locator("#formula .line").count() == 6
    box.check()
    check(playground, sgd=sgd, adam=Recipe(downslope.adam, lr=0.1, weight_decay=0.2, decoupled=True))
    assert "adam.weight_decay=0.2&adam.decoupled=1" in playground.evaluate("writeLink()")
    python = "downslope.Recipe(downslope.adam, lr=0.1, weight_decay=0.2, decoupled=True)"
    assert python in playground.evaluate("find('python').textContent")
    settings.locator("[type=range][data-number=weight_decay]").fill("-4")
    check(playground, sgd=sgd, adam=Recipe(downslope.adam, lr=0.1))
    assert "decoupled" not in playground.evaluate("find('python').textContent")
    playground.evaluate("openLink('rules=adamw,sgd&adamw.decoupled=1&sgd.weight_decay=-1')")
    left = playground.locator("#left-list").inner_text().split("\n")
    assert left == [
        "adamw.decoupled adamw has no such setting",
        "sgd.weight_decay expected a number from 0 to 10³⁰⁰",
    ]
