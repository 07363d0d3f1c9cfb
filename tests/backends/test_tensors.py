"""What is told of tensors at sight is what PyTorch tells when it is asked."""

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import downslope.torch
from downslope.backends import tensors
from downslope.backends.describe import DESCRIPTION
from downslope.backends.memory import address
from downslope.torch.describe import describer

ASKED = tensors.of_tensors(torch.Tensor)
CPU = torch.device("cpu")


def described(tensor, by):
    """The words of a description; None for what has none."""
    room = np.full(DESCRIPTION, -7, np.int64)
    call = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(by.function)
    try:
        return room.tolist() if call(id(tensor), address(room), address(by.told)) == 0 else None
    except Exception:
        return None


def at_sight(tensor):
    room = np.zeros(DESCRIPTION, np.int64)
    return tensors._at_sight.call(id(tensor), address(room), address(describer(CPU).told)) == 0


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.int8, torch.int32]
CHANGES = {
    "moved": lambda t: setattr(t, "data", torch.zeros_like(t)),
    "grown": lambda t: t.untyped_storage().resize_(1 << 16),
    "released": lambda t: t.untyped_storage().resize_(0),
    "of another shape": lambda t: t.resize_(3, 2),
    "of six axes": lambda t: t.resize_(1, 2, 1, 2, 1, 2),
    "elsewhere in its memory": lambda t: t.set_(t.untyped_storage(), 1, (2,), (1,)),
    "in other memory": lambda t: t.set_(torch.zeros_like(t)),
    "transposed": lambda t: t.t_(),
    "with one axis more": lambda t: t.unsqueeze_(0),
    "with gaps": lambda t: t.as_strided_((2,), (2,)),
    "of another dtype": lambda t: setattr(t, "data", torch.zeros_like(t, dtype=torch.float64)),
    "negated, some time": lambda t: setattr(t, "data", torch._neg_view(t.detach())),
    "exchanged": lambda t: torch.utils.swap_tensors(t, torch.zeros(7)),
    "a number": lambda t: setattr(t, "data", torch.zeros(())),
    "empty": lambda t: setattr(t, "data", torch.zeros(0, 4)),
    "written to by two": lambda t: setattr(t, "data", torch._lazy_clone(torch.zeros_like(t))),
    "none at all": lambda t: setattr(t, "data", torch.zeros_like(t).to_sparse()),
}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_whatever_becomes_of_a_tensor_it_is_described_as_pytorch_does(data):
    shape = data.draw(st.sampled_from([(3, 2), (2, 3), (1, 4)]))
    tensor = torch.zeros(shape, dtype=data.draw(st.sampled_from(DTYPES)))
    if tensor.is_floating_point() and data.draw(st.booleans()):
        tensor = torch.nn.Parameter(tensor)
    with torch.no_grad():
        for name in data.draw(st.lists(st.sampled_from([*CHANGES]), max_size=3)):
            try:
                CHANGES[name](tensor)
            except RuntimeError:  # PyTorch does not do it to such a one
                continue
            assert described(tensor, describer(CPU)) == described(tensor, ASKED)


def test_ordinary_tensors_are_described_at_sight_and_no_others():
    """Or every look would take as long as before; and words of what is no tensor would be taken for one's."""
    ordinary = torch.zeros(2, 3)
    assert at_sight(ordinary)
    assert at_sight(torch.nn.Parameter(ordinary)[:, 1:].detach())
    others = [ordinary[None, None, None, None], torch._neg_view(ordinary), torch._lazy_clone(torch.zeros(2)), None, 5]
    others += [ordinary.to("meta"), ordinary.to_sparse(), [ordinary], "text", torch.int8, ordinary.int()]
    assert [at_sight(other) for other in others] == [False] * len(others)


def test_a_first_look_inside_a_mode_that_makes_other_tensors_is_like_any_other():
    describer.cache_clear()
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.zeros(3))]
        params[0].grad = torch.zeros(3)
        with pytest.raises(ValueError, match=r"a FakeTensor of shape .* has no memory that could be updated"):
            downslope.torch.Adam(params).step()
    assert at_sight(torch.zeros(3))


def test_where_tensors_are_laid_out_in_another_way_pytorch_is_asked(monkeypatch):
    monkeypatch.setattr(tensors, "_laid_out_as_known", lambda tensor: tensor.dim() != 1)
    assert tensors.at_sight(ASKED, [torch.zeros(2, 3), torch.zeros(4)], []) is ASKED
    monkeypatch.undo()
    usual = [torch.zeros(2, 3)]
    assert tensors.at_sight(ASKED, usual, []) is not ASKED
    strange = torch._lazy_clone(torch.zeros(3))
    described(strange, ASKED)  # has a memory of its own from now on
    assert tensors.at_sight(ASKED, usual, [strange]) is not ASKED


def test_a_framework_without_the_interface_is_refused():
    with pytest.raises(ImportError, match="needs a newer version of this framework"):
        tensors.of_tensors(np.ndarray)
