"""Parameters without memory of their own, as quantised and scaled ones are: stepped as `torch.optim` does.

The formula is computed operation by operation, in single precision, whose roundings over three steps stay below 1e-6.
"""

import pytest
import torch
from small_network import BOTH, CLASSES
from torch import nn
from torch.utils._pytree import tree_map

import downslope
import downslope.torch


def wrapper_class():
    """A class of its own for each test: what is said of a class is said once."""

    class Wrapped(torch.Tensor):
        @staticmethod
        def __new__(cls, held):
            return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=held.device)

        def __init__(self, held):
            self.held = held

        @classmethod
        def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
            def bare(value):
                return value.held if isinstance(value, cls) else value

            found = operation(*tree_map(bare, args), **tree_map(bare, kwargs or {}))
            if operation.overloadpacket.__name__.endswith("_"):
                return args[0]
            return tree_map(lambda value: cls(value) if isinstance(value, torch.Tensor) else value, found)

    return Wrapped


def trained(make, wrap, steps=3):
    """Values of a wrapped parameter and of an ordinary one after training."""
    wrapped, plain = nn.Parameter(wrap(torch.ones(3, 2))), nn.Parameter(torch.ones(4))
    optimizer = make([{"params": [wrapped]}, {"params": [plain], "lr": 0.05}])
    for t in range(1, steps + 1):
        wrapped.grad = wrap(torch.linspace(-1, 2, 6).reshape(3, 2) * t)
        plain.grad = torch.full((4,), float(t)) if t != 2 else None
        optimizer.step()
    return wrapped, plain, optimizer


@pytest.mark.parametrize("name", CLASSES)
def test_they_are_stepped_as_in_torch(name):
    found = []
    for module in BOTH:
        wrap = wrapper_class()
        settings = {"foreach": False} if module is torch.optim else {}

        def make(groups, module=module, settings=settings):
            return getattr(module, name)(groups, lr=0.1, weight_decay=0.01, **settings)

        if module is torch.optim:
            wrapped, plain, _ = trained(make, wrap)
        else:
            with pytest.warns(UserWarning, match="type Wrapped have no memory .* operation by operation") as caught:
                wrapped, plain, optimizer = trained(make, wrap)
            assert len(caught) == 1
            assert all(isinstance(v, wrap) for v in optimizer.state[wrapped].values() if v.dim())
        found.append((wrapped.held, plain.detach()))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:parameters of type Wrapped")
@pytest.mark.parametrize("options", [{}, {"max_norm": 0.5, "averaging": 0.9}, {"nonfinite": "raise", "cautious": True}])
def test_options_and_a_look_ahead_are_what_they_are_for_ordinary_ones(options):
    def make(groups):
        return downslope.torch.Optimizer(groups, downslope.nesterov, lr=0.1, mu=0.8, **options)

    found = []
    for wrap in (wrapper_class(), lambda tensor: tensor):
        wrapped, plain, optimizer = trained(make, wrap)
        ahead = wrapped.detach().clone()
        optimizer.eval()
        found.append([getattr(value, "held", value) for value in (ahead, wrapped.detach(), plain.detach())])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
