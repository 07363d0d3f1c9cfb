"""A small network to train with `downslope.torch` and `torch.optim` side by side, in double precision."""

import torch
from torch import nn

import downslope.torch

CLASSES = ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "Adamax", "Adadelta", "RAdam")

FEW = ("SGD", "AdamW", "NAdam")  # without states, with two, with a scalar state: for what no formula has a part in
BOTH = (downslope.torch, torch.optim)


def network():
    """A small network, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))


def batch(t):
    """The inputs of step `t`."""
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(t))


def loss_of(model, t):
    """A loss with inputs that differ from step to step."""
    return (model(batch(t)) - 1).square().mean()


def step(model, optimizer, t):
    """One step of an ordinary loop."""
    optimizer.zero_grad()
    loss_of(model, t).backward()
    optimizer.step()


def weights(model):
    """All weights as one vector."""
    return torch.cat([p.detach().reshape(-1).double() for p in model.parameters()])


def trained(optimizer_of, steps=20, each=step):
    """The weights after a training with the optimizer made of the network's parameters."""
    model = network()
    optimizer = optimizer_of(model.parameters())
    for t in range(steps):
        each(model, optimizer, t)
    return weights(model)


def close(mine, theirs, tolerance=1e-11):
    """Whether two vectors are equal but for roundings, and have come far from where the network began."""
    torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)
    moved = (theirs - weights(network())).abs().max() if theirs.shape == weights(network()).shape else 1
    return bool(moved > 1e-4)
