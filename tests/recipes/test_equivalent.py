"""Whether two rules give the same path."""

import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pytest

import downslope
from downslope import Recipe, equivalent, minimum, norm, rule, rules, scalar, sqrt
from downslope.dialects import DIALECTS, keras, optax, tf1, torch
from downslope.language.options import compose
from downslope.recipes.training import MATRICES, START, Training, gradient, rate
from downslope.targets.arrays import interpret, interpret_together
from downslope.targets.decimals import compute, forty_digits
from downslope.targets.shapes import held_shape

FORMS = [(name, form) for name, dialect in DIALECTS.items() for form in dialect.rules.values()]


@rule
def rmsprop_with_the_rate_in_the_root(x, dx, cache=0, *, lr=1e-3, decay_rate=0.99, eps=1e-8):
    cache = cache + (1 - decay_rate) * (dx - sqrt(cache)) * (dx + sqrt(cache))
    return x - dx / (sqrt(cache / lr**2) + eps / lr), cache


@rule
def centered_otherwise(x, dx, mean=0, spread=0, *, lr=1e-2, alpha=0.99, eps=1e-8):
    """The variance, kept up to date itself instead of as a difference of two large numbers."""
    spread = alpha * spread + alpha * (1 - alpha) * (dx - mean) ** 2
    mean = alpha * mean + (1 - alpha) * dx
    return x - lr * dx / (sqrt(spread) + eps), mean, spread


@rule
def adam_without_powers(
    x, dx, m=0, v=0, one=scalar(0.0), two=scalar(0.0), *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8
):
    one, two = beta1 * one + (1 - beta1), beta2 * two + (1 - beta2)
    m = m - (1 - beta1) * (m - dx)
    v = v - (1 - beta2) * (v - dx * dx)
    return x - lr / one * m / (sqrt(v) / sqrt(two) + eps), m, v, one, two


