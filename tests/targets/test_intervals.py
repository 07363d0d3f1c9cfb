import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.targets.intervals import OPERATIONS, Interval, Precision

DOUBLE = Precision.of(np.float64)
ENDS = st.floats(-1e6, 1e6)


@pytest.mark.parametrize("name", ["sin", "cos"])
@settings(deadline=None)
@given(low=ENDS, width=st.floats(0, 8), part=st.floats(0, 1))
def test_a_wave_lies_in_its_interval_whatever_crests_are_between_the_ends(name, low, width, part):
    inside = OPERATIONS[name](DOUBLE, Interval(np.array([low]), np.array([low + width])))
    point = min(low + part * width, low + width)
    assert np.array([getattr(np, name)(point)]) in inside


def test_the_interval_of_a_wave_is_no_wider_than_the_wave():
    narrow = OPERATIONS["sin"](DOUBLE, Interval(np.array([0.5]), np.array([1.0])))
    np.testing.assert_allclose([narrow.low[0], narrow.high[0]], np.sin([0.5, 1.0]), rtol=1e-14)
    crest = OPERATIONS["sin"](DOUBLE, Interval(np.array([1.0]), np.array([2.0])))
    np.testing.assert_allclose([crest.low[0], crest.high[0]], [np.sin(1.0), 1.0], rtol=1e-14)
    trough = OPERATIONS["cos"](DOUBLE, Interval(np.array([2.0]), np.array([4.0])))
    np.testing.assert_allclose([trough.low[0], trough.high[0]], [-1.0, np.cos(2.0)], rtol=1e-14)


def test_an_endless_angle_may_give_anything():
    with np.errstate(invalid="ignore"):
        anything = OPERATIONS["cos"](DOUBLE, Interval(np.array([0.0]), np.array([np.inf])))
    assert np.array([np.nan]) in anything
