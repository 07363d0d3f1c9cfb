"""Steps that a CUDA graph records end, run after run, where ordinary steps on the CPU do, bit for bit.

Without a GPU the kernels are run by Triton's interpreter on tensors of the CPU, and what a graph would record is noted:
launches, and operations of PyTorch on the memory they had. When that is done again, the optimizer's own code is not
asked.
"""

import copy
import gc
import importlib.util
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import downslope
import downslope.torch
from downslope.backends import device as on_device
from downslope.backends import triton_coefficients, triton_survey
from downslope.torch import device as devices
from downslope.torch import launch, layout, settings
from downslope.torch.launch import Compiled

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),  # when what it was to record has been refused
]
SHAPES = [(7, 5), (9,), (0, 3)]
GPUS = ["interpreted", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


class Notes(TorchDispatchMode):
    """What stands in for a graph.

    Attributes:
        done: What has been noted, in its order.
    """

    def __init__(self):
        super().__init__()
        self.done, self.launching = [], False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if not self.launching:
            self.done.append(lambda: self.again(function, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def again(self, function, args, kwargs, found):
        """Do an operation once more, with what comes of it in the same memory."""
        new = function(*args, **kwargs)
        if isinstance(found, torch.Tensor) and new.data_ptr() != found.data_ptr():
            found.copy_(new)

    def launch(self, run):
        self.done.append(run)
        self.launching = True
        try:
            run()
        finally:
            self.launching = False


class Gpu:
    """A GPU, or what stands in for one.

    Attributes:
        where: The device of its tensors.
    """

    def __init__(self, where):
        self.where, self.notes = where, None

    def launcher(self, real):
        """As `triton.launcher`."""

        def made(*arguments):
            run = real(*arguments)
            return lambda *given: run(*given) if self.notes is None else self.notes.launch(lambda: run(*given))

        return made

    def recorded(self, work, tensors):
        """What does some work again; it has not been done meanwhile, for all that these tensors show."""
        if self.where.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work()
            return graph.replay
        before = [tensor.detach().clone() for tensor in tensors]
        notes = self.notes = Notes()
        try:
            with notes:
                work()
        finally:
            self.notes = None
        with torch.no_grad():
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)
        return lambda: [each() for each in notes.done]


@pytest.fixture(params=GPUS)
def gpu(request, monkeypatch):
    if request.param == "cuda":
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        return Gpu(torch.device("cuda", 0))
    found = Gpu(torch.device("cpu"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(launch, "memory_of", devices.DeviceMemory)
    monkeypatch.setattr(settings, "in_main_memory", lambda tensor: False)
    monkeypatch.setattr(devices.DeviceMemory, "recording", lambda memory: found.notes is not None)
    for module in (on_device, triton_coefficients, triton_survey):
        monkeypatch.setattr(module, "launcher", found.launcher(module.launcher))
    return found


class Training:
    """Steps with gradients that stay where they are.

    Attributes:
        params: The parameters.
        optimizer: What updates them.
    """

    def __init__(self, where, make, dtype=torch.float32):
        start = torch.Generator().manual_seed(0)
        self.params = [
            torch.nn.Parameter(torch.randn(shape, generator=start, dtype=torch.float64).to(where, dtype))
            for shape in SHAPES
        ]
        for p in self.params:
            p.grad = torch.zeros_like(p)
        self.optimizer, self.steps, self.where = make(self.params), 0, where

    def next(self):
        """Write the gradients of the next step."""
        given = torch.Generator().manual_seed(100 + self.steps)
        self.steps += 1
        for p in self.params:
            p.grad.copy_(torch.randn(p.shape, generator=given, dtype=torch.float64))

    def step(self):
        self.next()
        with np.errstate(all="ignore"):
            self.optimizer.step()

    def tensors(self):
        """Parameters and states."""
        states = [tensor for p in self.params for _, tensor in sorted(self.optimizer.state[p].items())]
        return [tensor.detach() for tensor in (*self.params, *states)]

    def ends_like(self, other, *, exact=True):
        """Whether all tensors are equal: to the last bit, but for a GPU's own powers, which are its library's."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            if exact and self.where.type == "cpu":
                assert bits(mine) == bits(theirs)
            else:
                torch.testing.assert_close(mine.cpu(), theirs.cpu(), rtol=1e-5, atol=1e-6, equal_nan=True)

    def recorded(self, gpu):
        """What takes a step, by a graph."""
        run = gpu.recorded(self.optimizer.step, self.tensors())

        def replay():
            self.next()
            with np.errstate(all="ignore"):
                run()

        return replay


def bits(tensor):
    """A tensor as bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def groups(params, **more):
    return [{"params": params[::2], "lr": 0.02}, {"params": params[1::2], **more}]


A_RULE = downslope.torch.Optimizer
CASES = {
    "Adam": (lambda p, **on: downslope.torch.Adam(p, **on), torch.float32),
    "groups": (lambda p, **on: downslope.torch.AdamW(groups(p, weight_decay=0.1), **on), torch.float32),
    "scalar states": (lambda p, **on: downslope.torch.NAdam(p, **on), torch.float64),
    "conditions": (lambda p, **on: downslope.torch.RAdam(p, **on), torch.float32),
    "first step": (
        lambda p, **on: downslope.torch.SGD([{"params": p, **on}], momentum=0.9, averaging=0.9),
        torch.float32,
    ),
    "look-ahead": (lambda p, **on: A_RULE(p, downslope.schedule_free_adamw, cautious=True, **on), torch.float32),
    "random": (lambda p, **on: A_RULE(p, downslope.adam, rounding="stochastic", seed=3, **on), torch.bfloat16),
    "compensated": (lambda p, **on: A_RULE(p, downslope.momentum, rounding="compensated", **on), torch.bfloat16),
    "whole tensors": (lambda p, **on: A_RULE(p, downslope.lamb, **on), torch.float32),
    "eight bits": (lambda p, **on: downslope.torch.Adam(p, state_dtype=torch.uint8, **on), torch.float32),
}


@pytest.mark.parametrize("case", CASES)
def test_a_graph_takes_the_steps_that_the_cpu_takes(case, gpu):
    make, dtype = CASES[case]
    ours, due = trainings(gpu, make, dtype)
    ours.step()
    [layout] = ours.optimizer._progress.layouts.values()
    assert {type(each) for each in layout.launches} == {Compiled}
    replay = ours.recorded(gpu)
    for _ in range(3):
        replay()
    ours.step()  # an ordinary step goes on
    replay()
    for _ in range(6):
        due.step()
    ours.ends_like(due)
    assert all(own["step"].device == gpu.where for own in ours.optimizer.state.values())


def trainings(gpu, make, dtype=torch.float32):
    """A training whose steps may be recorded, and one on the CPU."""
    return Training(gpu.where, lambda params: make(params, capturable=True), dtype), Cpu(make, dtype)


class Cpu(Training):
    """A training by the kernels of the CPU."""

    def __init__(self, make, dtype):
        super().__init__(torch.device("cpu"), make, dtype)

    def step(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "memory_of", lambda device: None)
            super().step()


def test_a_learning_rate_on_the_device_is_read_at_every_run(gpu):
    rate = torch.tensor(0.5, device=gpu.where)
    ours = Training(gpu.where, lambda p: downslope.torch.Adam(p, lr=rate, capturable=True))
    due = Cpu(lambda p: downslope.torch.Adam(p, lr=0.5), torch.float32)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(ours.optimizer, 0.5)
    ours.step()
    due.step()
    replay = ours.recorded(gpu)
    for k in range(3):
        scheduler.step()
        assert ours.optimizer.param_groups[0]["lr"] is rate
        due.optimizer.param_groups[0]["lr"] = 0.5 ** (k + 2)
        replay()
        due.step()
    ours.ends_like(due)
    rate.fill_(-1.0)
    with pytest.raises(ValueError, match=r"lr=-1\.0"):
        downslope.torch.Adam([torch.nn.Parameter(torch.ones(2, device=gpu.where))], lr=rate, capturable=True)


def test_a_learning_rate_is_read_wherever_its_memory_is(gpu):
    """And a graph goes on with the one that it has seen, which nobody else may hold any more."""
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.Adam(p, lr=torch.tensor(0.5, device=p[0].device), **on))
    rate = ours.optimizer.defaults["lr"]
    for lr in (0.5, 0.25):
        rate.data = torch.tensor(lr, device=gpu.where)
        due.optimizer.param_groups[0]["lr"] = lr
        ours.step()
        due.step()
    ours.ends_like(due)
    ours.recorded(gpu)
    alive = weakref.ref(rate)
    del rate
    ours.optimizer.defaults["lr"] = ours.optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device=gpu.where)
    ours.step()
    gc.collect()
    assert alive() is not None


def test_a_number_is_that_of_the_recording(gpu):
    """As in `torch.optim`; in an ordinary step it is that of the group."""
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.RMSprop(p, lr=0.5, **on))
    ours.step()
    replay = ours.recorded(gpu)
    ours.optimizer.param_groups[0]["lr"] = 0.25
    ours.step()
    replay()
    for lr in (0.5, 0.25, 0.5):
        due.optimizer.param_groups[0]["lr"] = lr
        due.step()
    ours.ends_like(due)


def test_clipping_is_recorded(gpu):
    """The factor may differ by the rounding of a sum of squares in double precision."""
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.Adam(p, lr=0.1, max_norm=0.5, **on))
    ours.step()
    replay = ours.recorded(gpu)
    for _ in range(3):
        replay()
    for _ in range(4):
        due.step()
    ours.ends_like(due, exact=False)


