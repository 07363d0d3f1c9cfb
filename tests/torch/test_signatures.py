"""The classes take what those of `torch.optim` take, in the same order with the same defaults, and then the extras."""

import inspect

import pytest
import torch

import downslope
import downslope.torch
from downslope.torch.extras import Extras

KEYWORD = inspect.Parameter.KEYWORD_ONLY

CLASSES = [name for name in downslope.torch.__all__ if hasattr(torch.optim, name) and name != "Optimizer"]


def arguments(cls):
    return [(p.name, p.default, p.kind) for p in inspect.signature(cls).parameters.values()]


def test_all_of_them_are_looked_at():
    assert len(CLASSES) == 9


@pytest.mark.parametrize("name", CLASSES)
def test_the_signature_is_that_of_torch(name):
    theirs = arguments(getattr(torch.optim, name))
    ours = arguments(getattr(downslope.torch, name))
    assert ours[: len(theirs)] == theirs
    assert [(name, kind) for name, _, kind in ours[len(theirs) :]] == [
        (name, KEYWORD) for name in Extras.__annotations__
    ]


def test_the_signature_of_the_one_for_any_rule_has_every_option():
    names = list(inspect.signature(downslope.torch.Optimizer).parameters)
    assert names[:2] == ["params", "rule"]
    assert {*downslope.Options.__annotations__, *Extras.__annotations__, "lookahead", "capturable"} == set(names[2:-1])
    assert names[-1] == "hyperparameters"


def test_arguments_may_be_given_by_place():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    given = (0.1, 0.9, 1e-8, 0.01, 0.5, True, False, None, True)
    assert downslope.torch.RMSprop(parameters, *given).defaults == torch.optim.RMSprop(parameters, *given).defaults
    assert downslope.torch.Adagrad(parameters, 0.1, 0, 0, 0, 1e-10, True).defaults["foreach"] is True
    for too_much in ([0.1, 0.9, 0, 0, False, True], [0.1, 0.9, 0, 0, False, None, None]):
        with pytest.raises(TypeError, match="SGD: too many positional arguments"):
            downslope.torch.SGD(parameters, *too_much)
    with pytest.raises(TypeError, match="SGD: multiple values for argument 'lr'"):
        downslope.torch.SGD(parameters, 0.1, lr=0.1)


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
    with pytest.raises(TypeError, match=f"^{name} has no argument 'learning_rate'; it has params, lr, "):
        getattr(downslope.torch, name)(parameters, learning_rate=0.1)
    with pytest.raises(TypeError, match=f"^{name} has no argument 'cautios'; .*; did you mean cautious"):
        getattr(downslope.torch, name)(parameters, cautios=True)
    values = {"cautious": True, "max_norm": 1.0, "averaging": 0.9, "nonfinite": "skip", "threads": 1, "seed": 1}
    values |= {"state_dtype": torch.bfloat16, "rounding": "nearest"}
    for extra in Extras.__annotations__:
        if extra != "seed":  # it goes with stochastic rounding
            getattr(downslope.torch, name)(parameters, **{extra: values[extra]})
