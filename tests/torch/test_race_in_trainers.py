"""Trainings of Lightning and Hugging Face's Trainer as runs of a race: the examples, beside the plain optimizers."""

import functools
import logging
import runpy
from pathlib import Path

import pytest
import torch

from downslope.lab.engines.own_engine import OwnEngine
from downslope.lab.engines.protocol import Entry
from downslope.lab.now import entrant_now

EXAMPLES = Path(__file__).parents[2] / "examples"
ADAM = functools.partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.0)


pytestmark = pytest.mark.usefixtures("quiet_and_alone")


class Plain:
    """What a training is handed when there is no race: PyTorch's own optimizer."""

    def __init__(self, seed):
        self.seed, self.losses = seed, {}

    def optimizer(self, params):
        return ADAM(params)

    def report(self, step, loss):
        self.losses[step] = float(loss)
        return True


def runs_of(train, *seeds):
    entrant = entrant_now(ADAM)
    engine = OwnEngine(train, {"now": entrant}, limit=300)
    return [engine.run(Entry("now", entrant.lr, seed)) for seed in seeds]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_lightning():
    pytest.importorskip("pytorch_lightning")
    train = runpy.run_path(str(EXAMPLES / "race_lightning.py"))["train"]
    first, again, other = runs_of(train, 1, 1, 2)
    assert first.cause == ""
    assert first == again
    assert first.valid_loss != other.valid_loss
    plain = Plain(1)
    train(plain)
    assert first.steps == tuple(plain.losses) == (25, 50, 75, 100)
    assert first.valid_loss == pytest.approx(list(plain.losses.values()), rel=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_hugging_face():
    pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    space = runpy.run_path(str(EXAMPLES / "race_huggingface.py"))
    train = functools.partial(space["train"], steps=40)
    first, again = runs_of(train, 1, 1)
    assert first.cause == ""
    assert first.steps == (0, 20, 40)
    assert first == again
    assert first.final_loss < first.valid_loss[0]

    plain = Plain(1)
    train(plain)
    assert first.valid_loss == pytest.approx(list(plain.losses.values()), rel=1e-6)
