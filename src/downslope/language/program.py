"""Programs: formulas that have been read, as expressions for everything that comes out.

What depends on no array is a coefficient, worked out once per step in double precision; the rest is the body,
straight-line and in the author's order of operations.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from downslope.language.expression import Expression
from downslope.language.operations import FACTORS, OVER_TENSORS, POWERS, TENSOR_WORDS, FormulaError
from downslope.language.ranges import Range
from downslope.language.spaces import WEIGHT, Space


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
        spaces: Where each of the rule's states lives that are not one per weight, but one per row or column, or pair of
            them.
        most_dimensions: How many dimensions a tensor may have; None where those with more are matrices as well.
        least_dimensions: How many it must have; None for two where matrices are multiplied, and none elsewhere.
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
    spaces: Mapping[str, Space] = field(default_factory=dict)
    most_dimensions: int | None = None
    least_dimensions: int | None = None

    @functools.cached_property
    def narrow(self) -> tuple[str, ...]:
        """The states that are not one per weight."""
        return tuple(name for name in self.states if name in self.spaces)

    @functools.cached_property
    def arrays(self) -> tuple[str, ...]:
        """The inputs that are arrays, in the order every backend uses: `x`, `dx`, states; the narrow ones are last."""
        return ("x", "dx", *(name for name in self.states if name not in self.spaces), *self.narrow)

    @functools.cached_property
    def expressions(self) -> tuple[Expression, ...]:
        """Everything that comes out and all that it is made of, each expression after what it is applied to."""
        return tuple(in_order([*self.outputs.values(), *self.scalar_outputs.values()]))

    @functools.cached_property
    def per_weight(self) -> tuple[Expression, ...]:
        """The body with its inputs, constants and what is put out as it is, each after what it is applied to."""
        return tuple(in_order(self.outputs.values(), self.coefficients))

    @functools.cached_property
    def body(self) -> tuple[Expression, ...]:
        """The per-weight operations, each after what it is applied to."""
        return tuple(e for e in self.expressions if e.from_arrays and e.op != "input")

    @functools.cached_property
    def coefficients(self) -> tuple[Expression, ...]:
        """The scalar expressions that the body uses; constants are not among them."""
        found: dict[Expression, None] = {}
        for user in [*self.body, *self.outputs.values()]:
            for e in (user, *user.args):
                if not e.from_arrays and e.op != "constant":
                    found[e] = None
        return tuple(found)

    @functools.cached_property
    def scalars(self) -> tuple[str, ...]:
        """The names of the scalar inputs: hyperparameters, scalar states, `t`, `grad_scale`."""
        return tuple(str(e.value) for e in self.expressions if e.op == "input" and not e.from_arrays)

    def initial(self, state: str, settings: Mapping[str, Any]) -> float | None:
        """The initial value of a state with these hyperparameters; None for a copy of the initial weights."""
        start = self.states[state]
        return None if start == "x" else float(settings[start] if isinstance(start, str) else start)

    @functools.cached_property
    def over_tensors(self) -> tuple[Expression, ...]:
        """What makes this a program over whole tensors: none in a rule that treats each weight by itself.

        It is the operations on whole tensors, and the states that are one for each row or column.
        """
        found = tuple(e for e in self.expressions if e.op in OVER_TENSORS or _is_narrow(e))
        read = {e.value for e in found if e.op == "input"}
        unread = [name for name in self.narrow if name not in read]  # only written
        return (*found, *(Expression("input", value=name, space=self.spaces[name]) for name in unread))

    @functools.cached_property
    def of_matrices(self) -> bool:
        """Whether it goes by rows and columns, so that a tensor has to be taken as a matrix."""
        return any(
            e.op in ("transpose", "product", *FACTORS)
            or (e.op in TENSOR_WORDS and e.value in (0.0, 1.0))
            or _is_narrow(e)
            for e in self.over_tensors
        )

    @functools.cached_property
    def conditions(self) -> tuple[Expression, ...]:
        """What is known before a step and decides which of two arrays is computed at all, where only one of them is."""
        return tuple(dict.fromkeys(e.args[0] for e in self.expressions if is_decided(e)))

    @functools.cached_property
    def over_all(self) -> tuple[Expression, ...]:
        """What sums up all tensors that are updated together, so that none can be updated by itself."""
        return tuple(e for e in self.expressions if e.over_all)

    def refuse_over_tensors(self, target: str) -> None:
        """Refuse a program that does not treat each weight by itself, for a target that does.

        Raises:
            FormulaError: It is one.
        """
        if self.over_tensors:
            found = [f"the state {e.value}" if e.op == "input" else e.op for e in self.over_tensors]
            words = ", ".join(word for word in dict.fromkeys(found) if word != "called")
            raise FormulaError(
                f"{self.name} goes by whole tensors ({words}), and {target} treats each weight by itself; the "
                "optimizers can do such a rule"
            )


def is_decided(e: Expression) -> bool:
    """Whether it is one of two arrays alike, and which of them depends on no array."""
    alike = e.from_arrays and e.op == "where" and e.args[1].space == e.args[2].space == e.space
    return alike and not e.args[0].from_arrays


def _is_narrow(e: Expression) -> bool:
    """Whether it is a state that is not one per weight."""
    return e.op == "input" and e.from_arrays and e.space != WEIGHT


def in_order(
    roots: Iterable[Expression],
    known: Collection[Expression] = (),
    needs: Callable[[Expression], Sequence[Expression]] = operator.attrgetter("args"),
) -> list[Expression]:
    """Everything the roots are made of, each expression once and after what it is applied to.

    Args:
        roots: What is to be computed.
        known: Expressions that are not looked into, nor among what is returned.
        needs: What has to come before an expression: all that it is applied to.
    """
    done: dict[Expression, None] = dict.fromkeys(known)
    for root in roots:
        waiting = [root]
        while waiting:
            e = waiting[-1]
            if e in done:
                waiting.pop()
                continue
            missing = [arg for arg in needs(e) if arg not in done]
            if missing:
                waiting.extend(reversed(missing))
            else:
                done[e] = None
                waiting.pop()
    return list(done)[len(known) :]


def share(
    roots: Mapping[str, Expression], names: Mapping[Expression, str], kept: Iterable[Expression] = ()
) -> tuple[dict[str, Expression], dict[Expression, str]]:
    """Have equal expressions be one object, the first of them: the new roots, and the new names.

    Args:
        roots: What is to be computed.
        names: What its author gave a name.
        kept: Those that are to stand for what is equal to them; each after its arguments.
    """
    canonical: dict[tuple[Any, ...], Expression] = {}
    new: dict[Expression, Expression] = {}
    for e in dict.fromkeys((*kept, *in_order(roots.values()))):
        args = tuple(new[arg] for arg in e.args)
        key = (e.op, tuple(map(id, args)), e.value, e.space, str(e.value))  # str: -0.0 is not 0.0
        new[e] = canonical.setdefault(key, e.of(args))
    called = {new[e]: name for e, name in names.items() if e in new and new[e].op not in ("input", "constant")}
    return {name: new[e] for name, e in roots.items()}, called


def fingerprint(program: Program) -> str:
    """A hash of what a program computes, the same for the same formula and options wherever it was read."""
    lines: list[list[Any]] = []
    outputs = _numbered({**program.outputs, **program.scalar_outputs}, lines)
    if program.lookahead is not None:
        outputs |= _numbered({"point": program.lookahead.outputs["x"]}, lines)
    states = [list(program.states.items()), list(program.scalar_states.items())]
    spaces = [[name, *program.spaces[name][:3]] for name in program.narrow]
    text = json.dumps([lines, outputs, *states, *([spaces] if spaces else [])])
    import hashlib  # brings OpenSSL

    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _numbered(roots: Mapping[str, Expression], lines: list[list[Any]]) -> dict[str, int]:
    """The number of each root's line, with a line for every expression; powers are written with their exponent."""
    exponents = {operation: exponent for exponent, operation in POWERS.items()}
    number: dict[Expression, int] = {}
    constants: dict[str, int] = {}

    def line(*content: Any) -> int:
        lines.append(list(content))
        return len(lines) - 1

    def constant(value: Any) -> int:
        if str(value) not in constants:
            constants[str(value)] = line("constant", str(value))
        return constants[str(value)]

    for e in in_order(roots.values()):
        if e.op == "constant":
            number[e] = constant(e.value)
        elif e.op == "called":
            number[e] = number[e.args[0]]
        elif e.op in exponents:
            number[e] = line("pow", number[e.args[0]], constant(exponents[e.op]), str(e.value))
        else:
            number[e] = line(e.op, *(number[arg] for arg in e.args), str(e.value))
    return {name: number[e] for name, e in roots.items()}
