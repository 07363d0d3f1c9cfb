"""A model of the user's own in training, whatever framework it is of: what an engine asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from downslope.lab.engines.entrant import Entrant
from downslope.lab.problems.tables import Task
from downslope.splitting.split import Split

LossName = Literal["mse", "cross-entropy"]

Loss = LossName | Callable[[Any, Any], Any]
"""How far outputs are from targets: by name, or a function `loss(outputs, targets)` that gives a mean over the rows."""

TASKS: dict[LossName, Task] = {"mse": "regression", "cross-entropy": "classification"}
"""What is learned with a loss."""

AT_A_TIME = 2048
"""Rows that are evaluated at a time."""


class Sight(NamedTuple):
    """All rows as a run sees them, arrays of NumPy."""

    x: NDArray[Any]
    y: NDArray[Any]


@dataclass(frozen=True)
class Stacking:
    """Whether runs are stacked.

    Attributes:
        lanes: How many at a time; 1: they are not.
        reason: That, and why, as a part of a sentence.
        fewest: Fewer runs than this are trained one at a time all the same.
    """

    lanes: int
    reason: str
    fewest: int = 4


class Learner(Protocol):
    """A model that is being trained: a run, in one framework."""

    def epoch(self, batches: NDArray[np.int32], factors: NDArray[np.float64] | None = None) -> float:
        """Train on some batches, one step each.

        Args:
            batches: Row numbers, shape `(steps, rows per step)`.
            factors: What the learning rate is multiplied by at each step; None: nothing.

        Returns:
            The mean of their losses, each taken where its gradient is.
        """

    def evaluate(self, rows: NDArray[np.int32]) -> tuple[float, float]:
        """Mean loss and accuracy on some rows: at the weights themselves, as the model is used and not trained.

        The accuracy is 0 where the loss is no cross-entropy by name.
        """

    def outputs(self, rows: NDArray[np.int32]) -> Any:
        """What the model says of some rows, as an array of NumPy where it is one array, else as it is."""

    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """A copy of the weights that are trained."""

    def split(self) -> Split:
        """Which of them are matrices between the first layer and the last."""


class Models(Protocol):
    """Models of one framework.

    Attributes:
        framework: Its name for people.
    """

    framework: str

    def begun(self, model: Any, seed: int) -> Any:
        """What a factory gave for a seed, as a model with its weights.

        Raises:
            ValueError: It is none.
        """

    def title(self, model: Any) -> str:
        """What a model is, for people."""

    def learner(self, model: Any, entrant: Entrant, lr: float, sight: Sight) -> Learner:
        """A new model, about to be trained by a rule.

        Raises:
            ValueError: It has nothing to train, or the rule cannot be run on it.
        """

    def arrays(self, model: Any) -> Mapping[str, NDArray[Any]]:
        """All that a model holds, by name: trained or not."""

    def places(self, model: Any) -> frozenset[int]:
        """Where in memory what is trained lies, as far as training changes it there."""

    def written(self, model: Any) -> str:
        """The code that makes such a model, as far as it can be told: `Net(...)`."""


def check_loss(loss: Any) -> None:
    """Refuse what is no loss.

    Raises:
        ValueError: It is none.
    """
    if isinstance(loss, str) and loss not in get_args(LossName):
        raise ValueError(
            f"loss={loss!r}: choose {' or '.join(map(repr, get_args(LossName)))}, or give a function "
            "loss(outputs, targets)"
        )
    if loss is not None and not isinstance(loss, str) and not callable(loss):
        raise ValueError(f"loss={loss!r} cannot be called; give a function loss(outputs, targets), or a name")


def described(make: Any, loss: Loss | None, task: Task) -> str:
    """What is told of a model: its factory, and the loss, which None leaves to what is learned.

    Example:
        >>> described(len, None, "regression")
        'The model len, with the loss mse, since the targets are quantities'
    """
    name = getattr(make, "__name__", type(make).__name__)
    if loss is not None:
        called = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        return f"The model {name}, with the loss {called}"
    usual = next(usual for usual, its in TASKS.items() if its == task)
    why = "classes" if task == "classification" else "quantities"
    return f"The model {name}, with the loss {usual}, since the targets are {why}"


def class_axis(outputs: tuple[int, ...], targets: tuple[int, ...]) -> int:
    """The axis of the classes of outputs with a shape, for classes of another: the last, or PyTorch's 1.

    Raises:
        ValueError: Neither goes, or both do.

    Example:
        >>> class_axis((32, 10), (32,)), class_axis((32, 10, 7), (32, 7))
        (1, 1)
    """
    last, second = outputs[:-1] == targets, outputs[:1] + outputs[2:] == targets
    if last and second and len(outputs) > 2:
        raise ValueError(f"loss: outputs of shape {outputs} may have the classes on two axes; give loss=a function")
    if not (last or second) or len(outputs) < 2:
        raise ValueError(
            f"loss: cross-entropy needs outputs of shape {(*targets, 'classes')}, one number for each class, and the "
            f"model gives {outputs}"
        )
    return len(outputs) - 1 if last else 1


def check_classes(found: int, needed: int) -> None:
    """Refuse outputs with fewer numbers than there are classes.

    Raises:
        ValueError: There are fewer.
    """
    if found < needed:
        raise ValueError(
            f"loss: the model gives {found} number{'s' if found != 1 else ''} for each row, and the targets are of "
            f"{needed} classes; end it with {needed} outputs, or give loss=a function"
        )


def check_quantities(outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """Refuse outputs that are not one number for each target; those of shape `(rows, 1)` fit targets of `(rows,)`.

    Raises:
        ValueError: There are more or fewer.
    """
    if [n for n in outputs[1:] if n != 1] != [n for n in targets[1:] if n != 1] or outputs[:1] != targets[:1]:
        raise ValueError(f"loss: the model gives outputs of shape {outputs} for targets of shape {targets}")


def adds_up(whole: float, mean: float) -> bool:
    """Whether the loss of a batch is the mean over its parts, as far as half precision can tell.

    Example:
        >>> adds_up(0.5, 0.501), adds_up(0.5, 0.52)
        (True, False)
    """
    return bool(np.isclose(whole, mean, rtol=1e-2, atol=1e-6, equal_nan=True))


def check_value(shape: tuple[int, ...]) -> None:
    """Refuse a loss that is not one number.

    Raises:
        ValueError: It is not.
    """
    if shape not in ((), (1,)):
        raise ValueError(f"loss: it gives an array of shape {shape}; give one number, such as its mean")
