import numpy as np
import pytest

import downslope
from downslope import FormulaError, Optimizer, rule
from downslope.installed import targets
from downslope.language.options import AFTER, BEFORE, NAMES, compose, stored_point
from downslope.targets.arrays import interpret
from downslope.targets.cost import cost
from downslope.targets.latex import latex
from downslope.testing import check_target

RNG = np.random.default_rng(0)
X = RNG.standard_normal(40)
GRADIENTS = RNG.standard_normal((12, 40))
LR, DECAY = 0.05, 0.25


def walked(rule_, **options):
    """The weights after all gradients, and the optimizer."""
    x = X.copy()
    optimizer = Optimizer(x, rule_, **options)
    for g in GRADIENTS:
        optimizer.step(g)
    return x, optimizer


def test_every_option_is_a_formula_and_every_formula_an_option():
    assert {each.option for each in (*BEFORE, *AFTER)} == set(NAMES)


@pytest.mark.parametrize("name", ["cautious", "decoupled", "cautious_decay", "max_norm", "maximize"])
def test_a_hyperparameter_cannot_have_the_name_of_an_option_of_all_groups(name):
    scope = {"rule": rule}
    exec(f"def mine(x, dx, *, {name}=0.5):\n    return x - {name} * dx", scope)
    with pytest.raises(FormulaError, match=f"'{name}' is an argument of optimizers"):
        rule(scope["mine"])


# Against the same thing written out; the bound is two hundred roundings of quantities below 10


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=200 * 10 * np.finfo(np.float64).eps)


def test_coupled_weight_decay_is_part_of_the_gradient():
    x, v = X.copy(), np.zeros(40)
    for g in GRADIENTS:
        v = 0.9 * v - LR * (g + DECAY * x)
        x = x + v
    close(walked(downslope.momentum, lr=LR, weight_decay=DECAY)[0], x)


def test_decoupled_weight_decay_shrinks_the_weights_before_the_step():
    x, v = X.copy(), np.zeros(40)
    for g in GRADIENTS:
        v = 0.9 * v - LR * g
        x = (1 - LR * DECAY) * x + v
    close(walked(downslope.momentum, lr=LR, weight_decay=DECAY, decoupled=True)[0], x)


@pytest.mark.parametrize("decoupled", [False, True])
def test_cautious_decay_is_of_weights_whose_step_goes_towards_zero(decoupled):
    x, v, share = X.copy(), np.zeros(40), []
    for g in GRADIENTS:
        v = 0.9 * v - LR * g
        inward = -v * x >= 0
        x = x + v - np.where(inward, LR * DECAY * x, 0)
        share.append(inward.mean())
    assert 0.2 < np.mean(share) < 0.8
    options = {"weight_decay": DECAY, "cautious_decay": True, "decoupled": decoupled}
    close(walked(downslope.momentum, lr=LR, **options)[0], x)


def test_cautious_decay_of_a_cautious_step_and_with_a_look_ahead():
    for stored in (False, True):
        program = compose(
            downslope.nesterov, weight_decay=True, cautious_decay=True, cautious=True, stored_ahead=stored
        )
        x, v, dx = np.array([1.0, 1.0, -1.0, -1.0]), np.array([0.3, -0.3, 0.3, -0.3]), np.array([-1.0, 1.0, 1.0, -1.0])
        numbers = {"lr": 0.1, "mu": 0.9, "mu next": 0.9, "weight_decay": 0.5}
        found = interpret(program, {"x": x + 0.9 * v if stored else x, "v": v, "dx": dx}, numbers)
        step = 0.9 * v - 0.1 * dx
        step_taken = np.where(step * dx < 0, step, 0)
        decayed = np.where(-step_taken * x >= 0, 0.05 * x, 0)
        new = x + step_taken - decayed
        close(found["x"], new + 0.9 * step if stored else new)
        np.testing.assert_array_equal(decayed != 0, [False, True, True, True])  # two of them are held still


def test_cautious_decay_leaves_nan_and_infinity_as_they_come():
    x, _ = stepped_with_infinite_weights(downslope.sgd, 0, 0, cautious_decay=True)
    np.testing.assert_array_equal(x, [np.inf, -np.inf, 1])
    x = np.ones(2)
    Optimizer(x, downslope.sgd, lr=0.1, weight_decay=0.5, cautious_decay=True).step(np.array([np.nan, 0.0]))
    np.testing.assert_array_equal(x, [np.nan, 0.95])


