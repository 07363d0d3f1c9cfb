"""The descendants of Adam and Adagrad: against their papers, against other implementations, and known numbers.

Where another implementation computes something else under the same name, it is not compared, and this is why:
- `torch.optim.NAdam` averages the gradient with the constant beta1, and leaves out the factor beta2 of the paper.
- `optax.adan` weighs the change of the gradient by 1 - b2, where the paper has the b2 of Optax's notation.
"""

import functools
import math
import re
from fractions import Fraction

import numpy as np
import papers
import pytest

import downslope
import paths
from downslope import Optimizer
from downslope.rules import DESCENDANTS, OVER_TENSORS, RULES, TEXTBOOK
from paths import STEPS

PROBLEM = paths.quadratic(50, 7)
START, gradient = PROBLEM.start, PROBLEM.gradient

CASES = {
    "adadelta": (downslope.adadelta, papers.adadelta, 20.0, {}),
    "adadelta, rho": (downslope.adadelta, papers.adadelta, 1.0, {"rho": 0.8, "eps": 1e-3}),
    "adamax": (downslope.adamax, papers.adamax, 0.02, {}),
    "adamax, short memory": (downslope.adamax, papers.adamax, 0.02, {"beta1": 0.5, "beta2": 0.7}),
    "nadam": (downslope.nadam, papers.nadam, 0.02, {}),
    "nadam, quick": (downslope.nadam, papers.nadam, 0.02, {"beta1": 0.95, "momentum_decay": 0.1, "eps": 1e-3}),
    "amsgrad": (downslope.amsgrad, papers.amsgrad, 0.02, {}),
    "amsgrad, short memory": (downslope.amsgrad, papers.amsgrad, 0.02, {"beta2": 0.8, "eps": 1e-3}),
    "adamw": (downslope.adamw, papers.adamw, 0.02, {"weight_decay": 0.3}),
    "adamw, of the paper": (
        downslope.adamw,
        papers.adamw,
        0.02,
        {"weight_decay": 0.003, "decay_with_lr": False, "eps": 1e-3},
    ),
    "radam": (downslope.radam, papers.radam, 0.02, {}),
    "radam, short memory": (downslope.radam, papers.radam, 0.02, {"beta1": 0.7, "beta2": 0.9, "shortest": 5}),
    "adabelief": (downslope.adabelief, papers.adabelief, 0.02, {}),
    "adabelief, eps": (downslope.adabelief, papers.adabelief, 0.02, {"beta2": 0.9, "eps": 1e-4}),
    "adan": (downslope.adan, papers.adan, 0.02, {}),
    "adan, decay": (downslope.adan, papers.adan, 0.02, {"weight_decay": 0.3, "beta2": 0.7, "eps": 1e-3}),
    "adan, decay before": (downslope.adan, papers.adan, 0.02, {"weight_decay": 0.3, "proximal": False}),
    "lion": (downslope.lion, papers.lion, 0.01, {"beta1": 0.8}),
    "yogi": (downslope.yogi, papers.yogi, 0.02, {}),
    "yogi, short memory": (downslope.yogi, papers.yogi, 0.02, {"beta1": 0.5, "beta2": 0.8, "eps": 0.1}),
    "laprop": (downslope.laprop, papers.laprop, 0.02, {}),
    "laprop, short memory": (downslope.laprop, papers.laprop, 0.02, {"beta1": 0.7, "beta2": 0.65, "eps": 1e-3}),
    "ademamix": (downslope.ademamix, papers.ademamix, 0.02, {}),
    "ademamix, warm-up": (downslope.ademamix, papers.ademamix, 0.02, {"beta3": 0.99, "alpha": 8, "warmup_steps": 100}),
    "adopt": (downslope.adopt, papers.adopt, 0.02, {}),
    "adopt, short memory": (downslope.adopt, papers.adopt, 0.02, {"beta1": 0.5, "beta2": 0.9, "eps": 0.1}),
    "grams": (downslope.grams, papers.grams, 0.02, {}),
    "grams, short memory": (downslope.grams, papers.grams, 0.02, {"beta1": 0.7, "beta2": 0.9, "eps": 1e-3}),
}

# A step makes at most 30 roundings that reach the weights, of quantities below 4; the quadratic with its small rates
# does not amplify them. What a rounding leaves in an average is remembered for about 1 / (1 - beta) steps, each time
# divided by that number. float64: all roundings one way. float32: they add up like a random walk; four deviations.
BOUNDS = {
    np.float64: STEPS * 30 * 4 * np.finfo(np.float64).eps / 2,
    np.float32: 4 * np.sqrt(STEPS * 30) * 4 * np.finfo(np.float32).eps / 2,
}


def rate(base):
    return lambda t: paths.rates(base)[t - 1]


def of_the_paper(case):
    _, paper, base, settings = CASES[case]
    return papers.walk(paper, START, gradient, paths.rates(base), **settings)[1]


