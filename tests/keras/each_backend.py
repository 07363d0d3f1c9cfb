"""The checks in `backend/`, run in a process that chooses one of Keras's backends before it imports Keras."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WARNINGS = ["-W", "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"]  # Keras's own


def assert_all_checks_pass(backend):
    for package in ("keras", backend):
        pytest.importorskip(package)
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "DOWNSLOPE_KERAS_CHECKS": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    files = sorted(map(str, (HERE / "backend").glob("checks_*.py")))
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *WARNINGS, *files]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
