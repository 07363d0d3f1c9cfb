"""A rule that takes part in a race, with all of its settings but the learning rate.

A rule for matrices, such as Muon, trains those between the first and the last layer of a network, and AdamW the rest
beside it, at a learning rate that is so many times its own: once where its steps are as long as AdamW's, which is what
forms of Muon have a setting for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from downslope.lab.engines.protocol import BATCH_SIZE, OPTIONS, Setting
from downslope.language.operations import FormulaError
from downslope.language.options import NUMBERS, option_range
from downslope.language.ranges import check_number
from downslope.rule import Rule
from downslope.rules import adamw
from downslope.targets.shapes import multiplies
from downslope.training.settings import Settings

REST_RATIO = "rest_ratio"
"""What it is called in a race how many times its own the learning rate is that a rule for matrices has beside it."""

MATCHED: Mapping[str, float | bool] = {
    "match_rms": True,
    "match_rms_adamw": True,
    "consistent_rms": 0.2,
    "rms_rate": 0.2,
}
"""With which of their settings forms of Muon go as far as AdamW in a step (Liu et al., 2025); a race sets them."""


@dataclass(frozen=True)
class Entrant:
    """A rule that runs are trained with, and all of its hyperparameters but the learning rate.

    Attributes:
        settings: The rule, its flags and what is around it.
        numbers: The other hyperparameters, in the order of the formula.
        lr: The learning rate that it has and keeps; None: it is to be tuned.
        title: What people call it, where that is more than its name in the race.
        rest: Of a rule for matrices, what trains the rest of a network beside it; None of every other rule.
    """

    settings: Settings
    numbers: Mapping[str, float]
    lr: float | None = None
    title: str = ""
    rest: Entrant | None = None

    @property
    def default_lr(self) -> float | None:
        """The learning rate that people have who set none; None if the rule demands one, or it has its own.

        Beside another rule it is the one with which that has its default.
        """
        if self.rest is not None and self.rest.default_lr is not None:
            return self.rest.default_lr / self.numbers[REST_RATIO]
        return self.settings.rule.hyperparameters["lr"] if self.lr is None else None

    def rest_at(self, lr: float) -> tuple[Entrant, float] | None:
        """What trains the rest of a network beside a rule for matrices at a learning rate, and at which one."""
        return None if self.rest is None else (self.rest, lr * self.numbers[REST_RATIO])

    def has(self, name: str) -> bool:
        """Whether a setting can give the rule something of this name."""
        rule = self.settings.rule
        if name == BATCH_SIZE or name in (*rule.hyperparameters, *rule.flags):
            return True
        if name == REST_RATIO:
            return self.rest is not None
        if name not in OPTIONS:
            return False
        needed = {name, "weight_decay"} if name == "decoupled" else {name}
        try:
            Settings.of(rule, self.settings.choices, self.settings.options | needed)
        except FormulaError:
            return False
        return True

    def check(self, name: str, value: float | bool) -> None:
        """Refuse a value that the rule cannot have in a setting.

        Raises:
            ValueError: It cannot.
        """
        rule = self.settings.rule
        try:
            if name == BATCH_SIZE:
                if isinstance(value, bool) or value < 1 or value != int(value):
                    raise ValueError(f"{name} {value:g}: give whole numbers of at least 1")
            elif name in (*rule.hyperparameters, *rule.flags):
                rule.checked(name, value)
            elif name == REST_RATIO:
                _check_ratio(value)
            elif name in NUMBERS:
                check_number(name, value, option_range(name))
            elif not isinstance(value, bool):
                raise ValueError(f"{name}={value!r}: give True or False")
        except TypeError as error:
            raise ValueError(str(error)) from None

    def at(self, setting: Setting) -> Entrant:
        """The same rule in a setting.

        Args:
            setting: Values that the rule can have. What is no hyperparameter or flag of it is an option around it.

        Raises:
            FormulaError: An option does not fit the rule.
        """
        if not setting:
            return self
        given = {name: value for name, value in setting if name != BATCH_SIZE}
        rule = self.settings.rule
        flags = {name: value for name, value in given.items() if name in rule.flags}
        others = (*rule.flags, *rule.hyperparameters, REST_RATIO)
        options = {name: value for name, value in given.items() if name not in others}
        wanted = {name for name, value in options.items() if name in NUMBERS or value}
        settings = Settings.of(
            rule, {**self.settings.choices, **flags}, self.settings.options.difference(options) | wanted
        )
        own = (*settings.program.hyperparameters, *((REST_RATIO,) if self.rest else ()))
        numbers = {name: float(value) for name, value in given.items() if name in own}
        rest = self.rest and self.rest.at(tuple((n, v) for n, v in setting if n in OPTIONS and self.rest.has(n)))
        return replace(self, settings=settings, numbers={**self.numbers, **numbers}, rest=rest)

    @classmethod
    def of(cls, name: str, rule: Rule, given: Mapping[str, Any]) -> Entrant:
        """A rule with some hyperparameters, checked, and the defaults of the others.

        Args:
            name: What the rule is called in the race, for errors.
            rule: A rule with a hyperparameter `lr`.
            given: Values other than the defaults, flags included; of a rule for matrices also `rest_ratio`.

        Raises:
            ValueError: The rule has no `lr`, or a hyperparameter is unknown, out of range, without value or `lr`; or a
                rule for matrices has steps of another length than AdamW's, and no `rest_ratio`.

        Example:
            >>> import downslope
            >>> muon = Entrant.of("muon", downslope.muon, {})
            >>> muon.settings.choices["match_rms"], muon.rest_at(0.01)[1], muon.default_lr
            (True, 0.01, 0.001)
        """
        if "lr" not in rule.hyperparameters:
            raise ValueError(f"{name} has no hyperparameter named lr; a race compares learning rates")
        if "lr" in given:
            raise ValueError(f"hyperparameters of {name}: lr is what the race tunes; give learning_rates instead")
        ratio: dict[str, float] = {}
        if for_matrices(rule):
            given, ratio = _beside(name, rule, given)
        try:
            checked = {key: rule.checked(key, value) for key, value in given.items()}
        except (TypeError, ValueError) as error:
            raise ValueError(f"hyperparameters of {name}: {error}") from None
        flags = {key: value for key, value in checked.items() if key in rule.flags}
        numbers = {**rule.hyperparameters, **{key: value for key, value in checked.items() if key not in flags}}
        del numbers["lr"]
        if missing := [key for key, value in numbers.items() if value is None]:
            raise ValueError(f"{name} needs a value for {missing}; give hyperparameters={{{name!r}: ...}}")
        known = {key: float(value) for key, value in numbers.items() if value is not None}
        rest = cls.of(adamw.name, adamw, {}) if ratio else None
        return cls(Settings.of(rule, flags), {**known, **ratio}, rest=rest)


def for_matrices(rule: Rule) -> bool:
    """Whether a rule multiplies matrices, so that another one has to train what is none."""
    return multiplies(Settings.of(rule, {}).program)


def _beside(name: str, rule: Rule, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """The settings of a rule for matrices with which its steps are as long as AdamW's, and the ratio of their rates."""
    settings = {key: value for key, value in given.items() if key != REST_RATIO}
    matched = {key: value for key, value in MATCHED.items() if key in (*rule.hyperparameters, *rule.flags)}
    settings = {**matched, **settings}
    if REST_RATIO in given:
        try:
            _check_ratio(given[REST_RATIO])
        except ValueError as error:
            raise ValueError(f"hyperparameters of {name}: {error}") from None
        return settings, {REST_RATIO: float(given[REST_RATIO])}
    if not matched or any(settings[key] != value for key, value in matched.items()):
        ways = " and ".join(f"{key}={value}" for key, value in matched.items())
        raise ValueError(
            f"hyperparameters of {name}: its steps are not as long as those of {adamw.name}, which trains what is no "
            f"matrix beside it; give {f'{ways}, or ' if ways else ''}{REST_RATIO}, how many times its own the learning "
            f"rate of {adamw.name} is to be"
        )
    return settings, {REST_RATIO: 1.0}


def _check_ratio(value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):
        raise ValueError(f"{REST_RATIO}={value!r}: give a positive number")
