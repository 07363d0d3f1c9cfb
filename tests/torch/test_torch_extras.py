"""What `downslope.torch` does in a step besides: clipping, averages, rounding, the look-ahead, any rule."""

import copy
import functools

import numpy as np
import pytest
import torch
from small_network import FEW, batch, close, loss_of, network, step, trained, weights
from torch import nn

import downslope
import downslope.torch
from downslope import rule

pytestmark = pytest.mark.usefixtures("double_by_default")

# Clipping, averages, gradients that are not finite


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("max_norm", [0.3, 1e6], ids=["clipped", "never reached"])
def test_max_norm_scales_by_max_norm_over_norm(name, max_norm):
    """PyTorch's `clip_grad_norm_` divides by `norm + 1e-6`; here the gradients of the reference are scaled exactly."""

    def clipped(model, optimizer, t):
        optimizer.zero_grad()
        (10 * loss_of(model, t)).backward()
        norm = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).norm()
        for p in model.parameters():
            p.grad *= torch.clamp(max_norm / norm, max=1.0)
        optimizer.step()

    def plain(model, optimizer, t):
        optimizer.zero_grad()
        (10 * loss_of(model, t)).backward()
        optimizer.step()

    mine = trained(functools.partial(getattr(downslope.torch, name), lr=0.01, max_norm=max_norm), each=plain)
    theirs = trained(functools.partial(getattr(torch.optim, name), lr=0.01), each=clipped)
    assert close(mine, theirs)


def test_one_norm_for_all_dtypes_and_groups():
    gradients = [torch.tensor([3.0]), torch.tensor([4.0], dtype=torch.float32), torch.tensor([12.0j])]
    params = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    optimizer = downslope.torch.SGD([{"params": [p]} for p in params], lr=1.0, max_norm=1.3)
    for p, gradient in zip(params, gradients, strict=True):
        p.grad = gradient
    optimizer.step()
    for p, gradient in zip(params, gradients, strict=True):
        torch.testing.assert_close(p.detach(), -gradient / 10)


def test_the_average_is_exponential_and_leaving_it_restores_the_bits():
    model = network()
    optimizer = downslope.torch.Adam(model.parameters(), lr=0.05, averaging=0.8)
    average = weights(model)
    for t in range(20):
        step(model, optimizer, t)
        average = 0.8 * average + (1 - 0.8) * weights(model)
    before = weights(model)
    with optimizer.at_average():
        torch.testing.assert_close(weights(model), average, rtol=0, atol=1e-14)
        with pytest.raises(RuntimeError, match="at_average"):
            optimizer.step()
    assert torch.equal(weights(model), before)
    assert (before - average).abs().max() > 1e-3
    with pytest.raises(ZeroDivisionError), optimizer.at_average():
        raise ZeroDivisionError
    assert torch.equal(weights(model), before)
    step(model, optimizer, 20)


def test_the_average_of_halves_moves():
    """Its changes, a thousandth of the distance, are below the spacing of bfloat16."""
    p = nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    optimizer = downslope.torch.SGD([p], lr=1.0, averaging=0.999)
    for t in range(1000):
        p.grad = torch.full_like(p, 0.5 if t == 0 else 0.0)
        optimizer.step()
    expected = 0.5 + 0.5 * 0.999**1000
    average = optimizer.state[p]["average"]
    assert average.dtype == torch.float32
    # a thousand times two roundings of single precision, of numbers below 1
    assert (average.double() - expected).abs().max() < 1000 * 2 * 2.0**-24


def test_no_average_was_asked_for():
    with (
        pytest.raises(RuntimeError, match=r"averaging=0\.999"),
        downslope.torch.Adam(network().parameters()).at_average(),
    ):
        pass


def poisoned(model, optimizer, t, value):
    optimizer.zero_grad()
    loss_of(model, t).backward()
    model[2].weight.grad[1, 2] = value
    optimizer.step()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_gradients_that_are_not_finite(value):
    def made(nonfinite):
        model = network()
        optimizer = downslope.torch.Adam(model.named_parameters(), lr=0.01, nonfinite=nonfinite)
        step(model, optimizer, 0)
        return model, optimizer

    model, optimizer = made("keep")
    poisoned(model, optimizer, 1, value)
    assert (~torch.isfinite(weights(model))).sum() == 1

    model, optimizer = made("raise")
    before = weights(model)
    with pytest.raises(downslope.NonFiniteGradientError, match=r"2\.weight \(1 of 25\)"):
        poisoned(model, optimizer, 1, value)
    assert torch.equal(weights(model), before)

    model, optimizer = made("skip")
    poisoned(model, optimizer, 1, value)
    assert torch.equal(weights(model), before)
    assert optimizer.skipped == 1
    step(model, optimizer, 2)
    assert all(own["step"] == 2 for own in optimizer.state.values())
    assert not torch.equal(weights(model), before)


