"""Whether two recipes give the same path, decided by running both on a small training."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from downslope.language.program import in_order
from downslope.recipes.recipe import AROUND, Recipe, literal
from downslope.recipes.training import SIZES, WEIGHTS, Training, gradient, rate
from downslope.rule import Rule
from downslope.targets.decimals import Numbers, forty_digits

STEPS = 100
"""How many steps are compared unless told otherwise."""

NONE = 1e-20
"""Differences below this share of the distance that a weight has moved are due to rounding; see `equivalent`."""

BEYOND = 0.3
"""A learning rate that `1 / sqrt(t)` falls below at step 12, for rules that bound theirs by the number of the step."""


@dataclass(frozen=True)
class Comparison:
    """How two recipes compare; true if they always give the same path.

    Attributes:
        a: The first recipe.
        b: The second recipe.
        same: "always", "constant lr" for the same path as long as the learning rate is constant, or "never".
        first_step: The first step after which they are apart; None if they never are.
        at_step_1: How far apart they are after the first step of the comparison; see `equivalent`.
        at_last_step: How far after the last; with a changing learning rate if they part only then.
        by_size: How far apart after the last step the weights are whose gradients are of this size.
        steps: The number of steps that were compared.
        at_points: The points where gradients are taken were compared, as only one of the two has a look-ahead.
        one_formula: The two are one formula, but for names.
        with_lr: The learning rate that shows the difference, where their own would only after more steps.
    """

    a: Recipe
    b: Recipe
    same: Literal["always", "constant lr", "never"]
    first_step: int | None
    at_step_1: float
    at_last_step: float
    by_size: dict[float, float]
    steps: int
    at_points: bool
    one_formula: bool
    with_lr: float | None = None

    def __bool__(self) -> bool:
        return self.same == "always"

    def __str__(self) -> str:
        if self.one_formula:
            text = "The same formula, and so the same path."
        elif self.same == "always":
            short = f" for {self.steps} step{'s'[: self.steps > 1]}" if self.steps < STEPS else ""
            text = f"The same path{short}, also while the learning rate changes."
        elif self.same == "constant lr":
            text = f"The same path as long as the learning rate is constant. {self.parting}"
        else:
            text = f"Not the same path: {self.parting}{self._differing()}"
        if not self.at_points:
            return text
        ahead = self.a if self.a.rule.ahead else self.b
        return f"{text} It is the path of the points where gradients are taken, which are ahead of {ahead.label}'s x."

    @property
    def parting(self) -> str:
        """When two paths part and how far they are apart in the end, in words; nothing if they do not part."""
        if self.same == "always":
            return ""
        if self.same == "constant lr":
            return f"When it changes they part at once, by {share(self.at_last_step)} after {self.steps} steps."
        usual, worst = self.by_size[1.0], max(self.by_size, key=lambda size: self.by_size[size])
        early = f" by up to {share(self.at_step_1)}" if self.at_step_1 > NONE else ""
        where = "" if self.with_lr is None else f"with lr={literal(self.with_lr)} "
        text = f"{where}they part at step {self.first_step}{early}. After {self.steps} steps they are apart by "
        text += f"{share(usual)} where gradients are near 1"
        if self.by_size[worst] > 2 * usual:
            text += f", by {share(self.by_size[worst])} where they are near {literal(worst)}"
        return f"{text}."

    def _differing(self) -> str:
        other = self.b.numbers
        found = [
            f"{name} is {literal(value)} in {self.a.label} and {literal(other[name])} in {self.b.label}"
            for name, value in self.a.numbers.items()
            if other.get(name, value) != value
        ]
        return f" Note that {', '.join(found)}." if found else ""


def share(size: float) -> str:
    """A share of the distance that a weight has moved, for people."""
    if size < NONE:
        return "nothing"
    if size < 1e-5:
        return f"{literal(float(f'{size:.1g}'))} of the way"
    if size < 10:
        return f"{100 * size:.{2 if size < 0.995 else 3}g} % of the way"
    return f"{size:.2g} times the way".replace("e+0", "e").replace("e+", "e")


def equivalent(a: Rule | Recipe, b: Rule | Recipe, *, steps: int = STEPS, **settings: Any) -> Comparison:
    """Decide whether two rules, or recipes, give the same path.

    Both formulas run the training that `downslope.recipes.training` describes, first with a constant learning rate,
    then with one that changes at every step after the first fifth. The distance between them after a step is, for each
    weight, `|x_a - x_b|` divided by the distance that the weight has moved by then (the longer of the two), and of
    these the largest. If only one of the two has a look-ahead, the points where gradients are taken are compared
    instead of x.

    They count as the same if this distance never exceeds 1e-20. All is computed with 40 digits. A step has fewer than
    100 operations, each right to 1e-39 of its result, so that rounding alone separates two ways of writing one formula
    by at most `100 * 100 * 1e-39 = 1e-35` in 100 steps, times the growth by cancellation and feedback, which may be a
    factor of 1e15. An epsilon of 1e-8, on the other hand, makes a difference of at least 1e-11 where gradients are
    1e3. In double precision, with its 16 digits, there would be no such gap.

    Where one of the two bounds its learning rate by the number of the step, as Adafactor's `min(lr, 1 / sqrt(t))` does,
    which may be long after the last of these steps, both run once more with a learning rate of 0.3.

    What the rules do elsewhere than on this training, after its end, or while other hyperparameters change is not seen.

    Args:
        a: A rule or a recipe.
        b: Another one.
        steps: How many steps to compare, at least 1.
        **settings: Hyperparameters, flags and options for both, or for the one of the two that has them. What a rule
            has no default for and is not given here is that of the other rule.

    Raises:
        TypeError: Neither of the two has a setting of this name, or one is missing or of the wrong kind.
        ValueError: A value is out of range.
        FormulaError: A rule cannot be compiled.

    Example:
        >>> from downslope import dialects, equivalent
        >>> found = equivalent(dialects.keras.sgd_momentum, dialects.torch.sgd_momentum, lr=0.1, momentum=0.9)
        >>> bool(found), found.same, found.first_step
        (False, 'constant lr', 21)
        >>> print(equivalent(dialects.tf1.adam, dialects.keras.adam, eps=1e-8))
        The same formula, and so the same path.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r}: give a whole number of at least 1")
    first, second = _recipes(a, b, settings)
    if same := one_formula(first, second, steps):
        return same
    at_points = (first.rule.ahead is None) != (second.rule.ahead is None)
    switch = steps // 5
    return compared(path_of(first, switch, at_points), path_of(second, switch, at_points), steps)


