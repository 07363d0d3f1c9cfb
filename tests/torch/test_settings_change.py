"""Settings that change between steps, as numbers of every type: taken over at once, by the quick and the plain step."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
import downslope.torch

KINDS = {
    "float": float,
    "NumPy double": np.float64,
    "NumPy single": np.float32,
    "0-d array": np.array,
    "tensor": lambda value: torch.tensor(value, dtype=torch.float64),
    "integer": round,
    "NumPy integer": lambda value: np.int64(round(value)),
}
CLASSES = {
    "SGD": {"lr": (0.01, 2.0), "momentum": (0.0, 0.95), "weight_decay": (0.0, 0.3)},
    "Adam": {"lr": (0.001, 0.3), "eps": (1e-9, 0.3), "weight_decay": (0.0, 0.3), "beta1": (0.0, 0.9)},
    "NAdam": {"lr": (0.001, 0.3), "momentum_decay": (0.0, 0.1), "beta1": (0.1, 0.9)},
}


def _pair(name, **options):
    """An optimizer of downslope and PyTorch's, on equal parameters in two groups."""
    pair = []
    for module in (downslope.torch, torch.optim):
        params = [torch.nn.Parameter(torch.tensor(start, dtype=torch.float64)) for start in ([1.0, -2.0], [0.5])]
        pair.append(getattr(module, name)([{"params": [p]} for p in params], **options))
    return pair


def _step(optimizer, t):
    for k, group in enumerate(optimizer.param_groups):
        for p in group["params"]:
            p.grad = torch.tensor([np.sin(t + k + i) for i in range(len(p))], dtype=torch.float64)
    optimizer.step()


def _put(group, name, value):
    """Set one number of a group."""
    if name in ("beta1", "beta2"):
        betas = list(group["betas"])
        betas[int(name[-1]) - 1] = value
        group["betas"] = tuple(betas)
    else:
        group[name] = value


def _close(ours, theirs):
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        for p, q in zip(mine["params"], other["params"], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-7)  # PyTorch's NAdam keeps a product in float32


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_settings_of_every_type_are_taken_over_at_the_next_step(name, data):
    ours, theirs = _pair(name)
    for t in range(data.draw(st.integers(2, 7))):
        for _ in range(data.draw(st.integers(0, 2))):
            setting = data.draw(st.sampled_from(list(CLASSES[name])))
            low, high = CLASSES[name][setting]
            value = data.draw(st.floats(low, high))
            kind = data.draw(st.sampled_from(list(KINDS)))
            if "integer" in kind and not (setting in ("lr", "weight_decay") and low <= round(value) <= high):
                kind = "float"
            k, number = data.draw(st.integers(0, 1)), KINDS[kind](value)
            _put(ours.param_groups[k], setting, number)
            _put(theirs.param_groups[k], setting, float(number))  # torch.optim takes few kinds for most of its settings
        _step(ours, t)
        _step(theirs, t)
        _close(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plain", [False, True])
def test_a_rate_that_becomes_another_kind_of_number_is_used(kind, plain):
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = downslope.torch.SGD([p], lr=0.1)
    if plain:  # a hook is something that the quick step leaves to the plain one
        optimizer.register_step_post_hook(lambda *_: None)
    for step in range(5):
        p.grad = torch.ones(2)
        if step >= 1:
            optimizer.param_groups[0]["lr"] = KINDS[kind](1.0)
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((2,), -4.1))


@pytest.mark.parametrize("first", [0.0, np.float32(0)])
def test_a_setting_that_only_rounding_makes_equal_to_another_is_used(first):
    """PyTorch leaves the buffer alone while the momentum is 0."""
    ours, theirs = _pair("SGD", momentum=1e-97)
    for t, momentum in enumerate((1e-97, first, 0.5)):
        for group in (*ours.param_groups, *theirs.param_groups):
            group["momentum"] = momentum
        _step(ours, t)
        _step(theirs, t)
        _close(ours, theirs)


@pytest.mark.parametrize("make", [lambda: torch.tensor(0.1), lambda: np.array(0.1)], ids=["tensor", "0-d array"])
def test_a_rate_that_changes_in_place_is_used(make):
    p = torch.nn.Parameter(torch.zeros(2))
    rate = make()
    optimizer = downslope.torch.SGD([p], lr=rate)
    for step in range(4):
        p.grad = torch.ones(2)
        if step == 2:
            rate *= 10.0
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((2,), -2.2))


def test_betas_in_a_list_that_changes_in_place_are_used():
    ours, theirs = _pair("Adam", lr=0.1)
    for t in range(6):
        for optimizer in (ours, theirs):
            if t == 0:
                optimizer.param_groups[0]["betas"] = [0.9, 0.999]
            if t == 3:
                optimizer.param_groups[0]["betas"][0] = 0.2
            _step(optimizer, t)
    _close(ours, theirs)


def test_what_a_refused_setting_of_another_group_came_with_is_used_once_that_is_mended():
    ours, theirs = _pair("SGD", lr=0.1)
    for optimizer in (ours, theirs):
        _step(optimizer, 0)
        _step(optimizer, 1)
        optimizer.param_groups[0]["lr"] = 1.0
    ours.param_groups[1]["lr"] = -1.0
    for _ in range(2):
        before = [p.detach().clone() for group in ours.param_groups for p in group["params"]]
        with pytest.raises(ValueError, match=r"lr=-1\.0 is out of range"):
            _step(ours, 2)
        after = [p.detach() for group in ours.param_groups for p in group["params"]]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    ours.param_groups[1]["lr"] = 0.1
    for t in range(2, 5):
        _step(ours, t)
        _step(theirs, t)
    _close(ours, theirs)


def test_an_entry_that_is_added_later_is_used():
    p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    q = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    ours = downslope.torch.Adam([p], lr=0.1)
    theirs = torch.optim.Adam([q], lr=0.1, betas=(0.5, 0.999))
    ours.param_groups[0]["betas"] = (0.5, 0.999)
    for t in range(4):
        for optimizer in (ours, theirs):
            _step(optimizer, t)
    torch.testing.assert_close(p, q)
    del ours.param_groups[0]["lr"]
    with pytest.raises(TypeError, match="needs lr"):
        _step(ours, 5)


@pytest.mark.parametrize("value", [np.bool_(True), True])
def test_flags_of_numpy_are_flags(value):
    ours, theirs = _pair("SGD", lr=0.1, maximize=value, momentum=0.9, nesterov=value)
    for t in range(4):
        _step(ours, t)
        _step(theirs, t)
    _close(ours, theirs)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta"])
def test_every_argument_of_torch_optim_is_refused_by_its_own_name(name):
    """Also one that the other arguments leave without effect."""
    arguments = inspect.signature(getattr(torch.optim, name)).parameters
    for argument, parameter in arguments.items():
        if argument == "params":
            continue
        wrong = ("x", (7.0, 0.5), (0.5, "x")) if isinstance(parameter.default, tuple) else ("x", [1.0], b"1")
        for value in wrong:
            with pytest.raises((TypeError, ValueError), match=rf"^{argument}\b"):
                getattr(downslope.torch, name)([torch.nn.Parameter(torch.ones(2))], **{argument: value})
