"""Kernels for arrays stored in half precision, beside NumPy's float16 and an independent bfloat16."""

import numpy as np
import pytest

import downslope
from downslope.backends.cpu import Kernel, whereabouts
from downslope.backends.memory import FIRST, KEY, LENGTH, address
from downslope.language.options import compose
from downslope.targets.arrays import interpret, interpret_coefficients
from downslope.testing import hard_values


def bfloat16(values):
    """The bits of the nearest bfloat16, ties to even, found by comparing both neighbours in exact arithmetic."""
    single = np.asarray(values, np.float32)
    below = single.view(np.uint32) & np.uint32(0xFFFF0000)  # towards zero
    above = below + np.uint32(0x10000)
    with np.errstate(invalid="ignore", over="ignore"):
        to_below = np.abs(np.float64(single) - np.float64(below.view(np.float32)))
        magnitude = np.where(above & 0x7FFFFFFF == 0x7F800000, 2.0**128, np.abs(np.float64(above.view(np.float32))))
        to_above = magnitude - np.abs(np.float64(single))
    even_above = (above >> 16) % 2 == 0
    up = (to_above < to_below) | ((to_above == to_below) & even_above)
    bits = np.where(up & np.isfinite(single), above, below)
    bits = np.where(np.isnan(single), 0x7FC00000, bits)
    return (bits >> 16).astype(np.uint16)


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


STORE = {"bfloat16": (bfloat16, widened), "float16": (np.float16, np.float32), "float32": (np.float32, np.float32)}


def launched(rule, storages, values, scalars, rounding="nearest", key=0):
    """One step of a kernel on arrays of these values: what is stored afterwards."""
    program = compose(rule)
    kernel = Kernel(program, storages, rounding)
    with np.errstate(over="ignore"):
        stored = [STORE[storage][0](value) for storage, value in zip(storages, values, strict=True)]
    kept = [*stored, np.zeros_like(stored[0])] if rounding == "compensated" else stored
    slots = np.zeros((1, FIRST + len(kept)), np.int64)
    slots[0, LENGTH], slots[0, KEY] = stored[0].size, key
    slots[0, FIRST:] = [array.ctypes.data for array in kept]
    coefficients = np.array(interpret_coefficients(program, scalars), kernel.dtype)
    before = dict(
        zip(program.arrays, (STORE[s][1](a).copy() for s, a in zip(storages, stored, strict=True)), strict=True)
    )
    kernel.update(*whereabouts(slots), address(coefficients), 0, stored[0].size, 0)
    return program, before, dict(zip((*program.arrays, "compensation"), kept, strict=False))


SETTINGS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "t": 3.0}


@pytest.mark.parametrize(
    "storages",
    [["bfloat16"] * 4, ["float16"] * 4, ["float32", "float32", "bfloat16", "bfloat16"], ["bfloat16", "float32"] * 2],
    ids="-".join,
)
def test_a_step_is_that_of_single_precision_rounded_once(storages):
    """Bit for bit but where the compiler fuses a product and a sum: there it is the rounding of a neighbour."""
    count = 4099
    dx = hard_values(count, np.float32, seed=1)
    x, m, v = (np.random.default_rng(k).standard_normal(count).astype(np.float32) for k in range(3))
    program, before, after = launched(downslope.adam, storages, [x, dx, m, v**2], SETTINGS)
    expected = interpret(program, before, SETTINGS)
    for name, storage in zip(program.arrays, storages, strict=True):
        if name == "dx":
            continue
        with np.errstate(over="ignore"):
            wanted = STORE[storage][0](expected[name])
        same = wanted == after[name]
        same |= np.isnan(expected[name]) & np.isnan(STORE[storage][1](after[name]))
        if storage != "float32":
            assert same.mean() > 0.99
        found, due = (np.nan_to_num(np.float64(STORE[storage][1](a))) for a in (after[name], wanted))
        spacing = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-22}[storage]
        smallest = {"bfloat16": 2.0**-126, "float16": 2.0**-24, "float32": 2.0**-126}[storage]
        assert (np.abs(found - due) <= spacing * np.abs(due) + smallest).all()


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_every_value_is_rounded_to_the_nearest_even(storage):
    """`x - 0 * dx` stores what it loads; `0 - lr * dx` stores a rounded gradient of single precision."""
    count = 1 << 16
    dx = np.random.default_rng(0).integers(0, 2**32, count, np.uint32).view(np.float32)
    dx[:12] = 0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.99, 65520, 3.3895e38, 2.0**-24, 2.0**-25, 1.00390625
    dx[12:14] = np.float32(1 + 2.0**-8), np.float32(1 + 3 * 2.0**-8)  # halfway between two bfloat16, both ways
    _, _, after = launched(downslope.sgd, [storage, "float32"], [np.zeros(count, np.float32), dx], {"lr": -1.0})
    with np.errstate(over="ignore", invalid="ignore"):
        due = STORE[storage][0](np.float32(0) + dx)
    bad = np.isnan(dx)
    assert (after["x"][~bad] == due[~bad]).all()
    assert np.isnan(STORE[storage][1](after["x"])[bad]).all()


