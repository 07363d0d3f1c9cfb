"""Recipes in the words of a framework, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from downslope.dialects import DIALECTS, Dialect, Spelling
from downslope.language.formula import unknown
from downslope.recipes.recipe import AROUND, Recipe, literal, written
from downslope.rule import Rule


@dataclass(frozen=True)
class FrontEnd:
    """How downslope runs any rule in a framework.

    Attributes:
        module: The module to import.
        call: The call, up to the rule.
        lr: What the learning rate is called there.
    """

    module: str
    call: str
    lr: str = "lr"


_KERAS = FrontEnd("downslope.keras", "downslope.keras.Optimizer(", "learning_rate")
FRONT_ENDS = {
    "note": FrontEnd("downslope", "downslope.Optimizer(params, "),
    "torch": FrontEnd("downslope.torch", "downslope.torch.Optimizer(model.parameters(), "),
    "keras": _KERAS,
    "tf1": _KERAS,
    "optax": FrontEnd("downslope.optax", "downslope.optax.optimizer("),
}
"""The front end for each dialect's framework."""

TORCH_CLASSES = ("SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop")
"""The optimizers of PyTorch that downslope.torch has under the same names."""


def checked_dialect(name: str, argument: str) -> Dialect:
    """The dialect of this name.

    Raises:
        ValueError: There is none.
    """
    if name not in DIALECTS:
        raise ValueError(f"{argument}={name!r} is not a dialect; choose one of {', '.join(DIALECTS)}")
    return DIALECTS[name]


def read_recipe(dialect: str, name: str, arguments: Mapping[str, Any]) -> Recipe:
    """A recipe from a framework's class or function and its arguments.

    Args:
        dialect: note, torch, keras, tf1 or optax.
        name: The framework's name, such as `RMSprop`, in large or small letters, or that of a rule of the dialect.
        arguments: The settings, under the framework's names or those of the dialect.

    Raises:
        ValueError: There is no such dialect, class, function or rule; or a value is out of range.
        TypeError: An argument is unknown, given twice, missing or of the wrong kind.

    Example:
        >>> read_recipe("keras", "AdamW", {"learning_rate": 3e-4, "beta_2": 0.99})
        Recipe(dialects.keras.adam, lr=0.0003, beta2=0.99, weight_decay=0.004, decoupled=True)
    """
    known = checked_dialect(dialect, "dialect")
    found = known.named(name)
    if not found:
        names = dict.fromkeys(spelling.name for spelling in known.spellings)
        raise ValueError(f"{name!r} is not an optimizer of {known.framework}; it has {', '.join(names)}")
    by_rule = name.lower() == found[0].rule.name != found[0].name.lower()
    if by_rule:
        spelling = found[0]
    else:
        spelling = _with_or_without_momentum(_with_words(found, arguments), arguments)
        arguments = {key: value for key, value in arguments.items() if spelling.words.get(key, ()) != value}
    settings = _ours(known, spelling, arguments)
    for fixed, value in spelling.fixed.items():
        if settings.setdefault(fixed, value) != value:
            raise ValueError(f"{fixed}={settings[fixed]!r}: {spelling.call} means {fixed}={value}")
    for default, number in spelling.defaults.items():
        if default != "momentum":
            settings.setdefault(default, number)
    if spelling.decay and "decoupled" not in settings:
        if settings.get("weight_decay") in (None, 0):
            settings.pop("weight_decay", None)
        elif spelling.decay == "decoupled":
            settings["decoupled"] = True
    return Recipe(spelling.rule, **settings)


def _with_words(found: list[Spelling], arguments: Mapping[str, Any]) -> list[Spelling]:
    """Those with the words that are among the arguments; those without words if there are none."""
    said = [s for s in found if s.words and all(arguments.get(key) == word for key, word in s.words.items())]
    return said or [s for s in found if not s.words]


