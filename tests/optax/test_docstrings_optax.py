"""The formula in the docstring of each transformation of Optax's is what it computes."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

import downslope.optax
from docstring_formula import GRADIENTS, NUMBERS, START, assert_same_path, formula_of

NAMES = [name for name in downslope.optax.__all__ if hasattr(optax, name) and name not in ("nadam", "nadamw")]


def cases():
    for name in NAMES:
        made = getattr(downslope.optax, name)
        own = inspect.signature(made).parameters
        flags = [n for n, p in own.items() if isinstance(p.default, bool)]
        for values in itertools.product([False, True], repeat=len(flags)):
            chosen = dict(zip(flags, values, strict=True))
            for momentum in [None, NUMBERS["momentum"]] if "momentum" in own else [None]:
                if not (momentum is None and "momentum" in own and chosen.get("nesterov")):
                    numbers = {n: NUMBERS[n] for n in own if n in NUMBERS} | {"momentum": momentum}
                    numbers = {n: value for n, value in numbers.items() if n in own}
                    yield pytest.param(made, numbers | chosen, id=f"{name}-{momentum}-{chosen}")


def test_every_transformation_says_its_formula():
    assert len(NAMES) == 12
    assert all(formula_of(getattr(downslope.optax, name)) for name in NAMES)


@pytest.mark.parametrize(("made", "settings"), list(cases()))
def test_a_transformation_computes_the_formula_in_its_docstring(made, settings):
    with jax.enable_x64():
        transformation = made(**settings)
        x = jnp.asarray(START)
        state = transformation.init(x)
        found = []
        for gradient in GRADIENTS:
            updates, state = transformation.update(jnp.asarray(gradient), state, x)
            x = optax.apply_updates(x, updates)
            found.append(x)
        assert_same_path(made, {**NUMBERS, **settings, "momentum": settings.get("momentum") or 0.0}, found)
