import os
import subprocess
import sys

HEAVY = {"llvmlite", "jax", "torch", "tensorflow", "keras", "optax", "pandas", "polars", "scipy", "sklearn", "plotly"}


def modules_after(statements):
    script = f"{statements}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.check_output([sys.executable, "-c", script], text=True).split())


def test_importing_downslope_loads_no_framework_and_no_compiler():
    loaded = modules_after("import downslope; dir(downslope); downslope.adam(1.0, 1.0, t=1); downslope.adam.latex()")
    assert "downslope" in loaded
    assert not loaded & HEAVY


def test_the_optimizer_loads_the_compiler_but_no_framework():
    loaded = modules_after("import numpy, downslope; downslope.Optimizer(numpy.ones(2), downslope.sgd)")
    assert loaded & HEAVY == {"llvmlite"}


def test_importing_the_torch_front_end_loads_no_compiler():
    loaded = modules_after("import downslope.torch; downslope.torch.Adam")
    assert "torch" in loaded
    assert "llvmlite" not in loaded


def test_importing_the_command_line_loads_no_framework_and_no_lab():
    script = "import downslope.cli, sys; assert 'downslope.lab' not in sys.modules"
    assert not modules_after(script) & (HEAVY | {"latex2mathml"})


def import_error(module, missing, **environment):
    """What the import of a module of ours says where a package is missing."""
    script = f"import sys; sys.modules[{missing!r}] = None\nimport {module}"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_without_pytorch_the_error_says_what_to_install():
    said = import_error("downslope.torch", "torch")
    assert said == 'ImportError: downslope.torch needs PyTorch: pip install "downslope[torch]"'


def test_without_keras_the_error_says_what_to_install():
    said = import_error("downslope.keras", "keras", KERAS_BACKEND="jax")
    assert said == 'ImportError: downslope.keras needs Keras 3: pip install "downslope[keras]"'


def test_without_kerass_backend_the_error_names_its_package():
    said = import_error("downslope.keras", "jax", KERAS_BACKEND="jax")
    assert "Keras is set to the backend jax, whose package is not installed: pip install jax" in said


def test_every_public_name_is_there():
    import downslope

    for name in downslope.__all__:
        assert getattr(downslope, name) is not None
    assert set(downslope.__all__) <= set(dir(downslope))
    assert not hasattr(downslope, "Optimiser")