# States and weights in bfloat16


def single_network():
    """A network in single precision and a function that takes its steps."""
    model = network().float()

    def go(optimizer, t):
        optimizer.zero_grad()
        (model(batch(t).float()) - 1).square().mean().backward()
        optimizer.step()

    return model, go


@pytest.mark.parametrize("name", FEW)
def test_states_in_bfloat16_are_kept_in_it(name):
    model, go = single_network()
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(downslope.torch, name)(model.parameters(), lr=0.01, state_dtype=torch.bfloat16, **options)
    for t in range(3):
        go(optimizer, t)
    for p in model.parameters():
        arrays = [v for v in optimizer.state[p].values() if v.dim()]
        assert arrays
        assert all(v.dtype == torch.bfloat16 and v.shape == p.shape for v in arrays)
        assert p.dtype == torch.float32


@pytest.mark.parametrize("saved_in", [torch.bfloat16, torch.float32, None])
@pytest.mark.parametrize("kept_in", [torch.bfloat16, None])
@pytest.mark.parametrize("name", [*FEW, "SGD, momentum off"])
def test_loaded_states_are_kept_as_this_optimizer_keeps_its_own(name, kept_in, saved_in):
    """Those too that the settings of the moment do not use, such as a buffer whose momentum is switched off."""
    model, go = single_network()
    options = {"momentum": 0.9} if name.startswith("SGD") else {"averaging": 0.9}
    kind = getattr(downslope.torch, name.split(",")[0])
    optimizer = kind(model.parameters(), lr=0.01, state_dtype=saved_in, **options)
    go(optimizer, 0)
    saved = optimizer.state_dict()
    if name == "SGD, momentum off":
        saved["param_groups"][0]["momentum"] = 0
    loaded = kind(model.parameters(), lr=0.01, state_dtype=kept_in, **options)
    loaded.load_state_dict(saved)
    for again in (False, True):
        if again:
            loaded.param_groups[0]["momentum"] = 0.9
            go(loaded, 1)
        for p in model.parameters():
            arrays = {key: v for key, v in loaded.state[p].items() if v.dim()}
            assert arrays
            for key, value in arrays.items():
                assert value.dtype == (torch.float32 if key == "average" else kept_in or torch.float32)


