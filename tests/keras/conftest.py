"""Every test here runs on each of Keras's backends, or on those that it names, in a process of that backend."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from each_backend import BACKENDS, MARKS, Process, Serving, chosen

HERE = Path(__file__).parent
CHOSEN = chosen() if importlib.util.find_spec("keras") else None
collect_ignore_glob = [] if CHOSEN else ["test_*.py"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """One backend after the other, and before all other tests: they take long."""
    here = {item: item.callspec.params["backend"] for item in items if item.path.parent == HERE}
    items.sort(key=lambda item: BACKENDS.index(here[item]) if item in here else len(BACKENDS))


@pytest.fixture(scope="session", params=[pytest.param(name, marks=MARKS[name]) for name in BACKENDS])
def backend(request):
    return request.param


@pytest.fixture(scope="session")
def processes(pytestconfig, tmp_path_factory):
    """The process of each backend, started when a test first needs it; None in such a process."""
    if any(isinstance(plugin, Serving) for plugin in pytestconfig.pluginmanager.get_plugins()):
        yield None
        return
    made = {name: Process(name, tmp_path_factory.mktemp(name) / "printed") for name in BACKENDS}
    yield made
    for process in made.values():
        process.end(at_once=True)


@pytest.fixture(autouse=True)
def process(processes, backend):
    """The process in which Keras runs on the backend of a test; None where that is this one."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    return None if processes is None or backend == CHOSEN == "tensorflow" else processes[backend]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Have that process run the test, which runs it as any other."""
    process = pyfuncitem.funcargs["process"]
    if process is None:
        return None
    process.run(pyfuncitem.nodeid)
    return True


@pytest.fixture(autouse=True)
def seeded(process, backend):
    """The same random numbers for every test, in the process that runs it."""
    if process is None:
        import keras

        assert keras.backend.backend() == backend
        keras.utils.set_random_seed(0)


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 5)).astype("float32")
    return x, np.tanh(x.sum(1, keepdims=True))
