"""From one framework's recipe to another's, with the state of the training if there is one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from downslope.dialects import DIALECTS
from downslope.language.program import Program
from downslope.recipes.carrying import Origin, origins, scalar_states_after
from downslope.recipes.counterpart import SWITCH, counterpart, moving
from downslope.recipes.equivalence import NONE, STEPS, Comparison, Path, compared, share
from downslope.recipes.recipe import Recipe
from downslope.recipes.spelled import TORCH_CLASSES, beside, checked_dialect, native, title, with_downslope
from downslope.recipes.strides import has_strides, in_words
from downslope.recipes.training import Training, gradient
from downslope.rule import Rule
from downslope.targets.decimals import forty_digits
from downslope.targets.shapes import held_shape


@dataclass(frozen=True)
class Conversion:
    """A recipe, and what it is in another dialect.

    Attributes:
        own: The recipe that was given. In the other framework, too, downslope runs it as it is.
        to: The other dialect.
        comparison: How the path of the counterpart compares; None where there is no counterpart.
        handover: How going on with the converted states compares with going on without a change; None where no states
            were given.
        states: The converted states, as they were given: by name, each an array or arrays by name.
        scalar_states: The converted scalar states, by name.
    """

    own: Recipe
    to: str
    comparison: Comparison | None
    handover: Comparison | None
    states: Mapping[str, Any] | None
    scalar_states: Mapping[str, float] | None

    @property
    def recipe(self) -> Recipe | None:
        """The counterpart: the recipe of the other dialect with the same path, or else the closest."""
        return None if self.comparison is None else self.comparison.b

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Where each of the counterpart's states comes from; those that are not here start anew."""
        return {} if self.recipe is None else origins(self.own, self.recipe)

    @property
    def exact(self) -> bool:
        """Whether the path stays the same: from the start, or from the given states on."""
        return bool(self.handover if self.handover is not None else self.comparison)

    @property
    def lost(self) -> list[str]:
        """The counterpart's states that start anew."""
        states = self.recipe.program.states if self.recipe is not None else {}
        return [name for name in states if name not in self.origins]

    def __str__(self) -> str:
        mine, there = title(self.own), DIALECTS[self.to].framework
        if self.comparison is None:
            return f"{there} has no counterpart of {mine}; downslope runs the formula there."
        assert self.recipe is not None
        if self.comparison.same == "always":
            text = f"{mine} is {title(self.recipe)}: the same path, also while the learning rate changes."
        elif self.comparison.same == "constant lr":
            text = f"{mine} is {title(self.recipe)} as long as the learning rate is constant. {self.comparison.parting}"
        else:
            text = f"{there} has no exact counterpart of {mine}. Its closest is {title(self.recipe)}: "
            text += self.comparison.parting
        if self.comparison.at_points:
            text += " (In downslope `x` is the weights, in the other the point ahead of them.)"
        if self.comparison.same == "never" and has_strides(self.own) and has_strides(self.recipe):
            text += f" {in_words(self.own, self.recipe)}"
        return text if self.handover is None else f"{text} {self._states()}"

    def _states(self) -> str:
        assert self.handover is not None
        moved = [f"{name} {'=' if origin.exact else 'about'} {origin}" for name, origin in self.origins.items()]
        parts = [f"States: {', '.join(moved)}."]
        if not self.origins:
            parts = []
        if self.lost:
            parts.append(f"{' and '.join(self.lost)} {'starts' if len(self.lost) == 1 else 'start'} anew.")
        if self.handover.same == "never":
            first, last = share(self.handover.at_step_1), share(self.handover.at_last_step)
            parts.append(f"Going on with them leads off by {first} after a step and {last} after {STEPS}.")
        else:
            only = "" if self.handover else " as long as the learning rate is constant"
            parts.append(f"Going on with them leads along the same path{only}.")
        return " ".join(parts)

    def snippet(self) -> str:
        """Code for the other framework: its own call where that is exact, and downslope's.

        The code has `model` (PyTorch) or `params` (downslope on NumPy) from its surroundings, and leaves `optimizer`.
        """
        dialect = DIALECTS[self.to]
        line = native(self.recipe) if self.recipe is not None else None
        exact = self.comparison is not None and self.comparison.same == "always"
        if exact and line:
            lines = [dialect.imports, "", *_laid_out("optimizer = ", line)]
            if self.to == "torch":
                lines += ["", "# The same with downslope:", *(f"# {part}" for part in self._in_torch(line))]
            return "\n".join(lines)
        recipe = self.recipe if exact and self.recipe is not None else self.own
        imports, call = with_downslope(recipe, self.to)
        lines = [*imports, "", *(f"# {what}" for what in beside(recipe, self.to)), *_laid_out("optimizer = ", call)]
        if not exact and line:
            constant = self.comparison is not None and self.comparison.same == "constant lr"
            how = "The same as long as the learning rate is constant" if constant else "The closest"
            lines += ["", f"# {how}:", *(f"# {part}" for part in _laid_out("", line))]
        return "\n".join(lines)

    def _in_torch(self, line: str) -> list[str]:
        """PyTorch's line with downslope's class in the place of PyTorch's; with `Optimizer` where there is no such."""
        assert self.recipe is not None
        name, _, _ = line.removeprefix("torch.optim.").partition("(")
        if name in TORCH_CLASSES:
            return _laid_out("", line.replace("torch.optim.", "downslope.torch."))
        _, call = with_downslope(self.recipe, self.to)
        return _laid_out("", call.replace(" dialects.", " downslope.dialects."))


