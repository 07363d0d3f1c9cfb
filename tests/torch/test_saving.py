import contextlib
import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

import downslope
import downslope.torch
from downslope import CheckpointError
from downslope.dialects import torch as dialect
from downslope.training import checkpoint
from forked import run_alone

load, save = downslope.torch.Optimizer.load, downslope.torch.Optimizer.save

SHAPES = {"weight": (3, 4), "bias": (), "empty": (0, 2), "late": (5,), "never": (2,)}
LATE = 5  # the first step in which `late` has a gradient


class Part(nn.Module):
    def __init__(self, shapes, dtype):
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape).to(dtype)))


def model_of(dtype=torch.float32, seed=0, shapes=SHAPES):
    torch.manual_seed(seed)
    return nn.Sequential(Part(shapes, dtype), Part({"weight": (2, 2)}, dtype))


def walk(model, optimizer, begin, end):
    for t in range(begin, end):
        for k, (name, p) in enumerate(model.named_parameters()):
            absent = "never" in name or ("late" in name and t < LATE)
            generator = torch.Generator().manual_seed(100 * t + k)
            g = torch.randn((*p.shape, 2), generator=generator, dtype=torch.float64)
            g = torch.view_as_complex(g) if p.is_complex() else g[..., 0]
            p.grad = None if absent else g.to(p.dtype)
        optimizer.step()


def any_rule(rule, **options):
    return lambda model: downslope.torch.Optimizer(model.parameters(), rule, **options)


def of_class(kind, **options):
    return lambda model: getattr(downslope.torch, kind)(model.parameters(), **options)


def in_groups(make, **second):
    """An optimizer for the model's parts, with settings of its own for the second one."""
    return lambda model: make([{"params": [*model[0].parameters()]}, {"params": [*model[1].parameters()], **second}])


def contents(model, optimizer):
    """Every bit of weights and states, and every number."""
    names = {p: name for name, p in model.named_parameters()}
    tensors = {("x", name): p.detach() for p, name in names.items()}
    tensors |= {(key, names[p]): value for p, own in optimizer.state.items() for key, value in own.items()}
    groups = [
        {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in group.items() if k != "params"}
        for group in optimizer.param_groups
    ]
    return {
        "tensors": {
            key: (t.dtype, tuple(t.shape), t.resolve_conj().contiguous().reshape(-1).view(torch.uint8).tolist())
            for key, t in tensors.items()
        },
        "groups": groups,
        "skipped": optimizer.skipped,
        "max_norm": optimizer.max_norm,
    }


@contextlib.contextmanager
def unchanged(model, optimizer, error, *words):
    """The block raises this error, its message holds all these words, and nothing has changed."""
    before = contents(model, optimizer)
    with pytest.raises(error) as caught:
        yield
    assert contents(model, optimizer) == before
    for word in words:
        assert word in str(caught.value)


# Going on

HALF = torch.bfloat16
CASES = {
    "Adam": (of_class("Adam", lr=0.1, betas=(0.5, 0.75)), torch.float32),
    "Adam, float64": (of_class("Adam", lr=0.1, max_norm=0.5), torch.float64),
    "AdamW, amsgrad, a tensor for lr": (of_class("AdamW", lr=torch.tensor(0.1), amsgrad=True), torch.float32),
    "SGD, two rules": (
        in_groups(lambda params: downslope.torch.SGD(params, lr=0.1), momentum=0.9, nesterov=True, lr=0.2),
        torch.float32,
    ),
    "Adagrad": (of_class("Adagrad", initial_accumulator_value=0.5), torch.float32),
    "RMSprop": (of_class("RMSprop", momentum=0.5, centered=True, maximize=True), torch.float32),
    "NAdam": (of_class("NAdam", averaging=0.9), torch.float32),
    "groups": (
        in_groups(lambda params: downslope.torch.Optimizer(params, downslope.adam, weight_decay=0.1), lr=0.5),
        torch.float32,
    ),
    "nesterov": (any_rule(downslope.nesterov, lr=0.1, averaging=0.9), torch.float32),
    "nesterov, explicit": (any_rule(downslope.nesterov, lr=0.1, lookahead="explicit"), torch.float32),
    "nesterov, bfloat16": (any_rule(downslope.nesterov, lr=0.1, averaging=0.9), HALF),
    "adam with everything": (
        any_rule(downslope.adam, weight_decay=0.1, decoupled=True, max_norm=1.0, averaging=0.9, cautious=True),
        torch.float32,
    ),
    "schedule-free": (any_rule(downslope.rules.schedule_free_sgd, lr=0.1), torch.float32),
    "compensated": (of_class("Adam", lr=0.1, rounding="compensated", state_dtype=torch.float32), HALF),
    "stochastic": (of_class("Adam", lr=0.1, rounding="stochastic", seed=-3), HALF),
    "float16": (of_class("Adam", lr=0.1, averaging=0.9), torch.float16),
    "states in bfloat16": (of_class("Adam", lr=0.1, state_dtype=HALF, averaging=0.5), torch.float32),
    "complex64": (of_class("Adam", lr=0.1), torch.complex64),
    "complex128": (any_rule(downslope.nesterov, lr=0.1, averaging=0.5), torch.complex128),
}


