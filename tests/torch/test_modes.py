"""`eval()` and `train()`: parameters that hold the weights themselves or the point ahead, and what is saved then."""

import copy
import gc

import numpy as np
import pytest
import torch
from small_network import CLASSES, close, loss_of, network, step, weights
from torch import nn

import downslope
import downslope.torch

pytestmark = pytest.mark.usefixtures("double_by_default")

AHEAD = {
    "nesterov": (downslope.nesterov, {"lr": 0.05, "mu": 0.8}),
    "schedule-free SGD": (downslope.schedule_free_sgd, {"lr": 0.1}),
    "schedule-free AdamW": (downslope.schedule_free_adamw, {"lr": 0.02, "weight_decay": 0.1}),
}


def made(case, **options):
    model = network()
    rule, settings = AHEAD[case]
    return model, downslope.torch.Optimizer(model.parameters(), rule, **settings, **options)


@pytest.mark.parametrize("case", AHEAD)
def test_eval_moves_to_the_weights_and_train_back(case):
    model, optimizer = made(case)
    other, reference = made(case)
    for t in range(20):
        step(model, optimizer, t)
        step(other, reference, t)
        ahead = weights(model)
        optimizer.eval()
        with reference.at_weights():
            torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-13)
        optimizer.eval()  # a second time changes nothing
        with optimizer.at_weights(), reference.at_weights():
            torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-13)
        if t > 2:
            assert (weights(model) - ahead).abs().max() > 1e-5
        optimizer.train()
        torch.testing.assert_close(weights(model), ahead, rtol=0, atol=1e-14)
        optimizer.train()
        torch.testing.assert_close(weights(model), ahead, rtol=0, atol=1e-14)
    assert close(weights(model), weights(other))


@pytest.mark.parametrize("how", ["quick", "plain", "closure", "hooked", "in backward"])
def test_a_step_at_the_weights_is_refused(how):
    model, optimizer = made("nesterov", max_norm=1.0 if how == "plain" else None)
    for t in range(3):
        step(model, optimizer, t)
    if how == "hooked":
        optimizer.register_step_post_hook(lambda *_: None)
    if how == "in backward":
        handle = optimizer.step_in_backward()
    optimizer.eval()
    before, states = weights(model), copy.deepcopy(optimizer.state_dict()["state"])

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, 3)
        loss.backward()
        return loss

    def attempt():
        if how == "closure":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()

    with pytest.raises(RuntimeError, match=r"Call optimizer\.train\(\) before the forward pass"):
        attempt()
    assert torch.equal(weights(model), before)
    for own, was in zip(optimizer.state_dict()["state"].values(), states.values(), strict=True):
        assert all(torch.equal(own[name], was[name]) for name in was)
    if how == "in backward":
        handle.close()
    optimizer.train()
    step(model, optimizer, 3)


@pytest.mark.parametrize(
    ("case", "mode", "how"),
    [("schedule-free AdamW", mode, how) for mode in ("train", "eval") for how in ("state_dict", "file", "copy")]
    + [(case, "eval", "file") for case in ("nesterov", "schedule-free SGD")],
)
def test_a_training_saved_in_either_mode_goes_on_bit_for_bit(case, mode, how, tmp_path):
    model, optimizer = made(case)
    for t in range(5):
        step(model, optimizer, t)
    getattr(optimizer, mode)()
    if how == "copy":
        resumed, restored = copy.deepcopy((model, optimizer))
    else:
        resumed, restored = made(case)
    if how == "file":
        optimizer.save(tmp_path / "half.safetensors", model)
        getattr(restored, mode)()
        restored.load(tmp_path / "half.safetensors", resumed)
    if how == "state_dict":
        torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "half.pt")
        ofmodel, ofoptimizer = torch.load(tmp_path / "half.pt", weights_only=True)
        resumed.load_state_dict(ofmodel)
        restored.load_state_dict(ofoptimizer)
    with optimizer.at_weights(), restored.at_weights():
        assert torch.equal(weights(resumed), weights(model))
    if mode == "eval":
        step_refused(resumed, restored)
    optimizer.train()
    restored.train()
    for t in range(5, 10):
        step(model, optimizer, t)
        step(resumed, restored, t)
    assert torch.equal(weights(resumed), weights(model))


def step_refused(model, optimizer):
    loss_of(model, 0).backward()
    with pytest.raises(RuntimeError, match="after eval"):
        optimizer.step()


def test_a_file_is_the_same_whatever_the_mode_it_is_saved_in(tmp_path):
    """As far as the point ahead can be reckoned from the weights: numbers, and where a later training goes on."""
    model, optimizer = made("schedule-free AdamW")
    for t in range(5):
        step(model, optimizer, t)
    optimizer.save(tmp_path / "train.safetensors", model)
    optimizer.eval()
    optimizer.save(tmp_path / "eval.safetensors", model)
    from safetensors.numpy import load_file

    ahead, at_weights = (load_file(tmp_path / f"{mode}.safetensors") for mode in ("train", "eval"))
    assert ahead.keys() == at_weights.keys()
    for key, values in ahead.items():
        np.testing.assert_allclose(at_weights[key], values, rtol=0, atol=1e-14)
    other, resumed = made("schedule-free AdamW")
    resumed.eval()
    resumed.load(tmp_path / "train.safetensors", other)
    assert torch.equal(weights(other), weights(model))


