"""downslope in Keras 3: `keras.optimizers`' optimizers with its numbers, and an optimizer for any rule.

Requires Keras 3 and the package of the backend it is set to: TensorFlow, JAX or PyTorch.

Example:
    >>> import keras, downslope.keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=downslope.keras.Adam(1e-3), loss="mse")
"""

try:
    import keras  # noqa: F401
except ImportError as error:
    missing = (error.name or "").partition(".")[0]
    if missing == "keras":
        raise ImportError('downslope.keras needs Keras 3: pip install "downslope[keras]"', name="keras") from error
    if missing in ("tensorflow", "jax", "torch"):
        raise ImportError(
            f"Keras is set to the backend {missing}, whose package is not installed: pip install {missing}, or choose "
            "another with the environment variable KERAS_BACKEND (tensorflow, jax or torch) before Keras is imported",
            name=missing,
        ) from error
    raise

from downslope.keras.callback import AtWeights
from downslope.keras.classes import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, Nadam, RMSprop
from downslope.keras.optimizer import Optimizer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "AtWeights",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
]
