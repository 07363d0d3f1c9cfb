"""What surrounds the step of `downslope.torch`'s optimizers: groups, schedulers, hooks, scalers, copies, options.

Where `torch.optim` does the same, both train the same small network in double precision. Their gradients are taken at
weights that differ by roundings, which this loss does not amplify: they stay within 1e-11 over some tens of steps.
"""

import copy
import functools
import pickle

import pytest
import torch
from small_network import BOTH, CLASSES, FEW, batch, close, loss_of, network, step, trained, weights
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import downslope
import downslope.torch

pytestmark = pytest.mark.usefixtures("double_by_default")


def same_as_torch(name, each=step, steps=20, **options):
    """Whether both classes of this name train alike."""
    mine, theirs = (trained(functools.partial(getattr(module, name), **options), steps, each) for module in BOTH)
    return close(mine, theirs)


# Parameter groups


@pytest.mark.parametrize("name", FEW)
def test_groups_and_a_group_added_later(name):
    results = []
    for module in BOTH:
        model = network()
        groups = [{"params": model[0].parameters(), "lr": 0.03}, {"params": model[2].parameters(), "weight_decay": 0.1}]
        optimizer = getattr(module, name)(groups, lr=0.01)
        for t in range(20):
            # torch's Adagrad makes states at its construction only, and knows no state of parameters added later
            if t == 7 and name != "Adagrad":
                optimizer.add_param_group({"params": model[4].parameters(), "lr": 0.05})
            step(model, optimizer, t)
        results.append(weights(model))
    assert close(*results)


def test_adagrad_takes_parameters_added_later():
    model, other = network(), network()
    optimizer = downslope.torch.Adagrad(model[0].parameters(), lr=0.1)
    reference = torch.optim.Adagrad(other[0].parameters(), lr=0.1)
    for t in range(10):
        if t == 4:
            optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.2})
            second = torch.optim.Adagrad(other[2].parameters(), lr=0.2)
        step(model, optimizer, t)
        other.zero_grad()
        loss_of(other, t).backward()
        reference.step()
        if t >= 4:
            second.step()
    assert close(weights(model), weights(other))


def test_named_parameters():
    def named(module):
        model = network()
        optimizer = module.Adam(model.named_parameters(), lr=0.01)
        assert optimizer.param_groups[0]["param_names"][:2] == ["0.weight", "0.bias"]
        for t in range(5):
            step(model, optimizer, t)
        return weights(model)

    assert close(*map(named, BOTH))


def test_a_setting_changed_between_steps_holds_from_then_on():
    def each(model, optimizer, t):
        group = optimizer.param_groups[0]
        group.update(betas=(0.5 + t / 100, 0.9), weight_decay=t / 100, maximize=t == 3)
        step(model, optimizer, t)

    assert same_as_torch("Adam", each, lr=0.01)


def test_momentum_switched_on_midway_starts_from_the_buffer_of_torch():
    def each(model, optimizer, t):
        optimizer.param_groups[0]["momentum"] = 0.9 if 5 <= t < 10 or t > 15 else 0
        step(model, optimizer, t)

    assert same_as_torch("SGD", each, lr=0.05)


def test_a_parameter_given_twice_is_refused():
    model = network()
    twice = [*model.parameters(), model[0].weight]
    with pytest.raises(ValueError, match="twice in one group"):
        downslope.torch.SGD(twice)
    with pytest.raises(ValueError, match="more than one parameter group"):
        downslope.torch.SGD([{"params": model.parameters()}, {"params": [model[0].weight]}])


# The step itself


@pytest.mark.parametrize("name", FEW)
def test_closures(name):
    def each(model, optimizer, t):
        def closure():
            optimizer.zero_grad()
            loss = loss_of(model, t)
            loss.backward()
            return loss

        before = loss_of(model, t).item()
        with torch.no_grad():
            assert optimizer.step(closure).item() == before

    assert same_as_torch(name, each, lr=0.01)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("first", [0, 3], ids=["from the first step", "from the fourth step"])
