"""Groups with rules of their own: one optimizer is two, and what is asked of all groups is asked of both rules."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import downslope
import downslope.torch
from downslope import CheckpointError
from downslope.torch import Optimizer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, 2))


def parts(model):
    """The matrix in the middle, and everything else."""
    inner = [model[2].weight]
    return inner, [p for p in model.parameters() if p is not inner[0]]


def together(model, usual=None, *, matrices=(), rest=(), **options):
    """One optimizer, Muon for the matrix; its numbers, and those of AdamW, are entries of groups."""
    inner, others = parts(model)
    mine = {"params": inner, "rule": downslope.muon, "lr": 0.02, **dict(matrices)}
    theirs = {"params": others, "lr": 3e-3, **dict(rest), **({} if usual else {"rule": downslope.adamw})}
    return Optimizer([mine, theirs], *([usual] if usual else []), **options)


def trained(model, optimizers, steps, *, first=0, around=lambda optimizer: optimizer.step()):
    for t in range(first, first + steps):
        torch.manual_seed(t)
        inputs = torch.randn(8, 6)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (model(inputs) - inputs[:, :2]).square().mean().backward()
        for optimizer in optimizers:
            around(optimizer)
    return [p.detach().clone() for p in model.parameters()]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"averaging": 0.9, "cautious": True, "weight_decay": 0.1, "decoupled": True, "state_dtype": torch.bfloat16}],
    ids=["plain", "with options"],
)
def test_one_optimizer_of_two_rules_is_two_optimizers(options):
    """AdamW has a weight decay of its own, which then is what the option is for it."""
    model, other = network(), network()
    decay = {name: value for name, value in options.items() if name == "weight_decay"}
    inner, others = parts(other)
    apart = {name: value for name, value in options.items() if name not in ("weight_decay", "decoupled")}
    two = [
        Optimizer(inner, downslope.muon, lr=0.02, **options),
        Optimizer(others, downslope.adamw, lr=3e-3, **apart, **decay),
    ]
    one = together(model, **options)
    assert equal(trained(model, [one], 200), trained(other, two, 200))
    if "averaging" in options:
        with one.at_average(), two[0].at_average(), two[1].at_average():
            assert equal(model.parameters(), other.parameters())


def test_gradients_are_clipped_by_the_norm_of_all_groups():
    model, other = network(), network()
    one, plain = together(model, max_norm=0.01), together(other)

    def clipped(optimizer):
        nn.utils.clip_grad_norm_(other.parameters(), 0.01)
        optimizer.step()

    ours, theirs = trained(model, [one], 20), trained(other, [plain], 20, around=clipped)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)  # PyTorch adds 1e-6 to the norm
    norms = [one.state[p][name] for p, name in ((model[2].weight, "m"), (model[0].weight, "m"))]
    assert all(float(norm.norm()) < 0.25 for norm in norms)  # of 20 gradients, unclipped some 1 each


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_a_gradient_that_is_not_finite_concerns_all_groups(policy):
    model = network()
    optimizer = together(model, nonfinite=policy)
    before = trained(model, [optimizer], 2)
    model[0].weight.grad[0, 0] = torch.inf
    if policy == "raise":
        with pytest.raises(downslope.NonFiniteGradientError):
            optimizer.step()
    else:
        optimizer.step()
        assert optimizer.skipped == 1
    assert equal(before, model.parameters())


def test_a_scaler_leaves_unscaling_and_skipping_to_the_step():
    model, other = network(), network()
    optimizer, plain = together(model), together(other)

    def scaled(optimizer):
        for p in model.parameters():
            p.grad *= 64
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(64.0), torch.tensor(0.0)
        optimizer.step()
        optimizer.found_inf = torch.tensor(1.0)
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf

    assert equal(trained(model, [optimizer], 5, around=scaled), trained(other, [plain], 5))


def test_a_step_in_the_backward_pass():
    model, other = network(), network()
    optimizer, plain = together(model), together(other)
    with optimizer.step_in_backward():
        ours = trained(model, [optimizer], 5, around=lambda _: None)
    assert equal(ours, trained(other, [plain], 5))


def test_a_group_of_its_own_rule_begins_with_that_rules_defaults_and_the_options_of_all():
    model = network()
    optimizer = together(model, downslope.adamw, beta1=0.5, averaging=0.9, rest={"weight_decay": 0.2})
    muon, adamw = optimizer.param_groups
    assert (muon["momentum"], muon["eps"], muon["averaging"]) == (0.95, 1e-7, 0.9)
    assert {"beta1", "decay_with_lr", "weight_decay"}.isdisjoint(muon)
    assert (adamw["beta1"], adamw["eps"], adamw["weight_decay"], adamw["averaging"]) == (0.5, 1e-8, 0.2, 0.9)


@pytest.mark.parametrize("turned", [False, True])
def test_a_weight_decay_that_one_group_brings_is_none_for_the_others(turned):
    """Whatever their order, and what the optimizer's own rule calls so is not for other rules."""
    model = network()
    inner, others = parts(model)
    groups = [
        {"params": inner, "rule": downslope.muon, "weight_decay": 0.1},
        {"params": others[:2], "rule": downslope.nesterov},
        {"params": others[2:]},
    ]
    optimizer = Optimizer(groups[::-1] if turned else groups, downslope.adamw, decoupled=True)
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert (decays[::-1] if turned else decays) == [0.1, 0.0, 0.01]