WAITS = ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "nonzero")


def unasked(training, act):
    """Do something that nobody may wait for a device in."""
    training.next()
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        for name in WAITS:
            patch.setattr(torch.Tensor, name, None, raising=False)
        act()


@pytest.mark.parametrize("options", [{}, {"max_norm": 0.5}], ids=["skip", "skip and clip"])
def test_a_device_leaves_out_steps_whose_gradients_are_not_finite(options, gpu):
    """The count of steps says nothing of them, and nobody waits, recorded or not."""
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.NAdam(p, nonfinite="skip", **options, **on))
    replay = None
    for k, bad in enumerate((False, torch.inf, False, False, torch.nan, -torch.inf, False)):
        if k == 3:
            ours.next()
            counted = ours.optimizer.skipped
            run = gpu.recorded(ours.optimizer.step, [*ours.tensors(), *ours.optimizer._progress.left_out.values()])
            ours.steps -= 1
            assert ours.optimizer.skipped == counted == 1
            replay = run
        for training in (ours, due):
            write, training.next = training.next, lambda t=training, n=Training.next: (n(t), spoil(t))

            def spoil(training, bad=bad):
                if bad:
                    training.params[1].grad[-1] = bad

            if training is ours:
                if k == 0:  # what is laid out, and compiled
                    training.step()
                else:
                    unasked(training, replay or training.optimizer.step)
            else:
                training.step()
            training.next = write
        assert ours.optimizer.skipped == due.optimizer.skipped
    assert ours.optimizer.skipped == 3
    ours.ends_like(due, exact=not options)
    again = copy.deepcopy(ours.optimizer)
    assert again.skipped == 3


