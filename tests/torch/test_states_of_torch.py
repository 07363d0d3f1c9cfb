"""What `torch.optim` saved under other names than the rule's own."""

import pytest
import torch

import downslope
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


def trained(rule):
    """A parameter and its optimizer, of `torch.optim` or by a rule, after three steps."""
    p = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2))
    optimizer = rule([p]) if isinstance(rule, type) else downslope.torch.Optimizer([p], rule)
    for k in range(3):
        p.grad = torch.cos(p.detach() + k)
        optimizer.step()
    return p, optimizer


@pytest.mark.parametrize(
    ("theirs", "own", "message"),
    [
        (
            downslope.adamw,
            downslope.soap,
            "has the states m, v of a parameter, soap has m, v, left, .*, age: an",
        ),
        (downslope.adamw, downslope.prodigy, "has the states m, v of a parameter, prodigy has m, v, s, x0"),
        (downslope.adamw, downslope.rmsprop, "has the states m, v of a parameter, rmsprop has cache: another rule"),
        (
            downslope.adamw,
            downslope.sgd,
            "has the states m, v of a parameter, sgd has none: another rule has left",
        ),
        (downslope.soap, downslope.adamw, "left, right.* of a parameter, adamw has m, v: another rule has left them"),
        (torch.optim.Adam, downslope.adamw, "exp_avg, exp_avg_sq of .*for downslope.torch.Adam and its like"),
        (torch.optim.Adam, rules.nadam, "exp_avg, exp_avg_sq of a parameter, nadam has .*mu_product"),
        (
            torch.optim.Adafactor,
            downslope.adamw,
            r"eps=\(None, 0.001\), of .* eps1 and eps2; adamw has one eps",
        ),
        (torch.optim.Adafactor, downslope.torch.Adam, r"eps=\(None, 0.001\), of .*; adam has one eps"),
        (torch.optim.AdamW, downslope.adafactor, "group 0 .* has eps=1e-08; adafactor has eps1 and eps2 in its place"),
    ],
)
def test_states_that_another_rule_has_left_are_refused(theirs, own, message):
    """They were taken over: Prodigy stood still, SOAP only shrank the weights, SGD kept them for nothing."""
    saved = trained(theirs)[1].state_dict()
    p, optimizer = trained(own)
    before, states, group = p.detach().clone(), dict(optimizer.state[p]), dict(optimizer.param_groups[0])
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    assert torch.equal(before, p)
    assert group == dict(optimizer.param_groups[0])
    assert states.keys() == optimizer.state[p].keys()
    assert all(value is optimizer.state[p][name] for name, value in states.items())


def test_a_rule_with_the_same_states_goes_on_from_them_and_one_without_begins():
    q, before = trained(downslope.momentum)
    p, optimizer = trained(downslope.nesterov)
    optimizer.load_state_dict(before.state_dict())
    assert torch.equal(optimizer.state[p]["v"], before.state[q]["v"])
    p, optimizer = trained(downslope.adam)
    optimizer.load_state_dict(trained(downslope.sgd)[1].state_dict())
    assert not optimizer.state[p]["m"].any()
    assert optimizer.state[p]["step"] == 0


@pytest.mark.parametrize("kind", [downslope.torch.SGD, downslope.torch.RMSprop])
def test_a_class_takes_what_any_of_its_rules_has_left(kind):
    """A momentum may be given later, or taken away for a while."""
    x = torch.ones(2, requires_grad=True)
    for saved, kept in ((0.0, 0.9), (0.9, 0.0)):
        before, after = (kind([x], lr=0.1, momentum=momentum) for momentum in (saved, kept))
        x.grad = torch.ones(2)
        before.step()
        found = before.state_dict()
        found["param_groups"][0]["momentum"] = kept
        after.load_state_dict(found)
        after.step()
        assert after.state[x]["step"] >= 1
