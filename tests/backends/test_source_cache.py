import ast
import errno
import importlib.util
import marshal
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import downslope
from downslope import Optimizer, rule
from downslope.backends import source_cache

STEP = """
import logging, os, sys

compiled = []
handler = logging.Handler()
handler.emit = compiled.append
logging.getLogger("downslope.backends.machine").addHandler(handler)
logging.getLogger("downslope.backends.machine").setLevel(logging.DEBUG)
import numpy as np
import downslope

x = np.ones(5, np.float32)
optimizer = downslope.Optimizer(x, downslope.adam, lr=0.5, max_norm=1.0, averaging=0.5)
optimizer.step(np.ones(5, np.float32))
assert abs(x - 0.5).max() < 1e-6
print(len(compiled))
"""


def run(cache, script=STEP, warnings="error"):
    """Run a script in a process of its own; what it printed."""
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", textwrap.dedent(script)],
        env={**os.environ, "DOWNSLOPE_CACHE_DIR": str(cache)},
        check=True,
        capture_output=True,
        text=True,
        timeout=900,
    )


def state_of(directory):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache directory that one process has filled."""
    cache = tmp_path_factory.mktemp("cache") / "new" / "kernels"
    assert int(run(cache).stdout) > 0  # the count does count
    return cache


def test_the_second_process_compiles_nothing(warm):
    before = state_of(warm)
    assert run(warm).stdout == "0\n"
    assert state_of(warm) == before


def test_two_processes_may_start_from_an_empty_cache_at_once(tmp_path):
    processes = [threading.Thread(target=lambda: done.append(run(tmp_path / "cache"))) for _ in range(2)]
    done = []
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(done) == 2
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_directory_it_makes_is_the_users_alone(warm):
    assert warm.stat().st_mode & 0o077 == 0


def test_the_generated_file_can_be_read(warm):
    (file,) = warm.glob("_downslope_adam_float32_*.py")
    text = file.read_text()
    assert "adam" in ast.get_docstring(ast.parse(text))
    assert {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)} >= {
        "coefficients",
        "update",
    }
    for line in ("m_hat = ", "v_hat = ", "sqrt(", "beta1", "average"):
        assert line in text
    assert max(map(len, text.splitlines())) < 200


def test_a_file_that_was_tampered_with_is_written_anew(warm):
    (file,) = warm.glob("_downslope_adam_float32_*.py")
    good = file.read_text()
    for bad in ("raise SystemExit('tampered')\n", good.replace("new_x", "new_y")):
        file.write_text(bad)
        run(warm)
        assert file.read_text() == good


@pytest.mark.parametrize(("suffix", "compiled"), [(".py", "0\n"), (".o", "1\n")])
def test_a_file_that_is_a_link_is_replaced(warm, tmp_path, suffix, compiled):
    (file,) = warm.glob(f"_downslope_adam_float32_*{suffix}")
    good = file.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(good)
    file.unlink()
    file.symlink_to(elsewhere)
    assert run(warm).stdout == compiled
    assert not file.is_symlink()
    assert elsewhere.read_bytes() == good


def test_machine_code_that_was_damaged_is_made_anew(warm):
    (file,) = warm.glob("_downslope_adam_float32_*.o")
    good = file.read_bytes()
    for bad in (b"", good[:-1], good[:100] + bytes([good[100] ^ 1]) + good[101:]):
        file.write_bytes(bad)
        assert run(warm).stdout == "1\n"
        assert file.read_bytes() == good


def world_writable(path):
    path.mkdir()
    path.chmod(0o777)
    return path, "others can write"


def group_writable(path):
    path.mkdir()
    path.chmod(0o770)
    return path, "others can write"


def link(path):
    (path.parent / "real").mkdir(mode=0o700)
    path.symlink_to(path.parent / "real")
    return path.parent / "real", "not a directory"


def a_file(path):
    path.write_text("")
    return path, "exists"


def below_a_file(path):
    path.parent.joinpath("file").write_text("")
    return path, "directory"


UNSAFE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np, downslope
    x = np.ones(2)
    downslope.Optimizer(x, downslope.sgd, lr=0.5).step(np.ones(2))
    from downslope.backends import source_cache
    private = source_cache.directory()
assert (x == 0.5).all()
assert private.stat().st_mode & 0o077 == 0 and list(private.glob("*.py"))
print(private)
for warning in caught:
    print(warning.category.__name__, warning.message)
"""


@pytest.mark.parametrize("make", [world_writable, group_writable, link, a_file])
def test_an_unsafe_directory_is_not_used(make, tmp_path):
    place, reason = make(tmp_path / "cache")
    private, *told = run(tmp_path / "cache", UNSAFE).stdout.splitlines()
    assert [line.partition(" ")[0] for line in told] == ["RuntimeWarning"]
    assert str(tmp_path / "cache") in told[0]
    assert reason in told[0]
    assert "DOWNSLOPE_CACHE_DIR" in told[0]
    assert place.is_file() or list(place.iterdir()) == []
    assert not Path(private).exists()  # it is gone with the process


# In this process


def test_the_same_source_is_the_same_module():
    source = "value = []\n"
    module = source_cache.load("same", source)
    assert source_cache.load("same", source) is module
    assert source_cache.load("same", source + "\n") is not module
    assert Path(module.__file__).read_text() == source
    assert Path(module.__file__).parent == source_cache.directory()


