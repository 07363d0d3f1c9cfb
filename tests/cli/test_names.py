"""The names of rules on the command line."""

import pytest

import downslope
import downslope.dialects
from downslope.cli.names import rule_named


def test_a_rule_has_the_same_name_for_every_command():
    assert rule_named("adam", "--rules") is downslope.adam
    assert rule_named("keras.Adam", "--rules") is downslope.dialects.keras.adam
    assert rule_named("torch.optim.NAdam", "--rules") is downslope.dialects.torch.nadam
    with pytest.raises(ValueError, match=r"^--rules adamm: there is no rule adamm; there are adam, .*file.py:name$"):
        rule_named("adamm", "--rules")
