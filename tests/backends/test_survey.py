"""The norm of all gradients, and how many elements are not finite."""

import math

import numpy as np
import pytest

from downslope.backends.cpu import THREADED_FROM
from downslope.backends.describe import of_arrays
from downslope.backends.survey import PIECE
from downslope.backends.table import SlotTable

RNG = np.random.default_rng(5)
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def surveyed(gradients, workers=1):
    slots = SlotTable(of_arrays(), [[np.zeros_like(g)] for g in gradients], [gradients[0].dtype.name] * 2)
    assert slots.take(*gradients) == 0
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
