"""A rule with its options and hyperparameters, settled for JAX: numbers, traced values, schedules of a traced count."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from downslope.language.difference import difference
from downslope.language.options import FIXED
from downslope.language.program import Program
from downslope.language.ranges import Range, check_number, usual_range
from downslope.rule import Rule
from downslope.training.checks import LOOKAHEADS, one_of
from downslope.training.groups import Group
from downslope.training.settings import Settings, settle

Schedule = Callable[[Any], Any]
"""A hyperparameter that changes: called with the number of steps done, from 0, as Optax calls its schedules."""

Number = float | jax.Array
Setting = Number | Schedule


@dataclass(frozen=True, eq=False)
class Computation:
    """What a transformation computes, and with which numbers.

    Attributes:
        chosen: The rule with its options.
        hyperparameters: All of them.
        max_norm: The largest permitted norm of all gradients together, or None.
        mask: Which parameters have weight decay: a tree of truth values, or a function that makes one; None for all.
        dtypes: The dtypes of states that do not have that of their weights.
        names: What the user calls those hyperparameters that have another name there.
    """

    chosen: Settings
    hyperparameters: Mapping[str, Setting]
    max_norm: Number | None
    mask: Any
    dtypes: Mapping[str, Any]
    names: Mapping[str, str]

    @classmethod
    def make(
        cls,
        rule: Rule,
        given: Mapping[str, Any],
        *,
        lookahead: str = "stored",
        mask: Any = None,
        dtypes: Mapping[str, Any] = MappingProxyType({}),
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> Computation:
        """Settle a rule; the arguments are those of `downslope.optax.optimizer`, and the attributes of this class.

        Raises:
            TypeError: A name is unknown, a value is of the wrong kind, or a hyperparameter is missing.
            ValueError: A value is out of range.
            FormulaError: The rule is not a formula, or an option does not fit it.
        """
        one_of("lookahead", lookahead, LOOKAHEADS)
        fixed = {name: given[name] for name in FIXED if name in given}
        if callable(max_norm := fixed.get("max_norm")):
            raise TypeError(f"max_norm={max_norm!r}: give a number; for a schedule, optax.inject_hyperparams")
        flags = rule.flags if isinstance(rule, Rule) else {}
        later: dict[str, Any] = {}
        now: dict[str, Any] = {}
        ranges = rule.ranges if isinstance(rule, Rule) else {}
        for name in [name for name in given if name not in fixed]:
            value = given[name]
            said = names.get(name, name)
            if hasattr(value, "init") and hasattr(value, "update"):
                raise TypeError(f"{said}={value!r} is a schedule with a state; have optax.inject_hyperparams call it")
            if name not in flags and name not in HALF_WILL_DO:
                _refuse_half(said, value)
            known = value if name in flags or callable(value) else _taken(said, value)
            unknown_yet = callable(known) or isinstance(known, jax.Array)
            if name in names and not unknown_yet:
                known = check_number(said, known, ranges[name])
            (later if unknown_yet else now)[name] = known
        bound = None if max_norm is None else _taken("max_norm", max_norm)
        # in the place of what is not known yet stand functions that are never called
        chosen, (numbers,) = settle(
            rule,
            {**fixed, **now, **{name: _someday(rule, name) for name in later}},
            stored_ahead=lookahead == "stored",
        )
        if bound is not None and not isinstance(bound, jax.Array):
            bound = check_number("max_norm", bound, Range(0.0, math.inf))
        arrays = [name for name, value in given.items() if isinstance(value, jax.Array)]
        for name in arrays:
            if f"{name} next" in chosen.program.scalars:
                raise TypeError(
                    f"{name} is an array, but the look-ahead of {rule.name} needs its value at the next step too: give "
                    f"a number or a schedule (`lambda count: {name}` if it stays the same), and name it in the "
                    "static_args of optax.inject_hyperparams"
                )
        return cls(chosen, {**numbers, **later}, bound, mask, dtypes, names)

    @property
    def program(self) -> Program:
        """The rule with its options, read."""
        return self.chosen.program

    @functools.cached_property
    def update(self) -> Program:
        """What a step adds to a parameter."""
        return difference(self.program)

    @functools.cached_property
    def update_without_decay(self) -> Program:
        """What a step adds to a parameter that the mask spares from weight decay."""
        return difference(self.chosen.with_options(weight_decay=False, decoupled=False).program)

    def value(self, name: str, count: Any) -> Number:
        """A hyperparameter after so many steps; a number is checked, a traced value is not known."""
        setting = self.hyperparameters[name]
        if not callable(setting):
            return setting
        said = self.names.get(name, name)
        value = _taken(f"{said} after {count} steps", setting(count))
        return value if isinstance(value, jax.Array) else check_number(said, value, self.program.ranges[name])

    def scalars(self, program: Program, count: Any, others: Mapping[str, Any]) -> dict[str, Any]:
        """The scalar inputs of a program for the step after so many."""
        found: dict[str, Any] = {}
        for name in program.scalars:
            if name in others:
                found[name] = others[name]
            elif name == "t":
                found[name] = (count + 1).astype(precision())
            elif name in self.hyperparameters:
                found[name] = self.value(name, count)
            else:
                found[name] = self.value(name.removesuffix(" next"), count + 1)
        return found

    def start(self, state: str) -> Number | None:
        """The initial value of a state; None for a copy of the weights."""
        start = self.program.states[state]
        if start == "x":
            return None
        return self.value(start, jnp.int32(0)) if isinstance(start, str) else start

    def group(self, names: list[str], scalar_states: Mapping[str, float]) -> Group:
        """A group of arrays of these names, with schedules that count as those of downslope: steps from 1.

        Raises:
            TypeError: A hyperparameter is a traced value.
        """
        hyperparameters: dict[str, Any] = {}
        for name, setting in self.hyperparameters.items():
            if isinstance(setting, jax.Array):
                said = self.names.get(name, name)
                raise TypeError(f"{said} is a traced value of JAX; do this outside of jit, with a number")
            hyperparameters[name] = _from_one(setting) if callable(setting) else setting
        if isinstance(self.max_norm, jax.Array):
            raise TypeError("max_norm is a traced value of JAX; do this outside of jit, with a number")
        return Group(self.chosen, names, hyperparameters, scalar_states)


def precision() -> Any:
    """The dtype of scalars that JAX works out: double precision where JAX has it."""
    return jax.dtypes.canonicalize_dtype(float)


HALF_WILL_DO = ("lr", "weight_decay", "max_norm")
"""The hyperparameters of which three digits are enough; 0.999 is 1 in bfloat16, and 1e-8 is 0 in float16."""


def _refuse_half(name: str, value: Any) -> None:
    """Refuse an array in half precision, which may be one that is not known yet.

    Raises:
        TypeError: It is one.
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating) and value.dtype.itemsize < 4:
        raise TypeError(
            f"{name} is an array of dtype {value.dtype}, in which 0.999 is {float(np.asarray(0.999, value.dtype)):.4g} "
            f"and 1e-8 is {float(np.asarray(1e-8, value.dtype)):.2g}. optax.inject_hyperparams takes the dtype of the "
            "parameters unless told otherwise: give it hyperparam_dtype=jnp.float32, or name what does not change in "
            "its static_args"
        )


def _taken(name: str, value: Any) -> Any:
    """A hyperparameter that may be an array: a float if its value is known, else as a traced value; others unchanged.

    Raises:
        TypeError: It is an array of something else than one real number.
    """
    if not isinstance(value, (jax.Array, np.ndarray)):
        return value
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    if value.ndim or not real:
        raise TypeError(f"{name} is an array of shape {value.shape} and dtype {value.dtype}; expected one number")
    if isinstance(value, jax.core.Tracer):
        return value.astype(precision())
    return float(value)


def _someday(rule: Rule, name: str) -> Callable[[int], float]:
    """In the place of a schedule or traced value, where nothing but its name can be checked: a value in range."""
    allowed: Range = rule.ranges.get(name, usual_range(name))
    known = allowed.low if math.isfinite(allowed.low) else 0.0
    return lambda t: known


def _from_one(schedule: Schedule) -> Callable[[int], float]:
    return lambda t: float(schedule(t - 1))
