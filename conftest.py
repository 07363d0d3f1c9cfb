"""What all tests share: those of tests/, the examples in docstrings, and the pages of README and docs."""

import contextlib
import gc
import os
import re
import shutil
import tempfile

import pytest

from reader import pytest_collect_file, reader  # noqa: F401 - pages of README and docs are tests too

with contextlib.suppress(ImportError):
    import triton  # noqa: F401 - PyTorch's optimizers load it, and after TensorFlow that ends the process

collect_ignore = ["docs/conf.py"]  # which Sphinx runs, with names of its own
_KERNELS = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config):
    """What this session compiles goes into a directory of its own, subprocesses and parallel workers included.

    JAX keeps what takes long there too: most races of the tests train the same few programs. It writes a file in more
    than one go, so that each worker has a directory.
    """
    if "DOWNSLOPE_TESTS" not in os.environ:
        directory = config.stash[_KERNELS] = tempfile.TemporaryDirectory(prefix="downslope-tests-")
        os.environ |= {"DOWNSLOPE_TESTS": "1", "DOWNSLOPE_CACHE_DIR": directory.name}
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # with a worker on every core, more would wait for each other
    if kernels := os.environ.get("DOWNSLOPE_CACHE_DIR"):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{kernels}/jax-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure(config):
    """Nothing that was compiled is left."""
    if _KERNELS in config.stash:
        config.stash[_KERNELS].cleanup()


def pytest_collection():
    """Nothing that is imported becomes garbage, so none is looked for."""
    gc.disable()


def pytest_collection_finish():
    """Nor is it looked through while tests run: millions of objects, each time that somebody collects."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, started once."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page(browser):
    """An empty page without a network; whatever it complains of fails the module in the end."""
    complaints = []
    context = browser.new_context(offline=True)
    context.set_default_timeout(300_000)  # of a busy machine, not of a test
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert not complaints


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """What takes long is begun first, so that nobody is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of a module go to one worker, which makes its fixtures once, and so do those of Keras on one backend."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            backend = re.search(r"^tests/keras/.*[\[-](tensorflow|jax|torch)[\]-]", nodeid)
            return f"Keras on {backend[1]}" if backend else super()._split_scope(nodeid)

    return Scheduling(config, log)
