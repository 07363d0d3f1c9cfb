"""The quick step is the plain step, bit for bit, whatever becomes of settings, gradients, parameters and states."""

import copy
import ctypes
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
import downslope.torch
from downslope.backends import tensors
from downslope.torch.describe import describer
from downslope.torch.layout import Layout

RULES = {
    "adam": (downslope.adam, {}),
    "momentum": (downslope.momentum, {"weight_decay": 0.1}),
    "nesterov": (downslope.nesterov, {"averaging": 0.9}),
    "nesterov, explicit": (downslope.nesterov, {"lookahead": "explicit"}),
    "rmsprop, in half precision": (downslope.rmsprop, {"state_dtype": torch.bfloat16}),
    "adam, clipped": (downslope.adam, {"max_norm": 0.5, "nonfinite": "skip"}),
    "adam, careful": (downslope.adam, {"nonfinite": "raise", "cautious": True}),
}
KINDS = {
    "float": float,
    "NumPy double": np.float64,
    "0-d array": np.array,
    "tensor": lambda value: torch.tensor(value, dtype=torch.float64),
    "text": str,
}
SHAPES = [(2, 3), (4,), (2, 1, 2)]


def values(seed, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameter(seed, shape=(3,), dtype=torch.float32):
    return torch.nn.Parameter(values(seed, shape).to(dtype))


class Changes:
    """What may happen between two steps, each a function of an optimizer and numbers that are drawn."""

    @staticmethod
    def setting(optimizer, which, number, value):
        group = optimizer.param_groups[which % len(optimizer.param_groups)]
        name = ["lr", "mu", "beta1", "decay_rate", "weight_decay", "averaging"][number % 6]
        if name in group:
            group[name] = KINDS[list(KINDS)[which % len(KINDS)]](value)

    @staticmethod
    def rate(optimizer, which, number, value):
        for group in optimizer.param_groups:
            group["lr"] = value

    @staticmethod
    def rate_in_place(optimizer, which, number, value):
        group = optimizer.param_groups[0]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].mul_(0.5)
        else:
            group["lr"] = torch.tensor(0.25)

    @staticmethod
    def entry(optimizer, which, number, value):
        group = optimizer.param_groups[which % len(optimizer.param_groups)]
        if number % 2:
            group["note"] = number
        elif len(optimizer.param_groups) > 1:
            group.pop("note", None)

    @staticmethod
    def gradient(optimizer, which, number, value):
        p = pick(optimizer, which)
        seed = values(number, p.shape)
        kinds = [
            lambda: None,
            lambda: seed.double().to(p.dtype),
            lambda: torch.stack([seed, seed], -1)[..., 0].to(p.dtype),
            lambda: seed.to(p.dtype).mT.contiguous().mT if p.dim() > 1 else seed.to(p.dtype).clone(),
            lambda: seed.to(p.dtype).to_sparse() if p.dim() else seed.to(p.dtype),
            lambda: torch.full_like(p, [float("nan"), float("inf"), -float("inf")][number % 3]),
            lambda: p.data.view(p.shape),
            lambda: seed.to(p.dtype)[..., :1].expand(p.shape) if p.dim() else seed.to(p.dtype),
        ]
        p.grad = kinds[number % len(kinds)]()

    @staticmethod
    def freeze(optimizer, which, number, value):
        p = pick(optimizer, which)
        p.requires_grad_(number % 2 == 0)
        p.grad = None

    @staticmethod
    def weights(optimizer, which, number, value):
        p = pick(optimizer, which)
        kinds = [
            lambda: p.data.clone(),
            lambda: p.data.double(),
            lambda: p.data.bfloat16(),
            lambda: p.data.float(),
            lambda: torch.stack([p.data, p.data], -1)[..., 0],
            lambda: p.data.mT.contiguous().mT if p.dim() > 1 else p.data.clone(),
        ]
        p.grad = None
        p.data = kinds[number % len(kinds)]()

    @staticmethod
    def group(optimizer, which, number, value):
        optimizer.add_param_group({"params": [parameter(number)] if number % 3 else [], "lr": value})

    @staticmethod
    def by_hand(optimizer, which, number, value):
        groups = optimizer.param_groups
        group = groups[which % len(groups)]
        kinds = [
            lambda: group["params"].reverse(),
            lambda: groups.append({**group, "params": []}),
            lambda: group["params"].append(parameter(number)),
            lambda: groups.reverse(),
            lambda: group.update(params=list(group["params"])),
            lambda: group["params"].pop() if len(group["params"]) > 1 else None,
        ]
        kinds[number % len(kinds)]()

    @staticmethod
    def state(optimizer, which, number, value):
        own = optimizer.state.get(pick(optimizer, which))
        if not own:
            return
        names = list(own)
        name = names[number % len(names)]
        kinds = [
            lambda: own.update({name: own[name].clone()}),
            lambda: own[name].mul_(0.5) if name != "step" else own[name].add_(2),
            lambda: own.pop(name),
            lambda: own.clear(),
            lambda: own.update({name: own[name].double()}),
            lambda: own.update(step=5),
        ]
        kinds[which % len(kinds)]()

    @staticmethod
    def resumed(optimizer, which, number, value):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    @staticmethod
    def placed_by_hand(optimizer, which, number, value):
        group = optimizer.param_groups[0]
        if group.get("placed_by"):
            group["placed_by"] = dict.fromkeys(group["placed_by"], 0.25)

    @staticmethod
    def aside(optimizer, which, number, value):
        places = [optimizer.at_weights, optimizer.at_lookahead]
        with places[which % 2]():
            if number % 3 == 0:
                optimizer.step()  # refused

    @staticmethod
    def evaluation(optimizer, which, number, value):
        optimizer.eval()
        if number % 3:
            optimizer.train()

    @staticmethod
    def training(optimizer, which, number, value):
        optimizer.train()

    @staticmethod
    def scaler(optimizer, which, number, value):
        if number % 2:
            optimizer.grad_scale = torch.tensor(8.0)
        else:
            optimizer.__dict__.pop("grad_scale", None)

    @staticmethod
    def backward(optimizer, which, number, value):
        p = pick(optimizer, which)
        if p.requires_grad:
            p.grad = None
            with optimizer.step_in_backward():
                (p * (1 + number)).sum().backward()


