"""A rule with its options and parameter groups, settled: what every front end prepares before it touches memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from downslope.language.formula import Range, check_number, unknown
from downslope.language.options import CHOICES, NUMBERS
from downslope.language.program import Program, fingerprint
from downslope.rule import Rule
from downslope.training import checkpoint
from downslope.training.groups import Array, Group, Schedule
from downslope.training.settings import Settings

FIXED = tuple(sorted({*CHOICES, "lookahead", "max_norm", "nonfinite", "threads"}))
"""The options that hold for a whole optimizer from the start."""


@dataclass
class Plan:
    """What is to be computed at every step, and with which numbers.

    Attributes:
        settings: The rule with its options.
        groups: The parameter groups.
        max_norm: The largest permitted norm of all gradients together, or None.
    """

    settings: Settings
    max_norm: float | None
    groups: list[Group] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        rule: Rule,
        names: Sequence[list[str]],
        settings: Sequence[Mapping[str, Any]],
        shared: Mapping[str, Any],
        *,
        max_norm: float | None,
        stored_ahead: bool,
        **choices: bool,
    ) -> Plan:
        """Settle a rule with its options and groups.

        Args:
            rule: The rule.
            names: The names of each group's arrays.
            settings: The hyperparameters that each group sets for itself.
            shared: Hyperparameters and flags for all groups.
            max_norm: Clip all gradients together to this norm.
            stored_ahead: Keep the point of the look-ahead in the arrays.
            **choices: The options that are a yes or no; see `language.options.Options`.

        Raises:
            TypeError: A name is unknown, a value is of the wrong kind, or a hyperparameter is missing.
            ValueError: A value is out of range.
            FormulaError: The rule cannot be compiled, or an option does not fit it.
        """
        if not isinstance(rule, Rule):
            raise TypeError(
                f"rule={rule!r} is not a rule; pass one such as downslope.adam, or decorate yours with @rule"
            )
        for option, value in choices.items():
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{option}={value!r}: give True or False")
        own = {*rule.hyperparameters, *rule.flags}
        given = {*shared, *(name for group in settings for name in group)}
        flags = {name: shared[name] for name in rule.flags if name in shared}
        options = {name for name in NUMBERS if name in given and name not in own}
        options |= {name for name, value in choices.items() if value}
        options |= set() if max_norm is None else {"max_norm"}
        plan = cls(
            settings=Settings.of(rule, flags, options, stored_ahead=stored_ahead),
            max_norm=None if max_norm is None else check_number("max_norm", max_norm, Range(0.0, np.inf)),
        )
        numbers = {name: value for name, value in shared.items() if name not in flags}
        for group_names, own_settings in zip(names, settings, strict=True):
            hyperparameters = plan._complete({**numbers, **own_settings})
            plan.groups.append(Group(group_names, hyperparameters, dict(plan.program.scalar_states)))
        return plan

    @property
    def rule(self) -> Rule:
        """The rule."""
        return self.settings.rule

    @property
    def program(self) -> Program:
        """The rule with its options, read."""
        return self.settings.program

    def _complete(self, given: Mapping[str, Any]) -> dict[str, float | Schedule]:
        """A group's hyperparameters: those given, else the defaults; an option of other groups only counts as 0."""
        absent = {name: 0.0 for name in NUMBERS if name in self.settings.options}
        settings = {**self.program.hyperparameters, **absent, **given}
        for name, value in settings.items():
            if value is None and name not in given:
                raise TypeError(f"{self.rule.name} has no default for {name}; give {name}=...")
        return {name: self.checked(name, value) for name, value in settings.items()}

    def checked(self, name: str, value: Any) -> float | Schedule:
        """The number or schedule for this hyperparameter, or an error that says what would do."""
        if name in self.program.hyperparameters:
            if callable(value):
                schedule: Schedule = value
                check_number(f"{name}(t=1)", schedule(1), self.program.ranges[name])
                return schedule
            return check_number(name, value, self.program.ranges[name])
        if name in (*self.rule.flags, *FIXED, *NUMBERS):
            raise TypeError(f"{name} is settled for the whole optimizer when it is made; it cannot be set here")
        valid = dict.fromkeys((*self.program.hyperparameters, *self.rule.flags, *NUMBERS, *FIXED))
        raise unknown(f"an optimizer with the rule {self.rule.name}", name, list(valid))

    def starts(self) -> dict[str, dict[str, float | None]]:
        """The initial value of every state of every array, by the names of both; None for a copy of the weights."""
        program = self.program
        found: dict[str, dict[str, float | None]] = {}
        for group in self.groups:
            settings = {name: group.value(name, 1, program.ranges[name]) for name in group.hyperparameters}
            start = {state: program.initial(state, settings) for state in program.states}
            found |= dict.fromkeys(group.names, start)
        return found

    def refuse_starts(self, names: Collection[str]) -> None:
        """Refuse to change a hyperparameter that states have started from."""
        for state, start in self.program.states.items():
            if start in names:
                raise TypeError(
                    f"{start} is the initial value of the state {state}, which has begun; it cannot be set now"
                )

    @property
    def moving(self) -> bool:
        """Whether the coefficients may differ from step to step."""
        moving = {"t", "grad_scale", *self.program.scalar_states}
        return any(group.scheduled for group in self.groups) or not moving.isdisjoint(self.program.scalars)

    def points(
        self, t: int, x: Mapping[str, Array], states: Mapping[str, Mapping[str, Array]], *, to_weights: bool
    ) -> dict[str, Array]:
        """The points ahead of the weights for the step after `t`, or the weights from these points.

        Args:
            t: The number of steps done.
            x: The weights, or the points ahead.
            states: The states, by their own name and that of the weights.
            to_weights: Which way to go.
        """
        ahead = self.settings.ahead
        assert ahead is not None
        found: dict[str, Array] = {}
        for group, values in zip(self.groups, self.lookahead_scalars(t), strict=True):
            scalars = dict(zip(ahead.scalars, values, strict=True))
            for name in group.names:
                own = {state: by_name[name] for state, by_name in states.items()}
                found[name] = ahead.move(x[name], own, scalars, to_weights=to_weights)
        return found

    def lookahead_scalars(self, t: int) -> list[list[float]]:
        """What the points ahead depend on besides weights and states, group by group, after `t` steps."""
        ahead = self.settings.ahead
        assert ahead is not None
        return [list(group.scalars(ahead.to_point, t + 1, 1.0)) for group in self.groups]

    def moved_by(
        self,
        changed: Collection[str],
        old: list[Group],
        t: int,
        x: Mapping[str, Array],
        states: Mapping[str, Mapping[str, Array]],
    ) -> dict[str, Array]:
        """Where stored points ahead have to go now that hyperparameters have changed from those of the old groups."""
        ahead = self.settings.ahead
        if not self.settings.stored_ahead or ahead is None or set(changed).isdisjoint(ahead.scalars):
            return {}
        weights = replace(self, groups=old).points(t, x, states, to_weights=True)
        return self.points(t, weights, states, to_weights=False)

    def record(self, t: int) -> dict[str, Any]:
        """What a checkpoint says of this plan."""
        settings = replace(self.settings, stored_ahead=False)
        record: dict[str, Any] = {
            "rule": self.rule.name,
            "flags": settings.choices,
            "options": settings.around,
            "max_norm": self.max_norm,
            "formula": fingerprint(settings.program),
            "groups": [
                {
                    "names": group.names,
                    "hyperparameters": {k: None if callable(v) else v for k, v in group.hyperparameters.items()},
                    "scalar_states": group.scalar_states,
                }
                for group in self.groups
            ],
        }
        if self.settings.stored_ahead:
            record["lookahead"] = self.lookahead_scalars(t)
        return record

    def restored(self, record: Mapping[str, Any]) -> Plan:
        """This plan with the hyperparameters and scalar states of a record; its own schedules stay.

        Raises:
            CheckpointError: The record is of another rule, formula, options or groups, or a value is not allowed.
        """
        here = self.record(0)
        checkpoint.check_same(record, here, ("rule", "flags", "options", "formula"))
        groups = []
        for group, saved in zip(self.groups, checkpoint.check_groups(record, here), strict=True):
            schedules = {name: value for name, value in group.hyperparameters.items() if callable(value)}
            numbers = {name: value for name, value in saved["hyperparameters"].items() if value is not None}
            try:
                checked = {name: self.checked(name, value) for name, value in numbers.items()}
            except ValueError as error:
                raise checkpoint.CheckpointError(f"the file's {error}") from None
            scalar_states = {name: float(value) for name, value in saved["scalar_states"].items()}
            groups.append(Group(group.names, {**group.hyperparameters, **checked, **schedules}, scalar_states))
        return replace(self, groups=groups, max_norm=checkpoint.bound(record))
