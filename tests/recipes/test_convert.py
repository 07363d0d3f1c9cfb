"""From one framework's recipe to another's."""

import importlib
import inspect
import operator
import re

import numpy as np
import pytest
import torch as real_torch

import downslope
import downslope.torch
from downslope import Recipe, convert, rules
from downslope.dialects import DIALECTS, keras, optax, tf1, torch
from downslope.language.options import compose
from downslope.recipes.spelled import TORCH_CLASSES, read_recipe, with_downslope
from downslope.targets.arrays import interpret

EXACT = [
    (Recipe(torch.sgd_momentum, lr=0.1), "optax", Recipe(optax.sgd_momentum, lr=0.1, momentum=0.9)),
    (
        Recipe(rules.nesterov),
        "keras",
        Recipe(keras.sgd_momentum, lr=0.01, momentum=0.9, nesterov=True),
    ),
    (
        Recipe(torch.rmsprop, alpha=0.95, centered=True, weight_decay=0.1),
        "optax",
        Recipe(optax.rmsprop, lr=0.01, decay=0.95, eps_in_sqrt=False, centered=True, weight_decay=0.1),
    ),
    (Recipe(tf1.adagrad, lr=0.1), "torch", Recipe(torch.adagrad, lr=0.1, eps=0.0, initial_accumulator_value=0.1)),
    (Recipe(keras.adam, amsgrad=True, eps=0.0), "torch", Recipe(torch.adam, eps=0.0, amsgrad=True)),
    (
        Recipe(rules.adamw),
        "torch",
        Recipe(torch.adam, weight_decay=0.01, decoupled_weight_decay=True),
    ),
    (
        Recipe(torch.adam, weight_decay=0.1, decoupled_weight_decay=True, maximize=True),
        "optax",
        Recipe(optax.adam, lr=1e-3, weight_decay=0.1, decoupled=True, maximize=True),
    ),
    (Recipe(keras.nadam), "torch", Recipe(torch.nadam, lr=1e-3, eps=1e-7, momentum_decay=1.0)),
    (Recipe(torch.radam), "note", Recipe(rules.radam, shortest=5.0)),
]

CONSTANT = [
    (Recipe(torch.sgd_momentum, lr=0.1), "keras", Recipe(keras.sgd_momentum, lr=0.1, momentum=0.9), "-lr"),
    (Recipe(rules.momentum, lr=0.1), "tf1", Recipe(tf1.sgd_momentum, lr=0.1, momentum=0.9), "-1/lr"),
    (
        Recipe(torch.sgd_momentum, lr=0.1, nesterov=True),
        "note",
        Recipe(rules.nesterov, lr=0.1),
        "-lr",
    ),
    (
        Recipe(torch.rmsprop_momentum),
        "optax",
        Recipe(optax.rmsprop_momentum, lr=0.01, decay=0.99, momentum=0.9, eps_in_sqrt=False),
        "lr",
    ),
]

INEXACT = [
    (Recipe(keras.rmsprop), "torch", Recipe(torch.rmsprop, lr=1e-3, alpha=0.9, eps=1e-7)),
    (Recipe(keras.rmsprop), "tf1", Recipe(tf1.rmsprop, lr=1e-3, eps=1e-7)),
    (Recipe(torch.adam, amsgrad=True), "optax", Recipe(optax.amsgrad, lr=1e-3)),
    (Recipe(torch.adagrad), "tf1", Recipe(tf1.adagrad, lr=0.01, initial_accumulator_value=1e-10)),
]

