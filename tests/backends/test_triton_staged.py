"""Kernels for GPUs of rules over whole tensors, run by Triton's interpreter: they end where the CPU's do.

That those are near the formula in double precision, `test_staged` shows.
"""

import numpy as np
import pytest

import downslope
import downslope.torch

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from downslope.backends import triton_pieces  # noqa: E402
from downslope.torch import device as devices  # noqa: E402
from downslope.torch import launch  # noqa: E402
from downslope.torch.launch import Compiled  # noqa: E402
from whole_formulas import every_word, late  # noqa: E402


@pytest.fixture
def by_interpreter(monkeypatch):
    """Kernels for a GPU update parameters of the CPU from now on."""

    def begin():
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr(launch, "memory_of", lambda device: devices.DeviceMemory(torch.device("cpu")))

    return begin


class Step:
    """A step by a rule.

    Attributes:
        params: Parameters of some shapes, with gradients.
        optimizer: What updates them.
    """

    def __init__(self, chosen, shapes, dtype=torch.float32):
        random = torch.Generator().manual_seed(7)
        self.params = [torch.nn.Parameter(torch.randn(shape, generator=random).to(dtype)) for shape in shapes]
        for p in self.params:
            p.grad = (0.1 + torch.randn(p.shape, generator=random)).to(dtype)
        self.optimizer = downslope.torch.Optimizer(self.params, chosen)

    def __call__(self):
        with np.errstate(all="ignore"):
            self.optimizer.step()
        [layout] = self.optimizer._progress.layouts.values()
        assert {type(each) for each in layout.launches} == {Compiled}
        return self

    def ends(self):
        """The weights and states, parameter by parameter."""
        return [{"x": p.detach(), **self.optimizer.state[p]} for p in self.params]


def assert_equal(ours, due):
    """To the last bit: what is left of the order of a sum in double precision, rounding to single hides here."""
    for k, (mine, other) in enumerate(zip(ours.ends(), due.ends(), strict=True)):
        for name, value in mine.items():
            torch.testing.assert_close(
                value, other[name], rtol=0, atol=0, equal_nan=True, msg=lambda said, k=k, n=name: f"{n} of {k}: {said}"
            )


def test_every_word_is_the_cpus_and_a_nan_stays_in_its_tensor(by_interpreter):
    shapes = [(3, 10), (41, 3), (0, 3)]
    steps = [Step(every_word, shapes) for _ in range(2)]
    for each in steps:
        each.params[0].grad[1, 2] = torch.nan
    due = steps[0]()
    by_interpreter()
    ours = steps[1]()
    assert_equal(ours, due)
    assert torch.isnan(ours.params[0]).all()
    assert torch.isfinite(ours.params[1]).all()


def test_states_are_overwritten_when_nothing_needs_what_they_were(by_interpreter):
    steps = [Step(late, [(2, 3)]) for _ in range(2)]
    due = steps[0]()
    by_interpreter()
    assert_equal(steps[1](), due)


def test_rows_and_columns_are_added_up_as_on_the_cpu(by_interpreter):
    """Tiles of each kind, pieces that are whole and others, and pieces that have to be joined; weights in halves."""
    shapes = [(13,), (), (4, 2, 3, 3), (37, 144), (260, 16)]
    steps = [Step(downslope.adafactor, shapes, torch.bfloat16) for _ in range(2)]
    due = steps[0]()
    by_interpreter()
    assert_equal(steps[1](), due)
    kinds = [triton_pieces.tile_of(rows, columns, True) for rows, columns in ((1, 13), (4, 18), (37, 144), (260, 16))]
    assert kinds == [triton_pieces.FLAT, triton_pieces.TALL, triton_pieces.WIDE, triton_pieces.TALL]


def test_a_parameter_without_a_gradient_stays_as_it_is(by_interpreter):
    """So do its states and its count; beside it are pieces that are whole, in a view that begins anywhere too."""
    steps = [Step(downslope.lamb, [(5,), (4100,), (4200,)], torch.complex64) for _ in range(2)]
    for each in steps:
        each.params[2].data = torch.ones(4203, dtype=torch.complex64)[1:4201]
    due = steps[0]()
    by_interpreter()
    ours = steps[1]()
    assert_equal(ours, due)
    before = [{name: value.clone() for name, value in end.items()} for end in ours.ends()]
    ours.params[1].grad = None
    ours()
    for k, (old, new) in enumerate(zip(before, ours.ends(), strict=True)):
        assert all(torch.equal(value, new[name]) for name, value in old.items()) == (k == 1)


def test_pieces_cover_a_matrix():
    assert triton_pieces.pieces_of(1, 25_000_000, False) == (1, 6104)
    assert triton_pieces.pieces_of(512, 1024, True) == (8, 16)
    assert triton_pieces.pieces_of(1_000_000, 3, True) == (1, 3907)
    assert triton_pieces.pieces_of(2, 1_000_000, True) == (977, 1)
