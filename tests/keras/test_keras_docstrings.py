"""The formula in the docstring of each class is what the class computes."""

import inspect
import itertools

import keras
import numpy as np
import pytest

import downslope.keras
from docstring_formula import GRADIENTS, NUMBERS, START, assert_same_path, formula_of
from downslope.keras.settings import BASE, TAKEN

CLASSES = [name for name in downslope.keras.__all__ if hasattr(keras.optimizers, name) and name != "Optimizer"]


def cases():
    for name in CLASSES:
        cls = getattr(downslope.keras, name)
        own = {n: p.default for n, p in inspect.signature(cls).parameters.items()}
        flags = [n for n, default in own.items() if isinstance(default, bool) and n not in (*BASE, *TAKEN)]
        for values in itertools.product([False, True], repeat=len(flags)):
            chosen = dict(zip(flags, values, strict=True))
            for momentum in [0.0, NUMBERS["momentum"]] if "momentum" in own else [None]:
                numbers = {n: NUMBERS[n] for n in own if n in NUMBERS and n not in ("momentum", "weight_decay")}
                numbers |= {} if momentum is None else {"momentum": momentum}
                numbers |= {"weight_decay": NUMBERS["weight_decay"]} if name == "AdamW" else {}
                yield pytest.param(cls, numbers | chosen, id=f"{name}-{momentum}-{chosen}")


def test_every_class_says_its_formula():
    assert len(CLASSES) == 9
    assert all(formula_of(getattr(downslope.keras, name)) for name in CLASSES)


@pytest.mark.parametrize(("cls", "settings"), list(cases()))
def test_a_class_computes_the_formula_in_its_docstring(cls, settings):
    x = keras.Variable(START.astype(np.float32))
    optimizer = cls(**settings)

    def found():
        for gradient in GRADIENTS:
            optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))], [x])
            yield keras.ops.convert_to_numpy(x)

    assert_same_path(cls, settings, found(), rtol=1e-5)