def test_steps_inside_no_grad_and_inference_mode(mode, first):
    def each(model, optimizer, t):
        optimizer.zero_grad()
        loss_of(model, t).backward()
        if t < first or t > 6:
            optimizer.step()
        else:
            with mode():
                optimizer.step()

    assert close(
        trained(functools.partial(downslope.torch.Adam, lr=0.01), 10, each),
        trained(functools.partial(torch.optim.Adam, lr=0.01), 10),
    )


@pytest.mark.parametrize("module", BOTH, ids=["downslope", "torch"])
def test_autograd_notices_that_a_step_changed_what_a_graph_has_kept(module):
    p = nn.Parameter(torch.ones(3))
    optimizer = module.SGD([p], lr=0.1)
    p.grad = torch.ones(3)
    loss = (p * p).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_hooks_run_once_each_and_in_torchs_order():
    def events(module):
        seen = []
        model = network()
        optimizer = module.Adam(model.parameters(), lr=0.01)
        note = lambda what: lambda *args: seen.append((what, len(args), args[0] is optimizer))  # noqa: E731
        handles = [
            optimizer.register_step_pre_hook(note("before")),
            optimizer.register_step_post_hook(note("after")),
            register_optimizer_step_pre_hook(note("before any")),
            register_optimizer_step_post_hook(note("after any")),
        ]
        step(model, optimizer, 0)
        optimizer.step(lambda: 5)
        for handle in handles:
            handle.remove()
        step(model, optimizer, 1)
        return seen

    mine, theirs = map(events, BOTH)
    assert mine == theirs
    assert len(mine) == 8


@pytest.mark.parametrize("module", BOTH, ids=["downslope", "torch"])
def test_a_pre_hook_may_replace_the_closure(module):
    p = nn.Parameter(torch.ones(3))
    optimizer = module.SGD([p], lr=1.0)
    optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: ((optimizer, lambda: "replaced"), {}))
    assert optimizer.step(lambda: "given") == "replaced"


def test_the_profiler_shows_the_step():
    model = network()
    optimizer = downslope.torch.Adam(model.parameters())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(model, optimizer, 0)
    assert "Optimizer.step#Adam.step" in {event.key for event in profile.key_averages()}


def test_accumulated_gradients():
    def each(model, optimizer, t):
        (loss_of(model, t) / 3).backward()
        if t % 3 == 2:
            optimizer.step()
            optimizer.zero_grad(set_to_none=t % 2 == 0)

    assert same_as_torch("Adam", each, steps=30, lr=0.01)


def test_a_compiled_model():
    def each(model, optimizer, t):
        optimizer.zero_grad()
        compiled = each.compiled.setdefault(id(model), torch.compile(model, backend="aot_eager"))
        loss_of(compiled, t).backward()
        optimizer.step()

    each.compiled = {}
    assert same_as_torch("AdamW", each, lr=0.01)


# Learning rates

SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.95),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.3),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 8),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 15, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, 4),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 25),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 4), lr_scheduler.ExponentialLR(o, 0.9)], o
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 4), lr_scheduler.ExponentialLR(o, 0.9)], [5]
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # from SequentialLR itself
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(scheduler, name):
    options = {"momentum": 0.9, "lr": 0.05} if name == "SGD" else {"lr": 0.05}
    results = []
    for module in BOTH:
        model = network()
        optimizer = getattr(module, name)(model.parameters(), **options)
        schedule = SCHEDULERS[scheduler](optimizer)
        rates = []
        for t in range(20):
            step(model, optimizer, t)
            schedule.step(*[1.0] if scheduler == "ReduceLROnPlateau" else [])
            rates.append(optimizer.param_groups[0]["lr"])
        assert len(set(rates)) > 1
        results.append((weights(model), rates))
    (mine, my_rates), (theirs, their_rates) = results
    assert close(mine, theirs)
    assert my_rates == their_rates


def test_a_learning_rate_that_is_a_tensor_is_read_at_every_step():
    def each(model, optimizer, t):
        optimizer.param_groups[0]["lr"].fill_(0.01 * (t % 3))
        step(model, optimizer, t)

    mine = trained(lambda params: downslope.torch.Adam(params, lr=torch.tensor(0.01)), each=each)
    theirs = trained(lambda params: torch.optim.Adam(params, lr=torch.tensor(0.01), foreach=False), each=each)
    assert close(mine, theirs)