def test_a_gradient_scaler_that_leaves_all_to_the_step_waits_for_nothing(gpu):
    """It sets both numbers for the length of a step; with max_norm the norm is that of what has been unscaled."""
    for options in ({}, {"max_norm": 0.5}, {"maximize": True, "weight_decay": 0.1}):
        ours, due = trainings(gpu, lambda p, **on: downslope.torch.Adam(p, fused=True, lr=0.1, **options, **on))  # noqa: B023
        for k, (scale, found) in enumerate([(1024.0, 0.0), (1024.0, 1.0), (512.0, 0.0), (None, 0.0), (None, 1.0)]):
            for training in (ours, due):
                optimizer = training.optimizer
                optimizer.found_inf = torch.tensor(found, device=training.where)
                if scale is not None:
                    optimizer.grad_scale = torch.tensor(scale, device=training.where)
                if training is due or k in (0, 3):
                    training.step()
                else:
                    unasked(training, optimizer.step)
                for name in ("found_inf", "grad_scale"):
                    optimizer.__dict__.pop(name, None)
        assert ours.optimizer.skipped == due.optimizer.skipped == 2
        for training in (ours, due):  # and nothing is left of them
            training.step()
        ours.ends_like(due, exact="max_norm" not in options)


def test_a_gradient_scaler_leaves_a_step_out_before_it_would_raise(gpu):
    """An overflow is the scaler's own affair, as on the CPU."""
    for training in trainings(gpu, lambda p, **on: downslope.torch.Adam(p, fused=True, nonfinite="raise", **on)):
        training.step()
        before = [bits(tensor) for tensor in training.tensors()]
        training.optimizer.grad_scale = torch.tensor(8.0, device=training.where)
        training.optimizer.found_inf = torch.tensor([1.0], device=training.where)
        training.params[0].grad.fill_(torch.inf)
        training.next = lambda: None
        training.step()
        assert [bits(tensor) for tensor in training.tensors()] == before
        assert training.optimizer.skipped == 1


