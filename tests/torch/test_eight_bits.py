"""States in eight bits in PyTorch: steps, trainings, checkpoints and refusals, beside states in single precision."""

import copy
import io
import statistics

import numpy as np
import pytest
import torch

import downslope
import downslope.torch
from downslope import CheckpointError
from downslope.targets.codes import BLOCK, blocks, decode
from downslope.training import checkpoint

SHAPES = [(30, 40), (BLOCK,), (7,), (), (0, 3)]

OPTIMIZERS = {
    "Adam": lambda params, **more: downslope.torch.Adam(params, lr=0.01, **more),
    "AdamW, amsgrad": lambda params, **more: downslope.torch.AdamW(params, lr=0.01, amsgrad=True, **more),
    "SGD": lambda params, **more: downslope.torch.SGD(params, lr=0.01, momentum=0.9, **more),
    "RMSprop": lambda params, **more: downslope.torch.RMSprop(params, momentum=0.9, **more),
    "RMSprop, centred": lambda params, **more: downslope.torch.RMSprop(params, momentum=0.9, centered=True, **more),
    "Adagrad": lambda params, **more: downslope.torch.Adagrad(params, initial_accumulator_value=0.1, **more),
    "Adadelta": lambda params, **more: downslope.torch.Adadelta(params, **more),
    "NAdam": lambda params, **more: downslope.torch.NAdam(params, **more),
    "Adamax": lambda params, **more: downslope.torch.Adamax(params, **more),
    "RAdam": lambda params, **more: downslope.torch.RAdam(params, **more),
    "lion": lambda params, **more: downslope.torch.Optimizer(params, downslope.lion, lr=0.01, **more),
    "schedule-free": lambda params, **more: downslope.torch.Optimizer(
        params, downslope.schedule_free_adamw, lr=0.01, **more
    ),
    "averaging": lambda params, **more: downslope.torch.Adam(
        params, averaging=0.9, max_norm=1.0, cautious=True, **more
    ),
}


