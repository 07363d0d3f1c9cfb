"""The surfaces that come with downslope: each for something that can be seen on it.

Losses of one or two weights, in the language of rules. Two-dimensional ones first, then lines.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from downslope.language.operations import cos, exp, log, maximum, sin, tanh, where
from downslope.walks.surface import Surface, read_surface, surface

__all__ = [
    "valley",
    "rotated_valley",
    "ravine",
    "saddle",
    "monkey_saddle",
    "rosenbrock",
    "beale",
    "himmelblau",
    "rastrigin",
    "cliff",
    "logistic",
    "network",
    "bowl",
    "kink",
    "double_well",
    "bumps",
    "heavy_ball_cycle",
]


@surface(start=(-9.0, 1.5), ranges={"x": (-10.0, 10.0), "y": (-3.0, 3.0)}, minima=[(0.0, 0.0)])
def valley(x: Any, y: Any, *, kappa: float = 50.0) -> Any:
    """A long valley: what is safe across it is slow along it; the larger the condition number, the worse.

    Source: the quadratic of every analysis since Cauchy, "Méthode générale pour la résolution des systèmes d'équations
    simultanées", 1847; for momentum on it see Goh, "Why momentum really works", 2017.

    `kappa` is the ratio of the two curvatures.
    """
    return (x**2 + kappa * y**2) / 10


@surface(start=(-7.0, -5.0), ranges={"x": (-8.0, 8.0), "y": (-8.0, 8.0)}, minima=[(0.0, 0.0)])
def rotated_valley(x: Any, y: Any, *, kappa: float = 50.0, theta: float = math.pi / 4) -> Any:
    """The long valley, turned: a step size for every weight helps only where valleys run along the axes.

    Source: the valley, turned by the angle `theta`.
    """
    along = cos(theta) * x + sin(theta) * y
    across = cos(theta) * y - sin(theta) * x
    return (along**2 + kappa * across**2) / 10


@surface(start=(-9.0, 1.6), ranges={"x": (-10.0, 10.0), "y": (-3.0, 3.0)}, minima=[(0.0, 0.0)])
def ravine(x: Any, y: Any) -> Any:
    """Walls as steep at the floor as above it: no constant step is short enough, across it he staggers for ever.

    Source: a kink that no step size avoids is what subgradient methods begin with: Shor, "Minimization methods for
    non-differentiable functions", 1985.
    """
    return x**2 / 20 + 2 * abs(y)


@surface(start=(1.5, 0.01), ranges={"x": (-2.0, 2.0), "y": (-2.0, 2.0)}, minima=[(0.0, -1.0), (0.0, 1.0)])
def saddle(x: Any, y: Any) -> Any:
    """A saddle: who arrives along the ridge finds it level and lingers, and small slopes decide which way he leaves.

    Source: Nesterov, "Introductory lectures on convex optimization", 2004, example 1.2.2.
    """
    return x**2 / 2 - y**2 / 2 + y**4 / 4


@surface(
    start=(0.9, 0.02),
    ranges={"x": (-1.25, 1.25), "y": (-1.25, 1.25)},
    minima=[(-0.75, 0.0), (0.375, 3 * math.sqrt(3) / 8), (0.375, -3 * math.sqrt(3) / 8)],
)
def monkey_saddle(x: Any, y: Any) -> Any:
    """Three ways down and three up from a level place: there is no slope, and no curvature either, to go by.

    Source: the monkey saddle of Hilbert & Cohn-Vossen, "Anschauliche Geometrie", 1932, with a rim around it.
    """
    return x**3 - 3 * x * y**2 + (x**2 + y**2) ** 2


@surface(start=(-1.2, 1.0), ranges={"x": (-2.0, 2.0), "y": (-1.0, 3.0)}, minima=[(1.0, 1.0)])
def rosenbrock(x: Any, y: Any) -> Any:
    """A bent valley: its floor is found at once, and the way along it takes for ever.

    Source: Rosenbrock, "An automatic method for finding the greatest or least value of a function", 1960.
    """
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


@surface(start=(1.0, 1.0), ranges={"x": (-4.5, 4.5), "y": (-4.5, 4.5)}, minima=[(3.0, 0.5)])
def beale(x: Any, y: Any) -> Any:
    """Walls a million times as high as the floor is uneven: whoever comes near them needs short steps, or is thrown.

    Source: Beale, "On an iterative method for finding a local minimum of a function of more than one variable", 1958.
    """
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


@surface(
    start=(-0.5, -1.0),
    ranges={"x": (-5.0, 5.0), "y": (-5.0, 5.0)},
    minima=[
        (3.0, 2.0),
        (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.283185991286170),
        (3.584428340330492, -1.848126526964404),
    ],
)
def himmelblau(x: Any, y: Any) -> Any:
    """Four places equally low: which of them is reached is a matter of the rule and of its learning rate.

    Source: Himmelblau, "Applied nonlinear programming", 1972.
    """
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


@surface(start=(-3.6, 2.7), ranges={"x": (-5.12, 5.12), "y": (-5.12, 5.12)}, minima=[(0.0, 0.0)])
def rastrigin(x: Any, y: Any) -> Any:
    """A bowl full of dents: slopes tell little of where it is low, and inertia carries over some of them.

    Source: Rastrigin, "Systems of extremal control", 1974.
    """
    return 20 + x**2 - 10 * cos(2 * math.pi * x) + y**2 - 10 * cos(2 * math.pi * y)


@surface(start=(4.0, 2.0), ranges={"x": (-6.0, 6.0), "y": (-3.0, 3.0)}, minima=[(-1.0, 0.0)])
def cliff(x: Any, y: Any) -> Any:
    """A plateau that ends in a cliff: one huge slope throws him far off, unless steps are clipped or scaled.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013, section 2.3,
    on what gradients do at such walls.
    """
    return (x + 1) ** 2 / 100 + y**2 / 4 + 2 * (1 + tanh(8 * (x - 1)))


_LAUNCHES = {53: (1, 1), 57: (1, 1), 58: (1, 1), 63: (1, 1), 66: (1, 0), 67: (3, 0), 68: (1, 0), 69: (1, 0)} | {
    70: (4, 2), 72: (1, 0), 73: (1, 0), 75: (2, 1), 76: (2, 0), 78: (1, 0), 79: (1, 0), 81: (1, 0)
}  # fmt: skip
"""Launches of the space shuttle before 1986: at each temperature (degrees Fahrenheit) how many there were, and at how
many of them seals were damaged."""


@surface(
    start=(1.5, 2.0),
    ranges={"x": (-6.0, 2.0), "y": (-4.0, 3.0)},
    minima=[(-2.3216274421859646, -1.208490447599312)],
)
def logistic(x: Any, y: Any) -> Any:
    """Logistic regression on real data: convex, but the farther from the minimum, the less it is curved.

    Source: Dalal, Fowlkes & Hoadley, "Risk analysis of the space shuttle: pre-Challenger prediction of failure", 1989:
    damaged seals in 23 launches by temperature.

    `x` is the weight of the temperature, in tens of degrees above 70 °F, and `y` the bias; the loss is the mean of
    `log(1 + exp(z))` over launches without damage and `log(1 + exp(-z))` over those with, written so that it does not
    overflow.
    """

    def loss(temperature: int, launches: int, damaged: int) -> Any:
        z = (temperature - 70) / 10 * x + y
        return launches * (maximum(z, 0) + log(1 + exp(-abs(z)))) - damaged * z

    losses = [loss(temperature, *counts) for temperature, counts in _LAUNCHES.items()]
    return functools.reduce(operator.add, losses) / sum(launches for launches, _ in _LAUNCHES.values())


@surface(
    start=(-0.1, 1.5),
    ranges={"x": (-3.0, 3.0), "y": (-3.0, 3.0)},
    minima=[(0.8, 1.2), (-0.8, -1.2)],
)
def network(x: Any, y: Any) -> Any:
    """A network of two weights, `y * tanh(x * input)`: level at the origin, and the same with both signs turned.

    Source: the smallest of the networks whose saddles Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear
    dynamics of learning in deep linear neural networks", 2014, explain.
    """
    errors = [y * tanh(each * x) - 1.2 * math.tanh(0.8 * each) for each in (0.5, 2.0, 4.0)]
    return functools.reduce(operator.add, [error**2 for error in errors]) / len(errors)


@surface(start=(-3.0,), ranges={"x": (-4.0, 4.0)}, minima=[(0.0,)])
def bowl(x: Any) -> Any:
    """The simplest there is, with a curvature of 1: here every limit of a learning rate can be read off.

    Source: the quadratic of every analysis.
    """
    return x**2 / 2


@surface(start=(-3.3,), ranges={"x": (-4.0, 4.0)}, minima=[(0.0,)])
def kink(x: Any) -> Any:
    """A slope of 1 on either side: whatever the learning rate, steps of one length step over the minimum.

    Source: the simplest function that is convex and not smooth.
    """
    return abs(x)


@surface(start=(2.0,), ranges={"x": (-2.0, 2.2)}, minima=[(-1.0466805318046022,)])
def double_well(x: Any) -> Any:
    """Two hollows, the nearer one higher: inertia, or noise, may carry over the hill between them.

    Source: Duffing, "Erzwungene Schwingungen bei veränderlicher Eigenfrequenz", 1918, with a tilt.
    """
    return x**4 / 4 - x**2 / 2 + x / 10


@surface(start=(-7.0,), ranges={"x": (-8.0, 8.0)}, minima=[(0.0,)])
def bumps(x: Any) -> Any:
    """A bowl with ripples: small steps end in the first of them, and large ones feel the bowl.

    Source: one axis of Rastrigin's function, in other proportions.
    """
    return x**2 / 20 + 1 - cos(3 * x)


@surface(start=(3.3,), ranges={"x": (-3.0, 4.0)}, minima=[(0.0,)])
def heavy_ball_cycle(x: Any) -> Any:
    """Strongly convex and smooth, and yet momentum, tuned for quadratics of its curvatures, goes in a circle of three.

    Source: Lessard, Recht & Packard, "Analysis and design of optimization algorithms via integral quadratic
    constraints", 2016, section 4.6: curvatures of 25 and 1, `lr = 1/9`, `mu = 4/9`, starting from 3.07 to 3.46.
    """
    return where(x < 1, 25 / 2 * x**2, where(x < 2, x**2 / 2 + 24 * x - 12, 25 / 2 * x**2 - 24 * x + 36))


SURFACES = tuple(globals()[name] for name in __all__)
"""All of them, in the order in which they are best shown."""


def surface_of(what: Surface | str | Callable[..., Any]) -> Surface:
    """The surface that is meant: one, the name of a built-in one, a formula as text, or a function.

    Args:
        what: Such as `surfaces.beale`, `"beale"`, `"x**2/10 + 5*y**2"` or `lambda x, y: x**2 + y**2`.

    Raises:
        GrammarError: The text is neither a name nor a formula.
        FormulaError: The function is no formula.
        ValueError: The loss is finite nowhere.

    Example:
        >>> surface_of("x**2/10 + 5*y**2")
        <surface x**2/10 + 5*y**2(x, y)>
        >>> surface_of("beale").start
        (1.0, 1.0)
    """
    if isinstance(what, Surface):
        return what
    if isinstance(what, str):
        built_in = {each.name: each for each in SURFACES}
        return built_in.get(what.strip()) or read_surface(what)
    return surface(what)
