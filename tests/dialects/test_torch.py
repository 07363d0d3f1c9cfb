"""The dialect of PyTorch, beside `torch.optim` itself, both in double precision."""

import numpy as np
import pytest
import torch
from coverage_table import assert_all_are_tested
from extreme_gradients import START as EXTREME_START
from extreme_gradients import STEPS as EXTREME_STEPS
from extreme_gradients import assert_extreme_path

import downslope
import paths
from downslope.dialects import torch as dialect

DECAY = {"weight_decay": 0.01}

CASES = {
    "sgd": (dialect.sgd, {}, torch.optim.SGD, {}),
    "sgd, coupled decay": (dialect.sgd, DECAY, torch.optim.SGD, DECAY),
    "momentum": (dialect.sgd_momentum, {"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    "momentum, coupled decay, dampening": (
        dialect.sgd_momentum,
        {"momentum": 0.8, "dampening": 0.3, **DECAY},
        torch.optim.SGD,
        {"momentum": 0.8, "dampening": 0.3, **DECAY},
    ),
    "nesterov": (
        dialect.sgd_momentum,
        {"momentum": 0.9, "nesterov": True},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
    ),
    "momentum, coupled decay": (
        dialect.sgd_momentum,
        {"momentum": 0.9, **DECAY},
        torch.optim.SGD,
        {"momentum": 0.9, **DECAY},
    ),
    "nesterov, coupled decay": (
        dialect.sgd_momentum,
        {"momentum": 0.9, "nesterov": True, **DECAY},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, **DECAY},
    ),
    "adagrad": (dialect.adagrad, {}, torch.optim.Adagrad, {}),
    "adagrad, coupled decay": (dialect.adagrad, DECAY, torch.optim.Adagrad, DECAY),
    "adagrad, initial value": (
        dialect.adagrad,
        {"initial_accumulator_value": 2.0},
        torch.optim.Adagrad,
        {"initial_accumulator_value": 2.0},
    ),
    "adagrad, coupled decay, decaying rate": (
        dialect.adagrad,
        {"lr_decay": 0.01, **DECAY},
        torch.optim.Adagrad,
        {"lr_decay": 0.01, **DECAY},
    ),
    "rmsprop": (dialect.rmsprop, {}, torch.optim.RMSprop, {}),
    "rmsprop, coupled decay": (dialect.rmsprop, DECAY, torch.optim.RMSprop, DECAY),
    "rmsprop, centered": (dialect.rmsprop, {"centered": True}, torch.optim.RMSprop, {"centered": True}),
    "rmsprop, centered, coupled decay": (
        dialect.rmsprop,
        {"centered": True, "alpha": 0.9, **DECAY},
        torch.optim.RMSprop,
        {"centered": True, "alpha": 0.9, **DECAY},
    ),
    "rmsprop, momentum": (dialect.rmsprop_momentum, {"momentum": 0.9}, torch.optim.RMSprop, {"momentum": 0.9}),
    "rmsprop, momentum, centered": (
        dialect.rmsprop_momentum,
        {"momentum": 0.9, "centered": True},
        torch.optim.RMSprop,
        {"momentum": 0.9, "centered": True},
    ),
    "adam": (dialect.adam, {}, torch.optim.Adam, {}),
    "adam, coupled decay": (dialect.adam, DECAY, torch.optim.Adam, DECAY),
    "amsgrad, coupled decay": (
        dialect.adam,
        {"amsgrad": True, **DECAY},
        torch.optim.Adam,
        {"amsgrad": True, **DECAY},
    ),
    "amsgrad": (dialect.adam, {"amsgrad": True}, torch.optim.Adam, {"amsgrad": True}),
    "adamw": (dialect.adam, {"decoupled_weight_decay": True, "weight_decay": 0.01}, torch.optim.AdamW, {}),
    "amsgrad, decoupled decay": (
        dialect.adam,
        {"decoupled_weight_decay": True, "weight_decay": 0.1, "amsgrad": True},
        torch.optim.AdamW,
        {"weight_decay": 0.1, "amsgrad": True},
    ),
    "nadam": (dialect.nadam, {}, torch.optim.NAdam, {}),
    "nadam, coupled decay": (dialect.nadam, DECAY, torch.optim.NAdam, DECAY),
    "nadam, decoupled decay": (
        dialect.nadam,
        {"decoupled_weight_decay": True, **DECAY},
        torch.optim.NAdam,
        {"decoupled_weight_decay": True, **DECAY},
    ),
    "adamax": (dialect.adamax, {}, torch.optim.Adamax, {}),
    "adamax, coupled decay": (dialect.adamax, DECAY, torch.optim.Adamax, DECAY),
    "adadelta": (dialect.adadelta, {}, torch.optim.Adadelta, {}),
    "adadelta, coupled decay": (dialect.adadelta, DECAY, torch.optim.Adadelta, DECAY),
    "radam": (dialect.radam, {}, torch.optim.RAdam, {}),
    "radam, coupled decay": (dialect.radam, DECAY, torch.optim.RAdam, DECAY),
    "radam, decoupled decay": (
        dialect.radam,
        {"decoupled_weight_decay": True, **DECAY},
        torch.optim.RAdam,
        {"decoupled_weight_decay": True, **DECAY},
    ),
}


