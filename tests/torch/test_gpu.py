"""Training on a GPU ends, bit for bit, where training on the CPU does.

Without a GPU the kernels are run by Triton's interpreter, on tensors of the CPU.
"""

import contextlib
import importlib.util
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import downslope
import downslope.torch
from downslope.torch import device as devices
from downslope.torch import gradients, interpreted, launch, layout
from downslope.torch.interpreted import Interpreted
from downslope.torch.launch import Compiled
from downslope.training.groups import NonFiniteGradientError

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
]
SHAPES = [(35, 30), (30,), (), (9,), (0, 3)]
GPUS = ["interpreted", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(params=GPUS)
def where(request, monkeypatch):
    """Where kernels of Triton update parameters."""
    if request.param == "cuda":
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        return torch.device("cuda", 0)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return torch.device("cpu")


@pytest.fixture
def on_gpu(where):
    """Inside a block of this, parameters are updated there."""

    @contextlib.contextmanager
    def block():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "memory_of", lambda device: devices.DeviceMemory(where))
            yield

    return block


class Training:
    """Some steps with given gradients.

    Attributes:
        params: The parameters.
        optimizer: What updates them.
    """

    def __init__(self, device, rule, *, dtype=torch.float32, groups=None, **settings):
        self.device, self.dtype, self.steps = device, dtype, 0
        start = torch.Generator().manual_seed(0)
        self.params = [
            torch.nn.Parameter(torch.randn(shape, generator=start, dtype=torch.float64).to(device, dtype))
            for shape in SHAPES
        ]
        if settings.get("state_dtype") is not torch.uint8:  # which is for what is in order in memory
            self.params.append(torch.nn.Parameter(torch.ones(20, 30).to(device, dtype).T))
        listed = self.params
        if groups:
            listed = [{"params": self.params[k::2], **more} for k, more in enumerate(groups)]
        self.optimizer = downslope.torch.Optimizer(listed, rule, **settings)

    def step(self, scale=1.0, without=()):
        """A step; parameters of these numbers have no gradient."""
        given = torch.Generator().manual_seed(100 + self.steps)
        self.steps += 1
        for k, p in enumerate(self.params):
            gradient = scale * torch.randn(p.shape, generator=given, dtype=torch.float64)
            p.grad = None if k in without else torch.empty_like(p.detach()).copy_(gradient)
        with np.errstate(all="ignore"):
            self.optimizer.step()

    def kinds(self):
        """What updates the parameters."""
        [layout] = self.optimizer._progress.layouts.values()
        return {type(each) for each in layout.launches}

    def bits(self):
        """Parameters and states, as bytes."""
        states = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        tensors = [tensor.detach().cpu().contiguous().reshape(-1) for tensor in (*self.params, *states)]
        return [tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"" for tensor in tensors]


def both(where, on_gpu, rule, walk, **settings):
    """A training by kernels of Triton and one by those of the CPU, after the same walk."""
    with on_gpu():
        ours = Training(where, rule, **settings)
        walk(ours)
    due = Training(torch.device("cpu"), rule, **settings)
    walk(due)
    return ours, due


def two_steps(training):
    training.step()
    training.step()


