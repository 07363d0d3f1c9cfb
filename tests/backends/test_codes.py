"""States in eight bits: what a code keeps, and kernels that read and write codes, beside the formula in NumPy."""

import platform
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import downslope
from downslope.backends import machine
from downslope.backends.cpu import Kernel, whereabouts
from downslope.backends.memory import FIRST, KEY, LENGTH, address
from downslope.language.options import compose
from downslope.targets.arrays import interpret, interpret_coefficients
from downslope.targets.codes import BLOCK, CODES, blocks, decode, encode, noise

PART, ABOVE = {"int8": 32, "uint8": 16}, {"int8": 236, "uint8": 507_000}
"""What is kept may be off by a value over the first and its block's largest magnitude over the second, together."""

ANY_NAN = [0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF0000, 0x7FC00000, 0xFFC00000, 0x7F800001]
"""Bits of numbers that are none; the first is what CUDA gives, the third that as bfloat16."""


def values(kind, seed, count, spread):
    """Values whose magnitudes are spread over so many powers of ten, some of them zero."""
    random = np.random.default_rng(seed)
    found = (random.standard_normal(count) * 10.0 ** random.uniform(-spread, 0, count)).astype(np.float32)
    found[random.random(count) < 0.1] = 0
    return np.abs(found) if kind == "uint8" else found


def allowed(true, kind):
    rows = np.zeros((blocks(true.size), BLOCK))
    rows.reshape(-1)[: true.size] = np.abs(true)
    peak = np.repeat(rows.max(axis=1), BLOCK)[: true.size]
    return np.abs(np.float64(true)) / PART[kind] + peak / ABOVE[kind]


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), spread=st.integers(0, 12), size=st.integers(1, 700), scale=st.integers(-30, 35))
def test_what_is_kept_is_as_near_as_is_said_whatever_it_is_rounded_by(kind, seed, spread, size, scale):
    true = values(kind, seed, size, spread) * np.float32(10.0**scale)
    most = 1 << CODES[kind].shift
    for by in (0, most - 1, None, np.random.default_rng(seed).integers(0, most, size)):
        kept = decode(*encode(true, kind, by))
        assert (np.abs(np.float64(kept) - true) <= allowed(true, kind)).all()
        assert (kept[true == 0] == 0).all()
        assert (np.sign(kept) * np.sign(true) >= 0).all()
        if kind == "uint8":
            assert (kept[true > 0] > 0).all()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_what_is_kept_is_right_in_the_mean(kind):
    """Over all that may be added before rounding, evenly, but for what is raised so as not to become zero."""
    true = values(kind, 3, 500, 2)
    most = 1 << CODES[kind].shift
    every = range(0, most, most >> 8)
    mean = np.mean([np.float64(decode(*encode(true, kind, by))) for by in every], axis=0)
    least = decode(np.ones(1, kind), np.float32([1.0]))[0] * encode(true, kind)[1]
    large = np.abs(true) > np.repeat(least, BLOCK)[: true.size]
    assert (np.abs(mean - true)[large] <= allowed(true, kind)[large] / 100).all()


def test_every_code_stays_itself():
    """Encoded again, what a code stands for is the same code in the same scale, whatever it is rounded by."""
    for kind in ("int8", "uint8"):
        codes = np.arange(BLOCK).astype(np.uint8).view(kind)
        for start in np.float32([2.0**-126, 1.0, 2.0**-3, 2.0**125]):
            true = decode(codes, np.full(blocks(codes.size), start, np.float32))
            for by in (0, (1 << CODES[kind].shift) - 1):
                again, scales = encode(true, kind, by)
                np.testing.assert_array_equal(decode(again, scales), true)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -np.nan, 3e38])
def test_what_is_no_number_is_not_hidden(bad):
    true = np.linspace(0, 1, 3 * BLOCK, dtype=np.float32)
    true[BLOCK + 5] = bad
    for kind in ("int8", "uint8"):
        kept = decode(*encode(true, kind))
        assert np.isnan(kept[BLOCK : 2 * BLOCK]).all()
        assert np.isfinite(kept[:BLOCK]).all()
        assert np.isfinite(kept[2 * BLOCK :]).all()


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("bits", ANY_NAN)
def test_a_nan_of_any_bits_is_not_hidden(kind, bits):
    true = np.ones(2 * BLOCK, np.float32)
    true.view(np.uint32)[3] = bits
    kept = decode(*encode(true, kind))
    assert np.isnan(kept[:BLOCK]).all()
    assert np.isfinite(kept[BLOCK:]).all()


