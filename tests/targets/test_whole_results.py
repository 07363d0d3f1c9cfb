"""What a step over a whole tensor gives back is its own, and norms of single precision are those of double."""

import numpy as np
import pytest
import torch

from downslope import norm, rule
from downslope.language.options import compose
from downslope.targets.arrays import interpret


@rule
def exchanged(x, dx, m=0, v=0, w=0, r=0, *, lr=0.1):
    """States that are exchanged, turned twice, and one number for all."""
    return x - lr * dx / norm(dx), v, m, (w.T).T, norm(dx)


@pytest.mark.parametrize("library", [np, torch])
def test_what_comes_out_shares_no_memory_with_what_went_in(library):
    generator = np.random.default_rng(1)
    program = compose(exchanged)
    arrays = {name: generator.normal(size=(4, 3)) for name in program.arrays}
    held = {name: library.asarray(array.copy()) for name, array in arrays.items()}
    new = {name: np.asarray(value) for name, value in interpret(program, held, {"lr": 0.5}, library).items()}
    for name, array in held.items():
        np.testing.assert_array_equal(np.asarray(array), arrays[name], err_msg=name)
        assert not any(np.shares_memory(value, np.asarray(array)) for value in new.values()), name
    length = np.linalg.norm(arrays["dx"])
    np.testing.assert_allclose(new["x"], arrays["x"] - 0.5 * arrays["dx"] / length)
    for name, wanted in {"m": arrays["v"], "v": arrays["m"], "w": arrays["w"]}.items():
        np.testing.assert_array_equal(new[name], wanted, err_msg=name)
    np.testing.assert_allclose(new["r"], np.full((4, 3), length))


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_norm_of_single_precision_is_worked_out_in_double(axis, scale):
    a = np.float32(np.random.default_rng(2).normal(size=(50, 70)) * scale)
    wanted = np.float32(np.linalg.norm(np.float64(a), axis=axis, keepdims=axis is not None))
    found = norm(torch.from_numpy(a), axis=axis)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy().reshape(wanted.shape), wanted, rtol=1.2e-7)
    assert tuple(found.shape) == ({None: (), 0: (1, 70), 1: (50, 1)}[axis])
