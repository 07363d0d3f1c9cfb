"""The subset of Python that kernels are written in: compiled, it computes what Python computes."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.backends.compiler import boolean, doubles, float32, float64, int64, words
from downslope.backends.machine import Library
from downslope.backends.memory import address

library = Library(__file__)
SEVEN = 7


class Places:
    first, second = 3, 1


def flow(a: int64, b: int64) -> int64:
    found = 0
    for i in range(a):
        if i == 3 or (i > 5 and not b < 2):
            continue
        for j in range(i, a, 2):
            found += j if j != SEVEN else -1
    while found < b and found != SEVEN:
        found = 2 * found + 1
    if 0 < found <= 9:
        return -found
    if found == 10:
        return 0
    return found


compiled_flow = library.function(python=True)(flow)


@library.function(python=True)
def bits(a: int64, b: int64) -> int64:
    first, second = a, b
    first, second = second, first
    return ((first & 255) | (second << 3)) ^ min(a, b) + max(a, b) // 3 - (first >> 2)


@library.function()
def _larger(a: float64, b: float64) -> boolean:
    return a > b


@library.function(python=True)
def places(at: words) -> int64:
    return 10 * at[Places.first] + at[Places.second]


@library.function(python=True)
def numbers(to: doubles, a: float64, b: float64) -> None:
    single = float32(a)
    to[0] = a / b
    to[1] = single * single
    to[2] = a if _larger(a, b) else -b
    to[3] = abs(a) < inf
    to[4] = 3 / int64(2)
    to[5] = (a > b) + (a < b)


@library.function(objects=True)
def identity(number: int64, objects: words, given: int64) -> int64:
    return number + given if given != 1 else objects[0]


@settings(deadline=None, max_examples=200)
@given(a=st.integers(0, 12), b=st.integers(-3, 60))
def test_loops_and_branches(a, b):
    assert compiled_flow(a, b) == flow(a, b)


@settings(deadline=None, max_examples=200)
@given(a=st.integers(0, 2**40), b=st.integers(0, 2**40))
def test_whole_numbers(a, b):
    assert bits(a, b) == ((b & 255) | (a << 3)) ^ min(a, b) + max(a, b) // 3 - (b >> 2)


@settings(deadline=None, max_examples=200)
@given(a=st.floats(width=64), b=st.floats(width=64))
def test_floats(a, b):
    found = np.zeros(6)
    numbers(address(found), a, b)
    with np.errstate(all="ignore"):
        single = np.float32(a)
        expected = [np.float64(a) / b, single * single, a if a > b else -b, abs(a) < inf, 1.5, (a > b) + (a < b)]
    np.testing.assert_array_equal(found, np.array(expected, float))


def test_objects_are_given_by_identity():
    call = identity.bound(40)
    assert call("a", "b") == 42
    something = object()
    assert call(something) == id(something)


@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3), (1, "2"), (1, None)])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(TypeError):
        compiled_flow(*arguments)


def test_a_number_that_is_too_large_is_refused():
    with pytest.raises(OverflowError):
        compiled_flow(1, 2**63)


def test_a_name_in_a_class_is_its_number():
    numbers = np.array([5, 6, 7, 8])
    assert places(address(numbers)) == 86
