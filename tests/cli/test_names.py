"""The names of rules on the command line."""

import pytest

import downslope
import downslope.dialects
from downslope.cli.names import rule_named, rules_named


def test_a_rule_has_the_same_name_for_every_command():
    assert rule_named("adam", "--rules") is downslope.adam
    assert rule_named("keras.Adam", "--rules") is downslope.dialects.keras.adam
    assert rule_named("torch.optim.NAdam", "--rules") is downslope.dialects.torch.nadam
    with pytest.raises(ValueError, match=r"^--rules adamm: there is no rule adamm; there are adam, .*file.py:name$"):
        rule_named("adamm", "--rules")


def test_rules_beside_each_other_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    formula = "@rule\ndef adam(x, dx, *, lr=0.1):\n    return x - lr * dx\n"
    (tmp_path / "mine.py").write_text(f"from downslope import rule\n\n{formula}")
    found = rules_named("mine.py:adam, adam,keras.Adam,torch.optim.Adam", "--rules")
    assert list(found) == ["mine.py:adam", "adam", "keras.adam", "torch.adam"]
    assert list(found.values())[1:] == [downslope.adam, downslope.dialects.keras.adam, downslope.dialects.torch.adam]
    assert list(rules_named("mine.py:adam", "--rules")) == ["adam"]
    with pytest.raises(ValueError, match=r"^--rules keras.adam,adam,keras.Adam: keras.adam is given twice$"):
        rules_named("keras.adam,adam,keras.Adam", "--rules")
