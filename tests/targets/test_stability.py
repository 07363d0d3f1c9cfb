"""Limits read off formulas: those of the textbooks, and what a simulation does just inside and just outside."""

import dataclasses
import inspect
import itertools
import math

import numpy as np
import pytest

import downslope
from downslope import dialects, rule, scalar, sign, sqrt, where
from downslope.language.options import compose
from downslope.recipes.families import families
from downslope.targets.stability import limits, stability

# The textbooks


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9, 0.99])
def test_momentum_is_that_of_the_textbooks(mu):
    """Polyak, 1964: up to 2 + 2 mu; as fast as sqrt(mu) from (1 - sqrt(mu))**2 on."""
    found = downslope.momentum.stability(mu=mu)
    assert found.limit == pytest.approx(2 + 2 * mu, rel=1e-12)
    assert found.fastest == pytest.approx((1 - math.sqrt(mu)) ** 2, rel=1e-7)
    assert found.rate == pytest.approx(math.sqrt(mu), abs=1e-7)
    assert found.held == ()


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9, 0.99])
def test_nesterov_is_that_of_the_textbooks(mu):
    found = downslope.nesterov.stability(mu=mu)
    assert found.limit == pytest.approx((2 + 2 * mu) / (1 + 2 * mu), rel=1e-12)
    assert found.fastest == pytest.approx(1, rel=1e-7)
    assert found.rate == pytest.approx(0, abs=1e-7)
    other = dialects.torch.sgd_momentum.stability(momentum=mu, nesterov=True)
    assert other.limit == pytest.approx(found.limit, rel=1e-12)


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9, 0.95])
def test_adam_is_that_of_cohen_and_others(beta1):
    """Cohen et al., 2022, section 2: (2 + 2 beta1) / (1 - beta1), of the preconditioned curvature."""
    for form in families()["adam"].values():
        found = form.stability(beta1=beta1)
        assert found.limit == pytest.approx((2 + 2 * beta1) / (1 - beta1), rel=1e-12)
        assert len(found.held) == 1


def test_gradient_descent_is_stable_up_to_two_and_fastest_at_one():
    for name in ("sgd", "adagrad", "rmsprop", "adadelta"):
        for form in families()[name].values():
            found = form.stability()
            assert (found.limit, found.fastest) == (pytest.approx(2, rel=1e-12), pytest.approx(1, rel=1e-7))
            assert found.rate < 1e-7


def test_the_limit_does_not_depend_on_the_learning_rate():
    for of in (downslope.momentum, downslope.adam, downslope.nadam, downslope.adan):
        first, second = of.stability(lr=1e-4), of.stability(lr=3.0)
        assert first.limit == pytest.approx(second.limit, rel=1e-9)
        assert first.fastest == pytest.approx(second.fastest, rel=1e-6)


def test_a_decay_is_part_of_what_must_not_grow():
    """Weights that are shrunk by lr times decay: 1 - s - d is above -1 up to 2 - d."""

    @rule
    def shrinking(x, dx, *, lr=0.1, weight_decay=0.5):
        return (1 - lr * weight_decay) * x - lr * dx

    assert shrinking.stability().limit == pytest.approx(2 - 0.05, rel=1e-12)
    assert shrinking.stability(weight_decay=0.0).limit == pytest.approx(2, rel=1e-12)


def test_limits_at_several_learning_rates_are_those_at_each():
    for of in (downslope.adamw, downslope.adam, downslope.lion):
        rates = [1e-3, 1.0, 50.0]
        several = limits(compose(of), of.complete({}), rates)
        each = [of.stability(lr=rate) for rate in rates]
        assert several == [dataclasses.replace(found, fastest=None, rate=None) for found in each]
    assert several[0].reason


def test_the_gain_is_what_the_step_is_over_the_learning_rate_and_the_factor_before_the_gradient():
    gains = {downslope.sgd: 1, downslope.momentum: 1, downslope.rmsprop: 1, downslope.adam: 0.1, downslope.nadam: 0.19}
    for of, gain in gains.items():
        assert of.stability().gain == of.stability(lr=7.0).gain == pytest.approx(gain)


# Every rule, simulated