def test_gradients_may_be_at_other_places_in_the_graph_than_before(gpu):
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.Adam(p, **on))
    ours.step()
    for p in ours.params:
        p.grad = torch.zeros_like(p)
    replay = ours.recorded(gpu)
    own = [p.grad for p in ours.params]
    replay()
    for p in ours.params:
        p.grad = torch.zeros_like(p)
    ours.step()
    for p, gradient in zip(ours.params, own, strict=True):
        p.grad = gradient
    replay()
    for _ in range(4):
        due.step()
    ours.ends_like(due)


def test_what_stands_in_for_views_and_gradients_stays_as_long_as_a_graph_writes_to_it(gpu):
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.Adam(p, lr=0.1, **on))
    for training in (ours, due):
        first, second, _ = training.params
        first.data = torch.cat([first.data, first.data], 1)[:, ::2]
        second.grad = torch.zeros(18, device=training.where)[::2]
        first.grad = torch.zeros(5, 7, device=training.where).T
        training.step()
    replay = ours.recorded(gpu)
    [layout] = ours.optimizer._progress.layouts.values()
    standing_in = [stage for _, stage in layout.staged] + [*layout.buffers.values()]
    assert len(standing_in) == 3
    alive = [weakref.ref(tensor) for tensor in standing_in]
    replay()
    due.step()
    ours.ends_like(due)
    ours.optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr"):
        ours.optimizer.step()
    ours.optimizer.param_groups[0]["lr"] = 0.1
    del layout, standing_in, replay
    ours.step()  # laid out anew
    gc.collect()
    assert all(tensor() is not None for tensor in alive)


def test_two_graphs_of_one_optimizer(gpu):
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.Adam(p, **on))
    ours.step()
    first = ours.recorded(gpu)
    with pytest.raises(RuntimeError, match="one between two graphs"):  # what is laid aside is for two sends of a page
        [ours.recorded(gpu) for _ in range(2)]
    ours.step()
    second = ours.recorded(gpu)
    first()
    second()
    for _ in range(4):
        due.step()
    ours.ends_like(due)


# What is saved


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RMSprop"])
def test_states_go_to_torchs_own_and_back(name, gpu):
    """Counts stay on the device; where they were in main memory they go there."""
    make = getattr(downslope.torch, name)
    ours = Training(gpu.where, lambda p: make(p, capturable=True))
    ours.step()
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(p.detach().clone()) for p in ours.params], capturable=True)
    theirs.load_state_dict(copy.deepcopy(ours.optimizer.state_dict()))
    assert theirs.param_groups[0]["capturable"] is True
    assert all(own["step"].device == gpu.where and own["step"] == 1 for own in theirs.state.values())
    later = Training(gpu.where, lambda p: make(p, capturable=True))
    later.optimizer.load_state_dict(theirs.state_dict())
    for p, q in zip(later.params, ours.params, strict=True):
        p.data.copy_(q.detach())
    later.steps = ours.steps
    for training in (ours, later):
        training.step()
        replay = training.recorded(gpu)
        replay()
    if name != "NAdam":  # whose product of momenta is single precision there
        later.ends_like(ours)
    assert [float(own["step"]) for own in later.optimizer.state.values()] == [3.0] * len(SHAPES)


def test_an_ordinary_training_goes_on_as_one_to_be_recorded_and_back(gpu):
    ours, due = trainings(gpu, lambda p, **on: downslope.torch.NAdam(p, **on))
    for flag in (True, False, True):
        ours.optimizer.param_groups[0]["capturable"] = flag
        ours.step()
        due.step()
        if flag:
            ours.recorded(gpu)()
            due.step()
        else:
            with pytest.raises(RuntimeError, match="make the optimizer with capturable=True"):
                ours.recorded(gpu)
    ours.ends_like(due)