@pytest.mark.parametrize(("rule_", "options"), [(downslope.sgd, {}), (downslope.adamw, {"weight_decay": 0.1})])
def test_cautious_decay_without_a_decay_of_its_own_is_refused(rule_, options):
    with pytest.raises(
        FormulaError, match=r"cautious_decay=True says how to apply weight_decay; give weight_decay=\.\.\. too"
    ):
        Optimizer(np.ones(2), rule_, lr=0.1, cautious_decay=True, **options)


def test_every_target_computes_cautious_decay():
    program = compose(downslope.adam, weight_decay=True, cautious_decay=True)
    settings = {**program.hyperparameters, "weight_decay": DECAY}
    for target in targets():
        assert check_target(target, program, settings).passed, target.name


def test_weight_decay_may_follow_a_schedule():
    x = X.copy()
    for t, g in enumerate(GRADIENTS, start=1):
        x = x - LR * (g + x / t)
    close(walked(downslope.sgd, lr=LR, weight_decay=lambda t: 1 / t)[0], x)


def stepped_with_infinite_weights(rule_, *decays, **options):
    """Weights of which two are infinite and have no gradient, after a step with each of these decays."""
    x = np.float32([np.inf, -np.inf, 2.0])
    optimizer = Optimizer(x, rule_, weight_decay=lambda t: decays[t - 1], lr=0.5, **options)
    for _ in decays:
        optimizer.step(np.float32([0, 0, 1]))
    return x, optimizer


@pytest.mark.parametrize("decoupled", [False, True], ids=["coupled", "decoupled"])
def test_a_decay_of_zero_leaves_infinite_weights_alone_until_it_is_one(decoupled):
    x, _ = stepped_with_infinite_weights(downslope.sgd, 0, 0, decoupled=decoupled)
    np.testing.assert_array_equal(x, [np.inf, -np.inf, 1])
    x, _ = stepped_with_infinite_weights(downslope.sgd, 0, 0.5, decoupled=decoupled)
    np.testing.assert_array_equal(x, [np.nan, np.nan, 1.5 - 0.25 * 1.5 - 0.5])


@pytest.mark.parametrize(
    "rule_", [downslope.adamw, downslope.adan, downslope.schedule_free_adamw], ids=lambda r: r.name
)
def test_a_rules_own_decay_of_zero_leaves_infinite_weights_alone(rule_):
    x, _ = stepped_with_infinite_weights(rule_, 0, 0)
    np.testing.assert_array_equal(x[:2], [np.inf, -np.inf])
    assert np.isfinite(x[2])


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_the_average_of_infinite_weights_is_infinite(averaging):
    _, optimizer = stepped_with_infinite_weights(downslope.sgd, 0, averaging=averaging)
    np.testing.assert_array_equal(optimizer.state["average"]["0"], [np.inf, -np.inf, 1.5 + averaging * 0.5])


def test_maximize_walks_up_but_still_decays():
    x = X.copy()
    for g in GRADIENTS:
        x = x - LR * (-g + DECAY * x)
    close(walked(downslope.sgd, lr=LR, weight_decay=DECAY, maximize=True)[0], x)


def test_averaging_starts_from_the_initial_weights():
    x, average = X.copy(), X.copy()
    for g in GRADIENTS:
        x = x - LR * g
        average = 0.75 * average + 0.25 * x
    weights, optimizer = walked(downslope.sgd, lr=LR, averaging=0.75)
    close(weights, x)
    close(optimizer.state["average"]["0"], average)
    with optimizer.at_average():
        close(weights, average)
    close(weights, x)


@pytest.mark.parametrize("lookahead", ["stored", "explicit"])
def test_the_average_is_of_the_weights_not_of_the_point_ahead(lookahead):
    x, v, average = X.copy(), np.zeros(40), X.copy()
    for g in GRADIENTS:
        v = 0.9 * v - LR * g
        x = x + v
        average = 0.5 * average + 0.5 * x
    _, optimizer = walked(downslope.nesterov, lr=LR, averaging=0.5, lookahead=lookahead)
    close(optimizer.state["average"]["0"], average)


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 6.0, 1e6])
def test_max_norm_scales_the_common_norm_of_all_gradients(max_norm):
    parts = np.split(np.arange(40), [1, 30])
    params = {f"p{k}": X[part].copy() for k, part in enumerate(parts)}
    optimizer = Optimizer(params, downslope.sgd, lr=LR, max_norm=max_norm)
    x = X.copy()
    for g in GRADIENTS:
        optimizer.step({f"p{k}": g[part].copy() for k, part in enumerate(parts)})
        x = x - LR * g * min(1.0, max_norm / np.sqrt(np.sum(g * g)))
    close(np.concatenate(list(params.values())), x)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e150, 1e200, 1e300])
