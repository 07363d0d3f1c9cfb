"""Models of PyTorch in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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

KEPT = 4
"""So many splits of the rows are kept as tensors."""


class TorchModels:
    """Modules of PyTorch.

    Args:
        loss: What is minimised.
        classes: How many classes the targets are of, for a cross-entropy by name.
    """

    framework = "PyTorch"

    def __init__(self, loss: Loss, classes: int | None):
        self.loss, self.classes = loss, classes
        self._tensors: dict[tuple[int, torch.device], tuple[Sight, torch.Tensor, torch.Tensor]] = {}

    def begun(self, model: nn.Module, seed: int) -> nn.Module:
        """The module itself."""
        return model

    def title(self, model: nn.Module) -> str:
        """Its class."""
        return f"{type(model).__name__} of PyTorch"

    def learner(self, model: nn.Module, entrant: Entrant, lr: float, sight: Sight) -> TorchLearner:
        """A module about to be trained; one with lazy parameters has them made by the first rows.

        Raises:
            ValueError: It has nothing to train.
        """
        device = next((one.device for one in model.parameters()), torch.device("cpu"))
        x, y = self._on(device, sight)
        if any(isinstance(one, nn.parameter.UninitializedParameter) for one in model.parameters()):
            with torch.no_grad():
                model.eval()(x[:2])
        trained = [one for one in model.parameters() if one.requires_grad]
        if not trained:
            raise ValueError(f"the {type(model).__name__} has no parameter to train")
        return TorchLearner(self, model, trained, optimizer_for(model if entrant.rest else trained, entrant, lr), x, y)

    def _on(self, device: torch.device, sight: Sight) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows as tensors on a device; those of the last few splits are kept."""
        key = (id(sight.x), device)
        if key not in self._tensors:
            if len(self._tensors) >= KEPT:
                del self._tensors[next(iter(self._tensors))]
            y = sight.y.astype(np.int64) if sight.y.dtype.kind == "i" else sight.y
            self._tensors[key] = (sight, torch.from_numpy(sight.x).to(device), torch.from_numpy(y).to(device))
        return self._tensors[key][1:]

    def arrays(self, model: nn.Module) -> Mapping[str, NDArray[Any]]:
        """All parameters and buffers."""
        lazy = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
        held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return {
            name: one.detach().to("cpu", copy=True).float().numpy()
            for name, one in held.items()
            if not isinstance(one, lazy)
        }

    def places(self, model: nn.Module) -> frozenset[int]:
        """The addresses of all parameters and buffers."""
        held = (*model.parameters(), *model.buffers())
        return frozenset(id(one) if not one.numel() else one.data_ptr() for one in held if not _is_lazy(one))

    def written(self, model: nn.Module) -> str:
        """The code of a sequence of PyTorch's own layers; of another module its name."""
        children = list(model.children())
        plain = all(type(one).__module__.startswith("torch.nn.") and not list(one.children()) for one in children)
        if type(model) is nn.Sequential and plain and children:
            return f"nn.Sequential({', '.join(f'nn.{one}' for one in children)})"
        return f"{type(model).__name__}(...)"

    def value(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        loss = self.loss
        if not isinstance(loss, str):
            found = loss(outputs, targets)
            if not isinstance(found, torch.Tensor):
                raise ValueError(f"loss: it gives a {type(found).__name__}; give a tensor of one number")
            check_value(tuple(found.shape))
            return found.squeeze()
        if not isinstance(outputs, torch.Tensor):
            raise ValueError(f"loss: the model gives a {type(outputs).__name__}; give loss=a function that takes it")
        if loss == "mse":
            check_quantities(tuple(outputs.shape), tuple(targets.shape))
            return nn.functional.mse_loss(outputs, targets.reshape(outputs.shape))
        return nn.functional.cross_entropy(outputs.movedim(self._axis(outputs, targets), 1), targets)

    def values(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The losses of many batches at once, by name; both tensors have the batch as their first axis."""
        first, its = outputs[0], targets[0]
        if self.loss == "mse":
            check_quantities(tuple(first.shape), tuple(its.shape))
            losses = nn.functional.mse_loss(outputs, targets.reshape(outputs.shape), reduction="none")
        else:
            scores = outputs.movedim(1 + self._axis(first, its), 2).flatten(0, 1)
            losses = nn.functional.cross_entropy(scores, targets.flatten(0, 1), reduction="none")
        return losses.reshape(len(outputs), -1).mean(1)

    def _axis(self, outputs: torch.Tensor, targets: torch.Tensor) -> int:
        """Along which axis of the outputs of a batch the classes are."""
        axis = class_axis(tuple(outputs.shape), tuple(targets.shape))
        check_classes(outputs.shape[axis], self.classes or 0)
        return axis


class Rates:
    """The learning rates of an optimizer of PyTorch, which a schedule multiplies.

    Args:
        optimizer: With the rates that are multiplied; groups of its parameters may leave it later.
    """

    def __init__(self, optimizer: Any):
        self._groups = optimizer.param_groups
        for group in self._groups:
            group.setdefault("initial_lr", group["lr"])  # where PyTorch's own schedulers keep it

    def follow(self, factors: NDArray[np.float64] | None, step: int) -> None:
        """Set them for a step; None: leave them."""
        if factors is not None:
            for group in self._groups:
                group["lr"] = group["initial_lr"] * float(factors[step])


class TorchLearner:
    """A module that is being trained: a `Learner`."""

    def __init__(
        self,
        models: TorchModels,
        model: nn.Module,
        trained: list[nn.Parameter],
        optimizer: Any,
        x: torch.Tensor,
        y: torch.Tensor,
    ):
        self.models, self.model, self.trained, self.optimizer = models, model, trained, optimizer
        self.x, self.y = x, y
        self._rates = Rates(optimizer)

    def epoch(self, batches: NDArray[np.int32], factors: NDArray[np.float64] | None = None) -> float:
        """Train on some batches; see `Learner`."""
        self.model.train()
        total = torch.zeros((), device=self.x.device, dtype=torch.float64)
        for step, rows in enumerate(torch.from_numpy(batches).long().to(self.x.device)):
            self._rates.follow(factors, step)
            self.optimizer.zero_grad()
            loss = self.models.value(self.model(self.x[rows]), self.y[rows])
            if not loss.requires_grad:
                raise ValueError("loss: it does not depend on what is trained; is something detached, or no_grad?")
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach()
        return float(total) / len(batches)

    def evaluate(self, rows: NDArray[np.int32]) -> tuple[float, float]:
        """Mean loss and accuracy; see `Learner`."""
        self.model.eval()
        loss, hits = 0.0, 0.0
        with torch.no_grad(), self.optimizer.at_weights():
            for first in range(0, len(rows), AT_A_TIME):
                some = torch.from_numpy(rows[first : first + AT_A_TIME]).long().to(self.x.device)
                outputs, targets = self.model(self.x[some]), self.y[some]
                loss += len(some) * float(self.models.value(outputs, targets))
                if self.models.loss == "cross-entropy":
                    axis = class_axis(tuple(outputs.shape), tuple(targets.shape))
                    right = outputs.argmax(axis) == targets
                    hits += len(some) * float(right.double().mean())
        return loss / len(rows), hits / len(rows)

    def outputs(self, rows: NDArray[np.int32]) -> Any:
        """What the module says; see `Learner`."""
        self.model.eval()
        with torch.no_grad(), self.optimizer.at_weights():
            found = self.model(self.x[torch.from_numpy(rows).long().to(self.x.device)])
        return found.cpu().numpy() if isinstance(found, torch.Tensor) else found

    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """A copy of the weights; see `Learner`."""
        with self.optimizer.at_weights():
            return tuple(one.detach().to("cpu", torch.float32, copy=True).numpy() for one in self.trained)

    def split(self) -> Split:
        """Which parameters are inner matrices; see `Learner`."""
        return split(self.model)


def _is_lazy(one: Any) -> bool:
    return isinstance(one, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer))
