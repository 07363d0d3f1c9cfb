"""Libraries of compiled functions: what must stay alive, what an exception leaves, what a processor lacks."""

import gc
import importlib.util
import os
import platform
import subprocess
import sys

import pytest

SMALL = """
from downslope.backends.compiler import int64
from downslope.backends.machine import Library

library = Library(__file__)


@library.function(python=True)
def twice_of_what_is_given(a: int64) -> int64:
    return 2 * a
"""


def test_a_function_may_outlive_its_library(tmp_path):
    file = tmp_path / "short_lived.py"
    file.write_text(SMALL)
    spec = importlib.util.spec_from_file_location("short_lived", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = module.twice_of_what_is_given.call
    name = function.__name__
    del module, spec
    gc.collect()
    others = [b"x" * len(name) for _ in range(5000)]  # they would take the place of what has been freed
    assert others
    assert function.__name__ == name
    assert function(21) == 42


INTERRUPTED = """
import gc
import llvmlite.binding as llvm
import numpy as np
import downslope

finalize, calls = llvm.ExecutionEngine.finalize_object, []

def interrupted(engine):
    calls.append(engine)
    if len(calls) == 1:
        raise KeyboardInterrupt
    finalize(engine)

llvm.ExecutionEngine.finalize_object = interrupted
x = np.ones(5, np.float32)
try:
    downslope.Optimizer(x, downslope.adam, lr=0.5).step(np.ones(5, np.float32))
except KeyboardInterrupt:
    calls = [None]
gc.collect()
others = [bytes(1500) for _ in range(5000)]
downslope.Optimizer(x, downslope.adam, lr=0.5).step(np.ones(5, np.float32))
assert abs(x - 0.5).max() < 1e-6
"""


def run(script, *arguments, cache):
    subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, "DOWNSLOPE_CACHE_DIR": str(cache)},
        check=True,
        timeout=300,
    )


def test_compiling_goes_on_after_it_was_interrupted(tmp_path):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    run(script, cache=tmp_path / "cache")


HALVES = """
import sys
import llvmlite.binding as llvm

if sys.argv[1] == "without":
    features = llvm.get_host_cpu_features()
    for name in features:
        if name.startswith(("avx", "f16c", "fma", "vaes", "vpclmul", "gfni")):
            features[name] = False
    llvm.get_host_cpu_features = lambda: features
    llvm.get_host_cpu_name = lambda: "x86-64"

import numpy as np
from downslope.backends.compiler import int64
from downslope.backends.machine import Library
from downslope.backends.memory import access, address

load, store = access("float32", storage="float16")
load_single, store_single = access("float32")
library = Library(__file__)


@library.function(python=True)
def widen(halves: int64, to: int64, count: int64) -> None:
    for i in range(count):
        store_single(to, i, load(halves, i))


@library.function(python=True)
def narrow(singles: int64, to: int64, count: int64) -> None:
    for i in range(count):
        store(to, i, load_single(singles, i))


np.seterr(all="ignore")
halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
exact, wide = halves.astype(np.float32), np.empty(1 << 16, np.float32)
widen(address(halves), address(wide), 1 << 16)
odd = np.isnan(halves)
assert (wide.view(np.uint32) == exact.view(np.uint32))[~odd].all()
assert np.isnan(wide[odd]).all()

between = (exact[:-1] + exact[1:]) / 2
edges = np.concatenate([exact, between])
drawn = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint32).view(np.float32)
singles = np.concatenate([edges, *(np.nextafter(edges, np.float32(to)) for to in (np.inf, -np.inf)), drawn])
narrowed, expected = np.empty(singles.size, np.float16), singles.astype(np.float16)
narrow(address(singles), address(narrowed), singles.size)
odd = np.isnan(singles)
assert (narrowed.view(np.uint16) == expected.view(np.uint16))[~odd].all()
assert np.isnan(narrowed[odd]).all()
"""


@pytest.mark.parametrize("instructions", ["with", "without"])
def test_half_precision_needs_no_instructions_of_its_own(tmp_path, instructions):
    if instructions == "without" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the processor that is feigned is an x86")
    script = tmp_path / "halves.py"
    script.write_text(HALVES)
    run(script, instructions, cache=tmp_path / "cache")


IMPORTED = """
import constants
from downslope.backends.compiler import int64
from downslope.backends.machine import Library
from constants import STEP

library = Library(__file__)


@library.function(python=True)
def stepped(a: int64) -> int64:
    return a + STEP


assert stepped(1) == 1 + constants.STEP
"""


def test_machine_code_is_made_anew_for_another_value_of_a_number_from_elsewhere(tmp_path):
    script = tmp_path / "imported.py"
    script.write_text(IMPORTED)
    for step in (1, 2000, 1):
        (tmp_path / "constants.py").write_text(f"STEP = {step}\n")
        run(script, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("_downslope_imported_*.o"))) == 2