def test_a_module_that_fails_is_tried_again():
    source = "import os\nif 'DOWNSLOPE_TEST_READY' not in os.environ: raise LookupError('not yet')\n"
    for _ in range(2):
        with pytest.raises(LookupError, match="not yet"):
            source_cache.load("failing", source)
    os.environ["DOWNSLOPE_TEST_READY"] = "1"
    try:
        source_cache.load("failing", source)
    finally:
        del os.environ["DOWNSLOPE_TEST_READY"]


class Counted:
    """A lock that tells how many have asked for it."""

    def __init__(self, lock):
        self._lock, self.asked = lock, threading.Semaphore(0)

    def __enter__(self):
        self.asked.release()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def test_a_module_is_seen_whole_by_every_thread(monkeypatch):
    lock = Counted(threading.RLock())
    monkeypatch.setattr(source_cache, "_lock", lock)
    monkeypatch.setattr(threading, "gate_of_this_test", threading.Event(), raising=False)
    source = "import threading\nthreading.gate_of_this_test.wait()\nready = True\n"
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(hasattr(source_cache.load("slow", source), "ready")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:  # all have come while the first is in the middle of it
        lock.asked.acquire()
    threading.gate_of_this_test.set()
    for thread in threads:
        thread.join()
    assert found == [True] * 3


@pytest.mark.parametrize("name", ["../outside", "a/b", "dots.and spaces", "n" * 300, "ünïcode", "<lambda>", '\'"""'])
def test_a_rules_name_cannot_lead_anywhere_else(name, tmp_path, monkeypatch):
    (tmp_path / "kernels").mkdir(mode=0o700)
    monkeypatch.setattr(source_cache, "directory", lambda: tmp_path / "kernels")

    def formula(x, dx, *, lr=0.5):
        return x - lr * dx

    formula.__name__ = name
    x = np.ones(2)
    try:
        Optimizer(x, rule(formula)).step(np.ones(2))
    except downslope.FormulaError as error:
        assert name[:20] in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(x, 0.5)
    assert [path.name for path in tmp_path.glob("*")] == ["kernels"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_nobody_else_can_write_what_is_kept_whatever_the_umask(tmp_path, monkeypatch):
    (tmp_path / "kernels").mkdir(mode=0o755)
    monkeypatch.setattr(source_cache, "directory", lambda: tmp_path / "kernels")
    before = os.umask(0)
    try:
        source_cache.keep("code", b"machine code")
        source_cache.load("ready", "ready = True\n")
    finally:
        os.umask(before)
    kept = [path for path in (tmp_path / "kernels").iterdir() if path.is_file()]
    assert len(kept) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
    assert source_cache.kept("code") == b"machine code"


def test_byte_code_is_neither_left_nor_believed(tmp_path, monkeypatch):
    """A folder for byte code has the permissions that the umask leaves it: somebody else might write there."""
    (tmp_path / "kernels").mkdir(mode=0o755)
    monkeypatch.setattr(source_cache, "directory", lambda: tmp_path / "kernels")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    source = "found = 'generated'\n"
    module = source_cache.load("plain", source)
    file = Path(module.__file__)
    assert [path.name for path in (tmp_path / "kernels").iterdir()] == [file.name]
    planted = Path(importlib.util.cache_from_source(str(file)))
    planted.parent.mkdir()
    status = file.stat()
    head = [0, int(status.st_mtime), status.st_size]
    code = marshal.dumps(compile("found = 'planted'", "planted", "exec"))
    planted.write_bytes(importlib.util.MAGIC_NUMBER + b"".join(n.to_bytes(4, "little") for n in head) + code)
    monkeypatch.delitem(sys.modules, module.__name__)
    assert source_cache.load("plain", source).found == "generated"


def test_a_directory_that_is_removed_meanwhile_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(source_cache, "directory", lambda: tmp_path / "kernels")
    (tmp_path / "kernels").mkdir(mode=0o700)
    source_cache.load("first_of_two", "number = 1\n")
    shutil.rmtree(tmp_path / "kernels")
    assert source_cache.load("second_of_two", "number = 2\n").number == 2
    source_cache.keep("code", b"machine code")
    assert source_cache.kept("code") == b"machine code"
    assert stat.S_IMODE((tmp_path / "kernels").stat().st_mode) == 0o700


def test_where_there_is_no_room_left_another_directory_is_used(tmp_path, monkeypatch):
    full, write = tmp_path / "kernels", source_cache.files.write

    def refuse(path, *arguments, **more):
        if Path(path).parent == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *arguments, **more)

    full.mkdir(mode=0o700)
    monkeypatch.setattr(source_cache, "directory", lambda: full)
    monkeypatch.setattr(source_cache.files, "write", refuse)
    with pytest.warns(RuntimeWarning, match="cannot be kept in .*No space left.*DOWNSLOPE_CACHE_DIR"):
        module = source_cache.load("homeless", "number = 3\n")
    assert module.number == 3
    assert Path(module.__file__).parent != full
    assert Path(module.__file__).parent.stat().st_mode & 0o077 == 0


def test_what_cannot_be_read_is_not_kept(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(source_cache, "directory", lambda: tmp_path)
    source_cache.keep("code", b"machine code")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert source_cache.kept("code") is None