CASES = {
    "plain": (downslope.adam, {}),
    "groups": (downslope.rmsprop, {"groups": [{"lr": 0.1}, {"lr": 0.01, "weight_decay": 0.1}]}),
    "options": (downslope.nadam, {"weight_decay": 0.1, "decoupled": True, "averaging": 0.9, "cautious": True}),
    "look-ahead": (downslope.nesterov, {"maximize": True}),
    "double": (downslope.adamw, {"dtype": torch.float64}),
    "complex": (downslope.lion, {"dtype": torch.complex64}),
    "halves": (downslope.adam, {"dtype": torch.float16, "state_dtype": torch.float32}),
    "compensated": (downslope.momentum, {"dtype": torch.bfloat16, "rounding": "compensated"}),
    "stochastic": (
        downslope.schedule_free_adamw,
        {"dtype": torch.bfloat16, "rounding": "stochastic", "seed": 3, "state_dtype": torch.float32},
    ),
    "left out": (downslope.adagrad, {"nonfinite": "skip"}),
    "eight bits": (downslope.adam, {"state_dtype": torch.uint8, "nonfinite": "skip", "seed": 5}),
    "eight bits, compensated": (
        downslope.adamw,
        {"dtype": torch.bfloat16, "rounding": "compensated", "state_dtype": torch.uint8, "averaging": 0.9},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_that_on_the_cpu(case, where, on_gpu):
    rule, settings = CASES[case]
    ours, due = both(where, on_gpu, rule, two_steps, **settings)
    assert ours.kinds() == {Compiled}
    assert ours.bits() == due.bits()


SUMMING = ["lamb", "lars", "adamp", "stable_adamw", "mars", "cautious_adamw", "adafactor", "adam_mini"]
EDGES = [(530, 1031), (1024, 512), (9001, 3), (1, 70_001), (300_001,), (4, 2, 3, 3), (), (0, 3)]


def test_rules_over_whole_tensors_end_near_the_cpu_and_in_the_same_bits_in_every_run(where, on_gpu, monkeypatch):
    """A sum in double precision is rounded to single: seldom otherwise than on the CPU.

    By the interpreter `tests/backends/test_triton_staged.py` has more of it.
    """
    monkeypatch.setitem(globals(), "SHAPES", [(35, 30), (0, 3)] if where.type == "cpu" else EDGES)
    for name in SUMMING if where.type != "cpu" else SUMMING[:1]:
        rule = getattr(downslope, name)
        ours, due = both(where, on_gpu, rule, Training.step)
        assert Compiled in ours.kinds()
        assert ours.kinds() <= {Compiled, Interpreted}  # a transposed matrix goes by its own rows
        for a, b in zip(ours.params, due.params, strict=True):
            torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-5, atol=1e-6)
        if where.type != "cpu":
            again, _ = both(where, on_gpu, rule, Training.step)
            assert ours.bits() == again.bits()


def test_parameters_without_a_gradient_join_later(where, on_gpu):
    def walk(training):
        training.step(without=(0, 3))
        training.step(without=(1,))
        training.optimizer.param_groups[0]["lr"] = 0.3
        training.step()

    ours, due = both(where, on_gpu, downslope.adam, walk)
    assert ours.bits() == due.bits()


@pytest.mark.parametrize("settings", [{}, {"state_dtype": torch.uint8, "max_norm": 1e6}], ids=["plain", "eight bits"])
def test_a_saved_training_goes_on(settings, where, on_gpu):
    def walk(training):
        two_steps(training)
        training.optimizer.load_state_dict(training.optimizer.state_dict())
        training.step()

    ours, due = both(where, on_gpu, downslope.adamw, walk, **settings)
    assert ours.kinds() == {Compiled}
    assert ours.bits() == due.bits()


def test_what_moves_overlaps_or_has_gaps(where, on_gpu):
    """Weights and states at other addresses, one of them with gaps; a gradient that is the weights."""

    def walk(training):
        training.params[0].data = torch.zeros(35, 60, device=training.device)[:, ::2].copy_(training.params[0].detach())
        training.step()
        training.params[1].data = training.params[1].detach().clone()
        state = training.optimizer.state[training.params[3]]
        state["m"] = state["m"].clone()
        training.step()
        for p in training.params:
            p.grad = p.detach()
        training.optimizer.step()
        training.params[3].data = torch.arange(40.0, device=training.device)[7:16]  # at no multiple of 16 bytes
        training.step()

    ours, due = both(where, on_gpu, downslope.adam, walk)
    assert ours.bits() == due.bits()


def test_memory_that_has_been_released_is_not_written_to(where, on_gpu):
    with on_gpu():
        training = Training(where, downslope.adam)
        training.step()
        training.params[0].data.untyped_storage().resize_(0)
        before = training.params[1].detach().clone()
        with pytest.raises(ValueError, match=r"the memory of parameter 0, of shape .* has been released"):
            training.step()
        assert torch.equal(training.params[1], before)


# Clipping, and gradients that are not finite


def test_the_norm_is_that_of_all_gradients_and_the_same_in_every_run(where, on_gpu):
    """The factor may differ by the rounding of a sum of squares in double precision."""

    def walk(training):
        for scale in (1.0, 100.0, 1e-3):
            training.step(scale=scale)

    ours, due = both(where, on_gpu, downslope.momentum, walk, max_norm=0.5)
    for a, b in zip(ours.params, due.params, strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-6, atol=1e-7)
    with on_gpu():
        again = Training(where, downslope.momentum, max_norm=0.5)
        walk(again)
    assert ours.bits() == again.bits()


def test_the_norm_that_a_file_brings_is_that_of_the_next_step(where, on_gpu, monkeypatch, tmp_path):
    monkeypatch.setitem(globals(), "SHAPES", [(35, 30), (9,)])  # for tensors without an axis no step is quick
    quick = []

    def walk(training):
        other = Training(training.device, downslope.sgd, max_norm=0.5)
        other.step()
        other.optimizer.save(tmp_path / "state.safetensors", torch.nn.ParameterList(other.params))
        training.step(scale=10.0)
        training.step(scale=10.0)
        quick.append(training.optimizer._progress.quick_step)
        training.optimizer.load(tmp_path / "state.safetensors", torch.nn.ParameterList(training.params))
        assert training.optimizer.max_norm == 0.5
        training.step(scale=10.0)

    ours, due = both(where, on_gpu, downslope.sgd, walk, max_norm=50.0)
    assert quick[0] is not None
    for a, b in zip(ours.params, due.params, strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-6, atol=1e-7)


def test_nobody_waits_for_the_norm(where, on_gpu, monkeypatch):
    monkeypatch.setitem(globals(), "SHAPES", [(35, 30), (9,), (0, 3)])
    with on_gpu():
        training = Training(where, downslope.adam, max_norm=0.5)
        training.step()
        quick = training.optimizer._progress.quick_step
        for name in ("item", "tolist", "__float__", "__bool__", "cpu", "nonzero"):
            monkeypatch.setattr(torch.Tensor, name, None, raising=False)
        given = [torch.full_like(p.detach(), 50.0) for p in training.params]
        for p, gradient in zip(training.params, given, strict=True):
            p.grad = gradient
        training.optimizer.step()
        assert training.optimizer._progress.quick_step is quick is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_norms_in_other_precisions(dtype, where, on_gpu):
    """Squares of gradients in double precision may overflow, or vanish."""

    def walk(training):
        for scale in (1.0, *((1e200, 1e-200) if dtype == torch.float64 else ())):
            training.step(scale=scale)

    ours, due = both(where, on_gpu, downslope.sgd, walk, dtype=dtype, max_norm=0.5, lr=1.0)
    for a, b in zip(ours.params, due.params, strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-12 if dtype == torch.float64 else 1e-2, atol=0)


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_gradients_that_are_not_finite(nonfinite, where, on_gpu):
    with on_gpu():
        training = Training(where, downslope.adam, nonfinite=nonfinite, max_norm=1.0)
        training.step()
        before = training.bits()
        for k in range(len(SHAPES)):
            gradients = [torch.zeros_like(p) for p in training.params]
            if gradients[k].numel() == 0:
                continue
            gradients[k].reshape(-1)[-1] = (torch.nan, torch.inf, -torch.inf)[k % 3]
            for p, gradient in zip(training.params, gradients, strict=True):
                p.grad = gradient
            if nonfinite == "raise":
                with pytest.raises(NonFiniteGradientError, match=f"parameter {k} of group 0 \\(1 of"):
                    training.optimizer.step()
            else:
                training.optimizer.step()
        assert training.bits() == before
        assert training.optimizer.skipped == (4 if nonfinite == "skip" else 0)


def test_a_gradient_scalers_scale_is_taken_back(where, on_gpu):
    def walk(training):
        training.optimizer.grad_scale = torch.tensor(1024.0)
        training.optimizer.found_inf = torch.tensor(0.0)
        training.step(scale=1024.0)

    ours, due = both(where, on_gpu, downslope.adam, walk)
    plain = Training(torch.device("cpu"), downslope.adam)
    plain.step()
    assert ours.bits() == due.bits() == plain.bits()


# Where there is no kernel


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("ptxas does not know sm_999"), "ptxas does not know sm_999"),
        (NotADirectoryError(20, "Not a directory", "/dev/null/x"), "'/dev/null/x'; .* in TRITON_CACHE_DIR"),
    ],
    ids=["an unknown card", "a cache that cannot be written"],
)
def test_a_device_that_takes_no_kernel_goes_on_operation_by_operation_and_says_so_once(error, said, where, monkeypatch):
    class Broken(devices.DeviceMemory):
        def here(self):
            raise error

    monkeypatch.setattr(launch, "memory_of", Broken)
    monkeypatch.setattr(devices, "_refused", {})
    ours = Training(where, downslope.adam)
    with pytest.warns(RuntimeWarning, match=f"no kernels for parameters on .*{said}") as caught:
        ours.step()
    assert len(caught) == 1
    assert ours.kinds() == {Interpreted}
    due = Training(torch.device("cpu"), downslope.adam)
    monkeypatch.undo()
    due.step()
    for a, b in zip(ours.params, due.params, strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach())
    monkeypatch.setattr(launch, "memory_of", Broken)
    for settings in ({"dtype": torch.bfloat16, "rounding": "stochastic"}, {"state_dtype": torch.uint8}):
        with pytest.raises(RuntimeError, match=said):
            Training(where, downslope.momentum, **settings).step()