def test_the_smallest_numbers_do_not_become_zero():
    true = np.float32([2.0**-149, 2.0**-140, 2.0**-130, 0.0])
    assert (decode(*encode(true, "uint8"))[:3] > 0).all()


def launched(rule, kinds, arrays, scalars, key=0, pieces=((0, 1 << 40),)):
    """One step of a kernel, in these pieces: codes, scales, and what the other arrays are afterwards."""
    program = compose(rule)
    kernel = Kernel(program, kinds)
    held, scales = [], []
    for kind, array in zip(kinds, arrays, strict=True):
        if kind in ABOVE:
            codes, scale = encode(array, kind)
            held.append(codes)
            scales.append(scale)
        else:
            held.append(array.copy())
    slots = np.zeros((1, FIRST + len(held) + len(scales)), np.int64)
    slots[0, LENGTH], slots[0, KEY] = arrays[0].size, key
    slots[0, FIRST:] = [array.ctypes.data for array in (*held, *scales)]
    coefficients = np.array(interpret_coefficients(program, scalars), kernel.dtype)
    of = iter([scale.copy() for scale in scales])
    before = {
        name: decode(array, next(of)) if kind in ABOVE else array.copy()
        for name, kind, array in zip(program.arrays, kinds, held, strict=True)
    }
    for begin, end in pieces:
        kernel.update(*whereabouts(slots), address(coefficients), begin, end, 0)
    return program, before, dict(zip(program.arrays, held, strict=True)), scales


ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "t": 3.0}


@pytest.mark.parametrize("count", [1, 33, BLOCK - 1, BLOCK, BLOCK + 1, 1000, 5 * BLOCK])
def test_a_step_is_that_of_single_precision_then_kept_as_codes(count):
    random = np.random.default_rng(count)
    x, dx, m, v = (random.standard_normal(count).astype(np.float32) for _ in range(4))
    dx[random.random(count) < 0.2] = 0
    v *= random.random(count) < 0.8
    kinds, key = ["float32", "float32", "int8", "uint8"], 0x123456789ABCDEF
    program, before, after, scales = launched(downslope.adam, kinds, [x, dx, m, v**2], ADAM, key)
    expected = interpret(program, before, ADAM)
    np.testing.assert_allclose(after["x"], expected["x"], rtol=1e-5, atol=1e-6)
    for which, (name, kind) in enumerate((("m", "int8"), ("v", "uint8"))):
        codes, due = encode(np.float32(expected[name]), kind, noise(key, which, count, kind))
        np.testing.assert_array_equal(scales[which], due)
        assert (after[name] == codes).mean() > 0.99  # the rest is where the compiler fuses a product and a sum
        found = decode(after[name], scales[which])
        assert (np.abs(found - expected[name]) <= 1.001 * allowed(expected[name], kind)).all()


def test_it_does_not_matter_who_does_which_part():
    """Blocks are whole for whoever has their first weight: any way of sharing out gives the same bits."""
    count = 7 * BLOCK + 19
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(count).astype(np.float32) for _ in range(3)]
    arrays.append(arrays[2] ** 2)
    kinds = ["float32", "float32", "int8", "uint8"]
    cuts = [0, 1, 100, BLOCK, 2 * BLOCK + 7, 2 * BLOCK + 8, 5 * BLOCK, count]
    for pieces in ([*pairwise(cuts)], [*pairwise(cuts)][::-1]):
        _, _, whole, scales = launched(downslope.adam, kinds, arrays, ADAM, 5)
        _, _, parts, scales_of_parts = launched(downslope.adam, kinds, arrays, ADAM, 5, pieces)
        for name in ("x", "m", "v"):
            np.testing.assert_array_equal(whole[name], parts[name])
        np.testing.assert_array_equal(scales, scales_of_parts)