CHANGES = [name for name, kind in vars(Changes).items() if isinstance(kind, staticmethod)]


def pick(optimizer, which):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return params[which % len(params)]


def outcome(act):
    """What something is refused with, whichever object it names."""
    try:
        act()
    except Exception as refusal:
        return type(refusal), re.sub(r"\d{12,}", "id", str(refusal))
    return "done"


def bits(optimizer):
    """Everything that an optimizer has, to the last bit."""
    found = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            own = optimizer.state.get(p, {})
            for name, tensor in [("", p.detach()), *own.items()]:
                tensor = torch.as_tensor(tensor).contiguous()
                found.append((name, tensor.dtype, tensor.shape, tensor.reshape(-1).view(torch.uint8).tolist()))
        found.append(repr({name: value for name, value in group.items() if name != "params"}))
    return [*found, optimizer.skipped]


def made(rule, options, dtype):
    params = [parameter(k, shape, dtype) for k, shape in enumerate(SHAPES)]
    given = {**options} if dtype != torch.float64 else {k: v for k, v in options.items() if k != "state_dtype"}
    groups = [{"params": params[:1]}, {"params": params[1:]}]
    return downslope.torch.Optimizer(groups, rule, lr=0.1, **given)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_quick_step_is_the_plain_step(name, data):
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    quick, plain = (made(*RULES[name], dtype) for _ in range(2))
    for t in range(data.draw(st.integers(3, 8))):
        for k, _ in enumerate(SHAPES):
            for optimizer in (quick, plain):
                p = pick(optimizer, k)
                if p.requires_grad and (p.grad is None or t < 3):
                    p.grad = values(10 * t + k, p.shape).to(p.dtype)
        change = data.draw(st.sampled_from(["", "", *CHANGES])) if t > 1 else ""
        if change:
            numbers = data.draw(st.integers(0, 11)), data.draw(st.integers(0, 11))
            value = data.draw(st.sampled_from([0.05, 0.5, 0.75, -1.0]))
            act = getattr(Changes, change)
            outcomes = [outcome(lambda o=o: act(o, *numbers, value)) for o in (quick, plain)]  # noqa: B023
            assert outcomes[0] == outcomes[1]
        # a closure is something that the quick step leaves to the plain one
        assert outcome(quick.step) == outcome(lambda: plain.step(lambda: None))
        assert bits(quick) == bits(plain)


def test_the_plain_step_is_spared_while_nothing_changes(monkeypatch):
    """Or the test above would say nothing."""
    plain = []
    step = Layout.step
    monkeypatch.setattr(Layout, "step", lambda *arguments: plain.append(1) or step(*arguments))
    optimizer = made(downslope.nesterov, {}, torch.float32)
    for t in range(20):
        for k, _ in enumerate(SHAPES):
            p = pick(optimizer, k)
            p.grad = values(t + k, p.shape)
        if t in (5, 6, 12):
            optimizer.param_groups[0]["lr"] *= 0.5
        optimizer.step()
    assert len(plain) == 1
    optimizer.param_groups[0]["mu"] = 0.5  # which moves the points ahead
    optimizer.step()
    optimizer.step()
    assert len(plain) == 2


def test_a_group_without_parameters_that_is_added_by_hand():
    optimizer = made(downslope.adam, {}, torch.float32)
    for t in range(4):
        for k, _ in enumerate(SHAPES):
            p = pick(optimizer, k)
            p.grad = values(t + k, p.shape)
        if t == 3:
            optimizer.param_groups.append({**optimizer.param_groups[0], "params": []})
        optimizer.step()
    assert {own["step"].item() for own in optimizer.state.values()} == {4}


class Doubled(torch.nn.Parameter):
    """Says that its gradient is twice what autograd found."""

    @property
    def grad(self):
        found = torch.Tensor.grad.__get__(self)
        return None if found is None else 2 * found

    @grad.setter
    def grad(self, gradient):
        torch.Tensor.grad.__set__(self, gradient)


def test_gradients_are_taken_as_autograd_keeps_them_but_a_class_that_says_otherwise_is_asked():
    """An object of Python's for every new gradient takes as long as all else; it is not made unless somebody asks."""
    plain, doubled = parameter(0), Doubled(values(0, (3,)))
    for x, factor in ((plain, 1), (doubled, 2)):
        due = x.detach().clone()
        optimizer = downslope.torch.SGD([x], lr=0.5)
        for step in range(4):
            optimizer.zero_grad()
            (x * (step + 1.0)).sum().backward()
            assert not has_object(x)
            optimizer.step()
            due -= 0.5 * factor * (step + 1.0)
            assert torch.equal(x.detach(), due)
            assert has_object(x) == (x is doubled or step == 0)  # the first step looks closer


def has_object(x):
    """Whether the gradient that autograd keeps for a tensor has an object of Python's."""
    told = describer(x.device).told
    gradient = at(at(x._cdata, 3), int(told[tensors._GRADIENT]))
    return at(gradient, int(told[tensors._LAYOUT]) - 1) != 0


def at(address, word):
    return ctypes.c_int64.from_address(address + 8 * word).value