def errors(of, settings, held, product):
    """The size of error and inertia at every step: one weight on a quadratic, late, with remembered sizes of 1."""
    numbers = {**{name: value for name, value in of.hyperparameters.items() if value is not None}, **settings}
    memories = {"beta2"} if of.name == "ademamix" else {"beta3" if "beta3" in numbers else "beta2", "alpha"}
    slow = 1 - 1e-9
    for name in numbers.keys() & {*memories, "rho", "decay", "decay_rate"}:
        numbers[name] = slow
    numbers |= dict.fromkeys(numbers.keys() & {"eps", "eps_root"}, 0.0)
    numbers.setdefault("lr", 1.0)
    means = {"grad_avg", "average_gradient", "mg", *(["mu"] if of.name.startswith("rmsprop") else [])}
    states = {name: float(name in held and name not in means) for name in of.states}
    weight = 1 / (1 - slow)
    states |= {name: {"weight": weight, "age": weight**2}.get(name, 0.0) for name in of.scalar_states}
    clock = {"t": 10**15} if of.uses_t else {}
    curvature, x = product / numbers["lr"], 1e-12
    while True:
        ahead = 0.0
        if of.ahead:
            ahead = of.ahead(**{n: {**states, **numbers}[n] for n in inspect.signature(of.ahead).parameters})
        new = of(x, curvature * (x + ahead), *(states[name] for name in of.signature_states), **numbers, **clock)
        x, *rest = new if isinstance(new, tuple) else (new,)
        states = dict(zip(of.signature_states, rest, strict=True))
        yield float(abs(x) + max((abs(value) for value in states.values() if abs(value) < 0.5), default=0))


def grows(of, settings, held, product):
    """Whether the error grows a hundred thousand times before it shrinks so."""
    for size in itertools.islice(errors(of, settings, held, product), 20_000):
        if not 1e-18 < size < 1e-7:
            return size > 1e-12
    raise AssertionError("neither grows nor shrinks")


UNKNOWN = {"lion", "grams", "adopt", "schedule_free_sgd", "schedule_free_adamw", "schedule_free"}
"""The rules, and the choices, with which no limit can be said."""

FORMS = [
    pytest.param(form, dict(zip(form.flags, choice, strict=True)), id=f"{dialect}.{name}{choice or ''}")
    for name, forms in families().items()
    for dialect, form in forms.items()
    for choice in itertools.product([False, True], repeat=len(form.flags))
    if not compose(form).over_tensors
    if not {name, *itertools.compress(form.flags, choice)} & UNKNOWN
]


@pytest.mark.parametrize(("of", "flags"), FORMS)
def test_every_rule_shrinks_the_error_just_inside_its_limit_and_not_just_outside(of, flags):
    settings = {name: 0.9 for name, value in of.hyperparameters.items() if value is None and name != "lr"} | flags
    if of is downslope.ademamix:
        settings["beta3"] = 0.99  # its long inertia takes as long to shrink
    found = of.stability(**settings)
    assert found.limit is not None, found.reason
    assert not grows(of, settings, found.held, 0.99 * found.limit)
    assert grows(of, settings, found.held, 1.01 * found.limit)


@pytest.mark.parametrize("of", [downslope.momentum, downslope.adam, downslope.adamax, downslope.adan])
def test_the_rate_at_the_fastest_is_that_of_a_simulation(of):
    found = of.stability()
    sizes = list(itertools.islice(errors(of, {}, found.held, found.fastest), 100))
    rate = (max(sizes[90:]) / max(sizes[40:50])) ** (1 / 50)
    assert rate == pytest.approx(found.rate, rel=0.03)  # a double root shrinks like its power times the step
    for elsewhere in (0.3 * found.fastest, 0.98 * found.limit):
        slower = list(itertools.islice(errors(of, {}, found.held, elsewhere), 100))
        assert (max(slower[90:]) / max(slower[40:50])) ** (1 / 50) > found.rate - 0.01


@pytest.mark.parametrize("of", [downslope.sgd, downslope.rmsprop, downslope.nesterov, downslope.nadam])
def test_what_is_said_to_arrive_at_once_does(of):
    found = of.stability()
    assert found.rate == 0
    assert list(itertools.islice(errors(of, {}, found.held, found.fastest), 4))[-1] < 1e-18