ADAFACTOR = [
    (Recipe(rules.adafactor), "torch", Recipe(torch.adafactor, eps1=1e-15)),  # whose eps1 is squared
    (Recipe(torch.adafactor), "keras", Recipe(keras.adafactor, lr=1e-2, epsilon_1=1.4210854715202e-14)),
    (
        Recipe(torch.adafactor, weight_decay=0.1, eps1=1e-8),
        "optax",
        Recipe(optax.adafactor, lr=1e-2, weight_decay_rate=1e-3, eps=1e-16),
    ),
    (
        Recipe(keras.adafactor, beta_2_decay=-0.7, epsilon_1=1e-20, weight_decay=0.01, decoupled=True),
        "optax",
        Recipe(optax.adafactor, lr=1e-3, decay_rate=0.7, eps=1e-20, weight_decay_rate=1e-5),
    ),
    (
        Recipe(optax.adafactor, lr=1e-3, clipping_threshold=2.0, weight_decay_rate=1e-5),
        "keras",
        Recipe(keras.adafactor, clip_threshold=2.0, weight_decay=0.01, decoupled=True),
    ),
    (
        Recipe(rules.adafactor, weight_decay=0.1),
        "optax",
        Recipe(optax.adafactor, lr=0.01, weight_decay=0.1),  # in the gradient, where both have it
    ),
]
"""What Adafactor comes closest to: numbers under other names, and a decay with or without the learning rate."""

named = {"ids": lambda v: getattr(v, "label", v) if isinstance(v, (Recipe, str)) else None}


def going_on(recipe, point, states, scalars, begun, steps, lr):
    """What becomes of the point where gradients are taken, of states and scalar states, in double precision."""
    program = compose(recipe.rule, stored_ahead=True, weight_decay=recipe.decayed, **recipe.options, **recipe.flags)
    arrays, scalars = {"x": point, **states}, dict(scalars)
    for t in range(begun + 1, begun + steps + 1):
        known = {**recipe.numbers, "lr": lr(t), **scalars, "t": t}
        known |= {f"{name} next": value for name, value in {**recipe.numbers, "lr": lr(t + 1)}.items()}
        noise = np.random.default_rng(t).standard_normal(point.shape) * np.logspace(-4, 2, point.size)
        new = interpret(program, {**arrays, "dx": 0.3 * arrays["x"] + noise}, known)
        arrays, scalars = {name: new[name] for name in arrays}, {name: new[name] for name in scalars}
    return arrays.pop("x"), arrays, scalars


def begun(recipe, steps=15):
    """A training after so many steps with a constant learning rate."""
    point = np.linspace(-2, 2, 12)
    states = {name: np.full_like(point, recipe.program.initial(name, recipe.numbers)) for name in recipe.program.states}
    return going_on(recipe, point, states, recipe.program.scalar_states, 0, steps, lambda t: recipe.numbers["lr"])


@pytest.mark.parametrize(("recipe", "to", "expected"), EXACT, **named)
def test_there_and_back_is_the_identity(recipe, to, expected):
    """Of recipe and states; and the training goes on with the same numbers while the learning rate changes."""
    point, states, scalars = begun(recipe)
    there = convert(recipe, to, states=states, scalar_states=scalars, t=15)
    assert there.recipe == expected
    assert there.exact
    assert there.comparison.same == there.handover.same == "always"
    assert not there.lost
    assert "the same path" in str(there)
    back = convert(there.recipe, recipe.dialect, states=there.states, scalar_states=there.scalar_states, t=15)
    if recipe.rule is rules.adamw:
        assert back.recipe == Recipe(rules.adam, weight_decay=0.01, decoupled=True)  # which is the same
    else:
        assert back.recipe == recipe
    assert back.exact
    for name, values in states.items():
        np.testing.assert_array_equal(back.states[name], values)
    assert back.scalar_states == pytest.approx(scalars, rel=1e-14)

    def schedule(t):
        return recipe.numbers["lr"] * (1 + t % 3)

    ours, *_ = going_on(recipe, point, states, scalars, 15, 50, schedule)
    theirs, *_ = going_on(expected, point, there.states, there.scalar_states, 15, 50, schedule)
    np.testing.assert_allclose(theirs, ours, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("recipe", "to", "expected", "factor"), CONSTANT, **named)
