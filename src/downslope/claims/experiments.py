"""The experiments that claims are put to: walks on a surface, and races on data, by the existing lab."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal

from downslope.language.program import fingerprint
from downslope.recipes.families import find, first_form
from downslope.recipes.recipe import Recipe
from downslope.rule import Rule
from downslope.walks.paths import Path, Walk
from downslope.walks.surfaces import surface_of
from downslope.walks.walking import walk

if TYPE_CHECKING:
    from downslope.claims.racing import Races

Rules = str | Mapping[str, Mapping[str, Any]]
"""Names with commas between; or by what each is called, the settings that are not its defaults. What it is called
begins with the name of its rule, up to the first comma."""

Shown = Literal["way", "loss", "step"]


SEEDS = 10
"""With how many seeds a noisy walk is walked."""


@dataclass(frozen=True)
class Walks:
    """A walk, its paths by what the experiment calls them, and with noise the same walk with other seeds of it."""

    walk: Walk
    paths: Mapping[str, Path]
    others: tuple[Walks, ...] = ()

    def path(self, name: str) -> Path:
        """The path of this name; of a rule in several forms, that of the form which is soonest at the goal."""
        if name in self.paths:
            return self.paths[name]
        forms = [path for label, path in self.paths.items() if _rule_name(label) == name]
        return min(forms, key=lambda path: len(path.points) if path.arrival is None else path.arrival)


@dataclass(frozen=True)
class Walked:
    """A walk.

    Attributes:
        surface: A surface's name, or a formula.
        rules: Who walks.
        given: The other arguments of `downslope.walk`.
        shows: What its picture shows: the way, on the map or, on a line, over the steps; the loss; the effective step.
    """

    surface: str
    rules: Rules
    given: Mapping[str, Any] = field(default_factory=dict)
    shows: Shown = "way"

    @property
    def entrants(self) -> dict[str, Mapping[str, Any]]:
        """The settings of each, by what it is called."""
        return _entrants(self.rules)

    @property
    def title(self) -> str:
        """What it is, for people."""
        rate = self.given.get("lr", "best")
        rates = {"best": "each at its best learning rate", "own": "each at its own learning rate"}
        several = len(_names(self.rules)) > 2 * len({*map(_rule_name, _names(self.rules))})
        forms = ", the soonest of several forms" if several else ""
        noise = f", noise {self.given['noise']:g}, the first of {SEEDS} seeds" if self.given.get("noise") else ""
        return f"{self.surface.replace('_', ' ')}: {rates.get(rate, f'all at learning rate {rate}')}{forms}{noise}"

    def run(self, folder: FilePath | None = None) -> Walks:
        """Let them walk, with noise once for each seed."""
        first = self._walk(self.given)
        if not self.given.get("noise"):
            return first
        seed = self.given.get("seed", 0)
        others = tuple(self._walk({**self.given, "seed": seed + k}) for k in range(1, SEEDS))
        return replace(first, others=others)

    def _walk(self, given: Mapping[str, Any]) -> Walks:
        found = walk(self.surface, self.recipes, **given)
        return Walks(found, dict(zip(self.entrants, found.paths, strict=True)))

    @property
    def recipes(self) -> list[Recipe]:
        """Who walks, with all settings."""
        return _recipes(self.entrants)

    def picture(self, found: Walks) -> str:
        """Draw what it shows, as SVG."""
        from downslope.claims.pictures import walk_picture

        return walk_picture(self, found)


@dataclass(frozen=True)
class Raced:
    """A race, or one for each of several sizes of batches.

    Attributes:
        problem: A problem that comes with the package.
        rules: Who races.
        given: The other arguments of `downslope.lab.race`.
        batches: By what each race is called, the rows of a batch and the epochs of a run; then one rule races, and all
            races have the same seeds.
        power: Of `heavy-tail`: with 0 all classes are as frequent.
    """

    problem: str
    rules: Rules
    given: Mapping[str, Any] = field(default_factory=dict)
    batches: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    power: float | None = None

    @property
    def title(self) -> str:
        """What it is, for people."""
        if self.batches:
            return f"{self.problem}: {_names(self.rules)[0]}, batches of {', '.join(self.batches)}"
        return self.problem + (", all classes as frequent" if self.power == 0 else "")

    @property
    def key(self) -> str:
        """The name of the folder that its runs are kept in: another experiment has another."""
        return f"{self.problem}-{hashlib.sha256(repr(self).encode()).hexdigest()[:10]}"

    def run(self, folder: FilePath | None = None) -> Races:
        """Race them; what is in the folder already is not trained again.

        Raises:
            ImportError: What races need is not installed.
            KeyboardInterrupt: It was stopped; what had ended is in the folder.
        """
        from downslope.claims.racing import run  # downslope.lab says what is missing

        return run(self, None if folder is None else folder / self.key)

    def picture(self, found: Races) -> str:
        """Draw the loss over the learning rate, or over the epochs for sizes of batches, as SVG."""
        from downslope.claims.pictures import race_picture

        return race_picture(self, found)

    @property
    def entrants(self) -> dict[str, Mapping[str, Any]]:
        """The settings of each, by what it is called."""
        return _entrants(self.rules)


def rule_of(label: str) -> Rule:
    """The rule of an entrant."""
    return first_form(find(_rule_name(label)))


def rules_of(experiment: Walked | Raced, entrants: Iterable[str]) -> list[str]:
    """The names of the rules that these entrants have; of all, where none of these takes part by its name."""
    names = {_rule_name(name) for name in entrants} & {*map(_rule_name, experiment.entrants)}
    return [rule_of(name).name for name in experiment.entrants if not names or _rule_name(name) in names]


def made_of(experiment: Walked | Raced) -> list[str]:
    """All that decides what an experiment finds, but for the code that runs it: its own words, and every formula."""
    formulas = [
        f"{name} {fingerprint(each.chosen.program)} {sorted(each.numbers.items())}"
        for name, each in zip(experiment.entrants, _recipes(experiment.entrants), strict=True)
    ]
    if isinstance(experiment, Walked):
        ground = surface_of(experiment.surface)
        formulas.append(f"{fingerprint(ground.program)} {dict(ground.parameters)} {dict(ground.ranges)} {ground.start}")
    return [repr(experiment), *formulas]


def _recipes(entrants: Mapping[str, Mapping[str, Any]]) -> list[Recipe]:
    return [Recipe(rule_of(name), **_numbers(rule_of(name), given)) for name, given in entrants.items()]


def _numbers(rule: Rule, given: Mapping[str, Any]) -> dict[str, Any]:
    demanded = {"lr": 1.0} if rule.hyperparameters.get("lr", 0.0) is None else {}
    return {**demanded, **given}


def _rule_name(label: str) -> str:
    return label.partition(",")[0]


def _names(rules: Rules) -> list[str]:
    return list(_entrants(rules))


def _entrants(rules: Rules) -> dict[str, Mapping[str, Any]]:
    return {name.strip(): {} for name in rules.split(",")} if isinstance(rules, str) else dict(rules)


def distinct(experiments: Iterable[Walked | Raced]) -> list[Walked | Raced]:
    """Each experiment once, in their order."""
    return list({repr(each): each for each in experiments}.values())
