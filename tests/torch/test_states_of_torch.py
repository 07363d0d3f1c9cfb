"""What `torch.optim` saved under other names than the rule's own."""

import pytest
import torch

import downslope.torch
from downslope.dialects import torch as rules


@pytest.mark.parametrize(
    ("kind", "rule", "settings"),
    [
        (torch.optim.Adafactor, rules.adafactor, {"eps": (1e-3, 0.1), "lr": 0.1}),
        (torch.optim.Adafactor, rules.adafactor, {"lr": 0.1}),
        (torch.optim.Adam, rules.adam, {"betas": (0.5, 0.6), "lr": 0.1}),
    ],
)
def test_a_training_goes_on_with_vectors_and_pairs(kind, rule, settings):
    generator = torch.Generator().manual_seed(0)
    theirs = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3,), (4, 3), ())]
    before = kind(theirs, **settings)

    def step(optimizer, params):
        for p, g in zip(params, gradients, strict=True):
            p.grad = 0.1 * g
        optimizer.step()

    for k in range(6):
        gradients = [torch.randn(p.shape, generator=generator) for p in theirs]
        step(before, theirs)
        if k == 2:
            ours = [torch.nn.Parameter(p.detach().clone()) for p in theirs]
            after = downslope.torch.Optimizer(ours, rule)
            after.load_state_dict(before.state_dict())
        if k > 2:
            step(after, ours)
            for p, q in zip(ours, theirs, strict=True):
                torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    assert not any("variance" in state for state in after.state.values())
