"""Reading a formula: from a Python function to a program.

The function is run once on symbols. What depends on no array becomes a coefficient, worked out once per step in double
precision; the rest is the body, straight-line and in the author's order of operations. Equal subexpressions are shared;
nothing is re-associated.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from downslope.expression import CONDITIONS, Expression, FormulaError
from downslope.formula import Range, Rule


@dataclass(frozen=True)
class Cost:
    """What one step costs per weight.

    Attributes:
        read: Bytes read from memory.
        written: Bytes written to memory.
        operations: How often each operation is done.
    """

    read: int
    written: int
    operations: Mapping[str, int]

    @property
    def arithmetic(self) -> int:
        """All operations on one weight."""
        return sum(self.operations.values())

    def __str__(self) -> str:
        done = ", ".join(f"{count} {op}" for op, count in self.operations.items())
        return f"{self.read} bytes read, {self.written} bytes written, {self.arithmetic} operations ({done}) per weight"


@dataclass(frozen=True, eq=False)
class Program:
    """A rule that has been read: what goes in, and an expression for everything that comes out.

    Attributes:
        name: The rule's name.
        arrays: The per-weight inputs: `x`, `dx` and the states.
        states: The initial value per weight of each state: a number, `"x"` for a copy of the initial weights, or the
            name of a hyperparameter; see `initial`.
        scalar_states: The initial value of each scalar state.
        hyperparameters: The hyperparameters the program takes, with their defaults (None: must be given).
        ranges: The values they may take.
        outputs: The new weights and states, per weight.
        scalar_outputs: The new scalar states.
        names: What the author called an expression, where it has a name.
        lookahead: The program whose `x` is the point where the gradient is to be taken; None where that is `x` itself.
    """

    name: str
    states: Mapping[str, float | str]
    scalar_states: Mapping[str, float]
    hyperparameters: Mapping[str, float | None]
    ranges: Mapping[str, Range]
    outputs: Mapping[str, Expression]
    scalar_outputs: Mapping[str, Expression] = field(default_factory=dict)
    names: Mapping[Expression, str] = field(default_factory=dict)
    lookahead: Program | None = None

    @functools.cached_property
    def arrays(self) -> tuple[str, ...]:
        """The per-weight inputs, in the order every backend uses: `x`, `dx`, states."""
        return ("x", "dx", *self.states)

    @functools.cached_property
    def body(self) -> tuple[Expression, ...]:
        """The per-weight operations, each after what it is applied to."""
        return tuple(e for e in in_order(self.outputs.values()) if e.per_weight and e.op != "input")

    @functools.cached_property
    def coefficients(self) -> tuple[Expression, ...]:
        """The scalar expressions that the body uses; constants are not among them."""
        found: dict[Expression, None] = {}
        for user in [*self.body, *self.outputs.values()]:
            for e in (user, *user.args):
                if not e.per_weight and e.op != "constant":
                    found[e] = None
        return tuple(found)

    @functools.cached_property
    def scalars(self) -> tuple[str, ...]:
        """The names of the scalar inputs: hyperparameters, scalar states, `t`, `grad_scale`."""
        inputs = in_order([*self.outputs.values(), *self.scalar_outputs.values()])
        return tuple(str(e.value) for e in inputs if e.op == "input" and not e.per_weight)

    def initial(self, state: str, settings: Mapping[str, Any]) -> float | None:
        """The initial value of a state with these hyperparameters; None for a copy of the initial weights."""
        start = self.states[state]
        return None if start == "x" else float(settings[start] if isinstance(start, str) else start)

    def cost(self, dtype: Any = np.float32) -> Cost:
        """Bytes read and written and operations done, per weight, with arrays of this dtype."""
        size = np.dtype(dtype).itemsize
        read = [e for e in in_order(self.outputs.values()) if e.op == "input" and e.per_weight]
        written = [name for name, e in self.outputs.items() if e.value != name]
        operations: dict[str, int] = {}
        for e in self.body:
            operations[e.op] = operations.get(e.op, 0) + 1
        return Cost(size * len(read), size * len(written), operations)


def in_order(roots: Iterable[Expression]) -> list[Expression]:
    """Everything the roots are made of, each expression once and after what it is applied to."""
    done: dict[Expression, None] = {}
    for root in roots:
        waiting = [root]
        while waiting:
            e = waiting[-1]
            if e in done:
                waiting.pop()
                continue
            missing = [arg for arg in e.args if arg not in done]
            if missing:
                waiting.extend(reversed(missing))
            else:
                done[e] = None
                waiting.pop()
    return list(done)


def array(name: str) -> Expression:
    """The symbol of a per-weight input."""
    return Expression("input", value=name, per_weight=True)


def number(name: str) -> Expression:
    """The symbol of a scalar input."""
    return Expression("input", value=name)


def run(rule: Rule, x: Any, dx: Any, states: Mapping[str, Any], settings: Mapping[str, Any]) -> Reading:
    """Run a rule's formula on symbols.

    Args:
        rule: The rule.
        x: The symbol of the weights, or an expression in its place.
        dx: The same for the gradient.
        states: The same for every state and scalar state, by name.
        settings: Symbols of the hyperparameters and `t`, and the values of the flags.

    Raises:
        FormulaError: The function is not a formula, with the offending operation by name.
    """
    ordered = [states[name] for name in rule.signature_states]
    with _Locals(rule.function) as names:
        try:
            returned = rule.function(x, dx, *ordered, **settings)
        except FormulaError as error:
            raise FormulaError(f"{rule.name}: {error}") from None
    values = returned if isinstance(returned, tuple) else (returned,)
    expected = ("x", *rule.signature_states)
    if returned is None:
        raise FormulaError(f"{rule.name} returns nothing; end the formula with: return {', '.join(expected)}")
    if len(values) != len(expected):
        raise FormulaError(
            f"{rule.name} returns {len(values)} value(s); expected {len(expected)}: {', '.join(expected)}"
        )
    outputs: dict[str, Expression] = {}
    for name, value in zip(expected, values, strict=True):
        value = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
        if not isinstance(value, (Expression, int, float, np.number)) or isinstance(value, bool):
            raise FormulaError(f"{rule.name} returns {value!r} as the new {name}; expected a formula or a number")
        e = value if isinstance(value, Expression) else Expression("constant", value=float(value))
        if e.op in CONDITIONS:
            raise FormulaError(
                f"{rule.name} returns the truth value {e!r} as the new {name}; use where(condition, a, b)"
            )
        if name in rule.scalar_states and e.per_weight:
            raise FormulaError(f"{rule.name}: the new scalar state {name} depends on per-weight values: {e!r}")
        outputs[name] = e
    return Reading(outputs, dict(names.found))


@dataclass(frozen=True)
class Reading:
    """What a formula left behind: its outputs by name, and what its author called the steps on the way."""

    outputs: dict[str, Expression]
    names: dict[Expression, str]


class _Locals:
    """Notes the local variables of a function as it returns: the author's names for the steps of the formula."""

    def __init__(self, function: Callable[..., Any]):
        self.code = function.__code__
        self.found: dict[Expression, str] = {}
        self.busy = sys.getprofile() is not None  # someone is profiling: do without the names

    def __enter__(self) -> _Locals:
        if not self.busy:
            sys.setprofile(self._event)
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.busy:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "return" and frame.f_code is self.code:
            for name, value in frame.f_locals.items():
                if isinstance(value, Expression):
                    self.found.setdefault(value, name)


def share(roots: Mapping[str, Expression], names: Mapping[Expression, str]) -> Iterator[dict[Any, Any]]:
    """Rebuild expressions so that equal ones are one object; yields the new roots, then the new names."""
    canonical: dict[tuple[Any, ...], Expression] = {}
    new: dict[Expression, Expression] = {}
    for e in in_order(roots.values()):
        args = tuple(new[arg] for arg in e.args)
        key = (e.op, tuple(map(id, args)), e.value, e.per_weight, str(e.value))  # str: -0.0 is not 0.0
        new[e] = canonical.setdefault(key, Expression(e.op, args, e.value, e.per_weight))
    yield {name: new[e] for name, e in roots.items()}
    yield {new[e]: name for e, name in names.items() if e in new and new[e].op not in ("input", "constant")}


def trace(rule: Rule, **flags: bool) -> Program:
    """Read a rule as it stands, without any option around it.

    Args:
        rule: The rule.
        **flags: The boolean hyperparameters that are not to have their defaults.

    Example:
        >>> import downslope
        >>> program = trace(downslope.adam)
        >>> program.arrays
        ('x', 'dx', 'm', 'v')
        >>> len(program.coefficients)
        8
    """
    from downslope.options import compose

    return compose(rule, **flags)