@pytest.mark.parametrize("bits", ANY_NAN)
def test_a_gradient_that_is_no_number_shows_at_once_and_from_then_on(bits):
    count = 2 * BLOCK
    arrays = [np.ones(count, np.float32) for _ in range(4)]
    arrays[1].view(np.uint32)[3] = bits
    _, _, after, scales = launched(downslope.adam, ["float32", "float32", "int8", "uint8"], arrays, ADAM)
    assert np.isnan(after["x"][3])
    assert np.isfinite(after["x"][4:]).all()
    for scale in scales:
        assert np.isnan(scale[0])
        assert np.isfinite(scale[1])


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_codes_go_with_weights_in_half_precision(storage):
    count = BLOCK + 3
    bits = {"bfloat16": np.uint16(0x3F80), "float16": np.uint16(0x3C00)}[storage]  # 1.0
    x, dx = np.full(count, bits), np.full(count, bits)
    state = np.zeros(count, np.float32)
    program, _, after, scales = launched(
        downslope.momentum, [storage, storage, "int8"], [x, dx, state], {"lr": 0.5, "mu": 0.9}
    )
    np.testing.assert_allclose(np.abs(decode(after["v"], scales[0])), 0.5, rtol=0.05)
    assert (after["x"] != bits).all()
    assert len(program.arrays) == 3


def test_a_decaying_average_decays_and_a_growing_one_grows():
    """With the nearest code both would stand still: a step changes them by less than half the way to the next."""
    count, steps = BLOCK, 2000
    v = np.ones(count, np.float32)
    v[0], dx = 50.0, np.zeros(count, np.float32)
    dx[0] = np.sqrt(np.float32(50.0))  # keeps the block's scale where it is
    codes, scale = encode(v, "uint8")
    program = compose(downslope.rmsprop)
    kernel = Kernel(program, ["float32", "float32", "uint8"])
    x = np.zeros(count, np.float32)
    slots = np.zeros((1, FIRST + 4), np.int64)
    slots[0, LENGTH] = count
    slots[0, FIRST:] = [array.ctypes.data for array in (x, dx, codes, scale)]
    numbers = {name: value for name, value in program.hyperparameters.items() if value is not None}
    decay = next(name for name in numbers if "decay" in name or name == "rho")
    coefficients = np.array(interpret_coefficients(program, {**numbers, "lr": 0.0, decay: 0.999}), np.float32)
    for step in range(steps):
        slots[0, KEY] = step * 0x9E3779B97F4A7C15 % 2**63
        kernel.update(*whereabouts(slots), address(coefficients), 0, count, 0)
    found = decode(codes, scale)[1:]
    assert found.mean() == pytest.approx(0.999**steps, rel=0.1)


def test_a_rule_may_use_the_names_that_the_kernel_does():
    @downslope.rule
    def awkward(x, dx, scale=0, load=0, *, peak, magnitude, inverse, held=0.5, noise=1.0, number_=1.0, size_load_=1.0):
        scale = held * scale + noise * dx
        load = load + dx**2 * number_ * size_load_
        return x - peak * magnitude * inverse * scale / (1 + load), scale, load

    random = np.random.default_rng(0)
    arrays = [random.standard_normal(300).astype(np.float32) for _ in range(4)]
    arrays[3] **= 2
    numbers = {
        "peak": 0.1,
        "magnitude": 1.0,
        "inverse": 1.0,
        "held": 0.5,
        "noise": 1.0,
        "number_": 1.0,
        "size_load_": 1.0,
    }
    kinds = ["float32", "float32", "int8", "uint8"]
    program, before, after, _ = launched(awkward, kinds, arrays, numbers)
    np.testing.assert_allclose(after["x"], interpret(program, before, numbers)["x"], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names a processor of this kind")
def test_a_processor_that_fuses_nothing_ends_in_the_same_bits(monkeypatch):
    """What may be fused is exact, so that it does not matter where one operation does for two."""
    llvm = pytest.importorskip("llvmlite.binding")

    def oldest():
        machine._initialize()
        target = llvm.Target.from_triple(llvm.get_process_triple())
        return target.create_target_machine(cpu="x86-64", opt=3, reloc="static", codemodel="jitdefault", jit=True)

    @downslope.rule
    def here(x, dx, m=0, v=0, *, lr):
        return x - lr * m, m + lr * dx, abs(dx)

    @downslope.rule
    def there(x, dx, m=0, v=0, *, lr):
        return x - lr * m, m + lr * dx, abs(dx)

    arrays = [values("int8", seed, 1000, 30) * np.float32(10.0**10) for seed in range(3)]
    arrays.append(np.abs(arrays[2]))
    ends = []
    for rule in (here, there):
        _, _, after, scales = launched(rule, ["float32", "float32", "int8", "uint8"], arrays, {"lr": 0.3}, 9)
        ends.append([*after.values(), *scales])
        monkeypatch.setattr(machine, "_target_machine", oldest)
        monkeypatch.setattr(machine, "_processor", lambda: "the oldest")
    for mine, yours in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, yours)
