"""Models of Keras in training, on any of its backends.

What Keras compiles belongs to a model and its optimizer, and takes longer than many a run. So all runs of a rule are
trained by one model that has been compiled once: it is given all variables of a new model, and keeps the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.entrant import Entrant
from downslope.lab.engines.learner import (
    AT_A_TIME,
    Loss,
    Sight,
    check_classes,
    check_quantities,
    check_value,
    class_axis,
)
from downslope.lab.engines.optimizers import optimizer_for
from downslope.splitting.models import split
from downslope.splitting.split import Split


class KerasModels:
    """Models of Keras.

    Args:
        loss: What is minimised.
        classes: How many classes the targets are of, for a cross-entropy by name.
        sample: Some rows, by which a model without an input shape is built.
    """

    framework = "Keras"

    def __init__(self, loss: Loss, classes: int | None, sample: NDArray[Any]):
        self.loss, self.classes, self.sample = loss, classes, sample
        self._compiled: dict[int, tuple[Entrant, Any, list[NDArray[Any]]]] = {}

    def begun(self, model: Any, seed: int) -> Any:
        """The model, built."""
        if not model.built:
            model(self.sample)
        return model

    def title(self, model: Any) -> str:
        """Its class."""
        return f"{type(model).__name__} of Keras"

    def learner(self, model: Any, entrant: Entrant, lr: float, sight: Sight) -> KerasLearner:
        """A model about to be trained.

        Raises:
            ValueError: It has nothing to train, or Keras cannot run the rule.
        """
        if not model.trainable_variables:
            raise ValueError(f"the {type(model).__name__} has no variable to train")
        program = entrant.settings.program
        begins_at_weights = any(program.initial(name, {**entrant.numbers, "lr": lr}) is None for name in program.states)
        known = None if begins_at_weights else self._compiled.get(id(entrant))
        if known is None:
            optimizer = optimizer_for(model if entrant.rest else None, entrant, lr, lookahead="stored")
            whole = sight.y.dtype.kind == "i"
            model.compile(optimizer=optimizer, loss=_Minimised(self, whole))
            optimizer.build(model.trainable_variables)
            starts = [np.array(variable) for variable in optimizer.variables]
            self._compiled[id(entrant)] = (entrant, model, starts)
            return KerasLearner(self, model, entrant, lr, sight)
        _, compiled, starts = known
        for mine, new in zip(compiled.variables, model.variables, strict=True):
            mine.assign(new)
        for variable, start in zip(compiled.optimizer.variables, starts, strict=True):
            variable.assign(start)
        learner = KerasLearner(self, compiled, entrant, lr, sight)
        learner.set_rate(1.0)
        return learner

    def arrays(self, model: Any) -> Mapping[str, NDArray[Any]]:
        """All variables, the states of generators too; Keras counts the names of layers on, so they are numbered."""
        return {f"{place}: {one.name}": np.array(one) for place, one in enumerate(model.variables)}

    def places(self, model: Any) -> frozenset[int]:
        """Which variables it has."""
        return frozenset(map(id, model.variables))

    def written(self, model: Any) -> str:
        """Its class."""
        return f"{type(model).__name__}(...)"

    def value(self, outputs: Any, targets: Any) -> Any:
        """The loss of a batch."""
        ops = keras.ops
        if isinstance(self.loss, keras.losses.Loss):
            found = self.loss(targets, outputs)
        elif not isinstance(self.loss, str):
            found = self.loss(outputs, targets)
        elif self.loss == "mse":
            check_quantities(tuple(outputs.shape), tuple(targets.shape))
            return ops.mean(ops.square(outputs - ops.reshape(targets, ops.shape(outputs))))
        else:
            axis = class_axis(tuple(outputs.shape), tuple(targets.shape))
            check_classes(outputs.shape[axis], self.classes or 0)
            logits = ops.moveaxis(outputs, axis, -1)
            return ops.mean(ops.sparse_categorical_crossentropy(targets, logits, from_logits=True))
        if not hasattr(found, "shape"):
            raise ValueError(f"loss: it gives a {type(found).__name__}; give a tensor of one number")
        check_value(tuple(found.shape))
        return ops.reshape(found, ())


class KerasLearner:
    """A model that is being trained: a `Learner`."""

    def __init__(self, models: KerasModels, model: Any, entrant: Entrant, lr: float, sight: Sight):
        self.models, self.model, self.sight = models, model, sight
        beside = entrant.rest_at(lr)
        self._rates = [lr] if beside is None else [lr, beside[1]]
        self._optimizers = getattr(model.optimizer, "optimizers", [model.optimizer])

    def set_rate(self, factor: float) -> None:
        """Set the learning rate of the run, and of what trains the rest beside its rule, times a factor."""
        for optimizer, lr in zip(self._optimizers, self._rates, strict=True):
            optimizer.learning_rate = lr * factor

    @contextlib.contextmanager
    def _at_weights(self) -> Iterator[None]:
        with contextlib.ExitStack() as around:
            for optimizer in self._optimizers:
                around.enter_context(optimizer.at_weights())
            yield

    def epoch(self, batches: NDArray[np.int32], factors: NDArray[np.float64] | None = None) -> float:
        """Train on some batches; see `Learner`. Keras tells the mean over all since its metrics were reset."""
        self.model.reset_metrics()
        mean = 0.0
        for step, rows in enumerate(batches):
            if factors is not None:
                self.set_rate(float(factors[step]))
            mean = float(self.model.train_on_batch(self.sight.x[rows], self.sight.y[rows]))
        return mean

    def evaluate(self, rows: NDArray[np.int32]) -> tuple[float, float]:
        """Mean loss and accuracy; see `Learner`."""
        loss, hits = 0.0, 0.0
        with self._at_weights():
            for first in range(0, len(rows), AT_A_TIME):
                some = rows[first : first + AT_A_TIME]
                outputs, targets = self.model.predict_on_batch(self.sight.x[some]), self.sight.y[some]
                tensor = keras.tree.map_structure(keras.ops.convert_to_tensor, outputs)
                loss += len(some) * float(self.models.value(tensor, keras.ops.convert_to_tensor(targets)))
                if self.models.loss == "cross-entropy":
                    right = outputs.argmax(class_axis(outputs.shape, targets.shape)) == targets
                    hits += len(some) * float(right.mean())
        return loss / len(rows), hits / len(rows)

    def outputs(self, rows: NDArray[np.int32]) -> Any:
        """What the model says; see `Learner`."""
        with self._at_weights():
            return self.model.predict_on_batch(self.sight.x[rows])

    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """A copy of the weights; see `Learner`."""
        with self._at_weights():
            return tuple(np.array(one, np.float32) for one in self.model.trainable_variables)

    def split(self) -> Split:
        """Which variables are inner matrices; see `Learner`."""
        return split(self.model)


class _Minimised(keras.losses.Loss):  # type: ignore[misc]
    """The loss as Keras calls it, whose targets have become floats on the way; JAX has no integers of 64 bits."""

    def __init__(self, models: KerasModels, whole: bool):
        super().__init__(name="loss", reduction=None)
        self._models, self._whole = models, whole

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        targets = keras.ops.cast(y_true, "int32") if self._whole else y_true
        return self._models.value(y_pred, targets)