def test_a_learning_rate_in_the_buffer_goes_with_the_state(recipe, to, expected, factor):
    point, states, scalars = begun(recipe)
    there = convert(recipe, to, states=states, t=15)
    assert there.recipe == expected
    assert not there.exact
    assert there.comparison.same == there.handover.same == "constant lr"
    assert factor in [origin.factor for origin in there.origins.values()]
    assert "as long as the learning rate is constant. When it changes they part at once" in str(there)
    back = convert(there.recipe, recipe.dialect, states=there.states, t=15)
    assert back.recipe == recipe
    for name, values in states.items():
        np.testing.assert_allclose(back.states[name], values, rtol=1e-15)
    ours, *_ = going_on(recipe, point, states, scalars, 15, 50, lambda t: recipe.numbers["lr"])
    theirs, *_ = going_on(expected, point, there.states, there.scalar_states, 15, 50, lambda t: recipe.numbers["lr"])
    np.testing.assert_allclose(theirs, ours, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("recipe", "to", "expected"), INEXACT, **named)
def test_what_is_not_exact_says_by_how_much(recipe, to, expected):
    found = convert(recipe, to)
    assert found.recipe == expected
    assert not found.exact
    assert found.comparison.same == "never"
    assert found.comparison.at_last_step > 1e-3
    assert f"{DIALECTS[to].framework} has no exact counterpart of" in str(found)
    assert re.search(
        r"part at step \d.* After 100 steps they are apart by .* of the way where gradients are near 1", str(found)
    )
    front = {
        "torch": "downslope.torch.Optimizer(",
        "optax": "downslope.optax.optimizer(",
        "tf1": "downslope.keras.Optimizer(",
    }
    assert f"optimizer = {front[to]}" in found.snippet()
    assert f"dialects.{recipe.dialect}.{recipe.rule.name}" in found.snippet()


@pytest.mark.parametrize(("recipe", "to", "expected"), ADAFACTOR, **named)
def test_numbers_that_another_dialect_has_under_another_name(recipe, to, expected):
    found = convert(recipe, to)
    assert found.recipe == expected
    assert found.comparison.same == "never"


def test_of_a_pair_what_is_none_has_its_default():
    """As `eps=(None, 1e-3)`, the default of PyTorch's Adafactor."""
    assert read_recipe("torch", "Adafactor", {"eps": (None, 0.01)}) == Recipe(torch.adafactor, eps2=0.01)


def test_an_eps_whose_square_is_nothing_is_refused_for_pytorch():
    """With it a row without gradients is nan in PyTorch, as this one is."""
    weights = real_torch.nn.Parameter(real_torch.ones(2, 3))
    weights.grad = real_torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    real_torch.optim.Adafactor([weights], eps=(1e-30, 1e-3)).step()
    assert weights[0].isnan().all()
    with pytest.raises(ValueError, match=r"eps1=1e-30 is out of range; expected a number from 1.0842e-19"):
        Recipe(torch.adafactor, eps1=1e-30)
    least = torch.adafactor.ranges["eps1"].low
    x, dx = np.ones((2, 3), np.float32), np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    optimizer = downslope.Optimizer(x, torch.adafactor, eps1=least)
    optimizer.step(dx)
    np.testing.assert_array_equal(x[0], 1)
    assert (x[1] < 1).all()


def test_states_may_go_on_exactly_where_the_start_is_another():
    """TensorFlow 1 starts its mean square at one; later that makes no difference to how it goes on."""
    recipe = Recipe(keras.rmsprop)
    point, states, scalars = begun(recipe)
    found = convert(recipe, "tf1", states=states, t=15)
    assert found.comparison.same == "never"
    assert found.exact
    assert "Going on with them leads along the same path." in str(found)
    ours, *_ = going_on(recipe, point, states, scalars, 15, 50, lambda t: 1e-3 * t)
    theirs, *_ = going_on(found.recipe, point, found.states, found.scalar_states, 15, 50, lambda t: 1e-3 * t)
    np.testing.assert_allclose(theirs, ours, rtol=1e-12)


def test_a_state_that_comes_from_nowhere_starts_anew_and_says_so():
    states = {"exp_avg": np.ones(3), "exp_avg_sq": np.ones(3), "max_exp_avg_sq": np.ones(3)}
    found = convert(Recipe(torch.adam, amsgrad=True), "optax", states=states, t=15)
    assert found.lost == ["nu_max"]
    np.testing.assert_array_equal(found.states["nu_max"], 0)
    assert "nu_max starts anew. Going on with them leads off by" in str(found)


