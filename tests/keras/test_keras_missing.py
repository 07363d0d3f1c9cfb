"""What downslope.keras says where a package is missing."""

import os
import subprocess
import sys

import pytest


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
