"""Surfaces: losses of one or two weights, written as formulas like rules are.

The value, the gradient, the curvature and the LaTeX of a surface all come from the one formula, and so does what other
targets make of its program.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from downslope.language.derivative import gradient
from downslope.language.expression import Expression, apply, expression
from downslope.language.formula import unknown
from downslope.language.grammar import parse
from downslope.language.operations import FormulaError, namespace
from downslope.language.program import Program, in_order, share
from downslope.language.ranges import Range, check_number, usual_range
from downslope.language.trace import array, number
from downslope.targets.arrays import interpret
from downslope.targets.latex import expression_latex

VARIABLES = ("x", "y")
"""The names of the weights: `x` alone, or both."""

UNSAID = (-5.0, 5.0)
"""What is looked at of a surface that does not say which part of it matters."""


@dataclass(frozen=True, eq=False)
class Surface:
    r"""A loss of one or two weights. Called with numbers or arrays it gives the loss there.

    Attributes:
        name: What it is called.
        formula: The loss, as an expression of the weights and the parameters.
        variables: The names of the weights.
        parameters: The numbers that shape it, by name; `given` changes them.
        ranges: The part of each axis that is worth looking at.
        start: Where a walk begins, unless it says otherwise.
        minima: Where it is lowest; none if it is not known, or there is no lowest place.
        teaches: What can be seen on it.
        source: Where it comes from.

    Example:
        >>> from downslope import surfaces
        >>> float(surfaces.rosenbrock(0.0, 1.0))
        101.0
        >>> print(surfaces.valley.latex())
        f(x, y) = \frac{x^{2} + \kappa \, y^{2}}{10}
    """

    name: str
    formula: Expression
    variables: tuple[str, ...]
    parameters: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]
    start: tuple[float, ...]
    minima: tuple[tuple[float, ...], ...] = ()
    teaches: str = ""
    source: str = ""

    def __repr__(self) -> str:
        known = [f"{name}={value:g}" for name, value in self.parameters.items()]
        return f"<surface {self.name}({', '.join([*self.variables, *known])})>"

    def __call__(self, *point: Any) -> Any:
        """The loss at a point.

        Args:
            *point: A number or an array for each weight.
        """
        return self.values(*point)["loss"]

    def gradient(self, *point: Any) -> tuple[Any, ...]:
        """The derivative of the loss by each weight.

        Example:
            >>> from downslope import surfaces
            >>> [float(slope) for slope in surfaces.valley.gradient(-9.0, 1.5)]
            [-1.8, 15.0]
        """
        values = self.values(*point)
        return tuple(values[f"d{name}"] for name in self.variables)

    def hessian(self, *point: Any) -> tuple[tuple[Any, ...], ...]:
        """The second derivatives: the curvature along the axes, and how each slope changes along the other axis.

        Example:
            >>> from downslope import surfaces
            >>> [[float(each) for each in row] for row in surfaces.saddle.hessian(0.0, 0.0)]
            [[1.0, 0.0], [0.0, -1.0]]
        """
        values = self._computed(self.second, point)
        return tuple(tuple(values[f"d{a}d{b}"] for b in self.variables) for a in self.variables)

    def values(self, *point: Any) -> dict[str, Any]:
        """The loss and its derivatives at a point: `loss`, `dx`, and `dy` if there are two weights."""
        return self._computed(self.program, point)

    @functools.cached_property
    def program(self) -> Program:
        """The program of the loss and its derivatives: what `values` computes, for any target.

        The weights are its arrays, the parameters its hyperparameters; what the outputs have in common is worked out
        once.
        """
        return self._program(_with_slopes(self.formula, self.variables))

    @functools.cached_property
    def second(self) -> Program:
        """The program of the second derivatives, such as `dxdy`: what `hessian` computes, for any target."""
        outputs: dict[str, Expression] = {}
        for a in self.variables:
            second = gradient(self.program.outputs[f"d{a}"], self.variables)
            outputs |= {f"d{a}d{b}": e for b, e in zip(self.variables, second, strict=True)}
        return self._program(share(outputs, {})[0])

    def _program(self, outputs: Mapping[str, Expression]) -> Program:
        return Program(
            name=self.name,
            states={},
            scalar_states={},
            hyperparameters=self.parameters,
            ranges={name: usual_range(name) for name in self.parameters},
            outputs=outputs,
        )

    def _computed(self, program: Program, point: Sequence[Any]) -> dict[str, Any]:
        if len(point) != len(self.variables):
            raise TypeError(f"{self.name} has the weights {', '.join(self.variables)}; got {len(point)} value(s)")
        given = [np.float64(each) if isinstance(each, (int, float)) else each for each in point]
        library = namespace(given)
        if library is np:
            doubles = [np.asarray(each, np.float64) for each in given]
            given = [each[()] for each in np.broadcast_arrays(*doubles)]
        return interpret(program, dict(zip(self.variables, given, strict=True)), self.parameters, library)

    def given(self, **parameters: float) -> Surface:
        """The same surface with other parameters.

        Example:
            >>> from downslope import surfaces
            >>> surfaces.valley.given(kappa=1000)
            <surface valley(x, y, kappa=1000)>
        """
        numbers = dict(self.parameters)
        for name, value in parameters.items():
            if name not in numbers:
                raise unknown(self.name, name, list(numbers))
            numbers[name] = check_number(name, value, usual_range(name))
        return replace(self, parameters=numbers)

    def changed(self, *, turn: float = 0.0, stretch: float = 1.0, times: float = 1.0) -> Surface:
        """The same ground, stretched along `x`, then turned, and the loss multiplied: rules differ in what they mind.

        The start and the minima are the same places of the ground, the ranges what it takes to see it all.

        Args:
            turn: Degrees, to the left; a surface of one weight cannot be turned.
            stretch: How many times as long it is along `x`.
            times: What the loss is multiplied by.

        Raises:
            ValueError: A number is out of range, or a surface of one weight is to be turned.

        Example:
            >>> from downslope import surfaces
            >>> turned = surfaces.valley.changed(turn=90)
            >>> [round(each, 9) for each in turned.start], round(float(turned(*turned.start)), 9)
            ([-1.5, -9.0], 19.35)
        """
        turn = math.radians(check_number("turn", turn, Range(-360.0, 360.0)))
        stretch = check_number("stretch", stretch, Range(1e-6, 1e6))
        times = check_number("times", times, Range(1e-9, 1e9))
        if turn and len(self.variables) == 1:
            raise ValueError(f"turn={math.degrees(turn):g}: {self.name} has one weight, and cannot be turned")
        c, s = math.cos(turn), math.sin(turn)
        rows = [[c * stretch, -s], [s * stretch, c]] if len(self.variables) == 2 else [[stretch]]
        forth = np.array(rows)
        here = [array(name) for name in self.variables]
        back = [[c / stretch, s / stretch], [-s, c]] if len(here) == 2 else [[1 / stretch]]
        there = {
            v: functools.reduce(lambda a, b: a + b, [w * h for w, h in zip(row, here, strict=True)])
            for v, row in zip(self.variables, back, strict=True)
        }
        new: dict[Expression, Expression] = {}
        for e in in_order([self.formula]):
            args = [new[arg] for arg in e.args]
            new[e] = apply(e.op, *args) if args else there.get(str(e.value), e)
        corners = np.array(list(itertools.product(*(self.ranges[name] for name in self.variables)))) @ forth.T
        ends = zip(corners.min(axis=0), corners.max(axis=0), strict=True)
        points = [tuple(map(float, forth @ np.array(point))) for point in (self.start, *self.minima)]
        told = {"turn": math.degrees(turn), "stretch": stretch, "times": times}
        usual = {"turn": 0.0, "stretch": 1.0, "times": 1.0}
        how = ", ".join(f"{name}={value:g}" for name, value in told.items() if value != usual[name])
        return replace(
            self,
            name=f"{self.name} ({how})" if how else self.name,
            formula=times * new[self.formula],
            ranges={v: (float(low), float(high)) for v, (low, high) in zip(self.variables, ends, strict=True)},
            start=points[0],
            minima=tuple(points[1:]),
        )

    @property
    def lowest(self) -> float | None:
        """The loss at the minima; None if they are not known."""
        return float(self(*self.minima[0])) if self.minima else None

    def latex(self) -> str:
        """The formula in LaTeX."""
        return f"f({', '.join(self.variables)}) = {expression_latex(self.formula)}"

    def gradient_latex(self) -> tuple[str, ...]:
        r"""The derivative by each weight in LaTeX.

        Example:
            >>> from downslope import surfaces
            >>> print(surfaces.valley.gradient_latex()[1])
            \frac{\partial f}{\partial y} = \frac{\kappa \, y}{5}
        """
        outputs = self.program.outputs
        return tuple(
            rf"\frac{{\partial f}}{{\partial {v}}} = {expression_latex(outputs[f'd{v}'])}" for v in self.variables
        )

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


@functools.lru_cache(maxsize=64)
def _with_slopes(formula: Expression, variables: tuple[str, ...]) -> Mapping[str, Expression]:
    """The loss and its derivatives; they do not depend on what the parameters are."""
    slopes = gradient(formula, variables)
    outputs, _ = share({"loss": formula, **{f"d{v}": e for v, e in zip(variables, slopes, strict=True)}}, {})
    return outputs


@overload
def surface(function: Callable[..., Any], /) -> Surface: ...


@overload
def surface(
    *,
    start: Sequence[float] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    minima: Sequence[Sequence[float]] = (),
) -> Callable[[Callable[..., Any]], Surface]: ...


def surface(
    function: Callable[..., Any] | None = None,
    /,
    *,
    start: Sequence[float] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    minima: Sequence[Sequence[float]] = (),
) -> Any:
    """Make a surface from its formula.

    Args:
        function: The formula: a function of `x`, or of `x` and `y`, in the words that rules are written in. Its
            keyword-only arguments are parameters and need a default. The first sentence of its docstring says what it
            teaches, what follows `Source:` where it is from.
        start: Where a walk begins; the default is a place at the side of the ranges.
        ranges: The lowest and highest value of each weight that are worth looking at; the default is from -5 to 5.
        minima: Where it is lowest, if that is known.

    Raises:
        FormulaError: The function is no formula of `x` and `y`.
        ValueError: A range is empty, a point has the wrong number of weights, or the loss at the start is not finite.

    Example:
        >>> from downslope import surface
        >>> @surface(start=(2.0, 1.0), minima=[(0.0, 0.0)])
        ... def bowl(x, y, *, steep=10.0):
        ...     return x**2 + steep * y**2
        >>> float(bowl(1.0, 1.0)), float(bowl.given(steep=3).gradient(0.0, 1.0)[1])
        (11.0, 6.0)
    """
    if function is None:
        return lambda decorated: _traced(decorated, start, ranges or {}, minima)
    return _traced(function, start, ranges or {}, minima)


def read_surface(
    text: str, *, start: Sequence[float] | None = None, ranges: Mapping[str, tuple[float, float]] | None = None
) -> Surface:
    """Read a surface from text: a formula in the words that rules are written in. The text is never run.

    Args:
        text: Such as `"x**2/10 + 5*y**2"`, at most 200 characters; of `x` alone where there is no `y` in it.
        start: Where a walk begins; the default is a place at the side of the ranges.
        ranges: The lowest and highest value of each weight that are worth looking at; the default is from -5 to 5.

    Raises:
        GrammarError: The text is no formula; the message points at the place.
        ValueError: A range is empty, the start has the wrong number of weights, or the loss is finite nowhere.

    Example:
        >>> from downslope import read_surface
        >>> far = read_surface("(x - 100)**2 / 50", ranges={"x": (0, 200)})
        >>> far, far.start
        (<surface (x - 100)**2 / 50(x)>, (20.0,))
    """
    formula = parse(text)
    return _made(text.strip(), formula, _used(formula), None, start, ranges)


def _used(e: Expression) -> tuple[str, ...]:
    """The weights that a formula is of: both if it is of the second."""
    names = {part.value for part in in_order([e]) if part.op == "input"}
    return VARIABLES if "y" in names else VARIABLES[:1]


def _traced(
    function: Callable[..., Any],
    start: Sequence[float] | None,
    ranges: Mapping[str, tuple[float, float]],
    minima: Sequence[Sequence[float]],
) -> Surface:
    if not inspect.isfunction(function):
        raise FormulaError(f"surface({function!r}): a surface is a Python function of x, or of x and y")
    name = "surface" if function.__name__ == "<lambda>" else function.__name__
    given = inspect.signature(function).parameters.values()
    variables = tuple(p.name for p in given if p.kind is not p.KEYWORD_ONLY)
    if variables not in (VARIABLES, VARIABLES[:1]):
        raise FormulaError(f"{name}({', '.join(variables)}): a surface is a function of x, or of x and y")
    parameters: dict[str, float] = {}
    for parameter in given:
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty or isinstance(parameter.default, bool):
                raise FormulaError(f"{name}: the parameter {parameter.name} needs a number as its default")
            parameters[parameter.name] = check_number(parameter.name, parameter.default, usual_range(parameter.name))
    try:
        e = expression(function(*map(array, variables), **{key: number(key) for key in parameters}))
    except FormulaError as error:
        raise FormulaError(f"{name}: {error}") from None
    if e.is_condition:
        raise FormulaError(f"{name} returns the truth value {e!r}; use where(condition, a, b)")
    made = _made(name, e, variables, parameters, start, ranges, minima)
    doc = inspect.getdoc(function) or ""
    return replace(
        made,
        teaches=" ".join(doc.partition("\n\n")[0].split()),
        source=" ".join(doc.partition("Source:")[2].partition("\n\n")[0].split()),
    )


def _made(
    name: str,
    formula: Expression,
    variables: tuple[str, ...],
    parameters: Mapping[str, float] | None = None,
    start: Sequence[float] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    minima: Sequence[Sequence[float]] = (),
) -> Surface:
    """The surface, once its numbers have been checked."""
    wrong = set(ranges or {}) - set(variables)
    if wrong:
        raise ValueError(f"{name}: ranges names {sorted(wrong)}; its weights are {', '.join(variables)}")
    ends = {key: _ends(name, key, (ranges or {}).get(key, UNSAID)) for key in variables}
    points = {"start": [start] if start is not None else [], "minima": minima}
    for argument, given in points.items():
        for point in given:
            if len(point) != len(variables) or not all(map(math.isfinite, point)):
                raise ValueError(f"{name}: {argument}={point!r}; expected a number for each of {', '.join(variables)}")
    made = Surface(name, formula, variables, dict(parameters or {}), ends, (), tuple(map(_floats, minima)))
    places = [_floats(start)] if start is not None else _places(list(ends.values()))
    found = next((place for place in places if all(np.isfinite(each) for each in made.values(*place).values())), None)
    if found is None:
        where = f"at its start {places[0]}" if start is not None else f"anywhere from {min(places)} to {max(places)}"
        raise ValueError(f"{name}: the loss and its gradient are not finite {where}; choose another start or formula")
    return replace(made, start=found)


def _ends(name: str, key: str, ends: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, ends)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name}: ranges[{key!r}]={ends!r}; expected the lowest and the highest value, both finite")
    return low, high


def _floats(point: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, point))


def _places(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, ...]]:
    """Where a walk may begin: first at the side, then anywhere on a grid."""
    parts = [[low + share * (high - low) for share in np.linspace(0.05, 0.95, 19)] for low, high in ranges]
    side = tuple(part[16 if index else 1] for index, part in enumerate(parts))
    return [_floats(side), *map(_floats, itertools.product(*parts))]
