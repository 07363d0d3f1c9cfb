"""The callback for rules with a look-ahead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from downslope.keras.optimizer import Optimizer
from downslope.keras.states import Kept

LENT = (
    "get_weights",
    "set_weights",
    "get_state_tree",
    "set_state_tree",
    "save",
    "save_weights",
    "load_weights",
    "export",
    "evaluate",
    "predict",
)
"""The methods of a model that are about its weights, and that callbacks call in the middle of a training."""


class AtWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """Has whatever looks at the model during `fit` see the weights, for a rule that takes its gradients ahead of them.

    During training the model's variables hold the point ahead. This callback moves them to the weights for every
    validation and from the end of an epoch to the beginning of the next, and back before training goes on. In the
    middle of an epoch, too, what `model.get_weights`, `save`, `save_weights`, `export`, `evaluate` and `predict` see
    are the weights, and what `set_weights` and `load_weights` set. So `EarlyStopping`, `ModelCheckpoint`,
    `BackupAndRestore` and others need nothing, wherever they stand among the callbacks. One that reads the variables
    themselves finds the weights at the end of an epoch, if it comes after this one.

    A second `fit` starts exactly where the first one left off. With rules that have no look-ahead it does nothing, and
    with an optimizer of Keras's own neither.

    Example:
        >>> import keras, numpy as np, downslope, downslope.keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(downslope.keras.Optimizer(downslope.nesterov, lr=0.01), loss="mse")
        >>> x, y = np.eye(2), np.ones((2, 1))
        >>> history = model.fit(
        ...     x, y, validation_data=(x, y), callbacks=[downslope.keras.AtWeights()], epochs=2, verbose=0
        ... )
        >>> bool(history.history["val_loss"][1] < history.history["val_loss"][0])
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: Kept | None = None

    def _optimizer(self) -> Optimizer | None:
        """The optimizer of the model, if it is one of downslope's."""
        optimizer = _inner(self.model)
        return optimizer if isinstance(optimizer, Optimizer) else None

    def _enter(self) -> None:
        if self._kept is None and (optimizer := self._optimizer()) is not None:
            self._kept = optimizer._states.leave(optimizer._states.weights())

    def _leave(self) -> None:
        if self._kept is not None and (optimizer := self._optimizer()) is not None:
            optimizer._states.come_back(self._kept)
            self._kept = None

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: D102
        self._kept = None
        if (optimizer := self._optimizer()) is None:
            return
        optimizer._minded = True
        for name in LENT:
            _lend(self.model, name)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: D102
        self._leave()
        if (optimizer := self._optimizer()) is not None and optimizer.built:
            optimizer._states.to_lookahead()  # from a finished fit, or a state that was loaded

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: D102
        self._leave()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: D102
        self._enter()

    def on_test_begin(self, logs: Any = None) -> None:  # noqa: D102
        self._enter()

    def on_test_end(self, logs: Any = None) -> None:  # noqa: D102
        self._leave()

    def on_predict_begin(self, logs: Any = None) -> None:  # noqa: D102
        self._enter()

    def on_predict_end(self, logs: Any = None) -> None:  # noqa: D102
        self._leave()

    def on_train_end(self, logs: Any = None) -> None:  # noqa: D102
        self._kept = None  # fit has already given the model its final values
        if (optimizer := self._optimizer()) is not None:
            optimizer._minded = False
        for name in LENT:
            _take_back(self.model, name)


def _inner(model: Any) -> Any:
    """The optimizer a model was compiled with, inside of what scales its loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _lend(model: Any, name: str) -> None:
    """Have one method of this model called at the weights, also while the variables hold the point ahead of them."""
    method = getattr(model, name, None)
    if method is None or hasattr(method, "_lent"):  # by a fit that was interrupted
        return

    @functools.wraps(method)
    def called(*args: Any, **keywords: Any) -> Any:
        if keras.backend.backend() == "jax":
            model.jax_state_sync()  # as Keras does before a callback looks at a model
        optimizer = _inner(model)
        if not isinstance(optimizer, Optimizer) or not optimizer._states.are_ahead:
            return method(*args, **keywords)
        with optimizer.at_weights():
            found = method(*args, **keywords)
        optimizer._states.to_lookahead()  # where a state was loaded
        return found

    lent: Callable[..., Any] = called
    lent._lent = method  # type: ignore[attr-defined]
    setattr(model, name, lent)


def _take_back(model: Any, name: str) -> None:
    if hasattr(vars(model).get(name), "_lent"):
        delattr(model, name)
