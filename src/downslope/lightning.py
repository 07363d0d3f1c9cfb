"""Lightning: what it evaluates, watches and saves are the weights themselves, for rules with a look-ahead too.

Lightning asks installed packages for callbacks, through the entry points `pytorch_lightning.callbacks_factory` and
`lightning.pytorch.callbacks_factory`; the one here calls `train()` before every batch of training and `eval()` before
whatever reads the weights. It does nothing for other optimizers, and imports no framework that is not there already.
"""

from __future__ import annotations

import functools
import sys
from typing import Any


def pytorch_lightning_callbacks() -> list[Any]:
    """The callback, for the package `pytorch_lightning`."""
    return [_kind("pytorch_lightning")()]


def lightning_callbacks() -> list[Any]:
    """The callback, for the package `lightning`."""
    return [_kind("lightning.pytorch")()]


@functools.cache
def _kind(package: str) -> type:
    return type("AtWeights", (_AtWeights, sys.modules[package].Callback), {"averages": _averages(package)})


def _averages(package: str) -> tuple[type, ...]:
    """The callbacks that read the weights after every batch of training."""
    found = getattr(sys.modules[f"{package}.callbacks"], "WeightAveraging", None)
    return () if found is None else (found,)


class _AtWeights:
    """The parameters hold the point ahead from the beginning of a batch of training to its end or a little later."""

    averages: tuple[type, ...] = ()

    def __init__(self) -> None:
        self._in_batch, self._every_batch = False, False
        self._hook: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Come before all other callbacks: they are to find the weights where this one puts them."""
        trainer.callbacks = [self, *(callback for callback in trainer.callbacks if callback is not self)]
        self._every_batch = any(isinstance(callback, self.averages) for callback in trainer.callbacks)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Have checkpoints between two batches save the weights themselves."""

        def to_weights(*_: Any) -> None:
            if not self._in_batch:
                _move(trainer, "eval")

        self._in_batch = False
        self._hook = pl_module.register_state_dict_pre_hook(to_weights)

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """Move to where gradients are taken."""
        self._in_batch = True
        if not getattr(trainer.fit_loop, "_skip_backward", False):  # as for the statistics of averaged weights
            _move(trainer, "train")

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Move to the weights if an average of them is updated after every batch."""
        self._in_batch = False
        if self._every_batch:
            _move(trainer, "eval")

    def to_weights(self, trainer: Any, *_: Any) -> None:
        """Move to the weights."""
        self._in_batch = False
        _move(trainer, "eval")

    on_train_epoch_end = on_train_end = to_weights
    on_validation_start = on_test_start = on_predict_start = to_weights

    def on_exception(self, trainer: Any, *_: Any) -> None:
        """Move to the weights, unless it was in the middle of a step or of a block."""
        self._in_batch = False
        for optimizer in _optimizers(trainer):
            if not optimizer._progress.away:
                optimizer.eval()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the module as it was."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def _move(trainer: Any, mode: str) -> None:
    for optimizer in _optimizers(trainer):
        getattr(optimizer, mode)()


def _optimizers(trainer: Any) -> list[Any]:
    """The trainer's optimizers that are downslope's: none, if nobody has imported them."""
    module = sys.modules.get("downslope.torch.optimizer")
    return [] if module is None else [o for o in trainer.optimizers if isinstance(o, module.Optimizer)]
