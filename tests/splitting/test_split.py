"""What `downslope.split` makes of networks whose inner matrices are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import downslope
import downslope.torch


class LanguageModel(nn.Module):
    """Two blocks with one projection to queries, keys and values, and a head that is the embedding."""

    def __init__(self, tied):
        super().__init__()
        self.wte, self.position = nn.Embedding(20, 8), nn.Parameter(torch.zeros(5, 8))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2))
        self.norm = nn.RMSNorm(8)
        self.lm_head = nn.Linear(8, 20, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight


class Projections(nn.Module):
    """Fused projections, by name, one of sizes that nobody can know."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.qkv, self.c_attn, self.gate_up = nn.Linear(6, 18), nn.Linear(6, 10), nn.Linear(6, 8)
        self.experts = nn.Parameter(torch.zeros(4, 6, 6))
        self.mix = nn.Parameter(torch.zeros(6, 6))
        self.frozen = nn.Parameter(torch.zeros(6, 6), requires_grad=False)
        self.memory = nn.LSTM(6, 6)
        self.score = nn.Linear(6, 2)


CNN = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2),
    nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4, 10),
)  # fmt: skip
LAYERS = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
INNER = {f"blocks.{k}.{layer}" for k in range(2) for layer in LAYERS}


def inner(split):
    return {name for name, _ in split.matrices}


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model(tied):
    model = LanguageModel(tied)
    split = downslope.split(model)
    assert inner(split) == INNER
    assert {name for name, _ in split.rest} | INNER == {name for name, _ in model.named_parameters()}
    why = {entry.name: entry.why for entry in split}
    assert why["wte.weight"] == ("embedding, tied to lm_head.weight" if tied else "embedding")
    assert (why["position"], why["norm.weight"]) == ("embedding by its name", "norm")
    assert ("lm_head.weight" in why) is not tied
    assert {entry.name for entry in split if entry.pieces == 3} == {name for name in INNER if "in_proj" in name}


def test_a_convolutional_network():
    """Its first and last layer, and kernels of one row each, are the rest; groups of channels are matrices each."""
    split = downslope.split(CNN)
    assert inner(split) == {"3.weight", "4.weight"}
    why = {entry.name: entry.why for entry in split}
    assert (why["0.weight"], why["6.weight"]) == ("first layer", "last layer")
    assert why["2.weight"] == "each of its parts is one row"
    assert [entry.pieces for entry in split if entry.matrix] == [2, 1]


def test_what_a_name_or_a_shape_says():
    found = {entry.name: entry for entry in downslope.split(Projections())}
    assert {name: entry.pieces for name, entry in found.items() if entry.matrix} == {
        "mix": 1, "qkv.weight": 3, "c_attn.weight": 1, "gate_up.weight": 2,
    }  # fmt: skip
    assert "fused of matrices of unknown sizes" in found["c_attn.weight"].why
    assert found["experts"].why == "3 axes, of which nobody knows which make a matrix"
    assert found["memory.weight_hh_l0"].why == "recurrent"
    assert found["score.weight"].why == "head by its name"
    assert "frozen" not in found


def test_a_projection_whose_rows_are_inputs_is_divided_by_columns():
    transformers = pytest.importorskip("transformers.pytorch_utils")
    model = nn.Sequential(nn.Embedding(9, 6), nn.ModuleDict({"c_attn": transformers.Conv1D(18, 6)}), nn.Linear(6, 9))
    (entry,) = [entry for entry in downslope.split(model) if entry.matrix]
    assert (entry.pieces, entry.axis) == (3, 1)
    assert entry.why == "Conv1D, 3 matrices side by side"


def test_somebody_who_knows_better_is_heard():
    split = downslope.split(LanguageModel(tied=False), matrices="position", rest=["blocks.0.*"])
    assert inner(split) == {name for name in INNER if "blocks.1" in name} | {"position"}
    assert {entry.why for entry in split if entry.name.startswith("blocks.0.linear")} == {"rest='blocks.0.*'"}


def test_what_is_shown_says_where_every_weight_goes():
    model = LanguageModel(tied=True)
    shown = repr(downslope.split(model)).splitlines()
    weights = sum(p.numel() for p in model.parameters())
    assert shown[0] == f"matrices: 8 of 27 parameters, 1,024 of {weights:,} weights"
    assert "  blocks.*.linear1.weight             2 of 16 x 8  Linear" in shown
    assert f"rest: 19 of 27 parameters, {weights - 1024:,} of {weights:,} weights" in shown
    assert len(shown) == 2 + 4 + 3 + 8  # four kinds of matrices; of the rest three alone, and eight of each block