def test_a_state_that_is_nearly_the_same_is_taken():
    """Keras adds epsilon to the norm when it divides, PyTorch to the gradient that goes into it."""
    found = convert(torch.adamax, "keras", states={"exp_avg": np.ones(3), "exp_inf": np.full(3, 2.0)}, t=15)
    np.testing.assert_array_equal(found.states["norm"], 2.0)
    assert "momentums = exp_avg, norm about exp_inf" in str(found)
    assert found.handover.same == "never"


def test_scalar_states_are_worked_out_where_they_come_from_nowhere():
    _, states, scalars = begun(Recipe(rules.radam, shortest=5.0))
    back = convert(torch.radam, "note", states={"exp_avg": states["m"], "exp_avg_sq": states["v"]}, t=15)
    assert back.recipe == Recipe(rules.radam, shortest=5.0)
    assert back.scalar_states == pytest.approx(scalars, rel=1e-14)


def test_states_by_parameter_and_in_single_precision():
    states = {"momentum_buffer": {"W": np.ones((2, 3), np.float32), "b": np.full(3, 2, np.float32)}}
    found = convert(torch.sgd_momentum, "keras", lr=0.1, states=states, t=1).states["momentums"]
    assert {name: (array.dtype, array.shape) for name, array in found.items()} == {
        "W": (np.float32, (2, 3)),
        "b": (np.float32, (3,)),
    }
    np.testing.assert_allclose(found["b"], -0.2, rtol=1e-7)


def test_before_the_first_step_states_are_those_of_the_new_recipe():
    states = {"velocity": np.zeros(3)}
    np.testing.assert_array_equal(convert(keras.rmsprop, "tf1", states=states, t=0).states["rms"], 1)


def test_what_has_no_counterpart_runs_with_downslope():
    found = convert(keras.lion, "torch")
    assert (found.recipe, found.comparison, found.exact, found.lost) == (None, None, False, [])
    assert str(found) == "PyTorch has no counterpart of Keras's Lion; downslope runs the formula there."
    assert found.snippet().endswith("Optimizer(\n    model.parameters(), dialects.keras.lion, lr=0.001\n)")


def test_a_rule_of_ones_own_is_found_by_its_name_and_judged_by_its_path():
    @downslope.rule
    def adam(x, dx, first=0, second=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, tiny=1e-8):
        first = first + (1 - beta1) * (dx - first)
        second = second + (1 - beta2) * (dx**2 - second)
        return x - lr * first / (1 - beta1**t) / (downslope.sqrt(second / (1 - beta2**t)) + tiny), first, second

    found = convert(adam, "torch", tiny=1e-5)
    assert found.exact
    assert found.recipe == Recipe(torch.adam, eps=1e-5)
    assert str(found) == "adam is PyTorch's Adam: the same path, also while the learning rate changes."


def test_a_learning_rate_of_zero_does_not_make_all_rules_the_same():
    assert convert(torch.adam, "optax", lr=0.0).recipe == Recipe(optax.adam, lr=0.0)
    assert convert(keras.adam, "torch", lr=0.0).comparison.same == "never"
    with pytest.raises(ValueError, match=r"lr=0.0: a state is -momentums / lr; give the learning rate"):
        convert(keras.sgd_momentum, "torch", lr=0.0, momentum=0.9, states={"momentums": np.ones(3)}, t=1)


def test_the_same_dialect_changes_nothing():
    found = convert(torch.adam, "torch", lr=0.1)
    assert found.exact
    assert found.recipe == Recipe(torch.adam, lr=0.1)