STRANGE = np.uint32([0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000, 0xFFFF8000, 0x7F800001, 0xFF800001, 0x7F808000, 0x7FC00000])
"""Bits of not-a-number whose upper halves, rounded like a number's, would be zeros or infinities."""


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rounding", ["nearest", "compensated", "stochastic"])
def test_not_a_number_stays_one_whatever_its_bits(storage, rounding):
    """Of a gradient, of weights and of a state that is the gradient itself; their neighbours are what they would be."""

    @downslope.rule
    def remember(x, dx, last=0, *, lr):
        return x - lr * last, dx

    count = 64
    dx = np.linspace(-2, 2, count, dtype=np.float32)
    if storage == "float32":
        dx[3::8] = STRANGE.view(np.float32)
    else:
        dx[3::8] = np.nan
    bits = {"float16": (STRANGE >> 16 & 0x83FF) | 0x7C01, "bfloat16": STRANGE >> 16 | 1}.get(storage)
    stored = STORE[storage][0](dx)
    if bits is not None:
        stored.view(np.uint16)[3::8] = bits
    x = bfloat16(np.ones(count))
    last = np.zeros(count, np.uint16)
    kept = [x, stored, last, *([np.zeros(count, np.uint16)] if rounding == "compensated" else [])]
    kernel = Kernel(compose(remember), ["bfloat16", storage, "bfloat16"], rounding)
    slots = np.zeros((1, FIRST + len(kept)), np.int64)
    slots[0, LENGTH] = count
    slots[0, FIRST:] = [array.ctypes.data for array in kept]
    for _ in range(2):
        kernel.update(*whereabouts(slots), address(np.float32([0.5])), 0, count, 0)
    bad = np.arange(count) % 8 == 3
    np.testing.assert_array_equal(np.isnan(widened(last)), bad)
    np.testing.assert_array_equal(np.isnan(widened(x)), bad)
    np.testing.assert_array_equal(
        last[~bad], bfloat16(np.float32(stored if storage != "bfloat16" else widened(stored)))[~bad]
    )


def test_what_rounding_takes_is_kept_for_the_next_step():
    """A thousand steps, each far below the spacing of bfloat16 at 1, arrive; without compensation none does."""
    program = compose(downslope.sgd)
    kernels = {kind: Kernel(program, ["bfloat16"] * 2, kind) for kind in ("nearest", "compensated")}
    ends = {}
    for kind, kernel in kernels.items():
        arrays = [bfloat16(np.ones(8)), bfloat16(np.ones(8)), np.zeros(8, np.uint16)]
        slots = np.zeros((1, FIRST + 3), np.int64)
        slots[0, LENGTH] = 8
        slots[0, FIRST:] = [array.ctypes.data for array in arrays]
        coefficients = np.array([2.0**-13], np.float32)
        for _ in range(1000):
            kernel.update(*whereabouts(slots), address(coefficients), 0, 8, 0)
        ends[kind] = widened(arrays[0])[0] + widened(arrays[2])[0]
    assert ends["nearest"] == 1.0
    assert ends["compensated"] == pytest.approx(1 - 1000 * 2.0**-13, abs=2.0**-16)


def test_stochastic_rounding_is_right_in_the_mean_and_repeatable():
    count = 1 << 18
    value = np.float32(1 + 0.3 * 2.0**-7)  # three tenths of the way from one bfloat16 to the next
    arguments = (downslope.sgd, ["bfloat16", "float32"], [np.zeros(count), np.full(count, value)], {"lr": -1.0})
    runs = [launched(*arguments, rounding="stochastic", key=key)[2]["x"] for key in (7, 7, 8, 7 + (1 << 40))]
    assert (runs[0] == runs[1]).all()
    for run in runs:
        up = widened(run) > 1
        assert set(widened(run).tolist()) == {1.0, 1 + 2.0**-7}
        assert up.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / count))  # five standard deviations
        neighbours = np.corrcoef(up[:-1], up[1:])[0, 1]
        assert abs(neighbours) < 5 / np.sqrt(count)
    for other in runs[2:]:
        assert abs(np.corrcoef(widened(runs[0]), widened(other))[0, 1]) < 5 / np.sqrt(count)


def test_stochastic_rounding_leaves_what_is_exact_and_what_is_not_finite():
    dx = np.float32([0, -0.0, 1, -2.5, np.inf, -np.inf, np.nan, 3.3895314e38, 2.0**-133])
    arguments = ["bfloat16", "float32"], [np.zeros(dx.size), dx], {"lr": -1.0}
    for key in range(20):
        after = widened(launched(downslope.sgd, *arguments, rounding="stochastic", key=key)[2]["x"])
        np.testing.assert_array_equal(after, dx)