def _laid_out(before: str, call: str) -> list[str]:
    """A call in one line, or where that is long in three."""
    if len(before + call) <= 78:
        return [before + call]
    function, _, arguments = call.partition("(")
    return [f"{before}{function}(", f"    {arguments.removesuffix(')')}", ")"]


def convert(
    recipe: Rule | Recipe,
    to: str,
    *,
    states: Mapping[str, Any] | None = None,
    scalar_states: Mapping[str, float] | None = None,
    t: int | None = None,
    **settings: Any,
) -> Conversion:
    """Find out what a rule with its settings is in another dialect, and convert its states.

    No table is consulted: whether a conversion is exact is found by running both formulas on a small training (see
    `downslope.equivalent`), and what a state is in the other dialect by letting both take the same steps.

    Args:
        recipe: A rule or a recipe.
        to: The other dialect: note, torch, keras, tf1 or optax.
        states: The states to convert, by name: arrays, or arrays by the names of parameters.
        scalar_states: The scalar states, by name; without them they are what they are after `t` steps.
        t: The number of steps done. Needed with states.
        **settings: Hyperparameters, flags and options.

    Returns:
        The counterpart, whether it is exact, a sentence (`str`), code (`snippet()`) and the converted states.

    Raises:
        TypeError: A setting is unknown, missing or of the wrong kind; or `t` is missing.
        ValueError: There is no such dialect, a value is out of range, or the states are not those of the recipe.

    Example:
        >>> import downslope
        >>> from downslope import dialects
        >>> found = downslope.convert(dialects.torch.rmsprop, "optax", lr=0.01, alpha=0.9)
        >>> found.exact, found.recipe
        (True, Recipe(dialects.optax.rmsprop, lr=0.01, eps_in_sqrt=False))
        >>> print(found.snippet())
        import optax
        <BLANKLINE>
        optimizer = optax.rmsprop(learning_rate=0.01, eps_in_sqrt=False)
    """
    if not isinstance(recipe, (Rule, Recipe)):
        raise TypeError(f"recipe={recipe!r} is neither a rule nor a recipe; give one such as downslope.adam")
    checked_dialect(to, "to")
    own = recipe.with_settings(**settings) if isinstance(recipe, Recipe) else Recipe(recipe, **settings)
    if states is None and (scalar_states is not None or t is not None):
        raise TypeError("scalar_states and t go with states=..., which is not given")
    if states is not None:
        _check_states(own, states, scalar_states, t)
    comparison = counterpart(own, to)
    if comparison is None:
        return Conversion(own, to, None, None, None, None)
    if states is None or t is None:
        return Conversion(own, to, comparison, None, None, None)
    return Conversion(
        own=own,
        to=to,
        comparison=comparison,
        handover=_handover(own, comparison.b),
        states=carried(own, comparison.b, states, t),
        scalar_states=carried_scalars(own, comparison.b, scalar_states, t),
    )