def test_max_norm_of_huge_gradients(size):
    x = np.zeros(3)
    Optimizer(x, downslope.sgd, lr=1.0, max_norm=1e-3).step(np.array([3.0, 0.0, -4.0]) * size)
    scale = min(1.0, 1e-3 / (5 * size)) * size
    np.testing.assert_allclose(x, [-3 * scale, 0, 4 * scale], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_norm_of_zero_gradients(dtype):
    x = np.ones(3, dtype)
    optimizer = Optimizer(x, downslope.sgd, lr=1.0, max_norm=1.0)
    optimizer.step(np.zeros(3, dtype))
    np.testing.assert_array_equal(x, 1)
    frozen = Optimizer(x, downslope.sgd, lr=1.0, max_norm=0.0)
    frozen.step(np.zeros(3, dtype))
    frozen.step(np.full(3, 5, dtype))
    np.testing.assert_array_equal(x, 1)


def test_clipping_comes_before_weight_decay():
    x = X.copy()
    for g in GRADIENTS:
        x = x - LR * (g / np.sqrt(np.sum(g * g)) + DECAY * x)
    close(walked(downslope.sgd, lr=LR, weight_decay=DECAY, max_norm=1.0)[0], x)


def test_options_share_one_pass_over_memory():
    program = compose(downslope.adam, max_norm=True, weight_decay=True, averaging=True)
    found = cost(program)
    assert (found.read, found.written) == (20, 16)  # x, dx, m, v, average; all but dx written
    assert {"grad_scale", "weight_decay", "averaging"} <= set(program.scalars)


# Caution


def cautious_walk(rule_, settings, steps=12, dtype=np.float64, **options):
    """The weights and states after all gradients, through the program itself."""
    program = compose(rule_, cautious=True, **options)
    arrays = {"x": X.astype(dtype), **{s: np.zeros(40, dtype) for s in program.states}}
    for t in range(1, steps + 1):
        arrays |= {"dx": GRADIENTS[t - 1].astype(dtype)}
        arrays |= interpret(program, arrays, {**rule_.hyperparameters, **settings, "t": t})
    return arrays


def test_caution_holds_still_what_would_climb_and_leaves_the_states_alone():
    x, v, held = X.copy(), np.zeros(40), 0
    for g in GRADIENTS:
        v = 0.9 * v - LR * g
        x = x + v * (v * g < 0)
        held += np.sum(v * g >= 0)
    found = cautious_walk(downslope.momentum, {"lr": LR})
    close(found["x"], x)
    close(found["v"], v)
    assert 100 < held < 300  # of 480


def test_caution_around_adam_with_decoupled_decay():
    x, m, v = X.copy(), np.zeros(40), np.zeros(40)
    for t, g in enumerate(GRADIENTS, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - LR * DECAY * x  # every weight decays
        x = x - np.where(m * g > 0, LR * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), 0)
    found = cautious_walk(downslope.adam, {"lr": LR, "weight_decay": DECAY}, weight_decay=True, decoupled=True)
    close(found["x"], x)


def test_caution_heeds_the_gradient_that_the_rule_is_given():
    x = np.array([1.0, 1.0, 1.0])
    arrays = {"x": x, "dx": np.array([0.5, -0.5, -0.1]), "v": np.array([-1.0, -1.0, -1.0])}
    coupled = compose(downslope.momentum, cautious=True, weight_decay=True)
    found = interpret(coupled, arrays, {"lr": 0.1, "mu": 0.9, "weight_decay": 0.2})["x"]
    close(found, [1 - 0.97, 1, 1 - 0.91])  # with the decay the gradients are 0.7, -0.3, 0.1
    uphill = compose(downslope.momentum, cautious=True, maximize=True)
    close(interpret(uphill, arrays, {"lr": 0.1, "mu": 0.9})["x"], [1, 1 - 0.95, 1 - 0.91])  # v < 0 goes up where dx < 0


def test_caution_of_zeros_tiny_numbers_and_nan():
    program = compose(downslope.momentum, cautious=True)
    dx = np.array([0.0, -0.0, 1e-30, -1e-30, np.nan, 1.0], np.float32)
    v = np.array([-1.0, 1.0, -1e-20, 1e-20, -1.0, np.nan], np.float32)
    found = interpret(program, {"x": np.zeros(6, np.float32), "dx": dx, "v": v}, {"lr": 0.0, "mu": 0.5})["x"]
    # the product of step and gradient would be 0 in single precision for the two in the middle
    np.testing.assert_array_equal(found, np.array([0, 0, -5e-21, 5e-21, np.nan, np.nan], np.float32))


def test_caution_is_that_of_a_published_one_for_tensors_of_one_weight():
    """With a single weight there is nothing to rescale: the mean of the mask is 0 or 1."""
    cautious_lion = pytest.importorskip("lion_pytorch.cautious_lion")
    torch = pytest.importorskip("torch")
    weights = [torch.tensor([value], requires_grad=True) for value in X]
    theirs = cautious_lion.Lion(weights, lr=LR, weight_decay=DECAY)
    for gradient in GRADIENTS:
        for weight, value in zip(weights, gradient, strict=True):
            weight.grad = torch.tensor([value])
        theirs.step()
    options = {"weight_decay": True, "decoupled": True}
    found = cautious_walk(downslope.lion, {"lr": LR, "weight_decay": DECAY}, **options)["x"]
    close(found, np.concatenate([weight.detach().numpy() for weight in weights]))
    bold = walked(downslope.lion, lr=LR, weight_decay=DECAY, decoupled=True)[0]
    assert np.mean(np.abs(found - bold) > LR / 2) > 0.3  # it did hold some back


def test_a_cautious_step_with_the_look_ahead_stored_and_explicit():
    settings = {"lr": LR, "mu": 0.9, "averaging": 0.5}
    explicit = compose(downslope.nesterov, cautious=True, averaging=True)
    stored = compose(downslope.nesterov, cautious=True, averaging=True, stored_ahead=True)
    weights = {"x": X, "v": np.zeros(40), "average": X}
    points = dict(weights)
    for g in GRADIENTS:
        weights |= interpret(explicit, {**weights, "dx": g}, settings)
        points |= interpret(stored, {**points, "dx": g}, {**settings, "mu next": 0.9})
    back = interpret(stored_point(downslope.nesterov, to_weights=True), points, settings)["x"]
    close(back, weights["x"])
    close(points["average"], weights["average"])


@pytest.mark.parametrize("rule_", [downslope.adam, downslope.lion, downslope.nesterov], ids=lambda rule_: rule_.name)
def test_every_target_computes_the_cautious_step(rule_):
    program = compose(rule_, cautious=True)
    for target in targets():
        check = check_target(target, program, dict(rule_.hyperparameters))
        assert check.passed, str(check)


def test_the_cautious_step_in_latex():
    assert latex(compose(downslope.sgd, cautious=True)).splitlines()[1:-1] == [
        r"\mathrm{candidate}_{t} &= x_{t-1} - \mathrm{lr} \, dx_{t} \\",
        r"x_{t} &= \begin{cases} x_{t-1} & \text{if } \mathrm{candidate}_{t} \ge x_{t-1} \land dx_{t} \ge 0 "
        r"\lor \mathrm{candidate}_{t} \le x_{t-1} \land dx_{t} \le 0 \\ "
        r"\mathrm{candidate}_{t} & \text{otherwise} \end{cases}",
    ]


# A rule of one's own that has the option already


@rule
def has_its_own(x, dx, *, lr=0.1, weight_decay=0.5):
    return x - lr * (dx - weight_decay)


def test_a_rules_own_hyperparameter_comes_before_the_option():
    x = np.zeros(2)
    Optimizer(x, has_its_own, lr=1.0, weight_decay=0.25).step(np.ones(2))
    np.testing.assert_array_equal(x, -0.75)
    with pytest.raises(FormulaError, match="weight_decay"):
        compose(has_its_own, weight_decay=True)


def test_decoupled_needs_weight_decay_and_a_learning_rate():
    @rule
    def no_rate(x, dx):
        return x - dx

    with pytest.raises(FormulaError, match="weight_decay="):
        compose(downslope.sgd, decoupled=True)
    with pytest.raises(FormulaError, match="no_rate has none"):
        compose(no_rate, decoupled=True, weight_decay=True)


# The stored look-ahead as a formula


def test_the_stored_point_and_back():
    arrays = {"x": np.array([1.0]), "v": np.array([0.5])}
    ahead = interpret(stored_point(downslope.nesterov, to_weights=False), arrays, {"mu": 0.5})["x"]
    assert ahead == 1.25
    assert interpret(stored_point(downslope.nesterov, to_weights=True), {**arrays, "x": ahead}, {"mu": 0.5})["x"] == 1


def test_the_stored_form_is_the_shifted_form_of_the_notes():
    program = compose(downslope.nesterov, stored_ahead=True)
    arrays = {name: RNG.standard_normal(30) for name in program.arrays}
    found = interpret(program, arrays, {"lr": LR, "mu": 0.9, "mu next": 0.9})
    v = 0.9 * arrays["v"] - LR * arrays["dx"]
    close(found["v"], v)
    close(found["x"], arrays["x"] - 0.9 * arrays["v"] + 1.9 * v)