def parameters(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def give(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def steps(optimizer, params, count, seed=100):
    for k in range(count):
        give(params, seed + k)
        optimizer.step()


def numbers(own, name):
    """A state as numbers, whichever way it is kept."""
    if name in own:
        return own[name].numpy()
    codes = own[f"{name}.codes"]
    return decode(codes.numpy().reshape(-1), own[f"{name}.scales"].numpy()).reshape(codes.shape)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_the_same_states_in_single_precision(name):
    """The weights to the last bit; and the new states, within what a code keeps of them."""
    small, large = parameters(), parameters()
    eight = OPTIMIZERS[name](small, state_dtype=torch.uint8)
    steps(eight, small, 3)
    for _ in range(2):
        single = OPTIMIZERS[name](large)
        single.load_state_dict(copy.deepcopy(eight.state_dict()))
        with torch.no_grad():
            for p, q in zip(large, small, strict=True):
                p.copy_(q)
        for optimizer, params in ((eight, small), (single, large)):
            steps(optimizer, params, 1, seed=7)
        kept = 0
        for p, q in zip(small, large, strict=True):
            assert torch.equal(p, q)
            for state, value in single.state[q].items():
                if not value.dim() and state not in eight.state[p] and f"{state}.codes" not in eight.state[p]:
                    continue
                due, found = value.numpy(), numbers(eight.state[p], state)
                kept += f"{state}.codes" in eight.state[p]
                largest = np.abs(due).max(initial=0)
                assert (np.abs(found - due) <= np.abs(due) / 16 + largest / 236 + 2.0**-134).all()
        assert kept


def test_which_states_are_kept_how():
    """What the formula shows: a mean of squares has no sign, a variance, a place and an average stay exact."""
    kept = {
        "Adam": {"exp_avg.codes": torch.int8, "exp_avg_sq.codes": torch.uint8},
        "RMSprop, centred": {
            "square_avg": torch.float32,
            "grad_avg": torch.float32,
            "momentum_buffer.codes": torch.int8,
        },
        "schedule-free": {"d": torch.float32, "v.codes": torch.uint8},
        "averaging": {"exp_avg.codes": torch.int8, "exp_avg_sq.codes": torch.uint8, "average": torch.float32},
    }
    for name, due in kept.items():
        params = parameters()
        optimizer = OPTIMIZERS[name](params, state_dtype=torch.uint8)
        steps(optimizer, params, 1)
        own = optimizer.state[params[0]]
        assert {state: value.dtype for state, value in own.items() if value.shape == params[0].shape} == due
        scales = [value for state, value in own.items() if state.endswith(".scales")]
        assert all(scale.shape == (blocks(1200),) for scale in scales)
        assert len(scales) == sum(state.endswith(".codes") for state in due)


def test_two_states_take_two_bytes_and_a_64th_of_two_per_weight():
    p = torch.nn.Parameter(torch.ones(1 << 16))
    optimizer = downslope.torch.Adam([p], state_dtype=torch.uint8)
    steps(optimizer, [p], 1)
    sizes = [value.nbytes for value in optimizer.state[p].values() if value.dim()]
    assert sum(sizes) / p.numel() == 2 * (1 + 4 / BLOCK)


@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [(torch.float16, "nearest"), *((torch.bfloat16, how) for how in ("nearest", "compensated", "stochastic"))],
)
def test_weights_in_half_precision(dtype, rounding):
    params = parameters(dtype)
    optimizer = downslope.torch.Adam(params, lr=0.01, state_dtype=torch.uint8, rounding=rounding)
    before = [p.detach().clone() for p in params]
    steps(optimizer, params, 5)
    for p, q in zip(params, before, strict=True):
        assert p.numel() < 2 or not torch.equal(p, q)
        assert bool(torch.isfinite(p).all())
        assert optimizer.state[p]["exp_avg.codes"].dtype == torch.int8
    assert ("compensation" in optimizer.state[params[0]]) is (rounding == "compensated")


def test_any_number_of_threads_ends_in_the_same_bits():
    ends = []
    for threads in (1, 2, 3):
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in (77, 270_001, 50_003)]
        optimizer = downslope.torch.Adam(params, threads=threads, state_dtype=torch.uint8)
        steps(optimizer, params, 3)
        ends.append([p.detach() for p in params] + [v for p in params for v in optimizer.state[p].values()])
    for other in ends[1:]:
        assert all(map(torch.equal, ends[0], other))


def test_a_gradient_that_is_no_number_shows():
    p = torch.nn.Parameter(torch.ones(3 * BLOCK))
    optimizer = downslope.torch.Adam([p], state_dtype=torch.uint8)
    steps(optimizer, [p], 2)
    p.grad[BLOCK] = torch.nan
    optimizer.step()
    assert p.isnan().nonzero().flatten().tolist() == [BLOCK]
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.isnan().nonzero().flatten().tolist() == [*range(BLOCK, 2 * BLOCK)]


def test_the_step_within_the_backward_pass():
    ends = []
    for within in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 1))
        optimizer = downslope.torch.Adam(model.parameters(), state_dtype=torch.uint8)
        handle = optimizer.step_in_backward() if within else None
        for k in range(4):
            optimizer.zero_grad()
            model(torch.full((2, 20), 0.1 * k)).sum().backward()
            if handle is None:
                optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *ends))


# ---- checkpoints


class Model(torch.nn.Module):
    """Parameters by name, and an optimizer for them."""

    def __init__(self, seed=0, **more):
        super().__init__()
        self.weights = torch.nn.ParameterList(parameters(seed=seed))
        self.optimizer = downslope.torch.Adam(self.parameters(), lr=0.01, **more)

    def run(self, count, seed=100):
        steps(self.optimizer, list(self.weights), count, seed)
        return self

    def states(self):
        return [{name: value.clone() for name, value in self.optimizer.state[p].items()} for p in self.weights]


EIGHT = {"state_dtype": torch.uint8}


def same(one, other):
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    for mine, yours in zip(one.states(), other.states(), strict=True):
        assert mine.keys() == yours.keys()
        assert all(torch.equal(mine[name], yours[name]) for name in mine)