# Gradient scalers


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW"])
@pytest.mark.parametrize("given", [("grad_scale",), ("found_inf",), ("grad_scale", "found_inf")], ids=" and ".join)
def test_what_a_scaler_sets_is_heeded_alone_and_together(name, given):
    """As in the fused optimizers of `torch.optim`, from the first step on and between ordinary ones."""

    def each(model, optimizer, t):
        optimizer.zero_grad()
        (loss_of(model, t) * (8 if "grad_scale" in given and t % 3 == 0 else 1)).backward()
        if t % 3 == 0:
            values = {"grad_scale": torch.tensor(8.0).float(), "found_inf": torch.tensor(float(t == 6)).float()}
            optimizer.__dict__.update({key: values[key] for key in given})
        optimizer.step()
        for key in given if t % 3 == 0 else ():
            delattr(optimizer, key)

    assert same_as_torch(name, each, lr=0.01, fused=True)


def scaled_step(model, optimizer, scaler, t, *, clip):
    optimizer.zero_grad()
    loss = scaler.scale(loss_of(model, t))
    (loss * torch.inf if t == 4 else loss).backward()
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("clip", [False, True], ids=["scaled", "unscaled and clipped"])
@pytest.mark.parametrize("name", FEW)
def test_a_gradient_scaler(name, clip):
    results = []
    for module in BOTH:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        model = network()
        optimizer = getattr(module, name)(model.parameters(), lr=0.01)
        for t in range(10):
            before = weights(model)
            scaled_step(model, optimizer, scaler, t, clip=clip)
            assert torch.equal(before, weights(model)) is (t == 4)
            assert scaler.get_scale() == (1024.0 if t < 4 else 512.0)
        results.append(weights(model))
    assert close(*results)


def test_a_gradient_scaler_with_max_norm_clips_the_unscaled_gradients():
    results = []
    for module, options in zip(BOTH, ({"max_norm": 0.1}, {}), strict=True):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        model = network()
        optimizer = module.SGD(model.parameters(), lr=0.1, **options)
        for t in range(10):
            scaled_step(model, optimizer, scaler, t, clip=module is torch.optim)
        results.append(weights(model))
    # clip_grad_norm_ divides by norm + 1e-6, with norms of 0.1 and more: less by at most 1e-5 of a way of at most
    # 10 * 0.1 * 0.1
    assert close(*results, tolerance=1e-6)


# Copies


def copies():
    yield "deepcopy", copy.deepcopy
    yield "pickle", lambda both: pickle.loads(pickle.dumps(both))


@pytest.mark.parametrize("how", dict(copies()))
@pytest.mark.parametrize("name", FEW)
def test_a_copy_of_model_and_optimizer_goes_on_bit_for_bit(name, how):
    model = network()
    optimizer = getattr(downslope.torch, name)(model.parameters(), lr=0.01, averaging=0.9)
    for t in range(5):
        step(model, optimizer, t)
    at_copy = weights(model)
    other, other_optimizer = dict(copies())[how]((model, optimizer))
    for t in range(5, 10):
        step(model, optimizer, t)
    assert torch.equal(weights(other), at_copy)  # nothing is shared
    for t in range(5, 10):
        step(other, other_optimizer, t)
    assert torch.equal(weights(other), weights(model))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[p]["average"], other_optimizer.state[q]["average"])
    assert type(other_optimizer) is type(optimizer)


@pytest.mark.parametrize("name", CLASSES)
def test_repr_is_that_of_torch(name):
    mine, theirs = (repr(getattr(module, name)(network().parameters(), lr=0.5)) for module in BOTH)
    assert mine == theirs


# Gradients that are late, missing, or not as expected


@pytest.mark.parametrize("name", FEW)
def test_parameters_whose_gradients_are_late_or_missing(name):
    """The second layer begins at step 5, and by chance a layer has no gradient; the first bias is frozen."""

    def each(model, optimizer, t):
        model[0].bias.requires_grad_(False)
        optimizer.zero_grad()
        loss_of(model, t).backward()
        chosen = torch.rand(len(model), generator=torch.Generator().manual_seed(t)) < 0.3
        for k, layer in enumerate(model):
            if chosen[k] or (k == 2 and t < 5):
                for p in layer.parameters():
                    p.grad = None
        optimizer.step()

    assert same_as_torch(name, each, steps=30, lr=0.01)


