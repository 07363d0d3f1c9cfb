"""One rule looked at closely: its formula with the numbers of a step, and what moves the walker."""

import numpy as np
import pytest

import downslope
from downslope.language.operations import OPERATIONS
from downslope.play.rules import every_rule


def test_every_operation_can_be_written(playground):
    assert set(playground.evaluate("Object.keys(WRITTEN)")) == set(OPERATIONS)


def test_the_numbers_of_every_rule_lead_to_its_next_place(playground, opened):
    """The lines of its formula, worked out one by one as they are shown, beside the steps of its program."""
    names = list(every_rule())
    for some in (names[k : k + 12] for k in range(0, len(names), 12)):
        assert opened(f"surface=rotated_valley&rules={','.join(some)}&lr=0.05&steps=12") == ""
        found = playground.evaluate(
            """walkers.map(w => { const all = [];
            for (const t of [0, 1, 5, 11]) for (const i of [0, 1]) { const moment = momentOf(w, t);
              const { lines } = numbersOf(w, moment, i); const reading = linesOf(w.form);
              const last = Object.fromEntries(reading.map((line, k) => [line.name, lines[k]]));
              all.push([last.x, w.points[2 * (t + 1) + i]]);
              for (const { name, length, place } of w.places)
                if (name in last) all.push([last[name], w.memory[(t + 1) * w.width + place + (i % length)]]);
              const sum = moment.inertia[i] + moment.pull[i];
              all.push([sum, moment.step[i]]); }
            return all; })"""
        )
        for name, each in zip(some, found, strict=True):
            shown, walked = np.array(each, float).T
            np.testing.assert_allclose(shown, walked, rtol=1e-12, atol=1e-14, err_msg=name)


def test_who_has_inertia_and_who_has_shoes(playground, opened):
    """On level ground SGD, Adagrad and RMSprop stand still; SGD and momentum have the same shoes on every axis."""
    opened("surface=valley&rules=sgd,momentum,adagrad,rmsprop,adam&lr=0.1&steps=30&t=9")
    parts = playground.evaluate(
        "walkers.map(w => { const m = momentOf(w, 9); return [[...m.inertia], [...m.shoes]]; })"
    )
    inertia, shoes = np.array(parts).swapaxes(0, 1)
    assert inertia.any(axis=1).tolist() == [False, True, False, False, True]
    assert (shoes[:, 0] == shoes[:, 1]).tolist() == [True, True, False, False, False]
    path = downslope.walk("valley", ["momentum"], lr=0.1, steps=30)["momentum"]
    np.testing.assert_allclose(inertia[1], 0.9 * path.states["v"][9])


def test_the_formula_is_shown_with_the_numbers_of_the_step(playground, opened):
    opened("surface=valley&rules=sgd,momentum&look=momentum&lr=0.1&steps=30&t=3")
    path = downslope.walk("valley", ["momentum"], lr=0.1, steps=30)["momentum"]
    lines = playground.locator("#formula .line")
    assert lines.count() == 2
    velocity, place = (line.inner_text() for line in lines.all())
    for number in (0.9, path.states["v"][3, 0], 0.1, path.gradients[3, 0], path.states["v"][4, 0]):
        assert f"{number:.3g}".replace("-", "−") in velocity
    assert f"{path.points[4, 0]:.3g}".replace("-", "−") in place
    playground.locator("#axes button").nth(1).click()
    playground.evaluate("draw()")
    assert f"{path.points[4, 1]:.3g}".replace("-", "−") in lines.nth(1).inner_text()


@pytest.mark.parametrize(
    ("rule", "name", "role"),
    [
        ("momentum", "v", "inertia"),
        ("adam", "v", "shoes"),
        ("adam", "m_hat", "inertia"),
        ("adam", "beta2", "shoes"),
        ("rmsprop", "cache", "shoes"),
        ("nesterov", "dx", "slope"),
    ],
)
def test_pointing_at_a_symbol_lights_what_it_stands_for(playground, opened, rule, name, role):
    opened(f"surface=valley&rules={rule}&lr=0.1&steps=30&t=5")
    playground.locator(f"#formula [data-of={name}]").first.hover()
    assert playground.evaluate("now.lit") == role
    playground.evaluate("draw()")
    assert playground.locator(f"#roles [data-role={role}]").get_attribute("aria-pressed") == "true"
    playground.locator("h1").hover()
    assert playground.evaluate("now.lit") == ""
    playground.locator(f"#roles [data-role={role}]").press("Enter")  # as the keyboard does it
    assert playground.evaluate("now.lit") == role
    playground.locator(f"#roles [data-role={role}]").press("Enter")
