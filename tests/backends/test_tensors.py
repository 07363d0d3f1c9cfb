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
from downslope.backends.describe import DESCRIPTION, SHAPE, STRIDES, Describer
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


def gradient_described(parameter):
    """What is told of a gradient by its parameter; None for what is not ordinary."""
    by = describer(CPU)
    return described(parameter, Describer(by.gradient, told=by.told))


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
            holder = torch.nn.Parameter(torch.zeros(tensor.shape))
            holder.grad_dtype = None  # a gradient may be of any
            holder.grad = tensor.detach()
            assert gradient_described(holder) == (described(holder.grad, ASKED) if at_sight(holder.grad) else None)


def test_gradients_are_those_that_parameters_have_now():
    x = torch.nn.Parameter(torch.zeros(2, 3))
    assert gradient_described(x) is None
    assert gradient_described(torch.zeros(2)) is None
    for kind in (torch.zeros, torch.ones):
        x.grad = kind(2, 3)
        assert gradient_described(x) == described(x.grad, ASKED)
    x.grad = None
    assert gradient_described(x) is None
    (x * 2).sum().backward()
    assert gradient_described(x) == described(x.grad, ASKED)
    x.grad = None
    x.register_hook(lambda gradient: gradient.mT.contiguous().mT)
    (2 * x).sum().backward()
    assert gradient_described(x) == described(x.grad, ASKED)
    others = [torch.zeros(2, 3).to_sparse(), torch._lazy_clone(torch.zeros(2, 3)), torch._neg_view(torch.zeros(2, 3))]
    for other in others:
        x.grad = other
        assert gradient_described(x) is None


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


class Laid(ctypes.c_int64 * 24):
    """A tensor as another version lays it out: the object of an array leads to its words just as a tensor's does.

    The words that all versions know begin where it is told, and in what autograd keeps one is the gradient.
    """

    def __init__(self, tensor, begin, gradient):
        here = int(describer(CPU).told[tensors._LAYOUT])
        found = (ctypes.c_int64 * (here + 15)).from_address(tensor._cdata)[:]
        super().__init__(*found[:6], *[-7] * (begin - 6), *found[here:])
        self.tensor, self.moved = tensor, self._cdata + 8 * begin - tensor._cdata - 8 * here
        self.grad = None if tensor.grad is None else Laid(tensor.grad, begin, gradient)
        self.kept = (ctypes.c_int64 * 6)(*[-7] * 6)
        self[3] = 0 if self.grad is None else ctypes.addressof(self.kept)
        if self.grad is not None:
            self.kept[gradient] = self.grad._cdata

    @property
    def _cdata(self):
        return ctypes.addressof(self)

    def __getattr__(self, name):
        return getattr(self.tensor, name)

    def due(self):
        """PyTorch's description of the tensor, with shape and strides where they are here if they are in line."""
        found = described(self.tensor, ASKED)
        if found and self.tensor.dim() <= 5:
            found[SHAPE] += self.moved
            found[STRIDES] += self.moved
        return found


@pytest.mark.parametrize(
    ("begin", "known", "gradient", "gradient_known"),
    [(7, True, 5, True), (8, True, 4, True), (8, True, 3, False), (6, False, 5, False), (9, False, 5, False)],
)
def test_tensors_are_known_as_versions_lay_them_out_and_else_pytorch_is_asked(begin, known, gradient, gradient_known):
    """The object of Python's that stands before the shape is told in one word from 2.13 on, and in two before."""
    base = torch.arange(24.0).reshape(2, 3, 4)
    usual = [*(torch.zeros(6, dtype=dtype) for dtype in DTYPES), base[1:, :, ::2].mT, base[0, 0, 0], base[:, :0]]
    for tensor in usual[:2]:
        tensor.grad = torch.ones_like(tensor)
    lazy = torch._lazy_clone(torch.zeros(3))
    others = [torch._neg_view(base), base[None, None, None], lazy, base.bool(), base.to("meta")]
    looked_at = [Laid(tensor, begin, gradient) for tensor in (*usual, *others)]
    laid = {id(each): each for each in (*looked_at, *(each.grad for each in looked_at[:2]))}
    wanted = []

    @ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)
    def ask(thing, at, told):
        wanted.append(laid[thing].tensor)
        found = laid[thing].due()
        (ctypes.c_int64 * DESCRIPTION).from_address(at)[:] = found or [-7] * DESCRIPTION
        return 0 if found else -1

    told = ASKED.told.copy()
    told[tensors._ASK] = ctypes.cast(ask, ctypes.c_void_p).value
    asked = Describer(ASKED.function, told=told)
    sighted = tensors.at_sight(asked, looked_at[: len(usual)], [])
    assert ((sighted is not asked), sighted.gradient != 0) == (known, gradient_known)
    wanted.clear()
    assert [described(each, sighted) for each in looked_at] == [each.due() for each in looked_at]
    assert [*map(id, wanted)] == [*map(id, others if known else usual + others)]
    if gradient_known:
        of_gradients = Describer(sighted.gradient, told=sighted.told)
        assert [described(each, of_gradients) for each in looked_at[:3]] == [
            *(each.grad.due() for each in looked_at[:2]),
            None,
        ]


def test_where_one_tensor_is_not_described_as_pytorch_does_it_is_always_asked():
    usual = [torch.zeros(2, 3)]
    assert tensors.at_sight(ASKED, usual, []) is not ASKED
    strange = torch._lazy_clone(torch.zeros(3))
    described(strange, ASKED)  # has a memory of its own from now on
    assert tensors.at_sight(ASKED, usual, [strange]) is not ASKED


def test_a_framework_without_the_interface_is_refused():
    with pytest.raises(ImportError, match="needs a newer version of this framework"):
        tensors.of_tensors(np.ndarray)