@pytest.mark.parametrize("how", ["state_dict", "torch.save", "file", "deepcopy"])
def test_a_training_goes_on_bit_for_bit(how, tmp_path):
    one = Model(**EIGHT, seed=3).run(4)
    other = Model(**EIGHT, seed=5).run(1)
    if how == "file":
        one.optimizer.save(tmp_path / "file", one)
        other.optimizer.load(tmp_path / "file", other)
    elif how == "deepcopy":
        other = copy.deepcopy(one)
    else:
        state = one.optimizer.state_dict()
        if how == "torch.save":
            torch.save(state, buffer := io.BytesIO())
            buffer.seek(0)
            state = torch.load(buffer, weights_only=True)
        other.optimizer.load_state_dict(state)
        other.load_state_dict(one.state_dict())
    same(one, other)
    same(one.run(3, 200), other.run(3, 200))


@pytest.mark.parametrize("how", ["state_dict", "file"])
def test_states_go_from_eight_bits_to_single_precision_exactly_and_back_to_the_same_codes(how, tmp_path):
    def onward(one, other):
        if how == "file":
            one.optimizer.save(tmp_path / "file", one)
            other.optimizer.load(tmp_path / "file", other)
        else:
            other.optimizer.load_state_dict(one.optimizer.state_dict())
            other.load_state_dict(one.state_dict())
        return other

    eight = Model(**EIGHT).run(4)
    single = onward(eight, Model())
    for p, q in zip(eight.weights, single.weights, strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            assert single.optimizer.state[q][name].dtype == torch.float32
            np.testing.assert_array_equal(single.optimizer.state[q][name], numbers(eight.optimizer.state[p], name))
        assert not any("." in name for name in single.optimizer.state[q])
    again = onward(single, Model(**EIGHT, seed=9))
    for p, q in zip(eight.weights, again.weights, strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            mine, yours = (numbers(state, name) for state in (eight.optimizer.state[p], again.optimizer.state[q]))
            np.testing.assert_array_equal(mine, yours)
    again.run(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
def test_states_that_were_codes_are_kept_and_saved_in_their_new_dtype(dtype, state_dtype, tmp_path):
    def adam(**more):
        model = torch.nn.Linear(20, 15).to(dtype)
        optimizer = downslope.torch.Optimizer(model.parameters(), downslope.adam, lr=0.01, **more)
        steps(optimizer, list(model.parameters()), 1)
        return model, optimizer

    (eight, before), (model, optimizer), (again, other) = (
        adam(state_dtype=each) for each in (torch.uint8, state_dtype, state_dtype)
    )
    optimizer.load_state_dict(before.state_dict())
    for name in ("m", "v"):
        state = optimizer.state[model.weight][name]
        due = torch.from_numpy(numbers(before.state[eight.weight], name))
        assert torch.equal(state, due.to(state_dtype or dtype))
        assert state.dtype == (state_dtype or dtype)
    optimizer.save(tmp_path / "file", model)
    other.load(tmp_path / "file", again)
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        mine, yours = optimizer.state[p], other.state[q]
        assert mine.keys() == yours.keys()
        assert all(torch.equal(mine[name], yours[name]) for name in mine)


def test_the_default_device_is_not_asked():
    ends = []
    for device in ("cpu", "meta"):
        params = parameters()
        optimizer = downslope.torch.Adam(params, state_dtype=torch.uint8)
        give(params, 0)
        try:
            torch.set_default_device(device)
            optimizer.step()
        finally:
            torch.set_default_device(None)
        ends.append([*params, *(v for p in params for v in optimizer.state[p].values())])
    assert all(map(torch.equal, *ends))


def test_a_file_of_codes_goes_on_with_numpy_arrays(tmp_path):
    model = torch.nn.Linear(20, 15)
    optimizer = downslope.torch.Optimizer(model.parameters(), downslope.adam, lr=0.01, state_dtype=torch.uint8)
    steps(optimizer, list(model.parameters()), 3)
    optimizer.save(tmp_path / "file", model)
    arrays = {name: np.zeros(p.shape, np.float32) for name, p in model.named_parameters()}
    there = downslope.Optimizer(arrays, downslope.adam, lr=0.01)
    there.load(tmp_path / "file")
    np.testing.assert_array_equal(arrays["weight"], model.weight.detach())
    there.save(tmp_path / "numbers")
    tensors, _ = checkpoint.read(tmp_path / "numbers")
    np.testing.assert_array_equal(tensors["v/weight"], numbers(optimizer.state[model.weight], "v"))
    small = downslope.Optimizer(arrays, downslope.adam, lr=0.01, state_dtype=np.uint8, seed=9)  # the file's is 0
    small.load(tmp_path / "file")
    for k in range(3):
        steps(optimizer, list(model.parameters()), 1, seed=k)
        small.step({name: p.grad.numpy() for name, p in model.named_parameters()})
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(arrays[name], p.detach())
        for what in ("m.codes", "m.scales", "v.codes", "v.scales"):
            np.testing.assert_array_equal(small.state[what][name], optimizer.state[p][what])


def test_torch_optim_does_not_take_codes_for_numbers():
    params = parameters()
    optimizer = downslope.torch.Adam(params, **EIGHT)
    steps(optimizer, params, 2)
    theirs = torch.optim.Adam(params)
    theirs.load_state_dict(optimizer.state_dict())
    with pytest.raises(KeyError, match="exp_avg"):
        theirs.step()


def changed(raw, **more):
    return checkpoint.Raw(**{"dtype": raw.dtype, "shape": raw.shape, "data": raw.data, **more})


def forged(scales):
    return checkpoint.Raw.of(np.asarray(scales, np.float32))


FORGERIES = {
    "too few scales": (".scales/", lambda raw: forged(raw.array()[:-1])),
    "too many scales": (".scales/", lambda raw: forged([*raw.array(), 1.0])),
    "scales of another dtype": (".scales/", lambda raw: checkpoint.Raw.of(raw.array().astype(np.float64))),
    "a scale that is no number": (".scales/", lambda raw: forged(np.where(np.arange(raw.shape[0]), 1.0, np.nan))),
    "an infinite scale": (".scales/", lambda raw: forged(np.full(raw.shape, np.inf))),
    "a negative scale": (".scales/", lambda raw: forged(-raw.array())),
    "a scale of zero": (".scales/", lambda raw: forged(0 * raw.array())),
    "a scale that is no power of two": (".scales/", lambda raw: forged(1.5 * raw.array())),
    "codes of another shape": (".codes/", lambda raw: changed(raw, shape=raw.shape[::-1])),
    "codes of another kind": (".codes/", lambda raw: changed(raw, dtype={"int8": "uint8", "uint8": "int8"}[raw.dtype])),
    "codes as numbers": (".codes/", lambda raw: checkpoint.Raw.of(raw.array().astype(np.float32))),
    "no codes": (".codes/", lambda raw: None),
    "no scales": (".scales/", lambda raw: None),
}


ANYWHERE = [forgery for forgery in FORGERIES if forgery != "codes of another kind"]  # either kind stands for numbers


@pytest.mark.parametrize(
    ("forgery", "kept"),
    [*((forgery, "eight bits") for forgery in FORGERIES), *((forgery, "single precision") for forgery in ANYWHERE)],
)
def test_a_forged_file_is_refused_by_name_and_nothing_has_changed(forgery, kept, tmp_path):
    model = Model(**EIGHT).run(3)
    model.optimizer.save(tmp_path / "file", model)
    tensors, record = checkpoint.read_raw(tmp_path / "file")
    where, forge = FORGERIES[forgery]
    key = f"exp_avg_sq{where}weights.0"
    new = forge(tensors[key])
    tensors = {k: new if k == key else raw for k, raw in tensors.items() if k != key or new}
    checkpoint.write(tmp_path / "forged", tensors, record)
    victim = Model(**(EIGHT if kept == "eight bits" else {}), seed=8).run(2)
    before = copy.deepcopy(victim)
    with pytest.raises(CheckpointError, match="exp_avg_sq"):
        victim.optimizer.load(tmp_path / "forged", victim)
    same(victim, before)


def test_numbers_that_have_no_code_are_refused(tmp_path):
    model = Model().run(2)
    model.optimizer.state[model.weights[0]]["exp_avg_sq"][3, 4] = -1.0
    model.optimizer.save(tmp_path / "file", model)
    victim = Model(**EIGHT, seed=1).run(2)
    before = copy.deepcopy(victim)
    with pytest.raises(CheckpointError, match=r"exp_avg_sq/weights\.0' is -1 somewhere"):
        victim.optimizer.load(tmp_path / "file", victim)
    with pytest.raises(ValueError, match="exp_avg_sq is -1 somewhere"):
        victim.optimizer.load_state_dict(model.optimizer.state_dict())
    same(victim, before)


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("exp_avg.codes", torch.zeros(3, 3, dtype=torch.int8), ValueError, "shape"),
        ("exp_avg.codes", torch.zeros(30, 40), TypeError, "torch.int8"),
        ("exp_avg.codes", torch.zeros(30, 40, dtype=torch.uint8), TypeError, "torch.int8"),
        ("exp_avg.scales", torch.zeros(3), ValueError, r"shape \(3,\)"),
        ("exp_avg.scales", torch.zeros(5, dtype=torch.float64), TypeError, "torch.float32"),
        ("exp_avg.scales", None, TypeError, "None"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(name, value, error, words):
    model = Model(**EIGHT).run(2)
    before = copy.deepcopy(model)
    state = copy.deepcopy(model.optimizer.state_dict())
    state["state"][0][name] = value
    with pytest.raises(error, match=words):
        model.optimizer.load_state_dict(state)
    same(model, before)


# ---- refusals


def test_what_cannot_be_kept_in_eight_bits_is_refused():
    make = downslope.torch.Adam
    for p, words in (
        (torch.ones(3, dtype=torch.float64), "torch.float64 on cpu"),
        (torch.ones(3, dtype=torch.complex64), "torch.complex64 on cpu"),
        (torch.ones(3, device="meta"), "on meta"),
        (torch.ones(2, 3).t(), r"strides \(1, 3\)"),
        (torch.ones(4, 4)[:, ::2], r"strides \(4, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            make([torch.nn.Parameter(p)], state_dtype=torch.uint8)
    for rule in (downslope.nesterov, downslope.schedule_free_sgd):
        with pytest.raises(ValueError, match=f"{rule.name} has no state that eight bits would do for"):
            downslope.torch.Optimizer([torch.nn.Parameter(torch.ones(3))], rule, lr=0.1, state_dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"torch\.int8 does not go"):
        make([torch.nn.Parameter(torch.ones(3))], state_dtype=torch.int8)


def test_a_shared_out_parameter_is_refused():
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        p = torch.nn.Parameter(distribute_tensor(torch.ones(4, 4), init_device_mesh("cpu", (1,)), [Shard(0)]))
        with pytest.raises(ValueError, match="shared out over processes"):
            downslope.torch.Adam([p], state_dtype=torch.uint8)
    finally:
        distributed.destroy_process_group()


# ---- trainings


def trained(seed, **more):
    """The logarithm of the loss of a small network on a task of its own, after so many steps."""
    torch.manual_seed(seed)
    x = torch.randn(64, 16)
    y = torch.sin(x @ torch.randn(16, 4))
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4))
    optimizer = downslope.torch.Adam(model.parameters(), lr=3e-3, **more)
    for _ in range(300):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.log().item()


@pytest.fixture
def one_thread():
    """So small a network waits for a second thread of PyTorch's longer than it computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_training_ends_as_with_states_in_single_precision():
    """Five seeds; `bench/small_states.py` does this at length."""
    single, eight = ([trained(seed, **more) for seed in range(5)] for more in ({}, EIGHT))
    noise = statistics.stdev(single)
    assert abs(statistics.mean(eight) - statistics.mean(single)) < noise
    assert max(abs(a - b) for a, b in zip(single, eight, strict=True)) < 2 * noise
    assert max(eight) < -2.0  # it has learned something
