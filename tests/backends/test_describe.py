"""What is told of arrays: what NumPy itself says of them, and nothing where a kernel could not work with them."""

import ctypes

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from downslope.backends import describe
from downslope.backends.memory import address


def described(array):
    """What the function returns, then the address, code and bits of the dtype, lanes, and the shape."""
    room = np.full(describe.DESCRIPTION, -7, np.int64)
    call = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 4)(describe.of_arrays().function)
    found = call(id(array), address(room), 0)
    axes, kind = int(room[describe.KIND]) & 0xFFFFFFFF, int(room[describe.KIND]) >> 32
    if found == -1:
        return (-1,)
    shape = tuple((ctypes.c_int64 * axes).from_address(int(room[describe.SHAPE]))) if axes else ()
    assert room[[describe.DEVICE, describe.STRIDES, describe.OFFSET]].tolist() == [describe.CPU, 0, 0]
    return found, int(room[describe.DATA]), kind & 0xFF, kind >> 8 & 0xFF, kind >> 16, shape


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_description_is_what_numpy_says(data):
    dtype = data.draw(arrays.scalar_dtypes())
    array = data.draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0), fill=st.nothing()))
    array = data.draw(st.sampled_from([array, array.T, array[::2] if array.ndim else array]))
    array.flags.writeable = data.draw(st.booleans())
    codes = {"f4": 2, "f8": 2, "i1": 0, "u1": 1}
    if dtype.str[1:] not in codes or not dtype.isnative or not array.flags.c_contiguous:
        assert described(array) == (-1,)
    else:
        read_only = describe.READ_ONLY if not array.flags.writeable else 0
        due = read_only, address(array), codes[dtype.str[1:]], 8 * dtype.itemsize, 1, array.shape
        assert described(array) == due


def test_equal_dtypes_are_described_alike_whatever_object_they_are():
    own = np.dtype("f4", metadata={"of": "mine"})
    assert own is not np.dtype(np.float32)
    assert described(np.zeros(3, own))[2:] == (2, 32, 1, (3,))


def test_elements_that_are_not_aligned_are_not_described():
    assert described(np.zeros(33, np.uint8)[1:].view(np.float64)) == (-1,)