@pytest.mark.parametrize("usual", [None, downslope.nesterov])
@pytest.mark.parametrize("turned", [False, True])
def test_a_weight_decay_that_one_group_brings_leaves_the_others_their_rules_own(turned, usual):
    """Together or one by one; what is given to the optimizer is for all."""
    inner, others = parts(network())
    groups = [
        {"params": inner, "rule": downslope.muon, "weight_decay": 0.1},
        {"params": others[:1], "rule": downslope.adamw},
        {"params": others[1:2], "rule": downslope.nesterov},
    ]
    groups = groups[::-1] if turned else groups
    later = Optimizer(groups[:1], usual)
    for group in groups[1:]:
        later.add_param_group(dict(group))
    decays = [0.0, 0.01, 0.1] if turned else [0.1, 0.01, 0.0]
    for optimizer in (Optimizer(groups, usual), later):
        assert [group["weight_decay"] for group in optimizer.param_groups] == decays
    given = Optimizer(groups, usual, weight_decay=0.2)
    assert sorted(group["weight_decay"] for group in given.param_groups) == [0.1, 0.2, 0.2]


@pytest.mark.parametrize("usual", [None, downslope.sgd, downslope.adamw, downslope.muon])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_schedules_cycle_whichever_rules_have_a_momentum(order, usual):
    """In any order, one of them added later: a rule without momentum is trained as it is alone."""
    inner, others = parts(network())
    groups = [
        {"params": inner, "rule": downslope.muon},
        {"params": others[:1], "rule": downslope.adamw},
        {"params": others[1:2], "rule": downslope.sgd},
    ]
    optimizer = Optimizer([groups[k] for k in order[:2]], usual)
    optimizer.add_param_group(groups[order[2]])
    optimizer = copy.deepcopy(optimizer)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.25, total_steps=10, base_momentum=0.5, max_momentum=0.75)
    muon, adamw, plain = (optimizer.param_groups[order.index(k)] for k in range(3))
    (p,) = plain["params"]
    expected = p.detach().clone()
    for t in range(9):
        p.grad = torch.ones_like(p)
        expected -= plain["lr"]
        optimizer.step()
        schedule.step()
        wanted = muon["momentum"]
        assert wanted == adamw["beta1"] == adamw["betas"][0]
        assert (wanted == 0.5) == (t == 1)
    assert torch.allclose(p, expected)


def test_schedules_cycle_the_momentum_of_every_rule():
    """They look for the name of the optimizer's own rule in all groups."""
    model = network()
    for usual in (downslope.adamw, downslope.muon):
        optimizer = together(model, rest={"rule": downslope.adamw}, usual=usual)
        schedule = lr_scheduler.OneCycleLR(optimizer, [0.02, 3e-3], total_steps=10)
        seen = []
        for _ in range(4):
            trained(model, [optimizer], 1)
            schedule.step()
            muon, adamw = optimizer.param_groups
            seen.append(muon["momentum"])
            assert muon["momentum"] == adamw["beta1"] == adamw["betas"][0]
        assert len(set(seen)) > 1
    assert Optimizer(model[0].parameters(), downslope.lamb).param_groups[0].keys().isdisjoint({"momentum"})


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict", "file"])
def test_a_training_goes_on_bit_for_bit(how, tmp_path):
    model = network()
    optimizer = together(model, averaging=0.9)
    trained(model, [optimizer], 5)
    if how == "deepcopy":
        twin, resumed = copy.deepcopy((model, optimizer))
    elif how == "pickle":
        twin, resumed = pickle.loads(pickle.dumps((model, optimizer)))
    else:
        twin = network()
        resumed = together(twin, averaging=0.9, matrices={"lr": 7.0})
        if how == "state_dict":
            file = io.BytesIO()
            torch.save((model.state_dict(), optimizer.state_dict()), file)
            file.seek(0)
            weights, states = torch.load(file, weights_only=True)
            assert [group["rule"] for group in states["param_groups"]] == ["muon", "adamw"]
            twin.load_state_dict(weights)
            resumed.load_state_dict(states)
        else:
            optimizer.save(tmp_path / "training.safetensors", model)
            resumed.load(tmp_path / "training.safetensors", twin)
    assert resumed.param_groups[0]["lr"] == 0.02
    assert equal(trained(twin, [resumed], 5, first=5), trained(model, [optimizer], 5, first=5))


