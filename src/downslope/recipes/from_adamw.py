"""Muon in the place of AdamW: with which learning rate and weight decay it takes over the matrices of a network.

No form of Muon has the path of AdamW, so that there is nothing to convert. What there is, is a rule of thumb about how
long steps are; how long those of a form are is measured (see `strides`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from downslope.dialects import DIALECTS
from downslope.recipes.counterpart import counterpart
from downslope.recipes.equivalence import Comparison
from downslope.recipes.recipe import Recipe, literal, written
from downslope.recipes.spelled import checked_dialect, native, sayable_options, title
from downslope.recipes.strides import LAYERS, Layer, rate_of_adamw
from downslope.rule import Rule

AS_LONG: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "note": {"match_rms": True},
        "torch": {"match_rms_adamw": True},
        "keras": {"rms_rate": 0.2},
        "optax": {"consistent_rms": 0.2},
    }
)
"""The setting with which a form's steps are as long as AdamW's at the same learning rate."""

BY_SHAPE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"note": {"match_rms": False}, "torch": {"match_rms_adamw": False}, "optax": {"consistent_rms": 0.0}}
)
"""That with which they are as long as in the author's form. Keras has it no more."""

SHOWN = {
    "note": "match_rms=True",
    "torch": 'adjust_lr_fn="match_rms_adamw"',
    "keras": "rms_rate=0.2",
    "optax": "consistent_rms=0.2",
}
"""How these settings are written."""

RULE_OF_THUMB = (
    "A rule of thumb, and no equality (Liu et al., 'Muon is scalable for LLM training', 2025): a step of AdamW moves a "
    "weight by about 0.2 of the learning rate, as a root mean square, and where Muon's steps are as long it takes over "
    "learning rate and weight decay."
)


NEAR = 1e-4
"""How far apart an AdamW may be that counts as the one given, where gradients are near 1; a usual epsilon is less."""