def _with_or_without_momentum(found: list[Spelling], arguments: Mapping[str, Any]) -> Spelling:
    wanted = arguments.get("momentum") not in (None, 0)
    fitting = [s for s in found if ("momentum" in s.rule.hyperparameters) == wanted]
    return (fitting or found)[0]


def _ours(dialect: Dialect, spelling: Spelling, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments under the names of the dialect, with pairs such as `betas` split."""
    ours = {theirs: name for name, theirs in dialect.arguments.items()}
    own = [*spelling.rule.hyperparameters, *spelling.rule.flags]
    there = [dialect.arguments.get(name, name) for name in [*own, *(["weight_decay"] if spelling.decay else [])]]
    for pair, names in dialect.pairs.items():
        if names[0] in own:
            there[there.index(names[0])] = pair
            there = [name for name in there if name not in names]
    with_momentum = [s.rule for s in dialect.spellings if s.call == spelling.call and s.rule is not spelling.rule]
    idle = {name for rule in with_momentum for name in (*rule.hyperparameters, *rule.flags)} - set(own)
    settings: dict[str, Any] = {}
    for given, value in arguments.items():
        parts = {ours.get(given, given): value}
        if given in dialect.pairs and dialect.pairs[given][0] in own:
            names = dialect.pairs[given]
            if not isinstance(value, (tuple, list)) or len(value) != len(names):
                raise TypeError(f"{given}={value!r}: give {len(names)} numbers, such as {_usual(spelling, names)}")
            parts = {name: part for name, part in zip(names, value, strict=True) if part is not None}  # its default
        for name, part in parts.items():
            if name in idle and part in (None, 0):  # without momentum it changes nothing
                continue
            if name not in {*own, *AROUND}:
                raise unknown(spelling.call, given, there)
            if name in settings:
                raise TypeError(f"{given}={value!r}: {name} is given twice")
            settings[name] = part
    return settings


def _usual(spelling: Spelling, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(spelling.default(name) for name in names)


def native(recipe: Recipe) -> str | None:
    """The framework's own line of code for a recipe of its dialect; None where it has none.

    Example:
        >>> from downslope import Recipe, dialects
        >>> native(Recipe(dialects.torch.adam, lr=3e-4, beta2=0.99))
        'torch.optim.Adam(model.parameters(), lr=0.0003, betas=(0.9, 0.99))'
    """
    dialect = DIALECTS[recipe.dialect] if recipe.dialect else None
    if dialect is None or recipe.dialect == "note":
        return None
    best: dict[str, Any] | None = None
    line = None
    for spelling in dialect.spellings:
        arguments = _arguments(recipe, dialect, spelling) if spelling.rule is recipe.rule else None
        if arguments is not None and (best is None or len(arguments) < len(best)):
            best = arguments
            first = [dialect.first] if dialect.first else []
            line = f"{spelling.call}({', '.join([*first, *written({**arguments, **spelling.words})])})"
    if line and recipe.decayed and not recipe.options["decoupled"] and "weight_decay" not in (best or {}):
        line = dialect.coupled.format(decay=literal(recipe.numbers["weight_decay"]), call=line)
    if line and recipe.options["maximize"] and dialect.uphill:
        line = dialect.uphill.format(call=line)
    return line


def can_be_said(recipe: Recipe) -> bool:
    """Whether a recipe has a call in the framework of its dialect; that of the textbook is downslope."""
    return recipe.dialect == "note" or native(recipe) is not None


def sayable_options(dialect: str, rule: Rule) -> frozenset[str]:
    """The options besides a weight decay that a framework has for a rule of its dialect; downslope has all of them."""
    if dialect == "note":
        return frozenset(AROUND)
    known = DIALECTS[dialect]
    lacking = [spelling.lacks for spelling in known.spellings if spelling.rule is rule]
    return known.options.union({"maximize"} if known.uphill else ()).difference(*lacking)


def title(recipe: Recipe) -> str:
    """What people call a recipe, such as `Keras's RMSprop`, and the options that its framework does not have."""
    if recipe.dialect is None:
        return recipe.rule.name + _besides(recipe)
    dialect = DIALECTS[recipe.dialect]
    line = native(recipe) or ""
    own = [spelling.name for spelling in dialect.spellings if spelling.rule is recipe.rule]
    named = next((name for name in own if f".{name}(" in line), own[0])
    return f"{dialect.framework}'s {named}" + ("" if line else _besides(recipe))


def _besides(recipe: Recipe) -> str:
    """The options around a rule, in words."""
    apart = recipe.options["decoupled"] or recipe.options["cautious_decay"]
    decay = "decoupled weight decay" if apart else "coupled weight decay"
    words = {"cautious": "cautious steps", "cautious_decay": "caution in it", "maximize": "the sign of maximize"}
    found = [*([decay] if recipe.decayed else []), *(words.get(name, name) for name in recipe.besides)]
    return f" with {' and '.join(found)}" if found else ""


def _arguments(recipe: Recipe, dialect: Dialect, spelling: Spelling) -> dict[str, Any] | None:
    """The arguments of a call, under the framework's names; None where they cannot express all of the recipe."""
    settings = recipe.settings
    if any(settings[name] != value for name, value in spelling.fixed.items()):
        return None
    on = set(recipe.besides) - ({"maximize"} if dialect.uphill else set())
    if on & spelling.lacks:
        return None
    kind = ("decoupled" if recipe.options["decoupled"] else "coupled") if recipe.decayed else ""
    if not on <= dialect.options or (kind and kind != spelling.decay and not (kind == "coupled" and dialect.coupled)):
        return None
    if kind == "coupled" and spelling.decay == "decoupled":
        return None
    names = [*spelling.rule.hyperparameters, *(f for f in spelling.rule.flags if f not in spelling.fixed)]
    if spelling.decay:
        names.append("weight_decay")
        settings.setdefault("weight_decay", 0.0)
    wanted = [name for name in names if name == "lr" or settings[name] != spelling.default(name)]
    found: dict[str, Any] = {}
    for name in [*wanted, *sorted(on)]:
        pair = next((pair for pair, parts in dialect.pairs.items() if name in parts), None)
        if pair:
            found[pair] = tuple(settings[part] for part in dialect.pairs[pair])
        else:
            found[dialect.arguments.get(name, name)] = settings[name]
    return found


def with_downslope(recipe: Recipe, dialect: str) -> tuple[list[str], str]:
    """What to import and how to call downslope, to run any recipe in the framework of a dialect.

    Keras's optimizers have a weight decay of their own, which is decoupled, and no `maximize`; `beside` says what has
    to be done to the loss instead.
    """
    front = FRONT_ENDS[dialect]
    imports = [f"import {front.module}"]
    place = {None: "", "note": "downslope."}.get(recipe.dialect, f"dialects.{recipe.dialect}.")
    if place.startswith("dialects"):
        imports.append("from downslope import dialects")
    settings = {front.lr if name == "lr" else name: value for name, value in recipe.changed.items()}
    if front is _KERAS:
        left_out = {"decoupled", "maximize", *(["weight_decay"] if _coupled(recipe) else [])}
        settings = {name: value for name, value in settings.items() if name not in left_out}
    return imports, f"{front.call}{', '.join([place + recipe.rule.name, *written(settings)])})"


def beside(recipe: Recipe, dialect: str) -> list[str]:
    """What has to be added to the loss for `with_downslope`'s call to run the recipe, in sentences; usually nothing."""
    if FRONT_ENDS[dialect] is not _KERAS:
        return []
    found = ["Keras has no maximize: train on the negative loss."] if recipe.options["maximize"] else []
    if _coupled(recipe):
        half = literal(float(f"{recipe.numbers['weight_decay'] / 2:.15g}"))
        found.append(f"Keras has no coupled weight decay: add {half} * sum(x**2) to the loss.")
    return found


def _coupled(recipe: Recipe) -> bool:
    return recipe.decayed and not recipe.options["decoupled"]
