"""Addresses: taken only from arrays that are sound, and the sums over all gradients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.backends.memory import FIRST, PIECE, address, known_layout
from downslope.backends.numba import THREADED_FROM, SlotTable

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


# The survey: the norm of all gradients, and how many elements are not finite


def surveyed(gradients, workers=1):
    slots = SlotTable([[np.zeros_like(g)] for g in gradients], [0] * len(gradients), gradients[0].dtype)
    assert slots.take(gradients) == 0
    norm, scale, bad = slots.survey(workers)
    return norm / scale, bad


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("sizes", [(1,), (3, 0, 5), (PIECE - 1, 2, PIECE), (2 * PIECE + 7,)])
def test_the_norm_is_that_of_all_elements(sizes, dtype):
    gradients = [RNG.standard_normal(size).astype(dtype) for size in sizes]
    exact = math.sqrt(math.fsum(float(g) ** 2 for part in gradients for g in part))
    norm, bad = surveyed(gradients)
    # at worst 2**16 squares are added up one after another; the root halves the relative error
    assert norm == pytest.approx(exact, rel=PIECE * np.finfo(np.float64).eps / 4)
    assert bad == 0


@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_norm_does_not_depend_on_the_threads(dtype):
    gradients = [RNG.standard_normal(size).astype(dtype) for size in (THREADED_FROM, 100_003, 77)]
    norms = {surveyed(gradients, workers) for workers in (1, 2, 3)}
    assert len(norms) == 1


@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e150, 1e200, 1e307])
def test_the_norm_of_huge_doubles_does_not_overflow(scale):
    norm, bad = surveyed([np.array([3.0, -4.0]) * scale])
    assert norm == pytest.approx(5 * scale, rel=1e-15)
    assert bad == 0


def test_the_norm_of_the_largest_singles():
    largest = float(np.finfo(np.float32).max)
    assert surveyed([np.full(4, largest, np.float32)]) == (2 * largest, 0)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_every_element_that_is_not_finite_is_counted(dtype):
    g = np.ones(PIECE + 10, dtype)
    g[[0, 5, PIECE - 1, PIECE, PIECE + 9]] = np.nan, np.inf, -np.inf, np.nan, np.inf
    assert surveyed([g, np.full(3, np.nan, dtype)])[1] == 8
