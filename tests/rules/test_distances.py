"""Prodigy and D-Adaptation against their papers, written out in double precision."""

import numpy as np
import pytest
import torch
from in_one_program import in_keras, in_optax

import downslope
import downslope.torch
from downslope.rules import distances

SHAPES = {"vector": (7,), "wide": (3, 8), "tall": (9, 2), "kernel": (2, 3, 2, 2)}
STEPS = 200


def _targets():
    rng = np.random.default_rng(3)
    return [{name: rng.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(2)]


def _slopes(x, targets, t):
    return {name: (x[name] - targets[name]) * (1 + 0.5 * np.sin(t)) for name in x}


def _flat(of):
    return np.concatenate([each.ravel() for each in of.values()])


def _prodigy(begin, targets, d=1e-6, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.01):
    shapes = {name: x.shape for name, x in begin.items()}
    x = _flat(begin)
    x0, m, v, s, r = x.copy(), np.zeros_like(x), np.zeros_like(x), np.zeros_like(x), 0.0
    for t in range(1, STEPS + 1):
        g = _flat(_slopes(_parted(x, shapes), targets, t))
        m, v = beta1 * m + (1 - beta1) * d * g, beta2 * v + (1 - beta2) * d**2 * g**2
        r = beta2**0.5 * r + (1 - beta2**0.5) * d**2 * np.dot(g, x0 - x)
        s = beta2**0.5 * s + (1 - beta2**0.5) * d**2 * g
        x = x - d * (m / (np.sqrt(v) + d * eps) + decay * x)
        d = max(d, r / np.abs(s).sum())
    return _parted(x, shapes), d


def _d_adapt_adam(begin, targets, d=1e-6, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.01):
    shapes = {name: x.shape for name, x in begin.items()}
    x = _flat(begin)
    m, v, s, r = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x), 0.0
    for t in range(1, STEPS + 1):
        g = _flat(_slopes(_parted(x, shapes), targets, t))
        m, v = beta1 * m + (1 - beta1) * d * g, beta2 * v + (1 - beta2) * g**2
        a = np.sqrt(v) + eps
        r = beta2**0.5 * r + (1 - beta2**0.5) * d * np.dot(g, s / a)
        s = beta2**0.5 * s + (1 - beta2**0.5) * d * g
        x = x - m / a - d * decay * x
        d = max(d, r / ((1 - beta2**0.5) * np.abs(s).sum()))
    return _parted(x, shapes), d


def _parted(x, shapes):
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1]
    return {name: part.reshape(shapes[name]) for name, part in zip(shapes, np.split(x, ends), strict=True)}


@pytest.mark.parametrize(("rule", "by_hand"), [(distances.prodigy, _prodigy), (distances.d_adapt_adam, _d_adapt_adam)])
def test_it_goes_the_published_way_for_200_steps(rule, by_hand):
    begin, targets = _targets()
    expected, d = by_hand(begin, targets)
    assert d > 1e-3
    arrays = {name: x.copy() for name, x in begin.items()}
    optimizer = downslope.Optimizer(arrays, rule, weight_decay=0.01)
    tensors = {name: torch.tensor(x, requires_grad=True) for name, x in begin.items()}
    trained = downslope.torch.Optimizer(tensors.values(), rule, weight_decay=0.01)
    for t in range(1, STEPS + 1):
        optimizer.step(_slopes(arrays, targets, t))
        here = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
        for name, slope in _slopes(here, targets, t).items():
            tensors[name].grad = torch.tensor(slope)
        trained.step()
    for name, x in expected.items():
        np.testing.assert_allclose(arrays[name], x, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(tensors[name].detach().numpy(), x, rtol=1e-9, atol=1e-12)
        assert float(trained.state[tensors[name]]["d"]) == pytest.approx(d, rel=1e-9)


@pytest.mark.parametrize(("rule", "by_hand"), [(distances.prodigy, _prodigy), (distances.d_adapt_adam, _d_adapt_adam)])
def test_optax_and_keras_go_the_published_way_for_200_steps(rule, by_hand):
    begin, targets = _targets()
    expected, d = by_hand(begin, targets, d=1e-4)
    assert d > 2e-4  # it goes on from there
    for way, closeness in ((in_optax, 1e-9), (in_keras, 1e-6)):
        found, scalars = way(rule, {"lr": 1.0, "weight_decay": 0.01, "d0": 1e-4}, begin, targets, STEPS)
        assert scalars["d"] == pytest.approx(d, rel=closeness)
        for name, x in expected.items():
            np.testing.assert_allclose(found[name], x, rtol=closeness, atol=closeness, err_msg=name)


def test_without_a_slope_the_guess_stays():
    x = np.ones(3)
    optimizer = downslope.Optimizer(x, distances.prodigy)
    optimizer.step(np.zeros(3))
    assert (x == 1).all()
    assert optimizer._groups[0].scalar_states == {"r": 0.0, "d": 1e-6}


@pytest.mark.parametrize("rule", [distances.prodigy, distances.d_adapt_adam])
def test_each_group_begins_with_its_own_guess(rule):
    """The first step moves every weight by as much as the guess says, whatever its slope."""
    arrays = [np.ones(3), np.ones(3)]
    tensors = [torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in arrays]
    given = [{"d0": 1e-3}, {"d0": 0.1}]
    numpys = downslope.Optimizer([{"params": x, **its} for x, its in zip(arrays, given, strict=True)], rule)
    torchs = downslope.torch.Optimizer([{"params": [x], **its} for x, its in zip(tensors, given, strict=True)], rule)
    slopes = np.array([1.0, -20.0, 300.0])
    numpys.step([slopes, slopes])
    for tensor in tensors:
        tensor.grad = torch.tensor(slopes)
    torchs.step()
    for x, tensor, its in zip(arrays, tensors, given, strict=True):
        np.testing.assert_allclose(x, 1 - its["d0"] * 0.1 / np.sqrt(0.001) * np.sign(slopes), rtol=1e-6)
        np.testing.assert_allclose(tensor.detach().numpy(), x, rtol=1e-12)
    with pytest.raises(ValueError, match="d0=0"):
        downslope.Optimizer(np.ones(3), rule, d0=0.0)


@pytest.mark.parametrize("rule", [distances.prodigy, distances.d_adapt_adam])
def test_the_least_first_guess_is_enough_in_single_precision(rule):
    """For weights of 1; and for slopes as small as `eps`, of which states are kept as normal numbers."""
    least = rule.ranges["d0"].low
    x, targets = np.ones(2, np.float32), np.array([0, 2], np.float32)
    optimizer = downslope.Optimizer(x, rule, d0=least)
    for _ in range(150):
        optimizer.step(2 * (x - targets))
    assert optimizer._groups[0].scalar_states["d"] > 0.1
    optimizer = downslope.Optimizer({"w": np.zeros(2, np.float32)}, rule, d0=least)
    optimizer.step({"w": np.full(2, 1e-8, np.float32)})
    for name in ("m", "v", "s"):
        assert (optimizer.state[name]["w"] >= np.finfo(np.float32).tiny).all()
    with pytest.raises(ValueError, match="d0="):
        downslope.Optimizer(np.ones(2), rule, d0=least / 2)
