"""The classes take what those of `torch.optim` take, in the same order with the same defaults, and the extras."""

import inspect

import pytest
import torch

import downslope.torch
from downslope.torch.extras import Extras

CLASSES = [name for name in downslope.torch.__all__ if hasattr(torch.optim, name) and name != "Optimizer"]


def arguments(cls):
    parameters = inspect.signature(cls).parameters.values()
    return [(p.name, p.default, p.kind) for p in parameters if p.kind is not p.VAR_KEYWORD]


def test_all_of_them_are_looked_at():
    assert len(CLASSES) == 9


@pytest.mark.parametrize("name", CLASSES)
def test_the_signature_is_that_of_torch(name):
    assert arguments(getattr(downslope.torch, name)) == arguments(getattr(torch.optim, name))


@pytest.mark.parametrize("name", CLASSES)
def test_the_groups_hold_what_those_of_torch_hold(name):
    ours, theirs = (
        getattr(module, name)([torch.nn.Parameter(torch.ones(2))]) for module in (downslope.torch, torch.optim)
    )
    assert ours.defaults == theirs.defaults
    assert set(ours.param_groups[0]) == set(theirs.param_groups[0])


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_else_is_taken_than_the_extras(name):
    parameters = [torch.nn.Parameter(torch.ones(2))]
    with pytest.raises(TypeError, match="learning_rate"):
        getattr(downslope.torch, name)(parameters, learning_rate=0.1)
    values = {"cautious": True, "max_norm": 1.0, "averaging": 0.9, "nonfinite": "skip", "threads": 1, "seed": 1}
    values |= {"state_dtype": torch.bfloat16, "rounding": "nearest"}
    for extra in Extras.__annotations__:
        if extra != "seed":  # it goes with stochastic rounding
            getattr(downslope.torch, name)(parameters, **{extra: values[extra]})
