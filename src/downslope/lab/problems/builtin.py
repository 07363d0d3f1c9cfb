"""The problems that come with the package."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downslope.lab.problems.columns import Columns, DataError, Kind
from downslope.lab.problems.problem import Problem, assemble
from downslope.lab.problems.sources import SUFFIXES


def load_problem(name: str) -> Problem:
    """Load one of the problems that come with the package.

    Args:
        name: A key of `PROBLEMS`.

    Returns:
        The problem; every call gives the same arrays, bit for bit.

    Raises:
        DataError: There is no problem of that name.

    Example:
        >>> problem = load_problem("parabola")
        >>> problem.train.x.shape, problem.hidden, problem.task
        ((600, 1), (20,), 'regression')
    """
    if name not in PROBLEMS:
        raise DataError(
            f"problem: there is none named {name!r}; the names are {', '.join(PROBLEMS)}. "
            f"A table of your own is a path that ends in one of {', '.join(SUFFIXES)}, with its target=COLUMN; in "
            "Python load_table makes a problem of it."
        )
    return PROBLEMS[name]()


def _columns(values: NDArray[Any], names: Iterable[str], kind: Kind) -> Columns:
    return Columns(np.asarray(values, dtype=np.float64), tuple(map(str, names)), (kind,) * values.shape[1])


def _digits() -> Problem:
    from sklearn.datasets import load_digits

    data = load_digits()
    # Pixels divided by their maximum, not standardised: many at the border are zero in almost every image, and
    # dividing by so small a deviation would turn one faint mark there into the largest input of all.
    return assemble(
        name="digits",
        title="Handwritten digits, 8 × 8 pixels",
        task="classification",
        x=_columns(data.data / 16, data.feature_names, "ready"),
        y=data.target,
        classes=tuple(str(name) for name in data.target_names),
        hidden=(64,),
        batch_size=64,
        epochs=30,
    )


def _breast_cancer() -> Problem:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return assemble(
        name="breast-cancer",
        title="Breast cancer, benign or malignant",
        task="classification",
        x=_columns(data.data, data.feature_names, "number"),
        y=data.target,
        classes=tuple(str(name) for name in data.target_names),
        hidden=(32,),
        batch_size=32,
        epochs=30,
    )


def _diabetes() -> Problem:
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    return assemble(
        name="diabetes",
        title="Diabetes, progression after one year",
        task="regression",
        x=_columns(data.data, data.feature_names, "number"),
        y=_columns(data.target[:, None], ["progression"], "number"),
        classes=None,
        hidden=(32,),
        batch_size=32,
        epochs=30,
    )


def _parabola() -> Problem:
    x = np.linspace(-1.0, 1.0, 1000)
    noise = np.random.default_rng(0).standard_normal(1000)
    return assemble(
        name="parabola",
        title="A noisy parabola, y = x² + 0.1 · noise",
        task="regression",
        x=_columns(x[:, None], ["x"], "ready"),
        y=_columns((x**2 + 0.1 * noise)[:, None], ["y"], "ready"),
        classes=None,
        hidden=(20,),
        batch_size=32,
        epochs=12,
    )


def _made(module: str, name: str) -> Callable[[], Problem]:
    """A problem with a model of its own, whose module is imported when it is wanted: it imports JAX."""

    def load() -> Problem:
        made: Problem = getattr(importlib.import_module(f"downslope.lab.problems.{module}"), name)()
        return made

    return load


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "digits": _digits,
    "breast-cancer": _breast_cancer,
    "diabetes": _diabetes,
    "parabola": _parabola,
    "noisy-quadratic": _made("functions", "noisy_quadratic"),
    "deep-quadratic": _made("functions", "deep_quadratic"),
    "rosenbrock": _made("functions", "rosenbrock"),
    "heavy-tail": _made("linear", "heavy_tail"),
    "separable": _made("linear", "separable"),
    "mnist-5k": _made("pictures", "mnist_5k"),
    "unicode-names": _made("letters", "unicode_names"),
}