@pytest.fixture
def double_scalars():
    """NAdam's product of momenta is kept in torch's default dtype, whatever that of the weights."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_scalars")
@pytest.mark.parametrize("maximize", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps_are_those_of_torch(case, maximize):
    rule, ours, kind, theirs = CASES[case]
    path = paths.torch_path(lambda params: kind(params, maximize=maximize, **theirs), paths.GIVEN, paths.rates())
    paths.assert_path(path, rule, ours, maximize=maximize)


@pytest.mark.parametrize("case", CASES)
def test_squares_overflow_and_vanish_where_those_of_torch_do(case):
    """Centred, PyTorch subtracts a square without rounding it first where the processor can: infinity stays."""
    rule, ours, kind, theirs = CASES[case]
    parameter = torch.nn.Parameter(torch.from_numpy(EXTREME_START.copy()))
    optimizer = kind([parameter], lr=0.1, **theirs)

    def path():
        for gradient in EXTREME_STEPS:
            parameter.grad = torch.from_numpy(gradient.copy())
            optimizer.step()
            yield parameter.detach().numpy()

    assert_extreme_path(path(), rule, ours, largest=1e19 if "centered" in case else np.inf)


def test_adam_goes_on_after_a_gradient_whose_square_is_infinite():
    x, gradient = np.float32([1.0]), np.float32([1e20])
    optimizer = downslope.Optimizer(x, dialect.adam, lr=0.1)
    optimizer.step(gradient)
    np.testing.assert_allclose(optimizer.state["exp_avg_sq"]["0"], [1e37], rtol=1e-6)
    np.testing.assert_allclose(x, [0.9], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_infinite_weights_stay_until_there_is_a_decay(case):
    """As masks have them, with a gradient of 0; the decay becomes one on the way, as `param_groups` permits."""
    rule, ours, kind, theirs = CASES[case]
    x, gradient = np.float32([np.inf, -np.inf, 1.0]), np.float32([0.0, 0.0, 0.5])
    parameter = torch.nn.Parameter(torch.from_numpy(x.copy()))
    optimizer = downslope.Optimizer(x, rule, **{**ours, "lr": 0.1, "weight_decay": 0.0})
    reference = kind([parameter], **{**theirs, "lr": 0.1, "weight_decay": 0.0})
    for decay in (0.0, 0.0, 0.5, 0.0):
        optimizer.set(weight_decay=decay)
        reference.param_groups[0]["weight_decay"] = decay
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step(gradient)
        reference.step()
        np.testing.assert_allclose(x, parameter.detach().numpy(), rtol=1e-5, atol=1e-6)
        assert decay or np.isnan(x[:2]).all() or np.isinf(x[:2]).all()


@pytest.mark.parametrize("case", CASES)
def test_the_defaults_are_those_of_torch(case):
    rule, ours, kind, theirs = CASES[case]
    group = kind([torch.nn.Parameter(torch.zeros(1))], **theirs).param_groups[0]
    given = {**ours, "maximize": False}
    for name, value in {**rule.hyperparameters, **rule.flags}.items():
        if name in given:
            continue
        expected = group["betas"][int(name[-1]) - 1] if name in ("beta1", "beta2") else group[name]
        assert value == expected, name


@pytest.mark.parametrize("name", ["nadam"])
def test_the_formulas_are_certified(name):
    assert downslope.check_rule(getattr(dialect, name)).passed


def test_a_state_that_no_choice_uses_is_not_kept():
    x = np.zeros(3)
    assert sorted(downslope.Optimizer(x, dialect.rmsprop).state) == ["square_avg"]
    assert sorted(downslope.Optimizer(x, dialect.rmsprop, centered=True).state) == ["grad_avg", "square_avg"]
    assert sorted(downslope.Optimizer(x, dialect.adam).state) == ["exp_avg", "exp_avg_sq"]
    assert dialect.adam.cost().read == 16
    assert dialect.adam.cost(amsgrad=True).read == 20


def test_the_page_lists_what_is_tested():
    assert_all_are_tested("torch", CASES)
