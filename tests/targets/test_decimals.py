import math
from decimal import Decimal

import numpy as np
import pytest

from downslope.targets.decimals import OPERATIONS, forty_digits

ANGLES = [0.0, 1.0, -1.0, 2.5, 1e-30, -1e-310, math.pi / 4, math.pi / 2, math.pi, 2 * math.pi, 355 / 113, 1e22, -1e300]


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_and_cosine_round_to_those_of_the_mathematical_library(name, angle):
    with forty_digits():
        found = float(OPERATIONS[name](Decimal(angle)))
    expected = getattr(math, name)(angle)
    assert abs(found - expected) <= np.spacing(abs(expected))


@pytest.mark.parametrize("angle", ANGLES)
def test_sine_and_cosine_have_forty_digits(angle):
    with forty_digits():
        a = Decimal(angle)
        s, c = OPERATIONS["sin"](a), OPERATIONS["cos"](a)
        assert abs(s * s + c * c - 1) < Decimal("1e-39")
        doubled = OPERATIONS["sin"](Decimal(2 * angle))
        assert abs(doubled - 2 * s * c) <= Decimal("4e-39") * abs(doubled)


def test_what_is_lost_near_a_right_angle_is_not_lost():
    with forty_digits():
        assert str(OPERATIONS["cos"](Decimal(math.pi / 2))).startswith("6.12323399573676588613032966137500146")


@pytest.mark.parametrize("angle", ["inf", "-inf", "nan"])
def test_no_angle_has_no_sine(angle):
    with forty_digits():
        assert OPERATIONS["sin"](Decimal(angle)).is_nan()
