"""The names of rules on the command line."""

import sys

import pytest

import downslope
import downslope.dialects
from downslope.cli.names import own_function, rule_named, rules_named


def test_a_rule_has_the_same_name_for_every_command():
    assert rule_named("adam", "--rules") is downslope.adam
    assert rule_named("keras.Adam", "--rules") is downslope.dialects.keras.adam
    assert rule_named("torch.optim.NAdam", "--rules") is downslope.dialects.torch.nadam
    with pytest.raises(ValueError, match=r"^--rules adamm: there is no rule adamm; there are adam, .*file.py:name$"):
        rule_named("adamm", "--rules")


def test_a_file_imports_what_lies_beside_it_when_it_is_read_and_later(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers_beside.py").write_text("width = 3\n")
    (tmp_path / "sizes_beside.py").write_text("width = 4\n")
    (tmp_path / "net.py").write_text(
        "from layers_beside import width\n\ndef make(seed):\n    import sizes_beside\n"
        "    return width, sizes_beside.width\n"
    )
    (tmp_path / "wrong.py").write_text("import nowhere_beside\n")
    before = sys.path[:]
    with pytest.raises(ValueError, match=r"wrong.py:make: the file raised ModuleNotFoundError"):
        own_function("wrong.py:make", "PROBLEM", "to make a model")
    assert sys.path == before
    make = own_function("net.py:make", "PROBLEM", "to make a model")
    monkeypatch.chdir("/")
    assert make(0) == (3, 4)


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