def test_a_group_with_parameters_on_several_devices():
    """Each device has its own launch; one that has no memory stands for those without a kernel."""

    def trained(places):
        params = [torch.nn.Parameter(torch.ones(3, device=place)) for place in places]
        optimizer = downslope.torch.Optimizer(params, downslope.adam, lr=0.1)
        for k in range(3):
            for p in params:
                p.grad = torch.full_like(p, 0.5 - k)
            optimizer.step()
        [laid_out] = optimizer._progress.layouts.values()
        return params, optimizer, [type(each) for each in laid_out.launches]

    ours, optimizer, kinds = trained(["cpu", "meta", "cpu"])
    due, *_ = trained(["cpu", "cpu", "cpu"])
    assert kinds == [Compiled, Interpreted]
    assert torch.equal(ours[0], due[0])
    assert torch.equal(ours[2], due[2])
    assert [optimizer.state[p]["step"].item() for p in ours] == [3, 3, 3]
    assert {tensor.device.type for name, tensor in optimizer.state[ours[1]].items() if name != "step"} == {"meta"}


def test_a_gradient_on_another_device_is_not_taken_as_it_is():
    """PyTorch lets parameters move to a GPU and leave their gradients; before a step these are copied there."""
    param = torch.nn.Parameter(torch.ones(3, device="meta"))
    param.grad = torch.ones(3, device="meta")
    optimizer = downslope.torch.Optimizer([param], downslope.adam, lr=0.1)
    optimizer.step()
    [laid_out] = optimizer._progress.layouts.values()
    gradients = [torch.ones(3)]
    assert laid_out.take(gradients) == [1]
    assert laid_out.ready(gradients)
    assert gradients[0].device.type == "meta"
    assert laid_out.take(gradients) == [0]