@pytest.mark.parametrize(
    ("a", "b", "settings"),
    [
        (torch.sgd_momentum, optax.sgd_momentum, {"lr": 0.1, "momentum": 0.9}),
        (torch.sgd_momentum, tf1.sgd_momentum, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (optax.rmsprop, torch.rmsprop, {"lr": 0.01, "decay": 0.9, "alpha": 0.9, "eps_in_sqrt": False}),
        (optax.rmsprop, keras.rmsprop, {"lr": 0.01, "eps": 1e-7, "initial_scale": 0}),
        (optax.rmsprop, tf1.rmsprop, {"lr": 0.01, "eps": 1e-7, "initial_scale": 1}),
        (torch.adam, optax.adam, {"weight_decay": 0.1}),
        (keras.adam, tf1.adam, {"eps": 1e-7}),
        (keras.adam, torch.adam, {"eps": 0.0}),
        (keras.nadam, torch.nadam, {"lr": 1e-3, "eps": 1e-8, "momentum_decay": 1}),
        (torch.adagrad, tf1.adagrad, {"eps": 0, "initial_accumulator_value": 0.1}),
        (rules.radam, torch.radam, {"shortest": 5}),
        (rules.amsgrad, optax.amsgrad, {"bias_correction_mu": False, "bias_correction_nu": False}),
        (rules.nesterov, keras.sgd_momentum, {"lr": 0.01, "mu": 0.9, "momentum": 0.9, "nesterov": True}),
        (rules.adam, adam_without_powers, {}),
        (rules.rmsprop, rmsprop_with_the_rate_in_the_root, {}),
        (Recipe(torch.rmsprop, centered=True), centered_otherwise, {}),
        (Recipe(rules.sgd, maximize=True), Recipe(rules.sgd, maximize=True, cautious=True), {}),
        (Recipe(rules.sgd, weight_decay=0.1), Recipe(rules.sgd, weight_decay=0.1, decoupled=True), {}),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_the_same_path(a, b, settings):
    found = equivalent(a, b, **settings)
    assert found
    assert (found.same, found.first_step, found.at_step_1, found.at_last_step) == ("always", None, 0, 0)
    assert "same path" in str(found)


@pytest.mark.parametrize(
    ("a", "b", "settings"),
    [
        (torch.sgd_momentum, keras.sgd_momentum, {"lr": 0.1, "momentum": 0.9}),
        (torch.sgd_momentum, keras.sgd_momentum, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (torch.rmsprop_momentum, optax.rmsprop_momentum, {"decay": 0.99, "eps_in_sqrt": False}),
        (rules.nesterov, torch.sgd_momentum, {"lr": 0.01, "nesterov": True}),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_the_same_path_until_the_learning_rate_changes(a, b, settings):
    found = equivalent(a, b, **settings)
    assert not found
    assert (found.same, found.first_step, found.at_step_1) == ("constant lr", 21, 0)
    assert 0.1 < found.at_last_step < 0.5
    assert "as long as the learning rate is constant" in str(found)


@pytest.mark.parametrize(
    ("a", "b", "settings", "first_step"),
    [
        (keras.adam, torch.adam, {"eps": 1e-7}, 1),
        (keras.adam, torch.adam, {"eps": 1e-16}, 1),
        (keras.rmsprop, torch.rmsprop, {"lr": 1e-3, "eps": 1e-8, "alpha": 0.9}, 1),
        (torch.adam, optax.amsgrad, {"amsgrad": True}, 2),
        (torch.adam, rules.adamw, {"weight_decay": 0.01}, 1),
        (torch.radam, rules.radam, {}, 5),
        (keras.adagrad, tf1.adagrad, {"lr": 0.1}, 1),
        (torch.adamax, rules.adamax, {"eps": 0}, 1),
        (Recipe(rules.momentum), Recipe(rules.momentum, cautious=True), {}, 2),
        (rules.nesterov, keras.sgd_momentum, {"lr": 0.01, "momentum": 0.9}, 1),
        (rules.nesterov, rules.momentum, {}, 1),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_another_path(a, b, settings, first_step):
    found = equivalent(a, b, **settings)
    assert not found
    assert (found.same, found.first_step) == ("never", first_step)
    assert found.at_last_step > 1e-9
    assert str(found).startswith("Not the same path: they part at step")


def test_a_bound_that_is_reached_long_after_the_last_step():
    """Optax's Adafactor has no `min(lr, 1 / sqrt(t))`, which decides at `lr=0.01` from step 10,000 on."""
    found = equivalent(rules.adafactor, optax.adafactor, lr=0.01)
    assert (found.same, found.first_step, found.with_lr) == ("never", 12, 0.3)
    assert str(found).startswith("Not the same path: with lr=0.3 they part at step 12. After 100 steps")
    assert (found.a.numbers["lr"], found.b.numbers["lr"]) == (0.01, 0.01)
    assert equivalent(rules.adafactor, keras.adafactor, lr=0.01, steps=25)


def test_the_difference_is_that_of_the_formulas():
    """Of Adam's first step `lr * g / (|g| + eps)`, where Keras has `eps / sqrt(1 - beta2)` in place of eps."""
    found = equivalent(keras.adam, torch.adam, eps=1e-7, steps=1)
    gradients = [float(g) for g in gradient(1, START)]
    ways = [[abs(g) / (abs(g) + eps) for g in gradients if g] for eps in (1e-7, 1e-7 / math.sqrt(1e-3))]
    expected = max(abs(a - b) / max(a, b) for a, b in zip(*ways, strict=True))
    assert found.at_step_1 == pytest.approx(expected, rel=1e-9)
    assert found.by_size[1000.0] < 1e-8


def test_what_a_rule_has_no_default_for_is_that_of_the_recipe():
    mine = Recipe(torch.sgd_momentum, lr=0.1, momentum=0.8)
    assert equivalent(mine, optax.sgd_momentum)
    assert equivalent(optax.sgd_momentum, mine)
    assert equivalent(mine, optax.sgd_momentum, momentum=0.9).b.numbers["momentum"] == 0.9  # given for both
    assert equivalent(Recipe(keras.sgd_momentum, momentum=0.8), optax.sgd_momentum).b.numbers["momentum"] == 0.8


def test_few_steps_are_not_said_to_be_all():
    found = equivalent(torch.sgd_momentum, torch.sgd, steps=1)
    assert str(found) == "The same path for 1 step, also while the learning rate changes."
    assert equivalent(torch.sgd_momentum, torch.sgd, steps=2).first_step == 2


def test_hyperparameters_that_differ_are_named():
    found = equivalent(keras.sgd, torch.sgd)
    assert found.at_last_step == pytest.approx(0.9, rel=1e-3)
    assert "Note that lr is 0.01 in keras.sgd and 0.001 in torch.sgd." in str(found)


def test_one_formula_is_recognised_under_other_names():
    @rule
    def mine(x, dx, inertia=0, *, lr=0.01, friction=0.9):
        inertia = friction * inertia - lr * dx
        return x + inertia, inertia

    assert equivalent(mine, rules.momentum).one_formula
    assert str(equivalent(mine, rules.momentum)) == "The same formula, and so the same path."
    assert not equivalent(mine, rules.momentum, mu=0.8).one_formula
    assert not equivalent(mine, rules.nesterov).one_formula
    assert not equivalent(Recipe(optax.rmsprop, lr=1.0), Recipe(optax.rmsprop, lr=1.0, initial_scale=1.0)).one_formula


def test_several_threads_compare_at_once():
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda eps: equivalent(torch.radam, Recipe(optax.radam, lr=1e-3, eps=eps)), [0.0] * 4))
    assert len({comparison.at_last_step for comparison in found}) == 1


def test_points_stand_in_where_one_rule_looks_ahead():
    found = equivalent(rules.nesterov, keras.sgd_momentum, momentum=0.9, nesterov=True)
    assert found.at_points
    assert "which are ahead of note.nesterov's x" in str(found)
    assert not equivalent(rules.nesterov, rules.nesterov).at_points


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        (("adam", rules.adam), {}, TypeError, "a='adam' is neither a rule nor a recipe"),
        (
            (rules.adam, rules.adam),
            {"rho": 1},
            TypeError,
            "neither adam nor adam has a hyperparameter 'rho'; there are lr, beta1",
        ),
        ((rules.adam, rules.adam), {"steps": 0}, ValueError, "steps=0: give a whole number"),
        ((tf1.sgd, optax.sgd), {}, TypeError, "sgd has no default for lr"),
        ((rules.adam, rules.adam), {"lr": -1}, ValueError, "lr=-1 is out of range"),
    ],
)
def test_bad_input(arguments, settings, error, message):
    with pytest.raises(error) as raised:
        equivalent(*arguments, **settings)
    assert message in str(raised.value)


def in_double_precision(program, arrays, known):
    """A step; of the two matrices that the weights are to a rule that goes by whole tensors."""
    if not program.over_tensors:
        return interpret(program, arrays, known)
    parts, begun = [], dict.fromkeys(arrays, 0)
    for shape in MATRICES:
        its = {}
        for key, array in arrays.items():
            held = held_shape(program, key, shape)
            its[key] = array[begun[key] : begun[key] + math.prod(held)].reshape(held)
            begun[key] += its[key].size
        parts.append(its)
    made = interpret_together(program, parts, known)
    joined = {key: np.concatenate([np.ravel(new[key]) for new in made]) for key in program.outputs}
    return {**joined, **{key: made[0][key] for key in program.scalar_outputs}}


def test_the_norm_of_all_tensors_is_not_that_of_each():
    @rule
    def by_all(x, dx, *, lr=0.05):
        return x - lr * dx * minimum(1, 0.5 / norm(dx, over="all"))

    @rule
    def by_each(x, dx, *, lr=0.05):
        return x - lr * dx * minimum(1, 0.5 / norm(dx))

    assert equivalent(by_all, by_each, steps=2).same == "never"


@pytest.mark.parametrize(("name", "form"), FORMS, ids=lambda v: getattr(v, "name", v))
def test_forty_digits_and_double_precision_agree(name, form):
    """After ten steps in double precision on the same gradients, but for rounding; each choice of the rule."""
    for flags in ({}, *({flag: not value} for flag, value in form.flags.items())):
        given = {key: 0.1 for key, value in form.hyperparameters.items() if value is None}
        recipe = Recipe(form, **given, **flags)
        with forty_digits():
            training = Training.begin(recipe)
            arrays = {"x": np.array(START, float)} | {k: np.array(v, float) for k, v in training.states.items()}
            scalars = dict(recipe.program.scalar_states)
            for t in range(1, 11):
                dx = gradient(t, training.x)
                training = training.step(dx, rate(t))
                known = {**recipe.numbers, **scalars, "t": t}
                known["lr"] = known["lr"] * float(rate(t))
                new = in_double_precision(recipe.program, {**arrays, "dx": np.array(dx, float)}, known)
                arrays = {key: new[key] for key in arrays}
                scalars = {key: new[key] for key in scalars}
        np.testing.assert_allclose(np.array(training.x, float), arrays["x"], rtol=1e-9, atol=1e-12)
        for key, value in training.scalar_states.items():
            assert float(value) == pytest.approx(scalars[key], rel=1e-12)


def test_every_word_means_the_same_in_forty_digits():
    @rule
    def wordy(x, dx, *, lr=0.1):
        a = downslope.exp(-abs(dx)) + downslope.log(1 + dx**2) - downslope.tanh(x) * downslope.sign(dx)
        b = downslope.where((dx > 0) & ~(x >= 2) | (x == 0), a, downslope.minimum(a, downslope.maximum(x, dx**3)))
        return x - lr * downslope.where((x != dx) & (lr <= 0.5), b, -b) / (x**4 + 1)

    values = [-3.0, -0.5, 0.0, 0.25, 2.0, 70.0]
    x, dx = np.repeat(values, len(values)), np.tile(values, len(values))
    program = compose(wordy)
    with forty_digits():
        numbers = {"x": list(map(Decimal, x)), "dx": list(map(Decimal, dx))}
        ours = compute(program, numbers, {"lr": Decimal("0.5")})["x"]
    theirs = interpret(program, {"x": x, "dx": dx}, {"lr": 0.5})["x"]
    np.testing.assert_allclose(np.array(ours, float), theirs, rtol=1e-12)


def test_nan_and_infinity_are_where_ieee_arithmetic_has_them():
    @rule
    def edge(x, dx, *, lr=0.1):
        return downslope.maximum(dx / x, 0) * lr + sqrt(dx) * 0 ** (lr - 0.5)

    x, dx = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, -1.0, 4.0])
    with forty_digits():
        numbers = {"x": list(map(Decimal, x)), "dx": list(map(Decimal, dx))}
        ours = compute(compose(edge), numbers, {"lr": Decimal("0.5")})["x"]
    np.testing.assert_array_equal(np.array(ours, float), interpret(compose(edge), {"x": x, "dx": dx}, {"lr": 0.5})["x"])
