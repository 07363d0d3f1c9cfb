"""Rules that sum up all tensors of a group, in PyTorch."""

import numpy as np
import pytest
import torch

import downslope.torch
from training.sums_over_all import STEPS, clipped, gradients, spread, weights


def _parameters(dtype=torch.float64):
    return {name: torch.nn.Parameter(torch.tensor(array, dtype=dtype)) for name, array in weights().items()}


def _give(parameters, step):
    for name, gradient in gradients(step).items():
        parameters[name].grad = torch.tensor(gradient, dtype=parameters[name].dtype)


def _trained(rule, parameters, groups=None, **settings):
    optimizer = downslope.torch.Optimizer(groups or parameters.values(), rule, **settings)
    for step in range(STEPS):
        _give(parameters, step)
        optimizer.step()
    return optimizer


def _assert_close(parameters, expected, rtol):
    for name, array in expected.items():
        np.testing.assert_allclose(parameters[name].detach().double().numpy(), array, rtol=rtol, atol=rtol)


def _numpy(rule, **settings):
    arrays = {name: array.astype(np.float64) for name, array in weights().items()}
    optimizer = downslope.Optimizer(arrays, rule, **settings)
    for step in range(STEPS):
        optimizer.step({name: g.astype(np.float64) for name, g in gradients(step).items()})
    return arrays


@pytest.mark.parametrize("rule", [clipped, spread])
def test_it_takes_the_steps_that_numpy_takes(rule):
    expected = _numpy(rule)
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        parameters = _parameters(dtype)
        _trained(rule, parameters)
        _assert_close(parameters, expected, rtol)


def test_clipping_as_a_formula_is_the_option_of_one_group():
    formula, option = _parameters(), _parameters()
    _trained(clipped, formula)
    _trained(downslope.sgd, option, lr=0.05, max_norm=1.5)
    _assert_close(formula, {name: p.detach().numpy() for name, p in option.items()}, 1e-13)


def test_each_group_has_its_own_sums_whatever_its_tensors_are_kept_as():
    names = ["wide", "bias"], ["tall", "kernel", "gain"]
    parameters, alone = _parameters(), _parameters()
    parameters["wide"] = torch.nn.Parameter(parameters["wide"].detach().float())
    alone["wide"] = torch.nn.Parameter(alone["wide"].detach().float())
    groups = [
        {"params": [parameters[name] for name in half], "lr": lr} for half, lr in zip(names, (0.1, 0.2), strict=True)
    ]
    optimizer = _trained(spread, parameters, groups)
    for half, lr in zip(names, (0.1, 0.2), strict=True):
        _trained(spread, alone, [{"params": [alone[name] for name in half], "lr": lr}])
    for half in names:
        assert len({float(optimizer.state[parameters[name]]["d"]) for name in half}) == 1
        for name in half:
            assert torch.equal(parameters[name], alone[name])
    assert len({float(state["d"]) for state in optimizer.state.values()}) == 2


def test_a_tensor_without_a_gradient_is_left_out_and_comes_back_with_its_groups_clock():
    parameters = _parameters()
    optimizer = downslope.torch.Optimizer([parameters["wide"], parameters["bias"], parameters["tall"]], spread)
    _give(parameters, 0)
    parameters["tall"].grad = None
    optimizer.step()
    _give(parameters, 1)
    parameters["bias"].grad = None
    before = parameters["bias"].detach().clone()
    optimizer.step()
    assert torch.equal(parameters["bias"], before)
    _give(parameters, 2)
    optimizer.step()
    states = list(optimizer.state.values())
    assert [float(state["step"]) for state in states] == [3, 3, 3]
    assert len({float(state["d"]) for state in states}) == 1


def test_it_goes_on_from_its_state_dict():
    first, second = _parameters(), _parameters()
    optimizer = _trained(spread, first)
    other = downslope.torch.Optimizer(second.values(), spread)
    other.load_state_dict(optimizer.state_dict())
    with torch.no_grad():
        for name, parameter in first.items():
            second[name].copy_(parameter)
    for parameters, one in ((first, optimizer), (second, other)):
        _give(parameters, 50)
        one.step()
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name])


def test_what_updates_tensors_one_by_one_is_refused():
    optimizer = downslope.torch.Optimizer(_parameters().values(), spread)
    with pytest.raises(ValueError, match="spread sums up all tensors of a group, and step_in_backward"):
        optimizer.step_in_backward()
    with pytest.raises(ValueError, match="capturable"):
        downslope.torch.Optimizer(_parameters().values(), spread, capturable=True).step()
    parts = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2, device="meta"))]
    for part in parts:
        part.grad = torch.ones_like(part)
    with pytest.raises(ValueError, match="group 0 are on cpu and meta; spread sums up"):
        downslope.torch.Optimizer(parts, spread).step()


def test_pieces_are_tensors_of_their_group():
    x, g = weights()["tall"], gradients(0)["tall"]
    whole = torch.nn.Parameter(torch.tensor(x))
    whole.grad = torch.tensor(g)
    downslope.torch.Optimizer([{"params": [whole], "pieces": 2}], spread).step()
    apart = [torch.nn.Parameter(torch.tensor(each)) for each in np.split(x, 2)]
    for part, each in zip(apart, np.split(g, 2), strict=True):
        part.grad = torch.tensor(each)
    downslope.torch.Optimizer(apart, spread).step()
    np.testing.assert_allclose(whole.detach(), torch.cat([part.detach() for part in apart]), rtol=1e-6)