def one_formula(a: Recipe, b: Recipe, steps: int = STEPS) -> Comparison | None:
    """The comparison of two recipes that are one formula but for names; None if they are not."""
    if _formula(a) != _formula(b):
        return None
    sizes = {float(size): 0.0 for size in SIZES}
    return Comparison(a, b, "always", None, 0.0, 0.0, sizes, steps, at_points=False, one_formula=True)


def _recipes(a: Rule | Recipe, b: Rule | Recipe, settings: dict[str, Any]) -> tuple[Recipe, Recipe]:
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, (Rule, Recipe)):
            raise TypeError(f"{name}={value!r} is neither a rule nor a recipe; give one such as downslope.adam")
    rules = [r.rule if isinstance(r, Recipe) else r for r in (a, b)]
    own = [{**rule.hyperparameters, **rule.flags} for rule in rules]
    for name in settings:
        if name not in {*own[0], *own[1], *AROUND}:
            known = ", ".join({**own[0], **own[1]})
            raise TypeError(
                f"neither {rules[0].name} nor {rules[1].name} has a hyperparameter {name!r}; there are {known}"
            )
    lenders = [other.settings if isinstance(other, Recipe) else values for other, values in ((b, own[1]), (a, own[0]))]
    found = []
    for recipe, rule, mine, other in zip((a, b), rules, own, lenders, strict=True):
        fitting = {name: value for name, value in settings.items() if name in mine or name in AROUND}
        if isinstance(recipe, Recipe):
            found.append(recipe.with_settings(**fitting))
            continue
        lent = {name: other[name] for name, value in mine.items() if value is None and other.get(name) is not None}
        found.append(Recipe(rule, **{**lent, **fitting}))
    return found[0], found[1]


def _formula(recipe: Recipe) -> Any:
    """What a recipe computes as nested text, without names: the same for two that are one formula."""
    program = recipe.program
    outputs = {**program.outputs, **program.scalar_outputs}
    states: dict[str, int] = {}
    number: dict[Any, int] = {}
    lines: list[Any] = []

    def read(root: Any) -> int:
        for e in in_order([root]):
            if e.op == "called":
                number[e] = number[e.args[0]]
            elif e not in number:
                number[e] = len(lines)
                lines.append((e.op, *(number[arg] for arg in e.args), symbol(e)))
        return number[root]

    def symbol(e: Any) -> Any:
        if e.op != "input":
            return e.value
        name = str(e.value)
        if name in program.states or name in program.scalar_states:
            return ("state", states.setdefault(name, len(states)), program.spaces.get(name))
        return recipe.numbers[name] if name in recipe.numbers and name != "lr" else name

    roots: list[Any] = [read(program.lookahead.outputs["x"])] if program.lookahead else []
    roots.append(read(outputs["x"]))
    done: set[str] = set()
    while waiting := [name for name in states if name not in done]:
        for name in waiting:
            done.add(name)
            start = program.initial(name, recipe.numbers) if name in program.states else program.scalar_states[name]
            roots.append((read(outputs[name]), start))
    return lines, roots, "lr" not in recipe.numbers or recipe.numbers["lr"]


@dataclass(frozen=True)
class Place:
    """One step of a path.

    Attributes:
        training: What the next step starts from.
        x: The weights, or the points where the next gradient is taken.
        way: The distance that each of them has moved so far, there and back counted twice.
    """

    training: Training
    x: Numbers
    way: Numbers


