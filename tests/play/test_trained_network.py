"""The small network of the playground: its gradient is that of its loss, and Python's rules train it likewise."""

import numpy as np
import pytest

import downslope

SIZE = 65


@pytest.fixture(scope="module")
def data(opened):
    points, classes = opened.page.evaluate("(() => { const d = moons(); return [[...d.points], [...d.classes]]; })()")
    return np.reshape(points, (-1, 2)), np.array(classes)


def loss_and_slope(w, points, classes):
    """Written as a matrix product and by the chain rule over whole arrays."""
    into, bias, out = w[:-1].reshape(-1, 4)[:, :2], w[2:-1:4], w[3:-1:4]
    hidden = np.tanh(points @ into.T + bias)
    margin = classes * (hidden @ out + w[-1])
    back = -classes / (1 + np.exp(margin)) / len(classes)
    inside = np.outer(back, out) * (1 - hidden**2)
    slope = np.column_stack([inside.T @ points, inside.sum(0), back @ hidden]).ravel()
    return np.log1p(np.exp(-margin)).mean(), np.append(slope, back.sum())


def test_two_half_moons_of_two_hundred_rows(data):
    points, classes = data
    assert (len(points), classes.sum()) == (200, 0)
    assert np.abs(points).max() < 2.1


def test_the_gradient_is_that_of_the_loss(opened, data):
    points, classes = data
    rows = [3, 17, 17, 101, 198]
    found = opened.page.evaluate(
        """rows => { const w = firstWeights(3).map((value, i) => value + Math.sin(i)), dx = new Float64Array(NET_SIZE);
        const loss = netSlope(w, moons(), rows, dx); return [[...w], loss, [...dx], netLoss(w, moons())]; }""",
        rows,
    )
    w, loss, slope, whole = np.array(found[0]), found[1], found[2], found[3]
    expected, expected_slope = loss_and_slope(w, points[rows], classes[rows])
    assert loss == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-11, atol=1e-15)
    differences = [
        (
            loss_and_slope(w + step, points[rows], classes[rows])[0]
            - loss_and_slope(w - step, points[rows], classes[rows])[0]
        )
        / 2e-5
        for step in 1e-5 * np.eye(SIZE)
    ]
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-9)
    assert whole["loss"] == pytest.approx(loss_and_slope(w, points, classes)[0], rel=1e-13)


TRAIN = """([name, lr, size, passes, seed]) => {
  const form = RULES[name].forms[flagsKey(RULES[name].flags)];
  const each = training(form.code, { ...RULES[name].numbers, lr }, moons(), batches(size, seed), seed);
  for (let k = 0; k < passes; k++) trainPass(each);
  return [[...firstWeights(seed)], each.rowsOf.slice(0, each.t), [...each.x], each.losses[passes]];
}"""


@pytest.mark.parametrize(
    ("name", "size"), [("momentum", 50), ("nesterov", 50), ("adam", 10), ("sgd", 200), ("rmsprop", 1)]
)
def test_it_is_trained_as_pythons_rules_train_it(opened, data, name, size):
    points, classes = data
    rule, lr = getattr(downslope, name), 0.05
    w, rows, found, loss = opened.page.evaluate(TRAIN, [name, lr, size, 2, 5])
    passes = np.reshape(rows, (2, 200))
    np.testing.assert_array_equal(np.sort(passes), [range(200)] * 2)
    x = np.array(w)
    states = [np.zeros(SIZE) for _ in rule.states]
    for t, batch in enumerate(rows, 1):
        at = x + 0.9 * states[0] if name == "nesterov" else x
        dx = loss_and_slope(at, points[batch], classes[batch])[1]
        new = rule(x, dx, *states, lr=lr, **({"t": t} if rule.uses_t else {}))
        x, *states = new if isinstance(new, tuple) else (new,)
    np.testing.assert_allclose(found, x, rtol=1e-8, atol=1e-10)
    assert loss == pytest.approx(loss_and_slope(x, points, classes)[0], rel=1e-8)


