"""Tensors of equal shape, which a rule over whole tensors updates together: each as if it were alone."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import downslope
from downslope import maximum, mean, minimum, norm, rule, scalar, sqrt, where
from downslope.language.options import compose
from downslope.targets.arrays import interpret
from downslope.torch import Optimizer
from random_formulas import evaluate, formulas

RULES = [
    downslope.muon,
    downslope.normuon,
    downslope.adafactor,
    downslope.adam_mini,
    downslope.lamb,
    downslope.adamp,
    downslope.stable_adamw,
    downslope.mars,
    downslope.cautious_adamw,
    downslope.dialects.torch.muon,
    downslope.dialects.torch.adafactor,
]
SHAPES = [(6, 4), (4, 6), (6, 4), (6, 4), (4, 6), (4, 2, 3, 1), (6, 4), (4, 2, 3, 1), (6, 4)]


def parameters(dtype, shapes=SHAPES):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def give(params, t):
    """Gradients of a bowl that shakes; the last parameter has none in the second step."""
    for k, p in enumerate(params):
        p.grad = (p.detach().double() * (1 + 0.5 * np.sin(t + k)) + 0.1 * k).to(p.dtype)
    if t == 2:
        params[-1].grad = None


def piece(array, k, pieces, rows):
    """Of something of a parameter of so many rows what belongs to one of its pieces."""
    long = array.shape[0]
    return array[k * rows // pieces : (k + 1) * rows // pieces] if long == rows else array[k : k + 1]


@pytest.mark.parametrize(
    ("each", "pieces"), [*((each, 2) for each in RULES), (downslope.muon, 1), (downslope.normuon, 1)]
)
def test_tensors_that_are_stacked_go_the_way_of_the_formula(each, pieces):
    """Two groups of different numbers; one tensor misses a step, so that its clock is another one then."""
    shapes = SHAPES[:5] if each.most_dimensions == 2 else SHAPES
    params = parameters(torch.float64, shapes)
    order = [*params[::2], *params[1::2]]
    divided = {} if pieces == 1 else {"pieces": pieces}
    groups = [{"params": params[::2], **divided}, {"params": params[1::2], "lr": 0.02, **divided}]
    optimizer = Optimizer(groups, each, lr=0.01)
    program = compose(each)
    for t in range(1, 4):
        give(order, t)
        before = {p: p.detach().clone() for p in order}
        held = {p: {name: value.clone() for name, value in optimizer.state[p].items()} for p in order}
        gradients = {p: None if p.grad is None else p.grad.clone() for p in order}
        optimizer.step()
        for k, p in enumerate(order):
            if gradients[p] is None:
                continue
            assert torch.equal(p.grad, gradients[p])
            state = optimizer.state[p]
            began = {name: torch.full_like(state[name], start) for name, start in program.states.items()}
            arrays = {**began, **held[p], "x": before[p], "dx": gradients[p]}
            lr = 0.02 if k >= len(params[::2]) else 0.01
            scalars = {**program.hyperparameters, "lr": lr, "t": int(state["step"])}
            assert int(state["step"]) == t - (t > 2 and p is order[-1])
            for j in range(pieces):
                own = {name: piece(arrays[name], j, pieces, len(p)).numpy() for name in program.arrays}
                for name, wanted in interpret(program, own, scalars).items():
                    found = piece({"x": p.detach(), **state}[name], j, pieces, len(p))
                    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-11, err_msg=f"{name} {k} {t}")


@rule
def words(x, dx, m=0, w=0, n=scalar(1.0), *, t, lr=0.1, cut=0.5, on=1.0):
    """What a tape does in its own way: numbers where tensors may stand, states that change places, sums of products."""
    spread = sqrt(mean(dx**2, axis=1) * mean(dx**2, axis=0)) + 1e-3
    step = 0.25 * m + 4 * dx @ dx.T @ dx
    step = where((on > 0) & (norm(dx) > cut), step / spread, dx) * where(on > 2, dx, 1)
    step = where(dx > 0, 0.1, 0.3) * maximum(minimum(step, cut), -cut) + maximum(dx, m) - minimum(cut, dx)
    step = where((dx > 0) | (on > 1), step, 0 * step) + (2000 * dx @ dx.T) @ dx * n / t
    turned = (dx @ dx.T) @ x + (x @ x.T) @ (dx @ dx.T) @ x
    u = x + dx
    turned = turned + x @ (u.T @ (u * m))
    return x - lr * (step + turned * where(cut > 0, 0.5, 0.1)), w, m.T.T, n + 1


@pytest.mark.parametrize(("cut", "on"), [(0.5, 1.0), (0.0, -1.0), (2.0, 3.0)])
@pytest.mark.parametrize("shape", [(3, 3, 4), (1, 4, 3), (1, 3, 3), (2, 1, 5)])
def test_a_tape_computes_what_the_formula_says(shape, cut, on):
    generator = np.random.default_rng(1)
    arrays = {name: generator.normal(size=shape) for name in ("x", "dx", "m", "w")}
    program = compose(words)
    scalars = {"lr": 0.1, "cut": cut, "on": on, "t": 2, "n": 3.0}
    params = [torch.tensor(x, requires_grad=True) for x in arrays["x"]]
    optimizer = Optimizer(params, words, lr=0.1, cut=cut, on=on)
    for p, dx in zip(params, arrays["dx"], strict=True):
        p.grad = torch.tensor(dx)
    optimizer.step()  # which makes states, whose places are taken by others now
    for k, p in enumerate(params):
        p.data.copy_(torch.tensor(arrays["x"][k]))
        optimizer.state[p]["n"].fill_(3.0)
        for name in ("m", "w"):
            optimizer.state[p][name].copy_(torch.tensor(arrays[name][k]))
    optimizer.step()
    for k, p in enumerate(params):
        wanted = interpret(program, {name: array[k] for name, array in arrays.items()}, scalars)
        found = {"x": p.detach(), **{name: optimizer.state[p][name] for name in ("m", "w", "n")}}
        for name, tensor in found.items():
            np.testing.assert_allclose(tensor.numpy(), wanted[name], rtol=1e-11, atol=1e-12, err_msg=name)


@settings(deadline=None, max_examples=20, phases=[Phase.generate])
@given(several=st.lists(formulas(), min_size=6, max_size=6))
@np.errstate(all="ignore")
def test_a_tape_of_any_formula_computes_it(several):
    """With products of small numbers, which are exact, so that only a last sum can be rounded in another way."""

    @rule
    def some(x, dx, p=0.0, q=0.0, r=0.0, s=0.0, u=0.0, *, c=1.5):
        values = {"a": dx, "b": x @ dx.T @ x, "c": c}
        return tuple(where(x == x, evaluate(each, values), x) for each in several)

    x, dx = np.array([[1.0, 2, 3], [3, 1, 2]]), np.array([[0.5, 1, 2], [2, 2, 0.5]])
    params = [torch.tensor(way * x, requires_grad=True) for way in (1, 2)]
    for p in params:
        p.grad = torch.tensor(dx)
    optimizer = Optimizer(params, some)
    optimizer.step()
    for way, p in enumerate(params, 1):
        values = {"a": dx, "b": way * x @ dx.T @ (way * x), "c": np.float64(1.5)}  # of Python's own True, ~ makes -2
        for name, each in zip(("x", *"pqrsu"), several, strict=True):
            tensor, value = {"x": p.detach(), **optimizer.state[p]}[name], evaluate(each, values)
            np.testing.assert_allclose(tensor.numpy(), np.broadcast_to(value, x.shape), rtol=1e-12)


def test_a_coefficient_of_0_drops_no_nan():
    """A product that is multiplied by 0 is not left out: what is not finite stays so."""

    @rule
    def nothing_of_it(x, dx, *, lr=0.1):
        return x - lr * (0 * dx + 0 * dx @ dx.T @ dx)

    p = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([[torch.inf, 0], [0, 1]], dtype=torch.float64)
    Optimizer([p], nothing_of_it).step()
    assert p.isnan().any()


class Counted(TorchDispatchMode):
    """Counts calls to PyTorch, by name."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.calls[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_five_matrices_of_one_shape_are_fifteen_calls_for_muon(shape):
    """With no call for the sums between products; of tall matrices the small products are taken."""
    params = parameters(torch.float32, [shape] * 5)
    give(params, 1)
    optimizer = Optimizer(params, downslope.muon)
    optimizer.step()
    with Counted() as counted:
        optimizer.step()
    calls = counted.calls
    assert calls["bmm"] == 5
    assert calls["baddbmm"] == 10
    assert calls["add"] + calls["add_"] + calls["sub"] + calls["mul"] + calls["mul_"] < 12