@dataclass(frozen=True)
class MuonFromAdamW:
    """What becomes of an AdamW where Muon is to train the matrices.

    Attributes:
        own: The recipe of AdamW that was given.
        to: The other dialect.
        muon: The form of Muon for the matrices whose steps are as long at the same learning rate, in every layer.
        rest: AdamW in this dialect, for everything else.
        by_shape: For some layers, by their inputs and outputs, the learning rate and weight decay of the author's form
            in this dialect, whose steps are as long only at another one in each layer; empty where there is none.
        notes: What is not as it was in the AdamW that was given, in sentences; usually nothing.
    """

    own: Recipe
    to: str
    muon: Recipe
    rest: Recipe
    by_shape: Mapping[Layer, tuple[float, float]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lr, decay = self.muon.numbers["lr"], self.muon.numbers.get("weight_decay", 0.0)
        name = "downslope.muon" if self.to == "note" else title(self.muon)
        text = f"{RULE_OF_THUMB} Those of {name} with {SHOWN[self.to]} are at {_both(lr, decay)}, in every layer."
        if self.by_shape:
            rates = [
                f"{_both(rate, fading)} in a layer from {inputs} to {outputs}"
                for (inputs, outputs), (rate, fading) in self.by_shape.items()
            ]
            text += f" Without, they are at {', '.join(rates)}."
        return " ".join([text, "What is no inner matrix stays with AdamW.", *self.notes])

    def snippet(self) -> str:
        """Code for the other framework: both halves, and the two as one where the framework has that.

        The code has `model` (PyTorch, Keras) or `params` (a tree of arrays) from its surroundings. It leaves
        `optimizer`, except in PyTorch and NumPy: there it leaves `muon` and `adamw`, which both step.
        """
        lines = [*_IMPORTS[self.to], "", f"split = downslope.split({_WHOLE[self.to]})  # print(split) shows it"]
        for name, recipe in (("muon", self.muon), ("adamw", self.rest)):
            lines.append(f"{name} = {self._call(recipe, 'matrices' if name == 'muon' else 'rest')}")
        return "\n".join([*lines, *_TOGETHER.get(self.to, ())])

    def _call(self, recipe: Recipe, part: str) -> str:
        if self.to == "note":
            settings = [f"downslope.{recipe.rule.name}", *written(recipe.changed)]
            return f"downslope.Optimizer(dict(split.{part}), {', '.join(settings)})"
        line, first = native(recipe), DIALECTS[self.to].first
        assert line is not None, recipe
        return line.replace(first, f"split.{part}") if first else line


_IMPORTS: Mapping[str, Sequence[str]] = {
    "note": ("import downslope",),
    "torch": ("import torch", "", "import downslope"),
    "keras": ("import keras", "", "import downslope"),
    "optax": ("import optax", "", "import downslope"),
}
_WHOLE = {"note": "params", "torch": "model", "keras": "model", "optax": "params"}
_TOGETHER = {
    "keras": (
        "halves = keras.optimizers.OptimizerMap(adamw, {name: muon for name, _ in split.matrices})",
        "optimizer = keras.optimizers.MultiOptimizer(halves)",
    ),
    "optax": (
        'labels = split.labels("muon", "adamw")',
        'optimizer = optax.partition({"muon": muon, "adamw": adamw}, labels)',
    ),
}


def _both(lr: float, decay: float) -> str:
    return f"lr={literal(lr)}" + (f", weight_decay={literal(decay)}" if decay else "")


def muon_from_adamw(recipe: Recipe, to: str) -> MuonFromAdamW:
    """Find the settings with which Muon takes over from an AdamW: its steps are as long, and weights fade as fast.

    This is a rule of thumb, not a conversion: the paths are others. AdamW's steps move a weight by about 0.2 of the
    learning rate, as a root mean square. What a form of Muon does at a learning rate is measured by its first step.

    Args:
        recipe: AdamW, or Adam without a weight decay, in any dialect, with its learning rate.
        to: The dialect of the Muon: note, torch, keras or optax.

    Returns:
        The settings, a sentence (`str`) and code (`snippet()`).

    Raises:
        TypeError: It is not a recipe.
        ValueError: It is none of AdamW or Adam, its learning rate is 0, its weight decay is coupled, or the dialect has
            no Muon, lacks one of the options, or has no AdamW that does the same.

    Source: Liu et al., "Muon is scalable for LLM training", 2025.

    Example:
        >>> from downslope import Recipe, dialects
        >>> adamw = Recipe(dialects.torch.adam, lr=3e-4, weight_decay=0.1, decoupled_weight_decay=True)
        >>> found = muon_from_adamw(adamw, "torch")
        >>> found.muon
        Recipe(dialects.torch.muon, lr=0.0003, match_rms_adamw=True)
        >>> found.by_shape[256, 1024]  # of the form with the author's steps
        (0.00096, 0.03125)
        >>> print(found.snippet())
        import torch
        <BLANKLINE>
        import downslope
        <BLANKLINE>
        split = downslope.split(model)  # print(split) shows it
        muon = torch.optim.Muon(split.matrices, lr=0.0003, adjust_lr_fn='match_rms_adamw')
        adamw = torch.optim.AdamW(split.rest, lr=0.0003, weight_decay=0.1)
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"recipe={recipe!r} is not a recipe; give one such as downslope.Recipe(downslope.adamw, lr=3e-4)"
        )
    there = checked_dialect(to, "to")
    if recipe.dialect is None or recipe.rule.name not in ("adam", "adamw"):
        raise ValueError(
            f"recipe={recipe!r}: which learning rate of Muon is as good is known from that of AdamW or Adam only; "
            "try some, 0.02 first with the author's steps"
        )
    if to not in AS_LONG:
        raise ValueError(f"to={to!r}: {there.framework} has no Muon; choose one of {', '.join(AS_LONG)}")
    if recipe.numbers["lr"] == 0:
        raise ValueError(f"recipe={recipe!r}: with lr=0 nothing moves; give the learning rate that AdamW trains with")
    adamw, notes = _with_rate(recipe)
    decay = adamw.numbers.get("weight_decay", 0.0)
    if decay and not _decoupled(recipe):
        raise ValueError(
            f"weight_decay={decay!r} of {title(recipe)} is added to the gradient, where Muon has no use for it; give "
            "AdamW, whose decay is decoupled"
        )
    rule, lr = there.rules["muon"], recipe.numbers["lr"]
    _refuse_lost(recipe, to, rule)
    same = _as_good(adamw, counterpart(adamw, to), there.framework)
    if same.parting:
        notes = [*notes, f"This {title(same.b)} is not quite {title(adamw)}: {same.parting}"]
    decayed: dict[str, Any] = {"weight_decay": decay}
    if "weight_decay" not in rule.hyperparameters:
        decayed = {**decayed, "decoupled": True} if decay else {}
    steps = Recipe(rule, lr=lr, **AS_LONG[to], **decayed)
    by_shape = {}
    if to in BY_SHAPE:
        plain = steps.with_settings(**BY_SHAPE[to])
        for layer in LAYERS:
            times = rate_of_adamw(1.0, plain, layer)
            by_shape[layer] = float(f"{lr * times:.3g}"), float(f"{decay / times:.4g}")
    muon = steps.with_settings(**recipe.besides)
    return MuonFromAdamW(recipe, to, muon, same.b, MappingProxyType(by_shape), tuple(notes))


def _with_rate(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The same AdamW with a decay times the learning rate, as Muon's is, and what there is to be said about that."""
    decay = recipe.numbers.get("weight_decay", 0.0)
    if recipe.flags.get("decay_with_lr", True) or not decay:
        return recipe, []
    lr = recipe.numbers["lr"]
    found = recipe.with_settings(decay_with_lr=True, weight_decay=float(f"{decay / lr:.15g}"))
    of = f"weight_decay={literal(decay)}, whatever the learning rate is"
    times = f"lr={literal(lr)} times weight_decay={literal(found.numbers['weight_decay'])}"
    return found, [f"The weights faded by {of}; that is {times} here, as long as the learning rate is constant."]


def _refuse_lost(recipe: Recipe, to: str, rule: Rule) -> None:
    """Refuse options that the other framework has not, for Muon or for AdamW."""
    there = DIALECTS[to]
    for own, name in ((rule, "Muon"), (there.rules.get("adamw") or there.rules["adam"], "AdamW")):
        if lost := [option for option in recipe.besides if option not in sayable_options(to, own)]:
            instead = " and train on the negative loss" if lost[0] == "maximize" else ""
            raise ValueError(
                f"{lost[0]}={recipe.besides[lost[0]]!r}: {there.framework}'s {name} has no {lost[0]}; leave it out"
                f"{instead}, or give to='note', where downslope.muon has it"
            )


def _as_good(adamw: Recipe, same: Comparison | None, framework: str) -> Comparison:
    """The AdamW of the other framework, if its path is that of this one but for where an epsilon stands."""
    if same is not None and (same.same != "never" or same.by_size[1.0] < NEAR):
        return same
    closest = "" if same is None else f" Its closest is {title(same.b)}: {same.parting}"
    raise ValueError(
        f"recipe={adamw!r}: {framework} has no AdamW that does the same for the rest of a network.{closest} "
        "Give one that it has, or to='note'"
    )


def _decoupled(recipe: Recipe) -> bool:
    """Whether the weights fade by themselves: by the rule's own formula, its flag or an option."""
    flag = recipe.flags.get("decoupled_weight_decay")
    option = recipe.options["decoupled"] or recipe.options["cautious_decay"]
    return (not recipe.decayed and flag is not False) or option
