"""Recipes, and how frameworks write them."""

import ast
import copy
import inspect
import os
import pickle

import numpy as np
import pytest

import downslope
from downslope import Recipe, dialects, rules
from downslope.dialects import DIALECTS
from downslope.recipes.spelled import native, read_recipe, title

SPELLINGS = [(name, spelling) for name, dialect in DIALECTS.items() for spelling in dialect.spellings]


def settled(spelling):
    """A recipe with the framework's defaults, and a number for what has none."""
    settings = {
        name: spelling.default(name)
        for name in (
            *spelling.rule.hyperparameters,
            *spelling.rule.flags,
            *(["weight_decay"] if spelling.decay else []),
        )
    }
    settings = {name: {"lr": 0.01}.get(name, 0.8) if value is None else value for name, value in settings.items()}
    if "momentum" in settings:
        settings["momentum"] = 0.8
    if spelling.decay and not settings["weight_decay"]:
        del settings["weight_decay"]
    return Recipe(spelling.rule, **settings, decoupled=spelling.decay == "decoupled" and "weight_decay" in settings)


def framework(name):
    """The modules that the code of a dialect asks for."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if name == "tf1":
        return {"tf": pytest.importorskip("tensorflow")}
    return {name: pytest.importorskip(name)}


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(rules.adam),
        Recipe(dialects.torch.adam, lr=3e-4, beta2=0.95, weight_decay=0.1, decoupled_weight_decay=True),
        Recipe(dialects.keras.rmsprop, eps=1e-7, weight_decay=0.02, decoupled=True, cautious=True, maximize=True),
        Recipe(dialects.optax.rmsprop, lr=1e20, eps_in_sqrt=False),
    ],
)
def test_what_a_recipe_shows_is_python_that_makes_it(recipe):
    assert eval(repr(recipe), {"Recipe": Recipe, "dialects": dialects, "rules": rules}) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert hash(copy.deepcopy(recipe)) == hash(recipe)


def test_recipes_are_equal_if_all_they_hold_is():
    recipe = Recipe(rules.adam, lr=0.1)
    assert recipe == Recipe(rules.adam, lr=0.1, beta1=0.9)
    assert recipe.with_settings(lr=0.2) == Recipe(rules.adam, lr=0.2)
    others = [Recipe(rules.adam), Recipe(rules.adamw, lr=0.1), recipe.with_settings(maximize=True), "adam"]
    assert all(recipe != other for other in others)


def test_a_recipe_cannot_be_changed():
    recipe = Recipe(rules.adam)
    with pytest.raises(AttributeError, match=r"lr=0.1: a recipe cannot be changed; use recipe.with_settings\(lr=...\)"):
        recipe.lr = 0.1
    with pytest.raises(TypeError, match="does not support item assignment"):
        recipe.numbers["lr"] = 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9},
        {"lr": "fast"},
        {"lr": -1.0},
        {"centered": 1},
        {"rho": 2.0},
        {"decoupled": True},
        {"weight_decay": -0.1},
        {"maximize": 1},
    ],
)
def test_what_an_optimizer_refuses_a_recipe_refuses_in_the_same_words(settings):
    with pytest.raises((TypeError, ValueError)) as theirs:
        downslope.Optimizer(np.zeros(2), dialects.keras.rmsprop, **settings)
    with pytest.raises(type(theirs.value)) as ours:
        Recipe(dialects.keras.rmsprop, **settings)
    assert str(ours.value) == str(theirs.value)


def test_what_is_no_part_of_a_path_is_refused():
    with pytest.raises(TypeError, match="give the schedule's value at one step"):
        Recipe(rules.adam, lr=lambda t: 1 / t)
    with pytest.raises(TypeError, match="adam has no hyperparameter 'averaging'"):
        Recipe(rules.adam, averaging=0.9)
    with pytest.raises(TypeError, match="adagrad has no default for lr"):
        Recipe(dialects.tf1.adagrad)
    with pytest.raises(TypeError, match="'adam' is not a rule"):
        Recipe("adam")


def test_a_recipe_knows_its_dialect():
    @downslope.rule
    def mine(x, dx, *, lr=0.1):
        return x - lr * dx

    assert [Recipe(rule).dialect for rule in (rules.lion, dialects.torch.adam, mine)] == ["note", "torch", None]
    assert repr(Recipe(mine)) == "Recipe(mine, lr=0.1)"
    assert [title(Recipe(rule)) for rule in (rules.lion, dialects.keras.nadam, mine)] == [
        "downslope's lion",
        "Keras's Nadam",
        "mine",
    ]
    assert title(Recipe(dialects.torch.adam, decoupled_weight_decay=True, weight_decay=0.01)) == "PyTorch's AdamW"


@pytest.mark.parametrize("name", ["torch", "keras", "tf1", "optax"])
def test_every_rule_of_a_dialect_has_a_spelling(name):
    module = getattr(dialects, name)
    assert {v for v in vars(module).values() if isinstance(v, downslope.Rule)} == set(DIALECTS[name].rules.values())


@pytest.mark.parametrize(
    ("name", "spelling"), [(n, s) for n, s in SPELLINGS if n != "note"], ids=lambda v: getattr(v, "call", v)
)
def test_names_and_defaults_are_those_of_the_installed_framework(name, spelling):
    """Every argument is there under its name and has its default; and the code runs."""
    dialect, modules = DIALECTS[name], framework(name)
    signature = inspect.signature(eval(spelling.call, modules)).parameters
    settings = {**spelling.rule.hyperparameters, **spelling.rule.flags} | (
        {"weight_decay": 0} if spelling.decay else {}
    )
    for setting in settings.keys() - spelling.fixed.keys():
        ours = spelling.default(setting)
        pair = next((pair for pair, parts in dialect.pairs.items() if setting in parts), None)
        if pair:
            there = signature[pair].default[dialect.pairs[pair].index(setting)]
            assert ours == (2**-23 if there is None else there)  # Adafactor's, which goes by the dtype
            continue
        theirs = signature[dialect.arguments.get(setting, setting)].default
        required = theirs in (None, inspect.Parameter.empty)
        assert ours in (None, 0.0) if required else theirs == (0.0 if ours is None else ours), setting
    recipe = settled(spelling)
    line = native(recipe)
    if name == "torch":
        modules["model"] = modules["torch"].nn.Linear(2, 1, bias=False)
    eval(line, modules)
    call = ast.parse(line, mode="eval").body
    arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert read_recipe(name, ast.unparse(call.func), arguments) == recipe


def test_other_settings_come_back_as_they_were_written():
    for name, spelling in SPELLINGS:
        recipe = settled(spelling)
        changed = {n: 0.5 * v + 0.25 if n.startswith("beta") else v for n, v in recipe.numbers.items()}
        changed |= {flag: not value for flag, value in recipe.flags.items() if flag not in spelling.fixed}
        recipe = recipe.with_settings(**changed)
        line = native(recipe)
        if name == "note":
            assert line is None
            continue
        call = ast.parse(line, mode="eval").body
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        assert read_recipe(name, ast.unparse(call.func), arguments) == recipe


def test_what_a_framework_cannot_say_has_no_line():
    adam = Recipe(dialects.keras.adam, weight_decay=0.1)
    assert native(adam) is None  # coupled
    assert native(adam.with_settings(decoupled=True)) == "keras.optimizers.Adam(learning_rate=0.001, weight_decay=0.1)"
    assert native(Recipe(dialects.torch.adam, cautious=True)) is None
    assert native(Recipe(dialects.tf1.adam, maximize=True)) is None
    assert native(Recipe(dialects.tf1.adam, weight_decay=0.1)) is None
    assert native(Recipe(rules.adam)) is None
    assert native(Recipe(dialects.torch.muon, maximize=True)) is None  # the only one of PyTorch's without
    assert native(Recipe(dialects.torch.sgd, maximize=True)) == (
        "torch.optim.SGD(model.parameters(), lr=0.001, maximize=True)"
    )
    assert native(Recipe(dialects.optax.adam, lr=1.0, maximize=True)) == (
        "optax.chain(optax.scale(-1.0), optax.adam(learning_rate=1.0))"
    )
    assert native(Recipe(dialects.optax.sgd, lr=1.0, weight_decay=0.1)) == (
        "optax.chain(optax.add_decayed_weights(0.1), optax.sgd(learning_rate=1.0))"
    )


def test_reading_takes_any_of_the_names():
    expected = Recipe(dialects.torch.sgd_momentum, lr=0.1, momentum=0.9, nesterov=True)
    for name in ("SGD", "sgd", "torch.optim.SGD", "sgd_momentum"):
        assert read_recipe("torch", name, {"lr": 0.1, "momentum": 0.9, "nesterov": True}) == expected
    assert read_recipe("torch", "SGD", {"lr": 0.1, "momentum": 0}) == Recipe(dialects.torch.sgd, lr=0.1)
    assert read_recipe("tf1", "rmsprop", {"learning_rate": 0.1}) == Recipe(dialects.tf1.rmsprop, lr=0.1)
    assert read_recipe("keras", "Adam", {"beta_1": 0.8}) == read_recipe("keras", "adam", {"beta1": 0.8})
    assert read_recipe("optax", "adamw", {"learning_rate": 0.1}).options["decoupled"]
    assert read_recipe("keras", "adam", {"weight_decay": None}) == Recipe(dialects.keras.adam)
    assert read_recipe("optax", "adamaxw", {"learning_rate": 0.1}) == Recipe(
        dialects.optax.adamax, lr=0.1, weight_decay=1e-4, decoupled=True
    )


def test_without_momentum_what_belongs_to_it_may_be_written_out():
    """As `get_config` and the like do."""
    assert read_recipe("keras", "SGD", {"momentum": 0.0, "nesterov": False}) == Recipe(dialects.keras.sgd)
    assert read_recipe("torch", "SGD", {"momentum": 0, "dampening": 0, "nesterov": False}) == Recipe(dialects.torch.sgd)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("jax", "adam", {}),
            ValueError,
            "dialect='jax' is not a dialect; choose one of note, torch, keras, tf1, optax",
        ),
        (("keras", "Adamm", {}), ValueError, "'Adamm' is not an optimizer of Keras; it has SGD, Adagrad, RMSprop"),
        (("keras", "Adam", {"betas": (0.9, 0.9)}), TypeError, "it has learning_rate, beta_1, beta_2, epsilon, amsgrad"),
        (("torch", "Adam", {"beta": 0.9}), TypeError, "did you mean betas?"),
        (("torch", "Adam", {"betas": 0.9}), TypeError, "betas=0.9: give 2 numbers"),
        (("torch", "Adam", {"betas": (0.9, 0.9), "beta1": 0.9}), TypeError, "beta1 is given twice"),
        (("torch", "Adam", {"lr": "a"}), TypeError, "lr='a' is a str"),
        (("torch", "AdamW", {"decoupled_weight_decay": False}), ValueError, "AdamW means decoupled_weight_decay=True"),
        (("keras", "Adam", {"momentum": 0}), TypeError, "keras.optimizers.Adam has no hyperparameter 'momentum'"),
        (("torch", "SGD", {"nesterov": True}), TypeError, "torch.optim.SGD has no hyperparameter 'nesterov'"),
        (("optax", "adam", {}), TypeError, "adam has no default for lr"),
    ],
)
def test_reading_says_what_is_wrong(arguments, error, message):
    with pytest.raises(error) as raised:
        read_recipe(*arguments)
    assert message in str(raised.value)
