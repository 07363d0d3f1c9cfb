"""Addresses: taken only from arrays that are sound, and the sums over all gradients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.backends.cpu import SlotTable
from downslope.backends.memory import FIRST, address, known_layout

RNG = np.random.default_rng(5)
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def table(shapes=((4, 3), (5,)), states=1, dtype=F32):
    held = [[np.zeros(shape, dtype) for _ in range(1 + states)] for shape in shapes]
    return SlotTable(held, [0] * len(held), dtype)


def ones(slots):
    return [np.ones(arrays[0].shape, slots.dtype) for arrays in slots.held]


def test_this_interpreters_arrays_have_the_layout_that_is_read():
    assert known_layout() is True


def test_the_address_is_that_of_the_first_element():
    array = np.arange(6.0)
    assert address(array) == array.ctypes.data
    assert address(array[2:]) == array.ctypes.data + 16


def test_sound_arrays_are_taken_with_their_addresses():
    slots = table()
    gradients = ones(slots)
    assert slots.take(gradients) == 0
    for row, arrays, gradient in zip(slots.slots, slots.held, gradients, strict=True):
        assert list(row[FIRST : FIRST + 3]) == [address(arrays[0]), address(gradient), address(arrays[1])]


def test_only_reads_are_needed_of_a_gradient():
    slots = table()
    gradients = ones(slots)
    gradients[1].flags.writeable = False
    assert slots.take(gradients) == 0


def reshaped(array):
    array.shape = (12,)


def frozen(array):
    array.flags.writeable = False


def enlarged(array):
    array.resize((400, 300), refcheck=False)


def retyped(array):
    array.dtype = np.int32


@pytest.mark.filterwarnings("ignore:Setting the .* on a NumPy array:DeprecationWarning")
@pytest.mark.parametrize("change", [reshaped, frozen, enlarged, retyped])
@pytest.mark.parametrize("which", [0, 1])
def test_a_held_array_that_changed_is_not_taken(change, which):
    slots = table()
    gradients = ones(slots)
    change(slots.held[0][which])
    assert slots.take(gradients) == 1


UNSOUND = {
    "another dtype": lambda g: g.astype(np.float64),
    "the other byte order": lambda g: g.astype(g.dtype.newbyteorder()),
    "another shape": lambda g: np.ones((3, 4), np.float32),
    "fewer axes": lambda g: np.ones(12, np.float32),
    "transposed": lambda g: np.ones((3, 4), np.float32).T,
    "strided": lambda g: np.ones((4, 6), np.float32)[:, ::2],
    "unaligned": lambda g: np.zeros(49, np.uint8)[1:].view(np.float32).reshape(4, 3),
    "a subclass": lambda g: g.view(np.memmap),
    "None": lambda g: None,
    "a list": lambda g: g.tolist(),
    "a number": lambda g: 1.0,
    "a dtype": lambda g: g.dtype,
    "an array type": lambda g: np.ndarray,
    "a small integer": lambda g: 5,
}


@pytest.mark.parametrize("gradient", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_gradient_is_not_taken(gradient):
    slots = table()
    gradients = ones(slots)
    assert slots.take([gradient(gradients[0]), gradients[1]]) == 1
    assert slots.take(gradients) == 0


@settings(deadline=None, max_examples=200)
@given(begin=st.integers(0, 34))
def test_a_gradient_that_touches_held_memory_is_not_taken(begin):
    memory = np.zeros(40, np.float32)
    held = [memory[5:11], memory[11:12], memory[20:20], memory[25:31]]
    slots = SlotTable([[array] for array in held], [0] * 4, F32)
    gradients = [memory[begin : begin + 6], *(np.ones(array.shape, np.float32) for array in held[1:])]
    touched = set(range(begin, begin + 6)) & {*range(5, 12), *range(25, 31)}
    assert (slots.take(gradients) != 0) == bool(touched)


def test_an_array_without_weights_touches_nothing():
    memory = np.zeros(10, np.float32)
    slots = SlotTable([[memory], [np.zeros((0, 2), np.float32)]], [0, 0], F32)
    assert slots.take([np.ones(10, np.float32), memory[4:4].reshape(0, 2)]) == 0
