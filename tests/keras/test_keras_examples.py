"""The examples run, and reach what they promise."""

import importlib.util
from pathlib import Path

from each_backend import once

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, name, module)  # where a saved rule is looked for
    spec.loader.exec_module(module)
    return module


@once
def test_keras_fit(monkeypatch):
    losses = example("keras_fit", monkeypatch).main()
    assert len(losses) == 3
    assert max(losses.values()) < 1.0  # from about 4


@once
def test_tensorflow_loop(monkeypatch):
    first, last = example("tensorflow_loop", monkeypatch).main()
    assert last < first / 4