def test_a_file_goes_on_where_it_was_saved_and_evaluation_is_at_the_weights(gpu, tmp_path):
    def make(p, **on):
        return A_RULE(p, downslope.schedule_free_adamw, **on)

    ours, due = trainings(gpu, make)
    ours.step()
    replay = ours.recorded(gpu)
    replay()
    model = torch.nn.ParameterList(ours.params)
    with ours.optimizer.at_weights():
        weights = [p.detach().clone() for p in ours.params]
    ours.optimizer.save(tmp_path / "state.safetensors", model)
    for _ in range(2):
        due.step()
    with due.optimizer.at_weights():
        for mine, theirs in zip(weights, due.params, strict=True):
            torch.testing.assert_close(mine.cpu(), theirs.detach())
    later = Training(gpu.where, lambda p: make(p, capturable=True))
    later.optimizer.load(tmp_path / "state.safetensors", torch.nn.ParameterList(later.params))
    later.steps = ours.steps
    for training in (ours, later):
        training.step()
        training.recorded(gpu)()
    later.ends_like(ours)
    for _ in range(2):
        due.step()
    ours.ends_like(due)


# What is refused


def test_capturable_is_refused_on_the_cpu():
    params = [torch.nn.Parameter(torch.ones(2))]
    for make in (downslope.torch.Adam, downslope.torch.RMSprop, lambda p, **on: A_RULE(p, downslope.adam, **on)):
        with pytest.raises(ValueError, match=r"capturable=True is not possible for parameters on cpu: .*CUDA graphs"):
            make(params, capturable=True)
    with pytest.raises(ValueError, match="parameters on cpu"):
        downslope.torch.Adam([("named", params[0])], capturable=True)
    with pytest.raises(ValueError, match="parameters on cpu"):
        downslope.torch.Adam([{"params": params, "capturable": True}])
    with pytest.raises(TypeError, match="capturable='yes'"):
        A_RULE(params, downslope.adam, capturable="yes")


def test_what_no_graph_can_record_is_refused_with_the_reason(gpu):
    def refused(message, *, steps=1, **options):
        training = Training(gpu.where, lambda p: downslope.torch.Adam(p, **options))
        for _ in range(steps):
            training.step()
        before = [bits(tensor) for tensor in training.tensors()]
        with pytest.raises(RuntimeError, match=message):
            training.recorded(gpu)
        assert [bits(tensor) for tensor in training.tensors()] == before
        training.step()

    refused("make the optimizer with capturable=True")
    refused("make the optimizer with capturable=True", steps=0)
    refused("take a step with the same parameters and settings", steps=0, capturable=True)
    refused("the host looks at the gradients: with nonfinite='raise'", capturable=True, nonfinite="raise")


def test_a_tensor_that_the_host_has_to_know_is_refused(gpu):
    mu = torch.tensor(0.9, device=gpu.where)
    params = [torch.nn.Parameter(torch.ones(2, device=gpu.where))]
    with pytest.raises(ValueError, match=r"mu is a tensor on .*; give a number, or a tensor on the CPU"):
        A_RULE(params, downslope.nesterov, mu=mu, capturable=True)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        downslope.torch.Adam(params, lr=torch.ones(2, device=gpu.where), capturable=True)
    with pytest.raises(ValueError, match=r"betas\[1\] is a tensor of shape \(3,\)"):
        downslope.torch.Adam(params, betas=(0.9, torch.ones(3, device=gpu.where)), capturable=True)


def test_it_is_refused_where_no_kernel_goes(gpu, monkeypatch):
    training = Training(gpu.where, lambda p: downslope.torch.Adam(p, capturable=True))
    monkeypatch.setattr(layout, "has_kernels", lambda device: False)
    before = [p.detach().clone() for p in training.params]
    with pytest.raises(ValueError, match=r"capturable=True is not possible for parameter 0 on .* no kernel updates"):
        training.step()
    assert all(map(torch.equal, training.params, before))
    assert not training.optimizer.state
