"""A training step inside `torch.compile`: the same numbers, no warning, one break of the graph, nothing compiled twice.

The backends `eager` and `aot_eager` need no compiler; what Dynamo makes of the Python code is the same for all.
"""

import contextlib
import warnings

import pytest
import torch
from small_network import batch, network, weights

import downslope
import downslope.torch

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own
STEPS, SETTLED = 12, 4


def groups(p):
    p = list(p)
    return [{"params": p[::2], "lr": 0.02}, {"params": p[1::2], "weight_decay": 0.1}]


def rules(p):
    p = list(p)
    return [{"params": p[::2], "rule": downslope.lamb}, {"params": p[1::2], "rule": downslope.sgd}]


MADE = {
    "AdamW": lambda p: downslope.torch.AdamW(p, lr=0.01),
    "clipped": lambda p: downslope.torch.Adam(p, lr=0.01, max_norm=0.1, nonfinite="raise"),
    "look-ahead": lambda p: downslope.torch.Optimizer(p, downslope.schedule_free_adamw, lr=0.01),
    "groups": lambda p: downslope.torch.NAdam(groups(p), lr=0.01),
    "rules": lambda p: downslope.torch.Optimizer(rules(p)),
    "tensor": lambda p: downslope.torch.Adam(p, lr=torch.tensor(0.01)),
    "options": lambda p: downslope.torch.SGD(p, lr=0.01, momentum=0.9, averaging=0.9, cautious=True),
    "eight bits": lambda p: downslope.torch.Adam(p, lr=0.01, state_dtype=torch.uint8),
}


def breaks():
    """How often Dynamo has broken a graph since its last reset, but for `zero_grad` and `backward`."""
    found = torch._dynamo.utils.counters["graph_break"]
    return sum(count for why, count in found.items() if "zero_grad" not in why and "backward()" not in why)


def schedule(optimizer, t):
    """Set the learning rates of step `t`."""
    for k, group in enumerate(optimizer.param_groups):
        rate = 0.01 / (t + k + 1)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def train(make, compiled, backend="eager", how="step"):
    """The weights after a training, and what the steps returned; after some steps nothing may be compiled any more."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = network()
    optimizer = make(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS) if how == "scheduler" else None
    if how == "in backward":
        optimizer.step_in_backward()
    if how == "hooked":
        optimizer.register_step_post_hook(lambda *_: None)

    def closure(inputs):
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        return loss.detach()

    def whole(inputs):
        if how == "closure":
            return optimizer.step(lambda: closure(inputs))
        if how == "modes":
            optimizer.train()
        loss = closure(inputs)
        if how != "in backward":
            optimizer.step()
        if how == "scheduler":
            scheduler.step()
        if how == "modes":
            optimizer.eval()
        if how in ("at_weights", "at_average"):
            with getattr(optimizer, how)():
                return model(inputs).sum().detach()
        return loss

    step = torch.compile(whole, backend=backend) if compiled else whole
    found = []
    for t in range(STEPS):
        if scheduler is None:
            schedule(optimizer, t)
        settled = compiled and t >= SETTLED
        with torch.compiler.set_stance("fail_on_recompile") if settled else contextlib.nullcontext():
            found.append(step(batch(t)))
    return torch.cat([weights(model), torch.stack(found).double()])


def assert_the_same(case, backend="eager", how="step", most=2):
    """The forward pass may be rounded otherwise by a backend."""
    expected = train(MADE[case], compiled=False, how=how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = train(MADE[case], compiled=True, backend=backend, how=how)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not [str(w.message) for w in caught if "torch.jit" not in str(w.message)]
    assert breaks() <= most, torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("case", MADE)
def test_a_compiled_training_step_computes_the_same(case):
    assert_the_same(case)


def test_one_that_autograd_traces_too():
    assert_the_same("AdamW", backend="aot_eager")


@pytest.mark.slow
def test_one_that_the_default_compiler_plans():
    """Its operations are called and not written in C++, which takes half a minute and is no matter of a step."""
    from torch._inductor import config

    with config.patch(fallback_by_default=True, compile_threads=1):
        assert_the_same("look-ahead", backend="inductor")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's, with torch's own
def test_it_breaks_graphs_no_more_often_than_torchs_own():
    train(lambda p: torch.optim.AdamW(p, lr=0.01), compiled=True)
    theirs = breaks()
    train(MADE["AdamW"], compiled=True)
    assert breaks() <= theirs


@pytest.mark.parametrize("how", ["closure", "in backward", "hooked"])
def test_other_ways_to_step(how):
    assert_the_same("AdamW", how=how)


@pytest.mark.parametrize(
    ("how", "case", "most"),
    [
        ("modes", "look-ahead", 4),
        ("at_weights", "look-ahead", 3),
        ("at_average", "options", 3),
        ("scheduler", "look-ahead", 3),
    ],
)
def test_what_belongs_to_a_step_may_stand_in_it(how, case, most):
    """Each is one break more."""
    assert_the_same(case, how=how, most=most)


def test_a_step_compiled_by_itself():
    expected, found = ([torch.nn.Parameter(torch.ones(3))] for _ in range(2))
    for params, wrap in ((expected, lambda step: step), (found, lambda step: torch.compile(step, backend="eager"))):
        optimizer = MADE["AdamW"](params)
        step = wrap(optimizer.step)
        for t in range(STEPS):
            params[0].grad = torch.full([3], float(t))
            step()
    assert torch.equal(expected[0], found[0])


def test_a_learning_rate_set_inside_is_the_next_steps_and_a_state_can_still_be_loaded():
    """Dynamo then writes `capturable` into the group, which for parameters of the host means nothing."""
    params = [torch.nn.Parameter(torch.ones(3))]
    optimizer = downslope.torch.SGD(params, lr=5.0)

    @torch.compile(backend="eager")
    def step(rate):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()

    for rate in (0.5, 0.25):
        params[0].grad = torch.ones(3)
        step(rate)
    assert torch.equal(params[0], torch.full([3], 0.25))
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert torch.equal(params[0], torch.zeros(3))


def test_what_is_compiled_again_is_found_out():
    """The stance that the trainings here rely on."""
    step = torch.compile(lambda x, k: x * k, backend="eager", dynamic=False)
    step(torch.ones(2), 2)
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="ecompil"):
        step(torch.ones(3), 3)