@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0}, {"nonfinite": "skip"}])
def test_a_first_step_in_inference_mode_breaks_no_later_one(options, where, on_gpu):
    def walk(training):
        with torch.inference_mode():
            training.step()
        for k in range(2):
            training.optimizer.param_groups[0]["lr"] = 0.1 + k
            training.step()

    ours, due = both(where, on_gpu, downslope.adam, walk, **options)
    assert ours.kinds() == {Compiled}
    assert ours.steps == 3
    for mine, yours in zip(ours.params, due.params, strict=True):
        torch.testing.assert_close(mine.detach().cpu(), yours.detach(), rtol=1e-6, atol=1e-7)


class Processes:
    """A process group: as many processes with the same gradients, which take tensors of these devices."""

    def __init__(self, count, kinds):
        self.count, self._device_types = count, [torch.device(kind) for kind in kinds]


@pytest.fixture
def processes(monkeypatch):
    """Sums over groups of `Processes`; the devices on which numbers are asked for are noted, and are the CPU."""
    dist = pytest.importorskip("torch.distributed")
    if not dist.is_available():
        pytest.skip("this PyTorch has no processes")
    asked = []

    def tensor(numbers, *, dtype, device):
        asked.append(device)
        return torch.tensor(numbers, dtype=dtype)

    def all_reduce(found, op=dist.ReduceOp.SUM, *, group):
        found *= 1 if op == dist.ReduceOp.MAX else group.count

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    stand_in = SimpleNamespace(**{**vars(torch), "tensor": tensor})
    monkeypatch.setattr(gradients, "torch", stand_in)
    return asked