@pytest.mark.parametrize("case", CASES)
def test_the_formula_is_that_of_the_paper(case):
    rule, _, base, settings = CASES[case]
    x, states = START, [rule.scalar_states.get(s, np.zeros_like(START)) for s in rule.signature_states]
    expected = of_the_paper(case)
    for t in range(1, STEPS + 1):
        clock = {"t": t} if rule.uses_t else {}
        x, *states = rule(x, gradient(x, t), *states, lr=rate(base)(t), **settings, **clock)
        if t in (1, 2, 5, 6, 20):  # the first steps, before anything averages out
            np.testing.assert_allclose(x, expected[t], rtol=0, atol=BOUNDS[np.float64] / 10)
    assert np.abs(expected[-1] - START).max() > 0.3  # it did go somewhere
    np.testing.assert_allclose(x, expected[-1], rtol=0, atol=BOUNDS[np.float64])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_computes_the_paper(case, dtype):
    rule, _, base, settings = CASES[case]
    found = paths.end_of(rule, PROBLEM.astype(dtype), lr=rate(base), **settings)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, of_the_paper(case)[-1], rtol=0, atol=BOUNDS[dtype])


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("amsgrad", {"bias_correction": True}),
        ("adamw", {"decay_with_lr": False}),
        ("adan", {"proximal": False}),
    ],
)
def test_the_choices_are_certified(name, flags):
    assert downslope.check_rule(getattr(downslope, name), **flags).passed


NEWCOMERS = {
    **{case: CASES[case] for case in ("laprop", "ademamix, warm-up", "adopt, short memory", "grams")},
    "gpa_adamw": (downslope.gpa_adamw, papers.gpa_adamw, 0.02, {"mu_x": 0.9, "mu_y": 0.2, "weight_decay": 0.3}),
}


@pytest.mark.parametrize("case", NEWCOMERS)
def test_two_hundred_steps_in_optax_and_keras_are_those_of_the_paper(case):
    """Keras holds learning rates, and powers of `t`, in single precision."""
    pytest.importorskip("keras")
    from in_one_program import in_keras, in_optax

    rule, paper, base, settings = NEWCOMERS[case]
    target = np.linspace(-1, 1, START.size)

    def shaken(x, t):
        return (x - target) * (1 + 0.5 * np.sin(t))

    expected = papers.walk(paper, START, shaken, [base] * STEPS, **settings)[0][-1]
    given = {"lr": base, **settings}
    for walk, room in ((in_optax, BOUNDS[np.float64]), (in_keras, 1e-5)):
        found = walk(rule, given, {"x": START}, {"x": target}, STEPS)[0]["x"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=room, err_msg=walk.__name__)
    assert np.abs(expected - START).max() > 0.3


# Other implementations, where the forms agree: (rule, settings, theirs, their settings)

TORCH = {
    "adadelta": (downslope.adadelta, {"lr": 20.0}, "Adadelta", {"rho": 0.95}),
    "adamax": (downslope.adamax, {"lr": 0.02}, "Adamax", {"eps": 0}),  # torch's epsilon is not in the paper
    "amsgrad": (downslope.amsgrad, {"lr": 0.02, "bias_correction": True}, "Adam", {"amsgrad": True}),
    "adamw": (downslope.adamw, {"lr": 0.02}, "AdamW", {}),
    "radam": (downslope.radam, {"lr": 0.02, "shortest": 5}, "RAdam", {}),
}


def end_of(rule, *, lr, **settings):
    return paths.end_of(rule, PROBLEM, lr=rate(lr), **settings)


def torch_end(make, lr):
    return paths.torch_path(lambda params: make(params, lr=lr), PROBLEM, paths.rates(lr))[-1]


@pytest.mark.parametrize("name", TORCH)
def test_two_hundred_steps_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    rule, ours, theirs, their_settings = TORCH[name]
    expected = torch_end(functools.partial(getattr(torch.optim, theirs), **their_settings), ours["lr"])
    np.testing.assert_allclose(end_of(rule, **ours), expected, rtol=0, atol=BOUNDS[np.float64])


def test_lion_is_that_of_lion_pytorch():
    lion_pytorch = pytest.importorskip("lion_pytorch")
    expected = torch_end(functools.partial(lion_pytorch.Lion, weight_decay=0.3), 0.01)
    found = end_of(downslope.lion, lr=0.01, weight_decay=0.3, decoupled=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUNDS[np.float64])


OPTAX = {
    "lion": (downslope.lion, {"lr": 0.01, "weight_decay": 0.3, "decoupled": True}, {"weight_decay": 0.3}),
    "adabelief": (downslope.adabelief, {"lr": 0.02}, {"eps": 1e-16, "eps_root": 1e-16}),
    "adabelief, eps": (downslope.adabelief, {"lr": 0.02, "eps": 1e-4}, {"eps": 1e-4, "eps_root": 1e-4}),
}


@pytest.mark.parametrize("case", OPTAX)
def test_two_hundred_steps_are_those_of_optax(case):
    optax = pytest.importorskip("optax")
    rule, ours, theirs = OPTAX[case]
    transformation = getattr(optax, rule.name)(paths.schedule(ours["lr"]), **theirs)
    [expected] = paths.optax_paths([transformation], PROBLEM)
    np.testing.assert_allclose(end_of(rule, **ours), expected[-1], rtol=0, atol=BOUNDS[np.float64])