@pytest.mark.parametrize("stop", [3, 7])  # before and after the first gradient of `late`
@pytest.mark.parametrize("case", CASES)
def test_a_loaded_optimizer_goes_on_bit_for_bit(case, stop, tmp_path):
    make, dtype = CASES[case]
    straight = model_of(dtype)
    first = make(straight)
    walk(straight, first, 0, stop)
    save(first, tmp_path / "file", straight)
    model = model_of(dtype, seed=1)
    second = make(model)
    walk(model, second, 0, 2)
    for group in second.param_groups:
        group["lr"] = 1.0
    load(second, tmp_path / "file", model)
    assert contents(model, second) == contents(straight, first)
    walk(straight, first, stop, 9)
    walk(model, second, stop, 9)
    assert contents(model, second) == contents(straight, first)


RESUMED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_saving import CASES, load, model_of, save, walk

for k, (make, dtype) in enumerate(CASES.values()):
    model = model_of(dtype, seed=1)
    optimizer = make(model)
    load(optimizer, f"{sys.argv[2]}/{k}", model)
    walk(model, optimizer, 4, 8)
    save(optimizer, f"{sys.argv[2]}/{k}", model)
"""


def test_a_fresh_process_ends_where_an_uninterrupted_one_ends(tmp_path, request):
    for k, (make, dtype) in enumerate(CASES.values()):
        model = model_of(dtype)
        optimizer = make(model)
        walk(model, optimizer, 0, 4)
        save(optimizer, tmp_path / str(k), model)
        walk(model, optimizer, 4, 8)
        save(optimizer, tmp_path / f"{k} straight", model)
    ended, printed = run_alone(RESUMED, request.path.parent, tmp_path)
    assert ended == 0, printed
    for k, case in enumerate(CASES):
        assert (tmp_path / str(k)).read_bytes() == (tmp_path / f"{k} straight").read_bytes(), case


def test_settings_changed_since_the_last_step_count_from_the_next_one(tmp_path):
    """The points ahead in the file were placed with the old `mu`; the weights must come out of them all the same."""
    straight = model_of()
    first = any_rule(downslope.nesterov, lr=0.1, mu=0.9)(straight)
    walk(straight, first, 0, 3)
    with first.at_weights():
        weights = [p.detach().clone() for p in straight.parameters()]
    first.param_groups[0]["mu"] = 0.5
    save(first, tmp_path / "file", straight)
    tensors, _ = checkpoint.read(tmp_path / "file")
    for (name, _), w in zip(straight.named_parameters(), weights, strict=True):
        np.testing.assert_array_equal(tensors[f"x/{name}"], w.numpy())
    model = model_of(seed=1)
    second = any_rule(downslope.nesterov)(model)
    load(second, tmp_path / "file", model)
    walk(straight, first, 3, 6)
    walk(model, second, 3, 6)
    assert contents(model, second) == contents(straight, first)


def test_tensors_are_written_in_place_and_hyperparameters_keep_their_form(tmp_path):
    model = model_of()
    optimizer = of_class("Adam", lr=torch.tensor(0.125), betas=(0.5, 0.75))(model)
    walk(model, optimizer, 0, 2)
    save(optimizer, tmp_path / "file", model)
    held = {p: (p.data_ptr(), own["exp_avg"]) for p, own in optimizer.state.items()}
    group = optimizer.param_groups[0]
    group.update(lr=torch.tensor(0.5), betas=(0.25, 0.25))
    walk(model, optimizer, 2, 4)
    load(optimizer, tmp_path / "file", model)
    assert all(p.data_ptr() == at and optimizer.state[p]["exp_avg"] is m for p, (at, m) in held.items())
    assert optimizer.param_groups[0] is group
    assert isinstance(group["lr"], torch.Tensor)
    assert (group["lr"].item(), group["betas"]) == (0.125, (0.5, 0.75))


def test_the_bound_and_the_count_of_skipped_steps_come_from_the_file(tmp_path):
    model = model_of()
    optimizer = of_class("Adam", max_norm=0.5, nonfinite="skip")(model)
    walk(model, optimizer, 0, 2)
    model[1].weight.grad.fill_(torch.nan)
    optimizer.step()
    save(optimizer, tmp_path / "file", model)
    straight = contents(model, optimizer)
    other = of_class("Adam", max_norm=2.0, nonfinite="skip")(model)
    load(other, tmp_path / "file", model)
    assert contents(model, other) == straight
    assert (straight["skipped"], straight["max_norm"]) == (1, 0.5)
    walk(model, optimizer, 2, 4)
    after = contents(model, optimizer)["tensors"]
    load(other, tmp_path / "file", model)
    walk(model, other, 2, 4)
    assert contents(model, other)["tensors"] == after


def test_a_parameter_without_a_state_in_the_file_has_none_afterwards(tmp_path):
    model = model_of()
    optimizer = of_class("Adam")(model)
    walk(model, optimizer, 0, 2)
    save(optimizer, tmp_path / "file", model)
    walk(model, optimizer, 2, LATE + 1)
    assert model[0].late in optimizer.state
    load(optimizer, tmp_path / "file", model)
    assert model[0].late not in optimizer.state
    assert optimizer.state[model[0].weight]["step"].item() == 2


def test_the_order_of_parameters_does_not_matter(tmp_path):
    model = model_of()
    optimizer = of_class("Adam")(model)
    walk(model, optimizer, 0, 7)
    save(optimizer, tmp_path / "file", model)
    after = contents(model, optimizer)["tensors"]
    turned = downslope.torch.Adam([*model.parameters()][::-1])
    load(turned, tmp_path / "file", model)
    assert contents(model, turned)["tensors"] == after


def test_memory_formats_views_and_tied_parameters(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.image = nn.Parameter(torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last))
            self.turned = nn.Parameter(torch.randn(3, 4).t())
            self.gaps = nn.Parameter(torch.randn(8)[::2])
            self.tied = self.gaps

    models = [Odd(), Odd()]
    optimizers = [of_class("Adam", lr=0.1)(model) for model in models]
    walk(models[0], optimizers[0], 0, 3)
    save(optimizers[0], tmp_path / "file", models[0])
    load(optimizers[1], tmp_path / "file", models[1])
    for model, optimizer in zip(models, optimizers, strict=True):
        walk(model, optimizer, 3, 6)
    assert contents(models[0], optimizers[0]) == contents(models[1], optimizers[1])
    tensors, _ = checkpoint.read(tmp_path / "file")
    assert {key for key in tensors if key.startswith("x/")} == {"x/image", "x/turned", "x/gaps"}


# The file


def test_the_file_is_plain_safetensors_keyed_by_name(tmp_path):
    model = model_of(HALF)
    optimizer = of_class("Adam", rounding="compensated", averaging=0.5)(model)
    walk(model, optimizer, 0, 3)
    save(optimizer, tmp_path / "file", model)
    with safe_open(tmp_path / "file", framework="pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    states = ("exp_avg", "exp_avg_sq", "average", "compensation")
    stepped = ("0.weight", "0.bias", "0.empty", "1.weight")
    names = {name for name, _ in model.named_parameters()}
    assert found.keys() == {f"x/{n}" for n in names} | {f"{s}/{n}" for s in states for n in stepped}
    for name, p in model.named_parameters():
        assert found[f"x/{name}"].dtype == HALF
        assert torch.equal(found[f"x/{name}"], p)
        for state in states if p in optimizer.state else ():
            own = optimizer.state[p][state]
            assert found[f"{state}/{name}"].dtype == own.dtype
            assert torch.equal(found[f"{state}/{name}"], own)
    assert found["average/0.weight"].dtype == torch.float32
    record = json.loads(metadata["record"])
    assert (record["rule"], record["t"], record["rounding"]) == ("adam", 3, "compensated")
    assert record["clocks"] == {f"0.{name}": {"t": 0, "scalar_states": {}} for name in ("late", "never")}


@pytest.mark.parametrize("place", ["at_weights", "at_average"])
def test_neither_is_possible_inside_a_block(place, tmp_path):
    model = model_of()
    optimizer = any_rule(downslope.nesterov, averaging=0.9)(model)
    walk(model, optimizer, 0, 2)
    save(optimizer, tmp_path / "file", model)
    before = (tmp_path / "file").read_bytes()
    walk(model, optimizer, 2, 4)
    with getattr(optimizer, place)():
        for act in (save, load):
            with unchanged(model, optimizer, RuntimeError, place):
                act(optimizer, tmp_path / "file", model)
    assert (tmp_path / "file").read_bytes() == before


def test_the_model_must_hold_the_parameters(tmp_path):
    model = model_of()
    optimizer = of_class("Adam")(model)
    for act in (save, load):
        with unchanged(model, optimizer, ValueError, "parameter 5 of group 0", "(2, 2)", "Part"):
            act(optimizer, tmp_path / "file", model[0].requires_grad_())
        with unchanged(model, optimizer, TypeError, "model="):
            act(optimizer, tmp_path / "file", dict(model.named_parameters()))
    assert not [*tmp_path.iterdir()]
    with unchanged(model, optimizer, FileNotFoundError, "missing"):
        load(optimizer, tmp_path / "missing", model)


def test_distributed_and_meta_parameters_are_refused(tmp_path):
    with torch.device("meta"):
        bare = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="weight is on the meta device"):
        save(of_class("Adam")(bare), tmp_path / "file", bare)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(2, 2)
        model.weight = nn.Parameter(distribute_tensor(torch.ones(2, 2), init_device_mesh("cpu", (1,)), [Replicate()]))
        with pytest.raises(TypeError, match=r"weight .* torch\.distributed\.checkpoint"):
            save(of_class("Adam")(model), tmp_path / "file", model)
    finally:
        dist.destroy_process_group()


# Files that belong to something else

FOREIGN = {
    "another class": (of_class("RAdam"), {}, "'radam'"),
    "another flag": (of_class("Adam", amsgrad=True), {}, "amsgrad"),
    "AdamW": (of_class("AdamW"), {}, "decoupled_weight_decay"),
    "walking up": (of_class("Adam", maximize=True), {}, "maximize"),
    "clipped": (of_class("Adam", max_norm=1.0), {}, "max_norm"),
    "with an average": (of_class("Adam", averaging=0.5), {}, "averaging"),
    "two groups": (in_groups(downslope.torch.Adam), {}, "groups"),
    "some of the parameters": (lambda model: downslope.torch.Adam(model[0].parameters()), {}, "1.weight"),
    "bfloat16": (of_class("Adam"), {"dtype": HALF}, "bfloat16"),
    "complex": (of_class("Adam"), {"dtype": torch.complex64}, "complex"),
    "another dtype of states": (of_class("Adam", state_dtype=HALF), {}, "exp_avg"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_something_else_is_refused(case, tmp_path):
    make, options, named = FOREIGN[case]
    foreign = model_of(**options)
    saved = make(foreign)
    walk(foreign, saved, 0, 2)
    save(saved, tmp_path / "file", foreign)
    model = model_of()
    optimizer = of_class("Adam")(model)
    walk(model, optimizer, 0, 3)
    with unchanged(model, optimizer, CheckpointError, named):
        load(optimizer, tmp_path / "file", model)
    with unchanged(foreign, saved, CheckpointError):
        save(optimizer, tmp_path / "file", model)
        load(saved, tmp_path / "file", foreign)


def test_caution_belongs_to_the_file(tmp_path):
    model = model_of()
    plain, cautious = any_rule(downslope.adam)(model), any_rule(downslope.adam, cautious=True)(model)
    save(cautious, tmp_path / "file", model)
    with unchanged(model, plain, CheckpointError, "cautious"):
        load(plain, tmp_path / "file", model)


def test_another_rounding_is_refused(tmp_path):
    model = model_of(HALF)
    roundings = [of_class("Adam", rounding=rounding)(model) for rounding in ("nearest", "compensated", "stochastic")]
    for saved in roundings:
        save(saved, tmp_path / "file", model)
        for optimizer in roundings:
            if optimizer is not saved:
                with unchanged(model, optimizer, CheckpointError, "rounding"):
                    load(optimizer, tmp_path / "file", model)


def test_a_group_with_another_rule_is_refused(tmp_path):
    model = model_of()
    plain, mixed = (
        in_groups(lambda params: downslope.torch.SGD(params, lr=0.1), momentum=momentum)(model) for momentum in (0, 0.9)
    )
    walk(model, mixed, 0, 2)
    save(mixed, tmp_path / "file", model)
    with unchanged(model, plain, CheckpointError, "group 1", "sgd_momentum"):
        load(plain, tmp_path / "file", model)


def test_a_parameter_of_inference_mode_is_refused_before_anything_is_written(tmp_path):
    model = model_of()
    optimizer = of_class("Adam")(model)
    save(optimizer, tmp_path / "file", model)
    with torch.inference_mode():
        frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    other = model_of(seed=1)
    other[1].weight = frozen
    resumed = of_class("Adam")(other)
    with unchanged(other, resumed, RuntimeError, "1.weight", "inference_mode"):
        load(resumed, tmp_path / "file", other)


# Files that are forged


def put(*keys, value):
    def change(record):
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


FORGED = {
    "t is too large for a step": put("t", value=2**24 + 1),
    "a clock that says there is a state": put("clocks", "0.late", "t", value=1),
    "rounding": put("rounding", value="up"),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_forged_record_is_refused(change, tmp_path):
    model = model_of()
    optimizer = of_class("NAdam")(model)
    walk(model, optimizer, 0, 2)
    save(optimizer, tmp_path / "file", model)
    tensors, record = checkpoint.read_raw(tmp_path / "file")
    walk(model, optimizer, 2, 4)
    change(record)
    checkpoint.write(tmp_path / "file", tensors, record)
    with unchanged(model, optimizer, CheckpointError):
        load(optimizer, tmp_path / "file", model)


def test_hyperparameters_that_would_choose_another_rule_are_refused(tmp_path):
    model = model_of()
    optimizer = of_class("SGD", momentum=0.9)(model)
    walk(model, optimizer, 0, 2)
    save(optimizer, tmp_path / "file", model)
    tensors, record = checkpoint.read_raw(tmp_path / "file")
    record["groups"][0]["hyperparameters"]["momentum"] = 0.0
    checkpoint.write(tmp_path / "file", tensors, record)
    with unchanged(model, optimizer, CheckpointError, "rule"):
        load(optimizer, tmp_path / "file", model)


@pytest.mark.parametrize("seed", [None, "1", True, 2**63])
def test_a_seed_must_be_one(seed, tmp_path):
    model = model_of(HALF)
    optimizer = of_class("Adam", rounding="stochastic", seed=5)(model)
    save(optimizer, tmp_path / "file", model)
    tensors, record = checkpoint.read_raw(tmp_path / "file")
    checkpoint.write(tmp_path / "file", tensors, {**record, "seed": seed})
    with unchanged(model, optimizer, CheckpointError, "seed"):
        load(optimizer, tmp_path / "file", model)


# From NumPy and to NumPy

ALL = {"weight": (3, 4), "bias": (), "empty": (0, 2)}
EXCHANGED = {
    "sgd": (downslope.sgd, {"lr": 0.1}, torch.float32),
    "adam": (
        downslope.adam,
        {"lr": 0.1, "averaging": 0.9, "weight_decay": 0.1, "max_norm": 0.5, "cautious": True},
        torch.float32,
    ),
    "nesterov": (downslope.nesterov, {"lr": 0.1, "mu": 0.75}, torch.float32),
    "nesterov, float64": (downslope.nesterov, {"lr": 0.1, "averaging": 0.5}, torch.float64),
    "nesterov, explicit": (downslope.nesterov, {"lr": 0.1, "lookahead": "explicit"}, torch.float32),
    "schedule-free": (downslope.rules.schedule_free_sgd, {"lr": 0.1}, torch.float64),
    "torch's NAdam": (dialect.nadam, {"weight_decay": 0.1}, torch.float32),
}


def arrays_of(model):
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def walk_both(model, optimizer, other, begin, end):
    """The same gradients for both."""
    for t in range(begin, end):
        walk(model, optimizer, t, t + 1)
        other.step({name: p.grad.numpy() for name, p in model.named_parameters()})


def same(model, optimizer, other):
    """Whether the optimizer for NumPy has just these weights and states."""
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.detach().numpy(), other.params[name])
        for state, by_name in other.state.items():
            np.testing.assert_array_equal(optimizer.state[p][state].numpy(), by_name[name])
        assert optimizer.state[p]["step"].item() == other.t


@pytest.mark.parametrize("case", EXCHANGED)
def test_numpy_goes_on_from_torch_and_torch_from_numpy(case, tmp_path):
    rule, options, dtype = EXCHANGED[case]
    model = model_of(dtype, shapes=ALL)
    optimizer = any_rule(rule, **options)(model)
    walk(model, optimizer, 0, 3)
    save(optimizer, tmp_path / "file", model)
    other = downslope.Optimizer(arrays_of(model_of(dtype, 1, ALL)), rule, **options)
    other.load(tmp_path / "file")
    same(model, optimizer, other)
    walk_both(model, optimizer, other, 3, 6)
    same(model, optimizer, other)
    other.save(tmp_path / "back")
    last = model_of(dtype, 2, ALL)
    resumed = any_rule(rule, **options)(last)
    load(resumed, tmp_path / "back", last)
    same(last, resumed, other)
    walk_both(last, resumed, other, 6, 9)
    same(last, resumed, other)


def test_torchs_adam_goes_on_in_numpy(tmp_path):
    model = model_of(shapes=ALL)
    optimizer = of_class("Adam", lr=0.1, betas=(0.5, 0.75))(model)
    walk(model, optimizer, 0, 3)
    save(optimizer, tmp_path / "file", model)
    other = downslope.Optimizer(arrays_of(model), dialect.adam)
    other.load(tmp_path / "file")
    walk_both(model, optimizer, other, 3, 6)
    same(model, optimizer, other)
    assert other.groups[0]["beta2"] == 0.75


def test_a_numpy_optimizer_at_its_start_begins_in_torch(tmp_path):
    model = model_of(shapes=ALL)
    other = downslope.Optimizer(arrays_of(model), downslope.adam, lr=lambda t: 0.5 / t)
    other.save(tmp_path / "file")
    resumed = model_of(seed=1, shapes=ALL)
    optimizer = any_rule(downslope.adam, lr=0.25)(resumed)
    load(optimizer, tmp_path / "file", resumed)
    assert optimizer.param_groups[0]["lr"] == 0.25  # a schedule is not saved
    walk(resumed, optimizer, 0, 3)
    straight = any_rule(downslope.adam, lr=0.25)(model)
    walk(model, straight, 0, 3)
    assert contents(resumed, optimizer) == contents(model, straight)


BEYOND = {
    "step counts": (any_rule(downslope.adam), torch.float32, SHAPES, (), "counts of their own"),
    "step counts alone": (any_rule(downslope.sgd), torch.float32, SHAPES, (), "counts of their own"),
    "bfloat16": (any_rule(downslope.adam), HALF, ALL, (), "bfloat16"),
    "float16": (any_rule(downslope.adam), torch.float16, ALL, (), "float16"),
    "complex": (any_rule(downslope.adam), torch.complex64, ALL, (2,), "complex"),
    "rules": (
        in_groups(lambda p: downslope.torch.SGD(p, lr=0.1), momentum=0.9),
        torch.float32,
        ALL,
        (),
        "sgd_momentum",
    ),
}


@pytest.mark.parametrize("case", BEYOND)
def test_numpy_says_what_it_cannot_go_on_from(case, tmp_path):
    make, dtype, shapes, pair, named = BEYOND[case]
    model = model_of(dtype, shapes=shapes)
    optimizer = make(model)
    walk(model, optimizer, 0, 2)
    save(optimizer, tmp_path / "file", model)
    rule = {"adam": downslope.adam, "sgd": downslope.sgd}[optimizer.rule.name]
    arrays = {name: np.zeros((*p.shape, *pair), np.float32) for name, p in model.named_parameters()}
    params = list(arrays.items())
    if case == "rules":
        rule, params = dialect.sgd, [{"params": dict(params[:-1])}, {"params": dict(params[-1:])}]
    other = downslope.Optimizer(params if case == "rules" else arrays, rule)
    with pytest.raises(CheckpointError, match=named):
        other.load(tmp_path / "file")
    assert other.t == 0
    assert all((array == 0).all() for array in arrays.values())