def test_groups_are_what_an_optimizer_takes():
    """Queries, keys and values are orthogonalised one by one, as if they were three parameters."""
    torch.manual_seed(0)
    model = LanguageModel(tied=True)
    muon, adamw = {"rule": downslope.muon, "lr": 0.02}, {"rule": downslope.adamw, "lr": 1e-3}
    optimizer = downslope.torch.Optimizer(downslope.split(model).groups(muon, adamw))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        step = before[name] - p.detach()
        if name in INNER:
            parts = step.chunk(3) if "in_proj" in name else [step]
            for part, gradient in zip(parts, p.grad.chunk(len(parts)), strict=True):
                alone = downslope.muon(np.zeros(gradient.shape), gradient.double().numpy(), lr=0.02)[0]
                np.testing.assert_allclose(part.numpy(), -alone, rtol=1e-3, atol=1e-5)
        else:
            assert step.abs().max() < 1.1e-3  # Adam's first step, and a decay of weights of about 1


def test_pieces_along_either_axis_and_of_any_sizes_are_parameters_of_their_own():
    torch.manual_seed(0)
    start = torch.randn(7, 4)
    whole, turned = (nn.Parameter(x.clone()) for x in (start, start.T))
    apart = [nn.Parameter(x.clone()) for x in start.split([3, 4])]
    optimizers = [
        downslope.torch.Optimizer([{"params": [whole], "rule": downslope.lamb, "pieces": [3, 4]}]),
        downslope.torch.Optimizer([{"params": [turned], "rule": downslope.lamb, "pieces": [3, 4], "axis": 1}]),
        downslope.torch.Optimizer(apart, downslope.lamb),
    ]
    for _ in range(5):
        dx = torch.randn(7, 4)
        whole.grad, turned.grad = dx, dx.T.clone()
        for p, part in zip(apart, dx.split([3, 4]), strict=True):
            p.grad = part.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(whole, torch.cat([*apart]))
    torch.testing.assert_close(turned.T, whole)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"pieces": 4}, r"the parameter w of shape \(6, 4\) cannot be divided into pieces=4 along axis 0, which has 6"),
        ({"pieces": [3, 4]}, r"pieces=\(3, 4\) along axis 0, which has 6"),
        ({"pieces": "qkv"}, "pieces='qkv': give how many equal matrices"),
        ({"pieces": 2, "axis": 2}, "axis=2: give the axis"),
        ({"pieces": 2, "rule": downslope.adam}, "pieces=2: adam treats each weight by itself"),
    ],
)
def test_pieces_that_cannot_be_are_refused(entries, message):
    group = {"params": [("w", nn.Parameter(torch.ones(6, 4)))], "rule": downslope.muon, **entries}
    with pytest.raises((TypeError, ValueError), match=message):
        downslope.torch.Optimizer([group])


def test_a_tree_of_arrays_says_what_cannot_be_known():
    tree = {"embed": np.zeros((9, 4)), "layers": [{"W": np.zeros((4, 4)), "b": np.zeros(4)}], "out": np.zeros((4, 2))}
    split = downslope.split(tree, rest=["out"])
    assert inner(split) == {"layers.0.W"}
    assert "first and last layer are known by names only" in repr(split)
    labels = {"embed": "adamw", "layers": [{"W": "muon", "b": "adamw"}], "out": "adamw"}
    assert split.labels("muon", "adamw") == labels
    assert set(downslope.split(CNN).labels().values()) == {"matrices", "rest"}
    assert sum(math.prod(entry.shape) for entry in split) == 36 + 16 + 4 + 8


def test_where_no_optimizer_can_divide_a_matrix_the_model_has_to():
    apart = "taken whole unless the model keeps each in an array of its own; or name it in rest="
    fused = downslope.split({"qkv": np.zeros((6, 18)), "gate_up": np.zeros((8, 4))})
    assert {entry.name: (entry.why, entry.pieces) for entry in fused} == {
        "qkv": (f"a matrix by its shape, fused of matrices of unknown sizes; {apart}", 1),
        "gate_up": (f"a matrix by its shape, 2 matrices one above another; {apart}", 1),
    }
    tensors = {entry.name: entry for entry in downslope.split(dict(Projections().named_parameters()))}
    assert tensors["c_attn.weight"].why.endswith("taken whole unless pieces= says them")
    assert tensors["qkv.weight"].pieces == 3


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: downslope.split(3), TypeError, "model=3: give a torch.nn.Module"),
        (lambda: downslope.split({"W": 3.0}), TypeError, "W=3.0 is no array"),
        (lambda: downslope.split(nn.ReLU()), ValueError, "no parameters that are trained"),
        (lambda: downslope.split(CNN, rest="head*"), ValueError, r"rest: 'head\*' is the name of no parameter"),
        (lambda: downslope.split(CNN, matrices="0.bias"), ValueError, r"0.bias is of shape \(8,\) and no matrix"),
        (lambda: downslope.split(nn.Linear(3, 2)).groups({}, {}), ValueError, "the model has no inner matrix"),
    ],
)
def test_refusals_say_what_is_wrong(ask, error, message):
    with pytest.raises(error, match=message):
        ask()