def test_a_momentum_changed_in_between_places_the_point_anew():
    p = nn.Parameter(torch.ones(2))
    optimizer = downslope.torch.Optimizer([p], downslope.nesterov, lr=0.1, mu=0.9)
    p.grad = torch.ones(2)
    optimizer.step()  # v = -0.1, x = 0.9
    optimizer.eval()
    optimizer.param_groups[0]["mu"] = 0.5
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    assert p.tolist() == pytest.approx([0.9, 0.9], abs=1e-15)
    optimizer.train()
    assert p.tolist() == pytest.approx([0.85, 0.85], abs=1e-15)
    optimizer.step()


def test_averages_and_modes_do_not_mix_up():
    model, optimizer = made("nesterov", averaging=0.8)
    for t in range(5):
        step(model, optimizer, t)
    with optimizer.at_average():
        average = weights(model)
        with pytest.raises(RuntimeError, match=r"eval\(\) inside at_average\(\)"):
            optimizer.eval()
    optimizer.eval()
    there = weights(model)
    with optimizer.at_average():
        assert torch.equal(weights(model), average)
    assert torch.equal(weights(model), there)


@pytest.mark.parametrize("name", CLASSES)
def test_without_a_look_ahead_they_change_nothing(name):
    model = network()
    optimizer = getattr(downslope.torch, name)(model.parameters())
    step(model, optimizer, 0)
    before = weights(model)
    optimizer.eval()
    assert torch.equal(weights(model), before)
    step(model, optimizer, 1)
    assert not torch.equal(weights(model), before)
    assert "placed_by" not in optimizer.param_groups[0]


def test_explicit_points_are_left_alone():
    model, optimizer = made("nesterov", lookahead="explicit")
    step(model, optimizer, 0)
    before = weights(model)
    optimizer.eval()
    assert torch.equal(weights(model), before)
    step(model, optimizer, 1)


def test_it_evaluates_as_the_authors_own():
    """`schedulefree` by the authors of the rule, in its own convention."""
    schedulefree = pytest.importorskip("schedulefree")
    found = []
    for make in (
        lambda p: downslope.torch.Optimizer(p, downslope.schedule_free_sgd, lr=0.1, beta=0.9),
        lambda p: schedulefree.SGDScheduleFree(p, lr=0.1, momentum=0.9, foreach=False),
    ):
        model = network()
        optimizer = make(model.parameters())
        seen = []
        for t in range(20):
            optimizer.train()
            step(model, optimizer, t)
            optimizer.eval()
            seen.append(weights(model))
        found.append(torch.stack(seen))
    torch.testing.assert_close(*found, rtol=0, atol=1e-11)


def test_a_model_saved_between_steps_that_train_comes_before_is_the_weights():
    """Once it is known that `train()` comes before every step; copies of the model have nothing of it."""
    model, optimizer = made("schedule-free AdamW")
    for t in range(4):
        optimizer.train()
        step(model, optimizer, t)
    twin = copy.deepcopy(model)
    ahead = weights(twin)
    saved = torch.cat([value.reshape(-1) for value in model.state_dict().values()])
    assert (saved - ahead).abs().max() > 1e-5
    with optimizer.at_weights():
        assert torch.equal(weights(model), saved)
    assert torch.equal(torch.cat([value.reshape(-1) for value in twin.state_dict().values()]), ahead)
    optimizer.train()
    loss_of(model, 4).backward()
    before = weights(model)
    model.state_dict()  # between the forward pass and the step nothing moves
    assert torch.equal(weights(model), before)
    optimizer.step()


def test_a_compiled_model_saved_between_steps_is_the_weights_and_nothing_warns():
    """Hooks on all modules, instead of those that are trained, would make `torch.compile` warn whoever compiles one."""
    model, optimizer = made("schedule-free AdamW")
    plain, reference = made("schedule-free AdamW")
    compiled = torch.compile(model, backend="eager")
    for t in range(4):
        for trained, its in ((compiled, optimizer), (plain, reference)):
            its.train()
            step(trained, its, t)
    saved = torch.cat([value.reshape(-1) for value in compiled.state_dict().values()])
    with reference.at_weights():
        torch.testing.assert_close(saved, weights(plain), rtol=0, atol=1e-13)


def test_what_is_trained_by_two_optimizers_is_saved_as_the_weights_of_both():
    model = network()
    rule, settings = AHEAD["schedule-free SGD"]
    parts = list(model.parameters())
    first, second = (downslope.torch.Optimizer(part, rule, **settings) for part in (parts[::2], parts[1::2]))
    for t in range(4):
        first.train()
        second.train()
        loss_of(model, t).backward()
        first.step()
        second.step()
        model.zero_grad()
    saved = torch.cat([value.reshape(-1) for value in model.state_dict().values()])
    with first.at_weights(), second.at_weights():
        assert torch.equal(weights(model), saved)
    first.train()
    assert (weights(model) - saved).abs().max() > 1e-6


def test_a_model_outlives_the_optimizer_that_looked_at_it():
    model, optimizer = made("schedule-free SGD")
    optimizer.train()
    hooked = [module for module in model.modules() if module._state_dict_pre_hooks]
    assert len(hooked) == 3
    del optimizer
    gc.collect()
    assert not any(module._state_dict_pre_hooks or module._load_state_dict_pre_hooks for module in hooked)


def test_a_model_saved_where_train_may_not_come_again_is_left_alone():
    model, optimizer = made("schedule-free AdamW")
    optimizer.train()
    for t in range(4):
        step(model, optimizer, t)
    before = weights(model)
    model.state_dict()
    assert torch.equal(weights(model), before)
    step(model, optimizer, 4)
