import os
import tempfile

import pytest

_KERNELS = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config):
    """Kernels of this session go into a directory of its own, subprocesses included."""
    directory = config.stash[_KERNELS] = tempfile.TemporaryDirectory(prefix="downslope-tests-")
    os.environ["DOWNSLOPE_CACHE_DIR"] = directory.name


def pytest_unconfigure(config):
    config.stash[_KERNELS].cleanup()
