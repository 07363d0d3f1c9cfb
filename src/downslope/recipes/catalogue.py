"""What rules there are, in which dialects, and their facts as plain data: for `downslope rules`, pages and programs.

Nothing is written down here a second time: names, defaults and sources are those of the rules, costs and formulas are
read from them, and a rule that is added to `downslope.rules` or a dialect appears by itself.

`families` has the rules themselves. What is given here JSON can hold: dicts with string keys, lists, strings, numbers,
true, false, and null where something does not exist; a default of your own rule that is not finite is the string `inf`,
`-inf` or `nan`. Keys may be added, but those described here stay.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from downslope.dialects import ALSO_CALLED, DIALECTS, dialect_of
from downslope.language.program import Program
from downslope.language.ranges import Range
from downslope.recipes.counterpart import counterpart
from downslope.recipes.equivalence import Comparison, equivalent
from downslope.recipes.families import families, forms_of, name_in
from downslope.recipes.recipe import Recipe
from downslope.recipes.strides import LAYERS, has_strides, rate_of_adamw
from downslope.rule import Rule
from downslope.targets.arrays import interpret
from downslope.targets.formula import formula
from downslope.targets.stability import Stability
from downslope.training.settings import Settings
from downslope.version import __version__

UNBOUNDED = 1e308
"""From here on, the end of a range is no limit."""


def overview(*, stability: bool = True) -> dict[str, Any]:
    """Everything there is: what `downslope rules --json` prints.

    Args:
        stability: Whether the limits of stability are to be worked out too, which takes seconds for all of them.

    Returns:
        `version`: of downslope. `dialects`: the framework of each. `rules`: what `entry` gives for every name, without
        `differences`.
    """
    return {
        "version": __version__,
        "dialects": {name: dialect.framework for name, dialect in DIALECTS.items()},
        "rules": [_entry(name, forms, stability=stability) for name, forms in families().items()],
    }


def entry(name: str) -> dict[str, Any]:
    """One rule in all of its dialects: what `downslope rules adam --json` prints.

    Returns:
        `name`, `intuition`; `forms`: by dialect, the `facts` of its form; `stand_ins`: for other dialects, the rule
        that is the same under another name or has it as a choice; `see_also`: related rules, and the dialects that
        have them; `differences`: which forms give the same path, see `differences`; `rates`: of forms of Muon, the
        learning rates with which their steps are as long as those of AdamW, see `rates`; null of other rules.

    Raises:
        ValueError: There is no rule of this name.

    Example:
        >>> from downslope.recipes import catalogue
        >>> adam = catalogue.entry("adam")
        >>> [adam["forms"][dialect]["hyperparameters"]["eps"]["default"] for dialect in ("torch", "keras")]
        [1e-08, 1e-07]
    """
    return {**_entry(name, forms_of(name)), "differences": differences(name), "rates": rates(name)}


def rates(name: str) -> dict[str, Any] | None:
    """With which learning rates the steps of a rule that multiplies matrices are as long as those of AdamW.

    Returns:
        `adamw`: AdamW's learning rate. `layers`: the inputs and outputs of some layers. `forms`: by dialect, the
        learning rate for each of these layers; see `downslope.recipes.strides`. None where nothing is multiplied.

    Raises:
        ValueError: There is no rule of this name.

    Example:
        >>> from downslope.recipes import catalogue
        >>> catalogue.rates("muon")["forms"]["keras"]
        [0.001, 0.001, 0.001]
    """
    recipes = {dialect: _reference(rule) for dialect, rule in forms_of(name).items()}
    if not all(map(has_strides, recipes.values())):
        return None
    adamw = 1e-3
    found = {
        dialect: [float(f"{rate_of_adamw(adamw, recipe, layer):.6g}") for layer in LAYERS]
        for dialect, recipe in recipes.items()
    }
    return {"adamw": adamw, "layers": [list(layer) for layer in LAYERS], "forms": found}


def _reference(rule: Rule) -> Recipe:
    """A rule with its defaults, and something for what has none."""
    missing = [key for key, value in rule.hyperparameters.items() if value is None]
    required: dict[str, Any] = {key: 1e-3 if key == "lr" else 0.9 for key in missing}
    return Recipe(rule, **required)


def _entry(name: str, forms: Mapping[str, Rule], *, stability: bool = True) -> dict[str, Any]:
    others = {other for group in ALSO_CALLED if name in group for other in group - {name}}
    elsewhere = {dialect: name_in(dialect, name) for dialect in DIALECTS if dialect not in forms}
    return {
        "name": name,
        "intuition": next(iter(forms.values())).intuition,
        "forms": {dialect: facts(rule, stability=stability) for dialect, rule in forms.items()},
        "stand_ins": {dialect: other for dialect, other in elsewhere.items() if other},
        "see_also": {other: list(dialects) for other, dialects in families().items() if other in others},
    }


def dialect(name: str, *, stability: bool = True) -> dict[str, Any]:
    """All rules of one dialect: what `downslope rules keras --json` prints.

    Args:
        name: The dialect.
        stability: As for `overview`.

    Returns:
        `dialect`; `framework`, what people call it; `rules`: the `facts` of each rule.

    Raises:
        ValueError: There is no such dialect.
    """
    if name not in DIALECTS:
        raise ValueError(f"name={name!r} is not a dialect; choose one of {', '.join(DIALECTS)}")
    rules = [facts(forms[name], stability=stability) for forms in families().values() if name in forms]
    return {"dialect": name, "framework": DIALECTS[name].framework, "rules": rules}


def facts(rule: Rule, *, stability: bool = True) -> dict[str, Any]:
    """One rule, one of downslope's or your own, as plain data. Its flags have their defaults.

    Args:
        rule: The rule.
        stability: Whether `stability` is to be there.

    Returns:
        `name`; `dialect`, null for your own; `python`, the expression that names it, null for your own;
        `intuition`; `source`.
        `calls`: how its framework writes it: the `name`, such as `torch.optim.AdamW`, the `defaults` that are not the
        rule's own, what the name has `fixed`, perhaps only together with certain `words` as arguments, and the kind of
        `weight_decay` that can come on top: `coupled`, `decoupled` or null.
        `formula`, its lines in Python, and `latex`.
        `hyperparameters`: of each the `default`, null where it is `required`, and the values it may take: from `low`
        to `high` (null: no limit), which belongs to them if `high_included`.
        `flags`: the default of each choice.
        `states`: for each state the start of every weight: a number, `x` for a copy of the weights, or the name of a
        hyperparameter; `spaces`: how many numbers those of them are that are not one a weight, such as `one for each
        row`; `optional_states`: the same for those that only a flag brings into play; `scalar_states`: the
        starts of those that are one number per parameter group; `optional_scalar_states`: of those, what only a flag
        brings into play.
        `uses_t`: whether the number of the step is needed; `lookahead`: where the gradient is taken, null if at `x`.
        `cost`: `dtype` of the weights, and per weight the `bytes_read` and `bytes_written` and how often each of the
        `operations` is done.
        `first_update`: how far the first step goes at a gradient of 1, in units of the learning rate; null where that
        depends on something that must be given, or cannot be said.
        `stability`: what `Rule.stability` reads off: the `limit` of `lr` times the curvature (null if there is none to
        be said, `inf` if errors never grow), where it is `fastest` and at which `rate`, the states that were `held`
        still (if there are any, the curvature is the preconditioned one), the `settings` that had to be given, and the
        `reason` why nothing can be said.

    Raises:
        FormulaError: The formula of a rule of your own cannot be read.

    Example:
        >>> from downslope import dialects
        >>> from downslope.recipes import catalogue
        >>> facts = catalogue.facts(dialects.tf1.rmsprop)
        >>> facts["formula"]
        ['rms = rms + (dx**2 - rms) * (1 - decay)', 'x = x - lr * dx / sqrt(rms + eps)']
        >>> facts["states"], round(facts["first_update"], 6)
        ({'rms': 1.0}, 1.0)
    """
    program = Settings.of(rule, {}).program
    cost = rule.cost()
    dialect = dialect_of(rule)
    ahead = dict(formula(program))["dx"].removeprefix("gradient at ") if program.lookahead else None
    return {
        "name": rule.name,
        "dialect": dialect,
        "python": _python_name(rule),
        "intuition": rule.intuition,
        "source": rule.source,
        "calls": _calls(rule, dialect),
        "formula": _lines(program),
        "latex": rule.latex(),
        "hyperparameters": {
            name: {"default": _plain(default), "required": default is None, **_range(rule.ranges[name])}
            for name, default in rule.hyperparameters.items()
        },
        "flags": dict(rule.flags),
        "states": {name: _plain(start) for name, start in program.states.items()},
        "spaces": _spaces(program),
        "optional_states": {name: _plain(start) for name, start in rule.states.items() if name not in program.states},
        "scalar_states": {name: _plain(start) for name, start in program.scalar_states.items()},
        "optional_scalar_states": {
            name: _plain(start) for name, start in rule.scalar_states.items() if name not in program.scalar_states
        },
        "uses_t": rule.uses_t,
        "lookahead": ahead,
        "cost": {
            "dtype": "float32",
            "bytes_read": cost.read,
            "bytes_written": cost.written,
            "operations": dict(cost.operations),
        },
        "first_update": _first_update(rule, program),
        **({"stability": _stability(rule)} if stability else {}),
    }


def _python_name(rule: Rule) -> str | None:
    """The expression that names a rule of downslope, as in `downslope.dialects.keras.adam`; None for your own."""
    dialect = dialect_of(rule)
    if dialect is None:
        return None
    return f"downslope.{rule.name}" if dialect == "note" else f"downslope.dialects.{dialect}.{rule.name}"


def _calls(rule: Rule, dialect: str | None) -> list[dict[str, Any]]:
    if dialect in (None, "note"):
        return []
    return [
        {
            "name": spelling.call,
            "defaults": dict(spelling.defaults),
            "fixed": dict(spelling.fixed),
            "words": dict(spelling.words),
            "weight_decay": spelling.decay or None,
        }
        for spelling in DIALECTS[dialect].spellings
        if spelling.rule is rule
    ]


def _spaces(program: Program) -> dict[str, str]:
    """Where the states live that are not one per weight, in words."""
    return {name: str(program.spaces[name]) for name in program.narrow}


def _plain(value: float | str | None) -> float | str | None:
    return value if value is None or isinstance(value, str) or math.isfinite(value) else str(value)


def _range(allowed: Range) -> dict[str, Any]:
    low = None if allowed.low <= -UNBOUNDED else allowed.low
    high = None if allowed.high >= UNBOUNDED else allowed.high
    return {"low": low, "high": high, "high_included": high is not None and allowed.closed}


def _first_update(rule: Rule, program: Program) -> float | None:
    """The step from 0 at a gradient of 1, in learning rates; None if it depends on what is not known here.

    That is a value that must be given, or of how many rows and columns the weights are.
    """
    if program.of_matrices:
        return None
    steps = {_step_from_zero(rule, program, given) for given in (0.5, 0.9)}
    step = steps.pop()
    return None if steps or step is None else step


@functools.lru_cache(maxsize=256)
def _limit(rule: Rule) -> tuple[dict[str, float], Stability]:
    """What has to be given, and how stable the rule is with that."""
    missing = [name for name, value in rule.hyperparameters.items() if value is None and name != "lr"]
    settings = {name: 0.9 if 0.9 in rule.ranges[name] else rule.ranges[name].low for name in missing}
    return settings, rule.stability(**settings)


def _stability(rule: Rule) -> dict[str, Any]:
    settings, found = _limit(rule)
    return {
        "limit": _plain(found.limit),
        "fastest": found.fastest,
        "rate": found.rate,
        "held": list(found.held),
        "settings": dict(settings),
        "reason": found.reason,
    }


def _step_from_zero(rule: Rule, program: Program, given: float) -> float | None:
    if "lr" not in rule.hyperparameters:
        return None
    settings: dict[str, Any] = {k: given if v is None else v for k, v in rule.hyperparameters.items()}
    settings["lr"] = rule.hyperparameters["lr"] or 1e-3
    starts = {name: program.initial(name, settings) or 0.0 for name in program.states}
    arrays = {name: np.float64(value) for name, value in {"x": 0.0, "dx": 1.0, **starts}.items()}
    new = float(interpret(program, arrays, {**settings, **program.scalar_states, "t": 1})["x"])
    return float(f"{-new / settings['lr']:.12g}") if math.isfinite(new) else None


def differences(name: str) -> dict[str, Any]:
    """In which dialects a rule gives the same path, with the same hyperparameters whatever each calls them.

    The first form, with its defaults (and `momentum=0.9` where it must be given), is compared with its counterpart in
    every other dialect: the rule of this name, or one that has it under another name, with the settings that bring it
    closest. See `downslope.equivalent` for how paths are compared.

    Args:
        name: The name of a family.

    Returns:
        `reference`: the `dialect`, `rule` and `settings` that are compared with.
        `elsewhere`: for every other dialect null if it has no counterpart, else its `rule` and `settings` (those that
        are not its defaults), and its `formula`, `states` and their `spaces` with these. Then the outcome: `same` is
        `always`, `constant lr` or `never`; `first_step` is the first step after which the paths are apart, and
        `with_lr` the learning rate with which they are, if it is not that of the settings; `at_step_1` and
        `at_last_step` say how far (null: beyond all measure) after the first and the last of the `steps` compared, and
        `sentence` says it in words.
        `groups`: lists of dialects; those in one list always give the same path.

    Raises:
        ValueError: There is no rule of this name.

    Example:
        >>> from downslope.recipes import catalogue
        >>> found = catalogue.differences("adam")
        >>> found["groups"]
        [['note', 'torch', 'optax'], ['keras', 'tf1']]
        >>> found["elsewhere"]["keras"]["same"], found["elsewhere"]["keras"]["first_step"]
        ('never', 1)
    """
    reference, found = _counterparts(name)
    dialect = reference.dialect or ""
    return {
        "reference": {"dialect": dialect, "rule": name, "settings": dict(reference.settings)},
        "elsewhere": {other: None if each is None else _comparison(each) for other, each in found.items()},
        "groups": _groups({dialect: reference, **{other: each.b for other, each in found.items() if each is not None}}),
    }


@functools.cache
def _counterparts(name: str) -> tuple[Recipe, Mapping[str, Comparison | None]]:
    """The first form of a rule, with its defaults, and how its counterpart in every other dialect compares."""
    dialect, rule = next(iter(forms_of(name).items()))
    reference = _reference(rule)
    found: dict[str, Comparison | None] = {}
    for other in DIALECTS:
        if other != dialect:
            nearest = counterpart(reference, other)
            fits = nearest is not None and nearest.b.rule.name == name_in(other, name)
            found[other] = nearest if fits else None
    return reference, found


def _groups(recipes: Mapping[str, Recipe]) -> list[list[str]]:
    """The names of recipes that give the same path, together."""
    groups: list[list[str]] = []
    for name, recipe in recipes.items():
        same = (group for group in groups if equivalent(recipes[group[0]], recipe))
        group = next(same, None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return groups


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "rule": found.b.rule.name,
        "settings": dict(found.b.changed),
        "formula": _lines(found.b.program),
        "states": {**found.b.program.states, **found.b.program.scalar_states},
        "spaces": _spaces(found.b.program),
        "same": found.same,
        "first_step": found.first_step,
        "with_lr": found.with_lr,
        "at_step_1": found.at_step_1 if math.isfinite(found.at_step_1) else None,
        "at_last_step": found.at_last_step if math.isfinite(found.at_last_step) else None,
        "steps": found.steps,
        "sentence": str(found),
    }


def _lines(program: Program) -> list[str]:
    return [" = ".join(line) for line in formula(program)]
