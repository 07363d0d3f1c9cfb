"""The checks in `backend/`, run for each of Keras's backends in a process that chooses it before it imports Keras."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WARNINGS = ["-W", "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"]  # Keras's own


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_all_checks_pass(backend):
    for package in ("keras", backend):
        pytest.importorskip(package)
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "DOWNSLOPE_KERAS_CHECKS": "1"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    files = sorted(map(str, (HERE / "backend").glob("checks_*.py")))
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *WARNINGS, *files]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def import_error(missing, backend):
    """What importing downslope.keras says where a package is missing."""
    code = f"import sys; sys.modules[{missing!r}] = None\nimport downslope.keras"
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_without_keras_the_error_says_what_to_install():
    assert import_error("keras", "jax") == 'ImportError: downslope.keras needs Keras 3: pip install "downslope[keras]"'


def test_without_the_backend_the_error_names_its_package():
    pytest.importorskip("keras")
    assert "Keras is set to the backend jax, whose package is not installed: pip install jax" in import_error(
        "jax", "jax"
    )
