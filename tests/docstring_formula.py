"""The formula that stands in a docstring, run as the Python that it is, in double precision."""

import inspect
import textwrap

import numpy as np

WORDS = {"sqrt": np.sqrt, "maximum": np.maximum, "sign": np.sign, "abs": np.abs}
STEPS = 12

START = np.array([1.0, -0.5, 0.25, 2.0])
GRADIENTS = np.random.default_rng(7).standard_normal((STEPS, 4))

NUMBERS = {
    "learning_rate": 0.1,
    "momentum": 0.6,
    "dampening": 0.25,
    "lr_decay": 0.1,
    "weight_decay": 0.2,
    "initial_accumulator_value": 0.5,
    "initial_scale": 0.5,
    "momentum_decay": 0.2,
    "alpha": 0.75,
    "rho": 0.65,
    "decay": 0.65,
    "threshold": 4.5,
    "eps_root": 0.05,
}
NUMBERS |= dict.fromkeys(("lr",), 0.1) | dict.fromkeys(("beta1", "beta_1", "b1"), 0.7)
NUMBERS |= dict.fromkeys(("beta2", "beta_2", "b2"), 0.8) | dict.fromkeys(("eps", "epsilon"), 0.3)
"""Values that leave nothing in a formula too small to be seen."""


def formula_of(documented):
    """The block after the first sentence of a docstring; None if there is none."""
    _, _, rest = inspect.getdoc(documented).partition("\n\n")
    block, _, _ = rest.partition("\n\n")
    return textwrap.dedent(block) if block.startswith("    ") else None


class _Names(dict):
    """What the names in a formula stand for: a state that nobody has given a value is 0."""

    def __missing__(self, name):
        return 0.0


def path(documented, settings):
    """The weights after each step of the formula in a docstring."""
    formula = compile(formula_of(documented), documented.__name__, "exec")
    names = _Names({**WORDS, **settings, "x": START})
    for t, dx in enumerate(GRADIENTS, start=1):
        names |= {"t": t, "dx": dx}
        exec(formula, {"__builtins__": {}}, names)
        yield names["x"]


def assert_same_path(documented, settings, found, rtol=1e-12):
    expected = np.array(list(path(documented, settings)))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(np.array(list(found)), expected, rtol=rtol, atol=rtol)