class Path:
    """The path of a training, computed as far as it is asked for, with a constant learning rate and a changing one.

    Attributes:
        recipe: What is trained with.
        begun: The number of steps done before.
        switch: The number of steps after which the changing learning rate changes.
        at_points: Whether the path is that of the points where gradients are taken.
    """

    def __init__(self, training: Training, switch: int, at_points: bool):
        self.recipe, self.begun, self.switch, self.at_points = training.recipe, training.t, switch, at_points
        self._lock = threading.RLock()
        with forty_digits():
            start = training.point() if at_points else training.x
        self._paths = {False: [Place(training, start, [Decimal(0)] * len(start))]}

    def after(self, step: int, *, changing: bool) -> Place:
        """Where the path is after so many steps."""
        changing = changing and step > self.switch
        with self._lock:
            if changing and True not in self._paths:
                self.after(self.switch, changing=False)
                self._paths[True] = self._paths[False][: self.switch + 1]
            path = self._paths[changing]
            while len(path) <= step:
                path.append(self._next(path[-1], changing))
            return path[step]

    def _next(self, place: Place, changing: bool) -> Place:
        t = place.training.t + 1
        with forty_digits():
            now, following = (rate(t), rate(t + 1)) if changing else (Decimal(1), Decimal(1))
            training = place.training.step(gradient(t, place.training.point(now)), now)
            x = training.point(following) if self.at_points else training.x
            return Place(training, x, [way + abs(b - a) for way, a, b in zip(place.way, place.x, x, strict=True)])


@functools.lru_cache(maxsize=64)
def path_of(recipe: Recipe, switch: int, at_points: bool) -> Path:
    """The path of a recipe from the start; those last asked for are kept."""
    with forty_digits():
        return Path(Training.begin(recipe), switch, at_points)


def compared(a: Path, b: Path, steps: int) -> Comparison:
    """Compare two paths, step by step; other learning rates only where the constant one shows no difference."""
    constant, first = _differences(a, b, range(1, steps + 1), changing=False)
    same: Literal["always", "constant lr", "never"] = "never"
    last = constant
    if first is None:
        last, first = _differences(a, b, range(a.switch + 1, steps + 1), changing=True)
        same = "always" if first is None else "constant lr"
    if first is None and (beyond := _beyond(a, b, steps)) is not None:
        return beyond
    apart = last[-1] if last else [0.0] * len(WEIGHTS)
    by_size = {
        float(size): max(d for d, (s, _) in zip(apart, WEIGHTS, strict=True) if s == size) if first else 0.0
        for size in SIZES
    }
    begin = max(constant[0]) if same == "never" else 0.0
    return Comparison(
        a.recipe, b.recipe, same, first, begin, max(by_size.values()), by_size, steps, a.at_points, one_formula=False
    )


def _bounds_rate(recipe: Recipe) -> bool:
    """Whether the number of the step decides if the learning rate counts."""
    bounds = [e for e in recipe.program.expressions if e.op in ("minimum", "maximum") and not e.from_arrays]
    return recipe.numbers.get("lr") not in (None, BEYOND) and any(
        {"lr", "t"} <= {inner.value for inner in in_order([e]) if inner.op == "input"} for e in bounds
    )


def _with_rate(path: Path, lr: float) -> Path:
    """The path from the same start with another learning rate."""
    recipe = path.recipe.with_settings(lr=lr)
    if not path.begun:
        return path_of(recipe, path.switch, path.at_points)
    start = path.after(0, changing=False).training
    return Path(replace(start, recipe=recipe), path.switch, path.at_points)


def _beyond(a: Path, b: Path, steps: int) -> Comparison | None:
    """The comparison with a learning rate beyond the bound of one of the two; None if it shows no difference."""
    if not (_bounds_rate(a.recipe) or _bounds_rate(b.recipe)):
        return None
    found = compared(_with_rate(a, BEYOND), _with_rate(b, BEYOND), steps)
    return None if found else replace(found, a=a.recipe, b=b.recipe, with_lr=BEYOND)


def parted(a: Path, b: Path, steps: int, *, changing: bool) -> int | None:
    """The first step after which two paths are apart, if there is one; nothing beyond it is computed."""
    for step in range(a.switch + 1 if changing else 1, steps + 1):
        if max(apart(a.after(step, changing=changing), b.after(step, changing=changing))) > NONE:
            return a.begun + step
    return None


def _differences(a: Path, b: Path, steps: Sequence[int], *, changing: bool) -> tuple[list[list[float]], int | None]:
    """How far apart two paths are after each step, for each weight, and the first step after which they are apart."""
    found, first = [], None
    for step in steps:
        found.append(apart(a.after(step, changing=changing), b.after(step, changing=changing)))
        if first is None and max(found[-1]) > NONE:
            first = a.begun + step
    return found, first


def apart(a: Place, b: Place) -> list[float]:
    """How far apart two places are, for each weight, as a share of the distance that it has moved."""
    with forty_digits():
        return [_share(x, y, max(v, w)) for x, y, v, w in zip(a.x, b.x, a.way, b.way, strict=True)]


def _share(x: Decimal, y: Decimal, way: Decimal) -> float:
    if x == y or (x.is_nan() and y.is_nan()):
        return 0.0
    found = float(abs(x - y) / way)
    return math.inf if math.isnan(found) else found