def surveyed(device, *mesh):
    return SimpleNamespace(device=torch.device(device), mesh=mesh, survey=lambda workers: (3.0, 1.0, 0))


def test_sums_are_taken_on_the_devices_of_the_gradients(processes):
    """NCCL takes no tensors of the host, not even where that is where the shards are, and then its own device does."""
    both, nccl = Processes(4, ["cpu", "cuda"]), Processes(4, ["cuda"])
    places = [("cuda:1", both), ("cuda:1", nccl), ("cpu", both), ("cpu", nccl)]
    launches = [surveyed(*place) for place in places]
    assert gradients.norm_and_nonfinite(launches, 1) == (pytest.approx(144**0.5), 0)
    due = [torch.device(kind) for kind in ("cuda:1", "cuda:1", "cpu", "cuda")]
    assert processes == [device for device in due for _ in ("largest", "sums")]


def test_nobody_waits_for_the_norm_of_shards(processes, monkeypatch):
    """Two launches over 4 processes, one over 2 × 3, one that every process has whole."""
    four, two, three = (Processes(count, ["cuda"]) for count in (4, 2, 3))
    meshes = {(four,): 2, (two, three): 1, (): 1}
    launches = [
        SimpleNamespace(mesh=mesh, squares=lambda: torch.tensor(4.0, dtype=torch.float64))
        for mesh, count in meshes.items()
        for _ in range(count)
    ]
    for name in ("item", "tolist", "__float__", "__bool__", "cpu", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, None, raising=False)
    squares = gradients.squares_on_device(launches)
    factor, loose = (gradients.factor_within(squares, limit, 0.5) for limit in (3.0, 100.0))
    monkeypatch.undo()
    assert factor.item() == pytest.approx(3.0 / (2 * 4 * 4 + 6 * 4 + 4) ** 0.5)
    assert loose.item() == 0.5


def test_a_scale_may_be_on_another_gpu_than_the_gradients():
    """A gradient scaler's is where the loss is. No such devices are needed for tensors that hold nothing."""
    with FakeTensorMode():
        squares, scale = (torch.ones((), dtype=torch.float64, device=f"cuda:{k}") for k in range(2))
        assert gradients.factor_within(squares, 1.0, scale).device == squares.device


def test_without_a_kernel_a_device_is_not_waited_for_either(monkeypatch):
    """Operation by operation: a CPU's tensors, taken for those of a device that does its work later."""
    monkeypatch.setattr(interpreted, "runs_behind", lambda device: True)
    monkeypatch.setattr(layout, "has_kernels", lambda device: False)
    ours, due = (Training(torch.device("cpu"), downslope.adam, max_norm=0.5, weight_decay=0.1) for _ in range(2))
    for training, kind in ((ours, Interpreted), (due, Compiled)):
        for scale in (1.0, 100.0, 1e-3):
            training.step(scale=scale)
        assert training.kinds() == {kind}
        monkeypatch.undo()
    for a, b in zip(ours.params, due.params, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-6, atol=1e-7)


def test_a_step_is_no_part_of_a_graph(where, on_gpu, monkeypatch):
    """Where no stream is captured, one is only said to be."""
    with on_gpu():
        training = Training(where, downslope.adam)
        training.step()
        before = training.bits()
        monkeypatch.setattr(devices.DeviceMemory, "recording", lambda memory: True)
        with pytest.raises(RuntimeError, match="a step cannot be part of a CUDA graph"):
            training.step()
        assert training.bits() == before


@pytest.mark.parametrize(
    ("found", "version", "message"),
    [
        (None, "", "Triton is not installed: pip install triton"),
        (object(), "3.5.1", "Triton 3.5.1 is too old; .* 3.6"),
        (object(), "3.6.0", "Triton has been asked to interpret kernels"),
    ],
)
def test_without_a_triton_that_will_do_there_are_no_kernels_for_a_gpu(found, version, message, monkeypatch):
    import triton

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    device = torch.device("cuda", 7)
    monkeypatch.setattr(devices, "_refused", {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(triton, "__version__", version)
    devices._without.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=f"no kernels for parameters on cuda:7: {message}"):
            assert not devices.has_kernels(device)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not devices.has_kernels(device)
            assert devices.has_kernels(torch.device("cpu"))
            assert not devices.has_kernels(torch.device("meta"))
    finally:
        devices._without.cache_clear()
