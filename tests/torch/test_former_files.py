"""Files that were written before something was in them, or with a formula that has changed since."""

import pytest
from torch import nn

import downslope
import downslope.torch
from downslope import CheckpointError
from downslope.training import checkpoint


def test_a_file_from_before_pieces_were_in_it_loads_and_one_that_is_divided_otherwise_does_not(tmp_path):
    model = nn.Linear(4, 6, bias=False)

    def by(**pieces):
        return downslope.torch.Optimizer([{"params": [model.weight], **pieces}], downslope.muon)

    for said, other in (({"pieces": 2}, {}), ({}, {"pieces": 2})):
        path = tmp_path / "training.safetensors"
        by(**said).save(path, model)
        with pytest.raises(CheckpointError, match=r"the pieces of the file's group 0 is .*, here .*"):
            by(**other).load(path, model)
        tensors, record = checkpoint.read_raw(path)
        del record["groups"][0]["pieces"]
        checkpoint.write(path, tensors, record)
        by(**said).load(path, model)
        by(**other).load(path, model)
    by(pieces=2).save(path, model)
    by(pieces=[3, 3]).load(path, model)  # the same, said otherwise


def test_a_file_of_a_formula_that_was_written_otherwise_says_what_to_do(tmp_path):
    @downslope.rule
    def lamb(x, dx, m=0, v=0, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01):
        return x - lr * dx, m, v

    first, second = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
    model = nn.Sequential(first, second)

    def by(*rules):
        return downslope.torch.Optimizer(
            [{"params": [p], "rule": each} for p, each in zip(model.parameters(), rules, strict=True)]
        )

    now = downslope.lamb
    for rules, where in (
        ((lamb, lamb), "the file's lamb is"),
        ((now, lamb), "in the file's group 1 lamb is"),
    ):
        by(*rules).save(tmp_path / "training.safetensors", model)
        with pytest.raises(CheckpointError, match=f"{where} another formula .*, as a rule of your own"):
            by(now, now).load(tmp_path / "training.safetensors", model)
