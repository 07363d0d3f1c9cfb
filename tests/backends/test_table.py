"""Addresses: taken only from arrays that are sound, and from gradients that touch nothing that is held."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.backends.describe import of_arrays
from downslope.backends.memory import FIRST, address
from downslope.backends.table import SlotTable
from downslope.backends.taking import Head
from downslope.torch.describe import describer
from forked import run_alone

RNG = np.random.default_rng(5)
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def table(shapes=((4, 3), (5,)), states=1, dtype=F32):
    held = [[np.zeros(shape, dtype) for _ in range(1 + states)] for shape in shapes]
    return SlotTable(of_arrays(), held, [dtype.name] * (2 + states))


def ones(slots):
    return [np.ones(arrays[0].shape, slots.storages[1]) for arrays in slots.held]


def test_the_address_is_that_of_the_first_element():
    array = np.arange(6.0)
    assert address(array) == array.ctypes.data
    assert address(array[2:]) == array.ctypes.data + 16


def test_sound_arrays_are_taken_with_their_addresses():
    slots = table()
    gradients = ones(slots)
    assert slots.take(*gradients) == 0
    for row, arrays, gradient in zip(slots.slots, slots.held, gradients, strict=True):
        assert list(row[FIRST : FIRST + 3]) == [address(arrays[0]), address(gradient), address(arrays[1])]


def test_only_reads_are_needed_of_a_gradient():
    slots = table()
    gradients = ones(slots)
    gradients[1].flags.writeable = False
    assert slots.take(*gradients) == 0


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
    assert slots.take(*gradients) == 1


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
    assert slots.take(gradient(gradients[0]), gradients[1]) == 1
    assert slots.take(*gradients) == 0


KINDS = {
    "arrays": (np.asarray, of_arrays, {}),
    "tensors": (torch.from_numpy, lambda: describer(torch.device("cpu")), {"own_clocks": True}),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=200)
@given(begin=st.integers(0, 34))
def test_a_gradient_that_touches_held_memory_is_not_taken(kind, begin):
    made, describer, options = KINDS[kind]
    memory = np.zeros(40, np.float32)
    held = [memory[5:11], memory[11:12], memory[20:20], memory[25:31]]
    clocks = [np.zeros((), np.float32)] if options else []
    slots = SlotTable(
        describer(), [[made(a), *(made(c.copy()) for c in clocks)] for a in held], ["float32"] * 2, **options
    )
    gradients = [memory[begin : begin + 6], *(np.ones(array.shape, np.float32) for array in held[1:])]
    gradients = [*map(made, gradients)]
    touched = set(range(begin, begin + 6)) & {*range(5, 12), *range(25, 31)}
    assert (slots.take(*gradients) != 0) == bool(touched)


def test_an_array_without_weights_touches_nothing():
    memory = np.zeros(10, np.float32)
    slots = SlotTable(of_arrays(), [[memory], [np.zeros((0, 2), np.float32)]], ["float32"] * 2)
    assert slots.take(np.ones(10, np.float32), memory[4:4].reshape(0, 2)) == 0


def test_a_table_of_empty_arrays_has_no_weights():
    table = SlotTable(of_arrays(), [[np.zeros((0, 3))], [np.zeros(0)]], ["float64"] * 2)
    assert table.total == 0
    assert table.take(np.zeros((0, 3)), np.zeros(0)) == 0
    assert table.survey(1)[::2] == (0.0, 0)


def test_a_state_that_may_not_be_written_to_is_refused_from_the_start():
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"a ndarray of shape \(3,\) on cpu has no memory that could be updated"):
        SlotTable(of_arrays(), [[np.zeros(3), frozen]], ["float64"] * 3)


def test_what_is_held_is_found_anew_or_left_as_it_was():
    memory = np.zeros(30, np.float32)
    x, state = memory[:8].copy(), memory[8:16].copy()
    slots = SlotTable(of_arrays(), [[x, state]], ["float32"] * 3)
    before = slots.slots[0, FIRST]
    gradient = np.ones(8, np.float32)
    x.resize(100_000, refcheck=False)
    x.resize(8, refcheck=False)
    moved = address(x) != before
    assert (slots.take(gradient) == 1) == moved
    slots.locate()
    assert slots.take(gradient) == 0
    assert slots.slots[0, FIRST] == address(x)


def test_a_state_within_weights_is_refused_and_weights_within_weights_are_noted():
    memory = np.zeros(30, np.float32)
    with pytest.raises(ValueError, match="a state shares memory with weights or another state"):
        SlotTable(of_arrays(), [[memory[:20], memory[10:]]], ["float32"] * 3)
    assert SlotTable(of_arrays(), [[memory[:20]], [memory[19:]]], ["float32"] * 2).shared
    assert not SlotTable(of_arrays(), [[memory[:20]], [memory[20:]]], ["float32"] * 2).shared


def test_the_head_tells_of_a_table_by_name():
    slots = table()
    head = slots.head
    assert (head.count, head.arrays, head.own, head.rows, head.intervals) == (2, 3, 0, 1, 4)
    assert head.total == slots.total == 4 * 3 + 5
    assert head.clocks_at == address(slots.clocks)
    places = [getattr(Head, name) for name in vars(Head) if isinstance(vars(Head)[name], type(vars(Head)["count"]))]
    assert places == [*range(Head.length)]


BESIDE_NOTHING = """
import ctypes, itertools, mmap, sys
import numpy as np, torch, downslope, downslope.torch

PAGE = mmap.PAGESIZE
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def beside_nothing(count, dtype, last):
    "An array right before a page that must not be touched, or right after one."
    size = -(-max(count * dtype.itemsize, 1) // PAGE) * PAGE
    memory = mmap.mmap(-1, size + 2 * PAGE)
    at = np.frombuffer(memory, np.uint8).ctypes.data
    assert protect(at, PAGE, 0) == protect(at + PAGE + size, PAGE, 0) == 0
    array = np.frombuffer(memory, dtype, count, PAGE + size - count * dtype.itemsize if last else PAGE)
    array[:] = np.linspace(-1, 1, count)
    return array


def stepped(params, gradients, tensors):
    if not tensors:
        optimizer = downslope.Optimizer(params, downslope.momentum, lr=0.1, threads=2, max_norm=1.0)
        return lambda: optimizer.step(gradients)
    params = [torch.nn.Parameter(torch.from_numpy(array)) for array in params]
    for p, gradient in zip(params, gradients):
        p.grad = torch.from_numpy(gradient)
    return downslope.torch.Optimizer(params, downslope.momentum, lr=0.1, threads=2, max_norm=1.0).step


for dtype, last, tensors in itertools.product(map(np.dtype, ("f4", "f8")), (False, True), (False, True)):
    counts = [1, 3, 8, 17, 1023, 300_001]
    made = [[beside_nothing(count, dtype, last) for count in counts] for _ in range(2)]
    plain = [[array.copy() for array in arrays] for arrays in made]
    steps = stepped(*made, tensors), stepped(*plain, tensors)
    for _ in range(3):
        for step in steps:
            step()
    for one, other in zip(*(arrays[0] for arrays in (made, plain))):
        assert (one == other).all()
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs pages that can be protected")
def test_nothing_beside_an_array_is_touched():
    ended, printed = run_alone(BESIDE_NOTHING)
    assert (ended, printed) == (0, "done\n"), printed[-1500:]