# What cannot be said


@rule
def cubic(x, dx, *, lr=0.1):
    return x - lr * dx**3


@rule
def two_sizes(x, dx, m=0, a=0, b=0, *, lr=0.1):
    a = 0.9 * a + dx**2
    b = 0.9 * b + abs(dx)
    m = 0.9 * m + dx
    return x - lr * (m / sqrt(a) + dx / b), m, a, b


@rule
def counting(x, dx, total=scalar(0.0), *, lr=0.1):
    total = total + 1
    return x - lr / total * dx, total


@rule
def looking(x, dx, v=0, *, lr=0.1):
    v = 0.9 * v - lr * dx
    return x + v, v


@looking.lookahead
def looking(v):
    return v * v


@rule
def without_a_rate(x, dx, *, rate=0.1):
    return x - rate * dx


CANNOT = {
    without_a_rate: "has no lr",
    downslope.lion: "sign",
    dialects.keras.lion: "sign",
    downslope.schedule_free_sgd: "depends on total, which never settles",
    downslope.schedule_free_adamw: "never settles",
    downslope.grams: "by the sign of something",
    downslope.adopt: "no multiple of the gradient",
    cubic: "no multiple of the gradient",
    two_sizes: "several sizes",
    counting: "depends on total, which never settles",
    looking: "its look-ahead is no multiple",
}


@pytest.mark.parametrize("of", CANNOT, ids=[of.name for of in CANNOT])
def test_what_cannot_be_read_off_says_why(of):
    found = of.stability()
    assert (found.limit, found.fastest, found.rate) == (None, None, None)
    assert CANNOT[of] in found.reason
    assert str(found) == f"no limit can be read off: {found.reason}"


def test_a_learning_rate_of_zero_has_no_limit():
    assert "nothing moves" in downslope.sgd.stability(lr=0).reason


@pytest.mark.parametrize("of", [downslope.sgd, downslope.momentum, downslope.adam], ids=lambda of: of.name)
def test_who_may_stand_still_is_not_linear(of):
    """Cautious steps are the whole step or none: as steep either way, but not a sum of what moves."""
    found = stability(compose(of, cautious=True), of.complete({}))
    assert found.limit is None
    assert "no multiple" in found.reason


def test_a_rule_that_is_never_stable():
    @rule
    def uphill(x, dx, *, lr=0.1):
        return x + lr * dx

    found = uphill.stability()
    assert (found.limit, found.fastest, found.rate) == (0, None, None)
    assert str(found) == "unstable at any lr * curvature"


def test_a_rule_that_is_always_stable():
    @rule
    def implicit(x, dx, *, lr=0.1, strong=0.5):
        return strong * x + 0 * lr * dx

    assert implicit.stability().limit == np.inf


def test_a_choice_by_the_gradient_is_not_linear_but_one_by_a_setting_is():
    @rule
    def clipped(x, dx, *, lr=0.1, most=1.0):
        return x - lr * where(abs(dx) > most, most * sign(dx), dx)

    @rule
    def either(x, dx, *, lr=0.1, most=1.0):
        return x - lr * where(most > 0.5, 2 * dx, dx)

    assert clipped.stability().limit is None
    assert either.stability().limit == pytest.approx(1)
    assert either.stability(most=0.1).limit == pytest.approx(2)


# Bad input


def test_settings_are_checked():
    with pytest.raises(TypeError, match="did you mean mu"):
        downslope.momentum.stability(muu=0.9)
    with pytest.raises(ValueError, match=r"mu=1\.5"):
        downslope.momentum.stability(mu=1.5)
    with pytest.raises(TypeError, match="no default for momentum"):
        dialects.keras.sgd_momentum.stability()
    assert dialects.optax.sgd.stability().limit == pytest.approx(2)


def test_how_it_is_said():
    assert str(downslope.adam.stability()) == (
        "stable while lr * preconditioned curvature is below 38 (v held still); fastest at 0.02633, where a step "
        "leaves 0.949 of the error"
    )
