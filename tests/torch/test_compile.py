"""A training step inside `torch.compile`: the same numbers, no warning, and one break of the graph for the step.

The backends `eager` and `aot_eager` need no compiler; what Dynamo makes of the Python code is the same for all.
"""

import warnings

import pytest
import torch
from small_network import batch, network, weights

import downslope
import downslope.torch

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own

MADE = {
    "AdamW": lambda p: downslope.torch.AdamW(p, lr=0.01),
    "clipped": lambda p: downslope.torch.Adam(p, lr=0.01, max_norm=0.1, nonfinite="raise"),
    "a rule": lambda p: downslope.torch.Optimizer(p, downslope.schedule_free_adamw, lr=0.01),
}


def breaks():
    """How often Dynamo has broken a graph since its last reset, but for `zero_grad` and `backward`."""
    found = torch._dynamo.utils.counters["graph_break"]
    return sum(count for why, count in found.items() if "zero_grad" not in why and "backward()" not in why)


def train(make, compiled, backend="eager", how="step", hook=False):
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = network()
    optimizer = make(model.parameters())
    if how == "in backward":
        optimizer.step_in_backward()
    if hook:
        optimizer.register_step_post_hook(lambda *_: None)

    def closure(inputs):
        optimizer.zero_grad()
        loss = (model(inputs) - 1).square().mean()
        loss.backward()

    def whole(inputs):
        if how == "closure":
            optimizer.step(lambda: closure(inputs))
            return
        closure(inputs)
        if how != "in backward":
            optimizer.step()

    step = torch.compile(whole, backend=backend) if compiled else whole
    for t in range(6):
        optimizer.param_groups[0]["lr"] = 0.01 / (t + 1)
        step(batch(t))
    return weights(model)


@pytest.mark.parametrize(
    ("case", "backend"), [("AdamW", "eager"), ("clipped", "eager"), ("a rule", "eager"), ("AdamW", "aot_eager")]
)
def test_a_compiled_training_step_computes_the_same(case, backend):
    """The forward pass may be rounded otherwise by a backend."""
    expected = train(MADE[case], compiled=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = train(MADE[case], compiled=True, backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not [str(w.message) for w in caught if "downslope" in str(w.message)]
    assert breaks() <= 2, torch._dynamo.utils.counters["graph_break"]


def test_it_breaks_graphs_no_more_often_than_torchs_own():
    train(lambda p: torch.optim.AdamW(p, lr=0.01), compiled=True)
    theirs = breaks()
    train(MADE["AdamW"], compiled=True)
    assert breaks() <= theirs


@pytest.mark.parametrize("how", ["closure", "in backward", "hooked"])
def test_other_ways_to_step(how):
    hook = how == "hooked"
    expected = train(MADE["AdamW"], compiled=False, how=how, hook=hook)
    found = train(MADE["AdamW"], compiled=True, how=how, hook=hook)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert breaks() <= 2, torch._dynamo.utils.counters["graph_break"]
