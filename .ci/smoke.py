"""What an installed downslope must do, wherever it is: run away from the repository by `.ci/matrix.py`.

Each framework that is installed trains for twenty steps with its own Adam and with downslope's, and ends alike.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

import downslope

STEPS = 20
PLAIN = 5e-5
"""How far frameworks may be that work out 1 - beta2**t in single precision: at t = 2 it is off by 2e-5."""
TIMED = """
import sys, time, numpy
begun = time.process_time()
import downslope
print(time.process_time() - begun)
assert not {"torch", "jax", "keras", "tensorflow", "numba", "sklearn"} & {*sys.modules}
"""


def gradient(x):
    """That of a quadratic."""
    return x - np.linspace(-1, 1, x.size, dtype=x.dtype)


def ours():
    """Train with NumPy, save half-way, and go on to the same bits; the weights at the end."""
    straight, first = ({"x": np.ones(7, "float32")} for _ in range(2))
    optimizer = downslope.Optimizer(straight, downslope.adam, lr=0.1)
    for _ in range(STEPS):
        optimizer.step({"x": gradient(straight["x"])})
    optimizer = downslope.Optimizer(first, downslope.adam, lr=0.1)
    for _ in range(STEPS // 2):
        optimizer.step({"x": gradient(first["x"])})
    file = Path(tempfile.mkdtemp(), "half.safetensors")
    optimizer.save(file)
    later = {"x": np.zeros(7, "float32")}
    optimizer = downslope.Optimizer(later, downslope.adam, lr=0.1)
    optimizer.load(file)
    for _ in range(STEPS // 2):
        optimizer.step({"x": gradient(later["x"])})
    assert (straight["x"] == later["x"]).all()
    return straight["x"]


def in_torch(make):
    """The weights at the end, by an optimizer of PyTorch."""
    import torch

    x = torch.ones(7, requires_grad=True)
    optimizer = make([x], lr=0.1)
    for _ in range(STEPS):
        x.grad = torch.from_numpy(gradient(x.detach().numpy()))
        optimizer.step()
    return x.detach().numpy()


def in_optax(transformation):
    """The weights at the end, by a transformation of Optax."""
    import jax.numpy as jnp
    import optax

    x = jnp.ones(7)
    state = transformation.init(x)
    for _ in range(STEPS):
        updates, state = transformation.update(jnp.asarray(gradient(np.asarray(x))), state, x)
        x = optax.apply_updates(x, updates)
    return np.asarray(x)


def in_keras(optimizer):
    """The weights at the end, by an optimizer of Keras."""
    import keras

    x = keras.Variable(np.ones(7, "float32"))
    optimizer.build([x])
    for _ in range(STEPS):
        optimizer.apply([keras.ops.convert_to_tensor(gradient(keras.ops.convert_to_numpy(x)))])
    return keras.ops.convert_to_numpy(x)


def alike(mine, theirs, within=1e-5):
    """Check that two trainings end alike, in single precision."""
    np.testing.assert_allclose(mine, theirs, rtol=within, atol=1e-6)


def main():
    """Try all that is installed, and print the versions as JSON."""
    ended = ours()
    there = [name for name in ("torch", "optax", "keras") if importlib.util.find_spec(name)]
    if "torch" in there:
        from torch.optim import Adam

        from downslope.torch import Adam as Ours

        alike(in_torch(Ours), in_torch(Adam))
        alike(in_torch(Ours), ended)
    if "optax" in there:
        from optax import adam

        from downslope.optax import adam as own

        alike(in_optax(own(0.1)), in_optax(adam(0.1)), PLAIN)
        alike(in_optax(own(0.1)), ended)
    if "keras" in there:
        from keras.optimizers import Adam as KerasAdam

        from downslope.keras import Adam as OursInKeras

        alike(in_keras(OursInKeras(0.1)), in_keras(KerasAdam(0.1)), PLAIN)
    assert downslope.check_rule(downslope.adam).passed  # on every target that is installed
    timed = [subprocess.run([sys.executable, "-c", TIMED], capture_output=True, check=True).stdout for _ in range(5)]
    names = ["numpy", "llvmlite", "safetensors", "platformdirs", *there, *(["jax"] if "optax" in there else [])]
    said = {"python": sys.version.split()[0], **{name: version(name) for name in names}}
    print(json.dumps({**said, "import": round(min(map(float, timed)), 3)}))


if __name__ == "__main__":
    main()