def test_whoever_saves_a_state_dict_from_a_hook_sees_the_names_of_rules():
    optimizer, files = together(network()), []

    def keep(_, found):
        files.append(io.BytesIO())
        torch.save(found, files[-1])

    optimizer.register_state_dict_post_hook(keep, prepend=True)
    for k in range(2):  # once is not for all
        optimizer.state_dict()
        files[k].seek(0)
        found = torch.load(files[k], weights_only=True)
        assert [group["rule"] for group in found["param_groups"]] == ["muon", "adamw"]
    optimizer.load_state_dict(found)
    assert optimizer.param_groups[0]["rule"] is downslope.muon


def test_states_of_another_rule_are_refused(tmp_path):
    model, other = network(), network()
    optimizer = together(model)
    trained(model, [optimizer], 2)
    elsewhere = together(other, matrices={"rule": downslope.lamb})
    before = trained(other, [elsewhere], 2)
    with pytest.raises(
        ValueError, match="group 0 of the state_dict was trained by muon, that of this optimizer is by lamb"
    ):
        elsewhere.load_state_dict(optimizer.state_dict())
    path = tmp_path / "training.safetensors"
    optimizer.save(path, model)
    with pytest.raises(CheckpointError, match="rule is 'muon', this optimizer's 'lamb'"):
        elsewhere.load(path, other)
    assert equal(before, other.parameters())
    assert elsewhere.param_groups[0]["rule"] is downslope.lamb
    turned = together(other, downslope.adamw)  # with one rule for all, and one group's own
    turned.load_state_dict(optimizer.state_dict())
    assert turned.param_groups[0]["rule"] is downslope.muon
    assert "rule" not in turned.param_groups[1]
    assert all(
        "rule" not in group for group in Optimizer(parts(model)[1], downslope.adamw).state_dict()["param_groups"]
    )


def test_a_group_added_later_has_its_rule_too():
    model, other = network(), network()
    inner, others = parts(model)
    optimizer = Optimizer([{"params": others, "rule": downslope.adamw, "lr": 3e-3}])
    with pytest.raises(ValueError, match="momentum=2"):
        optimizer.add_param_group({"params": inner, "rule": downslope.muon, "momentum": 2})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": inner, "rule": downslope.muon, "lr": 0.02})
    assert optimizer.defaults == {"maximize": False, "betas": (0.0,)}  # what schedules look for
    assert equal(trained(model, [optimizer], 3), trained(other, [together(other)], 3))


REFUSED = {
    "a vector given to Muon": (
        lambda p: Optimizer([{"params": p, "rule": downslope.muon}]),
        "muon multiplies matrices",
    ),
    "a group without a rule": (lambda p: Optimizer([{"params": p, "lr": 0.1}]), "a parameter group has no rule"),
    "no groups and no rule": (lambda p: Optimizer(p), "a parameter group has no rule"),
    "a name": (lambda p: Optimizer([{"params": p, "rule": "muon"}]), "rule='muon' is not a rule"),
    "a number for no rule": (
        lambda p: Optimizer([{"params": p, "rule": downslope.adam}], lr=0.1),
        "lr=0.1 is no option of every optimizer",
    ),
    "two names for one momentum": (
        lambda p: Optimizer(
            [{"params": p, "betas": (0.8, 0.99), "momentum": 0.7, "rule": downslope.adam}], downslope.momentum
        ),
        r"betas=\(0.8, 0.99\) and momentum=0.7, which are two names for one thing; give one of them",
    ),
    "a class of torch.optim": (
        lambda p: downslope.torch.SGD([{"params": p, "rule": downslope.muon}]),
        "but SGD is by the one rule of its name",
    ),
    "a number that is missing": (
        lambda p: Optimizer([{"params": p, "rule": downslope.rule(needy)}]),
        "needy has no default for lr",
    ),
}


def needy(x, dx, *, lr):
    return x - lr * dx


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case):
    make, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make([nn.Parameter(torch.ones(3))])


def test_a_saved_rule_is_refused_by_a_class_of_torch_optim():
    (p,) = itertools.islice(network().parameters(), 1)
    saved = Optimizer([{"params": [p], "rule": downslope.adamw}]).state_dict()
    with pytest.raises(TypeError, match="rule='adamw', but AdamW is by the one rule of its name"):
        downslope.torch.AdamW([p]).load_state_dict(saved)