@pytest.mark.parametrize(("polar", "low", "high"), [(False, 0.68, 1.21), (True, 0.85, 1.13)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_of_steps_are_near_one(dtype, polar, low, high):
    """Of stacks of random, low-rank and badly scaled matrices; weights in bfloat16 keep three digits of a step."""
    generator = np.random.default_rng(3)
    given, ranks = [], []
    for shape in [(20, 30), (30, 20)]:
        for rank, scale in [(20, 1.0), (20, 1e-5), (20, 1e5), (4, 1.0)]:
            left, _ = np.linalg.qr(generator.normal(size=(shape[0], rank)))
            right, _ = np.linalg.qr(generator.normal(size=(shape[1], rank)))
            given.append(torch.tensor(left * np.geomspace(0.1, 1, rank) * scale @ right.T).to(dtype))
            ranks.append(rank)
    params = [torch.zeros(g.shape, dtype=dtype, requires_grad=True) for g in given]
    for p, g in zip(params, given, strict=True):
        p.grad = g
    Optimizer(params, downslope.muon, lr=1.0, momentum=0.0, polar_express=polar).step()
    for p, rank in zip(params, ranks, strict=True):
        stride = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
        values = np.linalg.svd(p.detach().double().numpy() / stride, compute_uv=False)
        slack = 0.02 if dtype is torch.bfloat16 else 1e-4
        assert low - slack < values[:rank].min()
        assert values[:rank].max() < high + slack


@pytest.mark.parametrize("overlapping", ["weights", "states"])
def test_tensors_that_share_memory_are_updated_one_after_another(overlapping):
    """In one stack, all would be read before any is written."""
    slope = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    found = []
    for together in (True, False):
        memory = torch.zeros(4, 4)
        shared, apart = [memory[:3], memory[1:]], [torch.ones(3, 4), torch.ones(3, 4)]
        weights, states = (shared, apart) if overlapping == "weights" else (apart, shared)
        params = [w.requires_grad_() for w in map(torch.Tensor.detach, weights)]
        optimizers = [
            Optimizer(each, downslope.muon, lr=1.0) for each in ([params] if together else [[p] for p in params])
        ]
        for k, p in enumerate(params):
            optimizers[0 if together else k].state[p] = {"step": torch.tensor(0.0), "m": states[k]}
            p.grad = slope.clone()
        for optimizer in optimizers:
            optimizer.step()
        found.append([memory, *params])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