def test_steps_without_any_gradient_change_nothing():
    model = network()
    optimizer = downslope.torch.Adam(model.parameters(), max_norm=1.0, averaging=0.9)
    before = weights(model)
    optimizer.step()
    assert torch.equal(weights(model), before)
    assert not optimizer.state


@pytest.mark.parametrize(
    "disguise",
    [
        lambda g: g.clone(),
        lambda g: g.mean().expand(g.shape),
        lambda g: g.clone().t().contiguous().t() if g.ndim == 2 else g.flip(0).flip(0),
        lambda g: torch.stack([g, g], -1)[..., 0],
        lambda g: torch.view_as_complex(torch.stack([g, g], -1)).conj().imag.neg(),
        lambda g: torch.view_as_complex(torch.stack([g, g], -1)).conj().imag,
    ],
    ids=["fresh", "expanded", "transposed", "strided", "negated", "lazily negated"],
)
def test_gradients_of_any_form(disguise):
    def each(model, optimizer, t):
        optimizer.zero_grad()
        loss_of(model, t).backward()
        if t % 4:
            for p in model.parameters():
                p.grad = disguise(p.grad)
        optimizer.step()

    assert same_as_torch("Adam", each, lr=0.01)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # from torch.optim.Adagrad itself
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_sparse_gradients(name):
    results = []
    for module in BOTH:
        torch.manual_seed(0)
        table = nn.Embedding(10, 3, sparse=True)
        optimizer = getattr(module, name)(table.parameters(), lr=0.1)
        for t in range(10):
            optimizer.zero_grad()
            table(torch.tensor([t % 4, 1, 1, 7])).square().sum().backward()
            assert table.weight.grad.is_sparse
            optimizer.step()
        results.append(table.weight.detach())
    torch.testing.assert_close(*results, rtol=0, atol=1e-13)


def test_tied_parameters():
    def tied(module):
        model = network()
        model[2].weight = nn.Parameter(model[2].weight.detach().clone())
        model[2].bias = model[0].bias
        optimizer = module.Adam(model.parameters(), lr=0.01)
        for t in range(20):
            step(model, optimizer, t)
        assert model[2].bias is model[0].bias
        return weights(model)

    mine, theirs = map(tied, BOTH)
    assert len(mine) < len(weights(network()))
    assert close(mine, theirs)


# Parameters that move


@pytest.mark.parametrize("name", FEW)
def test_a_parameter_with_new_data(name):
    def each(model, optimizer, t):
        if t in (0, 4, 5):
            model[2].weight.data = model[2].weight.data.flip(0).clone() * 0.9
        step(model, optimizer, t)

    assert same_as_torch(name, each, lr=0.01)