def _check_states(
    own: Recipe, states: Mapping[str, Any], scalar_states: Mapping[str, float] | None, t: int | None
) -> None:
    if isinstance(t, bool) or not isinstance(t, (int, np.integer)) or t < 0:
        raise TypeError(f"t={t!r}: give the number of steps done with these states, a whole number of at least 0")
    given = [("states", states, own.program.states)]
    if scalar_states is not None:
        given.append(("scalar_states", scalar_states, own.program.scalar_states))
    for what, found, wanted in given:
        if set(found) != set(wanted):
            raise ValueError(
                f"{what} has {', '.join(found) or 'nothing'}; {own.label} with these settings has "
                f"{', '.join(wanted) or 'none'}"
            )


def carried(own: Recipe, recipe: Recipe, states: Mapping[str, Any], t: int, like: Any = None) -> dict[str, Any]:
    """The states of another recipe, from those of this one after `t` steps; those that start anew are made like `like`.

    Raises:
        ValueError: A state starts anew, and there is nothing to make it like.
    """
    found = origins(own, recipe) if t else {}
    lr = own.numbers.get("lr", 1.0)
    like = next((value for name, value in states.items() if name not in own.program.spaces), like)
    starts = {name: recipe.program.initial(name, recipe.numbers) for name in recipe.program.states}
    return {
        name: found[name].value(states, lr) if name in found else _filled(recipe.program, like, name, start)
        for name, start in starts.items()
    }


def _filled(program: Program, like: Any, name: str, start: float | None) -> Any:
    if like is None or start is None:
        raise ValueError(f"the state {name} starts anew, and there is no state of its shape to make it from")
    if isinstance(like, Mapping):
        return {key: _filled(program, part, name, start) for key, part in like.items()}
    return np.full_like(like, start, shape=held_shape(program, name, np.shape(like)))


def carried_scalars(own: Recipe, recipe: Recipe, scalar_states: Mapping[str, float] | None, t: int) -> dict[str, float]:
    """The scalar states of another recipe after `t` steps: those of this one that are the same, else worked out."""
    wanted = recipe.program.scalar_states
    if not wanted:
        return {}
    values = {name: float(value) for name, value in scalar_states_after(recipe, t).items()}
    mine, its = scalar_states_after(own, 3), scalar_states_after(recipe, 3)
    for name in wanted:
        for other, value in (scalar_states or {}).items():
            if abs(mine[other] - its[name]) < Decimal(NONE):
                values[name] = float(value)
    return values


@functools.lru_cache(maxsize=64)
def _handover(own: Recipe, recipe: Recipe) -> Comparison:
    """How going on with the converted states compares with going on without a change."""
    own, recipe = moving(own), moving(recipe)
    at_points = (own.rule.ahead is None) != (recipe.rule.ahead is None)
    with forty_digits():
        training = Training.begin(own)
        for t in range(1, SWITCH + 1):
            training = training.step(gradient(t, training.point()))
        lr = Decimal(own.numbers.get("lr", 1.0))
        states = dict(Training.begin(recipe).states)
        for name, origin in origins(own, recipe).items():
            states[name] = origin.decimals(training.states, lr)
        other = training.handed_over(recipe, states, scalar_states_after(recipe, SWITCH))
        return compared(Path(training, SWITCH, at_points), Path(other, SWITCH, at_points), STEPS)
