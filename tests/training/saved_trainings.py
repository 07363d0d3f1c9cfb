"""Small trainings in every front end: what the files in `saved/` hold after three steps.

The files were written by 0.1.0 as it was before its saved files were read by other code; they are never written anew.
"""

import os

import numpy as np

import downslope

X = {"W": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.float32([0.5, -0.25])}
DX = {"W": np.linspace(1, -2, 6, dtype=np.float32).reshape(2, 3), "b": np.float32([-1.5, 0.75])}


class Numpy:
    def __init__(self, rule, **options):
        self.optimizer = downslope.Optimizer({name: x.copy() for name, x in X.items()}, rule, **options)

    def step(self):
        self.optimizer.step(DX)

    def save(self, path):
        self.optimizer.save(path)

    def load(self, path):
        self.optimizer.load(path)

    def arrays(self):
        return dict(self.optimizer.params)


class Torch:
    def __init__(self, name, *arguments, **options):
        import torch

        import downslope.torch

        self.torch, self.model = torch, torch.nn.Module()
        for key, x in X.items():
            self.model.register_parameter(key, torch.nn.Parameter(torch.from_numpy(x.copy())))
        kind = getattr(downslope.torch, name)
        self.optimizer = kind(self.model.named_parameters(), *arguments, **options)

    def step(self):
        for key, p in self.model.named_parameters():
            p.grad = self.torch.from_numpy(DX[key].copy())
        self.optimizer.step()

    def save(self, path):
        self.optimizer.save(path, self.model)

    def load(self, path):
        self.optimizer.load(path, self.model)

    def arrays(self):
        return {key: p.detach().numpy() for key, p in self.model.named_parameters()}


class Optax:
    def __init__(self, name, *arguments, **options):
        import jax.numpy as jnp

        import downslope.optax

        self.jnp = jnp
        self.transformation = getattr(downslope.optax, name)(*arguments, **options)
        self.params = {key: jnp.asarray(x) for key, x in X.items()}
        self.state = self.transformation.init(self.params)

    def step(self):
        dx = {key: self.jnp.asarray(value) for key, value in DX.items()}
        updates, self.state = self.transformation.update(dx, self.state, self.params)
        self.params = {key: x + updates[key] for key, x in self.params.items()}

    def save(self, path):
        downslope.optax.save(path, self.params, self.state, self.transformation)

    def load(self, path):
        self.params, self.state = downslope.optax.load(path, self.params, self.state, self.transformation)

    def arrays(self):
        return {key: np.asarray(x) for key, x in self.params.items()}


class Keras:
    def __init__(self, name, *arguments, **options):
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        import keras

        import downslope.keras

        self.keras = keras
        self.variables = [keras.Variable(x, name=key) for key, x in X.items()]
        self.optimizer = getattr(downslope.keras, name)(*arguments, **options)
        self.optimizer.build(self.variables)

    def step(self):
        self.optimizer.apply([self.keras.ops.convert_to_tensor(dx) for dx in DX.values()], self.variables)

    def save(self, path):
        self.optimizer.save(path, names=list(X))

    def load(self, path):
        self.optimizer.load(path, names=list(X))

    def arrays(self):
        return {key: self.keras.ops.convert_to_numpy(v) for key, v in zip(X, self.variables, strict=True)}


ALL_OPTIONS = {"weight_decay": 0.1, "decoupled": True, "averaging": 0.9, "max_norm": 1.0, "cautious": True}

TRAININGS = {
    "numpy_nesterov": lambda: Numpy(downslope.nesterov),
    "numpy_schedule_free_adamw": lambda: Numpy(downslope.schedule_free_adamw, lr=0.1),
    "numpy_adam": lambda: Numpy(downslope.adam, **ALL_OPTIONS),
    "numpy_nadam": lambda: Numpy(downslope.nadam),
    "torch_adam": lambda: Torch("Adam", lr=0.1, amsgrad=True),
    "torch_sgd": lambda: Torch("SGD", lr=0.1, momentum=0.9, nesterov=True),
    "torch_nesterov": lambda: Torch("Optimizer", downslope.nesterov, lr=0.1),
    "optax_adam": lambda: Optax("adam", 0.1),
    "optax_nesterov": lambda: Optax("optimizer", downslope.nesterov, lr=0.1),
    "keras_adam": lambda: Keras("Adam", 0.1),
    "keras_nesterov": lambda: Keras("Optimizer", downslope.nesterov, 0.1),
}