# Known numbers


G = np.array([3.0, -1e-3, 1e3, -2.0])


def first_step(rule, **settings):
    x = np.zeros(4)
    Optimizer(x, rule, threads=1, **settings).step(G)
    return x


@pytest.mark.parametrize(
    ("rule", "settings", "factor"),
    [
        (downslope.adamw, {"eps": 0}, 1),
        (downslope.adamax, {}, 1),
        (downslope.adan, {"eps": 0}, 1),  # the change of the gradient counts as 0
        (downslope.lion, {}, 1),
        (downslope.yogi, {"eps": 0}, 0.1 / math.sqrt(0.001)),
        (downslope.laprop, {"eps": 0}, 1),
        (downslope.ademamix, {"eps": 0}, 1 + 5e-4),
        (downslope.adopt, {}, 0),
        (downslope.grams, {"eps": 0}, 1),
        (downslope.adabelief, {"eps": 0}, 1 / 0.9),  # g - m is 0.9 g
        (downslope.amsgrad, {"eps": 0}, 0.1 / math.sqrt(0.001)),  # (1 - beta1) / sqrt(1 - beta2)
        (downslope.nadam, {"eps": 0, "momentum_decay": 0}, (1 + 0.45 * 0.55 / (1 - 0.45**2)) / math.sqrt(0.999)),
    ],
)
def test_the_first_step_is_lr_times_the_sign_of_the_gradient_and_a_known_factor(rule, settings, factor):
    np.testing.assert_allclose(first_step(rule, lr=0.125, **settings), -0.125 * factor * np.sign(G), rtol=1e-14)


def test_the_first_step_of_adadelta_is_set_by_epsilon():
    expected = -np.sqrt(1e-6) / np.sqrt(0.05 * G**2 + 1e-6) * G
    np.testing.assert_allclose(first_step(downslope.adadelta), expected, rtol=1e-14)


def test_radam_is_momentum_for_four_steps_and_then_adapts():
    x = np.zeros(4)
    optimizer = Optimizer(x, downslope.radam, lr=1.0, eps=0, threads=1)
    steps = []
    for _ in range(6):
        before = x.copy()
        optimizer.step(G)
        steps.append(x - before)
    np.testing.assert_allclose(steps[:4], [-G] * 4, rtol=1e-14)  # a constant gradient is its own average
    for t, step in enumerate(steps[4:], start=5):
        power = Fraction(999, 1000) ** t  # the paper's closed form in exact arithmetic
        rho = 1999 - 2 * t * power / (1 - power)
        assert t - 1 < rho < t
        r = math.sqrt((rho - 4) * (rho - 2) * 1999 / (1995 * 1997 * rho))
        np.testing.assert_allclose(step, -r * np.sign(G), rtol=0, atol=1e-12)  # the weights are some 4,000


def test_a_weight_without_gradients_does_not_move_under_any_rule():
    for rule in DESCENDANTS:
        x = np.ones(3, np.float32)
        optimizer = Optimizer(x, rule, threads=1, **({"weight_decay": 0.0} if rule is downslope.adamw else {}))
        for _ in range(10):
            optimizer.step(np.zeros(3, np.float32))
        np.testing.assert_array_equal(x, 1, err_msg=rule.name)


def test_amsgrads_effective_rate_never_grows():
    x = START.copy()
    optimizer = Optimizer(x, downslope.amsgrad, lr=0.1, beta1=0, threads=1)
    rates = []
    for t in range(1, 101):
        before, dx = x.copy(), gradient(x, t) / t  # gradients that die down
        optimizer.step(dx)
        rates.append((before - x) / dx)
    assert (np.diff(rates, axis=0) <= 1e-9 * np.abs(rates[:-1])).all()


# Every one of them gets to the bottom of a quadratic

RATES = {"adadelta": 300.0, "adamax": 0.05, "lion": 0.02, "adabelief": 0.02}


@pytest.mark.parametrize("rule", DESCENDANTS, ids=lambda rule: rule.name)
def test_the_minimum_of_a_quadratic_is_found(rule):
    x, minimum = START.copy(), np.linspace(-1, 1, len(START))
    base, steps = RATES.get(rule.name, 0.05), 2000
    settings = {"adamw": {"weight_decay": 0.0}, "ademamix": {"beta3": 0.99}}.get(rule.name, {})
    optimizer = Optimizer(x, rule, lr=lambda t: base * (1 - t / (steps + 1)), threads=1, **settings)
    for _ in range(steps):
        optimizer.step(PROBLEM.curvature * (x - minimum))
    assert np.abs(START - minimum).max() > 1
    assert np.abs(x - minimum).max() < 1e-3


def test_the_lists_of_rules():
    assert [rule.name for rule in TEXTBOOK] == ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"]
    assert sorted(rule.name for rule in (*RULES, *OVER_TENSORS)) == sorted(downslope.rules.__all__)
    assert all(getattr(downslope, rule.name) is rule for rule in RULES)
    for rule in RULES:
        assert rule.intuition.endswith("."), rule.name
        assert re.search(r", (19|20)\d\d[.,;]", rule.source), rule.name
