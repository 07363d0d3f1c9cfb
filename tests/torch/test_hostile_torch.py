"""Tensors and states that change under an optimizer: it refuses or follows, and never writes where it should not."""

import copy
import gc
import signal
import threading

import pytest
import torch

import downslope
import downslope.torch
from downslope import rule
from forked import run_alone

Parameter = torch.nn.Parameter

IN_A_PROCESS_OF_ITS_OWN = """
import os, signal, sys, torch, downslope.torch
from torch._subclasses.fake_tensor import FakeTensorMode
REFUSED = (ValueError, TypeError, RuntimeError)

def stepped(kind, length=100, **options):
    p = torch.nn.Parameter(torch.ones(length))
    optimizer = kind([p], lr=0.1, **options)
    p.grad = torch.ones(length)
    optimizer.step()
    return p, optimizer

def refused(name, optimizer):
    print(name, flush=True)
    try:
        optimizer.step()
    except REFUSED:
        return
    sys.exit(name + " was not refused")

SGD, Adam = downslope.torch.SGD, downslope.torch.Adam
for kind in (SGD, Adam):
    p, optimizer = stepped(kind)
    p.untyped_storage().resize_(0)
    refused(f"{kind.__name__}: parameter without memory", optimizer)
    p, optimizer = stepped(kind)
    p.grad.untyped_storage().resize_(0)
    refused(f"{kind.__name__}: gradient without memory", optimizer)
    p = torch.nn.Parameter(torch.ones(100))
    p.grad = torch.ones(100)
    p.untyped_storage().resize_(0)
    refused(f"{kind.__name__}: parameter without memory from the start", kind([p], lr=0.1))
    p, optimizer = stepped(kind, 1 << 20)
    p.untyped_storage().resize_(16)
    refused(f"{kind.__name__}: parameter with less memory than elements", optimizer)
    p, optimizer = stepped(kind, 1 << 22)
    p.grad.untyped_storage().resize_(8)
    refused(f"{kind.__name__}: gradient with less memory than elements", optimizer)
for name in ("exp_avg", "exp_avg_sq", "step"):
    p, optimizer = stepped(Adam)
    optimizer.state[p][name].untyped_storage().resize_(0)
    refused(f"{name} without memory", optimizer)
with FakeTensorMode():
    for kind in (SGD, Adam):
        p = torch.nn.Parameter(torch.ones(100))
        p.grad = torch.ones(100)
        refused(f"{kind.__name__}: fake tensors", kind([p], lr=0.1))
for kind in (SGD, Adam):
    p, optimizer = stepped(kind)
    with FakeTensorMode():
        fake = torch.ones(100)
    p.grad = fake
    refused(f"{kind.__name__}: fake gradient", optimizer)

print("fork", flush=True)
p, optimizer = stepped(Adam, 1 << 19, threads=2)
child = os.fork()
if child == 0:
    signal.alarm(30)
    optimizer.step()
    os._exit(0 if optimizer.state[p]["step"] == 2 else 1)
if os.waitpid(child, 0)[1]:
    sys.exit("the step of a forked child failed")
print("done")
"""


@rule
def counting(x, dx, *, t, lr=1.0):
    """Weights that tell how many steps were done: x = -t (t + 1) / 2."""
    return x - lr * t * dx


def parameter(values, gradient=None):
    p = Parameter(torch.as_tensor(values, dtype=torch.float32))
    p.grad = torch.ones_like(p) if gradient is None else gradient
    return p


def values(*params):
    return [p.data.clone() for p in params]


def same(found, expected):
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (found, expected)


def both(name):
    return getattr(torch.optim, name), getattr(downslope.torch, name)


