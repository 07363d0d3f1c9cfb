"""Finding a recipe's counterpart in another dialect: the candidates by their names, the right one by its path."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from downslope.dialects import ALSO_CALLED, DIALECTS, SAME_NUMBER, SQUARED
from downslope.language.expression import Expression
from downslope.language.ranges import usual_range
from downslope.recipes.equivalence import STEPS, Comparison, Path, apart, compared, one_formula, parted, path_of
from downslope.recipes.recipe import Recipe
from downslope.recipes.spelled import can_be_said
from downslope.rule import Rule
from downslope.targets.decimals import forty_digits

SWITCH = STEPS // 5
GLANCE = 8
"""How many steps it takes to see which of several recipes that are not the same comes closest."""

DECAY_BY_ITSELF = "weight_decay_rate"
"""What the share is called by which weights fade in a step, where the learning rate has no part in it."""


@functools.lru_cache(maxsize=64)
def counterpart(recipe: Recipe, to: str) -> Comparison | None:
    """The recipe of another dialect whose path is that of this one, else the closest, and how the two compare.

    The framework itself must have a call for it: a weight decay that it does not have makes no counterpart. Every rule
    of the dialect with a fitting name is tried. Hyperparameters and flags of the same name, or of names that mean the
    same, keep their values, or have their square or root where only one of the two squares it; a decay that the
    learning rate has no part in is one that it has, times it. For each of the others its default is tried, the values
    of the recipe's hyperparameters that the rule does not have, the initial values of the recipe's states if it is the
    initial value of one, 0, 1, and the numbers in the recipe's formula; for each flag both values. Of all with the same
    path the one that changes the fewest defaults is taken. If there is none, the closest path after a few steps is
    taken, preferably with as many states; then what might come close by chance is not tried: 0, 1, the formula's
    numbers, a weight decay under another name, a share of 1 in place of a number that may be larger, or the other way
    round. The only share without a namesake is the only one there.

    Returns:
        The comparison of the two; None where the dialect has no rule that might be it.
    """
    if recipe.dialect == to and can_be_said(recipe):
        return one_formula(recipe, recipe)
    if moving(recipe) is not recipe:
        found = counterpart(moving(recipe), to)
        return None if found is None else replace(found, a=recipe, b=found.b.with_settings(lr=0.0))
    constant: tuple[Path, Path] | None = None
    for candidate in candidates(recipe, to, every=True):
        if same := one_formula(recipe, candidate):
            return same
        paths = _paths(recipe, candidate)
        if parted(*paths, STEPS, changing=False) is None:
            if parted(*paths, STEPS, changing=True) is None:
                return compared(*paths, STEPS)
            constant = constant or paths
    if constant:
        return compared(*constant, STEPS)
    close = [_paths(recipe, candidate) for candidate in candidates(recipe, to, every=False)]
    return compared(*min(close, key=lambda paths: _distance(*paths)), STEPS) if close else None


def moving(recipe: Recipe) -> Recipe:
    """The recipe, with another learning rate if it is 0, with which all paths would be the same."""
    return recipe.with_settings(lr=0.01) if recipe.numbers.get("lr") == 0 else recipe


def candidates(recipe: Recipe, to: str, *, every: bool) -> Iterator[Recipe]:
    """The recipes of a dialect that might be the counterpart; with values that might be by chance if `every`."""
    names = {recipe.rule.name}.union(*(group for group in ALSO_CALLED if recipe.rule.name in group))
    for rule in DIALECTS[to].rules.values():
        if rule.name in names:
            yield from _recipes(recipe, rule, every)


def _recipes(recipe: Recipe, rule: Rule, every: bool) -> Iterator[Recipe]:
    """A rule with all settings that are worth trying."""
    source = {**recipe.numbers, **recipe.flags}
    decay, lr = recipe.numbers.get("weight_decay", 0.0), recipe.numbers.get("lr", 1.0)
    if by_itself := recipe.numbers.get(DECAY_BY_ITSELF):
        decay = float(f"{by_itself / lr:.15g}")
    around = decay and "weight_decay" not in rule.hyperparameters
    if around and DECAY_BY_ITSELF in rule.hyperparameters and (recipe.options["decoupled"] or not recipe.decayed):
        source[DECAY_BY_ITSELF], around = float(f"{lr * decay:.15g}"), False
    tried: dict[str, list[float | bool]] = {}
    for name in rule.hyperparameters:
        own = decay if name == "weight_decay" else _of_this_name(source, recipe.rule, rule, name)
        fits = own is not None and own in rule.ranges[name]
        tried[name] = [own] if fits and own is not None else _worth_trying(recipe, rule, name, every)
    for name, choice in rule.flags.items():
        tried[name] = [source[name]] if name in source else [choice, not choice]
    if around:
        tried |= {"weight_decay": [decay], "decoupled": [recipe.options["decoupled"], not recipe.options["decoupled"]]}
    tried |= {name: [value] for name, value in recipe.besides.items()}
    for values in sorted(itertools.product(*tried.values()), key=lambda values: _changes(values, tried)):
        try:
            settings: dict[str, Any] = dict(zip(tried, values, strict=True))
            found = Recipe(rule, **settings)
        except (TypeError, ValueError):  # a value that this rule does not take
            continue
        if can_be_said(found):
            yield found


def _of_this_name(source: Mapping[str, float | bool], theirs: Rule, rule: Rule, name: str) -> float | bool | None:
    """The value of a setting, under this name or another that means the same; its square or root where one squares."""
    names = [name, *(other for group in SAME_NUMBER if name in group for other in sorted(group))]
    found = next((other for other in names if other in source), None)
    if found is None:
        return None
    squared, squares = (theirs, found) in SQUARED, (rule, name) in SQUARED
    if squared == squares:
        return source[found]
    return float(f"{source[found] ** (2 if squared else 0.5):.16g}")


def _changes(values: Sequence[float | bool], tried: Mapping[str, Sequence[float | bool]]) -> int:
    """How many of the values are not the first ones to try."""
    return sum(value != first for value, (first, *_) in zip(values, tried.values(), strict=True))


def _worth_trying(recipe: Recipe, rule: Rule, name: str, every: bool) -> list[float | bool]:
    others = {other: value for other, value in recipe.numbers.items() if other not in rule.hyperparameters}
    left: list[float | None] = [*others.values()]
    if not every:
        share = _is_share(rule, name)
        alike = [other for other in others if _is_share(recipe.rule, other) == share and other != "weight_decay"]
        left = [others[other] for other in alike]
        new = [its for its in rule.hyperparameters if its not in recipe.numbers and _is_share(rule, its) == share]
        if share and len(alike) == len(new) == 1 and others[alike[0]] in rule.ranges[name]:
            return [others[alike[0]]]
    if name in rule.states.values():  # where a state starts
        left += [recipe.program.initial(state, recipe.numbers) for state in recipe.program.states]
    allowed = rule.ranges[name]
    left = [value if value is None or value in allowed else -value for value in left]  # an exponent, perhaps
    found = [rule.hyperparameters[name], *left, *((0.0, 1.0, *_constants(recipe)) if every else ())]
    return list(dict.fromkeys(float(value) for value in found if value is not None and value in allowed))


def _is_share(rule: Rule, name: str) -> bool:
    """Whether a hyperparameter is a share of 1, as a momentum or the decay of a mean is."""
    return rule.ranges.get(name, usual_range(name)).high == 1


def _constants(recipe: Recipe) -> list[float]:
    """The numbers in a formula that are not exponents."""
    everything = recipe.program.expressions
    exponents: set[Expression] = {e.args[1] for e in everything if e.op == "pow"}
    return [e.number for e in everything if e.op == "constant" and e not in exponents]


def _paths(recipe: Recipe, candidate: Recipe) -> tuple[Path, Path]:
    at_points = (recipe.rule.ahead is None) != (candidate.rule.ahead is None)
    with forty_digits():
        return path_of(recipe, SWITCH, at_points), path_of(candidate, SWITCH, at_points)


def _distance(a: Path, b: Path) -> tuple[int, float]:
    """How many states one has more than the other, then how far apart they are early on, over all weights."""
    more = abs(len(a.recipe.program.states) - len(b.recipe.program.states))
    early = apart(a.after(GLANCE, changing=False), b.after(GLANCE, changing=False))
    return more, sum(min(distance, 2.0) for distance in early)  # those in other directions count alike, however far