def test_the_plane_is_that_of_the_principal_components(opened):
    ways, explained, placed = opened.page.evaluate(
        """() => { const made = ["sgd", "adam"].map((name) => {
          const form = RULES[name].forms[flagsKey(RULES[name].flags)];
          const each = training(form.code, { ...RULES[name].numbers, lr: 0.1 }, moons(), batches(50, 1), 1);
          for (let k = 0; k < 30; k++) trainPass(each);
          return each; });
        const plane = planeOf(made, null);
        const ways = made.flatMap((each) => Array.from({ length: 31 }, (_, k) => weightsAt(each, k)));
        return [ways.map((w) => [...w]), plane.explained, ways.map((w) => onPlane(plane, w))]; }"""
    )
    centred = np.array(ways) - np.mean(ways, axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    assert explained == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), rel=1e-6)
    expected = u[:, :2] * s[:2]
    signs = np.sign((expected * placed).sum(0))
    np.testing.assert_allclose(placed, expected * signs, atol=1e-3 * s[0])


TRAINED = "isTrained() && runs.length && document.getElementById('net-pass').value === '100'"


def test_it_is_trained_when_it_is_seen(opened):
    page = opened.page
    assert opened("surface=valley&rules=sgd,momentum,adam&net.lr=0.3") == ""
    page.locator("#network").scroll_into_view_if_needed()
    opened.until(TRAINED)
    shown = page.locator(".net-run").all_inner_texts()
    losses = page.evaluate("runs.map(run => [run.id, short(run.training.losses[100]), run.training.wrong[100]])")
    assert [text.split("\n") for text in shown] == [
        [name, f"loss {loss}, {wrong} of 200 wrong, lr 0.3"] for name, loss, wrong in losses
    ]
    page.locator("#net-pass").fill("0")
    assert all("loss 0.704" in text for text in page.locator(".net-run").all_inner_texts())
    page.locator(".net-run").nth(2).click()
    assert page.locator(".net-run[aria-pressed=true] b").inner_text() == "adam"
    before = page.locator("#net-boundary").screenshot()
    page.locator("#net-pass").fill("60")
    assert page.locator("#net-boundary").screenshot() != before


def test_batches_of_several_sizes_each_at_its_best(opened):
    page = opened.page
    assert opened("rules=sgd,adam&look=adam&net.batch=1,200&net.lr=best&net.seed=2") == ""
    assert page.evaluate(
        "[KEYS['net.batch'].write(state['net.batch']), writeLink().includes('net.batch=1,200&net.lr=best')]"
    ) == ["1,200", True]
    page.locator("#network").scroll_into_view_if_needed()
    opened.until(TRAINED)
    assert page.evaluate("runs.map(run => run.id)") == ["adam, 1", "adam, 200"]
    for size, best in page.evaluate("runs.map(run => [run.size, run.training.numbers.lr])"):
        tried = page.evaluate(
            """size => NET_RATES.map((lr) => { const run = { ...runs[0], rowsOf: batches(size, 2), rates: [lr] };
            run.trial = run.training = null;
            while (run.rates.length) onePass(run, 2);
            return [goalAfter(run.training), run.training.losses[PASSES]]; })""",
            size,
        )
        ranked = [(first if first >= 0 else 1e9, end) for first, end in tried]
        assert ranked.index(min(ranked)) == [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3].index(best)


@pytest.mark.parametrize(
    "link", ["net.batch=7", "net.batch=1,,10", "net.lr=0.2", "net.lr=x", "net.seed=0", "net.seed=1.5"]
)
def test_what_it_cannot_do_is_left_out_of_a_link(opened, link):
    assert link.split("=")[0] in opened(link)


def test_a_rule_without_a_learning_rate_and_one_that_runs_away(opened):
    page = opened.page
    assert opened("own=x%20=%20x%20%2B%201e200*dx*x&rules=own,sgd&net.batch=50") == ""
    page.locator("#network").scroll_into_view_if_needed()
    opened.until(TRAINED)
    assert "loss –" in page.locator(".net-run").first.inner_text()
