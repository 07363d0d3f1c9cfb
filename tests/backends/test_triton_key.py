import importlib
import os
from pathlib import Path

import pytest

from downslope.backends import triton_key


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Something installed like Triton, and an empty cache."""
    monkeypatch.setattr(triton_key.source_cache, "directory", lambda: tmp_path)
    there = tmp_path / "triton"
    for name in ("runtime/cache.py", "_C/libtriton.so", "language/core.py", "backends/nvidia/driver.c"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("one")
    return there


def unasked():
    raise AssertionError("it was made anew")


def test_the_key_is_made_once(folder):
    assert triton_key.key(folder, "3.7", lambda: "3.7abc") == "3.7abc"
    assert triton_key.key(folder, "3.7", unasked) == "3.7abc"
    assert triton_key.key(folder, "3.8", lambda: "3.8abc") == "3.8abc"


@pytest.mark.parametrize(
    "name", ["runtime/cache.py", "_C/libtriton.so", "language/core.py", "backends/nvidia/driver.c"]
)
def test_it_is_made_anew_when_a_file_is_another(folder, name):
    triton_key.key(folder, "3.7", lambda: "3.7abc")
    os.utime(folder / name, ns=(1, 1))
    assert triton_key.key(folder, "3.7", lambda: "3.7def") == "3.7def"
    (folder / name).write_text("three")
    os.utime(folder / name, ns=(1, 1))
    assert triton_key.key(folder, "3.7", lambda: "3.7ghi") == "3.7ghi"


def test_a_spoilt_file_is_not_believed(folder, tmp_path):
    triton_key.key(folder, "3.7", lambda: "3.7abc")
    (kept,) = tmp_path.glob("triton_key_*")
    for spoilt in (b"", b"2.0abc", b"3.7\xff\x00"):
        kept.write_bytes(spoilt)
        assert triton_key.key(folder, "3.7", lambda: "3.7abc") == "3.7abc"


def test_triton_is_given_its_own_key(tmp_path, monkeypatch):
    triton = pytest.importorskip("triton")
    place = importlib.import_module("triton.runtime.cache")
    monkeypatch.setattr(triton_key.source_cache, "directory", lambda: tmp_path)
    monkeypatch.setattr(place, "triton_key", theirs := place.triton_key)
    expected = theirs()
    triton_key.hasten.__wrapped__()
    assert place.triton_key is not theirs
    assert place.triton_key() == expected
    assert triton_key.key(Path(triton.__file__).parent, triton.__version__, unasked) == expected
