"""In which precision a step is computed, and bringing values to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def precision(variables: Sequence[Any]) -> str:
    """The precision to compute in: double if a variable has it, else single."""
    dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in variables}
    return "float64" if "float64" in dtypes else "float32"


def check_dtypes(variables: Sequence[Any]) -> None:
    """Make sure that variables hold floating-point numbers, the only ones that a step is computed with.

    Raises:
        TypeError: One holds integers, truth values or complex numbers.
    """
    for variable in variables:
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise TypeError(
                f"the variable {variable.name} is of dtype {dtype}; give variables of floating-point numbers (of a "
                "complex number, its real and imaginary part as two)"
            )


def tensor(value: Any, dtype: str) -> Any:
    """A variable, gradient or number as a dense tensor of this dtype."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # keras.ops would leave gradients of embeddings sparse
        return tf.cast(tf.convert_to_tensor(value), dtype)
    return ops.convert_to_tensor(value, dtype, sparse=False)


def array_of(variable: Any) -> np.ndarray[Any, Any]:
    """A copy of a variable's value."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if keras.backend.backend() == "tensorflow":
        return np.array(value.numpy())  # what keras.ops does there, NumPy 2 deprecates
    return np.array(ops.convert_to_numpy(value))


def number(value: Any) -> float:
    """The value of a scalar variable, tensor or number."""
    return float(value) if isinstance(value, (int, float)) else float(array_of(value))


def plain(value: Any) -> Any:
    """A number or truth value of NumPy's as Python's, which takes on the precision of what it meets."""
    return float(value) if isinstance(value, np.number) else bool(value) if isinstance(value, np.bool_) else value


def of_precision(value: Any, dtype: str) -> Any:
    """A coefficient in this precision; numbers and truth values stay as they are."""
    if isinstance(value, (bool, int, float)) or keras.backend.standardize_dtype(value.dtype) in (dtype, "bool"):
        return value
    return ops.cast(value, dtype)