@pytest.mark.parametrize("dialect", ["note", "torch"])
def test_every_name_in_the_code_exists(dialect):
    """Of all that is converted to itself, of any rule as downslope runs it there, and the settings of the call."""
    space = {} if dialect == "note" else {dialect: pytest.importorskip(dialect)}
    space |= {"downslope": downslope, "dialects": downslope.dialects}
    if dialect != "note":
        importlib.import_module(f"downslope.{dialect}")
    for spelling in DIALECTS[dialect].spellings:
        words = {name: value for name, value in spelling.fixed.items() if name in spelling.rule.flags}
        needed = {name: 0.5 for name, value in spelling.rule.hyperparameters.items() if value is None}
        recipe = Recipe(spelling.rule, **words, **needed)
        imports, call = with_downslope(recipe, dialect)
        code = "\n".join([convert(recipe, dialect).snippet(), *imports, call])
        names = set(re.findall(r"\b(?:torch|optax|keras|downslope|dialects)(?:\.\w+)+", code))
        assert any(f".{spelling.rule.name}" in name for name in names), code
        for name in names:
            assert operator.attrgetter(name.partition(".")[2])(space[name.partition(".")[0]]) is not None
        for call in re.findall(r"^optimizer = ((?:torch|optax|keras)[\w.]+)\(", code, re.M):
            takes = inspect.signature(operator.attrgetter(call.partition(".")[2])(space[dialect])).parameters
            assert set(re.findall(r"(\w+)=", code.partition("\n\n#")[0])) <= set(takes)


def test_downslope_has_the_classes_of_pytorch_that_are_named():
    assert set(downslope.torch.__all__) == {*TORCH_CLASSES, "Optimizer"}
    assert "\n# downslope.torch.AdamW(" in convert(read_recipe("torch", "AdamW", {"lr": 0.1}), "torch").snippet()
    muon = convert(torch.muon, "torch").snippet()
    assert "#     model.parameters(), downslope.dialects.torch.muon, lr=0.001\n" in muon


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        (("adam", "torch"), {}, TypeError, "recipe='adam' is neither a rule nor a recipe"),
        (
            (torch.adam, "jax"),
            {},
            ValueError,
            "to='jax' is not a dialect; choose one of note, torch, keras, tf1, optax",
        ),
        ((torch.adam, "keras"), {"rho": 0.9}, TypeError, "adam has no hyperparameter 'rho'"),
        ((torch.adam, "keras"), {"t": 3}, TypeError, "t go with states=..."),
        ((torch.sgd_momentum, "keras"), {"states": {"momentum_buffer": 1.0}}, TypeError, "t=None: give the number of"),
        (
            (torch.adam, "keras"),
            {"states": {"m": 1.0}, "t": 1},
            ValueError,
            "states has m; torch.adam with these settings",
        ),
        (
            (torch.nadam, "keras"),
            {"states": {"exp_avg": 1.0, "exp_avg_sq": 1.0}, "scalar_states": {}, "t": 1},
            ValueError,
            "scalar_states has nothing; torch.nadam with these settings has mu_product",
        ),
    ],
)
def test_bad_input(arguments, settings, error, message):
    with pytest.raises(error) as raised:
        convert(*arguments, **settings)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("recipe", "to", "call", "said"),
    [
        (
            Recipe(keras.adam, weight_decay=0.004, decoupled=True),
            "tf1",
            "dialects.keras.adam, learning_rate=0.001, weight_decay=0.004\n",
            None,
        ),
        (
            Recipe(optax.adadelta, lr=0.1, weight_decay=0.3),
            "keras",
            "dialects.optax.adadelta, learning_rate=0.1",
            "# Keras has no coupled weight decay: add 0.15 * sum(x**2) to the loss.\n",
        ),
        (
            Recipe(optax.sgd, lr=0.1, maximize=True, weight_decay=0.1),
            "keras",
            "optimizer = downslope.keras.Optimizer(dialects.optax.sgd, learning_rate=0.1)",
            "# Keras has no maximize: train on the negative loss.\n# Keras has no coupled weight decay: add 0.05",
        ),
    ],
    ids=["decoupled", "coupled", "maximize"],
)
def test_what_keras_has_no_argument_for_is_said_beside_the_call(recipe, to, call, said):
    """Its own weight decay is decoupled, and the call must not pass the other kind to it."""
    code = convert(recipe, to).snippet()
    assert call in code
    assert "decoupled=" not in code
    assert "maximize=" not in code
    assert said in code if said else "#" not in code