def test_what_states_in_bfloat16_cost_in_accuracy():
    """With both decays 0.9 a state errs by at most 10 roundings of 2**-9 of the largest, the second under a root.

    A step is then wrong by at most 10 + 5 roundings of the largest step, 3 %; gradients are the same for both.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=generator, dtype=torch.float32)
    params = [nn.Parameter(start.clone()) for _ in range(2)]
    kinds = (torch.bfloat16, None)
    optimizers = [
        downslope.torch.Adam([p], lr=0.01, betas=(0.9, 0.9), state_dtype=kind)
        for p, kind in zip(params, kinds, strict=True)
    ]
    way = 0.0
    for _ in range(200):
        gradient = torch.randn(50, generator=generator, dtype=torch.float32)
        before = params[1].detach().clone()
        for p, optimizer in zip(params, optimizers, strict=True):
            p.grad = gradient
            optimizer.step()
        way += (params[1].detach() - before).abs().max().item()
    difference = (params[0] - params[1]).abs().max().item()
    assert 0 < difference <= 15 * 2**-9 * way


def stepped_down(steps, size=7, step=2.0**-12, threads=None, **options):
    """Weights of bfloat16 that begin at 1 and are to go down by the same little step each time."""
    p = nn.Parameter(torch.ones(size, dtype=torch.bfloat16))
    optimizer = downslope.torch.SGD([p], lr=step, threads=threads, **options)
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
    return p.detach(), optimizer.state[p]


def test_compensated_rounding_loses_no_little_step():
    """1 - 1024 * 2**-12 is 0.75; rounded to the nearest, 1 - 2**-12 is 1 again."""
    assert stepped_down(1024)[0].tolist() == [1.0] * 7
    x, own = stepped_down(1024, rounding="compensated")
    assert x.tolist() == [0.75] * 7
    assert {v.dtype for name, v in own.items() if name != "step"} == {torch.bfloat16}


def test_stochastic_rounding_is_right_on_average():
    """Just below 1 the spacing is 2**-8, so a step of 2**-12 is taken as a whole spacing with a chance of 1/16."""
    size, steps = 100_000, 8
    x, _ = stepped_down(steps, size, rounding="stochastic", seed=3)
    spacing, chance = 2.0**-8, 1 / 16
    deviation = spacing * (steps * chance * (1 - chance) / size) ** 0.5
    assert abs(x.double().mean().item() - (1 - steps * chance * spacing)) < 5 * deviation
    spread = x.double().var().item() / (spacing**2 * steps * chance * (1 - chance))
    assert abs(spread - 1) < 0.05  # as many up and down as independent draws would give


def test_stochastic_rounding_depends_on_the_seed_and_not_on_threads():
    draw = functools.partial(stepped_down, 5, 300_000, rounding="stochastic")
    x, _ = draw(seed=1, threads=1)
    assert torch.equal(x, draw(seed=1, threads=2)[0])
    assert torch.equal(x, draw(seed=1, threads=3)[0])
    other, _ = draw(seed=2, threads=1)
    assert 0.05 < (x != other).double().mean() < 0.6


def test_stochastic_rounding_draws_anew_for_every_tensor_and_step():
    params = [nn.Parameter(torch.ones(10_000, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = downslope.torch.SGD(params, lr=2.0**-9, rounding="stochastic")
    moved = []
    for _ in range(2):
        for p in params:
            with torch.no_grad():
                p.fill_(1.0)
            p.grad = torch.ones_like(p)
        optimizer.step()
        moved += [(p.detach() != 1).double() for p in params]
    # each moves with a chance of 1/2; of two independent draws half agree, within 5 deviations of 0.5 / 100
    for i in range(4):
        for j in range(i):
            assert abs((moved[i] == moved[j]).double().mean() - 0.5) < 5 * 0.005


# Look-ahead, and rules of anyone


def hilly(x):
    """A loss with slopes that change along the way."""
    return (torch.sin(3 * x) + x.square()).sum()


def nesterov_by_hand(start, mus, known):
    """Positions of Nesterov's momentum, with gradients taken at `x + mu * v`.

    Args:
        start: Where it begins.
        mus: The momentum of each step.
        known: The momentum by which the point ahead of each step is reckoned.
    """
    x, v, seen = start.clone(), torch.zeros_like(start), []
    for mu, ahead in zip(mus, known, strict=True):
        point = (x + ahead * v).requires_grad_()
        (slope,) = torch.autograd.grad(hilly(point), point)
        v = mu * v - 0.01 * slope
        x = x + v
        seen.append(x)
    return seen


MUS = [0.9] * 20 + [0.5] * 10 + [0.95] * 20


@pytest.mark.parametrize("how", ["stored", "explicit", "closure"])
def test_nesterovs_gradient_is_taken_ahead(how):
    """Also when `mu` changes on the way.

    In the ordinary loop nothing runs between such a change and the next gradient, which is taken where the last step
    has put the point: ahead by the `mu` of that step. Inside `at_lookahead`, and by a closure, it is the new one's.
    """
    start = torch.linspace(-2, 2, 7)
    p = nn.Parameter(start.clone())
    lookahead = "explicit" if how == "explicit" else "stored"
    optimizer = downslope.torch.Optimizer([p], downslope.nesterov, lr=0.01, mu=MUS[0], lookahead=lookahead)

    def closure():
        optimizer.zero_grad()
        loss = hilly(p)
        loss.backward()
        return loss

    known = [MUS[0], *MUS[:-1]] if how == "stored" else MUS
    for t, (mu, expected) in enumerate(zip(MUS, nesterov_by_hand(start, MUS, known), strict=True)):
        optimizer.param_groups[0]["mu"] = mu
        if how == "closure":
            optimizer.step(closure)
        else:
            with optimizer.at_lookahead():
                closure()
            optimizer.step()
        with optimizer.at_weights():
            assert (p.detach() - expected).abs().max() < 1e-13, t
    assert (p - start).abs().max() > 0.1


@pytest.mark.parametrize("what", ["nothing", "group", "scaler", "copy"])
def test_a_new_momentum_moves_the_point_ahead_whatever_else_has_changed(what):
    """Gradients of 1 wherever they are taken: only the velocity and the weights under the point can go wrong."""
    p, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = downslope.torch.Optimizer([p], downslope.nesterov, lr=0.1, mu=0.9)
    x, v = 1.0, 0.0
    for t in range(6):
        mu = 0.9 if t < 3 else 0.5
        v = mu * v - 0.1
        x += v
        if t == 3:
            if what == "copy":
                p, optimizer = copy.deepcopy((p, optimizer))
            optimizer.param_groups[0]["mu"] = mu
            if what == "group":
                optimizer.add_param_group({"params": [other]})
            if what == "scaler":
                optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.0), torch.tensor(0.0)
        p.grad, other.grad = torch.ones(2), torch.ones(2)
        optimizer.step()
    with optimizer.at_weights():
        torch.testing.assert_close(p.detach(), torch.full((2,), x), rtol=0, atol=1e-13)


def test_what_at_weights_holds_is_put_back_bit_for_bit():
    model = network()
    optimizer = downslope.torch.Optimizer(model.parameters(), downslope.nesterov, lr=0.05)
    for t in range(5):
        step(model, optimizer, t)
    before = weights(model)
    with optimizer.at_weights():
        assert not torch.equal(weights(model), before)
        with pytest.raises(RuntimeError, match="at_weights"):
            optimizer.step()
        with pytest.raises(RuntimeError, match="at_weights"), optimizer.at_weights():
            pass
    assert torch.equal(weights(model), before)


@rule
def sober(x, dx, m=0, s=0.5, total=downslope.scalar(1.0), *, t, lr=0.05, memory=0.9, signed=False):
    """A rule of nobody: two states, one with an initial value, a scalar state, a flag, and the number of the step."""
    total = total * memory
    m = memory * m + (1 - memory) * dx
    s = downslope.maximum(s, abs(m) / (1 - total))
    push = downslope.sign(m) if signed else m / (s + 1 / t)
    return x - lr * push, m, s, total


RULES = {
    "adam": (downslope.adam, {"lr": 0.01}, {"weight_decay": 0.1, "decoupled": True, "max_norm": 0.2}),
    "rmsprop": (downslope.rmsprop, {"lr": 0.01}, {"weight_decay": 0.1, "averaging": 0.9}),
    "momentum": (downslope.momentum, {"mu": 0.8}, {"maximize": True}),
    "nesterov": (downslope.nesterov, {"lr": 0.05}, {"max_norm": 0.2, "averaging": 0.9}),
    "schedule-free": (downslope.schedule_free_adamw, {"lr": 0.01, "warmup_steps": 5, "weight_decay": 0.1}, {}),
    "a rule of one's own": (sober, {"memory": 0.8}, {"averaging": 0.9}),
    "with a choice": (sober, {"signed": True}, {"weight_decay": 0.01}),
}


@pytest.mark.parametrize("case", RULES)
def test_any_rule_computes_what_it_computes_on_numpy_arrays(case):
    """Both run the same kernel on the same numbers: equal to the last bit, averages and states included."""
    of, settings, options = RULES[case]
    model = network()
    arrays = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    reference = downslope.Optimizer(arrays, of, **settings, **options)
    optimizer = downslope.torch.Optimizer(model.parameters(), of, **settings, **options)
    for t in range(20):
        optimizer.zero_grad()
        loss_of(model, t).backward()
        reference.step({name: p.grad.numpy() for name, p in model.named_parameters()})
        optimizer.step()
        if t == 10:
            optimizer.param_groups[0]["lr"] *= 0.5
            reference.set(lr=optimizer.param_groups[0]["lr"])
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.detach().numpy(), arrays[name])
        for state, by_name in reference.state.items():
            np.testing.assert_array_equal(optimizer.state[p][state].numpy(), by_name[name])
    with optimizer.at_weights(), reference.at_weights():
        for name, p in model.named_parameters():
            np.testing.assert_array_equal(p.detach().numpy(), arrays[name])
    assert close(weights(model), torch.cat([torch.from_numpy(a).reshape(-1) for a in arrays.values()]))


def test_the_schedule_free_rule_is_evaluated_at_the_average_of_its_steps():
    """The authors' three sequences, by hand: `z` takes the steps, `x` is their average, gradients are taken at `y`."""
    start = torch.linspace(-2, 2, 7)
    p = nn.Parameter(start.clone())
    optimizer = downslope.torch.Optimizer([p], downslope.schedule_free_sgd, lr=0.02, beta=0.9)
    x, z = start.clone(), start.clone()
    for t in range(1, 51):
        y = (0.1 * z + 0.9 * x).requires_grad_()
        (slope,) = torch.autograd.grad(hilly(y), y)
        z = z - 0.02 * slope
        x = x + (z - x) / t
        optimizer.zero_grad()
        hilly(p).backward()
        optimizer.step()
    with optimizer.at_weights():
        torch.testing.assert_close(p.detach(), x, rtol=0, atol=1e-13)
    assert (p.detach() - x).abs().max() > 1e-4


def test_what_an_optimizer_of_any_rule_refuses():
    p = [nn.Parameter(torch.zeros(2))]
    with pytest.raises(TypeError, match="is not a rule"):
        downslope.torch.Optimizer(p, "adam")
    with pytest.raises(TypeError, match="beta3"):
        downslope.torch.Optimizer(p, downslope.adam, beta3=0.9)
    with pytest.raises(ValueError, match="lookahead='ahead'"):
        downslope.torch.Optimizer(p, downslope.nesterov, lookahead="ahead")
    with pytest.raises(downslope.FormulaError, match="weight_decay"):
        downslope.torch.Optimizer(p, downslope.adam, decoupled=True)