@pytest.mark.parametrize("name", FEW)
def test_states_follow_a_model_into_another_precision(name):
    """In `torch.optim` most classes cannot go on; here the states are converted with the weights."""
    model = network().float()
    optimizer = getattr(downslope.torch, name)(model.parameters(), lr=0.01)
    for t in range(5):
        optimizer.zero_grad()
        (model(batch(t).float()) - 1).square().mean().backward()
        optimizer.step()
    model.double()
    other = copy.deepcopy(model)
    reference = getattr(torch.optim, name)(other.parameters(), lr=0.01)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        own = optimizer.state[p]
        reference.state[q] = {k: v.clone().to(torch.float32 if k == "step" else q.dtype) for k, v in own.items()}
    for t in range(5, 15):
        step(model, optimizer, t)
        step(other, reference, t)
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-12)
    assert all(v.dtype == torch.float64 for own in optimizer.state.values() for k, v in own.items() if k != "step")


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"capturable": True}, ValueError, "capturable=True is not possible"),
        ({"differentiable": True}, ValueError, "differentiable=True is not possible"),
        ({"foreach": True, "fused": True}, ValueError, "exclude each other"),
        ({"lr": -1.0}, ValueError, r"lr=-1\.0"),
        ({"lr": float("nan")}, ValueError, "lr=nan"),
        ({"lr": lambda t: 0.1}, TypeError, "torch.optim.lr_scheduler"),
        ({"lr": torch.ones(2)}, ValueError, r"shape \(2,\)"),
        ({"lr": "fast"}, TypeError, "'fast'"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\]=1.0"),
        ({"betas": 0.9}, TypeError, "betas=0.9"),
        ({"eps": -1e-8}, ValueError, "eps=-1e-08"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay=-0.1"),
        ({"amsgrad": 1.5}, TypeError, "amsgrad=1.5"),
        ({"maximize": 1}, TypeError, "maximize=1"),
        ({"learning_rate": 0.1}, TypeError, "'learning_rate'"),
        ({"nonfinite": "ignore"}, ValueError, "nonfinite='ignore'"),
        ({"rounding": "down"}, ValueError, "rounding='down'"),
        ({"rounding": "stochastic"}, ValueError, "bfloat16"),
        ({"state_dtype": torch.bfloat16}, ValueError, "state_dtype=torch.bfloat16"),
        ({"state_dtype": "bfloat16"}, TypeError, "state_dtype='bfloat16'"),
        ({"max_norm": -1.0}, ValueError, "max_norm=-1.0"),
        ({"averaging": 1.5}, ValueError, "averaging=1.5"),
        ({"threads": 0}, ValueError, "threads=0"),
        ({"seed": 0.5}, TypeError, "seed=0.5"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_refused_when_made(options, error, message):
    with pytest.raises(error, match=message):
        downslope.torch.Adam(network().parameters(), **options)


@pytest.mark.parametrize(
    ("name", "meant"), [("weight_decy", "weight_decay"), ("beta", "betas"), ("maximise", "maximize")]
)
def test_a_misspelt_setting_of_a_group_is_warned_of(name, meant):
    model = network()
    with pytest.warns(UserWarning, match=f"has {name}=0.1, which .* did you mean {meant}") as caught:
        optimizer = downslope.torch.AdamW([{"params": model.parameters(), name: 0.1}])
    assert caught[0].filename == __file__
    assert optimizer.param_groups[0][name] == 0.1


def test_entries_of_ones_own_are_carried_as_in_torch():
    """Those too that begin or end like a setting; warnings are errors here."""
    own = {"role": "first", "no_weight_decay": True, "eps1": 1, "betas_end": 2, "lr_scale": 3.0, 7: "number"}
    for module in BOTH:
        optimizer = module.AdamW([{"params": network().parameters(), **own}])
        saved = optimizer.state_dict()["param_groups"][0]
        assert {key: saved[key] for key in own} == own


def test_settings_of_a_refused_group_change_nothing():
    model = network()
    optimizer = downslope.torch.AdamW([{"params": model[0].parameters(), "role": "first"}])
    assert optimizer.param_groups[0]["role"] == "first"
    with pytest.raises(ValueError, match="eps=-1"):
        optimizer.add_param_group({"params": model[2].parameters(), "eps": -1.0})
    assert len(optimizer.param_groups) == 1


def test_a_setting_that_becomes_wrong_is_refused_before_anything_changes():
    model = network()
    optimizer = downslope.torch.Adam(model.parameters())
    step(model, optimizer, 0)
    before = weights(model)
    for setting, wrong, error in (("lr", -1.0, ValueError), ("lr", None, TypeError), ("betas", (0.9,), TypeError)):
        optimizer.param_groups[0].update({"lr": 0.01, "betas": (0.9, 0.999)})
        optimizer.param_groups[0][setting] = wrong
        with pytest.raises(error, match=setting):
            optimizer.step()
        assert torch.equal(weights(model), before)
    optimizer.param_groups[0].update({"lr": 0.01, "betas": (0.9, 0.999)})
    optimizer.step()
    assert not torch.equal(weights(model), before)
    assert all(own["step"] == 2 for own in optimizer.state.values())


@pytest.mark.parametrize(("momentum", "dampening"), [(0, 0), (0.9, 0.1)])
def test_nesterov_needs_a_momentum_and_no_dampening(momentum, dampening):
    for module in BOTH:
        with pytest.raises(ValueError, match=r"[Nn]esterov"):
            module.SGD(network().parameters(), nesterov=True, momentum=momentum, dampening=dampening)


# What torch.optim makes when it is made, and where


@pytest.mark.parametrize("begun", [0.0, 0.5])
def test_adagrads_sums_are_there_from_the_start(begun):
    """Also those of parameters that have no gradient yet, and in `torch.optim` after they were loaded there."""
    found = []
    for module in BOTH:
        model = network()
        optimizer = module.Adagrad(model.parameters(), lr=0.1, initial_accumulator_value=begun)
        saved = optimizer.state_dict()
        assert len(saved["state"]) == 6
        reference = torch.optim.Adagrad(model.parameters(), lr=0.1)
        reference.load_state_dict(copy.deepcopy(saved))
        for t in range(5):
            if t > 2:
                step(model, reference, t)
            else:
                reference.zero_grad()
                model[:3](batch(t)).square().mean().backward()
                reference.step()
        found.append(weights(model))
    assert close(*found)


def test_adagrads_sums_can_be_shared_among_processes():
    p = nn.Parameter(torch.ones(3))
    optimizer = downslope.torch.Adagrad([p])
    optimizer.share_memory()
    assert optimizer.state[p]["sum"].is_shared()
    p.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.state[p]["sum"].is_shared()
    assert optimizer.state[p]["sum"].tolist() == [1.0] * 3


@pytest.mark.parametrize("name", [*CLASSES, "a rule"])
def test_another_default_device_is_none_of_a_steps_business(name, tmp_path):
    """What is made for a parameter is on its device, and clocks are in main memory."""

    def make(model):
        if name == "a rule":
            return downslope.torch.Optimizer(model.parameters(), downslope.nesterov, lr=0.01, max_norm=1.0)
        return getattr(downslope.torch, name)(model.parameters(), lr=0.01, max_norm=1.0)

    model, other = network(), network()
    gradients = [torch.ones_like(p) for p in model.parameters()]
    for on, device in ((model, None), (other, "meta")):
        torch.set_default_device(device)
        try:
            optimizer = make(on)
            for _ in range(3):
                for p, gradient in zip(on.parameters(), gradients, strict=True):
                    p.grad = gradient
                optimizer.step()
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            optimizer.save(tmp_path / "state.safetensors", on)
            optimizer.load(tmp_path / "state.safetensors", on)
            optimizer.step()
            optimizer.eval()
        finally:
            torch.set_default_device(None)
    assert torch.equal(weights(model), weights(other))


# Loading in the middle of things


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("when", ["before", "after", "in the closure"])
@pytest.mark.parametrize("copied", [False, True], ids=["what is there", "a copy of the start"])
def test_a_state_loaded_in_a_step_hook(name, when, copied):
    """A state_dict refers to the states themselves: loading it again later changes nothing, in `torch.optim` too."""
    found = []
    for module in BOTH:
        model = network()
        optimizer = getattr(module, name)(model.parameters(), lr=0.01, **({"momentum": 0.9} if name == "SGD" else {}))
        step(model, optimizer, 0)
        saved = optimizer.state_dict()
        saved = copy.deepcopy(saved) if copied else saved

        def load(optimizer, *_, saved=saved):
            optimizer.load_state_dict(copy.deepcopy(saved) if copied else saved)

        if when == "before":
            optimizer.register_step_pre_hook(load)
        if when == "after":
            optimizer.register_step_post_hook(load)
        for t in range(1, 8):
            if when == "in the closure":
                optimizer.zero_grad()
                loss_of(model, t).backward()
                optimizer.step(functools.partial(load, optimizer))
            else:
                step(model, optimizer, t)
        found.append(weights(model))
    assert close(*found)


def test_a_loaded_state_is_a_copy_unless_it_is_ones_own():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    one, other = downslope.torch.Adam([p]), downslope.torch.Adam([q])
    for optimizer, parameter in ((one, p), (other, q)):
        parameter.grad = torch.ones(2)
        optimizer.step()
    other.load_state_dict(one.state_dict())
    moment = one.state[p]["exp_avg"]
    assert other.state[q]["exp_avg"] is not moment
    one.load_state_dict(one.state_dict())
    assert one.state[p]["exp_avg"] is moment