def test_memory_that_is_not_there_is_refused_and_not_written_to():
    ended, printed = run_alone(IN_A_PROCESS_OF_ITS_OWN)
    assert (ended, printed.splitlines()[-1:]) == (0, ["done"]), printed[-1500:]


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_parameters_that_come_and_go_are_updated_once_a_step(name):
    found = []
    for kind in both(name):
        generator = torch.Generator().manual_seed(0)
        params = [Parameter(torch.randn(3, generator=generator)) for _ in range(3)]
        optimizer = kind(params, lr=0.1)
        for step in range(12):
            for k, p in enumerate(params):
                gradient = torch.randn(3, generator=generator)
                p.grad = gradient if (7 * step + 3 * k) % 4 else None
            optimizer.step()
        found.append(torch.stack(values(*params)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_data_with_other_strides_at_the_same_address():
    found = []
    for kind in both("SGD"):
        memory = torch.arange(8.0)
        p = parameter(memory[:4])
        optimizer = kind([p], lr=1.0)
        for _ in range(2):
            optimizer.step()
        p.grad = None
        p.data = memory[::2]
        p.grad = torch.ones(8)[::2]
        optimizer.step()
        found.append(memory)
    same([found[1]], [found[0]])


def test_data_that_shrink_to_one_number_at_the_same_address():
    memory = torch.zeros(1000)
    p = parameter(memory)
    optimizer = downslope.torch.SGD([p], lr=1.0)
    for _ in range(2):
        optimizer.step()
    p.grad = None
    p.data = memory[:1].expand(1000)
    p.grad = torch.ones(1).expand(1000)
    with pytest.raises((RuntimeError, ValueError)):
        optimizer.step()
    assert (memory[1:] == -2).all()


def test_weights_that_come_to_overlap_do_not_spill_over():
    memory = torch.zeros(8)
    p = Parameter(memory.view(2, 2, 2))
    optimizer = downslope.torch.Optimizer([p], downslope.sgd, lr=1.0)
    p.grad = torch.ones(2, 2, 2)
    optimizer.step()
    p.data = memory.as_strided((2, 2, 2), (1, 1, 5))  # it reaches as far as before, but has no element 3 or 4
    p.grad = torch.ones(8).as_strided((2, 2, 2), (1, 1, 5))
    optimizer.step()
    assert memory[3:5].tolist() == [-1, -1]


def test_an_expanded_parameter_is_refused_before_anything_changes():
    p = Parameter(torch.zeros(1).expand(5))
    p.grad = torch.ones(5)
    optimizer = downslope.torch.Adam([p], lr=0.1)
    with pytest.raises((RuntimeError, ValueError)):
        optimizer.step()
    assert not optimizer.state.get(p) or optimizer.state[p]["step"] == 0


def test_a_parameter_that_is_lazily_conjugated():
    found = []
    for kind in both("SGD"):
        p = Parameter(torch.tensor([1 + 1j, 2 + 2j]).conj())
        p.grad = torch.tensor([1 + 10j, 1 + 10j])
        optimizer = kind([p], lr=0.1)
        for _ in range(2):
            optimizer.step()
        found.append(p.detach().resolve_conj())
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("length", [1, 3])
def test_a_parameter_that_is_lazily_negated(length):
    found = []
    for kind in both("SGD"):
        p = Parameter(torch.full((length,), 1 + 1j).conj().imag)
        p.grad = torch.ones(length)
        optimizer = kind([p], lr=0.1)
        for _ in range(2):
            optimizer.step()
        found.append(p.detach().resolve_neg())
    torch.testing.assert_close(found[1], found[0])


def test_a_state_that_is_lazily_conjugated():
    found = []
    for lazily in (False, True):
        p = Parameter(torch.tensor([1 + 1j, 2 + 2j]))
        p.grad = torch.tensor([1 + 10j, 1 + 10j])
        optimizer = downslope.torch.SGD([p], lr=0.1, momentum=0.9)
        optimizer.step()
        buffer = optimizer.state[p]["momentum_buffer"].conj()
        optimizer.state[p]["momentum_buffer"] = buffer if lazily else buffer.resolve_conj()
        optimizer.step()
        found.append(p.detach())
    torch.testing.assert_close(found[1], found[0])


def test_parameters_that_share_memory_are_updated_one_after_another():
    found = []
    for kind in both("SGD"):
        memory = torch.zeros(8)
        optimizer = kind([parameter(memory[:6]), parameter(memory[2:])], lr=1.0)
        for _ in range(3):
            optimizer.step()
        found.append(memory)
    same([found[1]], [found[0]])


@pytest.mark.parametrize("first", [slice(0, 8, 2), slice(0, 8)], ids=["two with gaps", "dense and with gaps"])
def test_views_with_gaps_that_share_memory_are_refused(first):
    memory = torch.zeros(8)
    optimizer = downslope.torch.SGD([parameter(memory[first]), parameter(memory[::2])], lr=1.0)
    with pytest.raises(ValueError, match="a view with gaps into memory of another parameter"):
        optimizer.step()
    assert not memory.any()


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_gradient_that_is_the_weights_themselves(name):
    found = []
    for kind in both(name):
        p = parameter([1.0, 2.0, 3.0, 4.0])
        optimizer = kind([p], lr=0.1)
        p.grad = p.data.view(4)
        for _ in range(4):
            optimizer.step()
        found.append(p.detach())
    torch.testing.assert_close(found[1], found[0])


def test_gradients_of_every_kind_between_two_ordinary_ones():
    kinds = [
        lambda g: g.to_sparse(),
        lambda g: torch.stack([g, g], -1)[..., 0],
        lambda g: g.t().contiguous().t(),
        lambda g: g[:, :1].expand(3, 3),
        lambda g: torch.complex(g, -g).conj().imag,
        lambda g: torch.nn.Parameter(g),
    ]
    for make in kinds:
        found = []
        for plain in (True, False):
            p = parameter(torch.eye(3))
            optimizer = downslope.torch.Adam([p], lr=0.1)
            optimizer.step()
            optimizer.step()
            gradient = make(torch.arange(9.0).reshape(3, 3))
            dense = gradient.detach().to_dense() if gradient.is_sparse else gradient.detach()
            p.grad = None
            p.grad = dense.resolve_neg().contiguous().clone() if plain else gradient
            optimizer.step()
            p.grad = torch.ones(3, 3)
            optimizer.step()
            found.append(p.detach())
        same([found[1]], [found[0]])


@pytest.mark.parametrize("spoil", [lambda g: g.resize_(0), lambda g: g.set_(), lambda g: setattr(g, "data", g[:5])])
def test_a_gradient_of_another_shape_changes_nothing(spoil):
    p, q = parameter(torch.ones(9)), parameter(torch.ones(9))
    optimizer = downslope.torch.Adam([p, q], lr=0.1)
    optimizer.step()
    optimizer.step()
    spoil(q.grad)
    before = values(p, q)
    with pytest.raises(ValueError, match="gradient of parameter 1"):
        optimizer.step()
    same(values(p, q), before)
    assert optimizer.state[p]["step"] == optimizer.state[q]["step"] == 2


@pytest.mark.parametrize(
    "step", [3, 3.0, torch.tensor(3), torch.tensor(3.0, dtype=torch.float64), torch.tensor([3.0]), torch.tensor(3.0)]
)
def test_a_count_of_steps_of_any_kind(step):
    p = parameter(torch.zeros(4))
    optimizer = downslope.torch.Optimizer([p], counting)
    optimizer.step()
    optimizer.step()
    optimizer.state[p]["step"] = step
    optimizer.step()
    assert (p == -1 - 2 - 4).all()
    assert optimizer.state[p]["step"] == 4


@pytest.mark.parametrize("state", [0.0, "x", torch.zeros(4, dtype=torch.int64), torch.zeros(1), torch.zeros(4, 1)])
def test_a_state_that_does_not_fit_changes_nothing(state):
    p, q = parameter(torch.ones(4)), parameter(torch.ones(4))
    optimizer = downslope.torch.Adam([p, q], lr=0.1)
    optimizer.step()
    optimizer.step()
    optimizer.state[q]["exp_avg"] = state
    before = values(p, q)
    with pytest.raises((TypeError, ValueError), match="the state exp_avg"):
        optimizer.step()
    same(values(p, q), before)
    assert optimizer.state[p]["step"] == 2


@pytest.mark.parametrize("name", ["exp_avg", "step"])
def test_a_state_in_the_memory_of_the_weights_is_refused(name):
    p = parameter(torch.ones(4))
    optimizer = downslope.torch.Adam([p], lr=0.1)
    optimizer.step()
    optimizer.state[p][name] = p.data if name == "exp_avg" else p.data[0]
    before = values(p)
    with pytest.raises(ValueError, match="shares memory"):
        optimizer.step()
    same(values(p), before)


def test_groups_are_changed_by_hand():
    p, q, r = parameter([0.0]), parameter([0.0]), parameter([0.0])
    optimizer = downslope.torch.Optimizer([p, q], counting)
    group = optimizer.param_groups[0]
    optimizer.step()
    group["params"].append(r)
    optimizer.step()
    group["params"].reverse()
    optimizer.step()
    assert [x.item() for x in (p, q, r)] == [-6, -6, -3]
    group["params"] = [q]
    optimizer.step()
    assert [x.item() for x in (p, q, r)] == [-6, -10, -3]
    group["params"] = []
    optimizer.step()
    optimizer.param_groups.clear()
    optimizer.step()
    optimizer.param_groups.append({**group, "params": [r, p]})
    optimizer.step()
    assert [x.item() for x in (p, q, r)] == [-10, -10, -6]


@pytest.mark.parametrize("lr", [float("nan"), "0.1", None, -1.0, True, float("inf"), 1j])
def test_a_setting_that_is_spoilt_between_steps_changes_nothing(lr):
    p = parameter(torch.ones(2))
    optimizer = downslope.torch.Adam([p], lr=0.1)
    optimizer.step()
    optimizer.step()
    before = values(p)
    optimizer.param_groups[0]["lr"] = lr
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match="lr="):
            optimizer.step()
    same(values(p), before)
    assert optimizer.state[p]["step"] == 2
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert optimizer.state[p]["step"] == 3


def test_an_average_that_does_not_fit_leaves_the_weights():
    p, q = parameter(torch.ones(2)), parameter(torch.ones(2))
    optimizer = downslope.torch.Adam([p, q], lr=0.1, averaging=0.5)
    optimizer.step()
    optimizer.step()
    optimizer.state[q]["average"] = torch.ones(5)
    before = values(p, q)
    with pytest.raises((RuntimeError, ValueError)), optimizer.at_average():
        pass
    same(values(p, q), before)


def test_parameters_are_put_back_whatever_became_of_one():
    p, q = parameter(torch.ones(2)), parameter(torch.ones(2))
    optimizer = downslope.torch.Adam([p, q], lr=0.1, averaging=0.5)
    optimizer.step()
    optimizer.step()
    before = values(q)
    with pytest.raises((RuntimeError, ValueError)), optimizer.at_average():
        p.data = torch.ones(7)
    same(values(q), before)


def test_a_copy_made_inside_at_weights_goes_on_from_the_right_point():
    p = parameter(torch.ones(2))
    optimizer = downslope.torch.Optimizer([p], downslope.nesterov, lr=0.1, mu=0.9)
    optimizer.step()
    optimizer.step()
    with optimizer.at_weights():
        try:
            other = copy.deepcopy(optimizer)
        except RuntimeError:  # to refuse would do as well
            return
    q = other.param_groups[0]["params"][0]
    q.grad = p.grad.clone()
    optimizer.step()
    other.step()
    same(values(q), values(p))


def test_steps_inside_closures_and_hooks():
    p = parameter([0.0])
    optimizer = downslope.torch.Optimizer([p], counting)

    def closure():
        optimizer.step()
        return 1.0

    assert optimizer.step(closure) == 1.0
    assert p.item() == -3
    once = []
    optimizer.register_step_post_hook(lambda *_: once or (once.append(1), optimizer.step()))
    optimizer.step()
    assert p.item() == -10


def test_a_step_in_inference_mode_leaves_tensors_trainable():
    p = parameter(torch.zeros(3))
    optimizer = downslope.torch.Optimizer([p], counting)
    with torch.inference_mode():
        p.grad = torch.ones(3)
        optimizer.step()
    p.grad = None
    p.sum().backward()
    optimizer.step()
    assert (p == -3).all()
    assert not optimizer.state[p]["step"].is_inference()


def test_two_threads_step_the_same_optimizer():
    p = parameter(torch.zeros(300_000))
    optimizer = downslope.torch.SGD([p], lr=1.0, threads=2)
    threads = [threading.Thread(target=lambda: [optimizer.step() for _ in range(20)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (p == -40).all()


def test_two_threads_step_two_optimizers():
    optimizers = [
        downslope.torch.SGD([parameter(torch.zeros(300_000)), parameter([0.0])], lr=1.0, threads=2) for _ in range(2)
    ]
    threads = [threading.Thread(target=lambda o=o: [o.step() for _ in range(20)]) for o in optimizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for optimizer in optimizers:
        assert all((p == -20).all() for p in optimizer.param_groups[0]["params"])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that send signals")
def test_an_interrupted_launch_leaves_weights_and_counts_in_step():
    p = parameter(torch.zeros(1 << 23))
    optimizer = downslope.torch.Optimizer([p], counting, threads=2)
    optimizer.step()
    optimizer.step()

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(5):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.002)
                optimizer.step()
            except KeyboardInterrupt:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            count = optimizer.state[p]["step"].item()
            assert p.unique().tolist() == [-count * (count + 1) / 2]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_three_hundred_steps_leave_nothing_behind():
    p, q = parameter(torch.ones(20)), parameter(torch.ones(4, 5))
    optimizer = downslope.torch.Adam([p, q], lr=0.1)

    def steps(count):
        for i in range(count):
            p.data = p.data.clone() if i % 10 == 0 else p.data
            p.grad = torch.ones(20) if i % 3 else None
            q.grad = torch.ones(5, 4).t() if i % 2 else torch.ones(4, 5)
            optimizer.step()

    steps(100)
    gc.collect()
    before = len(gc.get_objects())
    steps(200)
    gc.collect()
    assert len(gc.get_objects()) < before + 50


def test_a_parameter_that_has_a_name_is_called_by_it():
    """In messages of a step as in those of the constructor; another by its number."""
    for called, name in (("fc.weight", "fc.weight"), (None, "number 0")):
        p = torch.ones(2, 3, requires_grad=True)
        optimizer = downslope.torch.Optimizer([p] if called is None else [(called, p)], downslope.muon)
        p.data = torch.ones(3)
        p.grad = torch.ones(3)
        with pytest.raises(ValueError, match=f"the parameter {name}: muon multiplies matrices"):
            optimizer.step()
