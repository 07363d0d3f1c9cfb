"""Reading what somebody trains with now: every setting as it is, or a refusal that says what to do."""

import functools

import optax
import pytest
import torch

import downslope
import downslope.torch
from downslope import Recipe, dialects
from downslope.recipes.present import recipe_of

ADAMW = {"lr": 3e-4, "weight_decay": 0.1, "beta1": 0.8, "decoupled_weight_decay": True}


def weights():
    return [torch.nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("optimizer", "recipe"),
    [
        (torch.optim.SGD(weights(), lr=0.1), Recipe(dialects.torch.sgd, lr=0.1)),
        (
            torch.optim.SGD(weights(), lr=0.1, momentum=0.9, nesterov=True),
            Recipe(dialects.torch.sgd_momentum, lr=0.1, momentum=0.9, nesterov=True),
        ),
        (
            torch.optim.AdamW(weights(), lr=torch.tensor(0.25), betas=(0.8, 0.999), weight_decay=0.1, capturable=True),
            Recipe(dialects.torch.adam, **ADAMW | {"lr": 0.25}),
        ),
        (
            functools.partial(torch.optim.AdamW, lr=3e-4, betas=(0.8, 0.999), weight_decay=0.1),
            Recipe(dialects.torch.adam, **ADAMW),
        ),
        (torch.optim.RMSprop, Recipe(dialects.torch.rmsprop)),
        (torch.optim.Adagrad(weights()), Recipe(dialects.torch.adagrad)),
        (
            torch.optim.Adagrad(weights(), initial_accumulator_value=0.5),
            Recipe(dialects.torch.adagrad, initial_accumulator_value=0.5),
        ),
        (torch.optim.NAdam(weights(), lr=0.1), Recipe(dialects.torch.nadam, lr=0.1)),
        (functools.partial(optax.adam, 1e-3, b2=0.99), Recipe(dialects.optax.adam, lr=1e-3, beta2=0.99)),
        (downslope.adam, Recipe(downslope.adam)),
        (Recipe(downslope.sgd, lr=0.5), Recipe(downslope.sgd, lr=0.5)),
    ],
)
def test_every_setting_is_read(optimizer, recipe):
    assert recipe_of(optimizer) == recipe


def test_the_weights_are_left_alone():
    (weight,) = weights()
    optimizer = torch.optim.Adam([weight])
    before = optimizer.state_dict()
    recipe_of(optimizer)
    assert optimizer.state_dict() == before
    assert torch.equal(weight, torch.ones(2))


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (optax.adam(1e-3), r"functools.partial\(optax.adam, learning_rate=1e-3\)"),
        (functools.partial(optax.sgd, lambda step: 0.1), "give the schedule's value"),
        (optax.adam, "no default for lr"),
        (
            torch.optim.LBFGS(weights()),
            "downslope has no rule for LBFGS of PyTorch; write its formula as a rule, with @downslope.rule",
        ),
        (
            torch.optim.SGD([{"params": weights()}, {"params": weights(), "lr": 0.2}], lr=0.1),
            r"differ in lr \(0.1 and 0.2\)",
        ),
        (downslope.torch.Adam(weights(), max_norm=1.0), "give a downslope.Recipe"),
        ("adam", "'adam' is no optimizer that downslope can read"),
        (dict, "no optimizer that downslope can read"),
    ],
)
def test_what_cannot_be_read_is_refused(optimizer, said):
    with pytest.raises((TypeError, ValueError), match=said):
        recipe_of(optimizer)
