"""Schedules that cycle the momentum, with optimizers of any rule: as with the same method of `torch.optim`."""

import copy
import pickle

import pytest
import torch
from small_network import close, network, step, weights
from torch import nn
from torch.optim import lr_scheduler

import downslope
from downslope import rule
from downslope.torch import Optimizer

pytestmark = pytest.mark.usefixtures("double_by_default")


@rule
def heavy_ball(x, dx, v=0, *, lr=1e-3, mu=0.9):
    """PyTorch's momentum, with `mu` for its name."""
    v = mu * v + dx
    return x - lr * v, v


PAIRS = {
    "mu": (lambda p: Optimizer(p, heavy_ball, lr=0.02, mu=0.8), "SGD", {"momentum": 0.8}),
    "betas": (
        lambda p: Optimizer(p, downslope.adam, lr=0.02, beta2=0.99),
        "Adam",
        {"betas": (0.9, 0.99)},
    ),
}


def one_cycle(optimizer):
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=30, base_momentum=0.5, max_momentum=0.9)


def cyclic(optimizer):
    return lr_scheduler.CyclicLR(optimizer, 0.01, 0.05, step_size_up=5, base_momentum=0.5, max_momentum=0.9)


@pytest.mark.parametrize("schedule", [one_cycle, cyclic])
@pytest.mark.parametrize("case", PAIRS)
def test_the_rule_follows_the_momentum_of_a_schedule(case, schedule):
    mine, name, settings = PAIRS[case]
    found = []
    for make in (mine, lambda p: getattr(torch.optim, name)(p, lr=0.02, **settings)):
        model = network()
        optimizer = make(model.parameters())
        scheduler = schedule(optimizer)
        for t in range(25):
            step(model, optimizer, t)
            scheduler.step()
        found.append(weights(model))
    assert close(*found)


@pytest.mark.parametrize("how", ["state_dict", "file", "pickle", "deepcopy"])
@pytest.mark.parametrize("case", PAIRS)
def test_it_does_so_after_saving_and_loading(case, how, tmp_path):
    mine, *_ = PAIRS[case]

    def go(model, optimizer, scheduler, steps):
        for t in steps:
            step(model, optimizer, t)
            scheduler.step()

    model = network()
    optimizer = mine(model.parameters())
    scheduler = one_cycle(optimizer)
    go(model, optimizer, scheduler, range(10))
    if how == "deepcopy":
        resumed, restored, again = copy.deepcopy((model, optimizer, scheduler))
    elif how == "pickle":
        resumed, restored, again = pickle.loads(pickle.dumps((model, optimizer, scheduler)))
    else:
        resumed = network()
        restored = mine(resumed.parameters())
        again = one_cycle(restored)
        if how == "file":
            optimizer.save(tmp_path / "half.safetensors", model)
            restored.load(tmp_path / "half.safetensors", resumed)
            restored.param_groups[0].update(
                optimizer.state_dict()["param_groups"][0] | {"params": list(resumed.parameters())}
            )
        else:
            resumed.load_state_dict(model.state_dict())
            restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        again.load_state_dict(scheduler.state_dict())
    own, others = ({key: v for key, v in o.param_groups[0].items() if key != "params"} for o in (optimizer, restored))
    assert own == others
    go(model, optimizer, scheduler, range(10, 25))
    go(resumed, restored, again, range(10, 25))
    assert torch.equal(weights(model), weights(resumed))


def test_either_name_sets_the_other():
    optimizer = Optimizer([nn.Parameter(torch.ones(2))], downslope.adan)
    group = optimizer.param_groups[0]
    assert group["betas"] == (group["beta1"], group["beta2"], group["beta3"])
    group["beta2"] = 0.5
    assert group["betas"][1] == 0.5
    group.update(betas=(0.1, 0.2, 0.3))
    assert (group["beta1"], group["beta2"], group["beta3"]) == (0.1, 0.2, 0.3)
    group |= {"beta3": 0.4}
    assert group["betas"] == (0.1, 0.2, 0.4)
    with pytest.raises(TypeError, match=r"betas=\(0.9, 0.9\): give 3 number"):
        group["betas"] = (0.9, 0.9)
    assert group["betas"] == (0.1, 0.2, 0.4)


def test_groups_may_give_either_name_but_no_contradiction():
    a, b, c = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = Optimizer([{"params": [a], "momentum": 0.5}, {"params": [b]}], downslope.momentum, mu=0.8)
    assert [group["mu"] for group in optimizer.param_groups] == [0.5, 0.8]
    with pytest.raises(ValueError, match=r"mu=0.5 and momentum=0.6.*give one of them"):
        optimizer.add_param_group({"params": [c], "mu": 0.5, "momentum": 0.6})
    optimizer.add_param_group({"params": [c], "mu": 0.4})
    assert optimizer.param_groups[2]["momentum"] == 0.4


def test_a_state_saved_without_the_schedules_names_loads():
    p = nn.Parameter(torch.ones(2))
    optimizer = Optimizer([p], downslope.momentum, mu=0.8)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["momentum"]
    saved["param_groups"][0]["mu"] = 0.3
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["momentum"] == 0.3


def test_a_point_ahead_follows_a_cycled_momentum():
    """The gradient is the same everywhere, so that position and velocity can be reckoned by hand."""
    p = nn.Parameter(torch.ones(1))
    optimizer = Optimizer([p], downslope.nesterov, lr=0.1, mu=0.9)
    scheduler = lr_scheduler.CyclicLR(optimizer, 0.1, 0.1, step_size_up=2, base_momentum=0.5, max_momentum=0.9)
    x, v = 1.0, 0.0
    for _ in range(8):
        v = optimizer.param_groups[0]["momentum"] * v - 0.1
        x += v
        p.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
    with optimizer.at_weights():
        assert p.item() == pytest.approx(x, abs=1e-13)


def test_a_rule_without_momentum_has_nothing_to_cycle():
    optimizer = Optimizer([nn.Parameter(torch.ones(2))], downslope.sgd)
    assert type(optimizer.param_groups[0]) is dict
    with pytest.raises(ValueError, match="cycle_momentum"):
        one_cycle(optimizer)
