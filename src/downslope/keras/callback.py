"""The callback for rules with a look-ahead."""

from __future__ import annotations

from typing import Any

import keras

from downslope.keras import points
from downslope.keras.optimizer import Optimizer


class AtWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """Has `fit` validate at the weights, for a rule that takes its gradients ahead of them.

    During training the model's variables hold the point ahead. This callback moves them to the weights for every
    validation, and back before training goes on. It also makes a second `fit` start exactly where the first one left
    off: without it, the first gradient of the second is taken at the weights, where every `fit` leaves the model. With
    rules that have no look-ahead it does nothing.

    Args:
        swap_on_epoch: Also hold the weights from the end of an epoch to the beginning of the next, for callbacks that
            come after this one, such as `keras.callbacks.ModelCheckpoint`.

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

    def __init__(self, swap_on_epoch: bool = False):
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._kept: points.Kept | None = None

    def _optimizer(self) -> Optimizer:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"AtWeights is for downslope's optimizers; the model was compiled with a {type(optimizer).__name__}"
            )
        return optimizer

    def _enter(self) -> None:
        if self._kept is None:
            optimizer = self._optimizer()
            self._kept = points.leave(optimizer, points.weights(optimizer))

    def _leave(self) -> None:
        points.come_back(self._optimizer(), self._kept)
        self._kept = None

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: D102
        optimizer = self._optimizer()
        if optimizer.built:
            points.to_lookahead(optimizer)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: D102
        self._leave()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: D102
        if self.swap_on_epoch:
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
